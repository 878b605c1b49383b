# Functions that list the parts of the program: the crates that are linked, and the C code that
# libbpf-sys brings. Scripts source this file. CARGO is the cargo command to ask.
# shellcheck shell=sh

# linked_crates [CARGO FEATURES...]: prints a line name|version|licence for each crate.
linked_crates() {
    ${CARGO:-cargo} tree --quiet --edges normal --prefix none --format '{p}|{l}' "$@" | sort -u | sed 's/ (\*)$//' |
        sed -n 's/^\([^ ]*\) v\([^ |]*\)[^|]*|\(.*\)/\1|\2|\3/p' | grep -v '^stalld|'
}

# directory_of NAME-VERSION [CARGO FEATURES...]: prints the directory of a crate. The beginning of
# the version is enough.
directory_of() {
    crate=$1
    shift
    ${CARGO:-cargo} metadata --quiet --format-version 1 "$@" |
        grep -o '"manifest_path":"[^"]*/'"$crate"'[^/"]*/Cargo.toml"' | head -n 1 | sed 's/.*:"\(.*\)\/Cargo.toml"/\1/'
}

# in_libbpf_sys DIRECTORY [CARGO FEATURES...]: prints such lines for the C code that is linked from
# the directory of that crate.
in_libbpf_sys() {
    directory=$1
    shift
    libbpf=$(sed -n 's/^LIBBPF_M[AI][JN]OR_VERSION := //p' "$directory/libbpf/src/Makefile" | paste -s -d .)
    echo "libbpf|$libbpf.0|LGPL-2.1-only OR BSD-2-Clause"
    case " $* " in
    *vendored*)
        elfutils=$(sed -n 's/^AC_INIT(\[elfutils\],\[\([^]]*\)\].*/\1/p' "$directory/elfutils/configure.ac")
        zlib=$(sed -n 's/^#define ZLIB_VERSION "\(.*\)"/\1/p' "$directory/zlib/zlib.h")
        echo "elfutils|$elfutils|LGPL-3.0-or-later OR GPL-2.0-or-later"
        echo "zlib|$zlib|Zlib"
        ;;
    esac
}
