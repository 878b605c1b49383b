//! The command line: read once, checked once, and from then on one struct of plain values.

mod draft;
mod table;
#[cfg(test)]
mod tests;

pub use super::log::Format;
pub use crate::command_line::{Host, UsageError};
pub use crate::timing::Boost;
pub use table::{TABLE, help};

use crate::command_line::{self, Syntax};
use crate::cpus::CpuSet;
use crate::observe::Kind;
use crate::patterns::Patterns;
use crate::task::{Nanos, Tid};
use draft::Draft;
use std::ffi::OsString;
use std::path::PathBuf;

/// What the user wants of stalld.
#[derive(Clone, Debug)]
pub struct Options {
    /// The CPUs to watch; None for all.
    pub cpus: Option<CpuSet>,
    /// The CPUs stalld itself may run on; None to leave that as it is.
    pub affinity: Option<CpuSet>,
    pub threshold: Nanos,
    /// Whether the threshold was written with a unit: then reports give waits to the millisecond.
    pub threshold_has_unit: bool,
    pub boost: Boost,
    /// The longest stalld sleeps between two looks.
    pub granularity: Nanos,
    /// Percent of a CPU that stalld reserves for itself.
    pub reservation: Option<u8>,
    pub force_fifo: bool,
    pub mode: Mode,
    pub idle_detection: bool,
    pub log_only: bool,
    pub verbose: bool,
    pub log_kmsg: bool,
    pub log_syslog: bool,
    /// Of the lines that go to the terminal.
    pub log_format: Format,
    pub foreground: bool,
    pub ignore_threads: Patterns,
    pub ignore_processes: Patterns,
    /// None for the best one that works on this kernel.
    pub backend: Option<Kind>,
    pub pidfile: Option<PathBuf>,
    /// Where numbers for Prometheus are kept.
    pub metrics: Option<PathBuf>,
    /// Where who waits and who is boosted is drawn.
    pub trace: Option<PathBuf>,
    /// Leave RT throttling alone, only check that it is off.
    pub systemd: bool,
}

impl Options {
    /// Runtime and period of a boost by SCHED_DEADLINE, if there may be one.
    pub fn deadline(&self) -> Option<(Nanos, Nanos)> {
        (!self.force_fifo).then_some((self.boost.runtime, self.boost.period))
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// One thread watches all CPUs.
    #[default]
    Power,
    /// A CPU gets a monitor of its own once a task is about to starve there.
    Adaptive,
    /// Each CPU has a monitor of its own from the start.
    Aggressive,
}

/// What the command line asks for.
#[derive(Clone, Debug)]
pub enum Command {
    Run(Options),
    /// Say what this host offers and lacks, and end.
    Check(Options),
    /// Undo what a stalld that was killed has left behind, and end.
    Recover,
    /// Write the number of this process to its pidfile, if there is to be one, and end.
    WritePidfile {
        path: Option<PathBuf>,
        pid: Tid,
    },
    Help,
    Version,
}

/// Reads a command line, the program's name left out.
pub fn parse(args: impl IntoIterator<Item = OsString>, host: &Host) -> Result<Command, UsageError> {
    let mut draft = Draft::default();
    let syntax = Syntax {
        table: TABLE,
        word: |_, word| Err(UsageError::about("unexpected argument", word, "")),
        // Nothing that stands after -h or -V is looked at.
        is_over: |draft| draft.asked.is_some(),
    };
    command_line::read(args, &syntax, host, &mut draft)?;
    match draft.asked.take() {
        Some(command) => Ok(command),
        None => draft.resolve(host),
    }
}
