//! Starts of boosts between two scans.
//!
//! A crowd makes scans expensive, so each is followed by a rest. Without starts in between, the
//! other owners on the CPU of the crowd would wait for one more scan each, although a scan has
//! found all of them already.

use super::{Actuator, Booster, Nanos, SPACING, Starving};
use crate::task::TaskId;

/// The most owners on a CPU that wait for their turns at a scan, without the one that is served.
const MAX_TURNS_OF_CPU: usize = 4;

/// A boost that may start without a further scan.
#[derive(Clone, Copy)]
pub(super) struct PlannedStart {
    starving: Starving,
    at: Nanos,
    /// The kernel's count of runs of the task at the scan, or when the start was planned.
    runs: u64,
}

impl<A: Actuator + ?Sized> Booster<A> {
    /// Plans the boost of a task that has to wait only because another boost has just started on
    /// its CPU. A scan plans one such boost for each owner, as the other tasks of an owner can wait
    /// for the next scan. `next` is when a boost may start on the CPU.
    pub(super) fn plan_turn(&mut self, starving: &Starving, next: Nanos, now: Nanos) {
        let (cpu, owner) = (starving.task.cpu, starving.task.owner);
        if self.served.get((cpu, owner)).is_some_and(|at| at >= now)
            || self.turns.len() >= self.turns.capacity()
        {
            return;
        }
        let here = || self.turns.iter().map(|turn| &turn.starving.task).filter(|task| task.cpu == cpu);
        let before = here().count();
        if before >= MAX_TURNS_OF_CPU || here().any(|task| task.owner == owner) {
            return;
        }
        let at = next + Nanos(SPACING.0 * before as u64);
        let runs = match self.counts_runs {
            true => Some(starving.task.progress),
            false => self.actuator.runs(&starving.task),
        };
        // Without this count, only a scan shows whether the task still waits.
        let Some(runs) = runs else { return };
        self.turns.push(PlannedStart { starving: *starving, at, runs });
    }

    /// Returns the tasks whose boosts are planned.
    pub(crate) fn turns(&self) -> impl Iterator<Item = TaskId> {
        self.turns.iter().map(|turn| turn.starving.task.id())
    }

    /// Returns when `take_turns` has to be called.
    pub(crate) fn next_turn(&self) -> Option<Nanos> {
        self.turns.iter().map(|turn| turn.at).min()
    }

    /// Starts the planned boosts that are due. A task that has had a CPU since the scan does not
    /// starve any more.
    pub(crate) fn take_turns(&mut self, now: Nanos) {
        if self.next_turn().is_none_or(|next| now < next) {
            return;
        }
        self.actuator.ascend();
        let mut index = 0;
        while let Some(turn) = self.turns.get_mut(index) {
            let task = turn.starving.task;
            if let Some(next) = self.spacing.get(task.cpu) {
                // The boost before this one started late.
                turn.at = turn.at.max(next);
            }
            if turn.at > now {
                index += 1;
                continue;
            }
            let PlannedStart { starving, runs, .. } = self.turns.remove(index);
            let is_there = self.actuator.standing(task.tid).is_some_and(|standing| standing.cpu == task.cpu);
            let has_waited = is_there && self.actuator.runs(&task) == Some(runs);
            if has_waited && self.wants(&starving) && self.has_place(&task, now) {
                let crowded = self.waiting > self.rules.places();
                self.start(&starving, now, crowded);
            }
        }
        self.finish_starts();
        self.actuator.descend();
    }
}
