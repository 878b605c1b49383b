//! The scripts that choose and fetch the systems for tests. A stand-in for apt makes
//! tests/vm/fetch.sh fail.

use rig::scratch;
use std::path::Path;
use std::process::{Command, Output};
use std::{env, fs};

/// Fetches busybox with an apt whose two commands are the given scripts.
fn fetch(name: &str, apt_get: &str, apt_cache: &str) -> Output {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&root);
    fs::create_dir_all(root.join("bin")).unwrap();
    for (command, body) in [("apt-get", apt_get), ("apt-cache", apt_cache)] {
        let path = root.join("bin").join(command);
        scratch::script(&path, body);
    }
    let path = format!("{}:{}", root.join("bin").display(), env::var("PATH").unwrap());
    let output = Command::new("sh")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vm/fetch.sh"))
        .arg("busybox-x86_64")
        .env("PATH", path)
        .env("STALLD_VM_CACHE", root.join("cache"))
        .env("STALLD_VM_MIRROR", "http://mirror.invalid/debian")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr).lines().count(), 1, "{output:?}");
    output
}

fn assert_says(output: &Output, part: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains(part), "no '{part}' in: {stderr}");
}

#[test]
fn packages_are_installed_only_in_systems_as_new_as_the_builder() {
    let suites = |glibc: &str| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suites.sh");
        let output = Command::new("sh").arg(script).arg(glibc).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    // Debian 12, Ubuntu 24.04, Debian 13, and a newer system.
    assert_eq!(suites("2.36"), "bookworm trixie\n");
    assert_eq!(suites("2.39"), "trixie\n");
    assert_eq!(suites("2.41"), "trixie\n");
    assert_eq!(suites("2.42"), "\n");
    assert_eq!(suites("2.9"), "bookworm trixie\n");
}

#[test]
fn a_version_that_debian_dropped_is_reported_with_the_cure() {
    let output = fetch("vm-dropped", "exit 0", "exit 100");
    assert_says(&output, "stalld: trixie no longer has busybox-static=");
    assert_says(&output, "run 'sh tests/vm/refresh.sh' to renew tests/vm/packages.lock");
}

#[test]
fn a_package_with_another_sum_is_refused_before_its_download() {
    let output = fetch("vm-changed", "case $* in *download*) exit 9 ;; esac", "echo SHA256: 0123");
    assert_says(&output, "is not the one that tests/vm/packages.lock describes: its SHA-256 is 0123");
}

#[test]
fn an_unreadable_package_list_is_not_reported_as_a_dropped_version() {
    let output = fetch("vm-offline", "echo 'E: Failed to fetch it'; exit 100", "exit 100");
    assert_says(
        &output,
        "stalld: the package list of trixie cannot be read: Failed to fetch it; check the network",
    );
}
