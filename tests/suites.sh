#!/bin/sh
# Prints the Debian releases in which packages that were built here can be installed, oldest first:
#   suites.sh [GLIBC]
# A package needs a C library that is at least as new as that of its build system. GLIBC is the
# version of the latter, by default this system's.
set -eu
built_with=${1:-$(getconf GNU_LIBC_VERSION | sed 's/^glibc //')}
suites=
for suite in bookworm=2.36 trixie=2.41; do
    if printf '%s\n' "$built_with" "${suite#*=}" | sort -V -C; then
        suites="$suites${suites:+ }${suite%=*}"
    fi
done
echo "$suites"
