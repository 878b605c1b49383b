#!/bin/sh
# Checks that the ABI of the C library is the one in ffi/libstalld.abi, that this check finds a
# break, and that a program of today runs with a library of the future: abi.sh, after `make lib`.
#   --write  writes ffi/libstalld.abi instead, for an intended change that breaks nothing
# CARGO is the cargo command to build with. The check needs abidiff, and root to run programs.
set -eu
cd "$(dirname "$0")/.."

baseline=ffi/libstalld.abi
root=$PWD/target/abi
built=target/library/libstalld.so.0

describe() {
    abidw --suppressions ffi/libstalld.suppr --drop-undefined-syms --no-elf-needed --no-show-locs --no-corpus-path \
        --no-comp-dir-path "$1"
}

compare() {
    describe "$1" >"$root/abi"
    abidiff "$baseline" "$root/abi"
}

# variant NAME SED-SCRIPT: builds the library with a change, and without BPF, which has no part in
# the ABI.
variant() {
    rm -rf "${root:?}/$1"
    mkdir -p "$root/$1"
    tar -cf - --exclude=./target --exclude=./.git . | tar -xf - -C "$root/$1"
    sed -i "$2" "$root/$1/ffi/src/abi.rs"
    if cmp -s ffi/src/abi.rs "$root/$1/ffi/src/abi.rs"; then
        echo "stalld: the variant '$1' changes nothing" >&2
        exit 1
    fi
    (
        cd "$root/$1"
        CARGO_TARGET_DIR=$root/build CFLAGS='' RUSTFLAGS='' sh packaging/lib.sh lib /usr /usr/lib --no-default-features
    ) >"$root/$1.log" 2>&1 || { cat "$root/$1.log" >&2 && exit 1; }
}

mkdir -p "$root"
if [ "${1-}" = --write ]; then
    describe "$built" >"$baseline"
    exit
fi
case $(uname -m) in
x86_64) ;;
*) echo "skipped: $baseline is that of x86_64" && exit ;;
esac

compare "$built" || {
    echo "stalld: the ABI of $built is not that of $baseline. A break takes a new soname; a change that breaks nothing" \
        "is committed with what 'sh tests/abi.sh --write' makes of the file" >&2
    exit 1
}
echo "the ABI is that of $baseline"

variant broken 's/pub tid: i32/pub @: i32/; s/pub tgid: i32/pub tid: i32/; s/pub @: i32/pub tgid: i32/'
if compare "$root/build/library/libstalld.so.0" >/dev/null; then
    echo "stalld: two members of a struct have changed places, and nobody has noticed" >&2
    exit 1
fi
echo "a break of it is noticed"

variant appended 's/^    pub events: u32,$/    pub events: u32,\n    pub next: u64,/'
export rounds="$root/rounds"
${CC:-cc} -std=c99 -Iinclude -o "$rounds" ffi/tests/rounds.c -Ltarget/lib -lstalld
# The variant's only backend needs debugfs, which the host need not have mounted.
# shellcheck disable=SC2016 # the shell inside expands it
unshare --mount sh -eu -c '
    grep -q " debugfs " /proc/mounts || mount -t debugfs debugfs /sys/kernel/debug
    for lib; do
        LD_LIBRARY_PATH=$lib "$rounds" 3 0 0 >/dev/null
    done
' sh target/lib "$root/appended/lib"
echo "a program of today runs with a library whose options have one more member"
