#!/bin/sh
# Checks the packages in a directory by installing them, as root: packages.sh DIRECTORY
#
# It makes systems to install in below target/roots, and changes nothing on the host.
# shellcheck disable=SC2317 # most functions are called by `check`
set -eu
cd "$(dirname "$0")/.."
. packaging/version.sh
. tests/checks.sh
umask 022

library=libstalld.so.$(sed -n 's/^version = "\(.*\)"$/\1/p' ffi/Cargo.toml)
packages=$(cd "$1" && pwd)
roots=$PWD/target/roots
output=$roots/output
mkdir -p "$roots"
suites=$(sh tests/suites.sh)
busybox=$(sh tests/vm/fetch.sh "busybox-$(uname -m)")

# fresh ROOT COPY: makes a copy of a root that a check may change.
fresh() {
    rm -rf "$2"
    cp -a --reflink=auto "$1" "$2"
}

# Prints all paths in a root, without the package manager's records and caches, and without files
# that end with a restart.
everything_in() {
    (cd "$1" && find . '(' -path ./var/lib/dpkg -o -path ./var/log -o -path ./var/cache -o -path ./run ')' -prune -o -print) |
        sort
}

# former_files DIRECTORY CONFIGURATION: makes the files of the C program's package, with programs
# that do nothing.
former_files() {
    mkdir -p "$1/usr/bin" "$1/usr/lib/systemd/system" "$1/${2%/*}"
    for name in stalld throttlectl; do
        printf '#!/bin/sh\n' >"$1/usr/bin/$name"
        chmod 755 "$1/usr/bin/$name"
    done
    cat >"$1/usr/lib/systemd/system/stalld.service" <<END
[Unit]
Description=Stall Monitor
[Service]
EnvironmentFile=/$2
ExecStartPre=/usr/bin/throttlectl off
ExecStart=/usr/bin/stalld --systemd \$CLIST \$AGGR \$BP \$BR \$BD \$THRESH \$LOGGING \$FG \$PF
ExecStopPost=/usr/bin/throttlectl on
Restart=always
RuntimeDirectory=stalld
[Install]
WantedBy=multi-user.target
END
    cat >"$1/$2" <<'END'
CLIST=""
AGGR=""
BP="-p 1000000000"
BR="-r 20000"
BD="-d 3"
THRESH="-t 44"
LOGGING=""
FG="--foreground"
PF="--pidfile /run/stalld.pid"
END
}

# Makes the root look as if the C program's service ran: its throttlectl has saved the settings, and
# throttling is off. Files replace the kernel's settings.
former_runs() {
    mkdir -p "$root/run/stalld" "$root/proc/sys/kernel"
    printf 'period=1000000\nruntime=940000\n' >"$root/run/stalld/rtthrottle-Xq81bZa"
    chmod 600 "$root/run/stalld/rtthrottle-Xq81bZa"
    echo 1000000 >"$root/proc/sys/kernel/sched_rt_period_us"
    echo -1 >"$root/proc/sys/kernel/sched_rt_runtime_us"
    : >"$root/proc/mounts"
}

imports_the_settings() {
    chroot "$root" throttlectl on
    [ "$(cat "$root/proc/sys/kernel/sched_rt_runtime_us")" = 940000 ] && [ -z "$(ls "$root/run/stalld")" ]
    imported=$?
    rm -rf "$root/run/stalld" "$root/proc/sys" "$root/proc/mounts"
    return "$imported"
}

# former_deb PACKAGE OUTPUT: makes a package that stands in for the C program's, with other options.
former_deb() {
    rm -rf "$roots/former"
    dpkg-deb -R "$1" "$roots/former"
    sed -i 's/^Version: .*/Version: 1.28.1-1/' "$roots/former/DEBIAN/control"
    rm -rf "$roots/former/lib" "$roots/former/usr" "$roots/former/DEBIAN/md5sums"
    former_files "$roots/former" etc/default/stalld
    dpkg-deb --root-owner-group -b "$roots/former" "$2"
}

# former_rpm: the same for RPM.
former_rpm() {
    rm -rf "$roots/former"
    former_files "$roots/former" etc/sysconfig/stalld
    cat >"$roots/former.spec" <<'END'
Name: stalld
Version: 1.28.1
Release: 1
Summary: Stands for the C program
License: None
%description
%install
mkdir -p %{buildroot}
cp -r %{former}/. %{buildroot}
%files
/usr/bin/stalld
/usr/bin/throttlectl
/usr/lib/systemd/system/stalld.service
%config(noreplace) /etc/sysconfig/stalld
END
    rpmbuild -bb --define "_topdir $roots/rpm" --define "former $roots/former" "$roots/former.spec"
}

# has_modes: checks the modes of files against lines MODE PATH on stdin.
has_modes() {
    while read -r mode path; do
        [ "$(stat -c %a "$root/$path")" = "$mode" ] || { echo "$path has the mode $(stat -c %a "$root/$path")"; return 1; }
    done
}

# program_has_modes CONFIGURATION
program_has_modes() {
    has_modes <<END
755 usr/bin/stalld
755 usr/bin/stallstat
755 usr/bin/throttlectl
644 usr/lib/systemd/system/stalld.service
644 $1
644 usr/share/bash-completion/completions/stalld
644 usr/share/bash-completion/completions/stallstat
777 usr/share/bash-completion/completions/throttlectl
644 usr/share/fish/vendor_completions.d/stalld.fish
644 usr/share/fish/vendor_completions.d/stallstat.fish
777 usr/share/fish/vendor_completions.d/throttlectl.fish
END
    for file in _stalld _stallstat stalld.8 stallstat.8 throttlectl.8; do
        find "$root/usr/share/zsh" "$root/usr/share/man/man8" -name "$file*" -perm 644 | grep . || { echo "there is no $file"; return 1; }
    done
}

# library_has_modes LIBDIR MODE: MODE is that of the shared library, in which Debian and Fedora
# differ.
library_has_modes() {
    has_modes <<END &&
$2 $1/$library
644 $1/libstalld.a
644 $1/pkgconfig/libstalld.pc
644 usr/include/stalld.h
END
        [ "$(readlink "$root/$1/libstalld.so")" = libstalld.so.0 ] &&
        [ "$(readlink "$root/$1/libstalld.so.0")" = "$library" ] &&
        for page in man/*.3; do
            [ -e "$root/usr/share/man/man3/${page#man/}.gz" ] || [ -e "$root/usr/share/man/man3/${page#man/}" ] ||
                { echo "there is no $page"; return 1; }
        done
}

# builds_a_program LIBDIR: builds a program with the library of the root. The compiler and all other
# files are this host's.
builds_a_program() {
    only=$roots/development
    rm -rf "$only"
    mkdir -p "$only/$1/pkgconfig" "$only/usr/include"
    cp -P "$root/$1"/libstalld.* "$only/$1"
    cp "$root/$1/pkgconfig/libstalld.pc" "$only/$1/pkgconfig"
    cp "$root/usr/include/stalld.h" "$only/usr/include"
    # shellcheck disable=SC2046 # a list of words
    ${CC:-cc} -o "$root/program" ffi/examples/boost.c \
        $(PKG_CONFIG_LIBDIR="$only/$1/pkgconfig" PKG_CONFIG_SYSROOT_DIR="$only" pkg-config --cflags --libs libstalld) &&
        readelf -d "$root/program" | grep 'NEEDED.*libstalld\.so\.0]'
}

# has_all_symbols PACKAGE: checks that it lists all functions that ffi/libstalld.map exports, and no
# others.
has_all_symbols() {
    sed -n 's/^\t\(stalld_[a-z_]*\);$/\1/p' ffi/libstalld.map | sort >"$roots/functions"
    dpkg-deb --ctrl-tarfile "$1" | tar -xOf - ./symbols | sed -n 's/^ \(stalld_[a-z_]*\)@.*/\1/p' | sort |
        diff "$roots/functions" -
}

# Warnings about other units don't count. The manual pages are in man/, and not checked here.
# systemd before 254 does not know RestartSteps= and RestartMaxDelaySec=, and ignores them.
unit_verifies() {
    chroot "$root" systemd-analyze verify --man=no --recursive-errors=no stalld.service >"$roots/verified" 2>&1 && return
    cat "$roots/verified"
    grep stalld "$roots/verified" >"$roots/remarks"
    ! grep -v "Unknown key.*'Restart\(Steps\|MaxDelaySec\)' in section" "$roots/remarks"
}

exposure_is_low() {
    chroot "$root" systemd-analyze security --offline=true --threshold=17 --no-pager stalld.service
}

# lists_its_parts DIRECTORY PARTS-IN-C...: checks the list of parts, and the licences.
lists_its_parts() {
    list=$(find "$1" -name stalld.cdx.json)
    # Debian has its own format for licences.
    licences=$(find "$1" -name NOTICES.txt)
    [ -n "$licences" ] || licences=$(dirname "$list")/copyright
    shift
    python3 tests/sbom.py "$list" "$licences" "$@"
}

deb_in() {
    echo "$package in Debian's $1:"
    sh tests/debian.sh "$1"
    root=$roots/test
    fresh "$roots/$1" "$root"
    everything_in "$root" >"$roots/before"
    cp "$package" "$root/var/cache/stalld.deb"
    check "installs" chroot "$root" dpkg -i /var/cache/stalld.deb
    check "files and modes" program_has_modes etc/default/stalld
    check "nothing was changed since" chroot "$root" dpkg --verify stalld
    check "has its alerts and its dashboard" sh -c "ls '$root'/usr/share/doc/stalld/examples/alerts.yml '$root'/usr/share/doc/stalld/examples/grafana.json*"
    check "the program runs" chroot "$root" stalld --version
    check "so does stallstat" chroot "$root" stallstat --version
    check "is hardened" sh tests/hardening.sh "$root/usr/bin/stalld" "$root/usr/bin/stallstat"
    check "its list of what is inside is true" lists_its_parts "$root" libbpf
    check "is enabled" test -h "$root/etc/systemd/system/multi-user.target.wants/stalld.service"
    check "the unit verifies" unit_verifies
    check "the unit's exposure is 1.7 at most" exposure_is_low
    check "is purged" chroot "$root" dpkg --purge stalld
    everything_in "$root" >"$roots/after"
    check "leaves nothing" diff "$roots/before" "$roots/after"

    former_deb "$package" "$root/var/cache/former.deb" >/dev/null
    check "a former version installs" chroot "$root" dpkg -i /var/cache/former.deb
    echo 'THRESH="-t 33"' >>"$root/etc/default/stalld"
    check "is an upgrade of it" chroot "$root" dpkg -i --force-confdef /var/cache/stalld.deb
    check "keeps a changed configuration" grep -q 'THRESH="-t 33"' "$root/etc/default/stalld"
    former_runs
    check "imports the settings that the former version has saved" imports_the_settings
    check "is removed" chroot "$root" dpkg --remove stalld
    check "keeps the configuration then" test -e "$root/etc/default/stalld"
    check "is purged again" chroot "$root" dpkg --purge stalld
    everything_in "$root" >"$roots/after"
    check "leaves nothing again" diff "$roots/before" "$roots/after"
}

library_deb_in() {
    echo "the C library in Debian's $1:"
    root=$roots/test
    triplet=$(dpkg-architecture -qDEB_HOST_MULTIARCH)
    fresh "$roots/$1" "$root"
    everything_in "$root" >"$roots/before"
    cp "$packages/libstalld0_$version"-*.deb "$packages/libstalld-dev_$version"-*.deb "$root/var/cache"
    check "installs" chroot "$root" sh -c "dpkg -i /var/cache/libstalld*.deb"
    check "files and modes" library_has_modes "usr/lib/$triplet" 644
    check "nothing was changed since" chroot "$root" dpkg --verify libstalld0 libstalld-dev
    check "its list of what is inside is true" lists_its_parts "$root" libbpf
    check "its symbols are those of the map" has_all_symbols "$packages/libstalld0_$version"-*.deb
    check "a program is built with it" builds_a_program "usr/lib/$triplet"
    check "and runs" sh -c "chroot '$root' /program 2>&1 | grep '^usage: boost'"
    rm -f "$root/program"
    check "is purged" chroot "$root" dpkg --purge libstalld-dev libstalld0
    everything_in "$root" >"$roots/after"
    check "leaves nothing" diff "$roots/before" "$roots/after"
}

# in_each_suite FUNCTION WHAT: calls the function with each Debian release that is at least as new
# as this system.
in_each_suite() {
    for suite in bookworm trixie; do
        case " $suites " in
        *" $suite "*) "$1" "$suite" ;;
        *) left_out "$2 in Debian's $suite" "its C library is older than that of this system, which built the packages" ;;
        esac
    done
}

# Runs those tests of debian/tests that need no kernel of their own. autopkgtest returns 2 or 8 if
# it skips the others.
autopkgtest_in() {
    echo "autopkgtest in Debian's $1:"
    root=$roots/test
    fresh "$roots/$1" "$root"
    rm -rf "$roots/autopkgtest"
    check "each test passes, or needs a machine of its own" sh -c "
        autopkgtest --output-dir '$roots/autopkgtest' --no-built-binaries \
            '$packages'/*.deb '$packages'/stalld_*.dsc -- chroot '$root'
        case \$? in 0 | 2 | 8) ;; *) exit 1 ;; esac"
    check "the library's is one that passes" grep '^library *PASS' "$roots/autopkgtest/summary"
}

# Makes an empty root with no more than a shell. The package `minimal` claims to provide all that
# our packages need.
fake_system() {
    rm -rf "$root"
    mkdir -p "$root/bin" "$root/usr/bin" "$root/var/lib/rpm" "$root/tmp"
    cp "$busybox" "$root/bin/busybox"
    for name in sh echo; do
        ln -s busybox "$root/bin/$name"
    done
    # These stand-ins record the calls of scriptlets.
    for name in systemctl semodule; do
        printf '#!/bin/sh\necho "%s $*" >>/calls\n' "$name" >"$root/usr/bin/$name"
        chmod 755 "$root/usr/bin/$name"
    done
    {
        printf 'Name: minimal\nVersion: 1\nRelease: 1\nSummary: Says that it is what stalld needs\nLicense: None\n'
        printf 'BuildArch: noarch\n'
        for rpm in "$@"; do rpm -qp --requires "$rpm"; done |
            grep -v '^rpmlib\|^config(\|^(\|^stalld\|^libstalld' | sort -u | sed 's/^/Provides: /'
        printf '%%description\n%%files\n'
    } >"$roots/minimal.spec"
    rpmbuild -bb --define "_topdir $roots/rpm" "$roots/minimal.spec"
}

in_root() {
    rpm --root "$root" --define "_dbpath /var/lib/rpm" "$@"
}

called() {
    grep -q "$1" "$root/calls"
}

rpm_in_an_empty_root() {
    echo "$package in an empty root:"
    root=$roots/test
    selinux=$(echo "$packages"/stalld-selinux-*.rpm)
    check "the fake of a system" fake_system "$package" "$selinux"
    check "the fake is installed" in_root -i "$roots"/rpm/RPMS/noarch/minimal-*.rpm
    check "the fake of a former version" former_rpm
    check "a former version installs" in_root -i "$roots"/rpm/RPMS/*/stalld-1.28.1-1.*.rpm
    echo 'THRESH="-t 33"' >>"$root/etc/sysconfig/stalld"
    check "is an upgrade of it" in_root -U "$package" "$selinux"
    check "keeps a changed configuration" grep -q 'THRESH="-t 33"' "$root/etc/sysconfig/stalld"
    check "is removed" in_root -e stalld stalld-selinux
    rm -r "$root/etc/sysconfig"
    check "installs" in_root -i "$package" "$selinux"
    check "files and modes" program_has_modes etc/sysconfig/stalld
    check "nothing was changed since" in_root -V stalld stalld-selinux
    check "is hardened" sh tests/hardening.sh "$root/usr/bin/stalld" "$root/usr/bin/stallstat"
    check "its list of what is inside is true" lists_its_parts "$root" libbpf
    check "has its alerts and its dashboard" sh -c "ls '$root'/usr/share/doc/stalld*/monitoring/alerts.yml '$root'/usr/share/doc/stalld*/monitoring/grafana.json"
    check "its unit is preset" called "^systemctl --no-reload preset stalld.service"
    check "its policy is loaded" called "^semodule .*--install /usr/share/selinux/packages/targeted/stalld_bpf.pp.bz2"
    check "is installed over itself" in_root -U --replacepkgs "$package" "$selinux"
    check "its unit is restarted then" called "^systemctl try-restart stalld.service"
    echo 'THRESH="-t 33"' >>"$root/etc/sysconfig/stalld"
    check "is removed again" in_root -e stalld stalld-selinux
    check "its unit is disabled" called "^systemctl --no-reload disable --now stalld.service"
    check "its policy is removed" called "^semodule .*--remove stalld_bpf"
    check "keeps the changed configuration then" test -e "$root/etc/sysconfig/stalld.rpmsave"
    rm -f "$root/etc/sysconfig/stalld.rpmsave"
    check "leaves no file" sh -c "! find '$root' -name '*stalld*' -o -name '*stallstat*' -o -name '*throttlectl*' | grep ."
}

library_rpm_in_an_empty_root() {
    echo "the C library's RPMs in an empty root:"
    root=$roots/test
    libdir=$(rpm --eval '%{_libdir}')
    set -- "$packages/stalld-libs-$version"-*.rpm "$packages/stalld-devel-$version"-*.rpm
    check "the fake of a system" fake_system "$@"
    check "the fake is installed" in_root -i "$roots"/rpm/RPMS/noarch/minimal-*.rpm
    check "installs" in_root -i "$@"
    check "files and modes" library_has_modes "${libdir#/}" 755
    check "nothing was changed since" in_root -V stalld-libs stalld-devel
    check "its list of what is inside is true" lists_its_parts "$root" libbpf
    check "a program is built with it" builds_a_program "${libdir#/}"
    rm -f "$root/program"
    check "is removed" in_root -e stalld-libs stalld-devel
    check "leaves no file" sh -c "! find '$root' -name '*stalld*' | grep ."
}

static_tarball() {
    echo "$package:"
    root=$roots/test
    rm -rf "$root" "$roots/tarball"
    mkdir -p "$root/etc" "$roots/tarball" "$roots/busybox"
    tar -xf "$package" -C "$roots/tarball" --strip-components=1
    "$busybox" --install -s "$roots/busybox"
    for binary in stalld stallstat; do
        check "$binary needs no library" sh -c "ldd '$roots/tarball/root/usr/bin/$binary' 2>&1 | grep -q 'statically linked'"
    done
    check "its list of what is inside is true" lists_its_parts "$roots/tarball" libbpf elfutils zlib
    check "installs with no more than busybox, and a umask that lets nobody in" sh -c "
        umask 077
        exec env -i PATH='$roots/busybox' DESTDIR='$root' sh '$roots/tarball/install.sh'"
    check "files and modes" program_has_modes etc/default/stalld
    check "others may read them" test "$(stat -c %a "$root/usr" "$root/usr/bin" | sort -u)" = 755
    check "has its alerts and its dashboard" sh -c "ls '$root/usr/share/doc/stalld/monitoring/alerts.yml' '$root/usr/share/doc/stalld/monitoring/grafana.json'"
    check "the program runs where there is nothing else" chroot "$root" /usr/bin/stalld --version
    check "so does stallstat" chroot "$root" /usr/bin/stallstat --version
    echo 'THRESH="-t 33"' >>"$root/etc/default/stalld"
    check "installs again" env DESTDIR="$root" "$roots/tarball/install.sh"
    check "keeps a changed configuration" grep -q 'THRESH="-t 33"' "$root/etc/default/stalld"
    check "is removed" env DESTDIR="$root" "$roots/tarball/install.sh" --remove
    check "leaves nothing but that" test "$(find "$root" ! -type d)" = "$root/etc/default/stalld"
    echo >>"$roots/tarball/root/usr/bin/throttlectl"
    check "does not install what was changed" sh -c "! DESTDIR='$root' '$roots/tarball/install.sh'"
}

echo "what the packagers' tools say:"
check "there is debug information for each package with programs" sh -c "ls '$packages'/stalld-dbgsym_*.deb '$packages'/libstalld0-dbgsym_*.deb"
check "lintian" lintian --fail-on error,warning --allow-root "$packages"/stalld_*.changes
check "rpmlint" sh -c "rpmlint -c packaging/rpm/rpmlint.toml packaging/rpm/stalld.spec '$packages'/stalld-*.rpm | tee /dev/stderr | grep ' 0 errors'"
sh tests/selinux.sh "$packages"/stalld-selinux-*.rpm || status=1
for package in "$packages/stalld_$version"-*.deb; do
    in_each_suite deb_in "$package"
done
in_each_suite library_deb_in "the C library's packages"
if [ -n "$suites" ]; then
    autopkgtest_in "${suites%% *}"
else
    left_out autopkgtest "this system, which built the packages, is newer than every Debian here"
fi
for package in "$packages/stalld-$version"-*."$(uname -m)".rpm; do
    rpm_in_an_empty_root
done
library_rpm_in_an_empty_root
for package in "$packages/stalld-$version"-*-static.tar.xz; do
    static_tarball
done
echo "the container image:"
python3 tests/oci.py "$roots/test" || status=1
rm -rf "$roots/test" "$roots/tarball" "$roots/busybox" "$roots/autopkgtest" "$roots/former" "$roots/rpm" "$roots/development"
exit "$status"
