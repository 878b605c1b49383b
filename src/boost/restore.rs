//! Restores a boosted task, if it has not ended and is still boosted.

use super::journal::{BoostPolicy, Boosted, Journal, Rank, Saved, Slot};
use super::kernel::{Attr, Kernel, RESET_ON_FORK};
use crate::error::errno_of;
use crate::fault::{self, Fault};
use crate::task::{Nanos, Policy, TaskId, Tid};
use std::io;

/// The priority of a task in a pulse: the highest but 99, which is left to tasks above all boosts.
pub const FIFO_PRIORITY: u32 = 98;

/// The outcome of a restore.
#[derive(Clone, Copy, Debug)]
pub enum RestoreOutcome {
    /// The task is scheduled as before. This is its tid now, which exec(2) may have changed.
    Restored(Tid),
    /// The task had got a rank above its own during a pulse. It is scheduled as before again.
    Lowered { tid: Tid, from: Saved },
    /// The task was not boosted: stalld ended between the record and the boost, or it is restored
    /// already.
    NeverBoosted,
    /// The task has ended.
    Gone,
    /// Another process has set the task's policy to this one since, and it stays.
    ChangedByOthers(Policy),
    /// The restore failed with this errno.
    Failed(i32),
}

impl RestoreOutcome {
    pub(super) fn has_failed(&self) -> bool {
        matches!(self, RestoreOutcome::Failed(_))
    }
}

/// Restores a boosted task. It may be restored already. A restore leaves the nice value,
/// utilization clamps and slice of the task as they are, because it uses sched_setscheduler(2) and
/// not sched_setattr(2). Newer kernels take the timer slack by either call, so it is given back.
///
/// During a pulse an unprivileged task can set any priority below 98 for itself and would keep it.
/// So a rank above the task's own is lowered after a pulse of such a task. No unprivileged task can
/// go from SCHED_DEADLINE to a real-time policy. So after a DEADLINE boost another policy was set
/// by a privileged process, and stays.
///
/// A thread that calls exec(2) gets the tid and the start of its leader. If no task has the tid of
/// the boost any more, the one with the leader's tid is restored instead. With `leader_is_boosted`
/// the leader has a boost of its own, so it is not that thread, and is not restored here.
pub fn undo(kernel: &impl Kernel, boosted: &Boosted, leader_is_boosted: bool) -> RestoreOutcome {
    undo_within(kernel, boosted, leader_is_boosted, boosted.highest_ranks())
}

/// Restores a task whose record another thread or process has claimed. The claimer may have
/// restored it long ago. So a rank that the task has been given since then does not come from the
/// boost, and stays.
pub(super) fn undo_after_another(
    kernel: &impl Kernel,
    boosted: &Boosted,
    leader_is_boosted: bool,
) -> RestoreOutcome {
    undo_within(kernel, boosted, leader_is_boosted, [Rank::ANY; 2])
}

/// `highest` are the highest ranks that the task may keep: by its own tid, and by its leader's.
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

/// Returns whether the leader has a record too. A record of an earlier task with the leader's tid
/// does not count.
pub(super) fn leader_is_boosted(journal: &Journal, slot: Slot, boosted: &Boosted) -> bool {
    journal.has_other(slot, |other| other.id() == boosted.leader())
}

/// Returns whether a task has a restore record: another thread or process boosts it now. A record
/// of a thread that has called exec(2) has the old tid of that thread.
pub(super) fn is_boosted(journal: &Journal, id: TaskId) -> bool {
    journal.has_other(Slot::default(), |other| other.tid == id.tid || other.leader() == id)
}

/// The time until a failed restore is tried again.
pub(super) const RETRY: Nanos = Nanos::from_secs(1);

/// Restores the task of a record that the caller has claimed. `retry` returns when the record is
/// due again; `None` clears the record.
pub(super) fn settle(
    kernel: &impl Kernel,
    journal: &Journal,
    slot: Slot,
    boosted: &Boosted,
    retry: impl Fn(&RestoreOutcome) -> Option<Nanos>,
) -> RestoreOutcome {
    let outcome = undo(kernel, boosted, leader_is_boosted(journal, slot, boosted));
    match retry(&outcome) {
        Some(end) => journal.postpone(slot, end),
        None => journal.clear(slot),
    }
    outcome
}

/// Restores one task, which may keep no rank above `highest`.
fn undo_as(kernel: &impl Kernel, id: TaskId, boosted: &Boosted, highest: Rank) -> RestoreOutcome {
    let TaskId { tid, start } = id;
    let attr = match kernel.get_attr(tid) {
        Ok(attr) => attr,
        Err(e) if e.raw_os_error() == Some(libc::ESRCH) => return RestoreOutcome::Gone,
        Err(e) => return RestoreOutcome::Failed(errno_of(&e)),
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
    match up_to_twice(|| kernel.set_scheduler(tid, policy, priority, reset_on_fork)) {
        Ok(()) => {
            give_slack_back(kernel, tid, timer_slack);
            match is_boosted {
                true => RestoreOutcome::Restored(tid),
                false => RestoreOutcome::Lowered { tid, from: Saved::of(kernel, tid, &attr) },
            }
        }
        Err(e) if e.raw_os_error() == Some(libc::ESRCH) => RestoreOutcome::Gone,
        Err(e) => RestoreOutcome::Failed(errno_of(&e)),
    }
}

/// The longest time that a call in progress takes to set a rank, if the calling task runs.
pub(super) const CALL: Nanos = Nanos::from_micros(4);

/// How often a rank is set without a pause to lower it once.
const LOWERINGS_IN_A_ROW: u32 = 5;

/// The most times in a row that a rank is lowered because it has come back.
const MAX_LOWERINGS: u64 = 60;

/// Lowers ranks that are set by calls in progress at the end of a pulse, until no more come.
/// Returns `Lowered` if there was one, else `None`. The call of a preempted task comes later, and
/// is left to `lower_late`.
pub(super) fn lower_until_none_comes(
    kernel: &impl Kernel,
    lower: impl Fn() -> Option<RestoreOutcome>,
) -> Option<RestoreOutcome> {
    let mut outcome = None;
    for round in 0..MAX_LOWERINGS {
        // The pauses differ, so that the task can't make its calls in step with them.
        let pause = CALL + Nanos(round * 370 % 3000);
        kernel.spin_until(kernel.now() + pause);
        match lower() {
            Some(lowered @ RestoreOutcome::Lowered { .. }) => outcome = Some(lowered),
            _ => break,
        }
    }
    outcome
}

/// Lowers a rank that the task was given after a pulse by a call that began in the pulse. Returns
/// `None` if there is no such rank, and `Gone` if the task has ended.
pub(super) fn lower_late(kernel: &impl Kernel, boosted: &Boosted) -> Option<RestoreOutcome> {
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
        Err(e) if e.raw_os_error() != Some(libc::ESRCH) => RestoreOutcome::Failed(errno_of(&e)),
        Err(_) => RestoreOutcome::Gone,
    })
}

/// Sets a policy several times without a pause. A task that sets its rank all the time makes its
/// next call during the first of these, waits for the task's lock, and sets the rank after it. But
/// by then the task is about to be preempted, and has no time for yet another call.
pub(super) fn lower_in_a_row(kernel: &impl Kernel, tid: Tid, before: &Saved) -> io::Result<()> {
    let Saved { policy, priority, reset_on_fork, .. } = *before;
    let lower = || kernel.set_scheduler(tid, policy, priority, reset_on_fork);
    (0..LOWERINGS_IN_A_ROW).try_for_each(|_| up_to_twice(lower))
}

/// Makes a call that takes a rank from a task, and makes it again if the kernel refuses it. A
/// refusal may be transient, and the task keeps the rank until the next try.
pub(super) fn up_to_twice(call: impl Fn() -> io::Result<()>) -> io::Result<()> {
    call().or_else(|_| call())
}

/// Takes a real-time rank from a fair task, whose policy does not give it one. The kernel computes
/// a rank anew only when the policy changes, so this sets another fair policy and then the task's
/// own.
pub(super) fn take_foreign_rank(kernel: &impl Kernel, id: TaskId) -> bool {
    let tid = id.tid;
    let Ok(attr) = kernel.get_attr(tid) else { return false };
    let between = if attr.policy == Policy::BATCH { Policy::OTHER } else { Policy::BATCH };
    if attr.policy.is_realtime() || attr.policy == Policy::DEADLINE || !kernel.is_itself(id) {
        return false;
    }
    let set = |policy| up_to_twice(|| kernel.set_scheduler(tid, policy, 0, attr.reset_on_fork()));
    set(between).and_then(|()| set(attr.policy)).is_ok()
}

/// Gives a task back the timer slack that a change of policy has taken.
pub(super) fn give_slack_back(kernel: &impl Kernel, tid: Tid, timer_slack: u64) {
    if timer_slack != 0 && kernel.timer_slack(tid) != Some(timer_slack) {
        // Most errors mean that the task has ended. The others have no remedy.
        let _ = kernel.set_timer_slack(tid, timer_slack);
    }
}

/// Returns whether the tid belongs to another task, or to none. If memory or descriptors are too
/// short to read /proc, a task that is scheduled exactly as by our boost counts as the boosted one,
/// because it must not stay boosted.
fn tid_was_reused(kernel: &impl Kernel, TaskId { tid, start }: TaskId, how: BoostPolicy) -> bool {
    match kernel.try_start(tid) {
        Ok(seen) => seen != Some(start),
        Err(_) => !kernel.get_attr(tid).is_ok_and(|attr| is_ours(&attr, how)),
    }
}

/// Returns whether a task is scheduled exactly as by a boost of stalld.
pub(super) fn is_ours(attr: &Attr, how: BoostPolicy) -> bool {
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
        BoostPolicy::Deadline { runtime, period } => kernel.set_deadline(tid, runtime, period, RESET_ON_FORK),
        BoostPolicy::Fifo => kernel.set_scheduler(tid, Policy::FIFO, FIFO_PRIORITY, true),
    }
}

impl Saved {
    /// Returns how a task is scheduled, from `attr` and the timer slack.
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

/// Formats it as people write it: `SCHED_FIFO 50`.
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

/// Returns the share of a CPU that `runtime` is of `period`, in millionths.
pub(super) fn share(runtime: Nanos, period: Nanos) -> u64 {
    runtime.0.saturating_mul(1_000_000) / period.0.max(1)
}
