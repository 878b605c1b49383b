//! The guardian: a small process that undoes the changes of stalld if stalld ends without doing so.
//!
//! It shares the journal with stalld, and waits for stalld to close its end of a socket pair, the
//! line. It also restores tasks whose boosts are overdue, because stalld may live but be stuck.
//!
//! It restores tasks and RT throttling without allocating, even if the kernel refuses: a program
//! with the library has threads, and one of them may have held the allocator's lock at the fork.
//! Two things allocate: turning HRTICK off, which comes last, and the reports on stderr. Only
//! stalld uses them, and it has one thread when it forks the guardian.

pub mod journal_file;

use crate::boost::journal::{Journal, RestoreRecord};
use crate::boost::kernel::Host;
use crate::boost::recover::{self, Recovered};
use crate::cpus::CpuSet;
use crate::error::{Context, Error, Result};
use crate::fault::{self, Fault};
use crate::sys::process::{self, Fork};
use crate::sys::{clock, cpu, file, memory, sched};
use crate::task::{Nanos, Policy, Tid};
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

/// The byte on the line that announces a new record.
const NEWS: u8 = 0;
/// The byte on the line that ends the guardian, after it has read the journal once more.
const FAREWELL: u8 = 1;

/// The time until a restore that the kernel refused is tried again.
const REST: Nanos = Nanos::from_millis(10);

/// How long refused restores are tried again. The kernel counts the reservation of a task that was
/// SCHED_DEADLINE until its period is over, and throttling can't be turned on until then.
const PERSISTENCE: Nanos = Nanos::from_secs(2);

/// The program that forks a guardian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuardedProgram {
    Stalld,
    /// A program with the library. Its memory may be large, so the guardian does not lock its own
    /// copy.
    Program,
}

/// Writes a line about a restore, and never waits for its reader.
pub type ReportFn<'a> = &'a dyn Fn(fmt::Arguments);

/// stalld's end of the line. The guardian acts when this end is closed.
pub struct Guardian {
    line: Arc<File>,
    pub tid: Tid,
}

impl Guardian {
    /// Forks the guardian. It shares the locks of the descriptors in `keep`, so that no other
    /// stalld starts before it has undone all changes. `report` may allocate. `fork` must suit a
    /// child that restores tasks and settings.
    pub fn fork(
        journal: &Arc<Journal>,
        keep: &[RawFd],
        program: GuardedProgram,
        report: Option<ReportFn>,
        fork: Fork,
    ) -> Result<Guardian> {
        let (ours, theirs) = process::control_socketpair().context("make a line to the guardian")?;
        // A child of a program with the library may have a copy of our end, and so keep it open. So
        // the guardian watches the process, too.
        let parent = process::watch_own();
        let mut keep = keep.to_vec();
        keep.push(theirs.as_raw_fd());
        keep.extend(parent.as_ref().map(|parent| parent.as_raw_fd()));
        let tid = fork(c"stall-guard", &keep, &mut || {
            if report.is_none() {
                // An error has no remedy.
                let _ = process::leave_standard_descriptors();
            }
            if program != GuardedProgram::Program {
                protect_itself();
            }
            guard(journal, &theirs, parent.as_ref(), report);
        })
        .context("start the guardian")?;
        // The guardian runs at FIFO 99 on all CPUs, because the task that it has to restore may
        // occupy one of them. It sleeps until then. stalld sets this, because the guardian may have
        // to act before it has run at all. Without the privilege, the guardian is an ordinary
        // process.
        let _ = sched::set_affinity(tid, &CpuSet::first(cpu::configured()));
        let _ = sched::set_scheduler(tid, Policy::FIFO, 99, true);
        Ok(Guardian { line: Arc::new(ours), tid })
    }

    /// Returns a function that wakes the guardian for a new record, and never waits.
    pub fn waker(&self) -> Arc<dyn Fn() + Send + Sync> {
        let line = Arc::clone(&self.line);
        Arc::new(move || {
            // A full line wakes the guardian as well. A broken one is found by `is_there`.
            let _ = process::send(&line, NEWS);
        })
    }

    /// Ends the guardian. Waits at most `patience` for its end.
    pub fn dismiss(self, patience: Nanos) {
        // No guardian reads a line that is full or broken.
        let _ = process::send(&self.line, FAREWELL);
        process::reap(self.tid, patience);
    }

    /// Returns false if the guardian has ended.
    pub fn is_there(&self) -> bool {
        !matches!(process::send(&self.line, NEWS), Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe)
    }
}

/// Protects the guardian from a shortage of memory, as stalld protects itself. A child does not
/// inherit the memory locks of its parent, nor what the parent sets later. Errors are ignored,
/// because stalld has the same rights and logs what fails.
fn protect_itself() {
    if fault::is(Fault::GuardianUnlocked) {
        return;
    }
    memory::fault_in_stack();
    let _ = memory::load_and_lock_all();
    let _ = memory::spare_from_oom_killer();
}

/// Runs the guardian until stalld has ended, and then undoes the changes of stalld.
fn guard(journal: &Journal, mut line: &File, parent: Option<&OwnedFd>, report: Option<ReportFn>) {
    loop {
        // From now until the next wake-up time is in the journal, each thread that writes a record
        // wakes the guardian.
        journal.sleeps_until(Nanos::MAX);
        let due = journal.open().filter_map(|(_, record)| match record {
            RestoreRecord::Boost(boosted) => Some(recover::due(&boosted)),
            _ => None,
        });
        let due = due.min().unwrap_or(Nanos::MAX);
        journal.sleeps_until(due);
        let patience = due - clock::monotonic();
        let mut news = [0; 4096];
        match file::either_readable_within(line, parent, patience) {
            Ok((_, true)) => break,
            Ok((true, _)) => match line.read(&mut news) {
                Ok(0) => break,
                Ok(len) if news.iter().take(len).any(|&word| word == FAREWELL) => break,
                _ => {}
            },
            outcome => {
                recover::overdue(&Host, journal, clock::monotonic(), |one| {
                    report_restore(&one, "stalld is stuck", report);
                });
                // poll(2) has failed, perhaps because memory is short. The guardian outranks all
                // tasks, so it must not spin.
                if outcome.is_err() {
                    clock::nap(REST);
                }
            }
        }
    }
    recover::everything(&Host, journal, |one| {
        report_restore(&one, "stalld has ended without cleaning up", report);
    });
    let until = clock::monotonic() + PERSISTENCE;
    while journal.live().next().is_some() && clock::monotonic() < until {
        clock::nap(REST);
        recover::everything(&Host, journal, |one| {
            if one.is_done() {
                report_restore(&one, "after some tries", report);
            }
        });
    }
}

/// Reports a restore.
fn report_restore(one: &Recovered, why: &str, report: Option<ReportFn>) {
    if let Some(report) = report {
        report(format_args!("{why}: {one}"));
    }
}

/// Returns the error that reports the end of the guardian.
pub fn missing() -> Error {
    Error::new("the guardian has been killed: nothing puts tasks back if stalld is killed, too")
        .with_cure("restart stalld")
}
