//! tests/vm/fetch.sh with a stand-in for apt: its errors when Debian does not have a pinned package.

#![allow(clippy::unwrap_used)]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::{env, fs};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Fetches busybox with an apt whose two commands are the given scripts; `None` where fetch.sh cannot run.
fn fetch(name: &str, apt_get: &str, apt_cache: &str) -> Option<Output> {
    let has_flock = Command::new("flock").arg("--version").output().is_ok();
    let has_dpkg = Command::new("dpkg-deb").arg("--version").output().is_ok();
    if !Path::new(KEYRING).exists() || !has_flock || !has_dpkg {
        eprintln!("skipped: flock, dpkg-deb or {KEYRING} is missing");
        return None;
    }
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&root);
    fs::create_dir_all(root.join("bin")).unwrap();
    for (command, body) in [("apt-get", apt_get), ("apt-cache", apt_cache)] {
        let path = root.join("bin").join(command);
        fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
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
    Some(output)
}

fn assert_says(output: &Output, part: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains(part), "no '{part}' in: {stderr}");
}

#[test]
fn a_version_that_debian_dropped_is_reported_with_the_script_that_renews_it() {
    let Some(output) = fetch("vm-dropped", "exit 0", "exit 100") else { return };
    assert_says(&output, "stalld: trixie no longer has busybox-static=");
    assert_says(&output, "run 'sh tests/vm/refresh.sh' to renew tests/vm/packages.lock");
}

#[test]
fn a_package_with_another_sum_is_refused_before_its_download() {
    let refuses_downloads = "case $* in *download*) exit 9 ;; esac";
    let Some(output) = fetch("vm-changed", refuses_downloads, "echo SHA256: 0123") else { return };
    assert_says(&output, "is not the one that tests/vm/packages.lock describes: its SHA-256 is 0123");
}

#[test]
fn a_package_list_that_cannot_be_read_is_reported_with_the_reason_and_not_as_a_dropped_version() {
    let Some(output) = fetch("vm-offline", "echo 'E: Failed to fetch it'; exit 100", "exit 100") else {
        return;
    };
    assert_says(
        &output,
        "stalld: the package list of trixie cannot be read: Failed to fetch it; check the network",
    );
}
