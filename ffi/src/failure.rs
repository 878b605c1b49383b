//! The failure of a call: a number for the program, and a text for its log.

use crate::abi;
use libc::c_char;
use stalld::error::{Error, Reason};
use stalld::task::Visible;
use std::cell::RefCell;
use std::ffi::CStr;
use std::io;

/// A positive errno, or one of the library's own numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub code: i32,
    pub text: String,
}

pub type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// Makes a failure. Escapes the text, so that it is one line even if it quotes input of the
    /// program.
    pub fn new(code: i32, text: impl AsRef<str>) -> Failure {
        let text = text.as_ref().chars().map(|c| Visible(c).to_string()).collect();
        Failure { code, text }
    }

    /// Converts an error. The number is its errno; `otherwise` if it has none.
    pub fn of(error: &Error, otherwise: i32) -> Failure {
        Failure::new(error.errno().filter(|&errno| errno > 0).unwrap_or(otherwise), error.to_string())
    }
}

/// The library's own numbers and what they mean.
const OWN: [(i32, &CStr); 3] = [
    (abi::STALLD_EPANIC, c"a panic inside of the library was caught: the handle can only be closed"),
    (abi::STALLD_EBACKEND, c"no backend works here"),
    (abi::STALLD_ESCAN, c"a scan could not be carried out"),
];

/// A text that C may read until this thread writes the next one.
struct Text([u8; 1024]);

impl Text {
    const fn empty() -> RefCell<Text> {
        RefCell::new(Text([0; 1024]))
    }

    /// Sets the text. Cuts it at a NUL, and between two characters if it is too long.
    fn set(&mut self, text: &str) {
        let text = text.split('\0').next().unwrap_or_default();
        let mut len = text.len().min(self.0.len() - 1);
        while !text.is_char_boundary(len) {
            len -= 1;
        }
        self.0[..len].copy_from_slice(&text.as_bytes()[..len]);
        self.0[len] = 0;
    }

    fn as_ptr(&self) -> *const c_char {
        self.0.as_ptr().cast()
    }
}

// Without destructors, so that a thread that ends runs no code of a library that may be unloaded.
thread_local! {
    static LAST: RefCell<Text> = const { Text::empty() };
    static STRERROR: RefCell<Text> = const { Text::empty() };
}

pub fn remember(text: &str) {
    LAST.with_borrow_mut(|last| last.set(text));
}

pub fn last() -> *const c_char {
    LAST.with_borrow(Text::as_ptr)
}

pub fn describe(error: i32) -> *const c_char {
    let code = error.unsigned_abs();
    if let Some((_, text)) = OWN.iter().find(|(own, _)| own.unsigned_abs() == code) {
        return text.as_ptr();
    }
    STRERROR.with_borrow_mut(|text| {
        let known = i32::try_from(code).ok().filter(|code| (1..abi::STALLD_EPANIC).contains(code));
        match known.map(io::Error::from_raw_os_error) {
            Some(error) => text.set(&Reason(&error).to_string()),
            None if code == 0 => text.set("no error"),
            None => text.set(&format!("unknown error {code}")),
        }
        text.as_ptr()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(error: i32) -> String {
        // SAFETY: the text ends with a NUL, and no other one is requested meanwhile.
        unsafe { CStr::from_ptr(describe(error)) }.to_str().unwrap().to_string()
    }

    #[test]
    fn every_number_has_a_text() {
        assert_eq!(text(-libc::ESRCH), "No such process");
        assert_eq!(text(libc::ESRCH), "No such process");
        assert_eq!(text(0), "no error");
        assert_eq!(text(-abi::STALLD_EBACKEND), "no backend works here");
        assert_eq!(text(-5999), "unknown error 5999");
        assert_eq!(text(i32::MIN), "unknown error 2147483648");
    }

    /// A number is never given another meaning, nor used again.
    #[test]
    fn the_librarys_own_numbers_stay_what_they_are() {
        assert_eq!((abi::STALLD_EPANIC, abi::STALLD_EBACKEND, abi::STALLD_ESCAN), (5000, 5001, 5002));
        assert!(OWN.iter().all(|&(code, _)| code >= 5000));
    }

    #[test]
    fn a_text_that_is_too_long_is_cut_at_a_character() {
        let long = "é".repeat(2000);
        remember(&long);
        // SAFETY: as above.
        let kept = unsafe { CStr::from_ptr(last()) }.to_str().unwrap();
        assert!(kept.len() == 1022 && long.starts_with(kept));
        remember("a\0b");
        // SAFETY: as above.
        assert_eq!(unsafe { CStr::from_ptr(last()) }, c"a");
    }
}
