//! Writes to standard error: text for people, or JSON for programs.

use super::{Level, Record, Sink};
use crate::error::Error;
use crate::sys::clock;
use crate::sys::file::{self, Unwaiting};
use crate::task::Nanos;
use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;

/// The longest wait for a reader of a full pipe or a stopped terminal. After one such wait, lines
/// are dropped at once until the reader reads again, so that the other sinks are not delayed.
const READER_TIMEOUT: Nanos = Nanos::from_millis(100);
/// The longest wait to write a line without the log.
const LAST_TIMEOUT: Nanos = Nanos::from_secs(1);

/// The format of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Writes whole lines of any length. The rest of a partly written line is written before the next
/// one.
///
/// It writes to a descriptor of its own, without std's lock, so that a panic message gets out while
/// a line is stuck. The descriptor would outlive daemonizing, so use it in the foreground only.
pub struct Terminal {
    out: Unwaiting,
    format: Format,
    timeout: Nanos,
    /// The last wait for the reader timed out.
    is_stuck: bool,
    line: String,
    /// The bytes of `line` that are written. If above 0 between two calls, the rest must follow.
    written: usize,
}

impl Terminal {
    pub(crate) fn stderr(format: Format) -> io::Result<Terminal> {
        Ok(Terminal::new(io::stderr().as_fd().try_clone_to_owned()?.into(), format))
    }

    pub fn new(file: File, format: Format) -> Terminal {
        let (out, timeout) = (Unwaiting::new(file), READER_TIMEOUT);
        Terminal { out, format, timeout, is_stuck: false, line: String::new(), written: 0 }
    }

    /// Writes the rest of `line`. Returns false if there was no room for it within `timeout`.
    fn write_rest(&mut self, timeout: Nanos) -> io::Result<bool> {
        let until = clock::monotonic() + timeout;
        while let Some(rest) = self.line.as_bytes().get(self.written..).filter(|rest| !rest.is_empty()) {
            match self.out.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => self.written += written,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    let left = until - clock::monotonic();
                    if left == Nanos::ZERO || !file::writable_within(&self.out, left)? {
                        return Ok(false);
                    }
                }
                Err(e) => return Err(e),
            }
        }
        self.forget();
        Ok(true)
    }

    /// Writes the rest of `line`. Waits unless the last wait timed out. Drops the line after an
    /// error.
    fn continue_line(&mut self) -> io::Result<bool> {
        let timeout = if self.is_stuck { Nanos::ZERO } else { self.timeout };
        let outcome = self.write_rest(timeout);
        self.is_stuck = matches!(outcome, Ok(false));
        if outcome.is_err() {
            self.forget();
        }
        outcome
    }

    fn forget(&mut self) {
        self.line.clear();
        self.written = 0;
    }
}

impl Sink for Terminal {
    fn write(&mut self, record: &Record) -> io::Result<()> {
        if self.written > 0 && !self.continue_line()? {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        match self.format {
            Format::Text => self.line.extend(["stalld: ", record.text]),
            Format::Json => record.json(&mut self.line),
        }
        self.line.push('\n');
        if !self.continue_line()? && self.written == 0 {
            self.forget();
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(())
    }

    fn finish(&mut self) -> bool {
        if self.written == 0 {
            return true;
        }
        self.is_stuck = true;
        self.continue_line().unwrap_or(true)
    }

    /// Enough for -v on a machine with 500 CPUs.
    fn lines_per_second(&self) -> u32 {
        1000
    }
}

/// Reports why stalld ends, with or without a log.
pub fn fatal(error: &Error, format: Format) {
    on_stderr(Level::Error, error, format);
}

/// Writes one line to standard error without the log. Waits up to a second for room.
pub fn on_stderr(level: Level, error: &Error, format: Format) {
    on_stderr_within(LAST_TIMEOUT, level, format_args!("{error}"), format);
}

/// Writes one line to standard error without the log, if there is room at once.
pub fn on_stderr_at_once(level: Level, text: fmt::Arguments, format: Format) {
    on_stderr_within(Nanos::ZERO, level, text, format);
}

fn on_stderr_within(timeout: Nanos, level: Level, text: fmt::Arguments, format: Format) {
    let line = super::Line::of(text);
    let record = Record::now(level, line.as_str());
    // Nothing is left to do if this fails.
    let _ = match Terminal::stderr(format) {
        Ok(terminal) => Terminal { timeout, ..terminal }.write(&record),
        Err(_) => writeln!(io::stderr(), "stalld: {}", line.as_str()),
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::process;
    use std::io::{BufRead, BufReader, Read};
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn lines_have_the_prefix_that_people_grep_for() {
        let (mut reader, writer) = UnixStream::pair().unwrap();
        let mut terminal = Terminal::new(OwnedFd::from(writer).into(), Format::Text);
        terminal.write(&Record::now(Level::Info, "using task_iter backend")).unwrap();
        terminal.write(&Record::now(Level::Debug, "checking cpu 1 - rt: 1 - starving: 0")).unwrap();
        drop(terminal);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "stalld: using task_iter backend\nstalld: checking cpu 1 - rt: 1 - starving: 0\n");
    }

    #[test]
    fn in_json_each_line_is_an_object() {
        let (mut reader, writer) = UnixStream::pair().unwrap();
        let mut terminal = Terminal::new(OwnedFd::from(writer).into(), Format::Json);
        terminal.write(&Record::now(Level::Info, "one")).unwrap();
        terminal.write(&Record::now(Level::Debug, "two")).unwrap();
        drop(terminal);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        assert!(lines[0].starts_with('{') && lines[0].ends_with(r#""message":"one"}"#), "{text}");
        assert!(lines[1].starts_with('{') && lines[1].ends_with(r#""message":"two"}"#), "{text}");
    }

    #[test]
    fn a_line_that_no_reader_takes_is_dropped() {
        let (_reader, writer) = UnixStream::pair().unwrap();
        let mut terminal =
            Terminal { timeout: Nanos::ZERO, ..Terminal::new(OwnedFd::from(writer).into(), Format::Text) };
        let error = loop {
            if let Err(e) = terminal.write(&Record::now(Level::Info, "line")) {
                break e;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }

    /// Returns a pipe and a socket, which are full if their reader does not read.
    fn channels() -> [(&'static str, File, File); 2] {
        let (reader, writer) = process::pipe().unwrap();
        let (other, socket) = UnixStream::pair().unwrap();
        [("pipe", reader, writer), ("socket", OwnedFd::from(other).into(), OwnedFd::from(socket).into())]
    }

    #[test]
    fn a_line_of_any_length_is_written_whole_or_not_at_all() {
        for (kind, reader, writer) in channels() {
            for way in [None, Some(Unwaiting::in_pieces(writer.try_clone().unwrap()))] {
                let new = Terminal::new(writer.try_clone().unwrap(), Format::Text);
                let out = way.unwrap_or(Unwaiting::new(writer.try_clone().unwrap()));
                let mut terminal = Terminal { out, timeout: Nanos::ZERO, ..new };
                // The size of a pipe is no multiple of such lines, so it is full in the middle of
                // one.
                let long = "x".repeat(9_001);
                let taken = (0..100_000).take_while(|i| write(&mut terminal, *i, &long)).count();
                assert!(!write(&mut terminal, taken, &long), "{kind}");
                assert!(kind == "socket" || !terminal.finish(), "{kind}");
                let mut reader = BufReader::new(reader.try_clone().unwrap());
                for i in 0..taken {
                    let mut line = String::new();
                    while !line.ends_with('\n') {
                        // There is room by now. Without this, the reader would wait for the rest of
                        // the line.
                        terminal.finish();
                        let bytes = reader.fill_buf().unwrap();
                        let end = bytes.iter().position(|&b| b == b'\n').map_or(bytes.len(), |at| at + 1);
                        line.push_str(std::str::from_utf8(&bytes[..end]).unwrap());
                        reader.consume(end);
                    }
                    assert_eq!(line, format!("stalld: {i} {long}\n"), "{kind}");
                }
                assert!(terminal.finish() && reader.buffer().is_empty(), "{kind}");
            }
        }
    }

    #[test]
    fn after_a_timeout_writes_do_not_wait_until_the_reader_reads_again() {
        let [(_, mut reader, writer), _] = channels();
        let mut terminal = Terminal { timeout: Nanos::ZERO, ..Terminal::new(writer, Format::Text) };
        let taken = (0..100_000).take_while(|i| write(&mut terminal, *i, "")).count();
        // The test ends although these would wait for an hour.
        terminal.timeout = Nanos::from_secs(3600);
        assert!((0..3).all(|_| !write(&mut terminal, 0, "") && terminal.finish()));
        let mut all = vec![0; 1 << 20];
        assert!(reader.read(&mut all).unwrap() > taken);
        assert!(write(&mut terminal, 0, "") && !terminal.is_stuck);
    }

    fn write(terminal: &mut Terminal, number: usize, text: &str) -> bool {
        terminal.write(&Record::now(Level::Info, &format!("{number} {text}"))).is_ok()
    }
}
