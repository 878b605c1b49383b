//! Writes reports to standard output. On a terminal each report replaces the last one.

use super::options::Form;
use super::table::CSV_HEAD;
use crate::error::{Context, Result};
use std::io::{self, BufWriter, IsTerminal, Write};

pub(super) struct Screen {
    /// Each report replaces the last one.
    refreshes: bool,
    /// The text that precedes the first report.
    pending: &'static str,
}

/// Moves the cursor home, and clears all below it.
const CLEAR: &str = "\x1b[H\x1b[J";

impl Screen {
    pub(super) fn new(form: Form) -> Screen {
        let pending = if form == Form::Csv { CSV_HEAD } else { "" };
        Screen { refreshes: form == Form::Text && io::stdout().is_terminal(), pending }
    }

    /// Writes a report for programs.
    pub(super) fn write(&mut self, report: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
        let mut out = BufWriter::new(io::stdout().lock());
        let before = std::mem::take(&mut self.pending);
        let written = out.write_all(before.as_bytes()).and_then(|()| report(&mut out));
        written.and_then(|()| out.flush()).context("write to stdout")
    }

    /// Writes a report for people.
    pub(super) fn show(&mut self, report: &str) -> Result<()> {
        let text = match self.refreshes {
            true => format!("{CLEAR}{}", first_lines(report, lines())),
            false => report.to_string(),
        };
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).context("write to stdout")
    }
}

/// Returns the lines that fit on the screen. The last line is free for the cursor.
fn first_lines(report: &str, lines: usize) -> &str {
    let end = report.match_indices('\n').nth(lines.saturating_sub(2)).map_or(report.len(), |(at, _)| at + 1);
    report.get(..end).unwrap_or(report)
}

fn lines() -> usize {
    crate::sys::file::terminal_lines(&io::stdout()).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_ends_above_the_last_line_of_the_screen() {
        assert_eq!(first_lines("a\nb\nc\n", 3), "a\nb\n");
        assert_eq!(first_lines("a\nb\nc\n", 4), "a\nb\nc\n");
        assert_eq!(first_lines("a\nb\nc\n", usize::MAX), "a\nb\nc\n");
        assert_eq!(first_lines("", 24), "");
    }
}
