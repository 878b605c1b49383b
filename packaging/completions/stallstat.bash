# shellcheck shell=bash
# Completion for stallstat in bash.

_stallstat() {
    local current=${COMP_WORDS[COMP_CWORD]} option=${COMP_WORDS[COMP_CWORD - 1]} word command=
    # --group=NAME arrives in three words.
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
    COMPREPLY=()
    case $option in
    -g | --group)
        # Of a list, the last one.
        local before=
        [[ $current != *,* ]] || before=${current%,*},
        mapfile -t COMPREPLY < <(compgen -P "$before" -W "latency slice sleep waking migration schedstat perf most all" \
            -- "${current##*,}")
        ;;
    --by)
        mapfile -t COMPREPLY < <(compgen -W "name task cgroup container pod" -- "$current")
        ;;
    record | trace)
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "$current")
        ;;
    -[ceilpr] | --comm | --global-comm | --cgroup | --cpu | --event | --interval | --min-latency | --pid | --run-time | \
        --period | --fifo) ;;
    *)
        case $current in
        -*)
            mapfile -t COMPREPLY < <(compgen -W "
                -g --group -i --interval -r --run-time -1 --once -c --comm --global-comm --cgroup -p --pid --cpu
                -l --min-latency -C --no-collapse -d --detailed -e --event --json --csv --by --period --fifo
                -V --version -h --help" -- "$current")
            ;;
        *)
            [ -n "$command" ] ||
                mapfile -t COMPREPLY < <(compgen -W "hogs jitter record trace" -- "$current")
            ;;
        esac
        ;;
    esac
}
complete -F _stallstat stallstat
