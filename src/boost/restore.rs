//! Puts a boosted task back, if it is still that task and still boosted.

use super::journal::{BoostPolicy, Boosted, Journal, Rank, Saved, Slot};
use super::kernel::Kernel;
use crate::fault::{self, Fault};
use crate::proc::births::Birth;
use crate::sys::sched::{self, Attr};
use crate::task::{Nanos, Policy, TaskId, Tid};
use std::io;

/// Below only those at 99, who are nobody's business.
pub const FIFO_PRIORITY: u32 = 98;

/// What became of it.
#[derive(Debug)]
pub enum RestoreOutcome {
    /// This task is scheduled as it was. It may go by another number than it had.
    Restored(Tid),
    /// The task had been given a rank above its own during a pulse, and is scheduled as it was
    /// again.
    Lowered {
        tid: Tid,
        from: Saved,
    },
    /// It was not boosted after all: stalld ended between the record and the change.
    NeverBoosted,
    Gone,
    /// Somebody else has set its policy since: that is left as it is.
    ChangedByOthers(Policy),
    Failed(io::Error),
}

/// Undoes a boost, and may be called for one that is undone. The nice value, the clamps and the
/// slice are the task's own all along: sched_setscheduler(2) touches none of them, sched_setattr(2)
/// would. The timer slack is lost on newer kernels, whichever call is used, and is given back.
///
/// During a pulse an unprivileged task can set any priority below 98 for itself and would keep it.
/// So a rank above the task's own is lowered after a pulse of such a task. No unprivileged task can
/// go from SCHED_DEADLINE to a real-time policy, so after a DEADLINE boost another policy was set
/// by a privileged process and stays.
///
/// The thread that calls exec(2) gets the number of its process, and the start of its leader,
/// wherever it was before. A leader that has a boost of its own, as `leader_is_boosted` says, is
/// not that thread.
pub fn undo(kernel: &impl Kernel, boosted: &Boosted, leader_is_boosted: bool) -> RestoreOutcome {
    undo_within(kernel, boosted, leader_is_boosted, boosted.highest_ranks())
}

/// The same for a boost that another party has claimed, and may have undone long ago: a rank that
/// the task has been given since then is no leftover of the boost, and stays.
pub fn undo_after_another(
    kernel: &impl Kernel,
    boosted: &Boosted,
    leader_is_boosted: bool,
) -> RestoreOutcome {
    undo_within(kernel, boosted, leader_is_boosted, [Rank::ANY; 2])
}

/// `highest` are the highest ranks that the task may keep: by its own number, and by that of its process.
fn undo_within(
    kernel: &impl Kernel,
    boosted: &Boosted,
    leader_is_boosted: bool,
    highest: [Rank; 2],
) -> RestoreOutcome {
    let [own, by_exec] = highest;
    let outcome = undo_as(kernel, boosted.id(), boosted, own);
    let may_have_moved = boosted.tgid != boosted.tid && !leader_is_boosted;
    if !matches!(outcome, RestoreOutcome::Gone) || !may_have_moved {
        return outcome;
    }
    match undo_as(kernel, boosted.leader(), boosted, by_exec) {
        RestoreOutcome::ChangedByOthers(_) | RestoreOutcome::NeverBoosted => RestoreOutcome::Gone,
        outcome => outcome,
    }
}

/// Whether there is a record of the leader, too. One of who had its number before is none.
pub fn leader_is_boosted(journal: &Journal, slot: Slot, boosted: &Boosted) -> bool {
    journal.has_other(slot, |other| other.id() == boosted.leader())
}

/// What could not be undone is tried again after this.
pub const RETRY: Nanos = Nanos::from_secs(1);

/// Undoes the boost of a record that the caller has claimed, and clears the record. If that has
/// failed, or `stays` returns true for the outcome, the record is due again at `retry`.
pub fn settle(
    kernel: &impl Kernel,
    journal: &Journal,
    slot: Slot,
    boosted: &Boosted,
    retry: Nanos,
    stays: impl Fn(&RestoreOutcome) -> bool,
) -> RestoreOutcome {
    let outcome = undo(kernel, boosted, leader_is_boosted(journal, slot, boosted));
    if matches!(outcome, RestoreOutcome::Failed(_)) || stays(&outcome) {
        journal.postpone(slot, retry);
    } else {
        journal.clear(slot);
    }
    outcome
}

/// `highest` is the highest rank that the task may keep.
fn undo_as(kernel: &impl Kernel, id: TaskId, boosted: &Boosted, highest: Rank) -> RestoreOutcome {
    let TaskId { tid, start } = id;
    let attr = match kernel.get_attr(tid) {
        Ok(attr) => attr,
        Err(e) if e.raw_os_error() == Some(libc::ESRCH) => return RestoreOutcome::Gone,
        Err(e) => return RestoreOutcome::Failed(e),
    };
    if start != 0 && tid_was_reused(kernel, id, boosted.how) {
        return RestoreOutcome::Gone;
    }
    let is_boosted = is_ours(&attr, boosted.how);
    if !is_boosted {
        if boosted.before.is(&attr) {
            return RestoreOutcome::NeverBoosted;
        }
        // A zombie keeps its policy without the budget until its parent has waited for it.
        if matches!(kernel.state(tid), None | Some(b'Z' | b'X')) {
            return RestoreOutcome::Gone;
        }
        let rank = Rank::of(attr.policy, attr.priority);
        let is_too_high =
            boosted.how == BoostPolicy::Fifo && attr.policy != Policy::DEADLINE && rank > highest;
        if !is_too_high || fault::is(Fault::RankKept) {
            return RestoreOutcome::ChangedByOthers(attr.policy);
        }
    }
    let Saved { policy, priority, reset_on_fork, timer_slack, .. } = boosted.before;
    match kernel.set_scheduler(tid, policy, priority, reset_on_fork) {
        Ok(()) => {
            give_slack_back(kernel, tid, timer_slack);
            match is_boosted {
                true => RestoreOutcome::Restored(tid),
                false => RestoreOutcome::Lowered { tid, from: Saved::of(kernel, tid, &attr) },
            }
        }
        Err(e) if e.raw_os_error() == Some(libc::ESRCH) => RestoreOutcome::Gone,
        Err(e) => RestoreOutcome::Failed(e),
    }
}

/// A call that a task is in the middle of takes no longer than this to set a rank, if the task
/// runs.
pub const CALL: Nanos = Nanos::from_micros(4);

/// How often a rank is lowered without a pause.
const LOWERINGS_IN_A_ROW: u32 = 5;

/// How often a rank is lowered at once that comes back again and again.
const MAX_LOWERINGS: u64 = 60;

/// Lowers a rank that a call has set which was under way at the end of a pulse, until none comes
/// any more. `Lowered` if there was one, else `None`. A call of a task that was preempted comes
/// later: see `lower_late`.
pub fn lower_until_none_comes(
    kernel: &impl Kernel,
    lower: impl Fn() -> Option<RestoreOutcome>,
) -> Option<RestoreOutcome> {
    let mut outcome = None;
    for round in 0..MAX_LOWERINGS {
        // Each pause is another one, so that the task does not make its calls in step with it.
        let pause = CALL + Nanos(round * 370 % 3000);
        kernel.spin_until(kernel.now() + pause);
        match lower() {
            Some(lowered @ RestoreOutcome::Lowered { .. }) => outcome = Some(lowered),
            _ => break,
        }
    }
    outcome
}

/// Lowers a rank that a call from the time of a pulse has given the task since. `None` if there is
/// none.
pub fn lower_late(kernel: &impl Kernel, boosted: &Boosted) -> Option<RestoreOutcome> {
    let Boosted { tid, before, .. } = *boosted;
    let attr = match kernel.get_attr(tid) {
        Ok(attr) => attr,
        Err(e) => return (e.raw_os_error() == Some(libc::ESRCH)).then_some(RestoreOutcome::Gone),
    };
    let [highest, _] = boosted.highest_ranks();
    let is_late =
        attr.reset_on_fork() && attr.policy.is_realtime() && Rank::of(attr.policy, attr.priority) > highest;
    if !is_late {
        return None;
    }
    if !kernel.is_itself(boosted.id()) {
        return Some(RestoreOutcome::Gone);
    }
    Some(match lower_in_a_row(kernel, tid, &before) {
        Ok(()) => {
            give_slack_back(kernel, tid, before.timer_slack);
            RestoreOutcome::Lowered { tid, from: Saved::of(kernel, tid, &attr) }
        }
        Err(e) if e.raw_os_error() != Some(libc::ESRCH) => RestoreOutcome::Failed(e),
        Err(_) => RestoreOutcome::Gone,
    })
}

/// Sets a policy several times without a pause. A task that sets its rank all the time makes the
/// next call while the first one of these holds the lock of the task, so the task has the last
/// word. But then it is on its way to be preempted, and has no time for yet another call.
fn lower_in_a_row(kernel: &impl Kernel, tid: Tid, before: &Saved) -> io::Result<()> {
    let Saved { policy, priority, reset_on_fork, .. } = *before;
    (0..LOWERINGS_IN_A_ROW).try_for_each(|_| kernel.set_scheduler(tid, policy, priority, reset_on_fork))
}

/// Gives a task what its parent had before a pulse, if the task has a real-time policy that it may
/// not have set for itself. A fork copies the parent without a lock: the policy of a pulse, and
/// RESET_ON_FORK, which it should have obeyed, from before or after it. Such a task may have chosen
/// a lower priority since.
pub fn lower_child(kernel: &impl Kernel, child: &Birth, before: &Saved) -> Option<RestoreOutcome> {
    let tid = child.tid;
    let attr = kernel.get_attr(tid).ok()?;
    if !attr.policy.is_realtime() && take_foreign_rank(kernel, child.id()) {
        let rank = Saved { policy: Policy::FIFO, priority: FIFO_PRIORITY, ..Saved::of(kernel, tid, &attr) };
        return Some(RestoreOutcome::Lowered { tid, from: rank });
    }
    let is_of_pulse = attr.policy.is_realtime()
        && Rank::of(attr.policy, attr.priority) > Rank::of(before.policy, before.priority)
        && kernel.priority_limit(tid).is_ok_and(|limit| u64::from(attr.priority) > limit);
    if !is_of_pulse || !kernel.is_itself(child.id()) {
        return None;
    }
    Some(match lower_in_a_row(kernel, tid, before) {
        Ok(()) => RestoreOutcome::Lowered { tid, from: Saved::of(kernel, tid, &attr) },
        Err(e) => RestoreOutcome::Failed(e),
    })
}

/// Takes a real-time rank from a fair task that has it by no policy. The kernel computes the rank
/// of a task anew only when its policy changes, so another fair policy comes in between.
pub fn take_foreign_rank(kernel: &impl Kernel, id: TaskId) -> bool {
    let tid = id.tid;
    let Ok(attr) = kernel.get_attr(tid) else { return false };
    let between = if attr.policy == Policy::BATCH { Policy::OTHER } else { Policy::BATCH };
    if attr.policy.is_realtime() || attr.policy == Policy::DEADLINE || !kernel.is_itself(id) {
        return false;
    }
    let set = |policy| kernel.set_scheduler(tid, policy, 0, attr.reset_on_fork());
    set(between).and_then(|()| set(attr.policy)).is_ok()
}

/// What the change of policy has taken from it.
pub fn give_slack_back(kernel: &impl Kernel, tid: Tid, timer_slack: u64) {
    if timer_slack != 0 && kernel.timer_slack(tid) != Some(timer_slack) {
        // It may have ended; nothing else can go wrong that could be helped.
        let _ = kernel.set_timer_slack(tid, timer_slack);
    }
}

/// Whether the task of that start has ended. Where /proc can't tell, for want of memory or
/// descriptors, who is scheduled as no task is but by a boost of ours is taken to be it: it must
/// not stay so.
fn tid_was_reused(kernel: &impl Kernel, TaskId { tid, start }: TaskId, how: BoostPolicy) -> bool {
    match kernel.try_start(tid) {
        Ok(seen) => seen != Some(start),
        Err(_) => !kernel.get_attr(tid).is_ok_and(|attr| is_ours(&attr, how)),
    }
}

/// Whether a task is scheduled just as a boost of ours schedules it.
pub fn is_ours(attr: &Attr, how: BoostPolicy) -> bool {
    attr.reset_on_fork()
        && match how {
            BoostPolicy::Deadline { runtime, period } => {
                let Attr { policy, runtime: has_runtime, period: has_period, .. } = *attr;
                (policy, has_runtime, has_period) == (Policy::DEADLINE, runtime, period)
            }
            BoostPolicy::Fifo => (attr.policy, attr.priority) == (Policy::FIFO, FIFO_PRIORITY),
        }
}

/// Schedules a task as a boost does.
pub fn apply(kernel: &impl Kernel, tid: Tid, how: BoostPolicy) -> io::Result<()> {
    match how {
        BoostPolicy::Deadline { runtime, period } => {
            kernel.set_deadline(tid, runtime, period, sched::RESET_ON_FORK)
        }
        BoostPolicy::Fifo => kernel.set_scheduler(tid, Policy::FIFO, FIFO_PRIORITY, true),
    }
}

impl Saved {
    /// How a task is scheduled, of which the kernel has just said `attr`.
    pub fn of(kernel: &impl Kernel, tid: Tid, attr: &Attr) -> Saved {
        let has_slack = !attr.policy.is_realtime();
        Saved {
            policy: attr.policy,
            priority: attr.priority,
            reset_on_fork: attr.reset_on_fork(),
            nice: attr.nice,
            timer_slack: if has_slack { kernel.timer_slack(tid).unwrap_or(0) } else { 0 },
        }
    }

    pub fn is(&self, attr: &Attr) -> bool {
        (self.policy, self.priority, self.reset_on_fork) == (attr.policy, attr.priority, attr.reset_on_fork())
    }
}

/// As people write it: `SCHED_FIFO 50`.
impl std::fmt::Display for Saved {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self.policy.name() {
            Some(name) => f.write_str(name)?,
            None => write!(f, "policy {}", self.policy.0)?,
        }
        if self.policy.is_realtime() {
            write!(f, " {}", self.priority)?;
        }
        Ok(())
    }
}

/// A budget of this length in each period, of a CPU's time, in millionths.
pub fn share(runtime: Nanos, period: Nanos) -> u64 {
    runtime.0.saturating_mul(1_000_000) / period.0.max(1)
}
