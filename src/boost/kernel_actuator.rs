//! Does to a task what the plan says, and notes it in the journal.

use super::active::Ward;
use super::adopt::ForkedChildren;
use super::event::{Event, Refusal};
use super::journal::{BoostPolicy, Boosted, Journal, Rank, RestoreRecord, Saved, Slot};
use super::kernel::{Host, Kernel};
use super::plan::{Actuator, BoostHandle, Pulse};
use super::recover::due;
use super::restore::{
    RETRY, RestoreOutcome, apply, is_ours, leader_is_boosted, lower_child, lower_late,
    lower_until_none_comes, settle, take_foreign_rank, undo_after_another,
};
use crate::fault::{self, Fault};
use crate::proc::births::Birth;
use crate::sys::sched::Attr;
use crate::task::{Cpu, Nanos, Owner, Policy, Task, Tid};
use std::io;
use std::sync::Arc;

/// A boosted task that has no CPU by then will not get one soon: the hog is in the kernel.
const MAX_FIRST_RUN_DELAY: Nanos = Nanos::from_millis(2);

/// The same in a pulse, which lets the scanning thread spin. The other CPU needs an interrupt to
/// learn of the pulse.
const MAX_PULSE_DELAY: Nanos = Nanos::from_micros(200);

/// The time between two checks whether the task of a pulse has its CPU.
const RUN_CHECK_INTERVAL: Nanos = Nanos::from_micros(2);

/// The identity check at the end of a pulse takes so long, and the task runs meanwhile.
const IDENTITY_CHECK_TIME: Nanos = Nanos::from_micros(10);

/// The guardian restores a task so long after the end of its DEADLINE boost.
const DEADLINE_GRACE: Nanos = Nanos::from_secs(1);

/// The guardian restores a task at least so long after the end of a pulse. A task in a pulse
/// outranks all but stalld itself, and the CPU of stalld may be one that a hypervisor has taken
/// away.
const MIN_PULSE_GRACE: Nanos = Nanos::from_millis(2);

/// Above every pulse.
const TOP_PRIORITY: u32 = 99;

/// The host. Threads that boost each have one of their own.
#[derive(Clone)]
pub struct KernelActuator<K = Host> {
    kernel: K,
    journal: Arc<Journal>,
    /// Tells the guardian that there is a new record, which is due before it wakes by itself.
    wake: Arc<dyn Fn() + Send + Sync>,
    /// The rules' DEADLINE budget; its runtime is also the length of a pulse.
    how: BoostPolicy,
    runtime: Nanos,
    children: ForkedChildren,
    /// Tests hold a boost here, between its record and the system call.
    delay: Nanos,
}

/// A boost that is in the journal and not made yet.
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
            delay: test_delay(),
        }
    }

    /// Returns how a task is scheduled, which `before` says if it is known. A task that is
    /// scheduled just as a boost schedules it is in the hands of another process that boosts: what
    /// it has now is not its own.
    fn attr_of(&self, tid: Tid, before: Option<Saved>) -> Result<Attr, Refusal> {
        let attr = self.kernel.get_attr(tid).map_err(refusal)?;
        match attr.policy {
            _ if is_ours(&attr, self.how) || is_ours(&attr, BoostPolicy::Fifo) => Err(Refusal::Taken),
            policy if before.is_some_and(|before| !before.is(&attr)) => Err(Refusal::ChangedByOthers(policy)),
            Policy::DEADLINE => Err(Refusal::IsDeadline),
            _ => Ok(attr),
        }
    }

    /// Notes a boost that is about to be made.
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
            start if self.kernel.try_start(tid).map_err(Refusal::Kernel)? == Some(start) => start,
            _ => return Err(Refusal::Gone),
        };
        let tgid = task.tgid.or_else(|| self.kernel.tgid(tid)).ok_or(Refusal::Gone)?;
        let leader_start = if tgid == tid {
            start
        } else {
            self.kernel.try_start(tgid).map_err(Refusal::Kernel)?.ok_or(Refusal::Gone)?
        };
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

    /// Returns what has come between the record of a boost and the boost, of which `last` is how
    /// the task is scheduled now.
    fn objection(&self, slot: Slot, boosted: &Boosted, last: &io::Result<Attr>) -> Option<Refusal> {
        let Boosted { tid, start, .. } = *boosted;
        // Another thread that boosts the task has noted that by now, and may have made what was
        // read before. Or the task was boosted by another number, which exec(2) has changed since,
        // and that could not be undone yet.
        let moved_here = |other: &Boosted| {
            other.leader() == boosted.id() && last.as_ref().is_ok_and(|now| is_ours(now, other.how))
        };
        match last {
            _ if self.journal.has_other(slot, |other| other.tid == tid || moved_here(other)) => {
                Some(Refusal::Taken)
            }
            Ok(now) if Saved::of(&self.kernel, tid, now) != boosted.before => {
                Some(Refusal::ChangedByOthers(now.policy))
            }
            // The task may have ended since it was noted, and its number be another task's.
            _ => match self.kernel.try_start(tid) {
                Ok(seen) => (seen != Some(start)).then_some(Refusal::Gone),
                Err(e) => Some(Refusal::Kernel(e)),
            },
        }
    }

    /// Makes it, unless something has come between.
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
        // Where it has ended, its number is another task's by now, which must not stay boosted.
        let undo_on_wrong_task = || {
            if let (Ok(last), true) = (&last, self.kernel.get_attr(tid).is_ok_and(|attr| is_ours(&attr, how)))
            {
                let _ = self.kernel.set_scheduler(tid, last.policy, last.priority, last.reset_on_fork());
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
                return Err(Refusal::Kernel(e));
            }
        }
        if !self.journal.is_live(slot) {
            // Stopped for so long that the guardian took us for stuck, and has cleared the record.
            undo_after_another(&self.kernel, &boosted, false);
            return Err(Refusal::Gone);
        }
        Ok(raised)
    }

    fn nap(&self, length: Nanos) {
        self.kernel.sleep_until(self.kernel.now() + length);
    }

    /// Waits until a task just raised has been given its CPU; false if that takes too long, None
    /// where the kernel does not tell.
    fn await_run(&self, raised: &BoostHandle, patience: Nanos, mut pause: impl FnMut()) -> Option<bool> {
        let before = raised.runs?;
        let until = self.kernel.now() + patience;
        while self.kernel.now() < until {
            pause();
            if self.kernel.runs(raised.boosted.tid).is_none_or(|runs| runs != before) {
                return Some(true);
            }
        }
        Some(false)
    }

    /// Has a task run for the length of a pulse, which begins when it is given its CPU.
    fn pulse_from_the_top(&self, cpu: Cpu, noted: JournaledBoost) -> Result<Pulse, Refusal> {
        let raised = self.make(noted)?;
        let tid = raised.boosted.tid;
        let ran = if cpu == self.kernel.cpu() {
            // From above it, we would keep it from running. Asleep we don't, and the timer brings
            // us back.
            self.nap(self.runtime);
            raised.runs.and_then(|before| Some(self.kernel.runs(tid)? != before))
        } else {
            // A sleep would be 1.6 ms too long.
            let mut asked = self.kernel.now();
            let ran = self.await_run(&raised, MAX_PULSE_DELAY, || {
                self.kernel.spin_until(self.kernel.now() + RUN_CHECK_INTERVAL);
                asked = self.kernel.now();
            });
            if ran != Some(false) {
                self.kernel.spin_until(asked + self.runtime - IDENTITY_CHECK_TIME);
            }
            ran
        };
        let outcome = self.undo(raised.slot, &raised.boosted);
        let outcome = match outcome {
            RestoreOutcome::Restored(_) | RestoreOutcome::Lowered { .. } if !fault::is(Fault::RankKept) => {
                lower_until_none_comes(&self.kernel, || lower_late(&self.kernel, &raised.boosted))
                    .unwrap_or(outcome)
            }
            outcome => outcome,
        };
        Ok(Pulse { raised, outcome, ran })
    }

    /// Lowers a rank, and goes on as long as it comes back at once.
    fn lower_again(&self, lower: impl Fn() -> Option<RestoreOutcome>) -> Option<RestoreOutcome> {
        match lower() {
            Some(lowered @ RestoreOutcome::Lowered { .. }) => {
                Some(lower_until_none_comes(&self.kernel, lower).unwrap_or(lowered))
            }
            outcome => outcome,
        }
    }

    fn undo(&self, slot: Slot, boosted: &Boosted) -> RestoreOutcome {
        if self.journal.claim(slot) {
            let retry = self.kernel.now() + RETRY;
            return settle(&self.kernel, &self.journal, slot, boosted, retry, |_| false);
        }
        // Whoever has claimed it may have ended before it was undone. Twice does no harm.
        let leader_is_boosted = leader_is_boosted(&self.journal, slot, boosted);
        match undo_after_another(&self.kernel, boosted, leader_is_boosted) {
            RestoreOutcome::NeverBoosted => RestoreOutcome::Restored(boosted.tid),
            outcome => outcome,
        }
    }
}

impl<K: Kernel + Send> Actuator for KernelActuator<K> {
    fn owner(&self, task: &Task) -> Owner {
        self.kernel.owner(task.tid)
    }

    fn raise(&mut self, task: &Task, end: Nanos) -> Result<BoostHandle, Refusal> {
        self.make(self.note(task, None, self.how, end)?)
    }

    fn restore(&mut self, raised: &BoostHandle) -> RestoreOutcome {
        self.undo(raised.slot, &raised.boosted)
    }

    fn await_first_run(&mut self, raised: &BoostHandle) -> Option<bool> {
        self.await_run(raised, MAX_FIRST_RUN_DELAY, || self.nap(self.runtime))
    }

    fn pulse(&mut self, task: &Task, before: Option<Saved>) -> Result<Pulse, Refusal> {
        // Not from the top: the guardian, which hears of it, would have to go to another CPU, and
        // perhaps have the pulse that is meant for the task.
        let noted =
            self.note(task, before, BoostPolicy::Fifo, self.kernel.now() + MAX_PULSE_DELAY + self.runtime)?;
        let own = match enter_fifo99(&self.kernel) {
            Ok(own) => own,
            Err(e) => {
                self.journal.forget(noted.slot);
                return Err(Refusal::Kernel(e));
            }
        };
        let pulse = self.pulse_from_the_top(task.cpu, noted);
        leave_fifo99(&self.kernel, &own).map_err(Refusal::Kernel)?;
        pulse
    }

    fn lower_late(&mut self, raised: &BoostHandle) -> Option<RestoreOutcome> {
        let tid = raised.boosted.tid;
        // Another thread boosts it now, or it has this number by exec(2), and its boost goes by
        // another one.
        let is_of_it = |other: &Boosted| other.tid == tid || other.leader() == raised.boosted.id();
        if self.journal.has_other(Slot::default(), is_of_it) {
            return None;
        }
        self.lower_again(|| lower_late(&self.kernel, &raised.boosted))
    }

    fn birth(&self, task: &Task) -> Option<Birth> {
        self.kernel.birth(task.tid).filter(|birth| task.start == 0 || birth.start == task.start)
    }

    fn lower_child(&mut self, child: &Birth, parent: &BoostHandle) -> Option<RestoreOutcome> {
        self.lower_again(|| lower_child(&self.kernel, child, &parent.boosted.before))
    }

    fn take_foreign_rank(&mut self, task: &Task) -> bool {
        task.start != 0 && take_foreign_rank(&self.kernel, task.id())
    }

    fn adopt(&mut self, wards: &[Ward], events: &mut Vec<Event>) -> bool {
        self.children.adopt(&self.kernel, wards, events)
    }
}

/// Puts this thread above FIFO 98, where no task that it raises can shut it out, and says how it
/// was before. A reservation (-R) is given up for that time: used up in the middle of a pulse, it
/// would hold back whoever has to end that.
fn enter_fifo99(kernel: &impl Kernel) -> io::Result<Attr> {
    let own = kernel.get_attr(Tid(0))?;
    kernel.set_scheduler(Tid(0), Policy::FIFO, TOP_PRIORITY, own.reset_on_fork())?;
    Ok(own)
}

fn leave_fifo99(kernel: &impl Kernel, own: &Attr) -> io::Result<()> {
    match own.policy {
        Policy::DEADLINE => kernel.set_deadline(Tid(0), own.runtime, own.period, own.flags),
        policy => kernel.set_scheduler(Tid(0), policy, own.priority, own.reset_on_fork()),
    }
}

/// For a backend that can't tell when a task started: it has told its name.
fn same_by_name(kernel: &impl Kernel, task: &Task) -> Result<u64, Refusal> {
    let start = kernel.try_start(task.tid).map_err(Refusal::Kernel)?.ok_or(Refusal::Gone)?;
    let Some(comm) = kernel.comm(task.tid) else {
        // Its name can't be read for want of memory, say, unless it has ended meanwhile.
        let is_there = kernel.try_start(task.tid).map_err(Refusal::Kernel)?.is_some();
        return Err(if is_there {
            Refusal::Kernel(io::ErrorKind::PermissionDenied.into())
        } else {
            Refusal::Gone
        });
    };
    // The text pads names on the left.
    match comm.as_bytes().trim_ascii_start() == task.comm.as_bytes().trim_ascii_start() {
        true => Ok(start),
        false => Err(Refusal::Gone),
    }
}

fn refusal(e: io::Error) -> Refusal {
    match e.raw_os_error() {
        Some(libc::ESRCH) => Refusal::Gone,
        _ => Refusal::Kernel(e),
    }
}

/// Only in a build with checks, so that nothing in the environment slows a real one.
fn test_delay() -> Nanos {
    let variable = cfg!(debug_assertions).then(|| std::env::var("STALLD_TEST_BOOST_DELAY_US").ok()).flatten();
    variable.and_then(|text| text.parse().ok()).map_or(Nanos::ZERO, Nanos::from_micros)
}

#[cfg(test)]
#[path = "kernel_actuator_tests.rs"]
mod tests;
