#!/bin/sh
# Builds all packages a second time, in another directory, and compares them byte for byte:
#   built_again.sh DIRECTORY
set -eu
cd "$(dirname "$0")/.."
. tests/checks.sh

packages=$(cd "$1" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# This directory has another length and depth than the first one, and its files have other times.
again=$work/another/directory/for/stalld
mkdir -p "$again"
tar -c --exclude=./target . | tar -x --no-same-owner -C "$again"
find "$again" -type f ! -path '*/.git/*' -exec touch {} +

echo "built again in another directory:"
# The first build has run the tests.
(cd "$again" && env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL DEB_BUILD_OPTIONS=nocheck \
    make --no-print-directory deb rpm dist-static RPMFLAGS=--nocheck DIST="$work/packages") \
    >"$work/log" 2>&1 || {
    tail -n 20 "$work/log" >&2
    failed "there is no second build"
    exit "$status"
}

for file in "$work/packages"/*.deb "$work/packages"/*.rpm "$work/packages"/*.tar.xz "$work/packages"/*.cdx.json; do
    name=${file##*/}
    if cmp "$packages/$name" "$file"; then ok "$name has the same bytes"; else
        failed "$name has other bytes"
        # Keeps the file, so that diffoscope can compare it.
        mkdir -p target/differs
        cp "$file" target/differs
    fi
done
exit "$status"
