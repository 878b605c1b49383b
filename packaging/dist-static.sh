#!/bin/sh
# Packs the static binaries and all that belongs to them, with the same bytes each time:
#   dist-static.sh DIRECTORY
# STATIC is stalld; stallstat, the list of parts and the licences are beside it.
set -eu
cd "$(dirname "$0")/.."
. packaging/version.sh
umask 022

output=$1
STATIC=${STATIC:-target/static/stalld}
name=stalld-$version-$(uname -m)-static
mkdir -p "$output"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

mkdir "$work/$name"
make --no-print-directory install BINARY="$STATIC" LIBRARY=none DESTDIR="$work/$name/root" PREFIX=/usr \
    CONFDIR=/etc/default >/dev/null
cp packaging/install.sh "$work/$name"
install -m 644 -t "$work/$name/root/usr/share/doc/stalld" "$(dirname "$STATIC")/NOTICES.txt"
install -m 644 -t "$work/$name" "$(dirname "$STATIC")/stalld.cdx.json"
(cd "$work/$name" && find . -type f ! -name SHA256SUMS | sed 's|^\./||' | sort | xargs sha256sum >"$work/sums" &&
    mv "$work/sums" SHA256SUMS)
pack "$output/$name.tar" -C "$work" "$name"
ls -l "$output/$name.tar.xz"
