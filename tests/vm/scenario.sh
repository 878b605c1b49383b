#!/bin/sh
# Runs inside each VM. $checks, from the kernel's command line, selects the parts. A result is a
# line
#   @ BACKEND CHECK VERDICT FIGURES...
# The logs of stalld and the rig follow a failed check.
# shellcheck disable=SC1091,SC2034 # the two files that it reads

cd /tmp || exit 1
debug=/sys/kernel/debug
limit=/proc/sys/kernel/sched_rt_runtime_us
throttling=$(cat $limit)
backends=$(echo "${backends:-task_iter,queue_track,sched_debug}" | tr , ' ')
read -r _ _ hogged _ <<END
$(sed 's/[-,]/ & /g' /sys/devices/system/cpu/online)
END
# The parts that this machine lacks, by the kernel's command line.
lacking=$(tr ' ' '\n' </proc/cmdline | grep -E '^(lockdown=|debugfs=off|btf=off|bpf=off)')
# shellcheck source=tests/vm/lib.sh
. /bin/lib.sh
# shellcheck source=tests/vm/checks.sh
. /bin/checks.sh

# wants CHECK: returns whether $checks selects it. `all` does not select text, lone, auto and
# attacks.
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
case $backends in
*task_iter*) wants fifo && try queues ;;
esac
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
# Only SCHED_DEADLINE outranks a hog at FIFO 98.
wants threads && try kernel_threads task_iter 98
# This part is last, because a CPU that goes offline breaks the accounting of SCHED_DEADLINE on old
# kernels: they then refuse to set throttling, or divide by zero. One backend is enough, because all
# backends see the same.
if wants offline; then
    try offline task_iter offline -F
    try online task_iter
    echo '# at task_iter offline-deadline'
    try offline task_iter offline-deadline --boost deadline
    messages dmesg-at-last no
fi
echo '# end'
