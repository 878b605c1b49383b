//! The guardian: a small process that puts everything back when stalld can't any more.
//!
//! It is forked before anything else is started, shares the journal, and waits for the end of a pipe that
//! only stalld holds. It also restores what is overdue, in case stalld lives but does not get to it.

use crate::boost::journal::{Journal, Undo};
use crate::boost::recover;
use crate::cpus::{self, CpuSet};
use crate::error::{Context, Error, Result};
use crate::sys::{clock, file, process, sched};
use crate::task::{Nanos, Policy, Tid};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

/// stalld's end of the pipe. The guardian acts when it is closed.
pub struct Guardian {
    line: Arc<File>,
    pub tid: Tid,
}

impl Guardian {
    /// Forks it; to be called while there is one thread. `keep` are descriptors whose locks it shares, so
    /// that no other stalld starts before it has put everything back. `says` is for its last words.
    pub fn fork(journal: &Arc<Journal>, keep: &[RawFd], says: bool) -> Result<Guardian> {
        let (theirs, ours) = process::pipe().context("make a pipe to the guardian")?;
        file::never_wait(&ours).context("make a pipe to the guardian")?;
        let mut keep = keep.to_vec();
        keep.push(theirs.as_raw_fd());
        let tid = process::child(c"stall-guard", &keep, || {
            if !says {
                // Nothing is left to be done about it if it fails.
                let _ = process::leave_standard_descriptors();
            }
            guard(journal, theirs);
        })
        .context("start the guardian")?;
        // Above all, and wherever there is room: it sleeps until there is something to undo, and what it has to
        // undo may be what keeps a CPU. Not left to the guardian, which may not have run yet when it is needed.
        // Without the right to that it is an ordinary process.
        let _ = sched::set_affinity(tid, &CpuSet::first(cpus::configured()));
        let _ = sched::set_scheduler(tid, Policy::FIFO, 99, true);
        Ok(Guardian { line: Arc::new(ours), tid })
    }

    /// Tells the guardian that there is a new record. It never waits.
    pub fn waker(&self) -> Arc<dyn Fn() + Send + Sync> {
        let line = Arc::clone(&self.line);
        Arc::new(move || {
            // A full pipe wakes it as well, and a broken one is noticed by `is_there`.
            let _ = (&*line).write(&[0]);
        })
    }

    /// False once it has been killed.
    pub fn is_there(&self) -> bool {
        !matches!((&*self.line).write(&[0]), Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe)
    }
}

/// The life of the guardian.
fn guard(journal: &Journal, mut line: File) {
    loop {
        let due = journal.open().filter_map(|(_, record)| match record {
            Undo::Boost(boosted) => Some(recover::due(&boosted)),
            _ => None,
        });
        let patience = match due.min() {
            Some(due) => due - clock::monotonic(),
            None => Nanos::MAX,
        };
        let mut news = [0; 4096];
        match file::readable_within(&line, patience) {
            Ok(true) if matches!(line.read(&mut news), Ok(0)) => break,
            Ok(true) => {}
            Ok(false) | Err(_) => tell(&recover::overdue(journal, clock::monotonic()), "stalld is stuck"),
        }
    }
    tell(&recover::everything(journal), "stalld has ended without cleaning up");
}

/// After the deed, and only what goes out at once: whoever reads stderr, or does not, must not hold it up.
fn tell(recovered: &[recover::Recovered], why: &str) {
    for one in recovered {
        if file::writable_within(std::io::stderr(), Nanos::ZERO).unwrap_or(false) {
            let _ = writeln!(std::io::stderr(), "stalld: {why}: {one}");
        }
    }
}

/// Why boosts have to go without a guardian, as an error.
pub fn missing() -> Error {
    Error::new("the guardian has been killed: nothing puts tasks back if stalld is killed, too")
        .with_cure("restart stalld")
}
