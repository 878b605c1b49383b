#!/bin/sh
# Checks formatting, lints, scripts, manual pages and the rules of the tree: `make lint`. CARGO is
# the cargo command, and CARGOFLAGS are the flags of its builds.
# shellcheck disable=SC2086 # lists of words
set -eu
cd "$(dirname "$0")/.."
: "${CARGO:=cargo}" "${CARGOFLAGS=--locked}"
export CARGO

# Prints a command and runs it.
run() {
    echo "$*"
    "$@"
}

run $CARGO fmt --all --check
run $CARGO clippy $CARGOFLAGS --workspace --all-targets --features seeded-faults -- -D warnings
run $CARGO clippy $CARGOFLAGS --workspace --all-targets --no-default-features -- -D warnings
run sh tests/crates.sh
run cppcheck --quiet --error-exitcode=1 --suppress=normalCheckLevelMaxBranches \
    --enable=warning,performance,portability -I include ffi/examples ffi/tests
run shellcheck packaging/*.sh packaging/throttlectl packaging/completions/*.bash packaging/debian/tests/library \
    tests/*.sh tests/lint/*.sh tests/vm/*.sh tests/vm/bin/* tests/vm/init fuzz/*.sh .ci/run
run mandoc -T lint -W warning man/*.8 man/*.3
if groff -mandoc -T utf8 -ww -W break -z man/*.8 man/*.3 2>&1 | grep .; then
    exit 1
fi
run sh tests/tree.sh
run sh tests/style.sh --self-test
run sh tests/style.sh
run sh tests/layers.sh --self-test
run sh tests/layers.sh
run sh tests/types.sh --self-test
run sh tests/types.sh
run sh tests/regen.sh
