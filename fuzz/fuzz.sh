#!/bin/sh
# Fuzzes a target. With --merge it replaces the corpus of the target instead, by few inputs that
# reach as many places. It takes them from the corpus and from all inputs found since.
#
#     fuzz.sh [--merge] TARGET [SECONDS]
#
# CARGO is the cargo command to build with. Inputs that reach new places go to target/fuzz/corpus,
# and inputs that break a promise to target/fuzz/found.
#
# rustc's own LLVM counts the edges, and its own AddressSanitizer checks the memory. clang, of any
# version, has libFuzzer's runtime. So this needs no crate and no other Rust.
set -eu
cd "$(dirname "$0")/.."
merge=
[ "$1" != --merge ] || { merge=yes && shift; }
target=$1 seconds=${2:-60}
[ -d "fuzz/corpus/$target" ] || {
    echo "stalld: no target '$target' to fuzz, there are: $(cd fuzz/corpus && echo ./* | sed 's|\./||g')" >&2
    exit 1
}

host=$(rustc -vV | sed -n 's/^host: //p')
runtime=$("${CLANG:-clang}" --print-runtime-dir)/libclang_rt.fuzzer-${host%%-*}.a
out=${CARGO_TARGET_DIR:-target}/fuzz
for flag in level=4 inline-8bit-counters pc-table trace-compares; do
    passes="${passes-} -Cllvm-args=-sanitizer-coverage-$flag"
done
# The flag of the sanitizer is unstable. With --target, code that runs at build time is not
# instrumented, and nothing else differs.
RUSTC_BOOTSTRAP=1 \
    RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module$passes -Zsanitizer=address -Coverflow-checks -Clink-arg=$runtime -Clink-arg=-lstdc++" \
    CARGO_PROFILE_DEV_OPT_LEVEL=3 \
    ${CARGO:-cargo} build --example fuzz --target "$host" --target-dir "$out"

mkdir -p "$out/corpus/$target" "$out/found/$target"
export FUZZ="$target"
fuzz() {
    "$out/$host/debug/examples/fuzz" -timeout=10 -max_len=32768 -use_value_profile=1 \
        -artifact_prefix="$out/found/$target/" "$@"
}
if [ -n "$merge" ]; then
    rm -rf "$out/merged"
    mkdir "$out/merged"
    fuzz -use_value_profile=0 -use_counters=0 -set_cover_merge=1 "$out/merged" "fuzz/corpus/$target" "$out/corpus/$target"
    rm -r "fuzz/corpus/$target"
    mv "$out/merged" "fuzz/corpus/$target"
else
    # libFuzzer writes new inputs to the first directory.
    set -- "$out/corpus/$target" "fuzz/corpus/$target"
    [ ! -d "fuzz/regressions/$target" ] || set -- "$@" "fuzz/regressions/$target"
    fuzz -max_total_time="$seconds" -print_final_stats=1 "$@"
fi
