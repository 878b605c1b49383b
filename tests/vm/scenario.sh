#!/bin/sh
# What runs inside each VM. $checks, from the kernel's command line, says which parts. A result is a line
#   @ BACKEND CHECK VERDICT FIGURES...
# and a failed check is followed by what stalld and the rig have said.
# shellcheck disable=SC1091,SC2034 # the two files that it reads

cd /tmp || exit 1
debug=/sys/kernel/debug
limit=/proc/sys/kernel/sched_rt_runtime_us
throttling=$(cat $limit)
backends=$(echo "${backends:-task_iter,queue_track,sched_debug}" | tr , ' ')
read -r _ _ hogged _ <<END
$(sed 's/[-,]/ & /g' /sys/devices/system/cpu/online)
END
# What this machine has not got, by the kernel's command line.
lacking=$(tr ' ' '\n' </proc/cmdline | grep -E '^(lockdown=|debugfs=off|btf=off|bpf=off)')
# shellcheck source=tests/vm/lib.sh
. /bin/lib.sh
# shellcheck source=tests/vm/checks.sh
. /bin/checks.sh

# The others are for those who ask for them.
wants() {
    case ,${checks:-all},$1 in
    *,all,text | *,all,lone | *,all,auto | *,all,attacks) return 1 ;;
    *,all,* | *,$1,*) ;;
    *) return 1 ;;
    esac
}

echo "# $(uname -r) $(uname -v)"
wants choice && choice
wants budget && budget
wants again && try again
wants verified && verified
wants stat && try stallstat_counts
wants lone && try lone
wants text && text
server=$debug/sched/fair_server/cpu$hogged/runtime
if wants fair && [ -e "$server" ]; then
    try fair_server
    turn_server_off
fi
kinds=spin
! wants fair || kinds='waitpid spin fair'
for backend in $backends; do
    # shellcheck disable=SC2086 # its words
    wants fifo && try rescue "$backend" $kinds
    wants hog-first && try hog_first "$backend"
    wants restored && try clock_set "$backend"
    wants killed && try killed "$backend"
    wants threads && try kernel_threads "$backend" 50
done
if wants auto; then
    try rescue auto spin
fi
if wants attacks; then
    for backend in $backends; do
        try attacks "$backend" deadline
        try attacks "$backend" pulses -F
    done
fi
wants old-hog && old_hog
messages dmesg FAIL
# Nothing but SCHED_DEADLINE is above a hog at 98.
wants threads && try kernel_threads task_iter 98
# Last, because a CPU that goes upsets what old kernels count of SCHED_DEADLINE: they refuse to set throttling then, or
# divide by zero. What a backend sees of it is the same for all, and so is what the boost makes of it.
if wants offline; then
    try offline task_iter offline -F
    echo '# at task_iter offline-deadline'
    try offline task_iter offline-deadline
    messages dmesg-at-last no
fi
echo '# end'
