//! The actions on tasks that boosts consist of.

use super::active::Ward;
use super::event::{Event, Refusal};
use super::journal::{Boosted, Saved, Slot};
use super::restore::RestoreOutcome;
use crate::proc::births::Birth;
use crate::task::{Nanos, Owner, Task};

/// The actions on tasks, which a test can simulate.
pub trait Actuator: Send {
    /// Returns the owner of a task where the backend does not know it.
    fn owner(&self, task: &Task) -> Owner;

    /// Makes a task SCHED_DEADLINE, and notes first how to undo that.
    fn raise(&mut self, task: &Task, end: Nanos) -> Result<BoostHandle, Refusal>;

    /// Undoes that, or finds it undone: between two pulses, or by a guardian that was faster.
    fn restore(&mut self, raised: &BoostHandle) -> RestoreOutcome;

    /// Waits, for no longer than a run may take, until a task just raised has had its budget. False
    /// if it has not been given its CPU, None where the kernel does not tell.
    fn await_first_run(&mut self, raised: &BoostHandle) -> Option<bool>;

    /// One period of FIFO emulation: puts a task above the hog for the length of its budget. It has
    /// to be scheduled as it was at the first pulse.
    fn pulse(&mut self, task: &Task, before: Option<Saved>) -> Result<Pulse, Refusal>;

    /// Lowers a rank that a task was given after its last pulse, by a call that began in that.
    /// Returns `None` if there is nothing to lower.
    fn lower_late(&mut self, raised: &BoostHandle) -> Option<RestoreOutcome>;

    /// Returns when and by which process a task was started.
    fn birth(&self, task: &Task) -> Option<Birth>;

    /// Gives a task that was born with the policy or the rank of a pulse what its boosted parent
    /// had before. Returns `None` if it has neither.
    fn lower_child(&mut self, child: &Birth, parent: &BoostHandle) -> Option<RestoreOutcome>;

    /// Takes a real-time rank from a task that has it by no policy. Returns whether that was done.
    fn take_foreign_rank(&mut self, task: &Task) -> bool;

    /// Gives the children of these tasks the policy that they would have inherited. Takes a bounded
    /// time, and returns false if that was not enough to find all of them.
    fn adopt(&mut self, wards: &[Ward], events: &mut Vec<Event>) -> bool;
}

/// A pulse that is over.
#[derive(Debug)]
pub struct Pulse {
    pub raised: BoostHandle,
    pub outcome: RestoreOutcome,
    /// Whether the task was given its CPU; None where the kernel does not tell.
    pub ran: Option<bool>,
}

/// A task that has been raised.
#[derive(Clone, Copy, Debug)]
pub struct BoostHandle {
    pub boosted: Boosted,
    pub slot: Slot,
    /// In clock ticks since boot: who started later was born during the boost.
    pub since: u64,
    /// How often it had been given a CPU before, where the kernel tells.
    pub runs: Option<u64>,
}
