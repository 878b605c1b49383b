//! Operations on open files that std lacks. Those with a time limit may block for that long.

use super::check;
use crate::task::Nanos;
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};

/// Waits until a write would not block, or would fail. Returns false on time-out. For a pipe, the
/// result holds for a write of at most one page.
pub(crate) fn writable_within(fd: impl AsFd, within: Nanos) -> io::Result<bool> {
    ready_within(fd, libc::POLLOUT, within)
}

/// Waits until there is data to read, or the other end is closed. Returns false on time-out.
#[cfg(test)]
pub(super) fn readable_within(fd: impl AsFd, within: Nanos) -> io::Result<bool> {
    ready_within(fd, libc::POLLIN, within)
}

/// Waits until one of two files is readable or closed at its other end, and returns which of them
/// are. The second file may be missing. The time limit is at least a millisecond, because the
/// caller is the guardian: it outranks all other tasks and must not spin.
pub(crate) fn either_readable_within(
    first: impl AsFd,
    second: Option<impl AsFd>,
    within: Nanos,
) -> io::Result<(bool, bool)> {
    // poll(2) ignores a negative descriptor.
    let second = second.as_ref().map_or(-1, |second| second.as_fd().as_raw_fd());
    let wanted = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    let mut polls = [wanted(first.as_fd().as_raw_fd()), wanted(second)];
    // SAFETY: `polls` is two pollfds, which is the count, and outlives the call.
    check(unsafe { libc::poll(polls.as_mut_ptr(), 2, millis(within)) })?;
    Ok((polls[0].revents != 0, polls[1].revents != 0))
}

fn ready_within(fd: impl AsFd, events: i16, within: Nanos) -> io::Result<bool> {
    let mut poll = libc::pollfd { fd: fd.as_fd().as_raw_fd(), events, revents: 0 };
    let millis = if within == Nanos::ZERO { 0 } else { millis(within) };
    // SAFETY: `poll` is one pollfd, which is the count, and outlives the call.
    Ok(check(unsafe { libc::poll(&mut poll, 1, millis) })? > 0)
}

/// Returns the time in milliseconds, rounded up, for poll(2); -1, which is no time-out, if it is
/// too large.
fn millis(within: Nanos) -> i32 {
    i32::try_from(within.as_millis().saturating_add(1)).unwrap_or(-1)
}

/// Makes reads and writes of an open file fail instead of block.
pub fn never_wait(fd: impl AsFd) -> io::Result<()> {
    // SAFETY: sets a flag of a descriptor that is open for as long as it is borrowed.
    check(unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) }).map(drop)
}

/// A file, such as stderr, whose writes never wait for a reader. Other processes may share the open
/// file, and O_NONBLOCK would apply to them, too. So a pipe or a terminal is opened a second time,
/// with O_NONBLOCK.
pub(crate) struct Unwaiting {
    file: File,
    way: Way,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// By write(2), which fails instead of waiting for a reader.
    Plain,
    /// By send(2) with MSG_DONTWAIT.
    Socket,
    /// By write(2) of at most PIPE_BUF bytes, if poll(2) reports room: the file could not be opened
    /// again.
    Pieces,
}

impl Unwaiting {
    pub(crate) fn new(file: File) -> Unwaiting {
        let kind = file.metadata().map(|seen| seen.file_type());
        let way = match kind {
            Ok(kind) if kind.is_socket() => Way::Socket,
            Ok(kind) if kind.is_fifo() || file.is_terminal() => match open_again(&file) {
                Ok(again) => return Unwaiting { file: again, way: Way::Plain },
                Err(_) => Way::Pieces,
            },
            // A write to a regular file waits at most for its disk.
            _ => Way::Plain,
        };
        Unwaiting { file, way }
    }

    /// Writes as many bytes as there is room for. Returns their number, or the error WouldBlock.
    pub(crate) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self.way {
            Way::Plain => (&self.file).write(bytes),
            Way::Socket => {
                let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
                let (start, len) = (bytes.as_ptr().cast(), bytes.len());
                // SAFETY: the kernel reads `len` bytes of a slice that outlives the call.
                let sent = check(unsafe { libc::send(self.file.as_raw_fd(), start, len, flags) })?;
                Ok(sent as usize)
            }
            Way::Pieces if writable_within(&self.file, Nanos::ZERO)? => {
                (&self.file).write(bytes.get(..libc::PIPE_BUF).unwrap_or(bytes))
            }
            Way::Pieces => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

#[cfg(test)]
impl Unwaiting {
    /// Writes in pieces, as if the file could not be opened again.
    pub(crate) fn in_pieces(file: File) -> Unwaiting {
        Unwaiting { file, way: Way::Pieces }
    }
}

impl AsFd for Unwaiting {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn open_again(file: &File) -> io::Result<File> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)
}

/// Returns the number of lines of a terminal; `None` if it is unknown.
#[cfg(feature = "bpf")]
pub(crate) fn terminal_lines(terminal: &impl AsFd) -> Option<usize> {
    // SAFETY: a struct of integers, for which zeros will do.
    let mut size: libc::winsize = unsafe { std::mem::zeroed() };
    // SAFETY: the request writes a struct winsize.
    check(unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCGWINSZ, &mut size) }).ok()?;
    Some(size.ws_row.into()).filter(|&lines| lines > 0)
}
