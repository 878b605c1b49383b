//! The guardian: a small process that restores everything when stalld can't any more.
//!
//! It shares the journal, and waits for the end of a line that only stalld holds. It also restores
//! what is overdue, in case stalld lives but does not get to it.
//!
//! It restores tasks and RT throttling without allocating, also when the kernel refuses: a program
//! around the library has threads, and one of them may have held the allocator's lock at the fork.
//! Two things allocate: the restore of HRTICK, which comes last, and the report on stderr. Only
//! stalld itself asks for them, and it has one thread when it forks the guardian.

use super::journal::{Journal, RestoreRecord};
use super::kernel::Host;
use super::recover::{self, Recovered};
use crate::cpus::CpuSet;
use crate::error::{Context, Error, Result};
use crate::fault::{self, Fault};
use crate::sys::process::{self, Fork};
use crate::sys::{clock, cpu, file, memory, sched};
use crate::task::{Nanos, Policy, Tid};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

/// What goes down the line: that there is a new record, ...
const NEWS: u8 = 0;
/// ... and that the guardian is to end, after a last look at the journal.
const FAREWELL: u8 = 1;

/// Between one try and the next, where the kernel refuses.
const REST: Nanos = Nanos::from_millis(10);

/// For as long it tries to put back what the kernel refuses: what has been reserved for a task that
/// was DEADLINE counts until its period is over, and throttling can't be turned on meanwhile.
const PERSISTENCE: Nanos = Nanos::from_secs(2);

/// The program that forks a guardian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ward {
    /// stalld in the foreground: its guardian reports on stderr.
    Foreground,
    /// stalld as a daemon.
    Daemon,
    /// A program around the library. Its memory may be large, so the guardian leaves that unlocked.
    Program,
}

/// stalld's end of the line. The guardian acts when it is closed.
pub struct Guardian {
    line: Arc<File>,
    pub tid: Tid,
}

impl Guardian {
    /// Forks it. `keep` are descriptors whose locks it shares, so that no other stalld starts
    /// before it has put everything back. `fork` must suit a child that restores tasks and
    /// settings.
    pub fn fork(journal: &Arc<Journal>, keep: &[RawFd], ward: Ward, fork: Fork) -> Result<Guardian> {
        let (ours, theirs) = process::line().context("make a line to the guardian")?;
        // A program around the library may fork, and its child have a copy of our end.
        let parent = process::watch_own();
        let mut keep = keep.to_vec();
        keep.push(theirs.as_raw_fd());
        keep.extend(parent.as_ref().map(|parent| parent.as_raw_fd()));
        let tid = fork(c"stall-guard", &keep, &mut || {
            if ward != Ward::Foreground {
                // Nothing is left to be done about it if it fails.
                let _ = process::leave_standard_descriptors();
            }
            if ward != Ward::Program {
                settle_in();
            }
            guard(journal, &theirs, parent.as_ref(), ward == Ward::Foreground);
        })
        .context("start the guardian")?;
        // Above all, and wherever there is room: it sleeps until there is something to undo, and
        // what it has to undo may be what keeps a CPU. Not left to the guardian, which may not have
        // run yet when it is needed. Without the right to that it is an ordinary process.
        let _ = sched::set_affinity(tid, &CpuSet::first(cpu::configured()));
        let _ = sched::set_scheduler(tid, Policy::FIFO, 99, true);
        Ok(Guardian { line: Arc::new(ours), tid })
    }

    /// Tells the guardian that there is a new record. It never waits.
    pub fn waker(&self) -> Arc<dyn Fn() + Send + Sync> {
        let line = Arc::clone(&self.line);
        Arc::new(move || {
            // One that is full wakes it as well, and a broken one is noticed by `is_there`.
            let _ = process::send(&line, NEWS);
        })
    }

    /// Lets it go, and waits no longer than this for that.
    pub fn dismiss(self, patience: Nanos) {
        // One that is full or broken has nobody at its other end who would read.
        let _ = process::send(&self.line, FAREWELL);
        process::reap(self.tid, patience);
    }

    /// False once it has been killed.
    pub fn is_there(&self) -> bool {
        !matches!(process::send(&self.line, NEWS), Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe)
    }
}

/// Makes the guardian as safe from a shortage of memory as stalld makes itself: a child inherits
/// neither its parent's locks nor what the parent sets later. stalld has the same rights, and logs
/// what it lacks.
fn settle_in() {
    if fault::is(Fault::GuardianUnlocked) {
        return;
    }
    memory::fault_in_stack();
    let _ = memory::load_and_lock_all();
    let _ = memory::spare_from_oom_killer();
}

/// The life of the guardian.
fn guard(journal: &Journal, mut line: &File, parent: Option<&OwnedFd>, says: bool) {
    loop {
        // Who makes a record from now on, and before this has been told until when it sleeps, has
        // it woken.
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
                    tell(&one, "stalld is stuck", says);
                });
                // Out of memory, or the like. It runs above everybody, so it must not do without a
                // rest.
                if outcome.is_err() {
                    clock::nap(REST);
                }
            }
        }
    }
    recover::everything(&Host, journal, |one| tell(&one, "stalld has ended without cleaning up", says));
    let until = clock::monotonic() + PERSISTENCE;
    while journal.live().next().is_some() && clock::monotonic() < until {
        clock::nap(REST);
        recover::everything(&Host, journal, |one| {
            if one.is_done() {
                tell(&one, "after some tries", says);
            }
        });
    }
}

/// After the deed, and only what goes out at once: whoever reads stderr, or does not, must not hold
/// it up.
fn tell(one: &Recovered, why: &str, says: bool) {
    if says && file::writable_within(std::io::stderr(), Nanos::ZERO).unwrap_or(false) {
        let _ = writeln!(std::io::stderr(), "stalld: {why}: {one}");
    }
}

/// Why boosts have to go without a guardian, as an error.
pub fn missing() -> Error {
    Error::new("the guardian has been killed: nothing puts tasks back if stalld is killed, too")
        .with_cure("restart stalld")
}
