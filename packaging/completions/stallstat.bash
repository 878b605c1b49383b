# shellcheck shell=bash
# Completion for stallstat in bash.

_stallstat() {
    local current=${COMP_WORDS[COMP_CWORD]} option=${COMP_WORDS[COMP_CWORD - 1]} word command=
    # bash splits --group=NAME into three words.
    if [ "$option" = "=" ] && [ "$COMP_CWORD" -ge 2 ]; then
        option=${COMP_WORDS[COMP_CWORD - 2]}
    elif [ "$current" = "=" ]; then
        current=
    fi
    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        case $word in
        hogs | jitter | record | trace) command=$word ;;
        esac
    done
    # Options, written by `make regen`; do not edit.
    local takes="" words="" options="
        -g --group
        -i --interval
        -r --run-time
        -1 --once
        -c --comm
        --cgroup
        --global-comm
        -p --pid
        --cpu
        -l --min-latency
        -C --no-collapse
        -d --detailed
        -e --event
        --json
        --csv
        --by
        --period
        --fifo
        -V --version
        -h --help
    "
    case $option in
    -g | --group) takes=names words="latency slice sleep waking migration schedstat perf most all" ;;
    -i | --interval) takes=text ;;
    -r | --run-time) takes=text ;;
    -c | --comm) takes=text ;;
    --cgroup) takes=text ;;
    --global-comm) takes=text ;;
    -p | --pid) takes=text ;;
    --cpu) takes=text ;;
    -l | --min-latency) takes=text ;;
    -e | --event) takes=text ;;
    --by) takes=name words="name task cgroup container pod" ;;
    --period) takes=text ;;
    --fifo) takes=text ;;
    esac
    # End of the options.
    COMPREPLY=()
    case $takes:$option:$current in
    names:*)
        # Completes the last name of the list.
        local before=
        [[ $current != *,* ]] || before=${current%,*},
        mapfile -t COMPREPLY < <(compgen -P "$before" -W "$words" -- "${current##*,}")
        ;;
    name:*) mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current") ;;
    :record:* | :trace:*)
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "$current")
        ;;
    :*:-*) mapfile -t COMPREPLY < <(compgen -W "$options" -- "$current") ;;
    :*)
        [ -n "$command" ] ||
            mapfile -t COMPREPLY < <(compgen -W "hogs jitter record trace" -- "$current")
        ;;
    esac
}
complete -F _stallstat stallstat
