//! Boosts that the library's caller requests for a task, whether or not the task starves.

use super::starts::Lifted;
use super::{Actuator, Booster, Nanos, Refusal, Task, Tid};
use crate::boost::active::{FoundTask, StartedBoost};

/// Why a request is denied.
#[derive(Debug)]
pub enum Denial {
    /// The task is boosted already.
    Boosted,
    /// The CPU of the task has no place for one more boost.
    NoPlace,
    Refused(Refusal),
}

impl<A: Actuator + ?Sized> Booster<A> {
    /// Boosts a task as if it were starving, but never ends the boost early. `waits` is whether it
    /// is runnable.
    pub(crate) fn boost(&mut self, task: &Task, waits: bool, now: Nanos) -> Result<(), Denial> {
        if self.active.iter().any(|active| active.task.tid == task.tid) {
            return Err(Denial::Boosted);
        }
        self.actuator.ascend();
        let task = self.with_current_owner(task);
        let is_spaced =
            self.rules.max_loss.is_none() || self.spacing.get(task.cpu).is_none_or(|next| next <= now);
        if !is_spaced || !self.fits(task.cpu, self.boosts_by_deadline(&task, now)) {
            self.actuator.descend();
            return Err(Denial::NoPlace);
        }
        let started = self.lift(&task, now, waits).and_then(|lifted| match lifted {
            Lifted::Raised(raised) if waits => self.finish(&task, raised, now),
            Lifted::Raised(raised) => Ok(StartedBoost::by_deadline(self.rules.how, raised)),
            Lifted::Started(started) => Ok(started),
        });
        self.actuator.descend();
        let started = started.map_err(|(_, why)| {
            self.counters.refused += 1;
            Denial::Refused(why)
        })?;
        self.begin(FoundTask { task, found_owner: task.owner, at: now, outranked: false }, started);
        Ok(())
    }

    /// Ends the boost of a task. Returns false if the task is not boosted.
    pub(crate) fn restore(&mut self, tid: Tid, now: Nanos) -> bool {
        let index = self.active.iter().position(|active| active.task.tid == tid);
        if let Some(index) = index {
            self.actuator.ascend();
            self.end(index, now, true);
            self.actuator.descend();
        }
        index.is_some()
    }
}
