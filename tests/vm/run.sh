#!/bin/sh
# Boots kernels one after the other, lets each run tests/vm/scenario.sh, and prints one table of what came of it.
#   run.sh STALLD KERNEL[+WORD]...
# A KERNEL is a name in tests/vm/kernels.lock, or a file with a slash in its path. WORD goes onto its command line:
# lockdown=integrity and debugfs=off are the kernel's, groups=v1 is for tests/vm/init; +cpus=4 are four CPUs instead of two.
# ARCH is what is emulated if not x86_64: a kernel of it, and what packaging/cross.sh has built of it.
# CHECKS, words with commas, are some of the checks; with a WORD or an ARCH they are few unless given.
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
rm -rf "$out/root"
mkdir -p "$out/root/bin" "$out/root/proc" "$out/root/sys" "$out/root/dev"

cp "$stalld" "$starve" tests/vm/scenario.sh "$out/root/bin/"
cp "$busybox" "$out/root/bin/busybox"
cp tests/vm/init "$out/root/init"
chmod 755 "$out/root/init" "$out/root/bin/"*
(cd "$out/root" && find . | busybox cpio -o -H newc) 2>/dev/null | gzip -1 >"$out/initramfs"

# boot NAME KERNEL WORD: the guest's console has carriage returns.
boot() {
    checks=all cpus=2
    [ "$arch" = x86_64 ] || checks=choice,fifo,restored,killed
    case $3 in
    cpus=*) cpus=${3#cpus=} checks=fifo,offline ;;
    ?*) checks=choice,fifo ;;
    esac
    # shellcheck disable=SC2086 # the words of the command
    timeout 1200 nice -n 5 $machine -accel tcg,thread=multi -smp "$cpus" -m 1G -nodefaults \
        -display none -serial stdio -no-reboot -kernel "$2" -initrd "$out/initramfs" -append \
        "console=$console quiet panic=-1 rdinit=/init rcupdate.rcu_cpu_stall_suppress=1 checks=${CHECKS:-$checks} backends=$backends $3" \
        </dev/null >"$out/console" 2>&1 || true
    tr -d '\r' <"$out/console" >"$out/$1.log"
    grep -q '^# end' "$out/$1.log" || echo "@ - boot FAIL the scenario did not end: $out/$1.log" >>"$out/$1.log"
}

: >"$out/results"
for spec; do
    kernel=${spec%+*} word=
    [ "$kernel" = "$spec" ] || word=${spec##*+}
    case $kernel in
    */*) image=$kernel ;;
    *) image=$(sh tests/vm/fetch.sh "$kernel") ;;
    esac
    name=${spec##*/}
    echo "stalld: booting $name" >&2
    boot "$name" "$image" "$word"
    sed -n "s/^@ /$name /p" "$out/$name.log" >>"$out/results"
done
awk -f tests/vm/table.awk "$out/results"
! grep -q '^[^ ]* [^ ]* [^ ]* FAIL' "$out/results"
