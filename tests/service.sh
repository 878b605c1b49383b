#!/bin/sh
# Checks the installed service on a host with systemd, by starving a task on the last CPU: service.sh
# It changes the service's options, and puts them back. For a virtual machine, and for root.
set -eu

options=/etc/default/stalld
[ -e "$options" ] || options=/etc/sysconfig/stalld
limit=/proc/sys/kernel/sched_rt_runtime_us
# The last CPU: nothing else is disturbed.
cpu=$(($(getconf _NPROCESSORS_ONLN) - 1))
if [ "$cpu" = 0 ]; then
    echo "left out: a hog on the only CPU would starve this test"
    exit 77
fi
hog=
victim=

cleanup() {
    for pid in $hog $victim; do
        kill "$pid" 2>/dev/null || :
    done
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

# within SECONDS COMMAND...: waits until it succeeds.
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

# told WHAT: whether the kernel's log says of the victim that it was boosted, or restored.
told() {
    dmesg | grep -q "stalld.*: $1 pid $victim "
}

# The journal may be late: who writes it may starve as well.
told_the_journal() {
    journalctl --unit=stalld.service --output=cat | grep -q "^$1 pid $victim "
}

# The victim's policy and priority. A boost is SCHED_DEADLINE, or FIFO 98 for a moment in each period.
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

# Both end by themselves.
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

# has_restarted PID: whether another process than PID is ready. There is none at all for a moment.
has_restarted() {
    main=$(of_service MainPID)
    [ "${main:-0}" != 0 ] && [ "$main" != "$1" ] && is_active
}

systemctl stop stalld.service
before=$(cat "$limit")
cp -p "$options" "$options.before"
# The budget is one that lets a task run even on an emulated CPU.
sed -i 's/^THRESH=.*/THRESH="-t 4"/; s/^BR=.*/BR="-r 1ms"/; s/^BD=.*/BD="-d 4"/; s/^FG=.*/FG=/; s|^PF=.*|PF="--pidfile /run/stalld.pid"|; s/^LOGGING=.*/LOGGING="-s -k"/' "$options"
# The longest pause between looks, under a watchdog that is shorter.
echo 'CLIST="-g 600"' >>"$options"
mkdir -p /run/systemd/system/stalld.service.d
printf '[Service]\nWatchdogSec=8s\n' >/run/systemd/system/stalld.service.d/test.conf
systemctl daemon-reload

systemctl start stalld.service || fail "it does not start"
is_active || fail "it is not active"
ok "it is active once it has looked: $(of_service StatusText)"
[ "$(cat "$limit")" = -1 ] || fail "RT throttling is on"
[ "$(cat /run/stalld.pid)" = "$(of_service MainPID)" ] || fail "the pidfile names another process"
ok "an empty FG= and a pidfile in /run work"

first=$(of_service MainPID)
# As root with all capabilities: what is left are the unit's mounts.
inside="nsenter --target=$first --mount"
$inside touch /run/stalld-other.pid || fail "it may write no file in /run"
rm /run/stalld-other.pid
! $inside touch /run/systemd/system/other.service 2>/dev/null || fail "it may add units"
! $inside systemctl show --property=Version 2>/dev/null || fail "it may give systemd orders"
ok "it can neither add units nor give systemd orders"
sleep 20
[ "$(of_service MainPID)" = "$first" ] || fail "the watchdog has ended a stalld that works"
ok "its watchdog of 8 s is calm, with a granularity of 600 s"

starve
within 90 told boosted || fail "the task that starves is not boosted"
ok "a starving task is boosted: $(dmesg | grep -m 1 "stalld.*: boosted pid $victim ")"
within 60 told restored || fail "it is not restored"
ok "and restored: $(dmesg | grep -m 1 "stalld.*: restored pid $victim ")"
within 90 told_the_journal restored || fail "the journal does not tell"
ok "the kernel's log tells, and the journal"
journalctl --unit=stalld.service --output=json | grep '"STALLD_EVENT":"restored"' | grep -q "\"STALLD_TID\":\"$victim\"" ||
    fail "the journal has no fields of it"
ok "the journal has fields of its own for it"

# Near the start of a boost, so that it does not end by itself.
within 60 boost_has_ended || fail "a boost does not end"
within 90 boost_goes_on || fail "it is not boosted again"
lifted=$(policy)
systemctl kill -s KILL stalld.service
boost_goes_on || fail "the boost ended before stalld was killed"
when="while the hog goes on"
if within 40 has_restarted "$first"; then
    within 60 has_its_own_policy || fail "a boost outlives a stalld that was killed with its guardian"
else
    # With nobody to rescue RCU's thread the hog can keep the whole system from starting anything, and so can the task that
    # was behind it, once it is what it was.
    kill "$hog"
    when="once nothing starves"
    within 60 has_its_own_policy || fail "a boost outlives a stalld that was killed with its guardian"
    kill "$victim"
    within 60 has_restarted "$first" || fail "it is not started again"
fi
ok "killed with its guardian during a boost, the task being $lifted, it leaves the task as it was"
ok "and is started again $when"
end_starvation

second=$(of_service MainPID)
kill -STOP "$second"
within 120 has_restarted "$second" || fail "the watchdog does not notice that it is stopped"
ok "the watchdog ends a stalld that hangs, and starts another"

systemctl stop stalld.service
[ "$(cat "$limit")" = "$before" ] || fail "RT throttling is $(cat "$limit") and was $before"
[ ! -e /run/stalld.pid ] || fail "the pidfile is left"
ok "stopped, it has put RT throttling back to $before"

sed -i 's/^THRESH=.*/THRESH="-t never"/' "$options"
! systemctl start stalld.service || fail "it starts with options that make no sense"
sleep 3
[ "$(of_service ActiveState)" = failed ] || fail "a usage error is tried again"
[ "$(of_service ExecMainStatus)" = 22 ] || fail "its exit status is not 22"
[ "$(cat "$limit")" = "$before" ] || fail "RT throttling is $(cat "$limit") after a failed start"
ok "a usage error is not tried again, and leaves nothing"
