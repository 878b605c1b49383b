# Completion for stallstat in fish.

complete -c stallstat -f
complete -c stallstat -n 'not __fish_seen_subcommand_from hogs jitter record trace' -a 'hogs jitter record trace'
complete -c stallstat -n '__fish_seen_subcommand_from record trace' -F
# Options, written by `make regen`; do not edit.
complete -c stallstat -s g -l group -xa '(__fish_append , latency slice sleep waking migration schedstat perf most all)' -d 'count these: latency, slice, sleep, waking, migration, schedstat, perf'
complete -c stallstat -s i -l interval -x -d 'report this often (1 s)'
complete -c stallstat -s r -l run-time -x -d 'end after this long (when interrupted)'
complete -c stallstat -s 1 -l once -d 'one report, at the end'
complete -c stallstat -s c -l comm -x -d 'only tasks whose name matches one of these'
complete -c stallstat -l cgroup -x -d 'only tasks in control groups whose path matches, and below them'
complete -c stallstat -l global-comm -x -d 'and those whose name matches, whatever group they are in'
complete -c stallstat -s p -l pid -xa '(__fish_complete_pids)' -d 'only these processes and threads'
complete -c stallstat -l cpu -x -d 'only what happens on these CPUs, such as 0,2-4 (all)'
complete -c stallstat -s l -l min-latency -x -d 'only latencies of at least this, in us (0)'
complete -c stallstat -s C -l no-collapse -d 'a row for each task, not for each name'
complete -c stallstat -s d -l detailed -d 'all rows, not the worst of each band of latencies'
complete -c stallstat -s e -l event -x -d 'what the group perf counts: names as perf(1) has them, or r and hex digits'
complete -c stallstat -l json -d 'an object a report, each on a line'
complete -c stallstat -l csv -d 'a line for each figure'
complete -c stallstat -l by -xa 'name task cgroup container pod' -d 'of hogs: add up by name, task, cgroup, container or pod (name)'
complete -c stallstat -l period -x -d 'of jitter: how often a timer is set, in ms (1 ms)'
complete -c stallstat -l fifo -x -d 'of jitter: measure by threads in SCHED_FIFO of this priority'
complete -c stallstat -s V -l version -d 'print the version and exit'
complete -c stallstat -s h -l help -d 'print this text and exit'
# End of the options.
