#!/bin/sh
# Writes tests/vm/kernels.lock anew: the kernels that Debian's suites have today.
set -eu
cd "$(dirname "$0")/../.."
. tests/vm/apt.sh

field() {
    in_suite "$suite" apt-cache show --no-all-versions "$package" | sed -n "s/^$1: //p"
}

# What the suite's newest kernel is, is in the dependencies of a package without files; from 7.2 on the image is in
# another package still.
image_of() {
    package=$1
    while next=$(field Depends | tr ,\| '\n' | sed -n 's/^ *\(linux-\(image\|binary\)-[^ ]*\).*/\1/p' | head -n 1) &&
        [ -n "$next" ]; do
        package=$next
    done
}

{
    sed -n '/^#/p' "$lock"
    for suite in bullseye bookworm trixie sid; do
        in_suite $suite apt-get -q -q update
        for flavour in '' -rt; do
            image_of "linux-image$flavour-amd64"
            version=$(field Version)
            name=$(echo "$version" | sed 's/^\([0-9]*\.[0-9]*\).*/\1/')$flavour
            echo "$name $suite $package $version $(field SHA256)"
        done
    done
} >"$cache/kernels.lock"
mv "$cache/kernels.lock" "$lock"
