#!/bin/sh
# Prints what is inside the program, in the form of CycloneDX 1.5: sbom.sh [CARGO FEATURES...]
# The crates are those that are linked; what libbpf-sys brings in C is named besides. CARGO is the cargo command to ask.
set -eu
cd "$(dirname "$0")/.."
. packaging/version.sh

# A line each: name, version, licence, and the path of the source or nothing.
crates=$(${CARGO:-cargo} tree --quiet --edges normal --prefix none --format '{p}|{l}' "$@" | sort -u | sed 's/ (\*)$//' |
    sed -n 's/^\([^ ]*\) v\([^ |]*\)[^|]*|\(.*\)/\1|\2|\3/p' | grep -v '^stalld|')

# What the crate libbpf-sys has in its directory.
in_libbpf_sys() {
    directory=$(${CARGO:-cargo} metadata --quiet --format-version 1 "$@" |
        grep -o '"manifest_path":"[^"]*/libbpf-sys-[^"]*"' | head -n 1 | sed 's/.*:"\(.*\)\/Cargo.toml"/\1/')
    libbpf=$(sed -n 's/^LIBBPF_M[AI][JN]OR_VERSION := //p' "$directory/libbpf/src/Makefile" | paste -s -d .)
    echo "libbpf|$libbpf.0|LGPL-2.1-only OR BSD-2-Clause"
    case " $* " in
    *vendored*)
        elfutils=$(sed -n 's/^AC_INIT(\[elfutils\],\[\([^]]*\)\].*/\1/p' "$directory/elfutils/configure.ac")
        zlib=$(sed -n 's/^#define ZLIB_VERSION "\(.*\)"/\1/p' "$directory/zlib/zlib.h")
        echo "elfutils|$elfutils|LGPL-3.0-or-later OR GPL-2.0-or-later"
        echo "zlib|$zlib|Zlib"
        ;;
    esac
}

checksum() {
    awk -v name="$1" -v version="$2" '
        $1 == "name" { is_it = $3 == "\"" name "\"" }
        $1 == "version" { is_it = is_it && $3 == "\"" version "\"" }
        $1 == "checksum" && is_it { gsub("\"", "", $3); print $3 }' Cargo.lock
}

# component TYPE NAME VERSION LICENCE PURL [SHA256]
component() {
    printf '{ "type": "%s", "bom-ref": "%s", "name": "%s", "version": "%s",\n' "$1" "$5" "$2" "$3"
    printf '        "licenses": [{ "expression": "%s" }],\n' "$4"
    if [ -n "${6:-}" ]; then
        printf '        "hashes": [{ "alg": "SHA-256", "content": "%s" }],\n' "$6"
    fi
    printf '        "purl": "%s" }' "$5"
}

licence=$(sed -n 's/^license = "\(.*\)"$/\1/p' Cargo.toml)
cat <<END
{
  "bomFormat": "CycloneDX",
  "specVersion": "1.5",
  "version": 1,
  "metadata": {
    "timestamp": "$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)",
    "component":
      $(component application stalld "$version" "$licence" "pkg:generic/stalld@$version")
  },
  "components": [
END
separator=
while IFS='|' read -r name crate_version crate_licence; do
    # A plus is written %2B in such a URL.
    purl="pkg:cargo/$name@$(echo "$crate_version" | sed "s/+/%2B/g")"
    printf '%s      ' "$separator"
    component library "$name" "$crate_version" "$crate_licence" "$purl" "$(checksum "$name" "$crate_version")"
    separator=',
'
done <<END
$crates
END
case $crates in
*libbpf-sys*)
    in_libbpf_sys "$@" | while IFS='|' read -r name c_version c_licence; do
        printf ',\n      '
        component library "$name" "$c_version" "$c_licence" "pkg:generic/$name@$c_version"
    done
    ;;
esac
printf '\n  ]\n}\n'
