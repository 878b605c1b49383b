//! Finds children that were born with the policy or the rank of a pulse, and lowers them.
//!
//! A fork copies its parent without a lock, and a pulse may begin or end in between. The child may
//! get the policy of the pulse without the RESET_ON_FORK flag, and can then raise itself. Or it may
//! get the rank of the pulse without the policy.

use super::actuator::BoostHandle;
use super::adopt::BUDGET;
use super::journal::{Boosted, Journal, Rank, Saved, Slot};
use super::kernel::{Attr, Birth, Kernel, Walk};
use super::probation::{Entry, Probation};
use super::restore::{
    FIFO_PRIORITY, is_boosted, lower_in_a_row, lower_late, lower_until_none_comes, take_foreign_rank,
};
use crate::task::{Nanos, Policy, Task, Tid};

/// The number of tids without a task that one pass reads again. Fork floods leave many of them, and
/// passes are frequent.
const REREADS: usize = 16;

/// The most threads of a process that are searched for an older one with the rank of a child.
const ELDERS: usize = 64;

/// A child that was lowered.
#[derive(Clone, Copy, Debug)]
pub struct LoweredChild {
    pub task: Task,
    /// The pulse by which the child got its rank, as if it had been a pulse of the child.
    pub raised: BoostHandle,
    pub from: Saved,
}

/// Reads each new task once while there are tasks on probation.
#[derive(Clone)]
pub(super) struct PulseChildren {
    walk: Walk,
}

impl Default for PulseChildren {
    fn default() -> PulseChildren {
        PulseChildren { walk: Walk::with_rereads(REREADS) }
    }
}

impl PulseChildren {
    /// Lowers the children of tasks on probation that have a rank from a pulse. Takes a bounded
    /// time, and continues there at the next call.
    pub(super) fn lower(
        &mut self,
        kernel: &impl Kernel,
        journal: &Journal,
        parents: &Probation,
        each: &mut dyn FnMut(LoweredChild),
    ) {
        let Some(since) = parents.iter().map(|entry| entry.births).min() else {
            *self = PulseChildren::default();
            return;
        };
        let until = kernel.now() + BUDGET;
        kernel.births(&mut self.walk, since, &mut |birth| {
            let lowered = birth.and_then(|birth| lower_if_of_pulse(kernel, journal, &birth, parents));
            lowered.into_iter().for_each(&mut *each);
            kernel.now() < until
        });
    }
}

/// Lowers a child if it has a rank from a pulse of a task on probation. Such a child gets the
/// policy that its parent had before the pulse.
pub(super) fn lower_if_of_pulse(
    kernel: &impl Kernel,
    journal: &Journal,
    child: &Birth,
    parents: &Probation,
) -> Option<LoweredChild> {
    let tid = child.tid;
    let attr = kernel.get_attr(tid).ok()?;
    let has_foreign_rank = child.prio < 100 && !attr.policy.is_realtime() && attr.policy != Policy::DEADLINE;
    let is_suspect = has_foreign_rank || is_above_limit(kernel, tid, &attr);
    if !is_suspect || is_boosted(journal, child.id()) {
        return None;
    }
    let parent = parent_of(kernel, child, parents)?;
    let before = parent.raised.boosted.before;
    let from = Saved::of(kernel, tid, &attr);
    let (own, from) = if has_foreign_rank {
        let from = Saved { policy: Policy::FIFO, priority: FIFO_PRIORITY, ..from };
        take_foreign_rank(kernel, child.id()).then_some((Saved::of(kernel, tid, &attr), from))?
    } else {
        let is_higher = Rank::of(attr.policy, attr.priority) > Rank::of(before.policy, before.priority);
        if !is_higher
            || is_inherited(kernel, child, &attr, parents, parent.births)
            || !kernel.is_itself(child.id())
        {
            return None;
        }
        lower_in_a_row(kernel, tid, &before).ok()?;
        (before, from)
    };
    let tgid = kernel.process_of(tid).unwrap_or(tid);
    let raised = as_pulse_of(child, tgid, &parent.raised, own);
    let comm = kernel.comm(tid).unwrap_or(parent.task.comm);
    let owner = kernel.owner(tid);
    let task = Task { tid, tgid: Some(tgid), start: child.start, comm, owner, ..parent.task };
    // The child may set its rank all the time.
    let _ = lower_until_none_comes(kernel, || lower_late(kernel, &raised.boosted));
    Some(LoweredChild { task, raised, from })
}

/// Returns whether a task has a real-time policy that it is not allowed to set.
fn is_above_limit(kernel: &impl Kernel, tid: Tid, attr: &Attr) -> bool {
    attr.policy.is_realtime()
        && kernel.priority_limit(tid).is_some_and(|limit| u64::from(attr.priority) > limit)
}

/// Returns the task on probation from which a child may have its rank: a thread of its process or
/// of its parent process. A child whose parent has ended has another one now, so a task of the same
/// owner that has ended counts too.
fn parent_of(kernel: &impl Kernel, child: &Birth, parents: &Probation) -> Option<Entry> {
    let born_since = || parents.iter().filter(|entry| child.start >= entry.births);
    let tgid = kernel.process_of(child.tid);
    let is_near = |entry: &&Entry| {
        let of_entry = entry.raised.boosted.tgid;
        entry.task.tid != child.tid && (child.parent == of_entry || tgid == Some(of_entry))
    };
    let owner = kernel.owner(child.tid);
    let has_ended = |entry: &&Entry| {
        entry.task.owner == owner
            && !owner.may_take_any_rank()
            && !kernel.is_itself(entry.raised.boosted.id())
    };
    born_since().find(is_near).or_else(|| born_since().find(has_ended)).copied()
}

/// Returns whether a child may have its rank from an older thread, which had it before the pulse.
/// A thread on probation may have its rank from its own pulse. No other task has the priority of a
/// pulse.
fn is_inherited(kernel: &impl Kernel, child: &Birth, attr: &Attr, parents: &Probation, births: u64) -> bool {
    let rank = Rank::of(attr.policy, attr.priority);
    let is_elder = |&tid: &Tid| {
        kernel.start(tid).is_some_and(|start| start < births)
            && parents.iter().all(|entry| entry.task.tid != tid)
            && kernel.get_attr(tid).is_ok_and(|attr| Rank::of(attr.policy, attr.priority) >= rank)
    };
    let tgids = [kernel.process_of(child.tid), Some(child.parent)];
    let mut threads = tgids.into_iter().flatten().flat_map(|tgid| kernel.threads(tgid, ELDERS));
    attr.priority != FIFO_PRIORITY && threads.any(|tid| is_elder(&tid))
}

/// Returns the handle of the pulse that a child would have had. The child is put on probation by
/// it.
fn as_pulse_of(child: &Birth, tgid: Tid, raised: &BoostHandle, before: Saved) -> BoostHandle {
    let Birth { tid, start, .. } = *child;
    let end = Nanos::ZERO;
    let boosted = Boosted { tid, tgid, start, leader_start: start, end, before, ..raised.boosted };
    BoostHandle { boosted, slot: Slot::default(), since: start, runs: None }
}
