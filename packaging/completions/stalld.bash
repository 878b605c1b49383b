# shellcheck shell=bash
# Completion for stalld and throttlectl in bash.

_stalld() {
    local current=${COMP_WORDS[COMP_CWORD]} option=${COMP_WORDS[COMP_CWORD - 1]}
    # --backend=NAME arrives in three words.
    if [ "$option" = "=" ] && [ "$COMP_CWORD" -ge 2 ]; then
        option=${COMP_WORDS[COMP_CWORD - 2]}
    elif [ "$current" = "=" ]; then
        current=
    fi
    COMPREPLY=()
    case $option in
    -b | --backend)
        mapfile -t COMPREPLY < <(compgen -W "auto task_iter queue_track sched_debug" -- "$current")
        ;;
    --log-format)
        mapfile -t COMPREPLY < <(compgen -W "text json" -- "$current")
        ;;
    -P | --pidfile | --metrics | --trace)
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "$current")
        ;;
    -[acdgiIprRt] | --affinity | --cpu | --boost_duration | --granularity | --ignore_threads | \
        --write-pidfile | --ignore_processes | --boost_period | --boost_runtime | --reservation | --starving_threshold) ;;
    *)
        mapfile -t COMPREPLY < <(compgen -W "
            -c --cpu -a --affinity -t --starving_threshold -g --granularity -b --backend -N --no_idle_detect
            -i --ignore_threads -I --ignore_processes -d --boost_duration -p --boost_period -r --boost_runtime
            -F --force_fifo -O --power_mode -M --adaptive_mode -A --aggressive_mode -R --reservation -S --systemd
            -l --log_only -v --verbose -k --log_kmsg -s --log_syslog --log-format -f --foreground -P --pidfile
            --no-pidfile --metrics --trace --check --recover --write-pidfile -V --version -h --help" -- "$current")
        ;;
    esac
}
complete -F _stalld stalld

_throttlectl() {
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        mapfile -t COMPREPLY < <(compgen -W "off on show -h --help" -- "${COMP_WORDS[COMP_CWORD]}")
    fi
}
complete -F _throttlectl throttlectl
