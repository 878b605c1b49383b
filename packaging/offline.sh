# Sourced by what builds packages as others do: without network where that can be taken away ($offline is the command
# for it), and without what a make around it has set.
# shellcheck shell=sh disable=SC2034
offline=
if unshare -n true 2>/dev/null; then
    offline="unshare -n"
elif unshare -rn true 2>/dev/null; then
    offline="unshare -rn"
fi
unset MAKEFLAGS MFLAGS MAKELEVEL CARGO CARGO_TARGET_DIR
