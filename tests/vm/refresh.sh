#!/bin/sh
# Writes tests/vm/kernels.lock anew: the kernels that Debian's suites have today, and what foreign ones need to run a script.
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
    while read -r suite flavour name; do
        in_suite "$suite" apt-get -q -q update
        case $flavour in
        busybox*) package=$flavour number=busybox ;;
        *) image_of "linux-image-$flavour" && number=$(field Version | sed 's/^\([0-9]*\.[0-9]*\).*/\1/') ;;
        esac
        echo "$number$name $suite $package $(field Version) $(field SHA256)"
    done <<END
$(for suite in bullseye bookworm trixie sid; do
        echo "$suite amd64"
        echo "$suite rt-amd64 -rt"
    done)
trixie@arm64 arm64 -aarch64
trixie@s390x s390x -s390x
trixie@riscv64 riscv64 -riscv64
trixie@ppc64el powerpc64le-64k -ppc64le
bookworm@i386 686-pae -i686
trixie@arm64 busybox-static -aarch64
trixie@s390x busybox-static -s390x
trixie@riscv64 busybox-static -riscv64
trixie@ppc64el busybox-static -ppc64le
bookworm@i386 busybox-static -i686
END
} >"$cache/kernels.lock"
mv "$cache/kernels.lock" "$lock"
