#!/bin/sh
# Boots a Debian with systemd and a package installed, runs tests/service.sh there, upgrades the
# package and removes it, as root:
#   service.sh PACKAGE.deb [KERNEL[+WORD]...]
# A KERNEL is a name in tests/vm/packages.lock; by default, 6.1 and 6.1-rt. WORD goes onto its
# command line. The Debian is the release of this machine, or 12 where this is another distribution.
set -eu
package=$1
shift
[ $# -gt 0 ] || set -- 6.1 6.1-rt
out=target/vm
root=$out/debian
# All downloads come first, so that none fails half-way.
cpio=$(sh tests/vm/fetch.sh busybox-x86_64)
for name in qemu-system-x86_64 "$@"; do
    sh tests/vm/fetch.sh "${name%%+*}" >/dev/null
done
mkdir -p "$out"
rm -rf "$root"
# A package built on Debian needs the libraries of that release.
# shellcheck source=/dev/null
suite=$(. /etc/os-release && [ "${ID:-}" = debian ] && echo "${VERSION_CODENAME:?}") || suite=bookworm
sh tests/debian.sh "$suite"
cp -a "target/roots/$suite" "$root"
cp "$package" "$root/stalld.deb"
cp tests/service.sh tests/checks.sh "$root"
DEBIAN_FRONTEND=noninteractive chroot "$root" dpkg -i /stalld.deb >"$out/install.log" 2>&1 || {
    echo "stalld: $package cannot be installed in Debian's $suite: see $out/install.log" >&2
    exit 1
}
# The console's own interrupt thread can starve, so the output is printed after the test.
cat >"$root/check" <<'END'
#!/bin/sh
taskset -p 1 $$ >/dev/null
. /checks.sh
is_another() {
    systemctl is-active --quiet stalld.service && [ "$(systemctl show --value --property=MainPID stalld.service)" != "$first" ]
}
packages() {
    systemctl restart stalld.service
    first=$(systemctl show --value --property=MainPID stalld.service)
    # Pretends that the service of the C program runs: its throttlectl saves the settings in such a
    # file.
    rm /run/stalld/throttling
    printf 'period=%s\nruntime=%s\n' "$(cat /proc/sys/kernel/sched_rt_period_us)" "$throttling" >/run/stalld/rtthrottle-Xq81bZa
    chmod 600 /run/stalld/rtthrottle-Xq81bZa
    DEBIAN_FRONTEND=noninteractive dpkg -i /stalld.deb >/dev/null
    check "an upgrade of its package starts it anew" is_another
    check "and imports the settings that the C program has saved" grep "^$throttling " /run/stalld/throttling
    dpkg --remove stalld >/dev/null
    check "its package is removed, and no process is left" sh -c '! pgrep -x stalld'
    check "nor is RT throttling off" [ "$(cat /proc/sys/kernel/sched_rt_runtime_us)" = "$throttling" ]
}
systemctl stop stalld.service
throttling=$(cat /proc/sys/kernel/sched_rt_runtime_us)
{
    sh /service.sh || status=1
    packages
} >/output 2>&1 </dev/null
{ cat /output; echo "# exit $status"; } >/dev/console
sleep 1
echo o >/proc/sysrq-trigger
END
cat >"$root/etc/systemd/system/check.service" <<'END'
[Service]
ExecStart=sh /check
TimeoutStartSec=infinity
[Install]
WantedBy=multi-user.target
END
mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
ln -sf ../check.service "$root/etc/systemd/system/multi-user.target.wants/check.service"
(cd "$root" && find . -path ./usr/share/doc -prune -o -path './var/cache/*' -prune -o -print | "$cpio" cpio -o -H newc) >"$out/debian.cpio" 2>"$out/cpio.log"

status=0
for spec; do
    kernel=${spec%+*} word=
    [ "$kernel" = "$spec" ] || word=${spec##*+}
    echo "the service on $spec:"
    timeout 600 nice -n 5 sh tests/vm/tools.sh qemu-system-x86_64 -M q35 -accel tcg,thread=multi -cpu max -smp 2 -m 3G -nodefaults \
        -display none -serial stdio -no-reboot -kernel "$(sh tests/vm/fetch.sh "$kernel")" -initrd "$out/debian.cpio" \
        -append "console=ttyS0 quiet panic=-1 rdinit=/lib/systemd/systemd rcupdate.rcu_cpu_stall_suppress=1 $word" \
        </dev/null >"$out/console" 2>&1 || :
    tr -d '\r' <"$out/console" >"$out/service-$spec.log"
    grep '^  ok      \|^  FAILED  ' "$out/service-$spec.log" || :
    grep -q '^# exit 0$' "$out/service-$spec.log" || {
        echo "  FAILED on $spec: $out/service-$spec.log"
        status=1
    }
done
rm -rf "$root" "$out/debian.cpio"
exit $status
