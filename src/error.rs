//! One error type: what was tried, on what, and why it failed, as one line.

use std::{fmt, io};

/// What went wrong, as the sentence a user reads. The number is the errno behind it, if there was one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    message: String,
    errno: Option<i32>,
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub fn new(message: impl Into<String>) -> Error {
        Error { message: message.into(), errno: None }
    }

    /// `cannot WHAT: REASON`
    pub fn io(what: impl fmt::Display, reason: &io::Error) -> Error {
        Error { message: format!("cannot {what}: {}", Reason(reason)), errno: reason.raw_os_error() }
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
    pub fn of(mut self, whose: impl fmt::Display) -> Error {
        self.message = format!("{whose}: {}", self.message);
        self
    }

    /// The same error with what else is known of it.
    pub fn with_note(mut self, note: impl fmt::Display) -> Error {
        self.message = format!("{} ({note})", self.message);
        self
    }

    /// The same error with what can be done about it.
    pub fn with_cure(mut self, cure: impl fmt::Display) -> Error {
        self.message = format!("{}; {cure}", self.message);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.message)
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
}
