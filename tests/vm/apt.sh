# Debian's package lists of one suite at a time, apart from the machine's own: read by fetch.sh and refresh.sh.
# shellcheck shell=sh

# Outside the tree: `make clean` and a new checkout keep what was downloaded.
cache=${STALLD_VM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/stalld-vm}
mkdir -p "$cache"
# shellcheck disable=SC2034 # it is for those who read this
lock=tests/vm/kernels.lock

die() {
    echo "stalld: $*" >&2
    exit 1
}

# The mirror that this machine uses; none has its name in the tree.
mirror() {
    [ -n "${STALLD_VM_MIRROR:-}" ] || command -v apt-get >/dev/null ||
        die "kernels are Debian packages, and there is no apt-get here: use KERNEL=FILE"
    # shellcheck disable=SC2016 # apt expands it
    found=${STALLD_VM_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' \
        'Created-By: Packages' 'Label: Debian' 'Component: main' | head -n 1)}
    echo "${found:?no Debian mirror is known here (after apt-get update): set STALLD_VM_MIRROR to its address}"
}

# in_suite SUITE[@ARCHITECTURE] COMMAND...: a command of apt that knows the packages of this suite, and no others.
in_suite() {
    root=$cache/apt/$1 of=amd64
    [ "$1" = "${1%@*}" ] || of=${1#*@}
    if [ ! -e "$root/apt.conf" ]; then
        mkdir -p "$root/lists/partial" "$root/archives/partial"
        keys=/usr/share/keyrings/debian-archive-keyring.gpg
        [ -e "$keys" ] || die "$keys is missing: the package debian-archive-keyring has it"
        address=$(mirror) || exit 1
        echo "deb [arch=$of signed-by=$keys] $address ${1%@*} main" >"$root/sources.list"
        cat >"$root/apt.conf.new" <<END
APT::Architecture "$of";
APT::Sandbox::User "";
Dir::Etc::SourceList "$root/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::State "$root";
Dir::State::status "/dev/null";
Dir::Cache "$root";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
END
        mv "$root/apt.conf.new" "$root/apt.conf"
    fi
    shift
    APT_CONFIG=$root/apt.conf "$@"
}
