# shellcheck shell=bash
# Completion for stalld and throttlectl in bash.

_stalld() {
    local current=${COMP_WORDS[COMP_CWORD]} option=${COMP_WORDS[COMP_CWORD - 1]}
    # bash splits --backend=NAME into three words.
    if [ "$option" = "=" ] && [ "$COMP_CWORD" -ge 2 ]; then
        option=${COMP_WORDS[COMP_CWORD - 2]}
    elif [ "$current" = "=" ]; then
        current=
    fi
    # Options, written by `make regen`; do not edit.
    local takes="" words="" options="
        -c --cpu
        -a --affinity
        -t --starving_threshold
        -g --granularity
        -b --backend
        -N --no_idle_detect
        -i --ignore_threads
        -I --ignore_processes
        -d --boost_duration
        -p --boost_period
        -r --boost_runtime
        -F --force_fifo
        --boost
        --max-loss
        -O --power_mode
        -M --adaptive_mode
        -A --aggressive_mode
        -R --reservation
        -S --systemd
        -l --log_only
        -v --verbose
        -k --log_kmsg
        -s --log_syslog
        --log-format
        -f --foreground
        -P --pidfile
        --no-pidfile
        --metrics
        --trace
        --check
        --recover
        --write-pidfile
        -V --version
        -h --help
    "
    case $option in
    -c | --cpu) takes=text ;;
    -a | --affinity) takes=text ;;
    -t | --starving_threshold) takes=text ;;
    -g | --granularity) takes=text ;;
    -b | --backend) takes=name words="auto task_iter queue_track sched_debug" ;;
    -i | --ignore_threads) takes=text ;;
    -I | --ignore_processes) takes=text ;;
    -d | --boost_duration) takes=text ;;
    -p | --boost_period) takes=text ;;
    -r | --boost_runtime) takes=text ;;
    --boost) takes=name words="auto deadline fifo" ;;
    --max-loss) takes=text ;;
    -R | --reservation) takes=text ;;
    --log-format) takes=name words="text json" ;;
    -P | --pidfile) takes=path ;;
    --metrics) takes=path ;;
    --trace) takes=path ;;
    --write-pidfile) takes=text ;;
    esac
    # End of the options.
    COMPREPLY=()
    case $takes in
    name) mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current") ;;
    path)
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "$current")
        ;;
    "") mapfile -t COMPREPLY < <(compgen -W "$options" -- "$current") ;;
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
