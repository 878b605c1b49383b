//! The standard error output, for people who watch, or for programs that read JSON.

use super::{Level, Record, Sink};
use crate::error::Error;
use crate::sys::file;
use crate::task::Nanos;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;

/// How long a reader may keep the log waiting: a pipe that is full for longer, or a terminal that was
/// stopped, costs the line, and the other sinks get theirs.
const PATIENCE: Nanos = Nanos::from_millis(100);
/// The same for the last words of a process.
const LAST_PATIENCE: Nanos = Nanos::from_secs(1);

/// What a line looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    #[default]
    Text,
    /// One object a line.
    Json,
}

/// Writes each line in one go. It has a descriptor of its own, past std's lock: a panic message must
/// get out while a line is stuck. That descriptor also outlives daemonizing, so it is for the foreground.
pub struct Terminal {
    file: File,
    format: Format,
    patience: Nanos,
    line: String,
}

impl Terminal {
    pub fn stderr(format: Format) -> io::Result<Terminal> {
        Ok(Terminal::new(io::stderr().as_fd().try_clone_to_owned()?.into(), format))
    }

    pub fn new(file: File, format: Format) -> Terminal {
        Terminal { file, format, patience: PATIENCE, line: String::new() }
    }
}

impl Sink for Terminal {
    fn write(&mut self, record: &Record) -> io::Result<()> {
        if !file::writable_within(&self.file, self.patience)? {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.line.clear();
        match self.format {
            Format::Text => self.line.extend(["stalld: ", record.text]),
            Format::Json => record.json(&mut self.line),
        }
        self.line.push('\n');
        self.file.write_all(self.line.as_bytes())
    }

    /// Whoever asked for all the details on a machine of 500 CPUs shall have them.
    fn lines_per_second(&self) -> u32 {
        1000
    }
}

/// Tells the user why stalld ends, whether there is a log or not.
pub fn fatal(error: &Error, format: Format) {
    let line = super::Line::of(format_args!("{error}"));
    let record = Record::now(Level::Error, line.as_str());
    // Nobody is left to be told that it failed.
    let _ = match Terminal::stderr(format) {
        Ok(terminal) => Terminal { patience: LAST_PATIENCE, ..terminal }.write(&record),
        Err(_) => writeln!(io::stderr(), "stalld: {}", line.as_str()),
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
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
            Terminal { patience: Nanos::ZERO, ..Terminal::new(OwnedFd::from(writer).into(), Format::Text) };
        let error = loop {
            if let Err(e) = terminal.write(&Record::now(Level::Info, "line")) {
                break e;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}
