//! One line of a log: of limited length, and without control characters.

use crate::task::Visible;
use std::fmt::{self, Write};

/// The maximum length of the text. With the prefix of a sink it stays below 900 bytes, because the
/// kernel rejects records near 1 KB.
pub(super) const MAX: usize = 860;
const CUT: &str = "...";

/// A line of text, formatted without allocations. `...` replaces what is too long.
pub(super) struct Line(Bounded);

struct Bounded {
    bytes: [u8; MAX],
    len: usize,
    full: bool,
}

impl Line {
    pub(super) fn new() -> Line {
        Line(Bounded { bytes: [0; MAX], len: 0, full: false })
    }

    pub(super) fn of(text: fmt::Arguments) -> Line {
        let mut line = Line::new();
        // Ignore an error: a line accepts all text, so only a broken Display fails. Keep what it
        // wrote before.
        let _ = line.write_fmt(text);
        line
    }

    pub(super) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0.bytes[..self.0.len]).unwrap_or_default()
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
            return self.0.write_str(text);
        }
        text.chars().try_for_each(|c| write!(self.0, "{}", Visible(c)))
    }
}

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.full {
            return Ok(());
        }
        let mut end = text.len().min(MAX - CUT.len() - self.len);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.append(&text.as_bytes()[..end]);
        if end < text.len() {
            self.append(CUT.as_bytes());
            self.full = true;
        }
        Ok(())
    }
}

impl Bounded {
    fn append(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        self.bytes[self.len..end].copy_from_slice(bytes);
        self.len = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> String {
        Line::of(format_args!("{text}")).as_str().to_string()
    }

    #[test]
    fn control_characters_are_shown_not_obeyed() {
        assert_eq!(line("one\ntwo\r\x1b[2J\0"), "one\\x0atwo\\x0d\\x1b[2J\\x00");
        assert_eq!(line("left\u{202e}thgir \u{9b}31m"), "left\\xe2\\x80\\xaethgir \\xc2\\x9b31m");
    }

    #[test]
    fn escaped_text_is_not_escaped_again() {
        assert_eq!(line("a\\x0ab of Größe\\\\"), "a\\x0ab of Größe\\\\");
    }

    #[test]
    fn too_long_a_text_is_cut_between_two_characters() {
        let long = line(&"ü".repeat(MAX));
        assert!(long.len() <= MAX);
        assert_eq!(long, format!("{}...", "ü".repeat((MAX - 3) / 2)));
        assert_eq!(line(&"x".repeat(MAX - 3)), "x".repeat(MAX - 3));
    }

    #[test]
    fn nothing_follows_a_cut() {
        let long = Line::of(format_args!("{}{}{}", "x".repeat(MAX - 4), "yyyy", "z"));
        assert_eq!(long.as_str(), format!("{}y...", "x".repeat(MAX - 4)));
    }
}
