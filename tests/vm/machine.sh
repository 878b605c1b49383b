# Sets the names that Debian, Rust and the C compilers have for an architecture, and qemu's machine
# for it. run.sh and packaging/cross.sh source this file after they have set $arch.
# shellcheck shell=sh disable=SC2034,SC2154

console=ttyS0
# Backends that the build has. Without libbpf it has sched_debug only.
backends=task_iter,queue_track,sched_debug
case $arch in
x86_64) debian=amd64 triplet=x86_64-linux-gnu rust=x86_64-unknown-linux-gnu machine="qemu-system-x86_64 -M q35 -cpu max" ;;
i686)
    debian=i386 triplet=i686-linux-gnu rust=i686-unknown-linux-gnu machine="qemu-system-i386 -M q35 -cpu max,vendor=GenuineIntel"
    backends=sched_debug
    ;;
aarch64)
    debian=arm64 triplet=aarch64-linux-gnu rust=aarch64-unknown-linux-gnu console=ttyAMA0
    machine="qemu-system-aarch64 -M virt -cpu cortex-a57"
    ;;
s390x)
    debian=s390x triplet=s390x-linux-gnu rust=s390x-unknown-linux-gnu console=ttysclp0
    machine="qemu-system-s390x -M s390-ccw-virtio -cpu max"
    ;;
riscv64)
    debian=riscv64 triplet=riscv64-linux-gnu rust=riscv64gc-unknown-linux-gnu machine="qemu-system-riscv64 -M virt"
    ;;
ppc64le)
    debian=ppc64el triplet=powerpc64le-linux-gnu rust=powerpc64le-unknown-linux-gnu console=hvc0
    machine="qemu-system-ppc64 -M pseries -cpu power9"
    ;;
*)
    echo "stalld: no machine is known for '$arch': x86_64, i686, aarch64, s390x, riscv64, ppc64le" >&2
    exit 1
    ;;
esac
