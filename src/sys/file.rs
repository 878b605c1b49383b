//! What std does not offer for an open file.

use super::check;
use crate::task::Nanos;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Waits until a write would not block, or would fail; false when the time is over first. The answer
/// holds for what fits into one page of a pipe.
pub fn writable_within(fd: impl AsFd, within: Nanos) -> io::Result<bool> {
    ready_within(fd, libc::POLLOUT, within)
}

/// Waits until there is something to read, or the other end is gone; false when the time is over first.
pub fn readable_within(fd: impl AsFd, within: Nanos) -> io::Result<bool> {
    ready_within(fd, libc::POLLIN, within)
}

fn ready_within(fd: impl AsFd, events: i16, within: Nanos) -> io::Result<bool> {
    let mut poll = libc::pollfd { fd: fd.as_fd().as_raw_fd(), events, revents: 0 };
    // Rounded up: a wait of less than a millisecond is still a wait.
    let millis = i32::try_from(within.as_millis().saturating_add(1)).unwrap_or(-1);
    // SAFETY: `poll` is one pollfd, as the count says, and outlives the call.
    Ok(check(unsafe { libc::poll(&mut poll, 1, millis) })? > 0)
}

/// Makes reads and writes of an open file fail rather than wait.
pub fn never_wait(fd: impl AsFd) -> io::Result<()> {
    // SAFETY: sets a flag of a descriptor that is open for as long as it is borrowed.
    check(unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) }).map(drop)
}
