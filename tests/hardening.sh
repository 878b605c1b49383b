#!/bin/sh
# Checks that binaries are hardened:
#   hardening.sh FILE...
# If target/static/stalld is one of them, this also checks the archives of C code that it is linked
# from. Stack protectors are for C code only, because Rust checks each index.
set -eu
# shellcheck source=tests/checks.sh
. "$(dirname "$0")/checks.sh"

# Returns whether readelf shows a line with the pattern.
shows() {
    echo "$report" | grep -q -- "$1"
}

require() {
    if shows "$2"; then ok "$1"; else failed "$1"; fi
}

forbid() {
    if shows "$2"; then failed "$1"; else ok "$1"; fi
}

case " $* " in
*" target/static/stalld "*)
    # shellcheck disable=SC2012 # cargo makes these names
    archives=$(ls -td target/*/release/build/libbpf-sys-*/out 2>/dev/null | head -n 1)
    [ -z "$archives" ] || set -- "$@" "$archives/libbpf.a" "$archives/libelf.a" "$archives/libz.a"
    ;;
esac
for file; do
    echo "$file:"
    case $file in
    *.a)
        report=$(readelf -sW "$file")
        require "has stack protectors" 'UND __stack_chk_fail'
        continue
        ;;
    esac
    report=$(readelf -hldW --dyn-syms "$file")
    require "position-independent" 'Type: *DYN'
    require "relocations read-only after the start (RELRO)" 'GNU_RELRO'
    require "all symbols bound at the start (BIND_NOW)" 'BIND_NOW\|Flags:.*NOW'
    require "stack not executable" 'GNU_STACK.* RW '
    forbid "no segment both writable and executable" ' RWE '
    forbid "no relocations in the code" 'TEXTREL'
    # A static program has no names to search, and without libbpf all code is Rust.
    if shows '(NEEDED)' && grep -q 'libbpf: ' "$file"; then
        require "stack protectors in what is C" 'UND __stack_chk_fail'
    fi
    forbid "no library path of the build machine" 'RPATH\|RUNPATH'
    if command -v annocheck >/dev/null; then
        # Stable Rust can't emit control-flow protection.
        if annocheck --ignore-unknown --skip-cf-protection "$file"; then ok annocheck; else failed annocheck; fi
    fi
done
exit "$status"
