//! The error type: one line that states which action failed, on which object, and why.

use std::borrow::Cow;
use std::{fmt, io};

/// An error as one line for the user, and the errno behind it, if there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    message: Cow<'static, str>,
    errno: Option<i32>,
    /// Whether the message lacks the reason. `Display` then appends the text of `errno`.
    lacks_reason: bool,
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub fn new(message: impl Into<Cow<'static, str>>) -> Error {
        Error { message: message.into(), errno: None, lacks_reason: false }
    }

    /// Makes the error `cannot WHAT: REASON`.
    pub fn io(what: impl fmt::Display, reason: &io::Error) -> Error {
        Error::new(format!("cannot {what}: {}", Reason(reason))).with_errno(reason.raw_os_error())
    }

    /// Makes the error `MESSAGE: REASON` without allocating, for the guardian.
    pub fn unallocated(message: &'static str, reason: &io::Error) -> Error {
        let errno = reason.raw_os_error();
        Error { message: Cow::Borrowed(message), errno, lacks_reason: errno.is_some() }
    }

    pub fn errno(&self) -> Option<i32> {
        self.errno
    }

    /// Replaces the errno.
    pub fn with_errno(mut self, errno: Option<i32>) -> Error {
        self.errno = errno;
        self
    }

    /// Puts `WHOSE: ` before the message.
    pub fn of(self, whose: impl fmt::Display) -> Error {
        Error { message: format!("{whose}: {self}").into(), lacks_reason: false, ..self }
    }

    /// Appends a fact: `MESSAGE (NOTE)`.
    pub fn with_note(self, note: impl fmt::Display) -> Error {
        Error { message: format!("{self} ({note})").into(), lacks_reason: false, ..self }
    }

    /// Appends advice: `MESSAGE; CURE`.
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

/// Shows an io::Error without the `(os error N)` that std appends.
pub struct Reason<'a>(pub &'a io::Error);

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let text = self.0.to_string();
        f.write_str(text.split(" (os error").next().unwrap_or(&text))
    }
}

/// Returns the errno of an error; EIO if it has none.
pub fn errno_of(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

/// Adds the failed action to the error of a system call.
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
    fn an_error_has_the_action_its_object_and_the_reason() {
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
