//! Starts boosts, by SCHED_DEADLINE or by a first pulse.

use super::{
    BoostPolicy, Booster, Event, Nanos, Owner, Pulse, Pulsed, Refusal, RestoreOutcome, Run, SPACING,
    Starving, Task,
};
use crate::boost::active::{Active, StartedBoost};
use crate::boost::actuator::Actuator;
use crate::boost::rules::may_be_deadline;

/// The time until a task is tried again whose boost was refused for a reason that may pass.
pub(super) const RETRY_INTERVAL: Nanos = Nanos::from_millis(100);

impl<A: Actuator + ?Sized> Booster<A> {
    /// Boosts a starving task. `crowded` is whether more tasks wait than have places; then a boost
    /// by SCHED_DEADLINE ends after one budget.
    pub(super) fn start(&mut self, starving: &Starving, started: Nanos, crowded: bool) {
        let Task { cpu, owner, .. } = starving.task;
        self.spacing.insert(cpu, started + SPACING);
        self.served.insert((cpu, owner), started);
        let task = self.with_current_owner(&starving.task);
        match self.lift(&task, started, true) {
            Ok(lifted) => {
                let is_outranked = self.priorities.outrank(&task);
                let ends_at_once = crowded && lifted.how != BoostPolicy::Fifo && lifted.raised.runs.is_some();
                self.begin(task, lifted, started, is_outranked);
                // The task has had its budget once, and another task needs the place.
                if ends_at_once {
                    self.end(self.active.len() - 1, started, true);
                }
            }
            Err((how, why)) => {
                // Tasks that wait behind this one have their turns meanwhile.
                let interval =
                    if why.may_pass() { RETRY_INTERVAL.min(self.rules.retry) } else { self.rules.retry };
                self.refused.insert(task.id(), started + interval);
                self.scan_at(started + interval);
                if why != Refusal::Taken {
                    self.counters.refused += 1;
                    self.events.push(Event::Refused { task, how, why });
                }
            }
        }
    }

    /// Boosts a task: by SCHED_DEADLINE, or by a first pulse. `waits` is whether the task is
    /// runnable.
    pub(super) fn lift(
        &mut self,
        task: &Task,
        started: Nanos,
        waits: bool,
    ) -> Result<StartedBoost, (BoostPolicy, Refusal)> {
        if self.boosts_by_deadline(task, started) {
            if let Some(lifted) = self.lift_by_deadline(task, started, waits)? {
                return Ok(lifted);
            }
            return self.lift_by_pulse(task, started);
        }
        let lifted = self.lift_by_pulse(task, started)?;
        // Only SCHED_DEADLINE outranks a hog of the priority of a pulse, or of a higher one.
        let needs_deadline = waits
            && lifted.run == Run::Missed
            && lifted.over.is_none()
            && self.may_be_deadline(task, started)
            && !self.pulses_outrank_all_on(task.cpu)
            && self.fits(task.cpu, true);
        if needs_deadline {
            self.probation.begin(task, &lifted.raised, started);
            if let Ok(Some(lifted)) = self.lift_by_deadline(task, started, waits) {
                return Ok(lifted);
            }
        }
        Ok(lifted)
    }

    /// Boosts a task by SCHED_DEADLINE. Returns `None` if only a pulse can serve it.
    fn lift_by_deadline(
        &mut self,
        task: &Task,
        started: Nanos,
        waits: bool,
    ) -> Result<Option<StartedBoost>, (BoostPolicy, Refusal)> {
        let how = self.rules.how;
        match self.actuator.raise(task, started + self.rules.duration) {
            // If a process has turned RT throttling on again, the kernel admits no pinned task to
            // SCHED_DEADLINE.
            Err(Refusal::Kernel(e)) => {
                self.events.push(Event::Refused { task: *task, how, why: Refusal::Kernel(e) });
                Ok(None)
            }
            // A task that was restored after it had used up its budget stays marked as throttled
            // [6.18]. Boosted again, it is in no queue, and no timer requeues it.
            Ok(raised) if waits && self.actuator.await_first_run(&raised) == Run::Missed => {
                self.actuator.restore(&raised);
                Ok(None)
            }
            Ok(raised) => Ok(Some(StartedBoost { how, raised, run: Run::Unknown, over: None })),
            Err(why) => Err((how, why)),
        }
    }

    /// Boosts a task by a first pulse.
    fn lift_by_pulse(&mut self, task: &Task, started: Nanos) -> Result<StartedBoost, (BoostPolicy, Refusal)> {
        let how = BoostPolicy::Fifo;
        let pulse = self.make_pulse(task, None, started);
        let Pulse { raised, run, outcome, .. } = pulse.map_err(|why| (how, why))?;
        // The end of this boost, or the guardian, retries a restore that has failed.
        let goes_on = matches!(outcome, RestoreOutcome::Restored(_) | RestoreOutcome::Failed(_));
        let over = (!goes_on).then_some(outcome);
        Ok(StartedBoost { how, raised, run, over })
    }

    /// Returns whether a boost that starts now is first tried by SCHED_DEADLINE.
    pub(super) fn boosts_by_deadline(&self, task: &Task, now: Nanos) -> bool {
        let is_pulsed = || match self.rules.pulsed {
            Pulsed::Nothing => false,
            Pulsed::Bound => task.owner == Owner::Kernel && self.actuator.may_be_bound(task),
            Pulsed::All => true,
        };
        self.may_be_deadline(task, now) && !is_pulsed()
    }

    /// Returns whether a task may be SCHED_DEADLINE now.
    fn may_be_deadline(&self, task: &Task, now: Nanos) -> bool {
        self.rules.how != BoostPolicy::Fifo && now >= self.pulses_until && may_be_deadline(task)
    }

    /// Adds a boost that has started to those in flight.
    pub(super) fn begin(
        &mut self,
        task: Task,
        StartedBoost { how, raised, run, over }: StartedBoost,
        started: Nanos,
        outranked: bool,
    ) {
        self.counters.boosts += 1;
        self.events.push(Event::Boosted { task, how });
        if self.active.is_empty() {
            self.adoptions.begin(started);
        }
        let end = started + self.rules.duration;
        let mut active =
            Active { task, raised, started, end, next_pulse: None, missed: 0, sleeps: false, outranked };
        if how == BoostPolicy::Fifo {
            active.plan_pulse(started, run, self.rules.pulse_interval());
            self.probation.begin(&task, &raised, started);
        }
        self.boosted.insert(task.id(), ());
        self.active.push(active);
        self.plan_recheck(started);
        if let Some(outcome) = over {
            self.close(self.active.len() - 1, started, true, outcome);
        }
    }
}
