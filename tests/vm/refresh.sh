#!/bin/sh
# Writes tests/vm/packages.lock again, with the newest version of each kernel and tool that Debian's
# suites have today.
set -eu
cd "$(dirname "$0")/../.."
. tests/vm/apt.sh

# image_of SUITE PACKAGE: follows the dependencies of a package without files to the newest kernel's
# image. From 6.19 on the image is in one package more.
image_of() {
    package=$2
    while next=$(show Depends "$1" "$package" | tr ,\| '\n' | sed -n 's/^ *\(linux-\(image\|binary\)-[^ ]*\).*/\1/p' | head -n 1) &&
        [ -n "$next" ]; do
        package=$next
    done
    echo "$package"
}

# newest_of SUITE RELEASE FLAVOUR: the newest image of one kernel release in a suite that has
# several.
newest_of() {
    in_suite "$1" apt-cache pkgnames "linux-binary-$2." | sed -n "/^linux-binary-$2\.[0-9]*+deb[0-9]*-$3\$/p" | sort -V | tail -n 1
}

address=$(mirror) || exit 1
new=$cache/packages.lock
sed -n '/^#/p' "$lock" >"$new"
updated=' '
# A row is NAME SUITE PACKAGE. In the name of a kernel, N stands for its release. A package
# linux-N-FLAVOUR is one of several in its suite.
while read -r name suite package; do
    case $updated in
    *" $suite "*) ;;
    *)
        echo "stalld: reading the package list of $suite" >&2
        update "$suite"
        updated="$updated$suite "
        ;;
    esac
    found=$package
    case $package in
    linux-image-*) found=$(image_of "$suite" "$package") ;;
    linux-[0-9]*)
        release=${package#linux-}
        found=$(newest_of "$suite" "${release%%-*}" "${release#*-}")
        ;;
    esac
    version=$(show Version "$suite" "${found:-none}") sum=$(show SHA256 "$suite" "${found:-none}")
    [ -n "$version" ] || die "$suite no longer has $package for $name: name another suite in tests/vm/refresh.sh, and run it again"
    case $name in
    N*) name=$(echo "$version" | sed 's/^\([0-9]*\.[0-9]*\).*/\1/')${name#N} ;;
    esac
    echo "$name $suite $found $version $sum" >>"$new"
done <<'END'
N bullseye linux-image-amd64
N-rt bullseye linux-image-rt-amd64
N bookworm linux-image-amd64
N-rt bookworm linux-image-rt-amd64
N trixie linux-image-amd64
N-rt trixie linux-image-rt-amd64
N trixie-backports linux-7.2-amd64
N-rt trixie-backports linux-7.2-rt-amd64
N-aarch64 trixie@arm64 linux-image-arm64
N-s390x trixie@s390x linux-image-s390x
N-riscv64 trixie@riscv64 linux-image-riscv64
N-ppc64le trixie@ppc64el linux-image-powerpc64le-64k
N-i686 bookworm@i386 linux-image-686-pae
busybox-x86_64 trixie busybox-static
busybox-aarch64 trixie@arm64 busybox-static
busybox-s390x trixie@s390x busybox-static
busybox-riscv64 trixie@riscv64 busybox-static
busybox-ppc64le trixie@ppc64el busybox-static
busybox-i686 bookworm@i386 busybox-static
qemu-system-x86_64 trixie qemu-system-x86
qemu-system-i386 trixie qemu-system-x86
qemu-system-aarch64 trixie qemu-system-arm
qemu-system-s390x trixie qemu-system-s390x
qemu-system-riscv64 trixie qemu-system-riscv
qemu-system-ppc64 trixie qemu-system-ppc
debootstrap trixie debootstrap
END
mv "$new" "$lock"
echo "stalld: $lock is written; 'make test-vm-fetch' downloads what it names" >&2
