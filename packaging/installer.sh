# Installs packages for setup.sh: finds the package manager, runs it as root or through sudo, and
# explains its failures.
# shellcheck shell=sh disable=SC2086,SC2154 # lists of words are split; setup.sh sets the variables

find_manager() {
    first_of apt-get dnf yum
}

# Package managers that setup.sh recognises, so that its message can name the one that is here, but
# cannot use.
find_unknown_manager() {
    first_of zypper pacman apk emerge xbps-install nix-env
}

first_of() {
    for name; do
        if command -v "$name" >/dev/null; then
            echo "$name"
            return
        fi
    done
}

# Prints why no command can run as root here; nothing if one can.
root_obstacle() {
    if [ "$(id -u)" = 0 ]; then
        return
    fi
    if ! command -v sudo >/dev/null; then
        echo "this user is not root and there is no sudo"
    elif ! sudo -n true 2>/dev/null && ! [ -t 0 ]; then
        echo "sudo needs a password and there is no terminal to ask for it"
    fi
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    else
        sudo "$@"
    fi
}

# Lets the package manager read its repositories. Sets $trouble to the first failure, or to nothing.
# Fails if no repository could be read. apt-get itself exits with 0 then, so its output decides.
read_repositories() {
    trouble='' code=0
    case $manager in
    apt-get) refresh="apt-get -q update" ;;
    *) refresh="$manager -q makecache" ;;
    esac
    messages=$(as_root env LC_ALL=C $refresh 2>&1) || code=$?
    trouble=$(echo "$messages" | sed -nE '/^([WE]: Failed to fetch |E: |Error: )/{s///p;q;}')
    [ "$code" = 0 ] || trouble=${trouble:-exit status $code}
    [ -n "$trouble" ] || return 0
    case $manager:$messages in
    apt-get:*Hit:* | apt-get:*Get:*) ;;
    *) return 1 ;;
    esac
}

# services VERB...: runs `systemctl VERB` for the services of the packages. Debian starts each
# service when its package is installed and at each boot, which no test needs.
services() {
    for package in $packages; do
        case $package in
        prometheus*) [ ! -d /run/systemd/system ] || as_root systemctl --quiet "$@" "$package.service" || : ;;
        esac
    done
}

install_packages() {
    services mask --runtime
    case $manager in
    apt-get) as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends --no-remove install $packages ;;
    *) as_root "$manager" -y install $packages ;;
    esac || die "$manager could not install: $packages; $(install_cure)"
    services unmask --runtime
    services disable
}

# Prints what to try after a failed installation.
install_cure() {
    case $manager:$trouble in
    *:?*) echo "'$refresh' failed before: $trouble; check the network" ;;
    apt-get:*) echo "see its messages above" ;;
    *) echo "RHEL has glibc-static in CodeReady Builder, mandoc in EPEL" ;;
    esac
}
