//! Ends boosts that are no longer needed, because no other task outranks the boosted one.

use super::{Actuator, Booster, Fault, Nanos, SCAN_AFTER_END, Snapshot, Task, Tid, fault};
use crate::boost::active::Active;

/// The time between two checks whether a boost by SCHED_DEADLINE is still needed. Such a boost
/// holds its task back once no other task does. A pulse does not, so pulses are checked once a
/// period.
pub(super) const RECHECK_INTERVAL: Nanos = Nanos::from_millis(10);

/// The time from a check by a scan to the next check, because a scan may be expensive.
pub(super) const RESCAN_INTERVAL: Nanos = Nanos::from_millis(100);

/// With more boosts in flight, a scan is cheaper than the files of each boosted task.
const MAX_READ_FILES: usize = 16;

impl<A: Actuator + ?Sized> Booster<A> {
    /// Makes a check due for a boost that has just started.
    pub(super) fn plan_recheck(&mut self, started: Nanos) {
        let next = started + self.until_recheck(RECHECK_INTERVAL);
        self.next_recheck = if self.active.len() == 1 { next } else { self.next_recheck.min(next) };
    }

    /// Does a check that is due without a scan, if the files of a few tasks show that all boosts
    /// are still needed. A scan is then due only for new waits.
    pub(crate) fn recheck_by_files(&mut self, now: Nanos) {
        if now < self.next_recheck || self.active.is_empty() || self.active.len() > MAX_READ_FILES {
            return;
        }
        self.actuator.ascend();
        if self.active.iter().all(|active| self.is_as_at_scan(active)) || fault::is(Fault::RecheckSkipped) {
            self.next_recheck = now + self.until_recheck(RECHECK_INTERVAL);
        }
        self.actuator.descend();
    }

    /// Returns whether a boosted task is on the CPU where the last scan saw it, and the task that
    /// outranked it is still runnable there.
    fn is_as_at_scan(&self, active: &Active) -> bool {
        let Task { tid, cpu, .. } = active.task;
        let there = |tid: Tid| self.actuator.standing(tid).filter(|standing| standing.cpu == cpu);
        let outranks = |(hog, priority): (Tid, i32)| {
            let is_boosted = self.active.iter().any(|other| other.task.tid == hog);
            !is_boosted && there(hog).is_some_and(|hog| hog.is_runnable && hog.prio <= priority)
        };
        let is_outranked =
            || self.priorities.outrank(&active.task) && self.priorities.best(cpu).is_some_and(outranks);
        there(tid).is_some() && (!active.outranked || is_outranked())
    }

    /// Ends the boosts of tasks that no other task outranks any more. Returns whether there were
    /// any.
    pub(super) fn recheck_by_scan(&mut self, snapshot: &Snapshot) -> bool {
        let now = snapshot.at;
        let before = self.active.len();
        let mut index = 0;
        while index < self.active.len() {
            let active = &self.active[index];
            if snapshot.complete && active.outranked && !self.priorities.outrank(&active.task) {
                self.end(index, now, true);
                self.scan_at(now + SCAN_AFTER_END);
            } else {
                index += 1;
            }
        }
        self.next_recheck = now + self.until_recheck(RESCAN_INTERVAL);
        self.active.len() < before
    }

    /// Returns the time until the next check: `interval`, or a period if all boosts are pulses.
    fn until_recheck(&self, interval: Nanos) -> Nanos {
        match self.has_deadline() {
            true if self.active.len() > MAX_READ_FILES => RESCAN_INTERVAL,
            true => interval,
            false => RESCAN_INTERVAL.max(self.rules.period),
        }
    }
}
