//! The command line, parsed and checked once into a struct of plain values.

mod draft;
mod table;
#[cfg(test)]
mod tests;

pub use super::log::Format;
pub use crate::command_line::{HostFacts, UsageError};
pub use crate::timing::Boost;
pub use table::{TABLE, help};

use crate::command_line::{self, Syntax};
use crate::cpus::CpuSet;
use crate::observe::Kind;
use crate::patterns::Patterns;
use crate::share::Share;
use crate::task::{Nanos, Tid};
use draft::Draft;
use std::ffi::OsString;
use std::path::PathBuf;

/// The options of a run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The CPUs to watch; `None` for all.
    pub cpus: Option<CpuSet>,
    /// The CPUs that stalld itself may run on; `None` to keep its affinity.
    pub affinity: Option<CpuSet>,
    pub threshold: Nanos,
    /// The threshold was given with a unit, so reports give waits to the millisecond.
    pub threshold_has_unit: bool,
    pub boost: Boost,
    /// The longest sleep between two scans.
    pub granularity: Nanos,
    /// Percent of a CPU that stalld reserves for itself.
    pub reservation: Option<u8>,
    pub boost_method: BoostMethod,
    /// The most that boosts together may take of a CPU in any second.
    pub max_loss: Option<Share>,
    pub mode: Mode,
    pub idle_detection: bool,
    pub log_only: bool,
    pub verbose: bool,
    pub log_kmsg: bool,
    pub log_syslog: bool,
    /// The format of log lines on the terminal.
    pub log_format: Format,
    pub foreground: bool,
    pub ignore_threads: Patterns,
    pub ignore_processes: Patterns,
    /// `None` for the best one that works on this kernel.
    pub backend: Option<Kind>,
    pub pidfile: Option<PathBuf>,
    /// The path of the metrics file for Prometheus.
    pub metrics: Option<PathBuf>,
    /// The path of the Perfetto trace.
    pub trace: Option<PathBuf>,
    /// Check that RT throttling is off, but do not change it (-S).
    pub systemd: bool,
}

impl Options {
    /// Returns runtime and period of a SCHED_DEADLINE boost; `None` with -F.
    pub fn deadline(&self) -> Option<(Nanos, Nanos)> {
        (self.boost_method != BoostMethod::Fifo).then_some((self.boost.runtime, self.boost.period))
    }
}

/// How tasks are boosted that may be boosted either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BoostMethod {
    /// By SCHED_DEADLINE if the kernel ends budgets in time, else in pulses of SCHED_FIFO.
    #[default]
    Auto,
    Deadline,
    Fifo,
}

impl BoostMethod {
    pub const ALL: [BoostMethod; 3] = [BoostMethod::Auto, BoostMethod::Deadline, BoostMethod::Fifo];

    pub fn name(self) -> &'static str {
        match self {
            BoostMethod::Auto => "auto",
            BoostMethod::Deadline => "deadline",
            BoostMethod::Fifo => "fifo",
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// One thread watches all CPUs.
    #[default]
    Power,
    /// A CPU gets a monitor once a task has waited there for half the threshold.
    Adaptive,
    /// Each CPU has a monitor from the start.
    Aggressive,
}

/// The command that the command line selects.
#[derive(Clone, Debug)]
pub enum Command {
    Run(Options),
    /// Print what this host offers and lacks, and exit.
    Check(Options),
    /// Restore what a killed stalld has left changed, and exit.
    Recover,
    /// Write `pid` to the pidfile, if the options name one, and exit.
    WritePidfile {
        path: Option<PathBuf>,
        pid: Tid,
    },
    Help,
    Version,
}

/// Parses a command line without the program's name.
pub fn parse(args: impl IntoIterator<Item = OsString>, host: &HostFacts) -> Result<Command, UsageError> {
    let mut draft = Draft::default();
    let syntax = Syntax {
        table: TABLE,
        word: |_, word| Err(UsageError::about("unexpected argument", word, "")),
        // Ignore all arguments after -h, -V and --recover.
        is_over: |draft| draft.asked.is_some(),
    };
    command_line::read(args, &syntax, host, &mut draft)?;
    match draft.asked.take() {
        Some(command) => Ok(command),
        None => draft.resolve(host),
    }
}
