#!/bin/sh
# Checks that the committed generated files are what their sources give now: regen.sh COMMAND...
# where the command writes them again. Without libclang that is skipped, except in CI.
set -eu
cd "$(dirname "$0")/.."

generated="src/observe/bpf/records.rs src/stat/records.rs include/stalld.h"

if [ "${CI-}" != true ] && ! reason=$(sh packaging/setup.sh --check regen 2>&1); then
    echo "skipped: $generated against their sources ($reason)"
    exit
fi
before=$(mktemp -d)
trap 'rm -rf "$before"' EXIT
for file in $generated; do
    mkdir -p "$before/${file%/*}"
    cp -p "$file" "$before/$file"
done
"$@"
for file in $generated; do
    cmp -s "$before/$file" "$file" || {
        echo "stalld: $file was not what its source gives: commit what 'make regen' has written now" >&2
        exit 1
    }
    # With the old time of change, so that nothing is built again for nothing.
    cp -p "$before/$file" "$file"
done
