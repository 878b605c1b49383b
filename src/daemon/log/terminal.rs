//! The standard error output, for people who watch, or for programs that read JSON.

use super::{Level, Record, Sink};
use crate::error::Error;
use crate::sys::clock;
use crate::sys::file::{self, Unwaiting};
use crate::task::Nanos;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;

/// The longest wait for a reader of a full pipe or a stopped terminal. After that, lines are
/// dropped without any wait until it reads again, so that the other sinks get theirs.
const READER_TIMEOUT: Nanos = Nanos::from_millis(100);
/// The same for the last words of a process.
const LAST_TIMEOUT: Nanos = Nanos::from_secs(1);

/// What a line looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    #[default]
    Text,
    /// One object a line.
    Json,
}

/// Writes whole lines, however long they are: the rest of a line that has found no room comes
/// before the next one. It has a descriptor of its own, past std's lock: a panic message must get
/// out while a line is stuck. That descriptor also outlives daemonizing, so it is for the
/// foreground.
pub struct Terminal {
    out: Unwaiting,
    format: Format,
    timeout: Nanos,
    /// The reader has let a wait time out.
    is_stuck: bool,
    line: String,
    /// Bytes of `line` that are out already. Above 0 between two calls, the rest has to follow.
    written: usize,
}

impl Terminal {
    pub fn stderr(format: Format) -> io::Result<Terminal> {
        Ok(Terminal::new(io::stderr().as_fd().try_clone_to_owned()?.into(), format))
    }

    pub fn new(file: File, format: Format) -> Terminal {
        let (out, timeout) = (Unwaiting::new(file), READER_TIMEOUT);
        Terminal { out, format, timeout, is_stuck: false, line: String::new(), written: 0 }
    }

    /// Writes the rest of the line. Returns false if there is no room for it in time.
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

    /// The same. A line that can't go on is given up.
    fn go_on(&mut self) -> io::Result<bool> {
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
        if self.written > 0 && !self.go_on()? {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        match self.format {
            Format::Text => self.line.extend(["stalld: ", record.text]),
            Format::Json => record.json(&mut self.line),
        }
        self.line.push('\n');
        if !self.go_on()? && self.written == 0 {
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
        self.go_on().unwrap_or(true)
    }

    /// Whoever asked for all the details on a machine of 500 CPUs shall have them.
    fn lines_per_second(&self) -> u32 {
        1000
    }
}

/// Tells the user why stalld ends, whether there is a log or not.
pub fn fatal(error: &Error, format: Format) {
    on_stderr(Level::Error, error, format);
}

/// Writes one line past the log, to a user who may read no other.
pub fn on_stderr(level: Level, error: &Error, format: Format) {
    let line = super::Line::of(format_args!("{error}"));
    let record = Record::now(level, line.as_str());
    // If that fails, no user reads it.
    let _ = match Terminal::stderr(format) {
        Ok(terminal) => Terminal { timeout: LAST_TIMEOUT, ..terminal }.write(&record),
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
    fn a_line_is_given_up_when_nobody_reads() {
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

    /// All kinds of files that a reader can leave full.
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
                // No number of such lines fills a pipe, so it is full in the middle of one.
                let long = "x".repeat(9_001);
                let taken = (0..100_000).take_while(|i| write(&mut terminal, *i, &long)).count();
                assert!(!write(&mut terminal, taken, &long), "{kind}");
                assert!(kind == "socket" || !terminal.finish(), "{kind}");
                let mut reader = BufReader::new(reader.try_clone().unwrap());
                for i in 0..taken {
                    let mut line = String::new();
                    while !line.ends_with('\n') {
                        // There is room by now, and the reader must not wait for what is not
                        // written yet.
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
    fn a_reader_that_let_a_wait_time_out_is_not_waited_for_again_before_it_reads() {
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
