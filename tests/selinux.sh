#!/bin/sh
# Checks the SELinux policy by linking it with a distribution's, as root: selinux.sh [PACKAGE.rpm]
#
# The policy comes from the package, or else from packaging/selinux. The distribution is a Debian
# below target/roots. Its policy does not know stalld, so a stand-in declares the types that
# Fedora's has for the C program. No kernel loads any of it.
# shellcheck disable=SC2317 # most functions are called by `check`
set -eu
package=${1:+$(realpath "$1")}
cd "$(dirname "$0")/.."
. tests/checks.sh
umask 022

root=$PWD/target/roots/selinux-bookworm

# build MODULE [FILE-CONTEXTS]: builds a module as the RPM does, but with the tools in the root,
# which may be older.
build() {
    chroot "$root" sh -c "cd $inside && checkmodule -M -m -c 19 -o $1.mod $1.te &&
        semodule_package -o $1.pp -m $1.mod ${2:+-f $2}"
}

# Makes stalld_bpf.pp, the module to check.
our_module() {
    if [ -z "$package" ]; then
        cp packaging/selinux/stalld_bpf.te packaging/selinux/stalld_bpf.fc "$work"
        build stalld_bpf stalld_bpf.fc
    else
        (cd "$work" && rpm2cpio "$package" | "$busybox" cpio -id) &&
            bzip2 -dc "$work/usr/share/selinux/packages/targeted/stalld_bpf.pp.bz2" >"$work/stalld_bpf.pp"
    fi
}

# stand_in [STATEMENTS]: builds a module that declares stalld_t.
stand_in() {
    cat >"$work/stand_in.te" <<END
module stand_in 1.0;
require {
	attribute domain, file_type, non_auth_file_type, non_security_file_type, pidfile;
	type var_run_t;
	role system_r;
	class dir create;
	class file create;
}
type stalld_t, domain;
role system_r types stalld_t;
${1:-}
END
    build stand_in
}

# Links a copy of the distribution's modules with ours and the stand-in, as `semodule` does on a
# host. The option expand-check has the result checked against the rules for what no domain may do.
link() {
    rm -rf "${work:?}/etc" "${work:?}/var"
    mkdir -p "$work/etc" "$work/var/lib" &&
        cp -a "$root/etc/selinux" "$work/etc" &&
        cp -a "$root/var/lib/selinux" "$work/var/lib" &&
        sed -i 's/^expand-check=.*/expand-check=1/' "$work/etc/selinux/semanage.conf" &&
        chroot "$root" semodule -p "$inside" --noreload --store default \
            --priority 100 --install "$inside/stand_in.pp" --priority 200 --install "$inside/stalld_bpf.pp"
}

# ask COMMAND...: runs sesearch or seinfo on the linked policy. The name of its file has its
# version.
ask() {
    chroot "$root" sh -c "exec \"\$@\" $linked/policy/policy.*" sh "$@"
}

# Writes the rules as `TARGET:CLASS PERMISSION... `, without those that depend on a boolean.
rules() {
    ask sesearch -A -s stalld_t | sed -n 's/^allow [^ ]* \([^ ]*\) \(.*\);$/\1 \2 /p' | tr -d '{}' >"$work/rules"
    ask sesearch -T -s stalld_t >"$work/transitions"
    [ -s "$work/rules" ] && [ -s "$work/transitions" ]
}

# allowed: checks that the rules allow lines `TARGET:CLASS PERMISSION...` on stdin.
allowed() {
    refused=0
    while read -r of permissions; do
        for permission in $permissions; do
            grep -qE "^$of( .*)? $permission " "$work/rules" || {
                echo "no rule for $of $permission"
                refused=1
            }
        done
    done
    return "$refused"
}

may_scan() {
    allowed <<END
stalld_t:bpf map_create map_read map_write prog_load prog_run
stalld_t:capability2 bpf perfmon
stalld_t:lockdown confidentiality integrity
sysfs_t:dir open read search
sysfs_t:file map open read
cpu_online_t:file open read
proc_t:dir open read search
proc_t:file open read
proc_t:lnk_file read
debugfs_t:dir search
debugfs_t:file open read
END
}

may_boost() {
    allowed <<END
domain:process getsched setsched
domain:dir open read search
domain:file open read write
stalld_t:capability ipc_lock sys_nice sys_resource
stalld_t:cap_userns sys_nice
stalld_t:process fork getsched setsched sigchld sigkill
stalld_t:fifo_file read write
stalld_t:unix_stream_socket create read write
END
}

may_change_settings() {
    allowed <<END
sysctl_t:dir search
sysctl_kernel_t:dir search
sysctl_kernel_t:file open read write
debugfs_t:file open write
END
}

may_keep_its_files() {
    allowed <<END
var_run_t:dir add_name remove_name search write
tmpfs_t:dir getattr search
stalld_state_t:dir add_name create getattr open read remove_name search write
stalld_state_t:file create getattr lock map open read rename setattr unlink write
END
}

may_log() {
    allowed <<END
stalld_t:unix_dgram_socket connect create write
kmsg_device_t:chr_file open write
init_t:unix_dgram_socket sendto
init_t:unix_stream_socket read write
init_t:fd use
init_runtime_t:dir search
init_runtime_t:sock_file write
syslogd_t:unix_dgram_socket sendto
kernel_t:unix_dgram_socket sendto
syslogd_runtime_t:dir search
syslogd_runtime_t:sock_file write
devlog_t:lnk_file read
devlog_t:sock_file write
null_device_t:chr_file open read write
END
}

may_use_the_distributions_pidfile() {
    echo "stalld_var_run_t:file create getattr lock open read setattr unlink write" | allowed
}

# The unit has NoNewPrivileges=yes, so that a start needs this permission.
starts() {
    ask sesearch -A -s init_t -t stalld_t -c process2 -p nnp_transition | grep '^allow init_t '
}

# Kernel threads are in the kernel's own domain.
reaches_kernel_threads() {
    ask sesearch -A -s stalld_t -t kernel_t -c process -p setsched | grep '^allow stalld_t '
}

# changes_files_of TYPE...: checks that files of these types, in order, may be changed, and no
# others.
changes_files_of() {
    sed -nE 's/^([^ ]*):file( .*)? (append|create|rename|setattr|unlink|write) .*/\1/p' "$work/rules" | sort -u >"$work/changed"
    printf '%s\n' "$@" | diff - "$work/changed"
}

# becomes CLASS TYPE [NAME]: checks the type of what stalld makes in /run.
becomes() {
    grep -qx "type_transition stalld_t var_run_t:$1 $2${3:+ $3};" "$work/transitions" || { cat "$work/transitions"; return 1; }
}

# Checks the type of the directory that root makes there by hand.
becomes_by_hand() {
    ask sesearch -T -s unconfined_t -t var_run_t -c dir | grep ' stalld_state_t stalld;$'
}

# With these attributes, programs that clean up, list or relabel /run also handle stalld's files.
is_a_file_of_run() {
    ask seinfo -t stalld_state_t -x >"$work/attributes"
    for attribute in file_type non_auth_file_type non_security_file_type pidfile; do
        grep -qw "$attribute" "$work/attributes" || { echo "it is no $attribute"; return 1; }
    done
}

label() {
    chroot "$root" matchpathcon -n -f "$linked/contexts/files/file_contexts" "$1"
}

files_are_labelled() {
    for path in /run/stalld /run/stalld/journal /run/stalld/stalld.lock /var/run/stalld /var/run/stalld/journal; do
        [ "$(label "$path")" = system_u:object_r:stalld_state_t:s0 ] || { echo "$path is $(label "$path")"; return 1; }
    done
    ! label /run/stalld-of-another | grep stalld_state_t
}

# In older releases, the policy knows the directory as /var/run.
files_are_labelled_by_the_old_name() {
    names=$root$linked/contexts/files/file_contexts.subs_dist
    sed -i 's|^/var/run[[:blank:]].*|/run /var/run|' "$names"
    grep '^/run /var/run$' "$names" && files_are_labelled
}

# Checks all that does not depend on the distribution's policy.
check_rules() {
    check "it links, and allows nothing that nobody may" link
    check "its rules are there" rules
    check "stalld starts without new privileges" starts
    check "it may scan" may_scan
    check "it may boost" may_boost
    check "kernel threads too" reaches_kernel_threads
    check "it may put RT throttling and HRTICK back" may_change_settings
    check "it may keep its journal, its lock and its metrics" may_keep_its_files
    check "it may tell the system's log, the kernel's and systemd" may_log
    check "its directory gets a type of its own" becomes dir stalld_state_t stalld
    check "also the one that root makes by hand" becomes_by_hand
    check "which is a type for /run" is_a_file_of_run
    check "/run/stalld.pid gets it, too" becomes file stalld_state_t stalld.pid
    check "its files are labelled" files_are_labelled
    check "also where /run is known as /var/run" files_are_labelled_by_the_old_name
}

[ -z "$package" ] || busybox=$(sh tests/vm/fetch.sh "busybox-$(uname -m)")
sh tests/root.sh "$root" bookworm selinux-policy-default,semodule-utils,checkpolicy,setools,selinux-utils
work=$(mktemp -d "$root/work.XXXXXX")
trap 'rm -rf "$work"' EXIT
output=$work/output
# The paths of the work directory and of the linked policy, within the root.
inside=/${work##*/}
linked=$inside/etc/selinux/default

echo "the SELinux policy where the distribution has a type for the pidfile:"
check "the module is there" our_module
check "so is the stand-in" stand_in "type stalld_var_run_t, file_type, non_auth_file_type, non_security_file_type, pidfile;
type_transition stalld_t var_run_t:{ dir file } stalld_var_run_t;"
check_rules
check "a pidfile by any other name gets the distribution's" becomes file stalld_var_run_t
check "it may keep that" may_use_the_distributions_pidfile
check "it may change no other files" changes_files_of debugfs_t domain stalld_state_t stalld_t stalld_var_run_t sysctl_kernel_t

echo "the SELinux policy where it has none:"
check "the stand-in is there" stand_in
check_rules
check "it may change no other files" changes_files_of debugfs_t domain stalld_state_t stalld_t sysctl_kernel_t
exit "$status"
