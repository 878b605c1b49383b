#!/bin/sh
# Makes the C library of what cargo builds: lib.sh OUTPUT-DIRECTORY PREFIX LIBDIR [FEATURES...]
# CARGO is the cargo command to build with. With KEEP_DEBUG set the debug information stays, for what packs it apart.
#
# rustc makes a static library, and the linker the rest: a version script that is given to rustc does not work, and a
# static library has all names of its parts to the outside, those of libbpf among them.
set -eu
output=$1 prefix=$2 libdir=$3
shift 3
# What a make around it was given is not for the make of libbpf, which has a LIBDIR too.
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
# What a program has to be linked with besides is known to rustc only.
native=$work/native-libs$(printf %s "$*" | tr -c '[:lower:]' -)
${CARGO:-cargo} rustc --package libstalld --profile library "$@" -- --print "native-static-libs=$native"
libs=$(tr '\n' ' ' <"$native")
archive=$work/libstalld_ffi.a

mkdir -p "$output"
# With debug information: what the ABI is compared by.
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
# shellcheck disable=SC2046,SC2086
objcopy --strip-debug $(printf -- '--keep-global-symbol=%s ' $functions) "$work/libstalld.o"
rm -f "$output/libstalld.a"
${AR:-ar} rcs "$output/libstalld.a" "$work/libstalld.o"

sed "s|@PREFIX@|$prefix|; s|@LIBDIR@|$libdir|; s|@VERSION@|$version|; s|@LIBS@|${libs% }|" ffi/libstalld.pc.in \
    >"$output/libstalld.pc"
echo "stalld: $output/libstalld.so.$version has $(($(wc -c <"$output/libstalld.so.$version"))) bytes"
