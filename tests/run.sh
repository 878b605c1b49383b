#!/bin/sh
# Runs the tests, also those that need root, and counts them:
#   run.sh fast|long|adversary|mutants [CARGO-TEST-ARGUMENT...]
# `mutants` reverts each fix of an attack in turn, and checks that a test fails then.
#
# CARGO is the cargo command, and FEATURES its flags for features. For an ordinary user, the tests
# that need root run through sudo. A test of tests/skips is skipped where its condition fails. The
# script fails if any other test did not run, unless the caller's arguments select tests.
set -eu
cd "$(dirname "$0")/.."
which=$1
shift
features=
case $which in
fast) targets="--workspace" ;;
long)
    targets="--test long --test simulation" features="--features seeded-faults"
    export STALLD_SIMULATION_STEPS=10000000
    ;;
adversary) targets="--test adversary" ;;
mutants)
    targets="--test adversary --test daemon" features="--features seeded-faults"
    set -- mutants:: "$@"
    ;;
*)
    echo "stalld: usage: sh tests/run.sh fast|long|adversary|mutants [CARGO-TEST-ARGUMENT...]" >&2
    exit 2
    ;;
esac
# `make lib` has built the library, so tests do not build it. A test as root would leave root's
# files below target.
export STALLD_BUILT_LIBRARY=yes

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
: >"$work/code"

# cargo_test CARGO-ARGUMENT... -- TEST-ARGUMENT...
cargo_test() {
    # shellcheck disable=SC2086 # lists of words
    ${CARGO:-cargo} test ${FEATURES-} $targets $features --no-fail-fast "$@" || echo "$?" >>"$work/code"
}

begun=$(date +%s)
cargo_test --no-run --color never 2>&1 | tee "$work/log"
# NAME=PATH for each test program, which `mutants` needs.
STALLD_TEST_PROGRAMS=$(sed -n "s|^ *Executable tests/\(.*\)/main.rs (\(.*\))|\1=$PWD/\2|p" "$work/log" | tr '\n' :)
export STALLD_TEST_PROGRAMS
if [ "$which" = mutants ] && [ -z "$STALLD_TEST_PROGRAMS" ]; then
    echo "stalld: cargo names no test program: see the lines above" >&2
    exit 1
fi
# Cargo builds the examples by itself only with all tests of a package.
case $which in
adversary | mutants)
    # shellcheck disable=SC2086 # lists of words
    ${CARGO:-cargo} build ${FEATURES-} $features --examples || exit 1
    ;;
esac
[ ! -s "$work/code" ] || exit 1
built=$(date +%s)
cargo_test -- --list 2>/dev/null | sed -n 's/: test$//p' >"$work/all"

# The tests that this host can't run.
: >"$work/skipped"
skips=
while IFS='|' read -r name condition reason; do
    name=${name% }
    case $name in
    '' | '#'*) continue ;;
    esac
    if grep -qx "$name" "$work/all" && ! sh -c "$condition" >/dev/null 2>&1 </dev/null; then
        echo "skipped: $name:$reason"
        echo "$name" >>"$work/skipped"
        skips="$skips --skip $name"
    fi
done <tests/skips
STALLD_TEST_SKIPPED=$(tr '\n' , <"$work/skipped")
export STALLD_TEST_SKIPPED

{
    # shellcheck disable=SC2086 # lists of words
    if [ "$(id -u)" = 0 ]; then
        cargo_test "$@" -- --include-ignored $skips
    else
        cargo_test "$@" -- $skips
        export "CARGO_TARGET_$(rustc -vV | sed -n 's/^host: //p' | tr a-z- A-Z_)_RUNNER=\
sudo env PATH=$PATH CI=${CI-} STALLD_BUILT_LIBRARY=yes STALLD_SIMULATION_STEPS=${STALLD_SIMULATION_STEPS-} \
STALLD_THREADS=${STALLD_THREADS-2000} STALLD_TEST_PROGRAMS=$STALLD_TEST_PROGRAMS \
STALLD_TEST_SKIPPED=$STALLD_TEST_SKIPPED"
        cargo_test "$@" -- --ignored $skips
    fi
} 2>&1 | tee "$work/log"

# shellcheck disable=SC2046 # two words
set -- $# $(awk '/^test result:/ { passed += $4; failed += $6 } END { print passed + 0, failed + 0 }' "$work/log")
all=$(wc -l <"$work/all") skipped=$(wc -l <"$work/skipped")
echo "$which tests: $2 passed, $3 failed, $skipped skipped; built in $((built - begun)) s, run in $(($(date +%s) - built)) s"
if [ "$1" = 0 ] && [ $(($2 + $3 + skipped)) != "$all" ]; then
    echo "stalld: $all tests exist, and $((all - $2 - $3 - skipped)) of them neither ran nor are in tests/skips" >&2
    exit 1
fi
[ ! -s "$work/code" ]
