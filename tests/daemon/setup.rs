//! packaging/setup.sh on a machine that lacks clang: its messages, and the packages it installs.

use rig::scratch;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::{env, fs};

/// A machine whose PATH is one directory with a few real programs, stand-ins for the others, and no
/// clang.
struct Machine {
    root: PathBuf,
}

impl Machine {
    /// A machine of root. Its package manager records its arguments, and installs clang.
    fn without_clang(name: &str, manager: &str) -> Machine {
        let machine = Machine { root: Path::new(env!("CARGO_TARGET_TMPDIR")).join(name) };
        let _ = fs::remove_dir_all(&machine.root);
        fs::create_dir_all(machine.root.join("bin")).unwrap();
        for program in ["sh", "sed", "dirname", "env", "chmod"] {
            machine.real(program);
        }
        for stand_in in ["cc", "llvm-strip", "make", "pkg-config", "cargo"] {
            machine.script(stand_in, "exit 0");
        }
        machine.script("rustc", "echo 'rustc 1.85.0 (4d91de4e4 2025-02-17)'");
        machine.script("id", "echo 0");
        machine.manager(manager, "");
        machine
    }

    /// A package manager that also runs these commands.
    fn manager(&self, name: &str, commands: &str) {
        self.script(
            name,
            &format!(
                "echo \"$*\" >>\"$HOME/calls\"
                 {commands}
                 case $* in *install*) echo '#!/bin/sh' >\"$HOME/bin/clang\"; chmod +x \"$HOME/bin/clang\" ;; esac"
            ),
        );
    }

    fn real(&self, program: &str) {
        let path = env::var_os("PATH").unwrap();
        let found = env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.exists()).unwrap();
        let link = self.root.join("bin").join(program);
        let _ = fs::remove_file(&link);
        symlink(found, link).unwrap();
    }

    /// The same machine for an ordinary user. `sudo` is the body of its sudo, if it has one.
    fn of_a_user(self, sudo: Option<&str>) -> Machine {
        self.script("id", "echo 1000");
        if let Some(body) = sudo {
            self.script("sudo", body);
        }
        self
    }

    fn without(self, program: &str) -> Machine {
        fs::remove_file(self.root.join("bin").join(program)).unwrap();
        self
    }

    fn script(&self, name: &str, body: &str) {
        let path = self.root.join("bin").join(name);
        scratch::script(&path, body);
    }

    fn setup(&self, args: &[&str]) -> Output {
        self.run(&[&["sh", "packaging/setup.sh"], args].concat())
    }

    /// Runs a command in the checkout, without a terminal on stdin.
    fn run(&self, command: &[&str]) -> Output {
        Command::new(self.root.join("bin").join(command[0]))
            .args(&command[1..])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env_clear()
            .env("PATH", self.root.join("bin"))
            .env("HOME", &self.root)
            .output()
            .unwrap()
    }

    fn calls(&self) -> String {
        fs::read_to_string(self.root.join("calls")).unwrap_or_default()
    }
}

/// Asserts that a command has failed with this line on stderr.
#[track_caller]
fn assert_refused(output: &Output, line: &str) {
    assert_ne!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), format!("{line}\n"));
}

const UNREACHABLE: &str =
    "http://deb.example/dists/stable/InRelease  Temporary failure resolving 'deb.example'";
const PASSWORDLESS: &str = "[ \"$1\" != -n ] || shift; exec \"$@\"";
const ASKS_FOR_A_PASSWORD: &str = "echo \"sudo $*\" >>\"$HOME/asked\"; exit 1";

#[test]
fn a_check_names_the_missing_tool_and_its_package_and_installs_nothing() {
    for manager in ["apt-get", "dnf"] {
        let machine = Machine::without_clang(&format!("check-{manager}"), manager);
        let output = machine.setup(&["--check"]);
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(
            String::from_utf8_lossy(&output.stderr),
            format!(
                "stalld: missing: clang; 'make setup' as root installs that, or by hand: {manager} install clang\n"
            )
        );
        assert_eq!(machine.calls(), "");
    }
}

#[test]
fn a_check_names_the_parts_that_building_does_not_need() {
    let machine = Machine::without_clang("parts", "dnf");
    assert_refused(
        &machine.setup(&["--check", "rust", "soak"]),
        "stalld: missing: stress-ng; 'make setup PARTS=\"soak\"' as root installs that, or by hand: dnf install \
         stress-ng",
    );
    assert_eq!(machine.calls(), "");
}

#[test]
fn the_setup_installs_only_missing_tools_and_has_nothing_to_do_then() {
    for (manager, calls) in [
        ("apt-get", "-q update\n-q -y --no-install-recommends --no-remove install clang\n"),
        ("dnf", "-q makecache\n-y install clang\n"),
    ] {
        let machine = Machine::without_clang(&format!("setup-{manager}"), manager);
        let output = machine.setup(&[]);
        assert!(output.status.success(), "{output:?}");
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            format!("stalld: missing: clang\nstalld: installing by {manager}: clang\n")
        );
        assert_eq!(machine.calls(), calls);

        let again = machine.setup(&[]);
        assert!(again.status.success() && again.stdout.is_empty() && again.stderr.is_empty(), "{again:?}");
        assert_eq!(machine.calls(), calls);
    }
}

#[test]
fn a_package_manager_that_fails_is_reported_with_the_packages() {
    let machine = Machine::without_clang("failing", "dnf");
    machine.manager("dnf", "case $* in *install*) exit 1 ;; esac");
    let output = machine.setup(&[]);
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.starts_with("stalld: dnf could not install: clang"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

#[test]
fn a_rust_that_is_too_old_is_skipped_for_that_of_rustup() {
    let machine = Machine::without_clang("old-rust", "dnf");
    machine.script("rustc", "echo 'rustc 1.63.0'");
    let rustup = machine.root.join(".cargo/bin");
    fs::create_dir_all(&rustup).unwrap();
    machine.script("../.cargo/bin/cargo", "exit 0");
    machine.script("../.cargo/bin/rustc", "echo 'rustc 1.96.0 (abcdef012 2026-05-25)'");
    let output = machine.setup(&["--cargo"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{}\n", rustup.display()));
}

#[test]
fn without_network_one_line_names_the_failed_download() {
    let machine = Machine::without_clang("no-network", "apt-get");
    // apt-get succeeds even if it has reached no repository.
    let update = format!(
        "echo 'Ign:1 http://deb.example stable InRelease'; echo \"W: Failed to fetch {UNREACHABLE}\" >&2
         echo 'W: Some index files failed to download.' >&2"
    );
    machine.manager("apt-get", &update);
    assert_refused(
        &machine.setup(&[]),
        &format!(
            "stalld: 'apt-get -q update' failed: {UNREACHABLE}; check the network and the repositories, \
             then run this again"
        ),
    );
    assert_eq!(machine.calls(), "-q update\n");

    let machine = Machine::without_clang("no-network-dnf", "dnf");
    machine.manager("dnf", "echo \"Error: Failed to download metadata for repo 'fedora'\" >&2; exit 1");
    assert_refused(
        &machine.setup(&[]),
        "stalld: 'dnf -q makecache' failed: Failed to download metadata for repo 'fedora'; check the network and \
         the repositories, then run this again",
    );
    assert_eq!(machine.calls(), "-q makecache\n");
}

#[test]
fn an_unreachable_repository_matters_only_if_a_package_is_missing() {
    let machine = Machine::without_clang("partly-reachable", "apt-get");
    let update = format!(
        "case $* in *update) echo 'Hit:1 http://good.example stable InRelease'
         echo \"W: Failed to fetch {UNREACHABLE}\" >&2 ;; esac"
    );
    machine.manager("apt-get", &update);
    let output = machine.setup(&[]);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");

    let machine = Machine::without_clang("partly-reachable-missing", "apt-get");
    machine.manager("apt-get", &format!("{update}\ncase $* in *install*) exit 100 ;; esac"));
    assert_refused(
        &machine.setup(&[]),
        &format!(
            "stalld: apt-get could not install: clang; 'apt-get -q update' failed before: {UNREACHABLE}; \
             check the network"
        ),
    );
}

#[test]
fn a_user_with_neither_root_nor_sudo_gets_one_line_with_the_packages() {
    let machine = Machine::without_clang("user", "apt-get").of_a_user(None);
    assert_refused(
        &machine.setup(&[]),
        "stalld: missing: clang; this user is not root and there is no sudo; 'make setup' as root installs that, \
         or by hand: apt-get install clang",
    );
    assert_eq!(machine.calls(), "");
}

#[test]
fn a_sudo_that_needs_a_password_is_not_asked_without_a_terminal() {
    let machine = Machine::without_clang("password", "apt-get").of_a_user(Some(ASKS_FOR_A_PASSWORD));
    assert_refused(
        &machine.setup(&[]),
        "stalld: missing: clang; sudo needs a password and there is no terminal to ask for it; 'make setup' as root \
         installs that, or by hand: apt-get install clang",
    );
    assert_eq!(machine.calls(), "");
    assert_eq!(fs::read_to_string(machine.root.join("asked")).unwrap(), "sudo -n true\n");
}

#[test]
fn a_user_with_sudo_installs_through_it() {
    let machine = Machine::without_clang("sudo", "apt-get").of_a_user(Some(PASSWORDLESS));
    machine.script("true", "exit 0");
    let output = machine.setup(&["--root"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(machine.calls(), "-q update\n-q -y --no-install-recommends --no-remove install clang\n");
}

#[test]
fn an_unknown_package_manager_is_named_with_the_tools_to_install() {
    for (manager, by) in [("pacman", "pacman"), ("zypper", "zypper"), ("apk", "apk"), ("unheard-of", "hand")]
    {
        let machine = Machine::without_clang(&format!("unknown-{manager}"), manager).without("llvm-strip");
        for args in [&[][..], &["--check"]] {
            assert_refused(
                &machine.setup(args),
                &format!(
                    "stalld: missing: clang, llvm-strip; there is no apt-get, dnf or yum here: install these by {by}"
                ),
            );
        }
        assert_eq!(machine.calls(), "");
    }
}

#[test]
fn demo_and_test_refuse_a_user_without_root_before_they_install_or_build() {
    for (name, sudo, why) in [
        ("make-user", None, "this user is not root and there is no sudo"),
        (
            "make-sudo",
            Some(ASKS_FOR_A_PASSWORD),
            "sudo needs a password and there is no terminal to ask for it",
        ),
    ] {
        let machine = Machine::without_clang(name, "apt-get").of_a_user(sudo);
        machine.real("make");
        can_demonstrate(&machine);
        machine.script("cargo", "echo \"cargo $*\" >>\"$HOME/calls\"");
        for target in ["demo", "test"] {
            let output = machine.run(&["make", target]);
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{stderr}");
            let line = format!("stalld: real-time tasks need root, but {why}; run this as root");
            assert_eq!(stderr.lines().next(), Some(line.as_str()));
            // The other line is make's own.
            assert_eq!(stderr.lines().count(), 2, "{stderr}");
            assert!(output.stdout.is_empty(), "{output:?}");
            assert_eq!(machine.calls(), "");
        }
    }
}

/// Lets the demo find the initial pid namespace, all capabilities and the kernel's BTF or debugfs.
fn can_demonstrate(machine: &Machine) {
    machine.script("readlink", "echo 'pid:[4026531836]'");
    machine.script("grep", "exit 0");
    let sed =
        env::split_paths(&env::var_os("PATH").unwrap()).map(|dir| dir.join("sed")).find(|sed| sed.exists());
    fs::remove_file(machine.root.join("bin/sed")).unwrap();
    machine.script(
        "sed",
        &format!(
            "case $* in *CapBnd*) echo 000001ffffffffff ;; *) exec {} \"$@\" ;; esac",
            sed.unwrap().display()
        ),
    );
}

#[test]
fn the_demo_refuses_a_container_in_one_line_before_anything_is_installed() {
    let machine = Machine::without_clang("container", "apt-get");
    machine.real("make");
    can_demonstrate(&machine);
    assert!(machine.run(&["sh", "tests/demo.sh", "--check"]).status.success());

    machine.script("readlink", "echo 'pid:[4026532201]'");
    assert_refused(
        &machine.run(&["sh", "tests/demo.sh", "--check"]),
        "demo: stalld boosts no task from a pid namespace of its own: start the container with the host's, \
         or use the host",
    );
    assert_eq!(machine.run(&["make", "demo"]).status.code(), Some(2));
    assert_eq!(machine.calls(), "");

    machine.script("readlink", "echo 'pid:[4026531836]'");
    // As in a container without further options.
    machine.script("sed", "echo 00000000a80425fb");
    assert_refused(
        &machine.run(&["sh", "tests/demo.sh", "--check"]),
        "demo: real-time tasks need CAP_SYS_NICE, which is out of reach here: add it to the container, or use the host",
    );
}
