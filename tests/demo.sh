#!/bin/sh
# Starves a task for a few seconds, for real, and shows that stalld rescues it.
#
# usage: demo.sh STALLD STARVE
set -eu

stalld=$1
starve=$2
seconds=8
threshold=2

if [ "$(id -u)" != 0 ]; then
	echo "demo: real-time tasks need root" >&2
	exit 1
fi

work=$(mktemp -d)
trap 'kill "$watcher" 2>/dev/null || true; rm -rf "$work"' EXIT
watcher=

# wait_for WHAT FILE PATTERN SECONDS
wait_for() {
	tries=$(($4 * 20))
	until grep -q "$3" "$2"; do
		tries=$((tries - 1))
		if [ "$tries" -le 0 ]; then
			echo "demo: FAILED: $1" >&2
			cat "$work"/* >&2
			exit 1
		fi
		sleep 0.05
	done
}

# field NAME LINE
field() {
	printf '%s\n' "$2" | tr ' ' '\n' | sed -n "s/^$1=//p" | head -n 1
}

"$stalld" --foreground --verbose --starving_threshold "$threshold" 2>"$work/stalld" &
watcher=$!
wait_for 'stalld did not start' "$work/stalld" 'checking cpu' 10

"$starve" --for "$seconds" --hog 50 --victim spin:1:victim >"$work/starve" 2>&1 &
rig=$!
wait_for 'no task could be starved' "$work/starve" '^victim ' 10

hog=$(grep '^hog ' "$work/starve")
victim=$(grep '^victim ' "$work/starve")
tid=$(field tid "$victim")
cpu=$(field cpu "$hog")

cat <<END

On CPU $cpu a task 'hog' (SCHED_FIFO 50) spins for $seconds seconds. A task 'victim' (SCHED_FIFO 1, tid $tid) was
running there and now waits behind it: it is runnable, and nobody but stalld will let it run. Its progress counter:

  before the hog came            $(field progress "$victim")
END

wait_for 'stalld has not found the victim' "$work/stalld" "victim-$tid starved on CPU $cpu" $((threshold + 3))
wait_for 'stalld has not boosted the victim' "$work/stalld" "boosted pid $tid " 3
wait_for 'stalld has not restored the victim' "$work/stalld" "restored pid $tid " 6
wait "$rig" || { cat "$work/starve" >&2; exit 1; }
hog=$(grep '^end hog ' "$work/starve")
end=$(grep '^end victim ' "$work/starve")
kill "$watcher"
wait "$watcher"
watcher=
ran=$(field first_ran_after "$end")
if [ "$ran" = never ] || [ "$ran" -ge "$(field until "$(grep '^hog ' "$work/starve")")" ]; then
	echo 'demo: FAILED: the victim has not run before the hog had gone' >&2
	exit 1
fi

cat <<END
  when the hog had gone          $(field progress "$end")
  it ran again after             $(((ran - $(field since "$victim")) / 1000000)) ms
  the hog's longest interruption $(($(field longest_gap_ns "$hog") / 1000)) us

What stalld, with a threshold of $threshold seconds, said meanwhile:

END
grep -E "victim-$tid starved|CPU $cpu is held by|(boosted|restored) pid $tid " "$work/stalld" | head -n 6 | sed 's/^/  /'
echo
echo "demo: ok, stalld rescued the task that starved"
