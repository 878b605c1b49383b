#!/bin/sh
# Checks that the committed generated sources are what the headers give now: regen.sh COMMAND...
# where the command writes them again. Without libclang that is skipped, except in CI.
set -eu
cd "$(dirname "$0")/.."

generated=src/observe/bpf/records.rs

if [ "${CI-}" != true ] && ! reason=$(sh packaging/setup.sh --check regen 2>&1); then
    echo "skipped: $generated against its header ($reason)"
    exit
fi
before=$(mktemp)
trap 'rm -f "$before"' EXIT
cp -p $generated "$before"
"$@"
cmp -s "$before" $generated || {
    echo "stalld: $generated was not what its header gives: commit what 'make regen' has written now" >&2
    exit 1
}
# With the old time of change, so that nothing is built again for nothing.
cp -p "$before" $generated
