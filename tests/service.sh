#!/bin/sh
# Checks the installed service on a host with systemd, as root, by starving a task on the last CPU.
# It changes the service's options, and restores them. Use it in a virtual machine.
set -eu

options=/etc/default/stalld
[ -e "$options" ] || options=/etc/sysconfig/stalld
limit=/proc/sys/kernel/sched_rt_runtime_us
# Only the last CPU is disturbed.
cpu=$(($(getconf _NPROCESSORS_ONLN) - 1))
if [ "$cpu" = 0 ]; then
    echo "left out: a hog on the only CPU would starve this test"
    exit 77
fi
hog=
victim=
# Sockets of other services that stalld must not reach, and those of them that this test makes.
sockets="/run/docker.sock /run/containerd/containerd.sock /run/libvirt/libvirt-sock /run/dbus/system_bus_socket
    /run/systemd/private /var/lib/lxd/unix.socket"
made=
listener=

cleanup() {
    for pid in $hog $victim $listener; do
        kill "$pid" 2>/dev/null || :
    done
    # shellcheck disable=SC2086 # a list of words
    rm -f $made
    [ ! -e "$options.before" ] || mv "$options.before" "$options"
    rm -rf /run/systemd/system/stalld.service.d
    systemctl daemon-reload
}
trap cleanup EXIT

fail() {
    echo "  FAILED  $*" >&2
    systemctl status --no-pager --lines=30 stalld.service >&2 || :
    exit 1
}

ok() {
    echo "  ok      $*"
}

# within SECONDS COMMAND...: repeats the command until it succeeds. Fails when the time is over.
within() {
    until=$(($(date +%s) + $1))
    shift
    until "$@"; do
        [ "$(date +%s)" -lt "$until" ] || return 1
        sleep 0.1
    done
}

of_service() {
    systemctl show --value --property="$1" stalld.service
}

is_active() {
    [ "$(of_service ActiveState)" = active ]
}

# kernel_logged WHAT: checks the kernel's log for a line that the victim was boosted, or restored.
kernel_logged() {
    dmesg | grep -q "stalld.*: $1 pid $victim "
}

# journal_has WHAT: the same for the journal. It may be late, because journald may starve as well.
journal_has() {
    journalctl --unit=stalld.service --output=cat | grep -q "^$1 pid $victim "
}

# Prints the victim's policy and priority. A boost is SCHED_DEADLINE, or FIFO 98 for a moment in
# each period.
policy() {
    chrt -p "$victim" | sed 's/.*: //; s/|.*//' | paste -s -d ' '
}

has_its_own_policy() {
    [ "$(policy)" = 'SCHED_FIFO 1' ]
}

boost_goes_on() {
    dmesg | grep "stalld.* pid $victim " | tail -n 1 | grep -q ': boosted '
}

boost_has_ended() {
    ! boost_goes_on
}

# Both tasks end by themselves.
starve() {
    timeout 450 taskset -c "$cpu" chrt -f 1 sh -c 'while :; do :; done' &
    within 20 found_victim || fail "there is no task to starve"
    timeout 400 chrt -f 50 taskset -c "$cpu" sh -c 'while :; do :; done' &
    hog=$!
}

found_victim() {
    victim=$(pgrep -n -P $!)
}

end_starvation() {
    kill "$hog" "$victim" 2>/dev/null || :
    wait
    hog=
    victim=
}

# has_restarted PID: returns whether another process than PID is ready. For a moment there is none.
has_restarted() {
    main=$(of_service MainPID)
    [ "${main:-0}" != 0 ] && [ "$main" != "$1" ] && is_active
}

# Listens on the sockets that no service of this system has.
listen() {
    for socket in $sockets; do
        if [ ! -S "$socket" ]; then
            mkdir -p "${socket%/*}"
            made="$made $socket"
        fi
    done
    # shellcheck disable=SC2086 # a list of words
    perl -MIO::Socket::UNIX -e '
        for (@ARGV) { push @held, IO::Socket::UNIX->new(Local => $_, Listen => 9) || die "$_: $!\n" }
        sleep 1200' $made &
    listener=$!
}

# connects SOCKET [COMMAND...]: returns whether a process that COMMAND starts can connect to it.
connects() {
    socket=$1
    shift
    "$@" perl -MIO::Socket::UNIX -e 'exit !IO::Socket::UNIX->new(Peer => shift)' "$socket"
}

all_accept() {
    for socket in $sockets; do
        connects "$socket" || return 1
    done
}

# inside COMMAND...: runs it with the mounts and the capabilities of the service.
inside() {
    nsenter --target="$first" --mount setpriv --no-new-privs --inh-caps=-all --bounding-set="$capabilities" "$@"
}

# inside_writes FILE: writes a file there, and makes its directory.
inside_writes() {
    # shellcheck disable=SC2016 # the inner shell expands it
    inside sh -c 'mkdir -p "${1%/*}" && : >"$1"' sh "$1" 2>/dev/null
}

pidfile_names_it() {
    [ "$(cat /run/stalld.pid)" = "$(of_service MainPID)" ]
}

systemctl stop stalld.service
before=$(cat "$limit")
listen
within 20 all_accept || fail "a socket of another service accepts no connection"
# A stale pidfile is replaced.
echo 4194303 >/run/stalld.pid
cp -p "$options" "$options.before"
# With this runtime a task runs even on an emulated CPU.
sed -i 's/^THRESH=.*/THRESH="-t 4"/; s/^BR=.*/BR="-r 1ms"/; s/^BD=.*/BD="-d 4"/; s/^FG=.*/FG=/; s|^PF=.*|PF="--pidfile /run/stalld.pid"|; s/^LOGGING=.*/LOGGING="-s -k"/' "$options"
# The longest pause between scans, with a watchdog that is shorter.
echo 'CLIST="-g 600"' >>"$options"
mkdir -p /run/systemd/system/stalld.service.d
mkdir -p /run/lock
printf '[Service]\nWatchdogSec=8s\nBindPaths=/srv /run/lock\n' >/run/systemd/system/stalld.service.d/test.conf
systemctl daemon-reload

systemctl start stalld.service || fail "it does not start"
is_active || fail "it is not active"
ok "it is active once it has scanned: $(of_service StatusText)"
[ "$(cat "$limit")" = -1 ] || fail "RT throttling is on"
pidfile_names_it || fail "the pidfile names another process"
[ "$(stat -c %a /run/stalld.pid)" = 644 ] || fail "the pidfile is not for everyone to read"
ok "an empty FG= and a pidfile in /run work"

first=$(of_service MainPID)
capabilities=$(of_service CapabilityBoundingSet | sed 's/ *cap_/,+/g; s/^/-all/')
for path in /run/other /run/tmpfiles.d/other.conf /run/sysctl.d/other.conf /run/udev/rules.d/other.rules \
    /run/systemd/system/other.service /run/systemd/journal/other /run/stalld.pid; do
    ! inside_writes "$path" || fail "it may write $path"
done
inside_writes /run/stalld/other || fail "it may not write /run/stalld"
rm /run/stalld/other
for directory in /srv /run/lock; do
    inside_writes "$directory/stalld-test" || fail "it may not write $directory, which BindPaths= allows"
    rm "$directory/stalld-test"
done
ok "it can write nothing in /run but its own directory, and what BindPaths= allows"
for socket in $sockets; do
    ! connects "$socket" inside || fail "it may connect to $socket"
    ! connects "/proc/1/root$socket" inside || fail "it may connect to $socket by way of /proc"
done
ok "it can connect to no socket of docker, containerd, libvirt, LXD, D-Bus and systemd"
kill "$listener"
wait "$listener" || :
# shellcheck disable=SC2086 # a list of words
rm -f $made
listener=
made=
sleep 20
[ "$(of_service MainPID)" = "$first" ] || fail "the watchdog has ended a stalld that works"
ok "its watchdog of 8 s is calm, with a granularity of 600 s"

starve
within 90 kernel_logged boosted || fail "the task that starves is not boosted"
ok "a starving task is boosted: $(dmesg | grep -m 1 "stalld.*: boosted pid $victim ")"
within 60 kernel_logged restored || fail "it is not restored"
ok "and restored: $(dmesg | grep -m 1 "stalld.*: restored pid $victim ")"
within 90 journal_has restored || fail "the journal does not tell"
ok "the kernel's log tells, and the journal"
journalctl --unit=stalld.service --output=json | grep '"STALLD_EVENT":"restored"' | grep -q "\"STALLD_TID\":\"$victim\"" ||
    fail "the journal has no fields of it"
ok "the journal has fields of its own for it"

# Waits for the start of a boost, so that the boost does not end by itself.
within 60 boost_has_ended || fail "a boost does not end"
within 90 boost_goes_on || fail "it is not boosted again"
boosted_as=$(policy)
systemctl kill -s KILL stalld.service
boost_goes_on || fail "the boost ended before stalld was killed"
when="while the hog goes on"
if within 40 has_restarted "$first"; then
    within 60 has_its_own_policy || fail "a boost outlives a stalld that was killed with its guardian"
else
    # If stalld does not rescue RCU's thread, the hog can keep the whole system from starting
    # processes. So can the task behind the hog, once it has its own policy again.
    kill "$hog"
    when="once nothing starves"
    within 60 has_its_own_policy || fail "a boost outlives a stalld that was killed with its guardian"
    kill "$victim"
    within 60 has_restarted "$first" || fail "it is not started again"
fi
ok "killed with its guardian during a boost, the task being $boosted_as, it leaves the task as it was"
ok "and is started again $when"
within 20 pidfile_names_it || fail "the pidfile names the process that was killed"
ok "the pidfile names the new process"
end_starvation

second=$(of_service MainPID)
kill -STOP "$second"
within 120 has_restarted "$second" || fail "the watchdog does not notice that it is stopped"
ok "the watchdog ends a stalld that hangs, and starts another"

# Options that have become invalid must not keep the service from restoring its settings.
sed -i 's/^THRESH=.*/THRESH="-t never"/' "$options"
systemctl stop stalld.service
[ "$(cat "$limit")" = "$before" ] || fail "RT throttling is $(cat "$limit") and was $before"
[ ! -e /run/stalld.pid ] || fail "the pidfile is left"
ok "stopped, it has put RT throttling back to $before, and its pidfile is gone"

! systemctl start stalld.service || fail "it starts with options that make no sense"
sleep 3
[ "$(of_service ActiveState)" = failed ] || fail "a usage error is tried again"
[ "$(of_service ExecMainStatus)" = 22 ] || fail "its exit status is not 22"
[ "$(cat "$limit")" = "$before" ] || fail "RT throttling is $(cat "$limit") after a failed start"
ok "a usage error is not tried again, and leaves nothing"
