//! Starts boosts, by SCHED_DEADLINE or by a first pulse.

use super::{
    BoostHandle, BoostPolicy, Booster, Event, Nanos, Owner, Pulse, Pulsed, Refusal, RestoreOutcome, Run,
    SPACING, Starving, Task,
};
use crate::boost::active::{Active, FoundTask, RaisedTask, StartedBoost};
use crate::boost::actuator::Actuator;
use crate::boost::rules::may_be_deadline;

/// The time until a task is tried again whose boost was refused for a reason that may pass.
pub(super) const RETRY_INTERVAL: Nanos = Nanos::from_millis(100);

/// The first step of a boost.
pub(super) enum Lifted {
    Raised(BoostHandle),
    Started(StartedBoost),
}

impl<A: Actuator + ?Sized> Booster<A> {
    /// Starts the boost of a starving task, not before `earliest`. `crowded` is whether more tasks
    /// wait than have places; then a boost by SCHED_DEADLINE ends after one budget. Call
    /// `finish_starts` after the last one.
    pub(super) fn start(&mut self, starving: &Starving, earliest: Nanos, crowded: bool) {
        let at = self.actuator.now().max(earliest);
        let Task { cpu, owner, .. } = starving.task;
        self.spacing.insert(cpu, at + SPACING);
        self.served.insert((cpu, owner), at);
        let task = self.with_current_owner(&starving.task);
        let found = FoundTask { task, found_owner: owner, at, outranked: self.priorities.outrank(&task) };
        match self.lift(&task, at, true) {
            Ok(Lifted::Raised(raised)) => self.raised.push(RaisedTask { found, raised, crowded }),
            Ok(Lifted::Started(started)) => self.begin(found, started),
            Err(refused) => self.note_refusal(task, at, refused),
        }
    }

    /// Returns whether a task is known to have had a CPU since the scan that found it. It does not
    /// starve any more.
    pub(super) fn has_run_since(&self, task: &Task) -> bool {
        self.counts_runs && self.actuator.runs(task).is_some_and(|runs| runs != task.progress)
    }

    /// Waits until each task that was raised has had its CPU. They run at the same time, so the
    /// waits for them do not add up.
    pub(super) fn finish_starts(&mut self) {
        for index in 0..self.raised.len() {
            let RaisedTask { found, raised, crowded } = self.raised[index];
            let FoundTask { task, at, .. } = found;
            match self.finish(&task, raised, at) {
                Ok(started) => {
                    let is_for_one_budget =
                        crowded && started.how != BoostPolicy::Fifo && raised.runs.is_some();
                    self.begin(found, started);
                    if let Some(active) = self.active.last_mut().filter(|_| is_for_one_budget) {
                        active.is_for_one_budget = true;
                    }
                }
                Err(refused) => self.note_refusal(task, at, refused),
            }
        }
        self.raised.clear();
        // Other tasks need the places of those that have had their budgets.
        let is_over = |active: &Active| active.is_for_one_budget;
        if self.active.iter().any(is_over) {
            self.actuator.await_budgets();
        }
        while let Some(index) = self.active.iter().position(is_over) {
            let now = self.actuator.now().max(self.active[index].started);
            self.end(index, now, true);
        }
    }

    fn note_refusal(&mut self, task: Task, at: Nanos, (how, why): (BoostPolicy, Refusal)) {
        // Tasks that wait behind this one have their turns meanwhile.
        let interval = if why.may_pass() { RETRY_INTERVAL.min(self.rules.retry) } else { self.rules.retry };
        self.refused.insert(task.id(), at + interval);
        self.scan_at(at + interval);
        if why != Refusal::Taken {
            self.counters.refused += 1;
            self.events.push(Event::Refused { task, how, why });
        }
    }

    /// Raises a task to SCHED_DEADLINE, or boosts it by a first pulse. `waits` is whether the task
    /// is runnable.
    pub(super) fn lift(
        &mut self,
        task: &Task,
        at: Nanos,
        waits: bool,
    ) -> Result<Lifted, (BoostPolicy, Refusal)> {
        if self.boosts_by_deadline(task, at) {
            if let Some(raised) = self.raise(task, at)? {
                return Ok(Lifted::Raised(raised));
            }
            return self.lift_by_pulse(task, at).map(Lifted::Started);
        }
        let started = self.lift_by_pulse(task, at)?;
        // Only SCHED_DEADLINE outranks a hog of the priority of a pulse, or of a higher one.
        let needs_deadline = waits
            && started.run == Run::Missed
            && started.over.is_none()
            && self.may_be_deadline(task, at)
            && !self.pulses_outrank_all_on(task.cpu)
            && self.fits(task.cpu, true);
        if needs_deadline {
            self.probation.begin(task, &started.raised, at);
            if let Ok(Some(raised)) = self.raise(task, at) {
                return Ok(Lifted::Raised(raised));
            }
        }
        Ok(Lifted::Started(started))
    }

    /// Raises a task to SCHED_DEADLINE. Returns `None` if only a pulse can serve it.
    fn raise(&mut self, task: &Task, at: Nanos) -> Result<Option<BoostHandle>, (BoostPolicy, Refusal)> {
        let how = self.rules.how;
        match self.actuator.raise(task, at + self.rules.duration) {
            // If a process has turned RT throttling on again, the kernel admits no pinned task to
            // SCHED_DEADLINE.
            Err(Refusal::Kernel(e)) => {
                self.events.push(Event::Refused { task: *task, how, why: Refusal::Kernel(e) });
                Ok(None)
            }
            Ok(raised) => Ok(Some(raised)),
            Err(why) => Err((how, why)),
        }
    }

    /// Waits until a task that was raised at `at` has had its CPU. If it gets none, restores it and
    /// makes a pulse.
    pub(super) fn finish(
        &mut self,
        task: &Task,
        raised: BoostHandle,
        at: Nanos,
    ) -> Result<StartedBoost, (BoostPolicy, Refusal)> {
        // A task that was restored after it had used up its budget stays marked as throttled
        // [6.18]. Boosted again, it is in no queue, and no timer requeues it.
        if self.actuator.await_first_run(&raised, at) != Run::Missed {
            return Ok(StartedBoost::by_deadline(self.rules.how, raised));
        }
        self.actuator.restore(&raised);
        self.lift_by_pulse(task, at)
    }

    /// Boosts a task by a first pulse.
    fn lift_by_pulse(&mut self, task: &Task, at: Nanos) -> Result<StartedBoost, (BoostPolicy, Refusal)> {
        let how = BoostPolicy::Fifo;
        let pulse = self.make_pulse(task, None, at);
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
    pub(super) fn begin(&mut self, found: FoundTask, started: StartedBoost) {
        let FoundTask { task, found_owner, at, outranked } = found;
        let StartedBoost { how, raised, run, over } = started;
        self.counters.boosts += 1;
        self.events.push(Event::Boosted { task, how });
        if self.active.is_empty() {
            self.adoptions.begin(at);
        }
        let end = at + self.rules.duration;
        let mut active = Active {
            task,
            raised,
            found_owner,
            started: at,
            end,
            next_pulse: None,
            missed: 0,
            sleeps: false,
            outranked,
            is_for_one_budget: false,
        };
        if how == BoostPolicy::Fifo {
            active.plan_pulse(at, run, &self.rules);
            self.probation.begin(&task, &raised, at);
        }
        self.boosted.insert(task.id(), ());
        self.active.push(active);
        self.plan_recheck(at);
        if let Some(outcome) = over {
            self.close(self.active.len() - 1, at, true, outcome);
        }
    }
}
