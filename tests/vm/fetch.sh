#!/bin/sh
# Prints where a kernel or a tool of tests/vm/packages.lock is in the cache, after downloading it at
# its first use:
#   fetch.sh NAME
#   fetch.sh --all [--force]
# With --all it checks that Debian still has each package of the list, and downloads those that are
# not in the cache; with --force, it downloads them all again.
set -eu
cd "$(dirname "$0")/../.."
. tests/vm/apt.sh

# read_line NAME: sets the fields of its line. The sum is part of the file's name, so that a changed
# line makes it anew.
read_line() {
    line=$(grep "^$1 " "$lock") || die "$lock has no '$1'; its kernels are $(sed -n 's/ .* linux-.*//p' "$lock" | paste -s -d ' ' -)"
    # shellcheck disable=SC2086 # the words of the line
    set -- $line
    name=$1 suite=$2 package=$3 version=$4 sum=$5
    file=$cache/$name-$(echo "$sum" | cut -c 1-12)
}

# Fails unless the suite still has the package, as the lock describes it.
require() {
    offered=$(show SHA256 "$suite" "$package=$version")
    [ -n "$offered" ] || die "$suite no longer has $package=$version for $name: run 'sh tests/vm/refresh.sh' to renew $lock"
    [ "$offered" = "$sum" ] || die "$package=$version of $suite is not the one that $lock describes: its SHA-256 is $offered"
}

# Downloads and unpacks the package; for an emulator, with the shared libraries that it needs.
fetch() {
    echo "stalld: downloading $package $version" >&2
    work=$cache/new
    rm -rf "$work"
    mkdir -p "$work/archives/partial" "$work/files"
    set -- apt-get -q download "$package=$version"
    case $package in
    qemu-system-*)
        set -- apt-get -q -y --download-only --no-install-recommends -o Debug::NoLocking=true \
            -o "Dir::Cache::archives=$work/archives" install "$package=$version"
        ;;
    esac
    (cd "$work/archives" && in_suite "$suite" "$@") >"$cache/apt/$suite.log" 2>&1 ||
        die "$package=$version of $suite cannot be downloaded: $(first_error "$suite"); try again, or set STALLD_VM_MIRROR to another mirror"
    echo "$sum $(echo "$work/archives/$package"_*.deb)" | sha256sum --check --status ||
        die "the download of $package=$version is not the file that $lock describes: try again"
    for archive in "$work"/archives/*.deb; do
        dpkg-deb -x "$archive" "$work/files"
    done
    case $package in
    qemu-system-* | debootstrap) made=$work/files ;;
    busybox-*) made=$(find "$work/files" -name busybox -type f -perm -1) ;;
    # A kernel's image is in /boot, or from 7.2 on beside the modules.
    *) made=$(find "$work/files" -name 'vmlinu[xz]*' -type f | head -n 1) ;;
    esac
    rm -rf "$file"
    mv "$made" "$file"
    rm -rf "$work"
}

# Two processes may want the same file, and apt refuses to run twice on the same lists.
lock_cache() {
    require_apt
    exec 9>>"$cache/lock"
    flock 9
    address=$(mirror) || exit 1
}

case ${1:?NAME or --all} in
--all) ;;
*)
    read_line "$1"
    if [ ! -e "$file" ]; then
        lock_cache
        if [ ! -e "$file" ]; then
            update "$suite"
            require
            fetch
        fi
    fi
    echo "$file"
    exit
    ;;
esac

force=${2:-}
case $force in
'' | --force) ;;
*) die "fetch.sh does not know '$force': --all takes --force" ;;
esac
lock_cache
status=0
names=$(sed '/^#/d; s/ .*//' "$lock")
suites=$(sed '/^#/d' "$lock" | cut -d ' ' -f 2 | sort -u)
for suite in $suites; do
    (update "$suite") || status=1
done
for name in $names; do
    read_line "$name"
    how='in the cache'
    if [ -n "$force" ] || [ ! -e "$file" ]; then
        how=downloaded
    fi
    # Not a condition, because a shell overlooks failed commands in one.
    set +e
    (
        set -e
        require
        [ "$how" != downloaded ] || fetch
    )
    failed=$?
    set -e
    if [ "$failed" = 0 ]; then
        echo "  ok      $name: $package $version of $suite, $how"
    else
        echo "  FAILED  $name: $package $version of $suite"
        status=1
    fi
done
exit $status
