#!/bin/sh
# Makes a Debian to copy from in target/roots, with the libraries that the packages need, unless it
# is there:
#   debian.sh SUITE
set -eu
cd "$(dirname "$0")/.."
exec sh tests/root.sh "target/roots/$1" "$1" systemd,libelf-dev,zlib1g-dev,procps
