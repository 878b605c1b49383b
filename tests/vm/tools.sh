#!/bin/sh
# Runs a tool of tests/vm/packages.lock from the cache, so that none is installed on the machine:
#   tools.sh qemu-system-ARCH|debootstrap ARGUMENT...
# An emulator runs with the C library and the libraries of its own Debian, and sees the machine's
# files. So it takes no chroot, no mount, and no root. debootstrap runs on the machine's own tools,
# and takes root.
set -eu
tree=$(cd "$(dirname "$0")/../.." && pwd)
tool=$1
shift

die() {
    echo "stalld: $*" >&2
    exit 1
}

root=$(sh "$tree/tests/vm/fetch.sh" "$tool")
case $tool in
qemu-system-*)
    [ "$(uname -m)" = x86_64 ] || die "$tool cannot run on $(uname -m): the emulators of tests/vm/packages.lock are for x86_64"
    libraries=$root/usr/lib/x86_64-linux-gnu
    export QEMU_MODULE_DIR="$libraries/qemu"
    exec "$root/usr/lib64/ld-linux-x86-64.so.2" --library-path "$libraries" "$root/usr/bin/$tool" \
        -L "$root/usr/share/qemu" -L "$root/usr/share/seabios" "$@"
    ;;
debootstrap)
    export DEBOOTSTRAP_DIR="$root/usr/share/debootstrap" PATH="$tree/tests/vm/bin:$PATH"
    exec sh "$root/usr/sbin/debootstrap" "$@"
    ;;
*) die "tools.sh does not run '$tool': qemu-system-ARCH, debootstrap" ;;
esac
