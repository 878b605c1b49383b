#!/bin/sh
# Builds the static stalld for another architecture, and the rig for its tests beside it, as root:
#   cross.sh ARCH OUTPUT
# Rust, clang and the C compilers are Debian 13's. They are in a root of their own, made at the
# first use and kept in the cache of `make test-vm`. CARGO is the cargo command that fetches the
# crates.
set -eu
cd "$(dirname "$0")/.."
. tests/vm/apt.sh
arch=$1 output=$2
. tests/vm/machine.sh

unshare --mount true 2>/dev/null ||
    die "no mounts of its own for the build: run cross.sh as root, and in a chroot only where / is a mount point"
system=$cache/cross-trixie
sh tests/root.sh "$system" trixie cargo,rustc,clang,llvm,gcc,libc6-dev,make,pkgconf,autoconf,automake,autopoint,flex,bison,gawk
# Only the files of the other architecture's Rust are needed, not the dependencies of its package.
version=$(dpkg-query --admindir="$system/var/lib/dpkg" -W -f '${Version}' rustc)
if [ ! -e "$system/usr/bin/$triplet-gcc" ] || [ ! -e "$system/usr/lib/rustlib/$rust" ]; then
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    {
        chroot "$system" env DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install \
            "gcc-$(echo "$triplet" | tr _ -)" "libc6-dev-$debian-cross"
        update "trixie@$debian"
        (cd "$work" && in_suite "trixie@$debian" apt-get -q download "libstd-rust-dev=$version") ||
            die "trixie has no libstd-rust-dev=$version for $debian: remove $system, so that it is made again with today's Rust"
        dpkg-deb -x "$work"/*.deb "$system"
    } >&2
fi

# Building libelf changes its source, so it is a fresh copy each time.
build=$PWD/target/cross/build
rm -rf "$build/vendor"
mkdir -p "$build" "$system/stalld" "$(dirname "$output")"
${CARGO:-cargo} vendor --quiet "$build/vendor" >/dev/null

features="--features vendored --bin stallstat"
[ "$backends" != sched_debug ] || features=--no-default-features
name=$(echo "$rust" | tr a-z- A-Z_)
export arch system rust triplet features name
# The mounts end with the shell that makes them.
# shellcheck disable=SC2016 # the shell inside expands it
unshare -m sh -eu -c '
    mount --bind "$PWD" "$system/stalld"
    mount --bind /proc "$system/proc"
    mount --bind /dev "$system/dev"
    exec chroot "$system" env -i PATH=/usr/bin:/bin HOME=/root LC_ALL=C.UTF-8 TARGET="$rust" \
        CARGO_HOME=/stalld/target/cross/build CARGO_TARGET_DIR=/stalld/target/cross/build \
        "CARGO_TARGET_${name}_LINKER=$triplet-gcc" "CC_$(echo "$rust" | tr - _)=$triplet-gcc" \
        AR="$triplet-ar" RANLIB="$triplet-ranlib" \
        CARGO="cargo --offline --locked --config source.crates-io.replace-with=\"vendored\" --config source.vendored.directory=\"/stalld/target/cross/build/vendor\"" \
        sh -c "cd /stalld && sh packaging/static.sh target/cross/$arch/stalld $features --example starve"
'
cp "target/cross/build/$rust/release/examples/starve" "target/cross/$arch/starve"
