//! Boosts that somebody asks for, starving or not.

use super::{Actuator, Booster, Event, Nanos, Refusal, Task, Tid, with_current_owner};

/// Why a request is not met.
#[derive(Debug)]
pub enum Denial {
    /// It is boosted as it is.
    Boosted,
    /// Its CPU has as many boosts as it can bear.
    NoPlace,
    Refused(Refusal),
}

impl Booster {
    /// Boosts a task as a starving one would be, but for an early end. `waits` says whether it is
    /// runnable.
    pub fn boost(
        &mut self,
        task: &Task,
        waits: bool,
        now: Nanos,
        actuator: &mut dyn Actuator,
        events: &mut Vec<Event>,
    ) -> Result<(), Denial> {
        if self.active.iter().any(|active| active.task.tid == task.tid) {
            return Err(Denial::Boosted);
        }
        if self.on(task.cpu).count() >= self.places {
            return Err(Denial::NoPlace);
        }
        let task = with_current_owner(task, actuator);
        let lifted = self.lift(&task, now, waits, actuator, events).map_err(|(_, why)| {
            self.counters.refused += 1;
            Denial::Refused(why)
        })?;
        self.begin(task, lifted, now, false, events);
        Ok(())
    }

    /// Ends the boost of a task. False if it is not boosted.
    pub fn restore(
        &mut self,
        tid: Tid,
        now: Nanos,
        actuator: &mut dyn Actuator,
        events: &mut Vec<Event>,
    ) -> bool {
        let index = self.active.iter().position(|active| active.task.tid == tid);
        if let Some(index) = index {
            self.end(index, now, true, actuator, events);
        }
        index.is_some()
    }
}
