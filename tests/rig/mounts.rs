//! The kernel's file systems that a host need not have mounted.

#![allow(unsafe_code)]

use std::ffi::CStr;
use std::{fs, io, ptr};

const FILESYSTEMS: [(&CStr, &CStr); 3] = [
    (c"debugfs", c"/sys/kernel/debug"),
    (c"tracefs", c"/sys/kernel/tracing"),
    (c"securityfs", c"/sys/kernel/security"),
];

/// A host with control groups of version 1 has another file system here.
const CGROUP2: (&CStr, &CStr) = (c"cgroup2", c"/sys/fs/cgroup");

/// Mounts the missing ones of debugfs, tracefs, securityfs and cgroup2, for the calling thread and all
/// that it starts later. The mounts are in a namespace of the thread's own, so the host never has them.
pub fn add_kernel_filesystems() {
    let mut missing: Vec<_> = FILESYSTEMS.into_iter().filter(|(kind, _)| !is_mounted(kind)).collect();
    if !is_mounted(CGROUP2.0) && !is_mounted(c"cgroup") {
        missing.push(CGROUP2);
    }
    if missing.is_empty() {
        return;
    }
    own_namespace().unwrap_or_else(|e| panic!("cannot make a mount namespace: {e}"));
    for (kind, place) in missing {
        // A kernel may be built without one of them; the tests that need it name it.
        if let Err(e) = mount(kind, place, 0) {
            eprintln!("cannot mount {kind:?} on {place:?}: {e}");
        }
    }
    // /proc/mounts lists the namespace of the main thread, so code that runs in this thread would find no mount.
    mount(c"/proc/thread-self/mounts", c"/proc/mounts", libc::MS_BIND)
        .unwrap_or_else(|e| panic!("cannot replace /proc/mounts: {e}"));
}

fn is_mounted(kind: &CStr) -> bool {
    let kind = kind.to_str().expect("a file system's name is ASCII");
    let mounts = fs::read_to_string("/proc/thread-self/mounts").expect("cannot read the list of mounts");
    mounts.lines().any(|line| line.split(' ').nth(2) == Some(kind))
}

fn own_namespace() -> io::Result<()> {
    // SAFETY: takes no pointer; it concerns the calling thread alone.
    match unsafe { libc::unshare(libc::CLONE_NEWNS) } {
        0 => mount(c"none", c"/", libc::MS_REC | libc::MS_PRIVATE),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Mounts a file system of this kind, or changes a mount as `flags` say.
fn mount(kind: &CStr, place: &CStr, flags: libc::c_ulong) -> io::Result<()> {
    // SAFETY: the strings end with NUL, and the kernel reads no data for a null pointer.
    let result = unsafe { libc::mount(kind.as_ptr(), place.as_ptr(), kind.as_ptr(), flags, ptr::null()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
