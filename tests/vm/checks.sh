# The checks that tests/vm/scenario.sh runs in each VM. docs/KERNELS.md describes them.
# shellcheck shell=dash disable=SC2034,SC2119,SC2154 # names of the other two files

# judge BACKEND CHECK: reports whether stalld found and rescued the victim in time. The threshold is
# 1 s in all checks. The victim is logged then, and runs. On a real machine it runs at once. But an
# emulated CPU may stop for all of a pulse, so that the victim runs in the next period. For
# sched_debug the wait counts from the first scan, so all this may be one threshold later.
judge() {
    measure
    found=$(named)
    verdict=ok
    [ "${found:-0}" -ge 1000 ] && [ "$found" -le 1500 ] || verdict=FAIL
    [ "$ms" != never ] && [ "$ms" -ge 1000 ] && [ "$ms" -le 4500 ] || verdict=FAIL
    [ -z "$left" ] || hard=yes verdict=FAIL
    result "$1" "$2" $verdict "${found:-never}, $ms ms"
}

# rescue BACKEND KIND...: starts stalld before the hog, with one victim of each kind behind it. The
# first victim is preempted, the others are woken.
rescue() {
    backend=$1
    shift
    if start_stalld -b "$backend" -t 1s; then
        # shellcheck disable=SC2046 # two words for each
        start_rig 5 $(printf ' --victim %s' "$@")
        wait "$rig"
        left=''
        stop_stalld || left=yes
        for kind; do
            choose_victim "$kind"
            case $backend-$kind in
            sched_debug-waitpid) result sched_debug waitpid no 'in the text it seems asleep' ;;
            *) judge "$backend" "$kind" ;;
            esac
        done
    else
        # On a machine that lacks something, stalld may refuse to start, and logs the reason. On a
        # complete kernel it must work.
        verdict=FAIL
        [ -z "$lacking" ] || verdict=no
        result "$backend" "$1" $verdict "$(sed -n 's/^stalld: //p' stalld.log | tail -n 1)"
        stop_stalld
    fi
}

hog_first() {
    start_rig 5 --woken
    start_stalld -b "$1" -t 1s
    # The kernel's stamp shows the wait from before stalld's start.
    end_rig
    verdict=ok
    [ "$ms" != never ] && [ "$ms" -ge 990 ] || verdict=FAIL
    stop_stalld || hard=yes verdict=FAIL
    result "$1" hog-first $verdict "$ms ms"
}

# clock_set BACKEND: sets the wall clock an hour ahead while the victim waits, which must not change
# its wait. After the boost the victim must be scheduled exactly as before, while the hog still
# runs.
clock_set() {
    start_stalld -b "$1" -t 1s -d 1
    start_rig 8
    before=$(scheduling "$victim")
    date -s "@$(($(date +%s) + 3600))" >/dev/null
    verdict=FAIL
    await 5 logged stalld "boosted pid $victim "
    found=$(named)
    [ "${found:-0}" -ge 1000 ] && [ "$found" -le 1500 ] && verdict=ok
    result "$1" clock-set $verdict "${found:-never} ms"
    verdict=FAIL
    await 3 logged stalld "restored pid $victim " && await 1 is_scheduled_as "$victim" "$before" && verdict=ok
    kill_rig
    stop_stalld || hard=yes verdict=FAIL
    result "$1" restored $verdict "$(sed -n "s/.*restored pid $victim .* to \(.* ms\).*/\1/p" stalld.log | head -n 1)"
}

# killed BACKEND: kills stalld in the middle of a boost. The guardian must restore all.
killed() {
    start_stalld -b "$1" -t 2 -d 2
    start_rig 8
    before=$(scheduling "$victim")
    verdict=FAIL figure='never boosted'
    # The boost is SCHED_DEADLINE, or pulses that are too short to be observed.
    if await 5 logged stalld "boosted pid $victim "; then
        kill -9 "$stalld"
        hard=yes figure='not put back'
        if await 5 is_scheduled_as "$victim" "$before" && await 5 is_throttled_as_before; then
            verdict=ok hard='' figure=$(sed -n "s/.*boosted pid $victim .* using //p" stalld.log | head -n 1)
        fi
    fi
    kill_rig
    kill_and_wait "$stalld"
    result "$1" killed $verdict "$figure"
}
# offline BACKEND CHECK [OPTION]: takes the CPU offline and online again, once while the victim
# waits, and once while it is boosted. The kernel moves the hog and the victim to other CPUs, which
# may take until the hog ends. stalld must go on, and must rescue a task that starves on that CPU
# afterwards.
offline() {
    backend=$1 check=$2
    shift 2
    # The kernel may move the hog to this script's CPU. The script must be able to leave it then.
    taskset -p ff $$ >/dev/null
    start_stalld -b "$backend" -t 1s "$@"
    # The kernel counts the bandwidth of the trial at stalld's start for another second.
    sleep 1.5
    for moment in waiting boosted; do
        start_rig 6
        before=$(scheduling "$victim")
        [ $moment = waiting ] || await 4 logged stalld "boosted pid $victim "
        begun=$(seconds)
        verdict='FAIL the CPU stays'
        if echo 0 >"/sys/devices/system/cpu/cpu$hogged/online" && echo 1 >"/sys/devices/system/cpu/cpu$hogged/online"; then
            verdict='FAIL not put back'
            await 4 is_as_before_or_gone && verdict=ok
        fi 2>>stalld.log
        verdict="$verdict ($(($(seconds) - begun)) s)"
        kill_rig
        eval "$moment=\$verdict"
    done
    start_rig 5
    end_rig
    # shellcheck disable=SC2154 # set by the eval
    { [ -n "$(named)" ] && [ "$ms" != never ]; } || waiting='FAIL not rescued' boosted='FAIL not rescued'
    if ! stop_stalld; then
        boosted='FAIL not all put back'
        # The kernel still counts bandwidth that no task has any more.
        ! logged stalld 'sched_rt_runtime_us: Device or resource busy' || boosted='no throttling stays off: EBUSY'
    fi
    # shellcheck disable=SC2086 # verdict and reason
    {
        result "$backend" "$check-waiting" $waiting
        result "$backend" "$check-boosted" $boosted
    }
    taskset -p 1 $$ >/dev/null
}

# online BACKEND: stalld starts while the CPU is offline, and must rescue a task that starves there
# once it is online. With the default pauses, the scan before would be 2 s away.
online() {
    verdict=FAIL figure='the CPU stays'
    taskset -p ff $$ >/dev/null
    if echo 0 >"/sys/devices/system/cpu/cpu$hogged/online"; then
        start_stalld -b "$1" -t 2s -F
        echo 1 >"/sys/devices/system/cpu/cpu$hogged/online"
        start_rig 8
        end_rig
        figure="$ms ms"
        [ "$ms" != never ] && [ "$ms" -ge 2000 ] && [ "$ms" -le 6500 ] && verdict=ok
        stop_stalld || hard=yes verdict=FAIL
    fi 2>>stalld.log
    taskset -p 1 $$ >/dev/null
    result "$1" online $verdict "$figure"
}

# Scans during a starvation must read queues. A walk follows each reading that fails.
queues() {
    start_stalld -b task_iter -t 1s
    start_rig 4
    wait "$rig"
    kill -USR1 "$stalld"
    verdict=FAIL figure='no status'
    if await 5 logged stalld ' read all tasks'; then
        counts=$(sed -n 's/.* backend: \([0-9]*\) scans, .* \([0-9]*\) read all tasks.*/\1 \2/p' stalld.log | tail -n 1)
        scans=${counts% *} walks=${counts#* }
        figure="$walks of $scans"
        [ "$scans" -ge 4 ] && [ "$walks" -le $((scans / 4 + 1)) ] && verdict=ok
        ! logged stalld "can't be read" || verdict=no
    fi
    stop_stalld || hard=yes verdict=FAIL
    result task_iter walks $verdict "$figure"
}

is_as_before_or_gone() {
    is_scheduled_as "$victim" "$before" || ! [ -e "/proc/$victim" ]
}

runs() {
    cut -d ' ' -f 3 "/proc/$1/schedstat"
}

# kernel_threads BACKEND HOG: on real-time kernels, kernel threads starve behind the hog. With
# stalld they must run.
kernel_threads() {
    case $(uname -v) in
    *PREEMPT_RT*) ;;
    *) return ;;
    esac
    all() {
        for task in /proc/[0-9]*; do
            [ -e "$task/exe" ] || echo "${task#/proc/} $(cat "$task/comm") $(scheduling "${task#/proc/}" | tr '\n' ' ')"
        done 2>/dev/null | grep "/$hogged "
    }
    all >before
    start_stalld -b "$1" -t 1s
    start_rig 6 --hog "$2"
    sleep 0.5
    for name in "rcuc/$hogged" "ktimers/$hogged" "ksoftirqd/$hogged"; do
        tid=$(sed -n "s|^\([0-9]*\) $name .*|\1|p" before)
        [ -z "$tid" ] || echo "$tid $(runs "$tid") $name"
    done >threads
    sleep 4
    rescued='' verdict=FAIL
    while read -r tid runs name; do
        if logged stalld "$name-$tid starved on CPU $hogged"; then
            if [ "$(runs "$tid")" -gt "$runs" ]; then
                rescued="$rescued $name" verdict=ok
            elif [ "$2" = 98 ] && logged stalld "boosted pid $tid .* SCHED_FIFO"; then
                # The kernel keeps this thread waiting even as SCHED_DEADLINE, and a pulse does not
                # outrank that hog.
                rescued="$rescued $name:pulses"
            else
                rescued="$rescued $name:not"
            fi
        fi
    done <threads
    case $rescued in
    *:not*) verdict=FAIL ;;
    *:pulses*) verdict=no ;;
    esac
    end_rig
    stop_stalld || hard=yes verdict=FAIL
    all >after
    # A thread that started or ended meanwhile is in one list only.
    awk 'NR == FNR { was[$1] = $0; next } ($1 in was) && was[$1] != $0 { print "was " was[$1] "; is " $0 }' \
        before after >>stalld.log
    ! grep -q '^was ' stalld.log || hard=yes verdict=FAIL
    # shellcheck disable=SC2086 # without the blank before it
    result "$1" "threads-behind-$2" $verdict $rescued
}

# The attackers of each hogged CPU: they try to keep the rank of a boost, and to lend it.
ACTS='keep-fifo keep-rr helper child born exec lend-same lend-chain'

# high_ranks: prints the attackers' threads that are real-time, by policy or by rank. A rank of -2
# without such a policy is lent by the kernel's own threads at FIFO 1, which wait for a lock that
# the thread holds.
high_ranks() {
    for pid in $(pidof attack); do
        cat "/proc/$pid/task/"*/stat
    done 2>/dev/null | awk '{ tid = $1; sub(/.*\) /, ""); if ($16 < -2 || $39 != 0) print tid, $39, $38, $16 }'
}

# attacks BACKEND METHOD [OPTION]: a user without privileges attacks on two hogged CPUs. No thread
# of that user may be real-time for four readings in a row, or after stalld has ended. A task of
# root starves beside them on each of these CPUs, and must run within a second of its threshold.
attacks() {
    backend=$1 check=attacks-$2 second=$((hogged - 1)) servers=''
    shift 2
    # Fair tasks do not starve while the DL server runs, so this turns it off. 6.12 refuses that.
    for cpu in $second $hogged; do
        server_of=$debug/sched/fair_server/cpu$cpu/runtime
        [ ! -e "$server_of" ] || servers="$servers $server_of=$(cat "$server_of")"
        echo 0 >"$server_of"
    done 2>/dev/null
    start_stalld -b "$backend" -t 1s -d 1s -p 500ms "$@"
    : >attack.log
    for cpu in $second $hogged; do
        for act in $ACTS; do
            attack --user 65534 --cpu "$cpu" --for 200 "$act" >>attack.log 2>&1 &
        done
    done
    await 20 all_are_ready
    starve --cpu "$second" --for 8 >second.log 2>&1 &
    second_rig=$!
    start_rig 8
    high=$(high_ranks) kept=''
    for _ in 1 2 3 4; do
        for _ in 1 2 3; do
            now=$(high_ranks)
            high=$(in_both "$high" "$now")
        done
        kept="$kept$high" high=$(high_ranks)
    done
    end_rig
    gap=$(longest_gap starve.log)
    wait $second_rig
    other=$(longest_gap second.log)
    boosts=$(grep -c 'boosted pid .*attack' stalld.log)
    figures="$gap and $other ms, $boosts boosts of attackers"
    verdict=ok
    [ "$gap" -le 2000 ] && [ "$other" -le 2000 ] && [ "$boosts" -gt 0 ] || verdict=FAIL
    [ -z "$kept" ] || hard=yes verdict=FAIL figures="a rank was kept: $kept"
    stop_stalld || hard=yes verdict=FAIL
    left=$(high_ranks)
    [ -z "$left" ] || hard=yes verdict=FAIL figures="a rank is left: $left"
    # Attacks that have ended prove nothing.
    [ "$(pidof attack | wc -w)" -ge "$attacks" ] || verdict=FAIL figures='the attacks ended too soon'
    [ "$verdict" = ok ] || grep -v '^victim\|^ready\|^boosted' attack.log >>stalld.log
    # shellcheck disable=SC2046 # a list
    kill -9 $(pidof attack)
    await 20 none_is_left
    for server_of in $servers; do
        echo "${server_of#*=}" >"${server_of%=*}"
    done 2>/dev/null
    result "$backend" "$check" $verdict "$figures"
}

# in_both LINES LINES: prints the lines of the first list whose thread is in the second one, too.
in_both() {
    printf '%s\n--\n%s\n' "$2" "$1" |
        awk '$0 == "--" { second = 1; next } !second { seen[$1]; next } NF && $1 in seen'
}

# longest_gap FILE: prints the longest time for which the victim of a rig did not run, in ms.
longest_gap() {
    gap_ns=$(field longest_gap_ns "$(grep '^end victim ' "$1")")
    echo $((${gap_ns:-9999999999} / 1000000))
}

all_are_ready() {
    # shellcheck disable=SC2086 # the words
    attacks=$((2 * $(echo $ACTS | wc -w)))
    [ "$(grep -c '^ready' attack.log)" -ge "$attacks" ]
}

none_is_left() {
    ! pidof attack >/dev/null
}

# Starts and kills stalld behind a hog that is a minute old. No call of stalld may hang. The hog
# lasts as long as three tries of each backend may take.
old_hog() {
    start_rig 600
    sleep 60
    for backend in $backends; do
        try behind_old_hog "$backend"
    done
    kill_rig
}

behind_old_hog() {
    before=$(runs "$victim")
    begun=$(seconds)
    start_stalld -b "$1" -t 1s -d 1
    scanned=$(seconds)
    verdict=FAIL
    if await 8 logged stalld "boosted pid $victim " && await 4 logged stalld "restored pid $victim " &&
        [ "$(runs "$victim")" -gt "$before" ]; then
        verdict=ok
    fi
    killed=$(seconds)
    kill -9 "$stalld"
    # Waits no longer than 10 s for a stalld that hangs in the kernel.
    if await 10 has_ended; then
        kill_and_wait "$stalld"
    else
        hung
        verdict=FAIL
    fi
    # The guardian must restore throttling.
    await 5 is_throttled_as_before || hard=yes verdict=FAIL
    result "$1" old-hog $verdict "first scan after $((scanned - begun)) s, gone $(($(seconds) - killed)) s after SIGKILL"
}
# consume RUNTIME_US: measures how long a boosted task runs each time. $each is the median in us,
# $times is the number of values.
consume() {
    start_stalld --boost deadline -t 2s -d 2s -p 200ms -r "$1us"
    start_rig 6
    : >each
    was=$(cat "/proc/$victim/schedstat")
    while now=$(cat "/proc/$victim/schedstat") && ! logged stalld "restored pid $victim " && kill -0 "$rig"; do
        # shellcheck disable=SC2086 # six numbers
        set -- $was $now
        if [ "$6" -gt "$3" ]; then
            echo $((($4 - $1) / 1000 / ($6 - $3))) >>each
            was=$now
        fi
        sleep 0.03
    done 2>/dev/null
    kill_rig
    stop_stalld
    times=$(wc -l <each)
    each=$(sort -n each | sed -n "$(((times + 1) / 2))p")
}

# budget: HRTICK ends a budget when it is used up, so a task must use less than twice its budget. An
# emulated CPU takes a tenth of a millisecond to enter and leave the kernel, so the limit counts for
# 200 us only. Other load on the host can only add to the measured time, so the best median of three
# counts.
budget() {
    verdict=info
    for runtime in 20 200 200 200; do
        consume $runtime
        off=''
        if logged stalld 'HRTICK stays off\|cannot find the scheduler'; then
            off=', HRTICK off'
        elif [ $runtime = 200 ]; then
            verdict=FAIL
            if [ "$times" -gt 0 ] && [ "$each" -le 400 ]; then
                verdict=ok
            fi
        fi
        figures="$each us x $times$off"
        if [ $runtime != 200 ]; then
            result - "budget-${runtime}us" info "$figures"
        elif [ $verdict != FAIL ]; then
            break
        fi
    done
    result - budget-200us $verdict "$figures"
}

# again: on some kernels a task that is restored while its budget is used up stays marked as
# throttled. The kernel then keeps it waiting in its next DEADLINE boost, and stalld goes on in
# pulses. The result has a letter for each boost: d for DEADLINE, f for FIFO.
again() {
    start_stalld --boost deadline -t 1s -d 200ms -r 1ms
    start_rig 9
    end_rig
    stop_stalld
    ways=$(sed -n "s/.*boosted pid $victim .* using SCHED_\(.\).*/\1/p" stalld.log | tr DF df | tr -d '\n')
    verdict=info
    [ -n "$ways" ] || verdict=FAIL
    result - boosted-again $verdict "$ways"
}

# fair_server: with the kernel's DL server, from 6.12 on, a fair task must not starve.
fair_server() {
    start_stalld -t 2
    start_rig 5 --victim fair
    end_rig
    stop_stalld
    gap=$(($(field longest_gap_ns "$(grep '^end victim ' starve.log)") / 1000000))
    verdict=ok
    [ $gap -lt 2000 ] || verdict=FAIL
    # The server runs fair tasks for 50 ms in each second, so stalld must find nothing.
    ! logged stalld "victim-$victim starved" || verdict=FAIL
    result - fair-server $verdict "$gap ms"
}

# Turns the DL server off, so that fair tasks starve from here on. 6.12 refuses this while
# throttling is on, and refuses to turn throttling on afterwards. It also warns, because it ends a
# service that has already ended. Therefore earlier messages are judged before that.
turn_server_off() {
    messages dmesg-before FAIL
    forget_messages
    if ! echo 0 >"$server"; then
        echo -1 >"$limit"
        throttling=-1
        echo 0 >"$server"
    fi 2>/dev/null
    messages fair-server-off no
    forget_messages
}

# lone: stalld must not disturb a hog without waiters, on a CPU that the kernel does not disturb.
lone() {
    start_stalld -t 1s
    starve --for 4 --alone >starve.log 2>&1
    stop_stalld && verdict=ok || verdict=FAIL
    ! logged stalld 'starved on CPU' || verdict=FAIL
    ms=$(($(field longest_gap_ns "$(grep '^end hog ' starve.log)") / 1000))
    result - lone-hog "$verdict" "longest gap $ms us"
}

# Reports the verifier's figures for each program: instructions, states and time.
verified() {
    stalld --check -v | sed -n 's/^verified //p' | while read -r backend program figures; do
        result "$backend" "verified-$program" info "$figures"
    done
}

# stallstat must count all that it can, list the victim behind the hog, and attribute the wait to
# the hog.
stallstat_counts() {
    start_rig 60 --victim spin
    counts waits -g latency,slice,sleep,waking,migration || return
    ms=$(($(figure still_waiting waited_ns) / 1000000))
    turns=$(cut -d , -f 2,6 stat.csv | grep -c '^slice,count')
    [ "$ms" -ge 2000 ] && [ "$turns" -gt 3 ] && verdict=ok || verdict=FAIL
    counted waits "$ms ms, turns of $turns names"
    # Attaching once more may need the CPU that the hog occupies.
    counts hogs hogs --by task -c '^victim$' || return
    ms=$(($(figure hogs ran_ns "< hog-") / 1000000))
    kill_rig
    [ "$ms" -ge 1500 ] && verdict=ok || verdict=FAIL
    counted hogs "$ms of 2000 ms"
}

# counts CHECK OPTION...: writes the figures of stallstat to stat.csv. If stallstat cannot count
# here, reports its message.
counts() {
    check=$1
    shift
    stallstat --csv -1 -r 2 "$@" >stat.csv 2>stalld.log && return
    kill_rig
    result stallstat "$check" no "$(sed 's/^stallstat: //' stalld.log | tail -n 1)"
    return 1
}

# counted CHECK FIGURES: reports the result of a check of stallstat.
counted() {
    [ "$verdict" = ok ] || head -n 100 stat.csv >>stalld.log
    result stallstat "$1" "$verdict" "$2"
}

# figure TABLE MEASURE [PATTERN]: prints the figure of the victim, or 0.
figure() {
    awk -F , -v table="$1" -v measure="$2" -v pattern="victim.*${3-}" '
        $2 == table && $6 == measure && $3 ~ pattern { figure = $7; exit } END { print figure + 0 }' stat.csv
}

# text: prints the scheduler's text with names that are hard to parse, and the waiters by the
# kernel's own stamps, for tests/fixtures/sched_debug.
text() {
    start_stalld -l -b task_iter -t 600
    start_rig 8 --scene names --victim fair
    sleep 2
    kill -USR1 "$stalld"
    cat "$debug/sched/debug" /proc/sched_debug 2>/dev/null >sched.log
    end_rig
    stop_stalld
    sed 's/^/T /' sched.log
    sed -n 's/.*waiting: \(.*\)-\([0-9]*\) (.*) on CPU '"$hogged"' for.*/W \2\t\1/p' stalld.log
}

choice() {
    start_stalld -t 1s
    stop_stalld && verdict=ok || verdict=FAIL
    chosen=$(sed -n 's/.*using \(.*\) backend.*/\1/p' stalld.log)
    [ -n "$chosen" ] || verdict=FAIL
    result - auto "$verdict" "$chosen"
    # Prints stalld's other messages about this machine: why it uses no other backend, and what else
    # the machine lacks.
    sed -n '/single threaded\|using\|cpu [0-9]\|hrottling\|shutting down/!s/^stalld: /# /p' stalld.log
}
# Clears the kernel's messages, and lets the kernel repeat warnings that it prints once.
forget_messages() {
    dmesg -c >/dev/null
    echo 1 >"$debug/clear_warn_once"
}

# messages CHECK VERDICT: reports this verdict if the kernel has warned of something.
messages() {
    verdict=ok
    dmesg | grep -E 'WARNING:|BUG:|Oops|general protection|Call Trace|hung_task|blocked for more' >stalld.log && verdict=$2
    : >starve.log
    case "$(uname -rv)" in
    5.10.*PREEMPT_RT* | 6.1.*PREEMPT_RT* | 6.12.*PREEMPT_RT*)
        # These kernels miscount when a SCHED_DEADLINE task waits for the spinlock of another:
        # docs/KERNELS.md.
        [ "$verdict" = ok ] || grep -qv 'WARNING: .* at kernel/sched/deadline.c\|Call Trace' stalld.log || verdict=no
        ;;
    esac
    # shellcheck disable=SC2046 # the places where, each once
    result - "$1" "$verdict" $(dmesg | sed -n 's/.*WARNING: .* at \([^ ]*\) .*/\1/p' | sort -u)
    [ "$verdict" = ok ] || dmesg | tail -n 200 | sed 's/^/| /'
}
