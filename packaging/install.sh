#!/bin/sh
# Installs stalld from this directory, or removes it: install.sh [--remove]
# With DESTDIR set, below that. It needs no more than busybox has.
set -eu
cd "$(dirname "$0")"
umask 022
destination=${DESTDIR-}

die() {
    echo "install.sh: $1" >&2
    exit 1
}

[ -n "$destination" ] || [ "$(id -u)" = 0 ] || die "this needs root, or DESTDIR"

# Where this system looks for the options of services.
if [ -e "$destination/etc/debian_version" ] || [ ! -d "$destination/etc/sysconfig" ]; then
    options=etc/default/stalld
else
    options=etc/sysconfig/stalld
fi

# What is to be installed, as paths from the root.
files() {
    (cd root && find . ! -type d) | sed 's|^\./||' | sort
}

tell_systemd() {
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
            # An administrator's own stays.
            [ ! -e "$target" ] || continue
        fi
        mkdir -p "$(dirname "$target")"
        # Beside it and then into its place: stalld may be running.
        cp -P "root/$file" "$target.new"
        mv -f "$target.new" "$target"
        echo "$target"
    done
    tell_systemd daemon-reload
    # An older one that is running.
    tell_systemd try-restart stalld.service
    ;;
*)
    [ "$*" = --remove ] || die "unknown argument '$*': give --remove, or nothing"
    tell_systemd disable --now stalld.service || :
    files | grep -v '^etc/' | while read -r file; do
        rm -f "$destination/$file"
    done
    rmdir "$destination/usr/share/doc/stalld/monitoring" "$destination/usr/share/doc/stalld" 2>/dev/null || :
    tell_systemd daemon-reload
    echo "install.sh: removed; $destination/$options is left"
    ;;
esac
