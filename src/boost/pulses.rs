//! Makes the pulses of boosts, and charges them to the hogs of their CPUs.

use super::{
    Actuator, BoostPolicy, Booster, Event, Fault, Nanos, Pulse, Refusal, RestoreOutcome, Run, SCAN_AFTER_END,
    SPACING, Saved, Task, fault,
};
use crate::boost::active::Active;

/// With each pulse, the cost of the longest one is forgotten by this part.
const FORGETTING: u64 = 16;

/// The missed pulses in a row after which a task that does not look runnable sleeps.
const MISSES_OF_SLEEPER: u32 = 2;

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
        let is_claimed = self.claimed.get(cpu) == Some(true);
        Some(next.max(if is_claimed { free + SPACING } else { free }))
    }

    /// Returns the boost whose pulse is due. The owners take turns, and so do the tasks of each.
    pub(super) fn next_due_pulse(&self, now: Nanos) -> Option<usize> {
        let is_due = |&index: &usize| self.pulse_due(&self.active[index]).is_some_and(|due| due <= now);
        (0..self.active.len()).filter(is_due).min_by_key(|&index| {
            let active = &self.active[index];
            (self.last_served(active.task.cpu, active.found_owner), active.next_pulse)
        })
    }

    /// Makes one pulse of a boost. Closes the boost if no pulse can follow.
    pub(super) fn pulse(&mut self, index: usize, now: Nanos) {
        let Active { task, raised, .. } = self.active[index];
        let cpu = self.actuator.standing(task.tid).map_or(task.cpu, |standing| standing.cpu);
        if cpu != task.cpu && self.rules.max_loss.is_some() {
            // Another hog would pay for this pulse, and its CPU may have no place.
            self.close_soon(index, now, RestoreOutcome::Restored(task.tid));
            return;
        }
        if self.rules.max_loss.is_some() {
            self.served.insert((cpu, self.active[index].found_owner), now);
        }
        let task = Task { cpu, ..task };
        let identified = self.with_current_owner(&Task { start: raised.boosted.start, ..task });
        let task = Task { owner: identified.owner, ..task };
        let outcome = self.make_pulse(&identified, Some(raised.boosted.before), now);
        let run = outcome.as_ref().map_or(Run::Unknown, |pulse| pulse.run);
        let active = &mut self.active[index];
        active.task = task;
        active.plan_pulse(now, run, &self.rules);
        if let Ok(Pulse { raised, .. }) = &outcome {
            self.probation.begin(&task, raised, now);
        }
        let outcome = match outcome {
            Ok(Pulse { outcome: RestoreOutcome::Restored(_), .. }) if !self.is_done(index) => {
                // Pulses that follow each other within a period belong to one boost.
                if run != Run::Missed && self.rules.max_loss.is_none() {
                    self.events.push(Event::Boosted { task, how: BoostPolicy::Fifo });
                }
                return;
            }
            Ok(Pulse { outcome, .. }) => outcome,
            Err(Refusal::ChangedByOthers(policy)) => RestoreOutcome::ChangedByOthers(policy),
            // The next pulse may find the task free, and room in the journal.
            Err(why) if why.may_pass() => return,
            Err(Refusal::Kernel(e)) => RestoreOutcome::Failed(e),
            Err(_) => RestoreOutcome::Gone,
        };
        self.close_soon(index, now, outcome);
    }

    /// Closes a boost before its end. A scan follows, because the task may still wait.
    fn close_soon(&mut self, index: usize, now: Nanos, outcome: RestoreOutcome) {
        self.close(index, now, true, outcome);
        self.scan_at(now + SCAN_AFTER_END);
    }

    /// Returns whether a boost with a bound on the loss is over because its task sleeps. Without
    /// that bound, pulses cost so little that the boost lasts until its end. One missed pulse shows
    /// little: a task that was preempted on its way to sleep does not look runnable, and waits.
    fn is_done(&self, index: usize) -> bool {
        let Active { task, missed, .. } = self.active[index];
        let sleeps = || !self.actuator.standing(task.tid).is_some_and(|standing| standing.is_runnable);
        self.rules.max_loss.is_some() && missed >= MISSES_OF_SLEEPER && sleeps()
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
        let hold = max.hold(self.rules.runtime);
        let used_before = self.actuator.cpu_time(task);
        let begun = self.actuator.now();
        let pulse = self.actuator.pulse(task, before)?;
        let used_after = self.actuator.cpu_time(task);
        let used = used_before.zip(used_after).and_then(|(before, after)| after.0.checked_sub(before.0));
        // The count of a running task is as old as the last tick, so the difference may be too
        // large. There is none if the task has ended, or if the kernel does not count this.
        let used = used.map(|used| Nanos(used).min(pulse.ended - begun));
        let cost = used.map_or(hold, |used| used + max.switching);
        let longest = self.longest_pulses.get(task.cpu).unwrap_or(Nanos::ZERO);
        let longest = cost.max(longest - Nanos(longest.0 / FORGETTING));
        self.longest_pulses.insert(task.cpu, longest);
        let pause = match fault::is(Fault::LossIgnored) {
            true => SPACING,
            false => max.pause_after(cost, longest.max(hold)),
        };
        self.spacing.insert(task.cpu, now.max(pulse.ended) + pause);
        Ok(pulse)
    }
}
