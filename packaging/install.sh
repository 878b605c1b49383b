#!/bin/sh
# Installs stalld from this directory, or removes it:
#   install.sh [--remove]
# With DESTDIR set, it works below that directory. It needs no other tools than busybox has.
set -eu
cd "$(dirname "$0")"
umask 022
destination=${DESTDIR-}

die() {
    echo "install.sh: $1" >&2
    exit 1
}

[ -n "$destination" ] || [ "$(id -u)" = 0 ] || die "this needs root, or DESTDIR"

# The directory of this system for the options of services.
if [ -e "$destination/etc/debian_version" ] || [ ! -d "$destination/etc/sysconfig" ]; then
    options=etc/default/stalld
else
    options=etc/sysconfig/stalld
fi

# Prints the files to install, as paths from the root.
files() {
    (cd root && find . ! -type d) | sed 's|^\./||' | sort
}

run_systemctl() {
    if [ -z "$destination" ] && [ -d /run/systemd/system ]; then
        systemctl "$@"
    fi
}

case $# in
0)
    sha256sum -c SHA256SUMS >/dev/null || die "this directory is damaged: get it again"
    files | while read -r file; do
        target=$destination/$file
        if [ "$file" = etc/default/stalld ]; then
            target=$destination/$options
            # Keeps the options that an administrator has set.
            [ ! -e "$target" ] || continue
        fi
        mkdir -p "$(dirname "$target")"
        # Copies and then renames, because stalld may be running.
        cp -P "root/$file" "$target.new"
        mv -f "$target.new" "$target"
        echo "$target"
    done
    run_systemctl daemon-reload
    # Restarts an older stalld that is running.
    run_systemctl try-restart stalld.service
    ;;
*)
    [ "$*" = --remove ] || die "unknown argument '$*': give --remove, or nothing"
    run_systemctl disable --now stalld.service || :
    files | grep -v '^etc/' | while read -r file; do
        rm -f "$destination/$file"
    done
    rmdir "$destination/usr/share/doc/stalld/monitoring" "$destination/usr/share/doc/stalld" 2>/dev/null || :
    run_systemctl daemon-reload
    echo "install.sh: removed; $destination/$options is left"
    ;;
esac
