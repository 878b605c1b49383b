//! Decides from scan to scan which tasks starve, and when the next scan is due.
//!
//! This module reads no clock and makes no system call, so a test can run days of scans in a
//! moment.

use crate::cpus::CpuSet;
use crate::fault::{self, Fault};
use crate::observe::Snapshot;
use crate::room::{ROOM, prefaulted_vec};
use crate::task::{Nanos, Task, TaskId, Tid};
use std::cmp::Reverse;

/// The threshold from which a wait is starvation, and the granularity, the longest time between
/// scans.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub threshold: Nanos,
    pub granularity: Nanos,
}

/// A task that has waited at least as long as the threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Starving {
    pub task: Task,
    pub since: Nanos,
    /// The length of the wait at the scan.
    pub wait: Nanos,
    /// The task is to be reported at this scan: one task of each CPU, and each that was boosted.
    pub due: bool,
    /// The task has been reported before in the same wait.
    pub again: bool,
}

/// The results of a scan. The memory is reused from scan to scan.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// All starving tasks, the longest-starved first.
    pub starving: Vec<Starving>,
    pub next_scan: Nanos,
}

impl Verdict {
    pub fn new() -> Verdict {
        let task = Task { tid: Tid(-1), ..Task::default() };
        let one = Starving { task, since: Nanos::ZERO, wait: Nanos::ZERO, due: false, again: false };
        Verdict { starving: prefaulted_vec(ROOM, one), next_scan: Nanos::ZERO }
    }
}

/// The tasks that do not count as starving.
pub trait Exclusions {
    /// Returns whether only boosts keep a task off its CPU at this scan. The task has waited since
    /// `since`.
    fn is_displaced(&self, task: &Task, since: Nanos) -> bool;

    /// Returns whether a task never counts as starving; `None` if that is unknown at this scan. An
    /// answer is kept as long as the wait goes on and the task has the same name.
    fn is_ignored(&mut self, task: &Task) -> Option<bool>;
}

/// A starving task is reported again after the granularity, or after this if that is shorter.
const REPEAT: Nanos = Nanos::from_secs(1);

/// A scan at which no task can be due may come this much later, if the threshold is at least
/// `LONG_ENOUGH`. So scans are planned this much earlier.
pub const MAX_SCAN_DELAY: Nanos = Nanos::from_millis(10);

/// The shortest threshold at which a scan may be late by `MAX_SCAN_DELAY`.
const LONG_ENOUGH: Nanos = Nanos::from_secs(1);

/// The shortest time between two scans, however many waits are about to become starvation.
const SHORTEST_PAUSE: Nanos = Nanos::from_millis(1);

/// A wait is remembered until this many scans have missed its task, because a migrating task is in
/// no queue. After them it is forgotten once no scan has seen the task for the threshold or for
/// `MAX_GAP`, whichever is shorter.
const MISSES: u32 = 8;

/// The longest time that a waiting task can be hidden from scans: a migration takes a moment, and a
/// CPU quota is refilled within a second. Most tasks that are hidden for longer have run or ended.
const MAX_GAP: Nanos = Nanos::from_secs(60);

/// The most waits that are remembered though the last scan did not see their tasks. If there are
/// more, the shortest are dropped. They lose the least if a scan sees their tasks again, and a user
/// that forks all the time makes short waits.
const MAX_UNSEEN: usize = 4096;

/// The same for a monitor, which has one CPU.
const MAX_UNSEEN_OF_MONITOR: usize = 256;

/// The waits that scans have seen and that may go on.
#[derive(Clone)]
pub struct Detector {
    limits: Limits,
    /// Scans that no wait makes due come at whole multiples of the pause.
    synchronised: bool,
    /// The CPUs of which this scan reports a task.
    reported_cpus: CpuSet,
    /// Sorted by tid. A tid is in it once only, because a task that reuses a tid replaces the
    /// earlier task.
    waits: Vec<Wait>,
    /// The waits while they are merged with a scan. Its memory is reused.
    merged: Vec<Wait>,
    max_unseen: usize,
    dropped: u64,
    /// When waits were last restarted.
    restarted_at: Nanos,
}

#[derive(Clone, Copy, Debug)]
struct Wait {
    task: Task,
    since: Nanos,
    seen: Nanos,
    missed: u32,
    /// When the task was last reported.
    reported_at: Option<Nanos>,
    /// It counts from a restart, and not from its begin.
    is_restarted: bool,
    /// The answer of `Exclusions::is_ignored`.
    is_ignored: Option<bool>,
}

impl Wait {
    /// Returns whether the task does not count as starving at this scan.
    fn is_excluded(&mut self, exclusions: &mut impl Exclusions) -> bool {
        if exclusions.is_displaced(&self.task, self.since) {
            return true;
        }
        if self.is_ignored.is_none() {
            self.is_ignored = exclusions.is_ignored(&self.task);
        }
        self.is_ignored.unwrap_or(true)
    }

    fn is_of(&self, task: &Task) -> bool {
        // A task leaves its queue only by running. So as long as it has not run the wait is the
        // same, even in another queue.
        self.task.tid == task.tid
            && (self.task.start == task.start || fault::is(Fault::StartIgnored))
            && (self.task.progress == task.progress || fault::is(Fault::ProgressIgnored))
    }
}

impl Detector {
    pub fn new(limits: Limits) -> Detector {
        let nobody = Task { tid: Tid(-1), ..Task::default() };
        let wait = Wait {
            task: nobody,
            since: Nanos::ZERO,
            seen: Nanos::ZERO,
            missed: 0,
            reported_at: None,
            is_restarted: false,
            is_ignored: None,
        };
        let room = || prefaulted_vec(ROOM, wait);
        Detector {
            limits,
            synchronised: false,
            reported_cpus: CpuSet::new(),
            waits: room(),
            merged: room(),
            max_unseen: MAX_UNSEEN,
            dropped: 0,
            restarted_at: Nanos::ZERO,
        }
    }

    /// Returns a detector with other limits that knows the same waits, and has reported no task
    /// yet. All detectors that come from this one scan at the same times, so that they can share a
    /// scan.
    pub fn synchronised(&self, limits: Limits) -> Detector {
        let mut other =
            Detector { synchronised: true, max_unseen: MAX_UNSEEN_OF_MONITOR, ..Detector::new(limits) };
        other.restarted_at = self.restarted_at;
        other.waits.extend(self.waits.iter().map(|wait| Wait { reported_at: None, ..*wait }));
        other
    }

    /// Updates the waits from a scan and finds the starving tasks.
    pub fn judge(
        &mut self,
        snapshot: &mut Snapshot,
        exclusions: &mut impl Exclusions,
        verdict: &mut Verdict,
    ) {
        // A task that moves while the queues are read one by one may be in two of them. Its newer
        // wait counts.
        snapshot.waiters.sort_unstable_by_key(|waiter| (waiter.task.tid, Reverse(waiter.task.progress)));
        snapshot.waiters.dedup_by_key(|waiter| waiter.task.tid);
        self.merge(snapshot);
        self.find_starving(snapshot.at, exclusions, verdict);
    }

    /// Lets all waits that began before `now` count from `now`, because no task could run for a
    /// while. Restarts each wait once only, so that no number of such whiles hides a starving task.
    pub fn restart(&mut self, now: Nanos) {
        self.restarted_at = now;
        for wait in self.waits.iter_mut().filter(|wait| !wait.is_restarted) {
            (wait.since, wait.is_restarted, wait.reported_at) = (now, true, None);
        }
    }

    /// Frees the memory that was needed for a crowd.
    pub fn shrink(&mut self) {
        self.waits.shrink_to(ROOM);
        self.merged.shrink_to(ROOM);
    }

    /// Returns whether the scan that is due now may come `MAX_SCAN_DELAY` later, because no known
    /// wait is starvation by then.
    pub fn can_wait(&self, now: Nanos) -> bool {
        let Limits { threshold, .. } = self.limits;
        threshold >= LONG_ENOUGH
            && !self
                .waits
                .iter()
                .any(|wait| wait.missed <= 1 && wait.since + threshold <= now + MAX_SCAN_DELAY)
    }

    /// Returns since when a task of the last scan has waited; `None` if the task is unknown or has
    /// run since.
    pub fn since(&self, task: &Task) -> Option<Nanos> {
        let index = self.waits.binary_search_by_key(&task.tid, |wait| wait.task.tid).ok()?;
        self.waits.get(index).filter(|wait| wait.missed == 0 && wait.is_of(task)).map(|wait| wait.since)
    }

    /// Makes a starving task due at the last scan, unless it has been reported before. Another task
    /// of its CPU may be due too.
    pub fn report(&mut self, task: TaskId, verdict: &mut Verdict) {
        let Ok(index) = self.waits.binary_search_by_key(&task.tid, |wait| wait.task.tid) else { return };
        let Some(wait) = self.waits.get_mut(index).filter(|wait| wait.reported_at.is_none()) else { return };
        let place = (wait.since, task.tid);
        let found = verdict.starving.binary_search_by_key(&place, |it| (it.since, it.task.tid));
        if let Some(starving) = found.ok().and_then(|index| verdict.starving.get_mut(index)) {
            wait.reported_at = Some(wait.seen);
            starving.due = true;
        }
    }

    /// Updates the waits from a scan, whose waiters are sorted by tid.
    fn merge(&mut self, snapshot: &Snapshot) {
        self.merged.clear();
        let mut known = self.waits.iter().peekable();
        for waiter in &snapshot.waiters {
            while let Some(wait) = known.next_if(|wait| wait.task.tid < waiter.task.tid) {
                self.merged.extend(self.limits.missed(wait, snapshot.at));
            }
            let before = known.next_if(|wait| wait.task.tid == waiter.task.tid);
            let before = before.filter(|wait| wait.is_of(&waiter.task));
            let since = waiter.since.unwrap_or(snapshot.at);
            let (since, is_restarted) = match before {
                Some(wait) if wait.is_restarted => (wait.since, true),
                Some(wait) => (wait.since.min(since), false),
                None => (since.max(self.restarted_at), since < self.restarted_at),
            };
            self.merged.push(Wait {
                task: waiter.task,
                since,
                is_restarted,
                seen: snapshot.at,
                missed: 0,
                reported_at: before.and_then(|wait| wait.reported_at),
                is_ignored: before
                    .filter(|wait| wait.task.comm == waiter.task.comm)
                    .and_then(|wait| wait.is_ignored),
            });
        }
        self.merged.extend(known.filter_map(|wait| self.limits.missed(wait, snapshot.at)));
        std::mem::swap(&mut self.waits, &mut self.merged);
        self.drop_shortest();
    }

    /// Drops the shortest waits among those that this scan did not see, if there are too many of
    /// them.
    fn drop_shortest(&mut self) {
        let is_unseen = |wait: &&Wait| wait.missed > 0;
        let count = self.waits.iter().filter(is_unseen).count();
        if count <= self.max_unseen {
            return;
        }
        // This does not allocate, because all of them were in this vector before.
        self.merged.clear();
        self.merged.extend(self.waits.iter().filter(is_unseen));
        let age = |wait: &Wait| (wait.since, wait.task.tid);
        let (_, first, _) = self.merged.select_nth_unstable_by_key(self.max_unseen, age);
        let first = age(first);
        self.waits.retain(|wait| wait.missed == 0 || age(wait) < first);
        self.dropped += (count - self.max_unseen) as u64;
    }

    /// Returns how many waits were dropped because too many were out of sight at once.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    fn find_starving(&mut self, now: Nanos, exclusions: &mut impl Exclusions, verdict: &mut Verdict) {
        let Limits { threshold, granularity } = self.limits;
        let threshold = if fault::is(Fault::ThresholdHalved) { Nanos(threshold.0 / 2) } else { threshold };
        verdict.starving.clear();
        let pause = self.limits.pause().max(SHORTEST_PAUSE);
        let mut next = now + pause - if self.synchronised { Nanos(now.0 % pause.0) } else { Nanos::ZERO };
        for wait in &mut self.waits {
            let due = wait.since + threshold;
            if due > now {
                // A scan that missed the task has not seen the end of its wait either.
                if wait.missed == 0 || wait.missed == 1 && wait.reported_at.is_none() {
                    next = next.min(due);
                }
            } else if wait.missed == 0 && !wait.is_excluded(exclusions) {
                let Wait { task, since, reported_at, .. } = *wait;
                let again = reported_at.is_some();
                let due = reported_at.is_none_or(|at| now >= at + granularity.min(REPEAT));
                verdict.starving.push(Starving { task, since, wait: now - since, due, again });
                next = next.min(now + granularity);
            }
        }
        verdict.starving.sort_unstable_by_key(|starving| (starving.since, starving.task.tid));
        // A scan reports one task of a CPU. A task that has not been reported yet comes first, then
        // the one that has waited longest.
        self.reported_cpus.clear();
        for starving in verdict.starving.iter_mut().filter(|it| it.due && !it.again) {
            let cpu = starving.task.cpu;
            if self.reported_cpus.contains(cpu) {
                starving.due = false;
                next = now;
            }
            self.reported_cpus.insert(cpu);
        }
        for starving in &mut verdict.starving {
            let cpu = starving.task.cpu;
            starving.due &= !starving.again || !self.reported_cpus.contains(cpu);
            self.reported_cpus.insert(cpu);
        }
        for starving in verdict.starving.iter().filter(|starving| starving.due) {
            if let Ok(index) = self.waits.binary_search_by_key(&starving.task.tid, |wait| wait.task.tid) {
                self.waits[index].reported_at = Some(now);
            }
        }
        verdict.next_scan = next.max(now + SHORTEST_PAUSE) + Nanos(fault::is(Fault::NextScanLate).into());
    }
}

impl Limits {
    /// Returns the time between two scans if no wait is known.
    fn pause(&self) -> Nanos {
        let threshold = self.threshold;
        self.granularity.min(if threshold >= LONG_ENOUGH { threshold - MAX_SCAN_DELAY } else { threshold })
    }

    /// Returns a wait that a scan has missed; `None` if it is to be forgotten.
    fn missed(&self, wait: &Wait, now: Nanos) -> Option<Wait> {
        let missed = wait.missed + 1;
        (missed <= MISSES || now - wait.seen <= self.threshold.min(MAX_GAP))
            .then_some(Wait { missed, ..*wait })
    }
}

#[cfg(test)]
#[path = "detect_tests.rs"]
mod tests;
