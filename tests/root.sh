#!/bin/sh
# Makes a Debian in a directory, as root, unless it is there:
#   root.sh DIRECTORY SUITE PACKAGE[,PACKAGE...]
# The output of debootstrap is in DIRECTORY.log.
set -eu
directory=$1 suite=$2 packages=$3
[ ! -d "$directory" ] || exit 0
mkdir -p "$(dirname "$directory")"
directory=$(cd "$(dirname "$directory")" && pwd)/$(basename "$directory")
cd "$(dirname "$0")/.."
. tests/vm/apt.sh
[ "$(id -u)" = 0 ] || die "$directory cannot be made: debootstrap needs root"
require_apt
address=$(mirror) || exit 1
sh tests/vm/fetch.sh debootstrap >/dev/null
# debootstrap gets a mount namespace of its own, except in a chroot whose root is no mount point:
# there unshare(1) fails.
own='unshare --mount'
$own true 2>/dev/null || own=
echo "stalld: making $directory" >&2
rm -rf --one-file-system "$directory.new"
$own sh tests/vm/tools.sh debootstrap --variant=minbase --keyring="$keys" --include="$packages" \
    "$suite" "$directory.new" "$address" >"$directory.log" 2>&1 ||
    die "$directory cannot be made: debootstrap failed: $(tail -n 1 "$directory.log"); see $directory.log"
mv "$directory.new" "$directory"
