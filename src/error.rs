//! One error type: what was tried, on what, and why it failed, as one line.

use std::borrow::Cow;
use std::{fmt, io};

/// What went wrong, as the sentence a user reads. The number is the errno behind it, if there was
/// one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    message: Cow<'static, str>,
    errno: Option<i32>,
    /// The message lacks the reason, which is in `errno`: it is put behind it as the error is
    /// shown.
    lacks_reason: bool,
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub fn new(message: impl Into<Cow<'static, str>>) -> Error {
        Error { message: message.into(), errno: None, lacks_reason: false }
    }

    /// `cannot WHAT: REASON`
    pub fn io(what: impl fmt::Display, reason: &io::Error) -> Error {
        Error::new(format!("cannot {what}: {}", Reason(reason))).with_errno(reason.raw_os_error())
    }

    /// `MESSAGE: REASON`, made without allocating: for the guardian.
    pub fn unallocated(message: &'static str, reason: &io::Error) -> Error {
        let errno = reason.raw_os_error();
        Error { message: Cow::Borrowed(message), errno, lacks_reason: errno.is_some() }
    }

    pub fn errno(&self) -> Option<i32> {
        self.errno
    }

    /// The same error, by the number of another that is behind it.
    pub fn with_errno(mut self, errno: Option<i32>) -> Error {
        self.errno = errno;
        self
    }

    /// `WHOSE: ` and the same error.
    pub fn of(self, whose: impl fmt::Display) -> Error {
        Error { message: format!("{whose}: {self}").into(), lacks_reason: false, ..self }
    }

    /// The same error with what else is known of it.
    pub fn with_note(self, note: impl fmt::Display) -> Error {
        Error { message: format!("{self} ({note})").into(), lacks_reason: false, ..self }
    }

    /// The same error with what can be done about it.
    pub fn with_cure(self, cure: impl fmt::Display) -> Error {
        Error { message: format!("{self}; {cure}").into(), lacks_reason: false, ..self }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.message)?;
        match self.errno {
            Some(errno) if self.lacks_reason => {
                write!(f, ": {}", Reason(&io::Error::from_raw_os_error(errno)))
            }
            _ => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

/// An io::Error without the `(os error N)` that std appends: users know `Permission denied`.
pub struct Reason<'a>(pub &'a io::Error);

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let text = self.0.to_string();
        f.write_str(text.split(" (os error").next().unwrap_or(&text))
    }
}

/// Names what was tried when a system call fails.
pub trait Context<T> {
    fn context(self, what: impl fmt::Display) -> Result<T>;
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, what: impl fmt::Display) -> Result<T> {
        self.map_err(|e| Error::io(what, &e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_was_tried_on_what_and_why() {
        let denied: io::Result<()> = Err(io::Error::from_raw_os_error(libc::EACCES));
        let error = denied.context("read /proc/sched_debug").unwrap_err();
        assert_eq!(error.to_string(), "cannot read /proc/sched_debug: Permission denied");
        assert_eq!(error.errno(), Some(libc::EACCES));
        let error = error.of("sched_debug").with_cure("run it as root");
        assert_eq!(
            error.to_string(),
            "sched_debug: cannot read /proc/sched_debug: Permission denied; run it as root"
        );
        assert_eq!(error.errno(), Some(libc::EACCES));
    }

    #[test]
    fn an_error_that_was_made_without_allocating_reads_like_any_other() {
        let denied = io::Error::from_raw_os_error(libc::EACCES);
        let error = Error::unallocated("cannot read /proc/sched_debug", &denied);
        assert_eq!(error.to_string(), "cannot read /proc/sched_debug: Permission denied");
        assert_eq!(error.errno(), Some(libc::EACCES));
        let error = error.with_cure("run it as root");
        assert_eq!(error.to_string(), "cannot read /proc/sched_debug: Permission denied; run it as root");
    }
}
