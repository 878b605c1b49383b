//! The command line: read once, checked once, and from then on one struct of plain values.

mod draft;
pub(super) mod length;
mod table;
#[cfg(test)]
mod tests;

pub use super::log::Format;
pub use crate::timing::Boost;
pub use table::help;

use crate::cpus::CpuSet;
use crate::denylist::Denylist;
use crate::observe::Kind;
use crate::task::{Escaped, Nanos};
use draft::Draft;
use lexopt::Arg;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use table::{Opt, Takes};

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
    pub ignore_threads: Denylist,
    pub ignore_processes: Denylist,
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
    Help,
    Version,
}

/// What a command line means depends on this much of the host.
#[derive(Clone, Copy, Debug)]
pub struct Host {
    pub configured_cpus: u32,
    /// A service manager waits to hear from this very process, which so must not daemonize.
    pub notify_socket: bool,
}

/// Why a command line was refused, as one line. What the user typed is in it as it was typed, and is
/// escaped when shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageError(OsString);

/// Reads a command line, the program's name left out.
pub fn parse(args: impl IntoIterator<Item = OsString>, host: &Host) -> Result<Command, UsageError> {
    let mut parser = lexopt::Parser::from_args(args);
    // As getopt(3) has it: the value of `-c=0` is `=0`.
    parser.set_short_equals(false);
    let mut draft = Draft::default();
    while let Some(arg) = parser.next().map_err(UsageError::new)? {
        let (opt, name, is_long) = match arg {
            Arg::Short(letter) => (Opt::by_letter(letter)?, format!("-{letter}"), false),
            Arg::Long(name) => {
                let opt = Opt::by_name(name)?;
                (opt, format!("--{}", opt.long), true)
            }
            Arg::Value(value) => return Err(UsageError::about("unexpected argument", &value, "")),
        };
        let refused = |value: &OsStr, reason: &str| UsageError::about(&name, value, &format!(": {reason}"));
        let missing = |what: &str| UsageError::new(format!("{name} needs a value: {what}"));
        match opt.takes {
            Takes::Nothing(set) => {
                // Behind the letter of a short option stands the next option.
                let value = if is_long { parser.optional_value() } else { None };
                if let Some(value) = value {
                    return Err(refused(&value, "this option takes no value"));
                }
                set(&mut draft);
            }
            Takes::Text(what, set) => {
                let value = parser.value().map_err(|_| missing(what))?;
                let text = value.to_str().ok_or_else(|| refused(&value, "not UTF-8"))?;
                set(&mut draft, text, host).map_err(|reason| refused(&value, &reason))?;
            }
            Takes::Path(what, set) => {
                let value = parser.value().map_err(|_| missing(what))?;
                if value.is_empty() {
                    return Err(refused(&value, "a path is missing"));
                }
                set(&mut draft, value.into());
            }
        }
        // Nothing that stands after -h or -V is looked at.
        if let Some(command) = draft.asked.take() {
            return Ok(command);
        }
    }
    draft.resolve(host)
}

impl UsageError {
    fn new(message: impl fmt::Display) -> UsageError {
        UsageError(message.to_string().into())
    }

    /// `BEFORE 'VALUE'AFTER`, the value in whatever bytes it was typed.
    fn about(before: &str, value: &OsStr, after: &str) -> UsageError {
        let mut message = OsString::from(before);
        message.push(" '");
        message.push(value);
        message.push("'");
        message.push(after);
        UsageError(message)
    }
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        Escaped(self.0.as_bytes()).fmt(f)
    }
}

impl std::error::Error for UsageError {}
