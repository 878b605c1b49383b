//! The log: threads hand over their messages and go on, one thread of its own writes them.
//!
//! A write to a terminal, a pipe or the kernel's log can block behind the very task that starves,
//! and so can reading up what a message is to tell: that is the writer's work, and so is the text
//! of what happens to tasks. The thread that looks must never wait for that: a message that can't
//! be handed over at once, or written in time, is dropped, counted, and the number reported.

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

pub use event::{LogEvent, Looker};
pub use event_line::Millis;
pub use kmsg::{KMSG, Kmsg};
pub use outlet::Outlet;
pub use record::Record;
pub use syslog::Syslog;
pub use terminal::{Format, Terminal, fatal, on_stderr};
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
    /// What only -v shows.
    Debug,
}

impl Level {
    pub const ALL: [Level; 4] = [Level::Error, Level::Warning, Level::Info, Level::Debug];

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

/// A place that lines can be written to.
pub trait Sink: Send {
    /// Writes one message. It is not tried again when it fails.
    fn write(&mut self, record: &Record) -> io::Result<()>;

    /// Writes the rest of a line that had no room, without waiting. Returns false if there is still
    /// no room.
    fn finish(&mut self) -> bool {
        true
    }

    /// What the place can bear.
    fn lines_per_second(&self) -> u32 {
        200
    }

    /// How many of them may be of tasks of one CPU.
    fn lines_per_second_of_cpu(&self) -> u32 {
        50
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

    pub fn tell(&self, told: &LogEvent) {
        if self.shows(told.level()) {
            self.queue.tell(told);
            self.writer.unpark();
        }
    }

    /// False where a message of this level would go nowhere.
    pub fn shows(&self, level: Level) -> bool {
        self.up_to.is_some_and(|up_to| level <= up_to)
    }
}

/// Makes `line` the text as syslog and the kernel's log take it.
fn frame(line: &mut String, record: &Record) {
    line.clear();
    let priority = libc::LOG_DAEMON | record.level.syslog_priority();
    // Writing to a String does not fail.
    let _ = write!(line, "<{priority}>stalld[{}]: {}", std::process::id(), record.text);
}
