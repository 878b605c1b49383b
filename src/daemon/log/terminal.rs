//! The standard error output, for people who watch.

use super::{Level, Sink};
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

/// Writes each line in one go. It has a descriptor of its own, past std's lock: a panic message must
/// get out while a line is stuck. That descriptor also outlives daemonizing, so it is for the foreground.
pub struct Terminal {
    file: File,
    patience: Nanos,
    line: String,
}

impl Terminal {
    pub fn stderr() -> io::Result<Terminal> {
        Ok(Terminal::new(io::stderr().as_fd().try_clone_to_owned()?.into()))
    }

    pub fn new(file: File) -> Terminal {
        Terminal { file, patience: PATIENCE, line: String::new() }
    }
}

impl Sink for Terminal {
    fn write(&mut self, _: Level, text: &str) -> io::Result<()> {
        if !file::writable_within(&self.file, self.patience)? {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.line.clear();
        self.line.extend(["stalld: ", text, "\n"]);
        self.file.write_all(self.line.as_bytes())
    }

    /// Whoever asked for all the details on a machine of 500 CPUs shall have them.
    fn lines_per_second(&self) -> u32 {
        1000
    }
}

/// Tells the user why stalld ends, whether there is a log or not.
pub fn fatal(error: &Error) {
    let line = super::Line::of(format_args!("{error}"));
    // Nobody is left to be told that it failed.
    let _ = match Terminal::stderr() {
        Ok(terminal) => Terminal { patience: LAST_PATIENCE, ..terminal }.write(Level::Error, line.as_str()),
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
        let mut terminal = Terminal::new(OwnedFd::from(writer).into());
        terminal.write(Level::Info, "using task_iter backend").unwrap();
        terminal.write(Level::Debug, "checking cpu 1 - rt: 1 - starving: 0").unwrap();
        drop(terminal);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "stalld: using task_iter backend\nstalld: checking cpu 1 - rt: 1 - starving: 0\n");
    }

    #[test]
    fn a_line_is_given_up_when_nobody_reads() {
        let (_reader, writer) = UnixStream::pair().unwrap();
        let mut terminal = Terminal { patience: Nanos::ZERO, ..Terminal::new(OwnedFd::from(writer).into()) };
        let error = loop {
            if let Err(e) = terminal.write(Level::Info, "line") {
                break e;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}
