#!/bin/sh
# Prints the list of the program's parts, in the format CycloneDX 1.5:
#   sbom.sh [CARGO FEATURES...]
# The parts are the linked crates, and the C code that libbpf-sys brings. CARGO is the cargo command
# to ask.
set -eu
cd "$(dirname "$0")/.."
. packaging/version.sh
. packaging/crates.sh

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

crates=$(linked_crates "$@")
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
    in_libbpf_sys "$(directory_of libbpf-sys- "$@")" "$@" | while IFS='|' read -r name c_version c_licence; do
        printf ',\n      '
        component library "$name" "$c_version" "$c_licence" "pkg:generic/$name@$c_version"
    done
    ;;
esac
printf '\n  ]\n}\n'
