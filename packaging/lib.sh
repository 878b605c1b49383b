#!/bin/sh
# Builds the C library with cargo:
#   lib.sh OUTPUT-DIRECTORY PREFIX LIBDIR [FEATURES...]
# CARGO is the cargo command to build with. KEEP_DEBUG keeps the debug information, which a
# distribution packs apart.
#
# rustc builds a static library, and the linker makes the two installed ones from it. rustc does not
# apply a version script, and its static library exports all names of its parts, also those of
# libbpf.
set -eu
output=$1 prefix=$2 libdir=$3
shift 3
# libbpf's make must not inherit variables of an outer make, because it has a LIBDIR too.
unset MAKEFLAGS MFLAGS LIBDIR PREFIX DESTDIR

map=ffi/libstalld.map
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' ffi/Cargo.toml)
soname=libstalld.so.${version%%.*}
functions=$(sed -n 's/^\t\(stalld_[a-z_]*\);$/\1/p' $map)
work=${CARGO_TARGET_DIR:-target}/library

# The paths of this machine stay out of what is built.
here=$(pwd)
crates=${CARGO_HOME:-$HOME/.cargo}
export RUSTFLAGS="${RUSTFLAGS-} --remap-path-prefix=$here=/stalld --remap-path-prefix=$crates=/cargo"
export CFLAGS="-O2 ${CFLAGS--fstack-protector-strong} -ffile-prefix-map=$here=/stalld -ffile-prefix-map=$crates=/cargo"
# Only rustc knows which other libraries a program has to be linked with.
native=$work/native-libs$(printf %s "$*" | tr -c '[:lower:]' -)
${CARGO:-cargo} rustc --package libstalld --profile library "$@" -- --print "native-static-libs=$native"
libs=$(tr '\n' ' ' <"$native")
archive=$work/libstalld_ffi.a

mkdir -p "$output"
# This file keeps the debug information, by which `make abi` compares the ABI.
# shellcheck disable=SC2046,SC2086 # lists of words
${CC:-cc} -shared ${LDFLAGS-} -o "$work/$soname" \
    $(printf -- '-Wl,-u,%s ' $functions) "$archive" $libs \
    -Wl,--version-script=$map -Wl,-soname,"$soname" -Wl,--gc-sections -Wl,--no-undefined -Wl,--as-needed \
    -Wl,-z,relro,-z,now,-z,noexecstack
strip=--strip-debug
[ -z "${KEEP_DEBUG-}" ] || strip=
# shellcheck disable=SC2086 # one word or none
objcopy $strip "$work/$soname" "$output/libstalld.so.$version"
ln -sf "libstalld.so.$version" "$output/$soname"
ln -sf "$soname" "$output/libstalld.so"

# shellcheck disable=SC2046,SC2086
${LD:-ld} -r -o "$work/libstalld.o" $(printf -- '-u %s ' $functions) --gc-sections "$archive"
# Parts of Rust's own libraries hold LLVM bitcode beside their code. A linker's plugin of another
# version of LLVM would take the whole object for bitcode, and find no symbols.
# shellcheck disable=SC2046,SC2086
objcopy --strip-debug --remove-section=.llvmbc --remove-section=.llvmcmd $(printf -- '--keep-global-symbol=%s ' $functions) "$work/libstalld.o"
rm -f "$output/libstalld.a"
${AR:-ar} rcs "$output/libstalld.a" "$work/libstalld.o"

sed "s|@PREFIX@|$prefix|; s|@LIBDIR@|$libdir|; s|@VERSION@|$version|; s|@LIBS@|${libs% }|" ffi/libstalld.pc.in \
    >"$output/libstalld.pc"
echo "stalld: $output/libstalld.so.$version has $(($(wc -c <"$output/libstalld.so.$version"))) bytes"
