#!/bin/sh
# Checks that the oldest supported Rust, `rust-version` in Cargo.toml, builds everything:
#   msrv.sh [CARGO FLAGS...]
# That Rust may be the one in PATH, rustup's, or Debian's, which is unpacked below target/ and not
# installed.
set -eu
cd "$(dirname "$0")/.."

wanted=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
root=$PWD/target/msrv

is_wanted() {
    case $("$@" --version 2>/dev/null) in
    "rustc $wanted."*) ;;
    *) return 1 ;;
    esac
}

# Downloads Debian's packages of that version and those that they need, and unpacks them.
unpack_debian() {
    command -v apt-get >/dev/null && command -v dpkg >/dev/null || return 1
    for suffix in "" -web; do
        version=$(apt-cache madison "rustc$suffix" | sed -n "s/^[^|]*| *\($wanted\.[^ ]*\) .*/\1/p" | head -n 1)
        if [ -n "$version" ]; then
            break
        fi
    done
    [ -n "$version" ] || return 1
    mkdir -p "$root/debs/partial" "$root/tree"
    # shellcheck disable=SC2046 # lists of words
    apt-get -q -y --download-only --no-install-recommends --allow-downgrades \
        -o Debug::NoLocking=1 -o Dir::Cache::archives="$root/debs" install \
        $(printf "%s=$version " "cargo$suffix" "rustc$suffix" "libstd-rust$suffix-dev") \
        >"$root/apt.log" 2>&1 || { cat "$root/apt.log" >&2; return 1; }
    for deb in "$root"/debs/*.deb; do
        dpkg -x "$deb" "$root/tree"
    done
    rm -r "$root/debs"
}

if is_wanted rustc; then
    :
elif command -v rustup >/dev/null && is_wanted rustup run "$wanted" rustc; then
    export RUSTUP_TOOLCHAIN="$wanted"
elif [ -x "$root/tree/usr/bin/rustc" ] || unpack_debian; then
    LD_LIBRARY_PATH=$(find "$root/tree" -name '*.so*' | sed 's|/[^/]*$||' | grep -v rustlib | sort -u | paste -s -d :)
    export LD_LIBRARY_PATH PATH="$root/tree/usr/bin:$PATH"
    is_wanted rustc || { echo "stalld: $root/tree is not Rust $wanted: remove it" >&2; exit 1; }
else
    echo "skipped: no Rust $wanted to be had here (rustup toolchain install $wanted)"
    exit
fi
cargo --version
CARGO_TARGET_DIR=$root/target cargo check --workspace --all-targets "$@"
