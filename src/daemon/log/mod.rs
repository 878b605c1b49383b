//! The log: threads hand over their messages and go on, one thread of its own writes them.
//!
//! A write to a terminal, a pipe or the kernel's log can block behind the very task that starves, and so
//! can reading up what a message is to tell. The thread that looks must never wait for that: a message
//! that can't be handed over at once, or written in time, is dropped, counted, and the number reported.

mod kmsg;
mod line;
mod outlet;
mod queue;
mod syslog;
mod terminal;
mod writer;

pub use kmsg::{KMSG, Kmsg};
pub use outlet::Outlet;
pub use syslog::{SYSLOG, Syslog};
pub use terminal::{Terminal, fatal};
pub use writer::Writer;

use line::Line;
use queue::Queue;
use std::fmt::{self, Write};
use std::io;
use std::sync::Arc;
use std::thread::Thread;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Error,
    Warning,
    Info,
    /// What only -v shows.
    Debug,
}

impl Level {
    pub const ALL: [Level; 4] = [Level::Error, Level::Warning, Level::Info, Level::Debug];

    fn syslog_priority(self) -> i32 {
        match self {
            Level::Error => libc::LOG_ERR,
            Level::Warning => libc::LOG_WARNING,
            Level::Info => libc::LOG_INFO,
            Level::Debug => libc::LOG_DEBUG,
        }
    }
}

/// A place that lines can be written to.
pub trait Sink: Send {
    /// Writes one line of text without control characters. It is not tried again when it fails.
    fn write(&mut self, level: Level, text: &str) -> io::Result<()>;

    /// What the place can bear.
    fn lines_per_second(&self) -> u32 {
        200
    }
}

/// Takes messages from any thread. Nothing here waits.
#[derive(Clone)]
pub struct Logger {
    queue: Arc<Queue>,
    writer: Thread,
    /// The last level that any sink shows.
    up_to: Option<Level>,
}

impl Logger {
    pub fn error(&self, text: fmt::Arguments) {
        self.log(Level::Error, text);
    }

    pub fn warning(&self, text: fmt::Arguments) {
        self.log(Level::Warning, text);
    }

    pub fn info(&self, text: fmt::Arguments) {
        self.log(Level::Info, text);
    }

    pub fn verbose(&self, text: fmt::Arguments) {
        self.log(Level::Debug, text);
    }

    pub fn log(&self, level: Level, text: fmt::Arguments) {
        if self.shows(level) {
            self.queue.put(level, &Line::of(text));
            self.writer.unpark();
        }
    }

    /// For a message that has to be read up first: the closure runs in the thread that writes. Unlike
    /// the others, this allocates.
    pub fn defer(&self, level: Level, text: impl FnOnce() -> String + Send + 'static) {
        if self.shows(level) {
            self.queue.defer(level, Box::new(text));
            self.writer.unpark();
        }
    }

    /// False where a message of this level would go nowhere.
    pub fn shows(&self, level: Level) -> bool {
        self.up_to.is_some_and(|up_to| level <= up_to)
    }
}

/// Makes `line` the text as syslog and the kernel's log take it.
fn frame(line: &mut String, level: Level, text: &str) {
    line.clear();
    let priority = libc::LOG_DAEMON | level.syslog_priority();
    // Writing to a String does not fail.
    let _ = write!(line, "<{priority}>stalld[{}]: {text}", std::process::id());
}
