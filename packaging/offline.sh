# Prepares a build of packages as distributions do it. $offline is the command that takes the
# network away, or nothing where that is impossible. The variables of an outer make are unset.
# deb.sh and rpm.sh source this file.
# shellcheck shell=sh disable=SC2034
offline=
if unshare -n true 2>/dev/null; then
    offline="unshare -n"
elif unshare -rn true 2>/dev/null; then
    offline="unshare -rn"
fi
unset MAKEFLAGS MFLAGS MAKELEVEL CARGO CARGO_TARGET_DIR
