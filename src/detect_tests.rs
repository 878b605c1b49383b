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
        let mut snapshot = Snapshot { at, complete: true, waiters: waiters.to_vec(), ..Snapshot::default() };
        self.detector.look(&mut snapshot, &mut |task, _| task.tid == IGNORED, &mut self.verdict);
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
    assert_eq!(looks.verdict.next_look, ms(2400) + T - MAX_SCAN_DELAY);
}

#[test]
fn a_wait_without_a_record_counts_from_the_first_look_that_saw_it() {
    let mut looks = Looks::new();
    assert_eq!(looks.at(ms(1000), &[waiter(1, 1, None)]), []);
    assert_eq!(looks.verdict.next_look, ms(3000) - MAX_SCAN_DELAY);
    assert_eq!(looks.at(ms(2990), &[waiter(1, 1, None)]), []);
    assert_eq!(looks.verdict.next_look, ms(3000));
    assert_eq!(looks.at(ms(3000), &[waiter(1, 1, None)]), [(1, T)]);
}

#[test]
fn a_task_that_ran_between_two_looks_starts_a_new_wait() {
    let mut looks = Looks::new();
    looks.at(ms(1000), &[waiter(1, 1, None)]);
    assert_eq!(looks.at(ms(3000), &[waiter(1, 2, None)]), []);
    assert_eq!(looks.verdict.next_look, ms(5000) - MAX_SCAN_DELAY);
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
    assert_eq!(looks.verdict.next_look, ms(5001) + T - MAX_SCAN_DELAY);
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
    detector.look(&mut Snapshot { at: ms(10), ..Snapshot::default() }, &mut |_, _| false, &mut verdict);
    assert_eq!(verdict.next_look, ms(10) + G);
}

#[test]
fn detectors_in_step_know_the_same_waits_and_look_at_the_same_moments() {
    let mut looks = Looks::new();
    looks.at(ms(1000), &[waiter(1, 1, None)]);
    looks.at(ms(3000), &[waiter(1, 1, None)]);
    let other = looks.detector.synchronised(Limits { threshold: ms(2500), granularity: G });
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
        let forked = (0..1000).map(|n| waiter(2 + ((scan * 1000 + n) % 300_000) as i32, 1, Some(at - ms(n))));
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
