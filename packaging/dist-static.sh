#!/bin/sh
# Packs the static binaries and all that belongs to them, the same bytes each time: dist-static.sh DIRECTORY
# MAKE is the make to install by, STATIC stalld, with stallstat, the list of what is in them and its licences beside it.
set -eu
cd "$(dirname "$0")/.."
. packaging/version.sh
umask 022

output=$1
name=stalld-$version-$(uname -m)-static
mkdir -p "$output"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

mkdir "$work/$name"
"${MAKE:-make}" --no-print-directory install BINARY="$STATIC" LIBRARY=none DESTDIR="$work/$name/root" PREFIX=/usr CONFDIR=/etc/default >/dev/null
cp packaging/install.sh "$work/$name"
install -m 644 -t "$work/$name/root/usr/share/doc/stalld" "$(dirname "$STATIC")/NOTICES.txt"
install -m 644 -t "$work/$name" "$(dirname "$STATIC")/stalld.cdx.json"
(cd "$work/$name" && find . -type f ! -name SHA256SUMS | sed 's|^\./||' | sort | xargs sha256sum >"$work/sums" &&
    mv "$work/sums" SHA256SUMS)
pack "$output/$name.tar" -C "$work" "$name"
ls -l "$output/$name.tar.xz"
