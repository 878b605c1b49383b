# What the checks of tests/vm/checks.sh are made of: results, waiting, stalld and the rig.
# shellcheck shell=dash disable=SC2034,SC2119,SC2120,SC2154 # what the other two files name

# try CHECK...: what has failed may have failed because the host was too busy to emulate, so it has two chances more.
# $hard is a failure that no load excuses.
try() {
    for attempt in 1 2 3; do
        again='' hard=''
        "$@"
        [ -n "$again" ] || break
    done
    attempt=''
}

# result BACKEND CHECK VERDICT FIGURES...
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

# Seconds since the machine was turned on, which no setting of the clock changes.
seconds() {
    read -r up _ </proc/uptime
    echo "${up%.*}"
}

# await SECONDS COMMAND...
await() {
    patience=$(($(seconds) + $1))
    shift
    until "$@" 2>/dev/null; do
        [ "$(seconds)" -le $patience ] || return 1
        sleep 0.1
    done
}

# said FILE PATTERN: a line of a log that may not be there yet.
said() {
    grep -q "$2" "$1.log"
}

# field NAME LINE
field() {
    echo "$2" | tr ' ' '\n' | sed -n "s/^$1=//p" | head -n 1
}

# Each run of a boosted task is of the longest length that there is: emulated, a task has used up 20 us before it has
# left the kernel.
start_stalld() {
    rm -f stalld.log
    stalld -f -v -r 1ms "$@" >stalld.log 2>&1 &
    stalld=$!
    await 30 has_looked || hung
    said stalld 'checking cpu\|skipping'
}

# Where in the kernel stalld and its children are.
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

# Or has ended: a backend may not work on this kernel.
has_looked() {
    said stalld 'checking cpu\|skipping' || has_ended
}

# SIGTERM has to end it cleanly, and everything has to be what it was.
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
    await 40 said starve '^victim ' && choose_victim
}

# choose_victim [KIND]: whom what follows is about.
choose_victim() {
    line=$(grep "^victim .*kind=${1:-}" starve.log | head -n 1)
    victim=$(field tid "$line")
    since=$(field since "$line")
}

# How a task is scheduled: priority, nice value, real-time priority, policy, and timer slack.
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

# Ends the hog, and all that waits behind it.
kill_rig() {
    kill_and_wait "$rig"
}

kill_and_wait() {
    kill -9 "$1"
    wait "$1"
} 2>/dev/null

# $ms: how long the victim waited until it ran again, as it tells itself.
measure() {
    first=$(field first_ran_after "$(grep "^end victim tid=$victim " starve.log)")
    until=$(field until "$(grep '^hog ' starve.log)")
    if [ -z "$first" ] || [ "$first" = never ] || [ "$first" -ge "$until" ]; then
        ms=never
    else
        ms=$(((first - since) / 1000000))
    fi
}

# What stalld took for the length of the first wait of the victim that it named, in ms.
named() {
    sed -n "s/.*victim-$victim starved on CPU $hogged for .* (\([0-9]*\) ms)/\1/p" stalld.log | head -n 1
}
