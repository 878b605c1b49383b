#!/bin/sh
# Prints how many lines of each parser the corpus alone reaches. Fails if that is less than 95 % of
# one of them.
#
#     coverage.sh [--tool]
#
# --tool prints the llvm-cov that can read the profiles of programs of this rustc, and fails if
# there is none. CARGO is the cargo command to build with. target/coverage/lines.txt has the lines
# themselves.
set -eu
cd "$(dirname "$0")/.."
least=95
parsers="src/observe/sched_debug/format.rs src/observe/sched_debug/parse.rs src/proc/text.rs src/cpus.rs src/patterns.rs
    src/denylist.rs src/daemon/options/mod.rs src/daemon/options/table.rs src/daemon/options/length.rs src/daemon/options/draft.rs
    src/timing.rs src/boost/journal.rs src/guardian/journal_file.rs src/host/debugfs.rs ffi/src/options.rs
    ffi/src/input.rs src/stat/schedstat.rs src/stat/cgroups.rs"

host=$(rustc -vV | sed -n 's/^host: //p')
llvm=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
tool() {
    for tool in "$(rustc --print sysroot)/lib/rustlib/$host/bin/llvm-cov" "llvm-cov-$llvm" llvm-cov; do
        if "$tool" --version 2>/dev/null | grep -q "LLVM version $llvm\."; then
            echo "$tool"
            return
        fi
    done
    return 1
}
cov=$(tool) || {
    echo "stalld: no llvm-cov $llvm, which is the LLVM of this rustc: 'rustup component add llvm-tools', or the package llvm" >&2
    exit 1
}
if [ "${1-}" = --tool ]; then
    echo "$cov"
    exit
fi

out=${CARGO_TARGET_DIR:-target}/coverage
# As in fuzz.sh, --target leaves out the code that runs at build time.
RUSTFLAGS=-Cinstrument-coverage \
    ${CARGO:-cargo} build --example fuzz --target "$host" --target-dir "$out"
rm -f "$out"/*.profraw
for target in fuzz/corpus/*; do
    LLVM_PROFILE_FILE="$out/${target##*/}.profraw" "$out/$host/debug/examples/fuzz" "${target##*/}" "$target" >/dev/null
done
"$(echo "$cov" | sed 's/llvm-cov\(-[0-9]*\)*$/llvm-profdata\1/')" merge -o "$out/all.profdata" "$out"/*.profraw
set -- "$out/$host/debug/examples/fuzz" -instr-profile="$out/all.profdata"
"$cov" show "$@" -ignore-filename-regex=^/rustc/ >"$out/lines.txt"
# The columns are the file, and for its regions, functions and lines each: all, missed, reached.
"$cov" report "$@" | parsers=$parsers awk -v least=$least '
    BEGIN { count = split(ENVIRON["parsers"], names) }
    { for (i = 1; i <= count; i++) if (at = index($1, names[i])) if (at + length(names[i]) == length($1) + 1) {
        printf "%-36s %5d lines %7s\n", names[i], $8, $10
        seen++
        poor = poor || $10 + 0 < least
    } }
    END {
        if (poor) print "less than " least " % of a file: see lines.txt"
        if (seen != count) print "of " count " files only " seen " were there"
        exit poor || seen != count
    }'
