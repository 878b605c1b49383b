# Debian's package lists of one suite at a time, apart from the machine's own. Sourced by the
# scripts that fetch from Debian, in the root of the tree.
# shellcheck shell=sh

# The cache is outside the tree, so that `make clean` and a new checkout keep the downloads.
cache=${STALLD_VM_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/stalld-vm}
mkdir -p "$cache"
cache=$(cd "$cache" && pwd)
# shellcheck disable=SC2034 # used by the scripts that source this file
lock=tests/vm/packages.lock
keys=/usr/share/keyrings/debian-archive-keyring.gpg

die() {
    echo "stalld: $*" >&2
    exit 1
}

# Fails before the first download if this machine cannot read Debian's packages.
require_apt() {
    for tool in apt-get dpkg-deb flock; do
        command -v "$tool" >/dev/null ||
            die "$tool is missing: the virtual machines take kernels and tools from Debian packages; install apt, dpkg and util-linux"
    done
    [ -e "$keys" ] || die "$keys is missing: install the package debian-archive-keyring"
}

# Prints the mirror that this machine uses. The tree names none.
mirror() {
    # shellcheck disable=SC2016 # apt expands it
    found=${STALLD_VM_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' \
        'Created-By: Packages' 'Label: Debian' 'Component: main' | head -n 1)}
    case $found in
    # A list of mirrors: debootstrap needs one of them.
    mirror+file:*) found=$(sed -n 's/^\([a-z]*:[^[:space:]]*\).*/\1/p' "${found#mirror+file:}" | head -n 1) ;;
    esac
    [ -n "$found" ] || die "no Debian mirror is configured: run apt-get update, or set STALLD_VM_MIRROR to an address"
    echo "${found%/}"
}

# in_suite SUITE[@ARCHITECTURE] COMMAND...: runs a command of apt that sees the packages of this
# suite and no others.
in_suite() {
    root=$cache/apt/$1 of=amd64
    [ "$1" = "${1%@*}" ] || of=${1#*@}
    require_apt
    address=${address:-$(mirror)} || exit 1
    mkdir -p "$root/lists/partial" "$root/archives/partial"
    echo "deb [arch=$of signed-by=$keys] $address ${1%@*} main" >"$root/sources.list"
    cat >"$root/apt.conf.new" <<END
APT::Architecture "$of";
APT::Default-Release "";
APT::Sandbox::User "";
Dir::Etc::SourceList "$root/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::State "$root";
Dir::State::status "/dev/null";
Dir::Cache "$root";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
END
    mv "$root/apt.conf.new" "$root/apt.conf"
    shift
    APT_CONFIG=$root/apt.conf "$@"
}

# update SUITE[@ARCHITECTURE]: reads the suite's package list again.
update() {
    mkdir -p "$cache/apt"
    in_suite "$1" apt-get -q update --error-on=any >"$cache/apt/$1.log" 2>&1 ||
        die "the package list of $1 cannot be read: $(first_error "$1"); check the network, or set STALLD_VM_MIRROR to a mirror of it"
}

# first_error SUITE[@ARCHITECTURE]: prints the first error in the log of the suite's last command.
first_error() {
    sed -n 's/^E: //p' "$cache/apt/$1.log" | head -n 1
}

# show FIELD SUITE PACKAGE[=VERSION]: prints a field of the newest such package, or nothing if the
# suite has none.
show() {
    in_suite "$2" apt-cache show --no-all-versions "$3" 2>/dev/null | sed -n "s/^$1: //p" | head -n 1
}
