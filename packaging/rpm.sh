#!/bin/sh
# Builds the RPM packages from the tarballs in a directory, and puts them there: rpm.sh DIRECTORY
# RPMFLAGS has more options for rpmbuild.
set -eu
cd "$(dirname "$0")/.."
. packaging/version.sh
. packaging/offline.sh

output=$(cd "$1" && pwd)
work=$output/build-rpm
rm -rf "$work"
mkdir -p "$work/SOURCES"
ln "$output/stalld-$version.tar.xz" "$output/stalld-$version-vendor.tar.xz" "$work/SOURCES"
cp packaging/rpm/stalld.spec "$work"
cd "$work"

# On a system with another package manager rpm knows no installed packages, hence --nodeps. The
# Makefile has checked for the tools.
build() {
    $offline rpmbuild --nodeps "$@" \
        --define "_buildhost localhost" \
        --define "use_source_date_epoch_as_buildtime 1" \
        --define "clamp_mtime_to_source_date_epoch 1" \
        stalld.spec
}

# A source package contains the spec with expanded paths, and a binary package from the same run
# contains the checksum of the source package. So each has a run of its own. The source package, for
# which nothing is compiled, has relative paths, so that it is the same everywhere.
# shellcheck disable=SC2086 # a list of words
build -bb --define "_topdir $work" ${RPMFLAGS-}
build -bs --define "_topdir ."
find . -name '*.rpm' -exec mv {} "$output" \;
cd "$output"
rm -rf "$work"
ls -l ./*.rpm
