//! What std does not offer for an open file.

use super::check;
use crate::task::Nanos;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Takes flock(2)'s exclusive lock without waiting; false where somebody else holds one. The lock
/// belongs to the open file: a second open of the same path conflicts, in this process too, and a
/// forked child shares it.
pub fn lock(file: &File) -> io::Result<bool> {
    // SAFETY: flock takes no pointer, and the borrow keeps the descriptor open.
    match check(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) }) {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(e) => Err(e),
    }
}

/// Waits until a write would not block, or would fail; false when the time is over first. The answer
/// holds for what fits into one page of a pipe.
pub fn writable_within(fd: impl AsFd, within: Nanos) -> io::Result<bool> {
    let mut poll = libc::pollfd { fd: fd.as_fd().as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    let millis = i32::try_from(within.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: `poll` is one pollfd, as the count says, and outlives the call.
    Ok(check(unsafe { libc::poll(&mut poll, 1, millis) })? > 0)
}
