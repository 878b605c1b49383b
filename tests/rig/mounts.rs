//! The kernel's file systems that a host need not have mounted.

#![allow(unsafe_code)]

use std::ffi::CStr;
use std::{fs, io, ptr};

const FILESYSTEMS: [(&CStr, &CStr); 3] = [
    (c"debugfs", c"/sys/kernel/debug"),
    (c"tracefs", c"/sys/kernel/tracing"),
    (c"securityfs", c"/sys/kernel/security"),
];

/// Mounts debugfs, tracefs, securityfs and the control groups where they are missing, for the
/// calling thread and all that it starts later. The mounts are in a namespace of the thread's own,
/// so the host never has them.
pub fn add_kernel_filesystems() {
    let missing: Vec<_> = FILESYSTEMS.into_iter().filter(|(kind, _)| !is_mounted(kind)).collect();
    let has_groups = is_mounted(c"cgroup2") || is_mounted(c"cgroup");
    if missing.is_empty() && has_groups {
        return;
    }
    own_namespace().unwrap_or_else(|e| panic!("cannot make a mount namespace: {e}"));
    for (kind, place) in missing {
        add(kind, place);
    }
    if !has_groups {
        add_control_groups();
    }
    // /proc/mounts lists the namespace of the main thread, so code that runs in this thread would
    // find no mount.
    mount(c"/proc/thread-self/mounts", c"/proc/mounts", libc::MS_BIND, None)
        .unwrap_or_else(|e| panic!("cannot replace /proc/mounts: {e}"));
}

/// Mounts the control groups as a host has them: a controller that is in a hierarchy of version 1
/// can't be used in version 2.
fn add_control_groups() {
    let table = fs::read_to_string("/proc/cgroups").unwrap_or_default();
    let is_version_1 = |name: &str| {
        let mut lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        lines
            .any(|line| line.first() == Some(&name) && line.get(1).is_some_and(|hierarchy| *hierarchy != "0"))
    };
    if !is_version_1("cpu") && !is_version_1("memory") {
        return add(c"cgroup2", c"/sys/fs/cgroup");
    }
    add(c"tmpfs", c"/sys/fs/cgroup");
    for name in ["cpu", "memory", "unified"] {
        fs::create_dir(format!("/sys/fs/cgroup/{name}"))
            .expect("cannot make a directory below /sys/fs/cgroup");
    }
    add(c"cgroup2", c"/sys/fs/cgroup/unified");
    for (name, place) in [(c"cpu", c"/sys/fs/cgroup/cpu"), (c"memory", c"/sys/fs/cgroup/memory")] {
        if let Err(e) = mount(c"cgroup", place, 0, Some(name)) {
            eprintln!("cannot mount the controller {name:?} on {place:?}: {e}");
        }
    }
}

/// A kernel may be built without this file system. The tests that need it report that.
fn add(kind: &CStr, place: &CStr) {
    if let Err(e) = mount(kind, place, 0, None) {
        eprintln!("cannot mount {kind:?} on {place:?}: {e}");
    }
}

fn is_mounted(kind: &CStr) -> bool {
    let kind = kind.to_str().expect("a file system's name is ASCII");
    let mounts = fs::read_to_string("/proc/thread-self/mounts").expect("cannot read the list of mounts");
    mounts.lines().any(|line| line.split(' ').nth(2) == Some(kind))
}

fn own_namespace() -> io::Result<()> {
    // SAFETY: takes no pointer; it concerns the calling thread alone.
    match unsafe { libc::unshare(libc::CLONE_NEWNS) } {
        0 => mount(c"none", c"/", libc::MS_REC | libc::MS_PRIVATE, None),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Mounts a file system of this kind with these options, or changes a mount according to `flags`.
fn mount(kind: &CStr, place: &CStr, flags: libc::c_ulong, options: Option<&CStr>) -> io::Result<()> {
    let options = options.map_or(ptr::null(), |options| options.as_ptr().cast());
    // SAFETY: the strings end with NUL, and the kernel reads no options from a null pointer.
    let result = unsafe { libc::mount(kind.as_ptr(), place.as_ptr(), kind.as_ptr(), flags, options) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
