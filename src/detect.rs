//! Decides from one look after the other who starves, and when the next look is due.
//!
//! No clock is read and no call is made here: a test can run days of looks in a moment.

use crate::cpus::CpuSet;
use crate::fault::{self, Fault};
use crate::observe::Snapshot;
use crate::sys::memory;
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
        Verdict { starving: memory::room_for(ROOM, one), next_look: Nanos::ZERO }
    }
}

/// As many tasks may wait at once before a look has to allocate.
pub const ROOM: usize = 256;

/// A starving task is named again at each look, but no sooner than this, however short the threshold.
const REPEAT: Nanos = Nanos::from_secs(1);

/// Where the threshold is long enough, a look that nobody is due at may come this much later, ...
pub const PATIENCE: Nanos = Nanos::from_millis(10);

/// ... and is planned this much earlier.
const LONG_ENOUGH: Nanos = Nanos::from_secs(1);

/// Looks are this far apart at least, however many waits are about to become starvation.
const SHORTEST_PAUSE: Nanos = Nanos::from_millis(1);

/// A wait is remembered until this many scans have missed it, because a task on its way from one CPU to another is in
/// no queue. After them it is forgotten once it has been out of sight for the threshold or `MAX_GAP`.
const MISSES: u32 = 8;

/// Nothing hides a waiting task for as long as this: a migration takes a moment, and a CPU quota is refilled within a
/// second. Most of the tasks that are out of sight for longer have run or ended.
const MAX_GAP: Nanos = Nanos::from_secs(60);

/// How many waits are remembered that the last scan did not see. If there are more, the shortest are dropped: a task
/// that is seen again after that has lost the least, and short waits are what a user who forks all the time makes.
const MAX_UNSEEN: usize = 4096;

/// The same for a monitor, which has one CPU.
const MAX_UNSEEN_OF_MONITOR: usize = 256;

/// The state machine: the waits that have been seen and may be going on.
#[derive(Clone)]
pub struct Detector {
    limits: Limits,
    /// Looks that no wait asks for come at whole multiples of the pause.
    in_step: bool,
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
        // A task leaves its queue only by running: as long as it has not run it is the same wait, wherever
        // it was queued anew meanwhile.
        self.task.tid == task.tid
            && (self.task.start == task.start || fault::is(Fault::StartIgnored))
            && (self.task.progress == task.progress || fault::is(Fault::ProgressIgnored))
    }
}

impl Detector {
    pub fn new(limits: Limits) -> Detector {
        let nobody = Task { tid: Tid(-1), ..Task::default() };
        let wait = Wait { task: nobody, since: Nanos::ZERO, seen: Nanos::ZERO, missed: 0, named: None };
        let room = || memory::room_for(ROOM, wait);
        Detector {
            limits,
            in_step: false,
            named: CpuSet::new(),
            waits: room(),
            merged: room(),
            max_unseen: MAX_UNSEEN,
            dropped: 0,
        }
    }

    /// One with other limits that knows the same waits, and has named nobody yet. It looks when all others do
    /// that come from this, so that they can share what one of them sees.
    pub fn in_step(&self, limits: Limits) -> Detector {
        let mut other =
            Detector { in_step: true, max_unseen: MAX_UNSEEN_OF_MONITOR, ..Detector::new(limits) };
        other.waits.extend(self.waits.iter().map(|wait| Wait { named: None, ..*wait }));
        other
    }

    /// Takes in what one look saw. Whom `ignore` says so of does not starve, whatever his wait.
    pub fn look(
        &mut self,
        snapshot: &mut Snapshot,
        ignore: &mut impl FnMut(&Task) -> bool,
        verdict: &mut Verdict,
    ) {
        snapshot.waiters.sort_unstable_by_key(|waiter| waiter.task.tid);
        self.merge(snapshot);
        self.judge(snapshot.at, ignore, verdict);
    }

    /// Whether the look of this moment may be put off by `PATIENCE`: no known wait is starvation by now.
    pub fn can_wait(&self, now: Nanos) -> bool {
        let Limits { threshold, .. } = self.limits;
        threshold >= LONG_ENOUGH
            && !self.waits.iter().any(|wait| wait.missed <= 1 && wait.since + threshold <= now + PATIENCE)
    }

    /// Since when a task that the last look saw has been waiting, if it has not run since.
    pub fn since(&self, task: &Task) -> Option<Nanos> {
        let index = self.waits.binary_search_by_key(&task.tid, |wait| wait.task.tid).ok()?;
        self.waits.get(index).filter(|wait| wait.missed == 0 && wait.is_of(task)).map(|wait| wait.since)
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

    fn judge(&mut self, now: Nanos, ignore: &mut impl FnMut(&Task) -> bool, verdict: &mut Verdict) {
        let Limits { threshold, granularity } = self.limits;
        let threshold = if fault::is(Fault::ThresholdHalved) { Nanos(threshold.0 / 2) } else { threshold };
        verdict.starving.clear();
        let pause = self.limits.pause().max(SHORTEST_PAUSE);
        let mut next = now + pause - if self.in_step { Nanos(now.0 % pause.0) } else { Nanos::ZERO };
        for wait in &mut self.waits {
            let due = wait.since + threshold;
            if due > now {
                // A look that missed it has not seen the end of it either.
                if wait.missed == 0 || wait.missed == 1 && wait.named.is_none() {
                    next = next.min(due);
                }
            } else if wait.missed == 0 && !ignore(&wait.task) {
                let Wait { task, since, named, .. } = *wait;
                let again = named.is_some();
                let due = named.is_none_or(|named| now >= named + granularity.min(REPEAT));
                verdict.starving.push(Starving { task, since, wait: now - since, due, again });
                next = next.min(now + granularity);
            }
        }
        verdict.starving.sort_unstable_by_key(|starving| (starving.since, starving.task.tid));
        // One of a CPU is named at a look: who has not been yet comes first, and of the others the one that
        // has waited longest.
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
        self.granularity.min(if threshold >= LONG_ENOUGH { threshold - PATIENCE } else { threshold })
    }

    fn missed(&self, wait: &Wait, now: Nanos) -> Option<Wait> {
        let missed = wait.missed + 1;
        (missed <= MISSES || now - wait.seen <= self.threshold.min(MAX_GAP))
            .then_some(Wait { missed, ..*wait })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::Waiter;
    use crate::task::Cpu;

    const T: Nanos = Nanos::from_secs(2);
    const G: Nanos = Nanos::from_secs(5);
    const IGNORED: Tid = Tid(666);

    fn ms(millis: u64) -> Nanos {
        Nanos::from_millis(millis)
    }

    fn waiter(tid: i32, progress: u64, since: Option<Nanos>) -> Waiter {
        Waiter { task: Task { tid: Tid(tid), start: 7, progress, cpu: Cpu(1), ..Task::default() }, since }
    }

    /// A detector and what its last look came to.
    struct Looks {
        detector: Detector,
        verdict: Verdict,
    }

    impl Looks {
        fn new() -> Looks {
            Looks {
                detector: Detector::new(Limits { threshold: T, granularity: G }),
                verdict: Verdict::default(),
            }
        }

        fn at(&mut self, at: Nanos, waiters: &[Waiter]) -> Vec<(i32, Nanos)> {
            let mut snapshot =
                Snapshot { at, complete: true, waiters: waiters.to_vec(), ..Snapshot::default() };
            self.detector.look(&mut snapshot, &mut |task| task.tid == IGNORED, &mut self.verdict);
            let named = self.verdict.starving.iter().filter(|starving| starving.due);
            named.map(|starving| (starving.task.tid.0, starving.wait)).collect()
        }
    }

    #[test]
    fn a_wait_is_named_at_the_threshold_and_the_look_for_it_is_due_just_then() {
        let mut looks = Looks::new();
        assert_eq!(looks.at(ms(1000), &[waiter(1, 1, Some(ms(400)))]), []);
        assert_eq!(looks.verdict.next_look, ms(2400));
        assert_eq!(looks.at(ms(2400), &[waiter(1, 1, Some(ms(400)))]), [(1, T)]);
        assert_eq!(looks.verdict.next_look, ms(2400) + T - PATIENCE);
    }

    #[test]
    fn a_wait_without_a_record_counts_from_the_first_look_that_saw_it() {
        let mut looks = Looks::new();
        assert_eq!(looks.at(ms(1000), &[waiter(1, 1, None)]), []);
        assert_eq!(looks.verdict.next_look, ms(3000) - PATIENCE);
        assert_eq!(looks.at(ms(2990), &[waiter(1, 1, None)]), []);
        assert_eq!(looks.verdict.next_look, ms(3000));
        assert_eq!(looks.at(ms(3000), &[waiter(1, 1, None)]), [(1, T)]);
    }

    #[test]
    fn a_task_that_ran_between_two_looks_starts_a_new_wait() {
        let mut looks = Looks::new();
        looks.at(ms(1000), &[waiter(1, 1, None)]);
        assert_eq!(looks.at(ms(3000), &[waiter(1, 2, None)]), []);
        assert_eq!(looks.verdict.next_look, ms(5000) - PATIENCE);
    }

    #[test]
    fn a_task_that_migrates_while_queued_keeps_its_wait() {
        let mut looks = Looks::new();
        looks.at(ms(1000), &[waiter(1, 1, Some(ms(900)))]);
        // This look falls into the migration ...
        assert_eq!(looks.at(ms(1500), &[]), []);
        assert_eq!(looks.verdict.next_look, ms(2900));
        // ... and the other CPU's queue has given it a new stamp.
        assert_eq!(looks.at(ms(2900), &[waiter(1, 1, Some(ms(1501)))]), [(1, T)]);
    }

    #[test]
    fn a_wait_that_many_looks_missed_is_still_the_same_wait() {
        let mut looks = Looks::new();
        looks.at(ms(1000), &[waiter(1, 1, None)]);
        for look in 1..=5 {
            looks.at(ms(1000 + look), &[]);
        }
        assert_eq!(looks.at(ms(3000), &[waiter(1, 1, None)]), [(1, T)]);
    }

    #[test]
    fn a_tid_that_is_used_again_does_not_inherit_a_wait() {
        let mut looks = Looks::new();
        looks.at(ms(1000), &[waiter(1, 1, None)]);
        let mut reborn = waiter(1, 1, None);
        reborn.task.start = 8;
        assert_eq!(looks.at(ms(3000), &[reborn]), []);
    }

    #[test]
    fn the_longest_starved_is_first_whatever_its_place_in_the_snapshot() {
        let mut looks = Looks::new();
        let waiters = [waiter(3, 1, Some(ms(200))), waiter(1, 1, Some(ms(300))), waiter(2, 1, Some(ms(100)))];
        assert_eq!(looks.at(ms(5000), &waiters), [(2, ms(4900))]);
        let order: Vec<i32> = looks.verdict.starving.iter().map(|starving| starving.task.tid.0).collect();
        assert_eq!(order, [2, 3, 1]);
    }

    #[test]
    fn one_task_of_a_cpu_is_named_at_a_look_and_the_others_at_the_next_ones_at_once() {
        let mut looks = Looks::new();
        let mut elsewhere = waiter(3, 1, Some(ms(150)));
        elsewhere.task.cpu = Cpu(0);
        let waiters = [waiter(1, 1, Some(ms(100))), waiter(2, 1, Some(ms(200))), elsewhere];
        assert_eq!(looks.at(ms(5000), &waiters), [(1, ms(4900)), (3, ms(4850))]);
        assert_eq!(looks.verdict.next_look, ms(5000) + SHORTEST_PAUSE);
        assert_eq!(looks.at(ms(5001), &waiters), [(2, ms(4801))]);
        assert!(looks.verdict.next_look > ms(6900));
    }

    #[test]
    fn an_ignored_task_hides_no_other_and_makes_no_look_due() {
        let mut looks = Looks::new();
        let waiters = [waiter(IGNORED.0, 1, Some(ms(100))), waiter(2, 1, Some(ms(200)))];
        assert_eq!(looks.at(ms(5000), &waiters), [(2, ms(4800))]);
        assert_eq!(looks.at(ms(5001), &waiters[..1]), []);
        assert_eq!(looks.verdict.next_look, ms(5001) + T - PATIENCE);
    }

    #[test]
    fn a_task_that_keeps_starving_is_named_again_but_once_a_second_at_most() {
        let mut looks = Looks::new();
        let starving = [waiter(1, 1, Some(ms(0)))];
        assert_eq!(looks.at(ms(2000), &starving), [(1, ms(2000))]);
        assert!(!looks.verdict.starving[0].again);
        assert_eq!(looks.at(ms(2500), &starving), []);
        assert_eq!(looks.at(ms(3000), &starving), [(1, ms(3000))]);
        assert!(looks.verdict.starving[0].again);
    }

    #[test]
    fn an_idle_machine_is_looked_at_once_per_granularity() {
        let limits = Limits { threshold: Nanos::from_secs(60), granularity: G };
        let mut detector = Detector::new(limits);
        let mut verdict = Verdict::default();
        detector.look(&mut Snapshot { at: ms(10), ..Snapshot::default() }, &mut |_| false, &mut verdict);
        assert_eq!(verdict.next_look, ms(10) + G);
    }

    #[test]
    fn detectors_in_step_know_the_same_waits_and_look_at_the_same_moments() {
        let mut looks = Looks::new();
        looks.at(ms(1000), &[waiter(1, 1, None)]);
        looks.at(ms(3000), &[waiter(1, 1, None)]);
        let other = looks.detector.in_step(Limits { threshold: ms(2500), granularity: G });
        let mut other = Looks { detector: other, verdict: Verdict::default() };
        assert_eq!(other.at(ms(3100), &[waiter(1, 1, None)]), []);
        assert_eq!(other.verdict.next_look, ms(3500));
        assert_eq!(other.at(ms(3500), &[waiter(1, 1, None)]), [(1, ms(2500))]);
        for at in [3700, 4000, 4979] {
            assert_eq!(other.at(ms(at), &[]), []);
            assert_eq!(other.verdict.next_look, ms(2 * 2490));
        }
    }

    #[test]
    fn the_next_look_is_never_in_the_past_even_if_the_clock_of_a_queue_is() {
        let mut looks = Looks::new();
        looks.at(ms(5000), &[waiter(1, 1, Some(ms(9000))), waiter(2, 1, Some(Nanos::MAX))]);
        assert!(looks.verdict.next_look > ms(5000));
    }

    #[test]
    fn what_is_over_is_forgotten() {
        let mut looks = Looks::new();
        for look in 0..10_000u64 {
            looks.at(ms(look * 100), &[waiter(look as i32 + 1, 1, Some(ms(look * 100)))]);
        }
        assert!(looks.detector.waits.len() < 40, "{} waits are remembered", looks.detector.waits.len());
    }

    const HOUR: Limits = Limits { threshold: Nanos::from_secs(3600), granularity: G };

    #[test]
    fn a_user_who_forks_all_the_time_costs_a_bounded_memory_and_no_other_wait() {
        let mut looks = Looks { detector: Detector::new(HOUR), verdict: Verdict::default() };
        let (victim, began) = (1, ms(1000));
        let mut named = Vec::new();
        for scan in 0..=720u64 {
            let at = began + Nanos::from_secs(5 * scan);
            let forked =
                (0..1000).map(|n| waiter(2 + ((scan * 1000 + n) % 300_000) as i32, 1, Some(at - ms(n))));
            // Throttled most of the time, it is seen once in 45 s only, each time with a new stamp.
            let seen = (scan % 9 == 0).then(|| waiter(victim, 1, Some(at)));
            named.extend(looks.at(at, &seen.into_iter().chain(forked).collect::<Vec<_>>()));
            let Detector { waits, merged, .. } = &looks.detector;
            assert!(waits.len() <= MAX_UNSEEN + 1001, "{} waits are remembered", waits.len());
            assert!(waits.capacity().max(merged.capacity()) <= 4 * MAX_UNSEEN, "at scan {scan}");
        }
        assert_eq!(named, [(victim, HOUR.threshold)]);
        assert!(looks.detector.dropped() > 100_000, "{} waits were dropped", looks.detector.dropped());
    }

    #[test]
    fn of_too_many_waits_out_of_sight_the_longest_are_remembered() {
        let mut looks = Looks { detector: Detector::new(HOUR), verdict: Verdict::default() };
        // The order of the tids is not that of the waits.
        let since = |tid: i32| ms((tid as u64 * 7919) % 100_003);
        let all: Vec<Waiter> = (1..=10_000).map(|tid| waiter(tid, 1, Some(since(tid)))).collect();
        looks.at(ms(200_000), &all);
        assert_eq!((looks.detector.waits.len(), looks.detector.dropped()), (10_000, 0));
        looks.at(ms(201_000), &all[..10]);
        assert_eq!(looks.detector.waits.len(), 10 + MAX_UNSEEN);
        assert_eq!(looks.detector.dropped(), 10_000 - 10 - MAX_UNSEEN as u64);
        let longest = |tids: &[i32]| tids.iter().map(|&tid| since(tid)).max().unwrap();
        let kept: Vec<i32> = looks.detector.waits.iter().skip(10).map(|wait| wait.task.tid.0).collect();
        let dropped = (11..=10_000).filter(|tid| !kept.contains(tid)).map(since).min().unwrap();
        assert!(longest(&kept) < dropped);
        assert!(looks.detector.waits.is_sorted_by_key(|wait| wait.task.tid));
    }

    #[test]
    fn a_long_threshold_does_not_keep_a_wait_that_is_out_of_sight_for_longer_than_anything_hides_it() {
        let mut looks = Looks { detector: Detector::new(HOUR), verdict: Verdict::default() };
        let remembered = |looks: &Looks| looks.detector.waits.len();
        looks.at(ms(0), &[waiter(1, 1, None)]);
        for second in 1..=60 {
            looks.at(Nanos::from_secs(second), &[]);
        }
        assert_eq!(remembered(&looks), 1);
        looks.at(ms(60_001), &[]);
        assert_eq!(remembered(&looks), 0);
        // With few scans, it is remembered over eight of them.
        looks.at(ms(100_000), &[waiter(1, 1, None)]);
        for scan in 1..=9 {
            assert_eq!(remembered(&looks), 1);
            looks.at(ms(100_000) + Nanos::from_secs(600 * scan), &[]);
        }
        assert_eq!(remembered(&looks), 0);
    }
}
