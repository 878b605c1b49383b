# Functions for tests/vm/checks.sh: results, waiting, stalld and the rig.
# shellcheck shell=dash disable=SC2034,SC2119,SC2120,SC2154 # names of the other two files

# try CHECK...: gives a check that fails two more chances, because the host may be too busy to
# emulate. $hard marks a failure that no load excuses.
try() {
    for attempt in 1 2 3; do
        again='' hard=''
        "$@"
        [ -n "$again" ] || break
    done
    attempt=''
}

# result BACKEND CHECK VERDICT FIGURES...: prints a result, and after a failure the logs.
result() {
    if [ "$3" = FAIL ] && [ -z "$hard" ] && [ "${attempt:-3}" -lt 3 ]; then
        again=yes
        echo "# try $attempt: $*"
    else
        case ${attempt:-1} in
        1) echo "@ $*" ;;
        *) echo "@ $*, try $attempt" ;;
        esac
    fi
    if [ "$3" = FAIL ]; then
        sed 's/^/| /' stalld.log starve.log 2>/dev/null
    fi
}

# Prints the seconds since the machine was turned on, which no setting of the clock changes.
seconds() {
    read -r up _ </proc/uptime
    echo "${up%.*}"
}

# await SECONDS COMMAND...: repeats the command until it succeeds. Fails when the time is over.
await() {
    patience=$(($(seconds) + $1))
    shift
    until "$@" 2>/dev/null; do
        [ "$(seconds)" -le $patience ] || return 1
        sleep 0.1
    done
}

# logged FILE PATTERN: searches a log, which may not exist yet.
logged() {
    grep -q "$2" "$1.log"
}

# field NAME LINE
field() {
    echo "$2" | tr ' ' '\n' | sed -n "s/^$1=//p" | head -n 1
}

# Starts stalld with the longest runtime of a boost that it accepts. An emulated task would use up
# 20 us before it has left the kernel.
start_stalld() {
    rm -f stalld.log
    stalld -f -v -r 1ms "$@" >stalld.log 2>&1 &
    stalld=$!
    await 30 has_scanned || hung
    logged stalld 'checking cpu\|skipping'
}

# Logs where in the kernel stalld and its children hang.
hung() {
    for task in /proc/[0-9]*/task/*; do
        case $(cat "$task/comm") in
        stall*)
            echo "hung: $(sed 's/) \(.\).*/) \1/' "$task/stat")"
            sed 's/^/hung: /' "$task/stack"
            ;;
        esac
    done >>stalld.log 2>&1
}

# Succeeds as well if stalld has ended, because a backend may not work on this kernel.
has_scanned() {
    logged stalld 'checking cpu\|skipping' || has_ended
}

# Ends stalld by SIGTERM. It must end cleanly, and restore throttling.
stop_stalld() {
    kill "$stalld"
    if ! await 20 has_ended; then
        hung
        kill -9 "$stalld"
        return 1
    fi
    wait "$stalld" && is_throttled_as_before
}

has_ended() {
    ! grep -q '^State:[[:space:]]*[^ZX]' "/proc/$stalld/status"
}

is_throttled_as_before() {
    [ "$(cat "$limit")" = "$throttling" ]
}

# start_rig SECONDS OPTIONS...
start_rig() {
    rm -f starve.log
    starve --for "$@" >starve.log 2>&1 &
    rig=$!
    await 40 logged starve '^victim ' && choose_victim
}

# choose_victim [KIND]: sets $victim and $since for the functions that follow.
choose_victim() {
    line=$(grep "^victim .*kind=${1:-}" starve.log | head -n 1)
    victim=$(field tid "$line")
    since=$(field since "$line")
}

# Prints how a task is scheduled: priority, nice value, real-time priority, policy, and timer slack.
scheduling() {
    sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 16,17,38,39
    cat "/proc/$1/timerslack_ns" 2>/dev/null
}

is_scheduled_as() {
    [ "$(scheduling "$1")" = "$2" ]
}

# Waits for the end of the hog.
end_rig() {
    wait "$rig"
    measure
}

# Ends the hog and all tasks that wait behind it.
kill_rig() {
    kill_and_wait "$rig"
}

kill_and_wait() {
    kill -9 "$1"
    wait "$1"
} 2>/dev/null

# Sets $ms to the time that the victim waited until it ran again, by the victim's own report.
measure() {
    first=$(field first_ran_after "$(grep "^end victim tid=$victim " starve.log)")
    until=$(field until "$(grep '^hog ' starve.log)")
    if [ -z "$first" ] || [ "$first" = never ] || [ "$first" -ge "$until" ]; then
        ms=never
    else
        ms=$(((first - since) / 1000000))
    fi
}

# Prints the length of the victim's first wait that stalld logged, in ms.
named() {
    sed -n "s/.*victim-$victim starved on CPU $hogged for .* (\([0-9]*\) ms)/\1/p" stalld.log | head -n 1
}
