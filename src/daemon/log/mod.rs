//! The log: threads put messages into a queue, and a writer thread writes them.
//!
//! A write to a terminal, a pipe or the kernel's log can block, even on the task that starves. The
//! lookup of a hog's cgroup can block too. Only the writer does such work, and it formats the
//! events. A scanning thread never waits: a message that can't be queued at once, or written in
//! time, is dropped. The log reports the number of dropped messages.

mod event;
mod event_line;
mod kmsg;
mod line;
mod outlet;
mod per_cpu;
mod queue;
mod record;
mod syslog;
mod terminal;
mod writer;

pub use event::{LogEvent, Scanner, of_task};
pub(super) use event_line::Millis;
pub(super) use kmsg::{KMSG, Kmsg};
pub use outlet::Outlet;
pub use record::Record;
pub use syslog::Syslog;
pub use terminal::{Format, Terminal, fatal, on_stderr, on_stderr_at_once};
pub use writer::Writer;

use line::Line;
use queue::{Message, Queue};
use std::fmt::{self, Write};
use std::io;
use std::sync::Arc;
use std::thread::Thread;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Error,
    Warning,
    Info,
    /// Shown only with -v.
    Debug,
}

impl Level {
    pub(super) const ALL: [Level; 4] = [Level::Error, Level::Warning, Level::Info, Level::Debug];

    fn name(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warning => "warning",
            Level::Info => "info",
            Level::Debug => "debug",
        }
    }

    fn syslog_priority(self) -> i32 {
        match self {
            Level::Error => libc::LOG_ERR,
            Level::Warning => libc::LOG_WARNING,
            Level::Info => libc::LOG_INFO,
            Level::Debug => libc::LOG_DEBUG,
        }
    }
}

/// A destination of lines.
pub trait Sink: Send {
    /// Writes one message. The caller does not retry it.
    fn write(&mut self, record: &Record) -> io::Result<()>;

    /// Writes the rest of a partly written line, without waiting. Returns false if there is still
    /// no room.
    fn finish(&mut self) -> bool {
        true
    }

    /// Returns the maximum number of lines per second.
    fn lines_per_second(&self) -> u32 {
        200
    }

    /// Returns the maximum number of lines per second about tasks of one owner on one CPU.
    fn lines_per_second_of_cpu(&self) -> u32 {
        50
    }
}

/// Accepts messages from any thread. It never blocks.
#[derive(Clone)]
pub struct Logger {
    queue: Arc<Queue>,
    writer: Thread,
    /// The most verbose level that any sink shows.
    up_to: Option<Level>,
}

impl Logger {
    pub(super) fn error(&self, text: fmt::Arguments) {
        self.log(Level::Error, text);
    }

    pub fn warning(&self, text: fmt::Arguments) {
        self.log(Level::Warning, text);
    }

    pub(super) fn info(&self, text: fmt::Arguments) {
        self.log(Level::Info, text);
    }

    pub(super) fn verbose(&self, text: fmt::Arguments) {
        self.log(Level::Debug, text);
    }

    pub(super) fn log(&self, level: Level, text: fmt::Arguments) {
        if self.shows(level) {
            self.queue.put(level, &Line::of(text));
            self.writer.unpark();
        }
    }

    pub fn emit(&self, event: &LogEvent) {
        if self.shows(event.level()) {
            self.queue.emit(event);
            self.writer.unpark();
        }
    }

    /// Returns false if no sink shows messages of this level.
    pub(super) fn shows(&self, level: Level) -> bool {
        self.up_to.is_some_and(|up_to| level <= up_to)
    }
}

/// Sets `line` to the message in the format of syslog and of the kernel's log.
fn frame(line: &mut String, record: &Record) {
    line.clear();
    let priority = libc::LOG_DAEMON | record.level.syslog_priority();
    // Writing to a String does not fail.
    let _ = write!(line, "<{priority}>stalld[{}]: {}", std::process::id(), record.text);
}
