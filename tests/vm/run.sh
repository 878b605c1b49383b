#!/bin/sh
# Boots kernels, runs tests/vm/scenario.sh in each, and prints one table of the results.
#   run.sh STALLD KERNEL[+WORD]...
# A KERNEL is a name in tests/vm/packages.lock, or a file with a slash in its path. `all` and `few`
# stand for several. Each WORD goes onto its command line:
#   lockdown=integrity, debugfs=off, isolcpus=2: for the kernel itself
#   groups=v1, btf=off, bpf=off: for tests/vm/init
#   patience=600: seconds until a guest that hangs lists its tasks and is turned off
#   cpus=4: four CPUs instead of three
#   checks=choice,fifo: these checks only; CHECKS=choice,fifo sets them for all kernels
#   few: a short list of checks; every other word stands for an even shorter one
#   attacks: on four CPUs, attacks by a user without privileges
# ARCH is the emulated architecture, x86_64 by default. For another one packaging/cross.sh has built
# STALLD. JOBS kernels run side by side, and each keeps about one CPU busy.
set -eu
stalld=$1 examples=target/$(rustc -vV | sed -n 's/^host: //p')/release/examples
shift
out=target/vm arch=${ARCH:-x86_64}
. tests/vm/machine.sh
if [ "$arch" != x86_64 ]; then
    examples=$(dirname "$stalld") out=$out/$arch
fi

# kernels_of SPEC: the kernels that `all` and `few` stand for, with their words.
kernels_of() {
    case $arch:$1 in
    x86_64:all)
        set -- 5.10-rt 6.1 6.1-rt 6.12 6.12-rt 7.2 7.2-rt
        echo "$@" 6.1+attacks 6.1-rt+attacks 7.2-rt+attacks 6.1-rt+cpus=4 \
            6.1-rt+isolcpus=2+nohz_full=2+rcu_nocbs=2 6.1+debugfs=off 6.1+btf=off 6.1+bpf=off 6.1+groups=v1
        printf '%s+lockdown=integrity ' "$@"
        printf '%s+lockdown=confidentiality ' "$@"
        ;;
    x86_64:few) echo 5.10-rt+few 6.1-rt+few 7.2-rt+few 6.12-rt+lockdown=confidentiality ;;
    *:all) sed -n "s/^\([0-9.]*-$arch\) .*/\1/p" tests/vm/packages.lock ;;
    *) echo "$1" ;;
    esac
}
# shellcheck disable=SC2046 # a list of words
set -- $(for spec; do kernels_of "$spec"; done)

# All downloads come first, so that a boot's time does not include them and none fails half-way.
busybox=$(sh tests/vm/fetch.sh "busybox-$arch")
cpio=$(sh tests/vm/fetch.sh busybox-x86_64)
sh tests/vm/fetch.sh "${machine%% *}" >/dev/null
for spec; do
    case $spec in
    */*) [ -r "$spec" ] || { echo "stalld: the kernel $spec cannot be read: KERNEL takes a file" >&2 && exit 1; } ;;
    *) sh tests/vm/fetch.sh "${spec%%+*}" >/dev/null ;;
    esac
done
rm -rf "$out/root" "$out/taken"
mkdir -p "$out/root/bin" "$out/root/proc" "$out/root/sys" "$out/root/dev" "$out/taken"

cp "$stalld" "$examples/starve" tests/vm/scenario.sh tests/vm/lib.sh tests/vm/checks.sh "$out/root/bin/"
cp "$busybox" "$out/root/bin/busybox"
# Only a native build has it.
[ ! -e "$examples/attack" ] || cp "$examples/attack" "$out/root/bin/"
# A build without BPF has no stallstat.
[ "$arch" = i686 ] || cp "${stalld%stalld}stallstat" "$out/root/bin/"
# For bpf=off.
[ ! -e "$stalld-nobpf" ] || cp "$stalld-nobpf" "$out/root/bin/"
cp tests/vm/init "$out/root/init"
chmod 755 "$out/root/init" "$out/root/bin/"*
(cd "$out/root" && find . | "$cpio" cpio -o -H newc) 2>/dev/null | gzip -1 >"$out/initramfs"

# boot NAME IMAGE WORD...: writes the guest's console to NAME.log.
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
        attacks) cpus=4 checks=attacks ;;
        few) checks=choice,verified,stat,fifo,restored,killed ;;
        *) checks=choice,fifo,auto ;;
        esac
    done
    # The kernel patches its code by way of breakpoints. An emulated CPU may still execute one after
    # the kernel has removed it. For this reason only, a guest boots again.
    for try in 1 2 3; do
        # shellcheck disable=SC2086 # the words of the command
        timeout 900 nice -n 5 sh tests/vm/tools.sh $machine -accel tcg,thread=multi -smp "$cpus" -m 1G -nodefaults \
            -display none -serial stdio -no-reboot -kernel "$image" -initrd "$out/initramfs" -append \
            "console=$console quiet panic=-1 oops=panic rdinit=/init rcupdate.rcu_cpu_stall_suppress=1 checks=${CHECKS:-$checks} backends=$backends $*" \
            </dev/null >"$out/$name.console" 2>&1 || true
        # Drops carriage returns, and the kernel's last message, which may split a line.
        tr -d '\r' <"$out/$name.console" | sed 's/\[[ 0-9.]*\] sysrq: Power Off//' >"$out/$name.log"
        rm "$out/$name.console"
        grep -q 'Oops: int3' "$out/$name.log" || break
        echo "stalld: $name died of a breakpoint that was already removed, a fault of the emulator: try $try of 3" >&2
    done
    grep -q '^# end' "$out/$name.log" || unfinished >>"$out/$name.log"
}

# Prints a result for a scenario that did not end: the check that was running, and the function in
# which the kernel died, if it died. One cause is known, and does not count as a failure.
unfinished() {
    at=$(sed -n 's/^# at //p' "$out/$name.log" | tail -n 1)
    # Lines that begin with a bar are other programs' output.
    place=$(sed -n '/^|/d; s/.*RIP: 0010:\([a-z_]*\)+.*/\1/p' "$out/$name.log" | tail -n 1)
    case $at:$place in
    *offline-deadline:inactive_task_timer) echo "@ $at no the kernel divides by zero" ;;
    *) echo "@ ${at:-- boot} FAIL the scenario did not end${place:+, the kernel died in $place}: $out/$name.log" ;;
    esac
}

# one SPEC: boots this kernel.
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

# Boots each kernel that no other worker has taken.
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
