#!/bin/sh
# Runs the README's commands on bare Debian systems, as a new user does: fresh.sh [ROOT...]
#
# ROOT is debian12 or debian13 (as root), debian12-user or debian13-user (an ordinary user with
# sudo), ci-debian12 or ci-debian13 (.ci/run as root; up to 90 minutes; `ci` is ci-debian13). The
# default is the first four. Needs root, and a Debian or Ubuntu host.
#
# Each system is a copy of a root that debootstrap makes once, with a clone of HEAD. It is
# target/fresh/ROOT while its commands run, and is removed afterwards unless KEEP=1. The log is
# target/fresh/ROOT.log. With ONLY=demo in the environment, only the commands that contain `demo`
# run.
set -eu
cd "$(dirname "$0")/.."
. tests/checks.sh
. tests/vm/apt.sh
out=$PWD/target/fresh
throttling=/proc/sys/kernel/sched_rt_runtime_us

# The commands in the README's first code block, so that the README and this test cannot drift
# apart.
readme_commands() {
    awk '/^    / { sub(/ *#.*/, ""); sub(/^ */, ""); print; found = 1; next } found { exit }' README.md
}

# The address of Debian's security archive on the mirror that this machine uses.
security_mirror() {
    # shellcheck disable=SC2016 # apt expands it
    found=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Label: Debian-Security' | head -n 1)
    if [ -n "$found" ]; then
        echo "$found"
    else
        found=$(mirror)
        echo "${found%/}-security"
    fi
}

# pristine SUITE: prints the directory of a bare Debian to copy from, and makes it at the first use.
pristine() {
    system=$cache/fresh-$1
    if [ ! -e "$system" ]; then
        rm -rf "$system.new"
        sh tests/vm/tools.sh debootstrap --variant=minbase --include=make,git,ca-certificates "$1" "$system.new" "$(mirror)" \
            >"$system.log" 2>&1 || die "debootstrap failed: see $system.log"
        address=$(mirror)
        cat >"$system.new/etc/apt/sources.list" <<END
deb $address $1 main
deb $address $1-updates main
deb $(security_mirror) $1-security main
END
        mv "$system.new" "$system"
    fi
    echo "$system"
}

# Lets the system reach the network by the same proxies, registries and certificates as this
# machine.
connect() {
    cp -L /etc/resolv.conf /etc/hosts "$root/etc/"
    env | grep -iE '^(https?_proxy|no_proxy|CARGO_(HTTP|NET|REGISTR|SOURCE)[A-Z_]*)=' >"$root/etc/environment" || :
    own=$(find /usr/local/share/ca-certificates -name '*.crt' 2>/dev/null || :)
    if [ -n "$own" ]; then
        cp -r /usr/local/share/ca-certificates "$root/usr/local/share/"
        inside root update-ca-certificates
    fi
}

# inside USER COMMAND: runs it as a login of this user, without a terminal. /proc, /sys and /dev are
# mounted, but none of the file systems that belong below /sys. The mounts end with the last
# process.
inside() {
    # This gets no pid namespace of its own, because stalld does not boost inside one. The root is
    # mounted on itself, because unshare(1) fails if / is no mount point.
    # shellcheck disable=SC2016 # the shell inside expands it
    unshare --mount sh -eu -c '
        mount --bind "$1" "$1"
        mount -t proc proc "$1/proc"
        mount -t sysfs sysfs "$1/sys"
        mount --rbind /dev "$1/dev"
        exec chroot "$1" su - "$2" -c "$3"
    ' sh "$root" "$1" "$2" </dev/null
}

# Ends the processes that the commands have left behind in the system, so that it can be removed.
end_leftovers() {
    for process in /proc/[0-9]*; do
        case $(readlink "$process/root" 2>/dev/null) in
        "$root" | "$root"/*) kill -9 "${process#/proc/}" 2>/dev/null || : ;;
        esac
    done
}

# prepare SUITE: makes the system $root from this suite, with the user $user in it.
prepare() {
    end_leftovers
    rm -rf --one-file-system "$root"
    system=$(pristine "$1")
    cp -a --reflink=auto "$system" "$root"
    connect
    if [ "$user" != root ]; then
        inside root "apt-get -q update && apt-get -q -y --no-install-recommends install sudo"
        inside root "useradd --create-home --shell /bin/bash $user"
        echo "$user ALL=(ALL) NOPASSWD: ALL" >"$root/etc/sudoers.d/$user"
    fi
    # The checkout may belong to another user than root.
    GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0='*' \
        git clone --quiet --no-hardlinks "$PWD" "$root$home/stalld"
    registries=${CARGO_HOME:-$HOME/.cargo}/config.toml
    if [ -e "$registries" ]; then
        install -D -m 444 "$registries" "$root$home/.cargo/config.toml"
    fi
    inside root "chown -R $user: $home"
}

# try WHAT COMMAND: runs the command in the checkout, and prints how it went and how long it took.
try() {
    before=$(wc -l <"$log")
    begin=$(date +%s)
    echo "== $2" >>"$log"
    result=0
    inside "$user" "cd stalld && $2" >>"$log" 2>&1 || result=$?
    what="$name: $1 ($(($(date +%s) - begin)) s)"
    if [ "$result" = 0 ]; then
        ok "$what"
    else
        failed "$what: exit $result: see $log"
        tail -n 15 "$log" | sed 's/^/          /'
    fi
    if [ "$(cat $throttling)" != "$runtime" ]; then
        failed "$name: $1 left $throttling at $(cat $throttling): restored to $runtime"
        echo "$runtime" >$throttling
    fi
}

# installed_nothing WHAT: checks that the last command has found all that it needs.
installed_nothing() {
    if tail -n "+$((before + 1))" "$log" | grep -q 'installing by'; then
        failed "$name: $1 installs nothing: see $log"
    else
        ok "$name: $1 installs nothing"
    fi
}

remove() {
    if [ -n "$root" ]; then
        end_leftovers
        [ -n "${KEEP:-}" ] || rm -rf --one-file-system "$root"
    fi
}

suite_of() {
    case $1 in
    debian12 | debian12-user | ci-debian12) echo bookworm ;;
    debian13 | debian13-user | ci-debian13 | ci) echo trixie ;;
    *) die "fresh.sh knows no root '$1': debian12, debian13, debian12-user, debian13-user, ci, ci-debian12" ;;
    esac
}

[ $# -gt 0 ] || set -- debian12 debian13 debian12-user debian13-user
for name; do
    suite_of "$name" >/dev/null
done
[ "$(id -u)" = 0 ] || die "fresh.sh mounts /proc, /sys and /dev, so run it as root"
changed=$(git status --porcelain)
[ -z "$changed" ] || echo "stalld: not committed, and so not tested:" "$changed" >&2

mkdir -p "$out"
runtime=$(cat $throttling)
root=
trap remove EXIT
trap 'exit 130' INT TERM
for name; do
    suite=$(suite_of "$name")
    log=$out/$name.log
    root=$out/$name user=root home=/root
    case $name in
    *-user) user=tester home=/home/tester ;;
    esac
    # In a condition, the shell would go on after a step that has failed.
    set +e
    (set -e && prepare "$suite") >"$log" 2>&1
    result=$?
    set -e
    if [ "$result" != 0 ]; then
        failed "$name: the system is made: see $log"
        tail -n 15 "$log" | sed 's/^/          /'
        continue
    fi
    case $name in
    ci*)
        try .ci/run .ci/run
        tail -n 1 "$log" | sed 's/^/          /'
        ;;
    *)
        readme_commands | grep -e "${ONLY:-make}" >"$out/commands" || die "the README has no command '${ONLY:-make}'"
        while read -r command; do
            try "$command, first run" "$command"
            try "$command, second run" "$command"
            installed_nothing "$command, second run,"
        done <"$out/commands"
        ;;
    esac
    remove
    root=
done
exit "$status"
