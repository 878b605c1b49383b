//! What happens to a task, for whoever tells of it.

use super::journal::{BoostPolicy, Saved};
use super::restore::RestoreOutcome;
use crate::task::{Nanos, Policy, Task, Tid};
use std::io;

/// Why a task was not boosted.
#[derive(Debug)]
pub enum Refusal {
    /// It has gone, or is another task by now.
    Gone,
    /// Its policy needs no help.
    IsDeadline,
    /// No room to note how to undo it.
    JournalFull,
    /// Another thread of ours has it in hand.
    Taken,
    /// Somebody has set its policy since.
    ChangedByOthers(Policy),
    /// The kernel's word.
    Kernel(io::Error),
}

/// Something that happened to a task.
#[derive(Debug)]
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
    Over {
        task: Task,
        before: Saved,
        after: Nanos,
        early: bool,
        outcome: RestoreOutcome,
    },
    /// A rank above its own has been taken from a task that is not boosted now.
    Lowered {
        task: Task,
        from: Saved,
        before: Saved,
    },
    /// A task born to a boosted one has been given its policy.
    Adopted {
        parent: Task,
        child: Tid,
        policy: Saved,
    },
    /// It should perhaps have it, but may as well be as it is on purpose.
    Orphan {
        parent: Task,
        child: Tid,
        policy: Saved,
    },
}
