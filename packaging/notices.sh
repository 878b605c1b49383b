#!/bin/sh
# Prints the licences of the program's parts that others wrote:
#   notices.sh [CARGO FEATURES...]
# The parts are the linked crates, and the C code that libbpf-sys brings. CARGO is the cargo command
# to ask.
set -eu
cd "$(dirname "$0")/.."
. packaging/version.sh
. packaging/crates.sh

# heading NAME LICENCE
heading() {
    printf '\n================================================================================\n%s\n%s\n\n' "$1" "$2"
}

# texts FILE...: prints the files, and ends each with a newline, which some of them lack.
texts() {
    for file; do
        [ "$file" = "$1" ] || echo
        awk 1 "$file"
    done
}

# texts_of_crate DIRECTORY LICENCE: prints MIT's text where there is a choice, because it is short.
texts_of_crate() {
    case $2 in
    *" AND "*) texts "$1"/LICENSE* ;;
    "MIT OR "* | *" OR MIT"*) texts "$1/LICENSE-MIT" ;;
    *) texts "$1"/LICENSE* ;;
    esac
}

texts_of_part() {
    case $1 in
    libbpf) sed '/^Copyright/,$!d' "$2/libbpf/LICENSE.BSD-2-Clause" ;;
    elfutils)
        cat <<'END'
Of elfutils the program has libelf inside, which Red Hat, Inc. and others wrote. It is covered by these licences. Its
source is in the crate libbpf-sys, which comes with that of stalld; COPYING.md says how to link a changed one. The GNU
Lesser General Public License follows, and the GNU General Public License that it refers to.

END
        texts "$2/elfutils/COPYING-LGPLV3" "$2/elfutils/COPYING"
        ;;
    zlib) texts "$2/zlib/LICENSE" ;;
    esac
}

crates=$(linked_crates "$@")
cat <<END
What stalld $version has inside that others wrote, and the licences of it. COPYING.md tells that of the rest,
and that of the C library in a static program.
END
while IFS='|' read -r name crate_version licence; do
    heading "$name $crate_version" "$licence"
    texts_of_crate "$(directory_of "$name-$crate_version" "$@")" "$licence"
done <<END
$crates
END
case $crates in
*libbpf-sys*)
    in_c=$(directory_of libbpf-sys- "$@")
    parts=$(in_libbpf_sys "$in_c" "$@")
    while IFS='|' read -r name part_version licence; do
        heading "$name $part_version" "$licence"
        texts_of_part "$name" "$in_c"
    done <<END
$parts
END
    ;;
esac
heading "The standard library of Rust" "MIT OR Apache-2.0"
cat <<'END'
Copyright (c) The Rust Project Developers (see https://thanks.rust-lang.org)

Under the terms of the crate libc above. It comes with the compiler, and so do the notices of its own parts.
END
