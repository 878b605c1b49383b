//! What std does not offer for an open file.

use super::check;
use crate::task::Nanos;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Waits until a write would not block, or would fail; false when the time is over first. The answer
/// holds for what fits into one page of a pipe.
pub fn writable_within(fd: impl AsFd, within: Nanos) -> io::Result<bool> {
    let mut poll = libc::pollfd { fd: fd.as_fd().as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    let millis = i32::try_from(within.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: `poll` is one pollfd, as the count says, and outlives the call.
    Ok(check(unsafe { libc::poll(&mut poll, 1, millis) })? > 0)
}
