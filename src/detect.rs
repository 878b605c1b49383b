//! Decides from one look after the other who starves, and when the next look is due.
//!
//! No clock is read and no call is made here: a test can run days of looks in a moment.

use crate::cpus::CpuSet;
use crate::fault::{self, Fault};
use crate::observe::Snapshot;
use crate::room::{ROOM, prefaulted_vec};
use crate::task::{Nanos, Task, Tid};

/// When a wait is starvation, and how long stalld may look away.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub threshold: Nanos,
    pub granularity: Nanos,
}

/// A task that has waited for the threshold or longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Starving {
    pub task: Task,
    pub since: Nanos,
    /// How long, at the moment of the look.
    pub wait: Nanos,
    /// It is the one of its CPU to be named now, ...
    pub due: bool,
    /// ... and has been before, in the same wait.
    pub again: bool,
}

/// What follows from a look. Reused from look to look.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// All who starve, the longest-starved first.
    pub starving: Vec<Starving>,
    pub next_look: Nanos,
}

impl Verdict {
    pub fn new() -> Verdict {
        let task = Task { tid: Tid(-1), ..Task::default() };
        let one = Starving { task, since: Nanos::ZERO, wait: Nanos::ZERO, due: false, again: false };
        Verdict { starving: prefaulted_vec(ROOM, one), next_look: Nanos::ZERO }
    }
}

/// A starving task is named again at each look, but no sooner than this, however short the
/// threshold.
const REPEAT: Nanos = Nanos::from_secs(1);

/// Where the threshold is at least `LONG_ENOUGH`, a scan at which no task can be due may come this
/// much later. It is planned this much earlier.
pub const MAX_SCAN_DELAY: Nanos = Nanos::from_millis(10);

/// See `MAX_SCAN_DELAY`.
const LONG_ENOUGH: Nanos = Nanos::from_secs(1);

/// Looks are this far apart at least, however many waits are about to become starvation.
const SHORTEST_PAUSE: Nanos = Nanos::from_millis(1);

/// A wait is remembered until this many scans have missed it, because a task on its way from one
/// CPU to another is in no queue. After them it is forgotten once it has been out of sight for the
/// threshold or `MAX_GAP`.
const MISSES: u32 = 8;

/// Nothing hides a waiting task for as long as this: a migration takes a moment, and a CPU quota is
/// refilled within a second. Most of the tasks that are out of sight for longer have run or ended.
const MAX_GAP: Nanos = Nanos::from_secs(60);

/// How many waits are remembered that the last scan did not see. If there are more, the shortest
/// are dropped: a task that is seen again after that has lost the least, and short waits are what a
/// user who forks all the time makes.
const MAX_UNSEEN: usize = 4096;

/// The same for a monitor, which has one CPU.
const MAX_UNSEEN_OF_MONITOR: usize = 256;

/// The state machine: the waits that have been seen and may be going on.
#[derive(Clone)]
pub struct Detector {
    limits: Limits,
    /// Looks that no wait asks for come at whole multiples of the pause.
    synchronised: bool,
    /// CPUs of which a task has been named at this look.
    named: CpuSet,
    /// By tid. A tid can be in it once only: a tid that is used again replaces its former bearer.
    waits: Vec<Wait>,
    merged: Vec<Wait>,
    max_unseen: usize,
    dropped: u64,
}

#[derive(Clone, Copy, Debug)]
struct Wait {
    task: Task,
    since: Nanos,
    seen: Nanos,
    missed: u32,
    named: Option<Nanos>,
}

impl Wait {
    fn is_of(&self, task: &Task) -> bool {
        // A task leaves its queue only by running: as long as it has not run it is the same wait,
        // wherever it was queued anew meanwhile.
        self.task.tid == task.tid
            && (self.task.start == task.start || fault::is(Fault::StartIgnored))
            && (self.task.progress == task.progress || fault::is(Fault::ProgressIgnored))
    }
}

impl Detector {
    pub fn new(limits: Limits) -> Detector {
        let nobody = Task { tid: Tid(-1), ..Task::default() };
        let wait = Wait { task: nobody, since: Nanos::ZERO, seen: Nanos::ZERO, missed: 0, named: None };
        let room = || prefaulted_vec(ROOM, wait);
        Detector {
            limits,
            synchronised: false,
            named: CpuSet::new(),
            waits: room(),
            merged: room(),
            max_unseen: MAX_UNSEEN,
            dropped: 0,
        }
    }

    /// One with other limits that knows the same waits, and has named nobody yet. It looks when all
    /// others do that come from this, so that they can share what one of them sees.
    pub fn synchronised(&self, limits: Limits) -> Detector {
        let mut other =
            Detector { synchronised: true, max_unseen: MAX_UNSEEN_OF_MONITOR, ..Detector::new(limits) };
        other.waits.extend(self.waits.iter().map(|wait| Wait { named: None, ..*wait }));
        other
    }

    /// Takes in what one scan saw. A task for which `ignore` returns true, given the beginning of
    /// its wait, never starves.
    pub fn look(
        &mut self,
        snapshot: &mut Snapshot,
        ignore: &mut impl FnMut(&Task, Nanos) -> bool,
        verdict: &mut Verdict,
    ) {
        snapshot.waiters.sort_unstable_by_key(|waiter| waiter.task.tid);
        self.merge(snapshot);
        self.judge(snapshot.at, ignore, verdict);
    }

    /// Gives back the memory that a crowd has taken.
    pub fn shrink(&mut self) {
        self.waits.shrink_to(ROOM);
        self.merged.shrink_to(ROOM);
    }

    /// Whether the look of this moment may be put off by `MAX_SCAN_DELAY`: no known wait is
    /// starvation by now.
    pub fn can_wait(&self, now: Nanos) -> bool {
        let Limits { threshold, .. } = self.limits;
        threshold >= LONG_ENOUGH
            && !self
                .waits
                .iter()
                .any(|wait| wait.missed <= 1 && wait.since + threshold <= now + MAX_SCAN_DELAY)
    }

    /// Since when a task that the last look saw has been waiting, if it has not run since.
    pub fn since(&self, task: &Task) -> Option<Nanos> {
        let index = self.waits.binary_search_by_key(&task.tid, |wait| wait.task.tid).ok()?;
        self.waits.get(index).filter(|wait| wait.missed == 0 && wait.is_of(task)).map(|wait| wait.since)
    }

    /// Has a starving task of the last scan named with that scan, whichever task of its CPU was
    /// due.
    pub fn name(&mut self, task: &Task, verdict: &mut Verdict) {
        let Ok(index) = self.waits.binary_search_by_key(&task.tid, |wait| wait.task.tid) else { return };
        let Some(wait) = self.waits.get_mut(index).filter(|wait| wait.named.is_none()) else { return };
        let place = (wait.since, task.tid);
        let found = verdict.starving.binary_search_by_key(&place, |it| (it.since, it.task.tid));
        if let Some(starving) = found.ok().and_then(|index| verdict.starving.get_mut(index)) {
            wait.named = Some(wait.seen);
            starving.due = true;
        }
    }

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
            self.merged.push(Wait {
                task: waiter.task,
                since: before.map_or(since, |wait| wait.since.min(since)),
                seen: snapshot.at,
                missed: 0,
                named: before.and_then(|wait| wait.named),
            });
        }
        self.merged.extend(known.filter_map(|wait| self.limits.missed(wait, snapshot.at)));
        std::mem::swap(&mut self.waits, &mut self.merged);
        self.drop_shortest();
    }

    /// Drops the shortest of the waits that this scan did not see, as far as they are too many.
    fn drop_shortest(&mut self) {
        let is_unseen = |wait: &&Wait| wait.missed > 0;
        let count = self.waits.iter().filter(is_unseen).count();
        if count <= self.max_unseen {
            return;
        }
        // There is room: all of them were in this vector before.
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

    fn judge(&mut self, now: Nanos, ignore: &mut impl FnMut(&Task, Nanos) -> bool, verdict: &mut Verdict) {
        let Limits { threshold, granularity } = self.limits;
        let threshold = if fault::is(Fault::ThresholdHalved) { Nanos(threshold.0 / 2) } else { threshold };
        verdict.starving.clear();
        let pause = self.limits.pause().max(SHORTEST_PAUSE);
        let mut next = now + pause - if self.synchronised { Nanos(now.0 % pause.0) } else { Nanos::ZERO };
        for wait in &mut self.waits {
            let due = wait.since + threshold;
            if due > now {
                // A look that missed it has not seen the end of it either.
                if wait.missed == 0 || wait.missed == 1 && wait.named.is_none() {
                    next = next.min(due);
                }
            } else if wait.missed == 0 && !ignore(&wait.task, wait.since) {
                let Wait { task, since, named, .. } = *wait;
                let again = named.is_some();
                let due = named.is_none_or(|named| now >= named + granularity.min(REPEAT));
                verdict.starving.push(Starving { task, since, wait: now - since, due, again });
                next = next.min(now + granularity);
            }
        }
        verdict.starving.sort_unstable_by_key(|starving| (starving.since, starving.task.tid));
        // One of a CPU is named at a look: who has not been yet comes first, and of the others the
        // one that has waited longest.
        self.named.clear();
        for starving in verdict.starving.iter_mut().filter(|it| it.due && !it.again) {
            let cpu = starving.task.cpu;
            if self.named.contains(cpu) {
                starving.due = false;
                next = now;
            }
            self.named.insert(cpu);
        }
        for starving in &mut verdict.starving {
            let cpu = starving.task.cpu;
            starving.due &= !starving.again || !self.named.contains(cpu);
            self.named.insert(cpu);
        }
        for starving in verdict.starving.iter().filter(|starving| starving.due) {
            if let Ok(index) = self.waits.binary_search_by_key(&starving.task.tid, |wait| wait.task.tid) {
                self.waits[index].named = Some(now);
            }
        }
        verdict.next_look = next.max(now + SHORTEST_PAUSE) + Nanos(fault::is(Fault::NextLookLate).into());
    }
}

impl Limits {
    /// Between two looks, if no wait is known.
    fn pause(&self) -> Nanos {
        let threshold = self.threshold;
        self.granularity.min(if threshold >= LONG_ENOUGH { threshold - MAX_SCAN_DELAY } else { threshold })
    }

    fn missed(&self, wait: &Wait, now: Nanos) -> Option<Wait> {
        let missed = wait.missed + 1;
        (missed <= MISSES || now - wait.seen <= self.threshold.min(MAX_GAP))
            .then_some(Wait { missed, ..*wait })
    }
}

#[cfg(test)]
#[path = "detect_tests.rs"]
mod tests;
