#!/bin/sh
# Checks that the committed generated files are what their sources give now. Without libclang only
# the files that need none are checked, except in CI.
set -eu
cd "$(dirname "$0")/.."

generated="packaging/completions/* man/stalld.8 man/stallstat.8"
headers="src/observe/bpf/records.rs src/stat/bpf_abi.rs include/stalld.h"
target=regen
if [ "${CI-}" = true ] || reason=$(sh packaging/setup.sh --check regen 2>&1); then
    generated="$generated $headers"
else
    echo "skipped: $headers against their sources ($reason)"
    target=regen-options
fi
before=$(mktemp -d)
trap 'rm -rf "$before"' EXIT
for file in $generated; do
    mkdir -p "$before/${file%/*}"
    cp -p "$file" "$before/$file"
done
make --no-print-directory "$target"
for file in $generated; do
    cmp -s "$before/$file" "$file" || {
        echo "stalld: $file was not what its source gives: commit what 'make regen' has written now" >&2
        exit 1
    }
    # Keeps the old modification time, so that nothing is rebuilt needlessly.
    cp -p "$before/$file" "$file"
done
