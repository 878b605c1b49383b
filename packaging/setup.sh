#!/bin/sh
# Installs what building stalld needs, through the system's package manager.
#
#   setup.sh [--check | --dry-run | --root | --cargo] [PART...]
#
# `tools_of` lists the parts; without any, they are rust and bpf. The script prints which tools are
# missing, then installs them. If none is missing, it prints nothing.
#   --check    prints in one line what is missing and how to install it, and fails if anything is
#   --dry-run  prints what it would install
#   --root     first fails if no command can run as root here; then as without an option
#   --cargo    prints the directory of the first cargo that is new enough, unless it is PATH's cargo
# shellcheck disable=SC2046,SC2086 # lists of words are meant to be split
set -eu
cd "$(dirname "$0")/.."

. packaging/installer.sh

# Cargo.toml alone has the oldest Rust that builds stalld, as 1.N.
rust_minor=$(sed -n 's/^rust-version = "1\.\([0-9]*\)"$/\1/p' Cargo.toml)

die() {
    echo "stalld: $*" >&2
    exit 1
}

tools_of() {
    case $1 in
    rust) echo cargo cc ;;
    bpf) echo clang llvm-strip make pkg-config libelf.h zlib.h ;;
    lib) echo objcopy ;;
    # libelf and zlib are built from source, and linked with the C library.
    static) echo clang llvm-strip make pkg-config autoreconf automake autopoint flex bison gawk libc.a ;;
    libc) echo libc.a ;;
    lint) echo cargo-clippy cargo-fmt cppcheck shellcheck mandoc groff readelf ;;
    # For the linters that no distribution packages: see .ci/linters.txt.
    linters) echo venv ;;
    regen) echo libclang cargo-fmt ;;
    # Tools that only tests run.
    test) echo bash gzip python3 strace script setpriv taskset unshare g++ clang++ sanitizers valgrind ;;
    abi) echo abidiff ;;
    dist) echo git xz ;;
    deb) echo dpkg-buildpackage dh ;;
    rpm) echo rpmbuild checkmodule semodule_package bzip2 ;;
    # The tools that build packages, and those that check them.
    packages)
        tools_of_each static dist deb rpm
        echo lintian rpmlint autopkgtest bzip2 pkg-config python3 yaml
        ;;
    fuzz) echo clang libfuzzer llvm-cov ;;
    # Programs that read stalld's metrics in `make test`, where packages of all of them exist: on
    # Debian and its derivatives.
    monitoring) if command -v apt-get >/dev/null; then echo prometheus promtool prometheus-node-exporter; fi ;;
    soak) echo stress-ng ;;
    all) tools_of_each lib test static lint regen abi dist deb rpm monitoring soak ;;
    *)
        die "setup.sh knows no part '$1': rust, bpf, lib, test, static, libc, lint, linters, regen, abi, dist," \
            "deb, rpm, packages, fuzz, monitoring, soak, all"
        ;;
    esac
}

tools_of_each() {
    for each; do
        tools_of "$each"
    done
}

is_there() {
    case $1 in
    cargo) [ -n "$(cargo_dir)" ] ;;
    # A compiler without the C library's headers is no use.
    cc) compiles stdlib.h ;;
    *.h) compiles "$1" ;;
    libc.a) case $("${CC:-cc}" -print-file-name=libc.a 2>/dev/null) in */*) ;; *) return 1 ;; esac ;;
    cargo-*) PATH=$(cargo_dir):$PATH cargo "${1#cargo-}" --version >/dev/null 2>&1 ;;
    clang) command -v "${CLANG:-clang}" >/dev/null ;;
    llvm-strip) command -v "${LLVM_STRIP:-llvm-strip}" >/dev/null ;;
    libclang) has_libclang ;;
    sanitizers) case $("${CC:-cc}" -print-file-name=libasan.so 2>/dev/null) in */*) ;; *) return 1 ;; esac ;;
    libfuzzer) [ -e "$("${CLANG:-clang}" --print-runtime-dir 2>/dev/null)/libclang_rt.fuzzer-$(uname -m).a" ] ;;
    llvm-cov) PATH=$(cargo_dir):$PATH sh fuzz/coverage.sh --tool >/dev/null 2>&1 ;;
    venv) python3 -c "import ensurepip, venv" 2>/dev/null ;;
    yaml) python3 -c "import yaml" 2>/dev/null ;;
    *) command -v "$1" >/dev/null ;;
    esac
}

compiles() {
    echo "#include <$1>" | "${CC:-cc}" -E - >/dev/null 2>&1
}

# Checks the directories in which bindgen finds libclang.
has_libclang() {
    for library in "${LIBCLANG_PATH:-/nonexistent}"/libclang* /usr/lib64/libclang.so* /usr/lib/*/libclang.so* \
        /usr/lib/*/libclang-[0-9]*.so* /usr/lib/llvm-*/lib/libclang.so* /usr/lib64/llvm*/lib/libclang.so*; do
        if [ -e "$library" ]; then
            return 0
        fi
    done
    return 1
}

# Prints the directory with the first cargo and rustc that are new enough: those in PATH, rustup's,
# the system's, and those that Ubuntu keeps beside its default.
cargo_dir() {
    in_path=$(command -v cargo || true)
    for dir in "${in_path%/*}" "${HOME:-/root}/.cargo/bin" /usr/bin /usr/lib/rust-1.*/bin; do
        if [ -x "$dir/cargo" ] && [ -x "$dir/rustc" ]; then
            version=$("$dir/rustc" --version 2>/dev/null) || continue
            version=${version#rustc }
            if new_enough "${version%% *}"; then
                echo "$dir"
                return
            fi
        fi
    done
}

new_enough() {
    case $1 in
    1.*) minor=${1#1.} && minor=${minor%%[!0-9]*} && [ "${minor:-0}" -ge "$rust_minor" ] ;;
    *) return 1 ;;
    esac
}

# Prints the packages that bring a tool.
packages_of() {
    case $manager:$1 in
    # cargo needs ca-certificates to fetch crates.
    apt-get:cargo) echo "cargo$rust_suffix rustc$rust_suffix ca-certificates" ;;
    *:cargo) echo cargo rust ;;
    apt-get:cargo-clippy) echo "rust$rust_suffix-clippy" ;;
    *:cargo-clippy) echo clippy ;;
    apt-get:cargo-fmt) echo "rustfmt$rust_suffix" ;;
    *:cargo-fmt) echo rustfmt ;;
    apt-get:cc) echo gcc libc6-dev ;;
    *:cc) echo gcc glibc-devel ;;
    *:llvm-strip) echo llvm ;;
    apt-get:libfuzzer) echo libclang-rt-dev ;;
    *:libfuzzer) echo compiler-rt ;;
    # The LLVM version of the installed Rust.
    apt-get:llvm-cov) rustc -vV 2>/dev/null | sed -n 's/^LLVM version: \([0-9]*\).*/llvm-\1/p' ;;
    *:llvm-cov) echo llvm ;;
    *:autoreconf) echo autoconf ;;
    *:readelf | *:objcopy) echo binutils ;;
    *:groff) echo groff-base ;;
    apt-get:libelf.h) echo libelf-dev ;;
    *:libelf.h) echo elfutils-libelf-devel ;;
    apt-get:zlib.h) echo zlib1g-dev ;;
    *:zlib.h) echo zlib-devel ;;
    apt-get:libc.a) echo libc6-dev ;;
    *:libc.a) echo glibc-static ;;
    apt-get:libclang) echo libclang-dev ;;
    apt-get:promtool) echo prometheus ;;
    *:libclang) echo clang-libs ;;
    apt-get:venv) echo python3-venv ;;
    *:venv) echo python3 ;;
    apt-get:yaml) echo python3-yaml ;;
    *:yaml) echo python3-pyyaml ;;
    apt-get:xz) echo xz-utils ;;
    *:dpkg-buildpackage) echo dpkg-dev ;;
    *:dh) echo debhelper ;;
    apt-get:rpmbuild) echo rpm ;;
    *:rpmbuild) echo rpm-build ;;
    *:checkmodule) echo checkpolicy ;;
    apt-get:semodule_package) echo semodule-utils ;;
    *:semodule_package) echo policycoreutils ;;
    *:clang++) echo clang ;;
    apt-get:script) echo bsdutils ;;
    # In Fedora the package with `script` depends on the release.
    *:script) echo /usr/bin/script ;;
    *:setpriv | *:taskset | *:unshare) echo util-linux ;;
    dnf:g++ | yum:g++) echo gcc-c++ ;;
    apt-get:sanitizers) echo gcc ;;
    *:sanitizers) echo libasan libubsan ;;
    apt-get:abidiff) echo abigail-tools ;;
    *:abidiff) echo libabigail ;;
    dnf:pkg-config | yum:pkg-config) echo pkgconf-pkg-config ;;
    dnf:autopoint | yum:autopoint) echo gettext-devel ;;
    dnf:shellcheck | yum:shellcheck) echo ShellCheck ;;
    *) echo "$1" ;;
    esac
}

# Prints the suffix in the names of the Rust packages: that of the installed cargo, or else that of
# one that is new enough. Debian 12 has such a Rust only to build its browsers, Ubuntu has it in
# packages with numbers.
apt_rust_suffix() {
    case $(cargo_dir) in
    /bin | /usr/bin) dpkg-query -S /usr/bin/cargo 2>/dev/null | sed 's/^cargo\(.*\): .*/\1/' && return ;;
    /usr/lib/rust-*) cargo_dir | sed 's|/usr/lib/rust\(.*\)/bin|\1|' && return ;;
    esac
    numbered=$(apt-cache search --names-only '^cargo-1\.[0-9]+$' 2>/dev/null | sed 's/ .*//')
    for name in cargo cargo-web $numbered; do
        version=$(apt-cache policy "$name" 2>/dev/null | sed -n 's/^ *Candidate: *\([0-9]*:\)\{0,1\}//p')
        if new_enough "$version"; then
            echo "${name#cargo}"
            return
        fi
    done
    return 1
}

missing_tools() {
    for part; do
        for tool in $(tools_of "$part"); do
            is_there "$tool" || echo "$tool"
        done
    done
}

# Prints words on one line, each of them once.
once() {
    words=
    for word; do
        case " $words " in
        *" $word "*) ;;
        *) words="$words${words:+ }$word" ;;
        esac
    done
    echo "$words"
}

# Prints tools as a message names them.
named() {
    names=
    for tool; do
        case $tool in
        cargo) tool="cargo (1.$rust_minor or newer)" ;;
        cc) tool="cc (a C compiler and its headers)" ;;
        yaml) tool="yaml (for Python)" ;;
        esac
        names="$names${names:+, }$tool"
    done
    echo "$names"
}

# Prints the command that installs these parts. Each setup installs the parts that building needs.
command_for() {
    others=
    for part; do
        case $part in
        rust | bpf | lib) ;;
        *) others="$others${others:+ }$part" ;;
        esac
    done
    echo "make setup${others:+ PARTS=\"$others\"}"
}

mode=install
case ${1:-} in
--check | --dry-run) mode=${1#--} && shift ;;
--root)
    shift
    obstacle=$(root_obstacle)
    [ -z "$obstacle" ] || die "real-time tasks need root, but $obstacle; run this as root"
    ;;
--cargo)
    dir=$(cargo_dir)
    [ "$dir/cargo" = "$(command -v cargo || true)" ] || echo "$dir"
    exit
    ;;
-*) die "setup.sh knows no option '$1': --check, --dry-run, --root, --cargo" ;;
esac
[ $# -gt 0 ] || set -- rust bpf
for part; do
    tools_of "$part" >/dev/null
done

missing=$(once $(missing_tools "$@"))
[ -n "$missing" ] || exit 0

case $(cargo_dir):$missing in
:* | /bin:* | /usr/bin:* | /usr/lib/rust-*) ;;
# The user's own Rust, which a package manager cannot change.
*cargo-*) die "clippy or rustfmt is missing: rustup component add clippy rustfmt" ;;
esac

manager=$(find_manager)
if [ -z "$manager" ]; then
    other=$(find_unknown_manager)
    die "missing: $(named $missing); there is no apt-get, dnf or yum here: install these by ${other:-hand}"
fi
obstacle=
if [ "$mode" = install ]; then
    obstacle=$(root_obstacle)
    [ -z "$obstacle" ] || mode=check
fi
if [ "$mode" = install ]; then
    echo "stalld: missing: $(named $missing)"
    read_repositories ||
        die "'$refresh' failed: $trouble; check the network and the repositories, then run this again"
fi

rust_suffix=
case $manager:$missing in
apt-get:*cargo*) rust_suffix=$(apt_rust_suffix) || rust_suffix=none ;;
esac
packages=$(once $(for tool in $missing; do packages_of "$tool"; done))
case $mode in
check)
    die "missing: $(named $missing)${obstacle:+; $obstacle}; '$(command_for "$@")' as root installs that," \
        "or by hand: $manager install $packages"
    ;;
dry-run)
    echo "stalld: missing: $(named $missing)"
    echo "stalld: would install by $manager: $packages"
    exit
    ;;
esac

[ "$rust_suffix" != none ] || die "no package here has Rust 1.$rust_minor or newer: get it by https://rustup.rs"
echo "stalld: installing by $manager: $packages"
install_packages

missing=$(once $(missing_tools "$@"))
[ -z "$missing" ] || die "still missing after that: $(named $missing)"
