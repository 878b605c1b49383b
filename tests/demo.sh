#!/bin/sh
# Starves a real task for a few seconds, and shows that stalld rescues it.
#
# usage: demo.sh STALLD STARVE
#        demo.sh --check        only fails, in one line, where the demo cannot work
set -eu

seconds=8
threshold=2

refuse() {
	echo "demo: $*" >&2
	exit 1
}

# Fails if this system lacks a requirement that no right and no package can add. Needs no root.
check() {
	[ -e /proc/self/status ] || refuse "/proc is not mounted: mount -t proc proc /proc"
	# The first namespace of the kernel has this number. A kernel without this link has no other
	# namespace.
	case $(readlink /proc/self/ns/pid) in
	'' | 'pid:[4026531836]') ;;
	*) refuse "stalld boosts no task from a pid namespace of its own: start the container with the host's, or use the host" ;;
	esac
	# CAP_SYS_NICE is number 23.
	bounds=$(sed -n 's/^CapBnd:[[:space:]]*//p' /proc/self/status)
	[ $((0x$bounds >> 23 & 1)) = 1 ] ||
		refuse "real-time tasks need CAP_SYS_NICE, which is out of reach here: add it to the container, or use the host"
	[ -e /sys/kernel/btf/vmlinux ] || [ -e /proc/sched_debug ] || grep -q ' debugfs ' /proc/mounts ||
		refuse "stalld needs the kernel's BTF or debugfs: mount -t sysfs sysfs /sys, or mount -t debugfs debugfs" \
			"/sys/kernel/debug"
}

check
if [ "$1" = --check ]; then
	exit
fi
stalld=$1
starve=$2
[ "$(id -u)" = 0 ] || refuse "real-time tasks need root"

work=$(mktemp -d)
trap 'kill "$watcher" 2>/dev/null || true; rm -rf "$work"' EXIT
watcher=
touch "$work/stalld" "$work/starve"

# wait_for WHAT FILE PATTERN SECONDS: prints the logs if the pattern does not come.
wait_for() {
	await "$2" "$3" "$4" || {
		echo "demo: FAILED: $1" >&2
		cat "$work"/* >&2
		exit 1
	}
}

# await FILE PATTERN SECONDS [PID]: fails when the time is over, or when this process has ended.
await() {
	tries=$(($3 * 20))
	until grep -q "$2" "$1"; do
		tries=$((tries - 1))
		[ "$tries" -gt 0 ] || return 1
		if [ -n "${4:-}" ] && ! kill -0 "$4" 2>/dev/null; then
			grep -q "$2" "$1"
			return
		fi
		sleep 0.05
	done
}

# start_failed WHAT FILE: fails with the last line of that log, which has the reason.
start_failed() {
	refuse "FAILED: $1: $(tail -n 1 "$2" | sed 's/^[a-z]*: //')"
}

# field NAME LINE
field() {
	printf '%s\n' "$2" | tr ' ' '\n' | sed -n "s/^$1=//p" | head -n 1
}

"$stalld" --foreground --verbose --starving_threshold "$threshold" 2>"$work/stalld" &
watcher=$!
await "$work/stalld" 'checking cpu' 10 "$watcher" || start_failed 'stalld did not start' "$work/stalld"

"$starve" --for "$seconds" --hog 50 --victim spin:1:victim >"$work/starve" 2>&1 &
rig=$!
await "$work/starve" '^victim ' 10 "$rig" || start_failed 'no task could be starved' "$work/starve"

hog=$(grep '^hog ' "$work/starve")
victim=$(grep '^victim ' "$work/starve")
tid=$(field tid "$victim")
cpu=$(field cpu "$hog")

cat <<END

On CPU $cpu the task 'hog' (SCHED_FIFO 50) spins for $seconds seconds. The task 'victim' (SCHED_FIFO 1, tid $tid) ran
there before and now starves: it is runnable, but only stalld lets it run. Its progress counter:

  before the hog started         $(field progress "$victim")
END

wait_for 'stalld did not find the victim' "$work/stalld" "victim-$tid starved on CPU $cpu" $((threshold + 3))
wait_for 'stalld did not boost the victim' "$work/stalld" "boosted pid $tid " 3
wait_for 'stalld did not restore the victim' "$work/stalld" "restored pid $tid " 6
wait "$rig" || { cat "$work/starve" >&2; exit 1; }
hog=$(grep '^end hog ' "$work/starve")
end=$(grep '^end victim ' "$work/starve")
kill "$watcher"
wait "$watcher"
watcher=
ran=$(field first_ran_after "$end")
if [ "$ran" = never ] || [ "$ran" -ge "$(field until "$(grep '^hog ' "$work/starve")")" ]; then
	echo 'demo: FAILED: the victim did not run before the hog ended' >&2
	exit 1
fi

cat <<END
  after the hog ended            $(field progress "$end")
  it ran again after             $(((ran - $(field since "$victim")) / 1000000)) ms
  the hog's longest interruption $(($(field longest_gap_ns "$hog") / 1000)) us

The log of stalld, with a threshold of $threshold seconds:

END
grep -E "victim-$tid starved|CPU $cpu is held by|(boosted|restored) pid $tid " "$work/stalld" | head -n 6 | sed 's/^/  /'
echo
echo "demo: ok, stalld rescued the starving task"
