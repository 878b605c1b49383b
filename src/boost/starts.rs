//! The start of a boost.

use super::{
    BoostPolicy, Booster, Event, Nanos, Pulse, RECHECK_INTERVAL, Refusal, RestoreOutcome, Snapshot, Starving,
    Task, with_current_owner,
};
use crate::boost::active::{Active, StartedBoost};
use crate::boost::actuator::Actuator;
use crate::boost::rules::may_be_deadline;

impl Booster {
    pub(super) fn start(
        &mut self,
        candidate: &Starving,
        snapshot: &Snapshot,
        crowded: bool,
        actuator: &mut dyn Actuator,
        events: &mut Vec<Event>,
    ) {
        let task = with_current_owner(&candidate.task, actuator);
        let started = snapshot.at;
        match self.lift(&task, started, true, actuator, events) {
            Ok(lifted) => {
                let is_outranked = self.ranks.outrank(&task);
                let ends_at_once = crowded && lifted.how != BoostPolicy::Fifo && lifted.raised.runs.is_some();
                self.begin(task, lifted, started, is_outranked, events);
                // In a crowd the place is needed for the next as soon as this one has had its
                // budget once.
                if ends_at_once {
                    self.end(self.active.len() - 1, started, true, actuator, events);
                }
            }
            Err((_, Refusal::Taken)) => {
                // The tasks that wait behind it have their turns meanwhile.
                self.refused.insert(task.id(), started + RECHECK_INTERVAL);
                self.look_at(started + RECHECK_INTERVAL);
            }
            Err((how, why)) => {
                self.counters.refused += 1;
                self.refused.insert(task.id(), started + self.rules.retry);
                events.push(Event::Refused { task, how, why });
            }
        }
    }

    /// Boosts a task: by SCHED_DEADLINE if it may have that, else by a first pulse.
    pub(super) fn lift(
        &self,
        task: &Task,
        started: Nanos,
        waits: bool,
        actuator: &mut dyn Actuator,
        events: &mut Vec<Event>,
    ) -> Result<StartedBoost, (BoostPolicy, Refusal)> {
        let how = self.rules.how;
        if how != BoostPolicy::Fifo && started >= self.pulses_until && may_be_deadline(task) {
            match actuator.raise(task, started + self.rules.duration) {
                // If a process has turned RT throttling on again, the kernel admits no pinned
                // task. A pulse serves it.
                Err(Refusal::Kernel(e)) => {
                    events.push(Event::Refused { task: *task, how, why: Refusal::Kernel(e) });
                }
                // A task that was restored after it had used up its budget stays marked as
                // throttled [6.18]. Boosted again, it is in no queue, and no timer requeues it.
                Ok(raised) if waits && actuator.await_first_run(&raised) == Some(false) => {
                    actuator.restore(&raised);
                }
                Ok(raised) => return Ok(StartedBoost { how, raised, ran: None, over: None }),
                Err(why) => return Err((how, why)),
            }
        }
        let Pulse { raised, ran, outcome } =
            actuator.pulse(task, None).map_err(|why| (BoostPolicy::Fifo, why))?;
        // The end of this boost, or the guardian, retries a restore that has failed.
        let goes_on = matches!(outcome, RestoreOutcome::Restored(_) | RestoreOutcome::Failed(_));
        let over = (!goes_on).then_some(outcome);
        Ok(StartedBoost { how: BoostPolicy::Fifo, raised, ran, over })
    }

    pub(super) fn begin(
        &mut self,
        task: Task,
        StartedBoost { how, raised, ran, over }: StartedBoost,
        started: Nanos,
        outranked: bool,
        events: &mut Vec<Event>,
    ) {
        self.counters.boosts += 1;
        events.push(Event::Boosted { task, how });
        if self.active.is_empty() {
            self.next_care = started + RECHECK_INTERVAL;
            self.wards.begin(started);
        }
        let end = started + self.rules.duration;
        let mut active =
            Active { task, raised, started, end, next_pulse: None, missed: 0, sleeps: false, outranked };
        if how == BoostPolicy::Fifo {
            active.plan_pulse(started, ran, self.rules.period);
            self.probation.begin(&task, &raised, started);
        }
        self.boosted.insert(task.id(), ());
        self.active.push(active);
        if let Some(outcome) = over {
            self.close(self.active.len() - 1, started, true, outcome, events);
        }
    }
}
