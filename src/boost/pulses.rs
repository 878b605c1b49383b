//! Makes the pulses of boosts, and charges them to the hogs of their CPUs.

use super::{
    Actuator, BoostPolicy, Booster, Event, Fault, Nanos, Pulse, Refusal, RestoreOutcome, Run, SPACING, Saved,
    Task, fault,
};
use crate::boost::active::Active;

/// With each pulse, the cost of the longest one is forgotten by this part.
const FORGETTING: u64 = 16;

impl<A: Actuator + ?Sized> Booster<A> {
    /// Returns when the next pulse of a boost is due; `None` for a boost by SCHED_DEADLINE. With
    /// `Rules::max_loss`, it waits until the hog can bear it, and boosts that are about to start
    /// come first.
    pub(super) fn pulse_due(&self, active: &Active) -> Option<Nanos> {
        let next = active.next_pulse?;
        if self.rules.max_loss.is_none() {
            return Some(next);
        }
        let cpu = active.task.cpu;
        let free = self.spacing.get(cpu).unwrap_or(Nanos::ZERO);
        let is_claimed = self.claimed.contains(cpu);
        Some(next.max(if is_claimed { free + SPACING } else { free }))
    }

    /// Returns the boost whose pulse is due. The one whose last pulse was earliest comes first.
    pub(super) fn next_due_pulse(&self, now: Nanos) -> Option<usize> {
        let is_due = |&index: &usize| self.pulse_due(&self.active[index]).is_some_and(|due| due <= now);
        (0..self.active.len()).filter(is_due).min_by_key(|&index| self.active[index].next_pulse)
    }

    /// Makes one pulse of a boost. Closes the boost if no pulse can follow.
    pub(super) fn pulse(&mut self, index: usize, now: Nanos) {
        let Active { task, raised, .. } = self.active[index];
        let identified = self.with_current_owner(&Task { start: raised.boosted.start, ..task });
        let task = Task { owner: identified.owner, ..task };
        let outcome = self.make_pulse(&identified, Some(raised.boosted.before), now);
        let run = outcome.as_ref().map_or(Run::Unknown, |pulse| pulse.run);
        let interval = self.rules.pulse_interval();
        let active = &mut self.active[index];
        active.task = task;
        active.plan_pulse(now, run, interval);
        if let Ok(Pulse { raised, .. }) = &outcome {
            self.probation.begin(&task, raised, now);
        }
        let outcome = match outcome {
            Ok(Pulse { outcome: RestoreOutcome::Restored(_), .. }) if !self.is_done(&task, run) => {
                // Pulses that follow each other within a period belong to one boost.
                if run != Run::Missed && self.rules.max_loss.is_none() {
                    self.events.push(Event::Boosted { task, how: BoostPolicy::Fifo });
                }
                return;
            }
            // The next pulse may find the task free, and room in the journal.
            Err(Refusal::Taken | Refusal::JournalFull) => return,
            Ok(Pulse { outcome, .. }) => outcome,
            Err(Refusal::ChangedByOthers(policy)) => RestoreOutcome::ChangedByOthers(policy),
            Err(Refusal::Kernel(e)) => RestoreOutcome::Failed(e),
            Err(Refusal::Gone | Refusal::IsDeadline) => RestoreOutcome::Gone,
        };
        self.close(index, now, true, outcome);
    }

    /// Returns whether a boost with a bound on the loss is over because its task sleeps. Without
    /// that bound, pulses cost so little that the boost lasts until its end.
    fn is_done(&self, task: &Task, run: Run) -> bool {
        let sleeps = || !self.actuator.standing(task.tid).is_some_and(|standing| standing.is_runnable);
        self.rules.max_loss.is_some() && run == Run::Missed && sleeps()
    }

    /// Makes a pulse, and charges it to the hog. `before` is how the task was scheduled before the
    /// first pulse of its boost.
    pub(super) fn make_pulse(
        &mut self,
        task: &Task,
        before: Option<Saved>,
        now: Nanos,
    ) -> Result<Pulse, Refusal> {
        let Some(max) = self.rules.max_loss else { return self.actuator.pulse(task, before) };
        let used_before = self.actuator.cpu_time(task);
        let pulse = self.actuator.pulse(task, before)?;
        let used_after = self.actuator.cpu_time(task);
        let used = used_before.zip(used_after).and_then(|(before, after)| after.0.checked_sub(before.0));
        // Unknown if the task has ended, or if the kernel does not count this.
        let cost = used.map_or(self.rules.runtime, Nanos) + max.switching;
        self.longest_pulse = cost.max(self.longest_pulse - Nanos(self.longest_pulse.0 / FORGETTING));
        let next = self.longest_pulse.max(max.hold(self.rules.runtime));
        let pause = if fault::is(Fault::LossIgnored) { SPACING } else { max.pause_after(cost, next) };
        self.spacing.insert(task.cpu, now.max(pulse.ended) + pause);
        Ok(pulse)
    }
}
