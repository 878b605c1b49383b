#!/bin/sh
# Builds the Debian packages from the tarballs in a directory, and puts them there: deb.sh DIRECTORY
set -eu
cd "$(dirname "$0")/.."
. packaging/version.sh
. packaging/offline.sh

output=$(cd "$1" && pwd)
work=$output/build-deb
rm -rf "$work"
mkdir -p "$work"
cd "$work"
tar -xf "$output/stalld-$version.tar.xz"
ln "$output/stalld-$version.tar.xz" "stalld_$version.orig.tar.xz"
ln "$output/stalld-$version-vendor.tar.xz" "stalld_$version.orig-vendor.tar.xz"
cd "stalld-$version"
tar -xf "$output/stalld-$version-vendor.tar.xz"
cp -R packaging/debian debian
# The packages of the tools have other names on other systems, so dpkg's own check is off. The
# Makefile has checked for the tools.
# shellcheck disable=SC2086 # a list of words
$offline dpkg-buildpackage --no-check-builddeps --unsigned-source --unsigned-changes
cd ..
rm -rf "stalld-$version"
mv stalld* lib* "$output" 2>/dev/null || :
cd "$output"
rmdir "$work"
ls -l ./*.deb
