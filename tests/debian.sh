#!/bin/sh
# Makes a Debian to copy from in target/roots, with the libraries that the packages need, if it isn't there: debian.sh NAME
set -eu
cd "$(dirname "$0")/.."
roots=$PWD/target/roots
[ ! -d "$roots/$1" ] || exit 0
mkdir -p "$roots"
rm -rf "$roots/$1.new"
debootstrap --variant=minbase --include=systemd,libelf-dev,zlib1g-dev,procps "$1" "$roots/$1.new" >"$roots/$1.log" 2>&1 || {
    tail -n 5 "$roots/$1.log" >&2
    exit 1
}
mv "$roots/$1.new" "$roots/$1"
