#!/bin/sh
# Builds the RPM packages from the tarballs in a directory, and puts them there: rpm.sh DIRECTORY
set -eu
cd "$(dirname "$0")/.."
. packaging/version.sh
. packaging/offline.sh

output=$(cd "$1" && pwd)
work=$output/build-rpm
rm -rf "$work"
mkdir -p "$work"
# Without dependencies: on a system with another package manager rpm knows of nothing that is installed, and the check
# for the tools has been made.
$offline rpmbuild -ba --nodeps \
    --define "_topdir $work" \
    --define "_sourcedir $output" \
    --define "_rpmdir $work/RPMS" \
    --define "_srcrpmdir $work/RPMS" \
    --define "_buildhost localhost" \
    --define "use_source_date_epoch_as_buildtime 1" \
    --define "clamp_mtime_to_source_date_epoch 1" \
    packaging/rpm/stalld.spec
find "$work/RPMS" -name '*.rpm' -exec mv {} "$output" \;
rm -rf "$work"
ls -l "$output"/*.rpm
