#!/bin/sh
# Prints where the kernel (or busybox) of a line of tests/vm/kernels.lock is, and downloads it if it isn't: fetch.sh NAME
set -eu
cd "$(dirname "$0")/../.."
. tests/vm/apt.sh

line=$(grep "^$1 " "$lock") || die "$lock has no kernel '$1': $(sed -n '/^#/!s/ .*//p' "$lock" | paste -s -d ' ')"
# shellcheck disable=SC2086 # the words of the line
set -- $line
name=$1 suite=$2 package=$3 version=$4 sum=$5
# The sum is in the name, so that another lock finds another file.
kernel=$cache/$name-$(echo "$sum" | cut -c 1-12)
if [ ! -e "$kernel" ]; then
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    here=$PWD
    {
        in_suite "$suite" apt-get -q update
        cd "$work" && in_suite "$suite" apt-get -q download "$package=$version" && cd "$here"
    } >&2 || die "$suite has no $package=$version any more: sh tests/vm/refresh.sh"
    echo "$sum $(echo "$work"/*.deb)" | sha256sum --check --quiet >&2 || die "$package is not what $lock says"
    dpkg-deb -x "$work"/*.deb "$work/files"
    # A kernel's image lies in /boot, or from 7.2 on beside the modules.
    mv "$(find "$work/files" '(' -name 'vmlinu[xz]*' -o -name busybox -perm -1 ')' -type f | head -n 1)" "$kernel"
fi
echo "$kernel"
