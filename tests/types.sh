#!/bin/sh
# Checks that no two types in src and ffi/src have the same name:
#
#     types.sh [--self-test]
#
# tests/lint/type-names has the names that may be defined twice, with the reason. Types of tests, C
# types in generated files, and types within functions or `impl` blocks do not count.
set -eu
cd "$(dirname "$0")/.."
lint=$PWD/tests/lint
. tests/lint/ratchet.sh
export LC_ALL=C

# Prints the names that are defined twice and not in the list, and needless lines of the list.
findings() {
    find src ffi/src -name '*.rs' ! -name '*tests.rs' | sort >"$work/files"
    [ -s "$work/files" ] || fail "types.sh: found no files in $PWD"
    xargs awk -f "$lint/types.awk" "$list" <"$work/files" | sort
}

self_test() {
    cd "$lint/seeded/types"
    list=type-names
    findings | diff -u ../types.expected - >&2 ||
        fail "types.sh: the self-test found something else than tests/lint/seeded/types.expected has"
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
list=tests/lint/type-names
case ${1-} in
    '')
        findings >"$work/found"
        cat "$work/found" >&2
        [ ! -s "$work/found" ]
        ;;
    --self-test) self_test ;;
    *) fail "usage: sh tests/types.sh [--self-test]" ;;
esac
