#!/bin/sh
# Builds the static stalld for another architecture, and the rig for its tests beside it, as root:
#   cross.sh ARCH OUTPUT
# Rust, clang and the C compilers are Debian 13's, in a root of their own that is made at the first use and kept where
# the kernels of `make test-vm` are. CARGO is the cargo command that fetches the crates.
set -eu
cd "$(dirname "$0")/.."
. tests/vm/apt.sh
arch=$1 output=$2
. tests/vm/machine.sh

system=$cache/cross-trixie
if [ ! -e "$system" ]; then
    echo "stalld: making $system" >&2
    rm -rf "$system.new"
    debootstrap --variant=minbase \
        --include=cargo,rustc,clang,llvm,gcc,libc6-dev,make,pkgconf,autoconf,automake,autopoint,flex,bison,gawk \
        trixie "$system.new" "$(mirror)" >"$cache/cross-trixie.log" 2>&1 ||
        die "debootstrap failed: $cache/cross-trixie.log"
    mv "$system.new" "$system"
fi
# Of Rust for another architecture only files are needed, not the packages that those depend on.
version=$(dpkg-query --admindir="$system/var/lib/dpkg" -W -f '${Version}' rustc)
if [ ! -e "$system/usr/bin/$triplet-gcc" ] || [ ! -e "$system/usr/lib/rustlib/$rust" ]; then
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    here=$PWD
    {
        chroot "$system" env DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install \
            "gcc-$(echo "$triplet" | tr _ -)" "libc6-dev-$debian-cross"
        in_suite "trixie@$debian" apt-get -q update
        cd "$work"
        in_suite "trixie@$debian" apt-get -q download "libstd-rust-dev=$version"
        cd "$here"
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
# The mounts are gone with the shell that makes them.
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
