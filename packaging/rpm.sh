#!/bin/sh
# Builds the RPM packages from the tarballs in a directory, and puts them there: rpm.sh DIRECTORY [OPTIONS OF RPMBUILD...]
set -eu
cd "$(dirname "$0")/.."
. packaging/version.sh
. packaging/offline.sh

output=$(cd "$1" && pwd)
shift
work=$output/build-rpm
rm -rf "$work"
mkdir -p "$work/SOURCES"
ln "$output/stalld-$version.tar.xz" "$output/stalld-$version-vendor.tar.xz" "$work/SOURCES"
cp packaging/rpm/stalld.spec "$work"
cd "$work"

# Without dependencies: on a system with another package manager rpm knows of nothing that is installed, and the check
# for the tools has been made.
build() {
    $offline rpmbuild --nodeps "$@" \
        --define "_buildhost localhost" \
        --define "use_source_date_epoch_as_buildtime 1" \
        --define "clamp_mtime_to_source_date_epoch 1" \
        stalld.spec
}

# A source package has the spec with all paths filled in, and a binary package that is built along with it has its sum. So
# each is built for itself, and the source package, for which nothing is run, with paths that are the same everywhere.
build -bb --define "_topdir $work" "$@"
build -bs --define "_topdir ."
find . -name '*.rpm' -exec mv {} "$output" \;
cd "$output"
rm -rf "$work"
ls -l ./*.rpm
