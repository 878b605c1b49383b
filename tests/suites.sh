#!/bin/sh
# Prints the Debian releases in which packages that were built here can be installed, oldest first:
#   suites.sh [GLIBC]
# A package needs a C library at least as new as the one of the system that it was built on. GLIBC is
# the version of that; by default it is this system's.
set -eu
built_with=${1:-$(getconf GNU_LIBC_VERSION | sed 's/^glibc //')}
suites=
for suite in bookworm=2.36 trixie=2.41; do
    if printf '%s\n' "$built_with" "${suite#*=}" | sort -V -C; then
        suites="$suites${suites:+ }${suite%=*}"
    fi
done
echo "$suites"
