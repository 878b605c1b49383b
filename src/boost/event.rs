//! Events: what stalld has done to tasks, or failed to do.

use super::journal::{BoostPolicy, Saved};
use super::restore::RestoreOutcome;
use crate::error::errno_of;
use crate::task::{Nanos, Policy, Task, Tid};
use std::io;

/// Why a task was not boosted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The task has ended. Its tid may belong to another one.
    Gone,
    /// The task is SCHED_DEADLINE, and needs no boost.
    IsDeadline,
    /// The journal has no room for a restore record.
    JournalFull,
    /// Another thread of stalld, or another process, boosts the task, or the guardian has just
    /// restored it.
    Taken,
    /// Another process has set the policy of the task to this one since.
    ChangedByOthers(Policy),
    /// The errno with which the kernel refused.
    Kernel(i32),
}

/// Errors by which the kernel reports that it lacks something at the moment.
const PASSING: [i32; 6] = [libc::EAGAIN, libc::EBUSY, libc::EINTR, libc::EMFILE, libc::ENFILE, libc::ENOMEM];

impl Refusal {
    /// Returns whether the task still needs the boost that it did not get.
    pub(crate) fn is_failure(&self) -> bool {
        matches!(self, Refusal::Kernel(_) | Refusal::JournalFull)
    }

    /// Returns whether the same boost may succeed in a moment.
    pub fn may_pass(&self) -> bool {
        match *self {
            Refusal::Taken | Refusal::JournalFull | Refusal::ChangedByOthers(_) => true,
            Refusal::Kernel(errno) => PASSING.contains(&errno),
            Refusal::Gone | Refusal::IsDeadline => false,
        }
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Refusal {
        Refusal::Kernel(errno_of(&error))
    }
}

/// An event. The log, the metrics, the trace and the C API all render this one type.
#[derive(Clone, Copy, Debug)]
pub enum Event {
    Boosted {
        task: Task,
        how: BoostPolicy,
    },
    Refused {
        task: Task,
        how: BoostPolicy,
        why: Refusal,
    },
    /// The end of a boost. `outcome` shows how the task is scheduled now.
    Over {
        task: Task,
        before: Saved,
        after: Nanos,
        early: bool,
        outcome: RestoreOutcome,
    },
    /// A task that is not boosted now had a rank above its own. stalld has lowered it.
    Lowered {
        task: Task,
        from: Saved,
        before: Saved,
    },
    /// A child of a boosted task has been given this policy, which it would have inherited.
    Adopted {
        parent: Task,
        child: Tid,
        policy: Saved,
    },
    /// A child of a boosted task may need this policy. It keeps its own, which may be intended.
    Orphan {
        parent: Task,
        child: Tid,
        policy: Saved,
    },
}

impl Event {
    /// Returns the task of the event; for a child, its parent.
    pub(crate) fn task(&self) -> &Task {
        match self {
            Event::Boosted { task, .. }
            | Event::Refused { task, .. }
            | Event::Over { task, .. }
            | Event::Lowered { task, .. }
            | Event::Adopted { parent: task, .. }
            | Event::Orphan { parent: task, .. } => task,
        }
    }
}
