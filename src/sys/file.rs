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

/// Waits as `readable_within` does for two files, of which the second may be missing, and says which it is.
pub fn either_readable_within(
    first: impl AsFd,
    second: Option<impl AsFd>,
    within: Nanos,
) -> io::Result<(bool, bool)> {
    // poll(2) leaves a negative number out.
    let second = second.as_ref().map_or(-1, |second| second.as_fd().as_raw_fd());
    let wanted = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    let mut polls = [wanted(first.as_fd().as_raw_fd()), wanted(second)];
    // SAFETY: `polls` is two pollfds, as the count says, and outlives the call.
    check(unsafe { libc::poll(polls.as_mut_ptr(), 2, millis(within)) })?;
    Ok((polls[0].revents != 0, polls[1].revents != 0))
}

fn ready_within(fd: impl AsFd, events: i16, within: Nanos) -> io::Result<bool> {
    let mut poll = libc::pollfd { fd: fd.as_fd().as_raw_fd(), events, revents: 0 };
    // SAFETY: `poll` is one pollfd, as the count says, and outlives the call.
    Ok(check(unsafe { libc::poll(&mut poll, 1, millis(within)) })? > 0)
}

/// Rounded up: a wait of less than a millisecond is still a wait.
fn millis(within: Nanos) -> i32 {
    i32::try_from(within.as_millis().saturating_add(1)).unwrap_or(-1)
}

/// Makes reads and writes of an open file fail rather than wait.
pub fn never_wait(fd: impl AsFd) -> io::Result<()> {
    // SAFETY: sets a flag of a descriptor that is open for as long as it is borrowed.
    check(unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) }).map(drop)
}

/// How many lines the terminal has.
pub fn terminal_lines(terminal: &impl AsFd) -> Option<usize> {
    // SAFETY: a struct of integers, for which zeros will do.
    let mut size: libc::winsize = unsafe { std::mem::zeroed() };
    // SAFETY: the request writes a struct winsize.
    check(unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCGWINSZ, &mut size) }).ok()?;
    Some(size.ws_row.into()).filter(|&lines| lines > 0)
}
