#!/bin/sh
# Checks that imports go down from layer to layer, and that docs/ARCHITECTURE.md has each module:
#
#     layers.sh [--update | --counts | --self-test]
#
# tests/lint/layers has the layers. The modes are those of tests/style.sh, and
# tests/lint/layers.baseline has the imports that are allowed until their modules are moved.
set -eu
cd "$(dirname "$0")/.."
lint=$PWD/tests/lint
. tests/lint/ratchet.sh
export LC_ALL=C

findings() {
    sed -n 's/^\(pub[^ ]* \)*mod \([a-z0-9_]*\);$/\2/p' src/lib.rs | sort >"$work/modules"
    [ -s "$work/modules" ] || fail "layers.sh: found no modules in $PWD/src/lib.rs"
    find src ffi/src -name '*.rs' | sort >"$work/files"
    xargs awk -f "$lint/layers.awk" "$table" <"$work/files"
    missing_modules
    map
}

# Prints the modules of the table that the code does not have.
missing_modules() {
    awk '$1 == "module" { print $2 } $1 == "only" { for (i = 4; i <= NF; i++) print $i }' "$table" | while read -r module; do
        path=src/$(echo "$module" | sed 's|::|/|g')
        [ -e "$path" ] || [ -e "$path.rs" ] || [ "$module" = ffi ] || grep -rqs "macro_rules! $module " src/sys ||
            printf '%s\t1\tmodule\t1\t%s\n' tests/lint/layers "there is no module $module: remove it"
    done
}

# Compares the first column of the map in docs/ARCHITECTURE.md with the modules and the tree.
map() {
    awk -F '|' '
        $2 == " place " { inside = 1 }
        inside && NF < 2 { exit }
        inside { for (i = split($2, part, /`/) - 1; i > 1; i -= 2) print part[i] }' docs/ARCHITECTURE.md >"$work/places"
    while read -r place; do
        [ -e "$place" ] || complain "the map has $place, which does not exist: remove it"
    done <"$work/places"
    sed -n -e 's|^src/\([a-z0-9_]*\)/$|\1|p' -e 's|^src/\([a-z0-9_]*\)\.rs$|\1|p' "$work/places" >"$work/mapped"
    while read -r module; do
        case $(grep -cx "$module" "$work/mapped") in
            0) complain "the map lacks the module $module: add its place to the table" ;;
            1) ;;
            *) complain "the map has the module $module more than once: keep one place" ;;
        esac
    done <"$work/modules"
}

complain() {
    printf '%s\t1\tmap\t1\t%s\n' docs/ARCHITECTURE.md "$1"
}

self_test() {
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    cp -R "$lint/seeded/layers/." "$scratch"
    cd "$scratch"
    table=layers
    work=$PWD/work
    mkdir "$work"
    findings | cut -f 1-3,5 | tr '\t' ' ' | diff -u "$lint/seeded/layers.expected" - >&2 ||
        fail "layers.sh: the self-test found something else than tests/lint/seeded/layers.expected has"
    test_ratchet tests/layers.sh
}

table=$lint/layers
run tests/layers.sh "$lint/layers.baseline" "$@"
