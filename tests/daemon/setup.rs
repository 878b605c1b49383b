//! packaging/setup.sh on a machine that lacks clang: its output, and the packages that it installs.

use crate::assert_words;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::{env, fs};

/// A machine whose PATH is one directory: a few real programs, stand-ins for others, no clang.
struct Machine {
    root: PathBuf,
}

impl Machine {
    /// A machine whose package manager notes its arguments, and installs clang.
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

/// Returns the one line on stderr of a setup that fails.
#[track_caller]
fn complaint(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(stderr.starts_with("stalld: ") && stderr.lines().count() == 1, "{stderr}");
    stderr
}

#[test]
fn a_check_names_the_missing_tool_and_its_package_and_installs_nothing() {
    for manager in ["apt-get", "dnf"] {
        let machine = Machine::without_clang(&format!("check-{manager}"), manager);
        let line = complaint(&machine.setup(&["--check"]));
        assert_words(&line, &["missing: clang;", "'make setup'", &format!("{manager} install clang\n")]);
        assert_eq!(machine.calls(), "");
    }
}

#[test]
fn a_busybox_that_needs_libraries_counts_as_missing_for_a_vm() {
    let machine = Machine::without_clang("busybox", "apt-get");
    machine.script("qemu-system-x86_64", "exit 0");
    machine.script("busybox", "exit 0");
    machine.script("ldd", "echo 'libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f0000000000)'");
    let line = complaint(&machine.setup(&["--check", "vm"]));
    let words = [
        "missing: busybox",
        "without shared libraries",
        "'make setup-vm'",
        "apt-get install busybox-static\n",
    ];
    assert_words(&line, &words);
    machine.script("ldd", "echo 'not a dynamic executable'; exit 1");
    assert!(machine.setup(&["--check", "vm"]).status.success());
}

#[test]
fn the_setup_installs_only_missing_tools_and_has_nothing_to_do_then() {
    for (manager, calls) in [
        ("apt-get", "-q update\n-q -y --no-install-recommends --no-remove install clang\n"),
        ("dnf", "-y install clang\n"),
    ] {
        let machine = Machine::without_clang(&format!("setup-{manager}"), manager);
        let output = machine.setup(&[]);
        assert!(output.status.success(), "{output:?}");
        let stdout = String::from_utf8_lossy(&output.stdout);
        let lines: Vec<&str> = stdout.lines().collect();
        assert_eq!(lines.len(), 2, "{stdout}");
        assert!(lines[0].ends_with("missing: clang"), "{stdout}");
        assert!(lines[1].contains(manager) && lines[1].ends_with(": clang"), "{stdout}");
        assert_eq!(machine.calls(), calls);

        let again = machine.setup(&[]);
        assert!(again.status.success() && again.stdout.is_empty() && again.stderr.is_empty(), "{again:?}");
        assert_eq!(machine.calls(), calls);
    }
}

#[test]
fn a_package_manager_that_fails_is_reported_with_the_packages() {
    let machine = Machine::without_clang("failing", "dnf");
    machine.script("dnf", "exit 1");
    assert_words(&complaint(&machine.setup(&[])), &["dnf", "could not install", "clang"]);
}

#[test]
fn a_rust_that_is_too_old_is_skipped_for_the_one_of_rustup() {
    let machine = Machine::without_clang("old-rust", "dnf");
    machine.script("rustc", "echo 'rustc 1.63.0'");
    let rustup = machine.root.join(".cargo/bin");
    fs::create_dir_all(&rustup).unwrap();
    machine.script("../.cargo/bin/cargo", "exit 0");
    machine.script("../.cargo/bin/rustc", "echo 'rustc 1.96.0 (abcdef012 2026-05-25)'");
    let output = machine.setup(&["--cargo"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{}\n", rustup.display()));
}
