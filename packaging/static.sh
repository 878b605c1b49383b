#!/bin/sh
# Builds stalld as one static-pie file, and checks the result:
#   static.sh OUTPUT [FEATURES...] [--bin stallstat]
# stallstat is put beside it, if asked for. CARGO is the cargo command to build with. TARGET is the
# target to build for, by default this machine's.
set -eu
output=$1
shift

target=${TARGET:-$(rustc -vV | sed -n 's/^host: //p')}

# The paths of this machine stay out of the file, so that two machines build the same file.
here=$(pwd)
crates=${CARGO_HOME:-$HOME/.cargo}
export RUSTFLAGS="${RUSTFLAGS-} -C target-feature=+crt-static -C force-unwind-tables=no --remap-path-prefix=$here=/stalld --remap-path-prefix=$crates=/cargo"
export CFLAGS="-Os -fno-asynchronous-unwind-tables ${CFLAGS--fstack-protector-strong} -ffile-prefix-map=$here=/stalld -ffile-prefix-map=$crates=/cargo"
export CARGO_PROFILE_RELEASE_STRIP=symbols
# A panic ends the daemon in either case, and the guardian restores the boosted tasks. Code and
# tables for unwinding would be 200 KB without use.
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
    # For other architectures Rust links static programs to a fixed address.
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

# An older Rust makes a larger file, and the code of other architectures is longer.
minor=$(rustc -V | cut -d. -f2)
case $target in
x86_64-*) put stalld "$output" $((minor < 90 ? 2400000 : 2200000)) ;;
*) put stalld "$output" 2500000 ;;
esac
case " $* " in
*" --bin stallstat "*) put stallstat "$(dirname "$output")/stallstat" ;;
esac
