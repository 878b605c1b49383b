//! Boosts and restores tasks on the kernel, with a record in the journal for each boost.

use super::active::Ancestor;
use super::adopt::ForkedChildren;
use super::event::{Event, Refusal};
use super::identity::{refusal, same_by_name};
use super::journal::{BoostPolicy, Boosted, Journal, Rank, RestoreRecord, Saved, Slot};
use super::kernel::{Attr, Host, Kernel, Standing};
use super::own_priority::{self, enter_fifo99, leave};
use super::plan::{Actuator, BoostHandle, Pulse, Run};
use super::probation::Probation;
use super::pulse_children::{LoweredChild, PulseChildren, lower_if_of_pulse};
use super::recover::due;
use super::restore::{
    RETRY, RestoreOutcome, apply, is_boosted, is_ours, leader_is_boosted, lower_late, lower_until_none_comes,
    settle, take_foreign_rank, undo, undo_after_another, up_to_twice,
};
use crate::fault::{self, Fault};
use crate::task::{Cpu, Nanos, Owner, Policy, Task, Tid};
use std::io;
use std::sync::Arc;

/// How long to wait until a task has a CPU after its DEADLINE boost. A task without one by then
/// will not get it soon, because the hog is in the kernel.
const MAX_FIRST_RUN_DELAY: Nanos = Nanos::from_millis(2);

/// The same for a pulse. The scanning thread spins meanwhile. The other CPU learns of the pulse by
/// an interrupt.
const MAX_PULSE_DELAY: Nanos = Nanos::from_micros(200);

/// The time between two checks whether the task of a pulse has its CPU.
const RUN_CHECK_INTERVAL: Nanos = Nanos::from_micros(2);

/// The time that the identity check at the end of a pulse takes. The task still runs then.
const IDENTITY_CHECK_TIME: Nanos = Nanos::from_micros(10);

/// The guardian restores a task this long after the end of its DEADLINE boost.
const DEADLINE_GRACE: Nanos = Nanos::from_secs(1);

/// The guardian restores a task at least this long after the end of a pulse. It is short because a
/// task in a pulse outranks all tasks but stalld, and a hypervisor may have stopped the CPU of
/// stalld.
const MIN_PULSE_GRACE: Nanos = Nanos::from_millis(2);

/// The actuator for the kernel. Each thread that boosts has its own.
#[derive(Clone)]
pub struct KernelActuator<K = Host> {
    kernel: K,
    journal: Arc<Journal>,
    /// Wakes the guardian for a new record that is due before the guardian wakes by itself.
    wake: Arc<dyn Fn() + Send + Sync>,
    /// How a DEADLINE boost schedules a task.
    how: BoostPolicy,
    /// The budget of a DEADLINE boost, and the length of a pulse.
    runtime: Nanos,
    children: ForkedChildren,
    pulse_children: PulseChildren,
    /// A delay between the record and the system call, for tests.
    delay: Nanos,
    /// How this thread was scheduled before `ascend`, or before a pulse whose priority it still
    /// has.
    own: Option<Attr>,
}

/// A boost that has a record in the journal and is not made yet.
#[derive(Clone, Copy)]
struct JournaledBoost {
    boosted: Boosted,
    slot: Slot,
}

impl KernelActuator {
    pub fn new(
        journal: Arc<Journal>,
        runtime: Nanos,
        period: Nanos,
        wake: Arc<dyn Fn() + Send + Sync>,
    ) -> KernelActuator {
        KernelActuator::over(Host, journal, runtime, period, wake)
    }
}

impl<K: Kernel> KernelActuator<K> {
    pub fn over(
        kernel: K,
        journal: Arc<Journal>,
        runtime: Nanos,
        period: Nanos,
        wake: Arc<dyn Fn() + Send + Sync>,
    ) -> KernelActuator<K> {
        let how = BoostPolicy::Deadline { runtime, period };
        KernelActuator {
            kernel,
            journal,
            wake,
            how,
            runtime,
            children: ForkedChildren::default(),
            pulse_children: PulseChildren::default(),
            delay: test_delay(),
            own: None,
        }
    }

    /// Returns how a task is scheduled. Fails if that is not `before`, which is given after the
    /// first pulse. Fails with `Taken` if the task is scheduled exactly as by a boost: then another
    /// process boosts it, and its policy is not its own.
    fn attr_of(&self, tid: Tid, before: Option<Saved>) -> Result<Attr, Refusal> {
        let attr = self.kernel.get_attr(tid).map_err(refusal)?;
        match attr.policy {
            _ if is_ours(&attr, self.how) || is_ours(&attr, BoostPolicy::Fifo) => Err(Refusal::Taken),
            policy if before.is_some_and(|before| !before.is(&attr)) => Err(Refusal::ChangedByOthers(policy)),
            Policy::DEADLINE => Err(Refusal::IsDeadline),
            _ => Ok(attr),
        }
    }

    /// Writes the record of a boost that is about to be made.
    fn note(
        &self,
        task: &Task,
        before: Option<Saved>,
        how: BoostPolicy,
        end: Nanos,
    ) -> Result<JournaledBoost, Refusal> {
        let Task { tid, .. } = *task;
        let start = match task.start {
            0 => same_by_name(&self.kernel, task)?,
            start if self.kernel.try_start(tid)? == Some(start) => start,
            _ => return Err(Refusal::Gone),
        };
        let tgid = task.tgid.or_else(|| self.kernel.tgid(tid)).ok_or(Refusal::Gone)?;
        let leader_start =
            if tgid == tid { start } else { self.kernel.try_start(tgid)?.ok_or(Refusal::Gone)? };
        let attr = self.attr_of(tid, before)?;
        let rank = |attr: &Attr| Rank::of(attr.policy, attr.priority);
        let leader_rank = if task.owner.may_take_any_rank() {
            Rank::ANY
        } else {
            match self.kernel.get_attr(tgid) {
                Ok(leader) if tgid != tid => rank(&leader),
                _ => rank(&attr),
            }
        };
        let before = Saved::of(&self.kernel, tid, &attr);
        let grace = match how {
            BoostPolicy::Deadline { .. } => DEADLINE_GRACE,
            BoostPolicy::Fifo => MIN_PULSE_GRACE.max(Nanos(self.runtime.0.saturating_mul(10))),
        };
        let boosted = Boosted { tid, tgid, start, leader_start, leader_rank, end, grace, before, how };
        let slot = self.journal.arm(&RestoreRecord::Boost(boosted)).ok_or(Refusal::JournalFull)?;
        if !self.journal.is_watched_by(due(&boosted)) {
            (self.wake)();
        }
        if self.delay > Nanos::ZERO {
            self.nap(self.delay);
        }
        Ok(JournaledBoost { boosted, slot })
    }

    /// Returns why a boost with a record must not be made after all. `last` is how the task is
    /// scheduled now.
    fn objection(&self, slot: Slot, boosted: &Boosted, last: &io::Result<Attr>) -> Option<Refusal> {
        let Boosted { tid, start, .. } = *boosted;
        // By exec(2), a task that is boosted under another tid may have got this one.
        let moved_here = |other: &Boosted| {
            other.leader() == boosted.id() && last.as_ref().is_ok_and(|now| is_ours(now, other.how))
        };
        match last {
            // If another thread boosts the task, `last` may already be the policy of that boost.
            _ if self.journal.has_other(slot, |other| other.tid == tid || moved_here(other)) => {
                Some(Refusal::Taken)
            }
            Ok(now) if Saved::of(&self.kernel, tid, now) != boosted.before => {
                Some(Refusal::ChangedByOthers(now.policy))
            }
            // The task may have ended since its record was written, and its tid been reused.
            _ => match self.kernel.try_start(tid) {
                Ok(seen) => (seen != Some(start)).then_some(Refusal::Gone),
                Err(e) => Some(e.into()),
            },
        }
    }

    /// Makes a boost that has a record, unless there is an objection.
    fn make(&self, JournaledBoost { boosted, slot }: JournaledBoost) -> Result<BoostHandle, Refusal> {
        let Boosted { tid, start, how, .. } = boosted;
        let last = self.kernel.get_attr(tid);
        let refused = self.objection(slot, &boosted, &last);
        if let Some(refused) = refused {
            self.journal.forget(slot);
            return Err(refused);
        }
        let raised =
            BoostHandle { boosted, slot, since: self.kernel.boot_ticks(), runs: self.kernel.runs(tid) };
        if let Err(e) = apply(&self.kernel, tid, how) {
            self.journal.forget(slot);
            return Err(refusal(e));
        }
        // If the tid was reused, undoes the boost on the task that has the tid now.
        let undo_on_wrong_task = || {
            if let (Ok(last), true) = (&last, self.kernel.get_attr(tid).is_ok_and(|attr| is_ours(&attr, how)))
            {
                let set_back =
                    || self.kernel.set_scheduler(tid, last.policy, last.priority, last.reset_on_fork());
                let _ = up_to_twice(set_back);
            }
        };
        match self.kernel.try_start(tid) {
            Ok(Some(seen)) if seen == start => {}
            Ok(_) => {
                undo_on_wrong_task();
                self.undo(slot, &boosted);
                return Err(Refusal::Gone);
            }
            Err(e) => {
                if matches!(self.undo(slot, &boosted), RestoreOutcome::Gone) {
                    undo_on_wrong_task();
                }
                return Err(e.into());
            }
        }
        Ok(raised)
    }

    /// Returns whether this thread was stopped for so long that the guardian had taken over the
    /// record before the boost was made.
    fn is_late(&self, raised: &BoostHandle) -> bool {
        !self.journal.is_live(raised.slot)
    }

    fn nap(&self, length: Nanos) {
        self.kernel.sleep_until(self.kernel.now() + length);
    }

    /// Waits until a raised task gets a CPU, but only until a moment.
    fn await_run(&self, raised: &BoostHandle, until: Nanos, mut pause: impl FnMut()) -> Run {
        let Some(before) = raised.runs else { return Run::Unknown };
        loop {
            let is_late = self.kernel.now() >= until;
            if self.kernel.runs(raised.boosted.tid).is_none_or(|runs| runs != before) {
                return Run::Given;
            }
            if is_late {
                return Run::Missed;
            }
            pause();
        }
    }

    /// Makes a pulse from FIFO 99. Its length counts from when the task gets its CPU.
    fn pulse_from_the_top(&self, cpu: Cpu, noted: JournaledBoost) -> Result<Pulse, Refusal> {
        let raised = self.make(noted)?;
        if self.is_late(&raised) {
            let outcome = undo(&self.kernel, &raised.boosted, false);
            return Ok(self.pulse_over(raised, outcome, Run::Missed));
        }
        let tid = raised.boosted.tid;
        let run = if cpu == self.kernel.cpu() {
            // Spinning here at FIFO 99 would block the task, so sleep. The timer wakes this thread
            // in time.
            self.nap(self.runtime);
            match (raised.runs, self.kernel.runs(tid)) {
                (Some(before), Some(now)) if now == before => Run::Missed,
                (Some(_), Some(_)) => Run::Given,
                _ => Run::Unknown,
            }
        } else {
            // A sleep would be 1.6 ms too long, so spin.
            let mut asked = self.kernel.now();
            let run = self.await_run(&raised, asked + MAX_PULSE_DELAY, || {
                self.kernel.spin_until(self.kernel.now() + RUN_CHECK_INTERVAL);
                asked = self.kernel.now();
            });
            if run != Run::Missed {
                self.kernel.spin_until(asked + self.runtime - IDENTITY_CHECK_TIME);
            }
            run
        };
        let outcome = self.undo(raised.slot, &raised.boosted);
        Ok(self.pulse_over(raised, outcome, run))
    }

    fn pulse_over(&self, raised: BoostHandle, outcome: RestoreOutcome, run: Run) -> Pulse {
        let ended = self.kernel.now();
        Pulse { raised, outcome: self.lower_rest(&raised, outcome), run, ended }
    }

    /// Lowers the ranks that are set by calls in progress after the end of a pulse. Returns the
    /// outcome of the pulse.
    fn lower_rest(&self, raised: &BoostHandle, outcome: RestoreOutcome) -> RestoreOutcome {
        match outcome {
            RestoreOutcome::Restored(_) | RestoreOutcome::Lowered { .. } if !fault::is(Fault::RankKept) => {
                lower_until_none_comes(&self.kernel, || lower_late(&self.kernel, &raised.boosted))
                    .unwrap_or(outcome)
            }
            outcome => outcome,
        }
    }

    /// Lowers a rank, and repeats that as long as the rank comes back at once.
    fn lower_again(&self, lower: impl Fn() -> Option<RestoreOutcome>) -> Option<RestoreOutcome> {
        match lower() {
            Some(lowered @ RestoreOutcome::Lowered { .. }) => {
                Some(lower_until_none_comes(&self.kernel, lower).unwrap_or(lowered))
            }
            outcome => outcome,
        }
    }

    /// Restores a boosted task, or finds that the guardian has restored it.
    fn undo(&self, slot: Slot, boosted: &Boosted) -> RestoreOutcome {
        let outcome = if self.journal.claim(slot) {
            let end = self.kernel.now() + RETRY;
            let retry = |outcome: &RestoreOutcome| outcome.has_failed().then_some(end);
            settle(&self.kernel, &self.journal, slot, boosted, retry)
        } else {
            // The claimer may have ended before it restored the task. Restoring twice does no harm.
            let leader_is_boosted = leader_is_boosted(&self.journal, slot, boosted);
            undo_after_another(&self.kernel, boosted, leader_is_boosted)
        };
        match outcome {
            RestoreOutcome::NeverBoosted => RestoreOutcome::Restored(boosted.tid),
            outcome => outcome,
        }
    }
}

impl<K: Kernel + Send> Actuator for KernelActuator<K> {
    fn ascend(&mut self) {
        if self.own.is_none() {
            self.own = own_priority::ascend(&self.kernel);
        }
    }

    fn descend(&mut self) {
        // If this fails, the next call tries again.
        self.own = self.own.filter(|own| leave(&self.kernel, own).is_err());
    }

    fn owner(&self, task: &Task) -> Owner {
        self.kernel.owner(task.tid)
    }

    fn may_be_bound(&self, task: &Task) -> bool {
        self.kernel.is_bound(task.tid).unwrap_or(true)
    }

    fn runs(&self, task: &Task) -> Option<u64> {
        self.kernel.runs(task.tid)
    }

    fn cpu_time(&self, task: &Task) -> Option<Nanos> {
        self.kernel.cpu_time(task.tid)
    }

    fn standing(&self, tid: Tid) -> Option<Standing> {
        self.kernel.standing(tid)
    }

    fn raise(&mut self, task: &Task, end: Nanos) -> Result<BoostHandle, Refusal> {
        let raised = self.make(self.note(task, None, self.how, end)?)?;
        if self.is_late(&raised) {
            undo(&self.kernel, &raised.boosted, false);
            return Err(Refusal::Taken);
        }
        Ok(raised)
    }

    fn restore(&mut self, raised: &BoostHandle) -> RestoreOutcome {
        self.undo(raised.slot, &raised.boosted)
    }

    fn now(&self) -> Nanos {
        self.kernel.now()
    }

    fn await_first_run(&mut self, raised: &BoostHandle, since: Nanos) -> Run {
        self.await_run(raised, since + MAX_FIRST_RUN_DELAY, || self.nap(self.runtime))
    }

    fn await_budgets(&mut self) {
        self.nap(self.runtime);
    }

    fn pulse(&mut self, task: &Task, before: Option<Saved>) -> Result<Pulse, Refusal> {
        // The record is written before this thread goes to FIFO 99. Otherwise the guardian, which
        // it wakes, would move to another CPU, perhaps that of the task, and use up the pulse.
        let noted =
            self.note(task, before, BoostPolicy::Fifo, self.kernel.now() + MAX_PULSE_DELAY + self.runtime)?;
        let own = match enter_fifo99(&self.kernel) {
            Ok(own) => own,
            Err(e) => {
                self.journal.forget(noted.slot);
                return Err(e.into());
            }
        };
        let pulse = self.pulse_from_the_top(task.cpu, noted);
        if leave(&self.kernel, &own).is_err() {
            // `descend` tries again.
            self.own.get_or_insert(own);
        }
        pulse
    }

    fn lower_late(&mut self, raised: &BoostHandle) -> Option<RestoreOutcome> {
        if is_boosted(&self.journal, raised.boosted.id()) {
            return None;
        }
        self.lower_again(|| lower_late(&self.kernel, &raised.boosted))
    }

    fn lower_child(&mut self, task: &Task, parents: &Probation) -> Option<LoweredChild> {
        let birth = self.kernel.birth(task.tid)?;
        let is_it = task.start == 0 || birth.start == task.start;
        is_it.then(|| lower_if_of_pulse(&self.kernel, &self.journal, &birth, parents)).flatten()
    }

    fn lower_children(&mut self, parents: &Probation, each: &mut dyn FnMut(LoweredChild)) {
        self.pulse_children.lower(&self.kernel, &self.journal, parents, each);
    }

    fn take_foreign_rank(&mut self, task: &Task) -> bool {
        task.start != 0 && take_foreign_rank(&self.kernel, task.id())
    }

    fn adopt(&mut self, ancestors: &[Ancestor], events: &mut Vec<Event>) -> bool {
        self.children.adopt(&self.kernel, ancestors, events)
    }
}

/// Returns the delay for tests. A release build has none, so that no environment variable slows it.
fn test_delay() -> Nanos {
    let variable = cfg!(debug_assertions).then(|| std::env::var("STALLD_TEST_BOOST_DELAY_US").ok()).flatten();
    variable.and_then(|text| text.parse().ok()).map_or(Nanos::ZERO, Nanos::from_micros)
}

#[cfg(test)]
#[path = "kernel_actuator_tests.rs"]
mod tests;
