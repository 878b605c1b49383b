//! Starts boosts, by SCHED_DEADLINE or by a first pulse.

use super::{
    BoostPolicy, Booster, Event, Nanos, Pulse, Refusal, RestoreOutcome, Run, Snapshot, Starving, Task,
};
use crate::boost::active::{Active, StartedBoost};
use crate::boost::actuator::Actuator;
use crate::boost::rules::may_be_deadline;

/// The time until a task is tried again that another thread or process has boosted.
pub(super) const TAKEN_INTERVAL: Nanos = Nanos::from_millis(100);

impl<A: Actuator + ?Sized> Booster<A> {
    /// Boosts a starving task. `crowded` is whether its CPU has fewer places than tasks to boost.
    pub(super) fn start(&mut self, starving: &Starving, snapshot: &Snapshot, crowded: bool) {
        let task = self.with_current_owner(&starving.task);
        let started = snapshot.at;
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
            Err((_, Refusal::Taken)) => {
                // Tasks that wait behind this one have their turns meanwhile.
                self.refused.insert(task.id(), started + TAKEN_INTERVAL);
                self.scan_at(started + TAKEN_INTERVAL);
            }
            Err((how, why)) => {
                self.counters.refused += 1;
                self.refused.insert(task.id(), started + self.rules.retry);
                self.events.push(Event::Refused { task, how, why });
            }
        }
    }

    /// Boosts a task: by SCHED_DEADLINE if it may have that, else by a first pulse. `waits` is
    /// whether the task is runnable.
    pub(super) fn lift(
        &mut self,
        task: &Task,
        started: Nanos,
        waits: bool,
    ) -> Result<StartedBoost, (BoostPolicy, Refusal)> {
        let how = self.rules.how;
        if how != BoostPolicy::Fifo && started >= self.pulses_until && may_be_deadline(task) {
            match self.actuator.raise(task, started + self.rules.duration) {
                // If a process has turned RT throttling on again, the kernel admits no pinned task
                // to SCHED_DEADLINE. A pulse follows.
                Err(Refusal::Kernel(e)) => {
                    self.events.push(Event::Refused { task: *task, how, why: Refusal::Kernel(e) });
                }
                // A task that was restored after it had used up its budget stays marked as
                // throttled [6.18]. Boosted again, it is in no queue, and no timer requeues it. A
                // pulse follows.
                Ok(raised) if waits && self.actuator.await_first_run(&raised) == Run::Missed => {
                    self.actuator.restore(&raised);
                }
                Ok(raised) => return Ok(StartedBoost { how, raised, run: Run::Unknown, over: None }),
                Err(why) => return Err((how, why)),
            }
        }
        let Pulse { raised, run, outcome } =
            self.actuator.pulse(task, None).map_err(|why| (BoostPolicy::Fifo, why))?;
        // The end of this boost, or the guardian, retries a restore that has failed.
        let goes_on = matches!(outcome, RestoreOutcome::Restored(_) | RestoreOutcome::Failed(_));
        let over = (!goes_on).then_some(outcome);
        Ok(StartedBoost { how: BoostPolicy::Fifo, raised, run, over })
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
            active.plan_pulse(started, run, self.rules.period);
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
