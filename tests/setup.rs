//! packaging/setup.sh on a machine that lacks clang: what it says, and what it has installed.

#![allow(clippy::unwrap_used)]

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::{env, fs};

/// A machine whose PATH is one directory: a few real programs, stand-ins for the others, and no clang.
struct Machine {
    root: PathBuf,
}

impl Machine {
    /// Its package manager writes down how it was called, and installs clang.
    fn without_clang(name: &str, manager: &str) -> Machine {
        let machine = Machine { root: Path::new(env!("CARGO_TARGET_TMPDIR")).join(name) };
        let _ = fs::remove_dir_all(&machine.root);
        fs::create_dir_all(machine.root.join("bin")).unwrap();
        let path = env::var_os("PATH").unwrap();
        for real in ["sh", "sed", "dirname", "env", "chmod"] {
            let found = env::split_paths(&path).map(|dir| dir.join(real)).find(|file| file.exists()).unwrap();
            symlink(found, machine.root.join("bin").join(real)).unwrap();
        }
        for stand_in in ["cc", "llvm-strip", "make", "pkg-config", "cargo"] {
            machine.script(stand_in, "exit 0");
        }
        machine.script("rustc", "echo 'rustc 1.85.0 (4d91de4e4 2025-02-17)'");
        machine.script("id", "echo 0");
        machine.script(
            manager,
            "echo \"$*\" >>\"$HOME/calls\"
             case $* in *install*) echo '#!/bin/sh' >\"$HOME/bin/clang\"; chmod +x \"$HOME/bin/clang\" ;; esac",
        );
        machine
    }

    fn script(&self, name: &str, body: &str) {
        let path = self.root.join("bin").join(name);
        fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn setup(&self, args: &[&str]) -> Output {
        Command::new("sh")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/setup.sh"))
            .args(args)
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

#[test]
fn a_check_names_the_missing_tool_and_its_package_in_one_line_and_installs_nothing() {
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
fn the_setup_installs_what_is_missing_and_nothing_else_then_has_nothing_to_do() {
    for (manager, calls) in [
        ("apt-get", "-q update\n-q -y --no-install-recommends --no-remove install clang\n"),
        ("dnf", "-y install clang\n"),
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
fn a_package_manager_that_fails_is_reported_with_the_packages_it_was_asked_for() {
    let machine = Machine::without_clang("failing", "dnf");
    machine.script("dnf", "exit 1");
    let output = machine.setup(&[]);
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.starts_with("stalld: dnf could not install: clang"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

#[test]
fn a_rust_that_is_too_old_is_passed_over_for_the_one_that_rustup_installed() {
    let machine = Machine::without_clang("old-rust", "dnf");
    machine.script("rustc", "echo 'rustc 1.63.0'");
    let rustup = machine.root.join(".cargo/bin");
    fs::create_dir_all(&rustup).unwrap();
    machine.script("../.cargo/bin/cargo", "exit 0");
    machine.script("../.cargo/bin/rustc", "echo 'rustc 1.96.0 (abcdef012 2026-05-25)'");
    let output = machine.setup(&["--cargo"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{}\n", rustup.display()));
}
