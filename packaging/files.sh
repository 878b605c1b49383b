#!/bin/sh
# Installs what `make` and `make lib` have built, or removes it:
#   files.sh install | install-lib | install-stat | uninstall
# The variables below name the directories, each of them below DESTDIR. The Makefile sets PREFIX,
# LIBDIR, and the names of the built files: BINARY is stalld, STAT stallstat, LIBRARY libstalld.pc.
set -eu
cd "$(dirname "$0")/.."
action=$1

DESTDIR=${DESTDIR-}
BINDIR=${BINDIR:-$PREFIX/bin}
INCLUDEDIR=${INCLUDEDIR:-$PREFIX/include}
MANDIR=${MANDIR:-$PREFIX/share/man}
DOCDIR=${DOCDIR:-$PREFIX/share/doc/stalld}
UNITDIR=${UNITDIR:-$PREFIX/lib/systemd/system}
BASHDIR=${BASHDIR:-$PREFIX/share/bash-completion/completions}
ZSHDIR=${ZSHDIR:-$PREFIX/share/zsh/site-functions}
FISHDIR=${FISHDIR:-$PREFIX/share/fish/vendor_completions.d}
# The options of services: Debian has another directory for them than other systems.
if [ -e /etc/debian_version ]; then
    CONFDIR=${CONFDIR:-/etc/default}
else
    CONFDIR=${CONFDIR:-/etc/sysconfig}
fi

# Prints a command and runs it.
run() {
    echo "$*"
    "$@"
}

# put MODE TARGET FILE...: a TARGET that ends in a slash is a directory.
put() {
    mode=$1 target=$DESTDIR$2
    shift 2
    for file; do
        case $target in
        */) place=$target${file##*/} ;;
        *) place=$target ;;
        esac
        if [ "$action" = uninstall ]; then
            run rm -f "$place"
        else
            run install -D -m "$mode" "$file" "$place"
        fi
    done
}

# link TEXT TARGET
link() {
    if [ "$action" = uninstall ]; then
        run rm -f "$DESTDIR$2"
    else
        run ln -sf "$1" "$DESTDIR$2"
    fi
}

daemon() {
    put 755 "$BINDIR/stalld" "$BINARY"
    put 755 "$BINDIR/" packaging/throttlectl
    put 644 "$DOCDIR/" README.md CHANGELOG.md COPYING.md LICENSES/*.txt
    put 644 "$DOCDIR/monitoring/" packaging/monitoring/*
    put 644 "$MANDIR/man8/" man/stalld.8 man/throttlectl.8
    put 644 "$UNITDIR/" packaging/systemd/stalld.service
    put 644 "$BASHDIR/stalld" packaging/completions/stalld.bash
    link stalld "$BASHDIR/throttlectl"
    put 644 "$ZSHDIR/" packaging/completions/_stalld
    put 644 "$FISHDIR/" packaging/completions/stalld.fish
    link stalld.fish "$FISHDIR/throttlectl.fish"
}

stallstat() {
    put 755 "$BINDIR/stallstat" "$STAT"
    put 644 "$MANDIR/man8/" man/stallstat.8
    put 644 "$BASHDIR/stallstat" packaging/completions/stallstat.bash
    put 644 "$ZSHDIR/" packaging/completions/_stallstat
    put 644 "$FISHDIR/" packaging/completions/stallstat.fish
}

library() {
    put 644 "$LIBDIR/" target/lib/libstalld.a
    put 644 "$LIBDIR/pkgconfig/libstalld.pc" "$LIBRARY"
    put 644 "$INCLUDEDIR/" include/stalld.h
    put 644 "$MANDIR/man3/" man/*.3
}

install_daemon() {
    daemon
    sed -i "s|/usr/bin/stalld|$BINDIR/stalld|; s|/usr/bin/throttlectl|$BINDIR/throttlectl|" \
        "$DESTDIR$UNITDIR/stalld.service"
    # Keeps the options that an administrator has set.
    [ -e "$DESTDIR$CONFDIR/stalld" ] || put 644 "$CONFDIR/stalld" packaging/systemd/stalld.conf
}

install_library() {
    library
    run cp -P target/lib/libstalld.so* "$DESTDIR$LIBDIR"
    sed -i "s|^prefix=.*|prefix=$PREFIX|; s|^libdir=.*|libdir=$LIBDIR|" "$DESTDIR$LIBDIR/pkgconfig/libstalld.pc"
}

case $action in
install)
    install_daemon
    [ ! -e "$STAT" ] || stallstat
    [ ! -e "$LIBRARY" ] || install_library
    ;;
install-stat) stallstat ;;
install-lib) install_library ;;
uninstall)
    daemon
    stallstat
    library
    run rm -f "$DESTDIR$LIBDIR"/libstalld.*
    run rm -rf "$DESTDIR$DOCDIR"
    ;;
*)
    echo "usage: files.sh install | install-lib | install-stat | uninstall" >&2
    exit 2
    ;;
esac
