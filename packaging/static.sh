#!/bin/sh
# Builds stalld as one static-pie file, and checks that it is one: static.sh OUTPUT [FEATURES...]
# CARGO is the cargo command to build with, TARGET what to build for if not this machine.
set -eu
output=$1
shift

target=${TARGET:-$(rustc -vV | sed -n 's/^host: //p')}

# The paths of this machine stay out of the file, so that two machines build the same one.
here=$(pwd)
crates=${CARGO_HOME:-$HOME/.cargo}
export RUSTFLAGS="${RUSTFLAGS-} -C target-feature=+crt-static -C force-unwind-tables=no --remap-path-prefix=$here=/stalld --remap-path-prefix=$crates=/cargo"
export CFLAGS="${CFLAGS--Os} -fno-asynchronous-unwind-tables -ffile-prefix-map=$here=/stalld -ffile-prefix-map=$crates=/cargo"
export CARGO_PROFILE_RELEASE_STRIP=symbols
# A panic ends the daemon either way, and its guardian puts everything back: code and tables for unwinding are
# 200 KB that nothing would use.
export CARGO_PROFILE_RELEASE_PANIC=abort
# With --target the flags are for the program alone: build scripts can't be linked statically.
${CARGO:-cargo} build --release --bin stalld --target "$target" "$@"

mkdir -p "$(dirname "$output")"
cp "${CARGO_TARGET_DIR:-target}/$target/release/stalld" "$output"

fail() {
    rm -f "$output"
    echo "stalld: the static build $*" >&2
    exit 1
}
# For other architectures Rust links what is static to one address, and their code is longer.
limit=2500000
case $target in
x86_64-*)
    limit=2000000
    readelf -hW "$output" | grep -q 'Type: *DYN' || fail "is not position-independent"
    ;;
esac
if readelf -dW "$output" | grep -q '(NEEDED)'; then
    fail "needs shared libraries"
fi
if readelf -lW "$output" | grep -q INTERP; then
    fail "needs a dynamic loader"
fi
size=$(($(wc -c <"$output")))
[ "$size" -le $limit ] || fail "has $size bytes, more than $limit"
echo "stalld: $output has $size bytes"
