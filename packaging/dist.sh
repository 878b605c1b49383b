#!/bin/sh
# Packs a release into a directory, with the same bytes each time: dist.sh DIRECTORY
#   stalld-VERSION.tar.xz         the source, as it is in the work tree
#   stalld-VERSION-vendor.tar.xz  vendor/, with the crates that it is built from
#   stalld-VERSION.cdx.json       the list of its parts, in the format CycloneDX
# CARGO is the cargo command to ask, and SOURCE_DATE_EPOCH the time of all packed files.
set -eu
cd "$(dirname "$0")/.."
. packaging/version.sh

output=$1
mkdir -p "$output"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

git ls-files --error-unmatch Cargo.toml >/dev/null 2>&1 || {
    echo "stalld: 'make dist' packs what git knows of, and this is no work tree of git" >&2
    exit 1
}
git ls-files -z | pack "$output/stalld-$version.tar" --null --files-from=- --transform="flags=r;s|^|stalld-$version/|"
${CARGO:-cargo} vendor --quiet --versioned-dirs "$work/vendor" >/dev/null
pack "$output/stalld-$version-vendor.tar" -C "$work" vendor
sh packaging/sbom.sh >"$output/stalld-$version.cdx.json"
ls -l "$output/stalld-$version"*
