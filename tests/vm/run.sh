#!/bin/sh
# Boots kernels, lets each run tests/vm/scenario.sh, and prints one table of what came of it.
#   run.sh STALLD KERNEL[+WORD]...
# A KERNEL is a name in tests/vm/kernels.lock, or a file with a slash in its path. Each WORD goes onto its command line:
# lockdown=integrity, debugfs=off and isolcpus=2 are the kernel's, groups=v1, btf=off and bpf=off are for tests/vm/init;
# patience=600 is how many seconds may pass until who hangs is told;
# cpus=4 are four CPUs instead of three, and checks=choice,fifo are some of the checks, as is CHECKS=choice,fifo for all.
# With other words they are few, with "few" not quite so.
# ARCH is what is emulated if not x86_64: a kernel of it, and what packaging/cross.sh has built of it.
# JOBS kernels run side by side, each of which keeps about one CPU busy.
set -eu
stalld=$1 starve=target/$(rustc -vV | sed -n 's/^host: //p')/release/examples/starve
shift
out=target/vm arch=${ARCH:-x86_64}
. tests/vm/machine.sh
busybox=$(command -v busybox)
if [ "$arch" != x86_64 ]; then
    starve=$(dirname "$stalld")/starve out=$out/$arch
    busybox=$(sh tests/vm/fetch.sh "busybox-$arch")
fi
rm -rf "$out/root" "$out/taken"
mkdir -p "$out/root/bin" "$out/root/proc" "$out/root/sys" "$out/root/dev" "$out/taken"

cp "$stalld" "$starve" tests/vm/scenario.sh tests/vm/lib.sh tests/vm/checks.sh "$out/root/bin/"
cp "$busybox" "$out/root/bin/busybox"
# Without BPF there is no stallstat.
[ "$arch" = i686 ] || cp "${stalld%stalld}stallstat" "$out/root/bin/"
# Only bpf=off wants this one.
[ ! -e "$stalld-nobpf" ] || cp "$stalld-nobpf" "$out/root/bin/"
cp tests/vm/init "$out/root/init"
chmod 755 "$out/root/init" "$out/root/bin/"*
(cd "$out/root" && find . | busybox cpio -o -H newc) 2>/dev/null | gzip -1 >"$out/initramfs"

# boot NAME IMAGE WORD...: the guest's console has carriage returns.
boot() {
    name=$1 image=$2 cpus=3 checks=all
    case $arch in
    x86_64) ;;
    i686) checks=choice,fifo,restored,killed ;;
    *) checks=choice,stat,fifo,restored,killed ;;
    esac
    shift 2
    # The last of several words counts.
    for word; do
        case $word in
        cpus=*) cpus=${word#cpus=} checks=choice,fifo,offline,threads ;;
        isolcpus=* | nohz_full=* | rcu_nocbs=*) checks=choice,fifo,auto,lone ;;
        lockdown=*) checks=choice,auto,stat ;;
        few) checks=choice,verified,stat,fifo,restored,killed ;;
        *) checks=choice,fifo,auto ;;
        esac
    done
    # An emulated CPU may come to a breakpoint after the kernel, which patches its own code by way of one, has taken
    # it away again. No other reason is one to boot again.
    for try in 1 2 3; do
        # shellcheck disable=SC2086 # the words of the command
        timeout 900 nice -n 5 $machine -accel tcg,thread=multi -smp "$cpus" -m 1G -nodefaults \
            -display none -serial stdio -no-reboot -kernel "$image" -initrd "$out/initramfs" -append \
            "console=$console quiet panic=-1 oops=panic rdinit=/init rcupdate.rcu_cpu_stall_suppress=1 checks=${CHECKS:-$checks} backends=$backends $*" \
            </dev/null >"$out/$name.console" 2>&1 || true
        # The last thing that the kernel says may come in the middle of a line.
        tr -d '\r' <"$out/$name.console" | sed 's/\[[ 0-9.]*\] sysrq: Power Off//' >"$out/$name.log"
        rm "$out/$name.console"
        grep -q 'Oops: int3' "$out/$name.log" || break
        echo "stalld: $name met a breakpoint that was gone, which is the emulator's fault: try $try" >&2
    done
    grep -q '^# end' "$out/$name.log" || unfinished >>"$out/$name.log"
}

# What a scenario that did not end was at, and in which function the kernel died, if it did. One way to die is known.
unfinished() {
    at=$(sed -n 's/^# at //p' "$out/$name.log" | tail -n 1)
    # Behind a bar is what the scenario has printed of others.
    place=$(sed -n '/^|/d; s/.*RIP: 0010:\([a-z_]*\)+.*/\1/p' "$out/$name.log" | tail -n 1)
    case $at:$place in
    *offline-deadline:inactive_task_timer) echo "@ $at no the kernel divides by zero" ;;
    *) echo "@ ${at:-- boot} FAIL the scenario did not end${place:+, the kernel died in $place}: $out/$name.log" ;;
    esac
}

# one SPEC
one() {
    case $1 in
    */*) image=$1 name=${1##*/} ;;
    *) name=$1 image=$(sh tests/vm/fetch.sh "${1%%+*}") ;;
    esac
    echo "stalld: booting $name" >&2
    begun=$(date +%s)
    # shellcheck disable=SC2046 # its words
    case $1 in
    */* | *[!+]+*) boot "$name" "$image" $(echo "$1" | sed '/\//d; s/^[^+]*+//; s/+/ /g') ;;
    *) boot "$name" "$image" ;;
    esac
    echo "stalld: $name took $(($(date +%s) - begun)) s" >&2
}

# Takes whatever no other worker has taken.
work() {
    for spec; do
        mkdir "$out/taken/$(echo "$spec" | tr / _)" 2>/dev/null || continue
        one "$spec"
    done
}

begun=$(date +%s)
for _ in $(seq "${JOBS:-$(nproc)}"); do
    work "$@" &
done
wait
for spec; do
    sed -n "s/^@ /${spec##*/} /p" "$out/${spec##*/}.log"
done >"$out/results"
awk -f tests/vm/table.awk "$out/results"
echo "$# boots in $(($(date +%s) - begun)) s"
! grep -q '^[^ ]* [^ ]* [^ ]* FAIL' "$out/results"
