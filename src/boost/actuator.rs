//! The interface to the actions on tasks that boosts need.

use super::active::Ancestor;
use super::event::{Event, Refusal};
use super::journal::{Boosted, Saved, Slot};
use super::kernel::Standing;
use super::probation::Probation;
use super::pulse_children::LoweredChild;
use super::restore::RestoreOutcome;
use crate::task::{Nanos, Owner, Task, Tid};

/// The actions on tasks. `KernelActuator` performs them on the kernel, and a test can simulate
/// them.
pub trait Actuator: Send {
    /// Raises this thread above all hogs, until `descend`. On a real-time kernel a task may be
    /// preempted while it holds a lock that this thread needs, and then it runs by the priority of
    /// this thread.
    fn ascend(&mut self);

    /// Gives this thread its own priority back.
    fn descend(&mut self);

    /// Returns the current owner of a task.
    fn owner(&self, task: &Task) -> Owner;

    /// Returns true if no user may change the affinity of a task, or if that is not known.
    fn may_be_bound(&self, task: &Task) -> bool;

    /// Returns how often a task has been given a CPU; `None` if the kernel does not count that.
    fn runs(&self, task: &Task) -> Option<u64>;

    /// Returns the CPU time that a task has used; `None` if the kernel does not count that, or if
    /// the task has ended.
    fn cpu_time(&self, task: &Task) -> Option<Nanos>;

    /// Returns the current time.
    fn now(&self) -> Nanos;

    /// Returns where a task is queued now; `None` if it has ended.
    fn standing(&self, tid: Tid) -> Option<Standing>;

    /// Makes a task SCHED_DEADLINE, after writing a restore record. The boost is to be over at
    /// `end`.
    fn raise(&mut self, task: &Task, end: Nanos) -> Result<BoostHandle, Refusal>;

    /// Restores a task. It may be restored already, between two pulses or by the guardian.
    fn restore(&mut self, raised: &BoostHandle) -> RestoreOutcome;

    /// Waits until a task gets a CPU that was raised at `since`, but only for a bounded time since
    /// then.
    fn await_first_run(&mut self, raised: &BoostHandle, since: Nanos) -> Run;

    /// Waits for as long as tasks that have just got their CPUs need to use up their budgets.
    fn await_budgets(&mut self);

    /// Makes one pulse: puts a task above the hog for the length of its budget, and restores it.
    /// After the first pulse, `before` is how the task was scheduled then. The pulse is refused if
    /// that has changed.
    fn pulse(&mut self, task: &Task, before: Option<Saved>) -> Result<Pulse, Refusal>;

    /// Lowers a rank that a task was given after its last pulse by a call that began in the pulse.
    /// Returns `None` if there is no such rank, and `Gone` if the task has ended.
    fn lower_late(&mut self, raised: &BoostHandle) -> Option<RestoreOutcome>;

    /// Lowers a task if it was born with the policy or the rank of a pulse of one of these tasks.
    fn lower_child(&mut self, task: &Task, parents: &Probation) -> Option<LoweredChild>;

    /// Does the same for all tasks that were born since these pulses, each once. Takes a bounded
    /// time, and goes on at the next call.
    fn lower_children(&mut self, parents: &Probation, each: &mut dyn FnMut(LoweredChild));

    /// Takes a real-time rank from a task whose policy does not give it one. Returns whether that
    /// succeeded.
    fn take_foreign_rank(&mut self, task: &Task) -> bool;

    /// Gives the children of these tasks the policy that they would have inherited. Takes a bounded
    /// time, and returns false if that was not enough to find all of them.
    fn adopt(&mut self, ancestors: &[Ancestor], events: &mut Vec<Event>) -> bool;
}

/// A pulse that is over.
#[derive(Debug)]
pub struct Pulse {
    pub raised: BoostHandle,
    pub outcome: RestoreOutcome,
    pub run: Run,
    pub ended: Nanos,
}

/// Whether a boosted task got a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    Given,
    Missed,
    /// The kernel does not count the runs of tasks.
    Unknown,
}

/// A boost that has been made, with its restore record.
#[derive(Clone, Copy, Debug)]
pub struct BoostHandle {
    pub boosted: Boosted,
    pub slot: Slot,
    /// When the boost was made, in clock ticks since boot: a task that started later may have been
    /// born during the boost.
    pub since: u64,
    /// How often the task had been given a CPU before the boost; `None` if the kernel does not
    /// count that.
    pub runs: Option<u64>,
}
