use super::*;
use crate::observe::Waiter;
use crate::task::{Comm, Cpu};

const T: Nanos = Nanos::from_secs(2);
const G: Nanos = Nanos::from_secs(5);
const IGNORED: Tid = Tid(666);

fn ms(millis: u64) -> Nanos {
    Nanos::from_millis(millis)
}

fn waiter(tid: i32, progress: u64, since: Option<Nanos>) -> Waiter {
    Waiter { task: Task { tid: Tid(tid), start: 7, progress, cpu: Cpu(1), ..Task::default() }, since }
}

/// A denylist with one task on it.
#[derive(Default)]
struct Denylist {
    /// The number of questions.
    asked: u32,
    /// It can't answer.
    fails: bool,
}

impl Exclusions for Denylist {
    fn is_displaced(&self, _: &Task, _: Nanos) -> bool {
        false
    }

    fn is_ignored(&mut self, task: &Task) -> Option<bool> {
        self.asked += 1;
        (!self.fails).then_some(task.tid == IGNORED)
    }
}

/// A detector and the verdict of its last scan.
struct Scans {
    detector: Detector,
    verdict: Verdict,
    denylist: Denylist,
}

impl Scans {
    fn new() -> Scans {
        Scans {
            detector: Detector::new(Limits { threshold: T, granularity: G }),
            verdict: Verdict::default(),
            denylist: Denylist::default(),
        }
    }

    fn at(&mut self, at: Nanos, waiters: &[Waiter]) -> Vec<(i32, Nanos)> {
        let mut snapshot = Snapshot { at, complete: true, waiters: waiters.to_vec(), ..Snapshot::default() };
        self.detector.judge(&mut snapshot, &mut self.denylist, &mut self.verdict);
        let named = self.verdict.starving.iter().filter(|starving| starving.due);
        named.map(|starving| (starving.task.tid.0, starving.wait)).collect()
    }
}

#[test]
fn a_wait_is_named_at_the_threshold_and_the_scan_for_it_is_due_just_then() {
    let mut scans = Scans::new();
    assert_eq!(scans.at(ms(1000), &[waiter(1, 1, Some(ms(400)))]), []);
    assert_eq!(scans.verdict.next_scan, ms(2400));
    assert_eq!(scans.at(ms(2400), &[waiter(1, 1, Some(ms(400)))]), [(1, T)]);
    assert_eq!(scans.verdict.next_scan, ms(2400) + T - MAX_SCAN_DELAY);
}

#[test]
fn a_wait_without_a_record_counts_from_the_first_scan_that_saw_it() {
    let mut scans = Scans::new();
    assert_eq!(scans.at(ms(1000), &[waiter(1, 1, None)]), []);
    assert_eq!(scans.verdict.next_scan, ms(3000) - MAX_SCAN_DELAY);
    assert_eq!(scans.at(ms(2990), &[waiter(1, 1, None)]), []);
    assert_eq!(scans.verdict.next_scan, ms(3000));
    assert_eq!(scans.at(ms(3000), &[waiter(1, 1, None)]), [(1, T)]);
}

#[test]
fn a_task_that_ran_between_two_scans_starts_a_new_wait() {
    let mut scans = Scans::new();
    scans.at(ms(1000), &[waiter(1, 1, None)]);
    assert_eq!(scans.at(ms(3000), &[waiter(1, 2, None)]), []);
    assert_eq!(scans.verdict.next_scan, ms(5000) - MAX_SCAN_DELAY);
}

#[test]
fn a_task_that_a_scan_saw_in_two_queues_waits_once_by_its_newer_wait() {
    let mut scans = Scans::new();
    let (older, newer) = (waiter(1, 1, Some(ms(100))), waiter(1, 2, Some(ms(900))));
    assert_eq!(scans.at(ms(2900), &[older, newer, newer]), [(1, T)]);
}

#[test]
fn a_task_that_migrates_while_queued_keeps_its_wait() {
    let mut scans = Scans::new();
    scans.at(ms(1000), &[waiter(1, 1, Some(ms(900)))]);
    // This scan runs during the migration, and sees no waiter.
    assert_eq!(scans.at(ms(1500), &[]), []);
    assert_eq!(scans.verdict.next_scan, ms(2900));
    // The queue of the new CPU has given the task a new stamp.
    assert_eq!(scans.at(ms(2900), &[waiter(1, 1, Some(ms(1501)))]), [(1, T)]);
}

#[test]
fn a_wait_that_many_scans_missed_is_still_the_same_wait() {
    let mut scans = Scans::new();
    scans.at(ms(1000), &[waiter(1, 1, None)]);
    for scan in 1..=5 {
        scans.at(ms(1000 + scan), &[]);
    }
    assert_eq!(scans.at(ms(3000), &[waiter(1, 1, None)]), [(1, T)]);
}

#[test]
fn a_tid_that_is_used_again_does_not_inherit_a_wait() {
    let mut scans = Scans::new();
    scans.at(ms(1000), &[waiter(1, 1, None)]);
    let mut reborn = waiter(1, 1, None);
    reborn.task.start = 8;
    assert_eq!(scans.at(ms(3000), &[reborn]), []);
}

#[test]
fn the_longest_starved_is_first_whatever_its_place_in_the_snapshot() {
    let mut scans = Scans::new();
    let waiters = [waiter(3, 1, Some(ms(200))), waiter(1, 1, Some(ms(300))), waiter(2, 1, Some(ms(100)))];
    assert_eq!(scans.at(ms(5000), &waiters), [(2, ms(4900))]);
    let order: Vec<i32> = scans.verdict.starving.iter().map(|starving| starving.task.tid.0).collect();
    assert_eq!(order, [2, 3, 1]);
}

#[test]
fn a_scan_names_one_task_of_a_cpu_and_the_next_scans_follow_at_once() {
    let mut scans = Scans::new();
    let mut elsewhere = waiter(3, 1, Some(ms(150)));
    elsewhere.task.cpu = Cpu(0);
    let waiters = [waiter(1, 1, Some(ms(100))), waiter(2, 1, Some(ms(200))), elsewhere];
    assert_eq!(scans.at(ms(5000), &waiters), [(1, ms(4900)), (3, ms(4850))]);
    assert_eq!(scans.verdict.next_scan, ms(5000) + SHORTEST_PAUSE);
    assert_eq!(scans.at(ms(5001), &waiters), [(2, ms(4801))]);
    assert!(scans.verdict.next_scan > ms(6900));
}

#[test]
fn an_ignored_task_hides_no_other_and_makes_no_scan_due() {
    let mut scans = Scans::new();
    let waiters = [waiter(IGNORED.0, 1, Some(ms(100))), waiter(2, 1, Some(ms(200)))];
    assert_eq!(scans.at(ms(5000), &waiters), [(2, ms(4800))]);
    assert_eq!(scans.at(ms(5001), &waiters[..1]), []);
    assert_eq!(scans.verdict.next_scan, ms(5001) + T - MAX_SCAN_DELAY);
}

#[test]
fn a_task_that_keeps_starving_is_named_again_but_once_a_second_at_most() {
    let mut scans = Scans::new();
    let starving = [waiter(1, 1, Some(ms(0)))];
    assert_eq!(scans.at(ms(2000), &starving), [(1, ms(2000))]);
    assert!(!scans.verdict.starving[0].again);
    assert_eq!(scans.at(ms(2500), &starving), []);
    assert_eq!(scans.at(ms(3000), &starving), [(1, ms(3000))]);
    assert!(scans.verdict.starving[0].again);
}

#[test]
fn a_denylist_is_asked_once_for_each_wait_and_name() {
    let mut scans = Scans::new();
    let starving = |name: &[u8], progress: u64| {
        let Waiter { task, since } = waiter(1, progress, Some(Nanos::ZERO));
        [Waiter { task: Task { comm: Comm::new(name), ..task }, since }]
    };
    scans.denylist.fails = true;
    for n in 0..3 {
        assert_eq!(scans.at(ms(3000 + n), &starving(b"one", 1)), [], "it may be on the list");
    }
    assert_eq!(scans.denylist.asked, 3);
    scans.denylist.fails = false;
    for (n, name, progress, asked) in [(3, "one", 1, 4), (4, "one", 1, 4), (5, "two", 1, 5), (6, "two", 2, 6)]
    {
        scans.at(ms(3000 + n), &starving(name.as_bytes(), progress));
        assert_eq!((scans.denylist.asked, scans.verdict.starving.len()), (asked, 1));
    }
}

#[test]
fn an_idle_machine_is_scanned_once_per_granularity() {
    let limits = Limits { threshold: Nanos::from_secs(60), granularity: G };
    let mut detector = Detector::new(limits);
    let mut verdict = Verdict::default();
    detector.judge(
        &mut Snapshot { at: ms(10), ..Snapshot::default() },
        &mut Denylist::default(),
        &mut verdict,
    );
    assert_eq!(verdict.next_scan, ms(10) + G);
}

#[test]
fn detectors_in_step_know_the_same_waits_and_scan_at_the_same_moments() {
    let mut scans = Scans::new();
    scans.at(ms(1000), &[waiter(1, 1, None)]);
    scans.at(ms(3000), &[waiter(1, 1, None)]);
    let other = scans.detector.synchronised(Limits { threshold: ms(2500), granularity: G });
    let mut other = Scans { detector: other, verdict: Verdict::default(), denylist: Denylist::default() };
    assert_eq!(other.at(ms(3100), &[waiter(1, 1, None)]), []);
    assert_eq!(other.verdict.next_scan, ms(3500));
    assert_eq!(other.at(ms(3500), &[waiter(1, 1, None)]), [(1, ms(2500))]);
    for at in [3700, 4000, 4979] {
        assert_eq!(other.at(ms(at), &[]), []);
        assert_eq!(other.verdict.next_scan, ms(2 * 2490));
    }
}

#[test]
fn the_next_scan_is_never_in_the_past_even_if_the_clock_of_a_queue_is() {
    let mut scans = Scans::new();
    scans.at(ms(5000), &[waiter(1, 1, Some(ms(9000))), waiter(2, 1, Some(Nanos::MAX))]);
    assert!(scans.verdict.next_scan > ms(5000));
}

#[test]
fn an_ended_wait_is_forgotten() {
    let mut scans = Scans::new();
    for scan in 0..10_000u64 {
        scans.at(ms(scan * 100), &[waiter(scan as i32 + 1, 1, Some(ms(scan * 100)))]);
    }
    assert!(scans.detector.waits.len() < 40, "{} waits are remembered", scans.detector.waits.len());
}

const HOUR: Limits = Limits { threshold: Nanos::from_secs(3600), granularity: G };

#[test]
fn a_fork_loop_costs_bounded_memory_and_no_other_wait() {
    let mut scans =
        Scans { detector: Detector::new(HOUR), verdict: Verdict::default(), denylist: Denylist::default() };
    let (victim, began) = (1, ms(1000));
    let mut named = Vec::new();
    for scan in 0..=720u64 {
        let at = began + Nanos::from_secs(5 * scan);
        let forked = (0..1000).map(|n| waiter(2 + ((scan * 1000 + n) % 300_000) as i32, 1, Some(at - ms(n))));
        // The victim is throttled most of the time. A scan sees it every 45 s, each time with a new
        // stamp.
        let seen = (scan % 9 == 0).then(|| waiter(victim, 1, Some(at)));
        named.extend(scans.at(at, &seen.into_iter().chain(forked).collect::<Vec<_>>()));
        let Detector { waits, merged, .. } = &scans.detector;
        assert!(waits.len() <= MAX_UNSEEN + 1001, "{} waits are remembered", waits.len());
        assert!(waits.capacity().max(merged.capacity()) <= 4 * MAX_UNSEEN, "at scan {scan}");
    }
    assert_eq!(named, [(victim, HOUR.threshold)]);
    assert!(scans.detector.dropped() > 100_000, "{} waits were dropped", scans.detector.dropped());
}

#[test]
fn the_longest_of_too_many_unseen_waits_are_remembered() {
    let mut scans =
        Scans { detector: Detector::new(HOUR), verdict: Verdict::default(), denylist: Denylist::default() };
    // The order of the tids is not that of the waits.
    let since = |tid: i32| ms((tid as u64 * 7919) % 100_003);
    let all: Vec<Waiter> = (1..=10_000).map(|tid| waiter(tid, 1, Some(since(tid)))).collect();
    scans.at(ms(200_000), &all);
    assert_eq!((scans.detector.waits.len(), scans.detector.dropped()), (10_000, 0));
    scans.at(ms(201_000), &all[..10]);
    assert_eq!(scans.detector.waits.len(), 10 + MAX_UNSEEN);
    assert_eq!(scans.detector.dropped(), 10_000 - 10 - MAX_UNSEEN as u64);
    let longest = |tids: &[i32]| tids.iter().map(|&tid| since(tid)).max().unwrap();
    let kept: Vec<i32> = scans.detector.waits.iter().skip(10).map(|wait| wait.task.tid.0).collect();
    let dropped = (11..=10_000).filter(|tid| !kept.contains(tid)).map(since).min().unwrap();
    assert!(longest(&kept) < dropped);
    assert!(scans.detector.waits.is_sorted_by_key(|wait| wait.task.tid));
}

#[test]
fn an_unseen_wait_is_forgotten_after_a_minute_despite_a_long_threshold() {
    let mut scans =
        Scans { detector: Detector::new(HOUR), verdict: Verdict::default(), denylist: Denylist::default() };
    let remembered = |scans: &Scans| scans.detector.waits.len();
    scans.at(ms(0), &[waiter(1, 1, None)]);
    for second in 1..=60 {
        scans.at(Nanos::from_secs(second), &[]);
    }
    assert_eq!(remembered(&scans), 1);
    scans.at(ms(60_001), &[]);
    assert_eq!(remembered(&scans), 0);
    // If scans are rare, the wait is remembered for eight scans, however long they take.
    scans.at(ms(100_000), &[waiter(1, 1, None)]);
    for scan in 1..=9 {
        assert_eq!(remembered(&scans), 1);
        scans.at(ms(100_000) + Nanos::from_secs(600 * scan), &[]);
    }
    assert_eq!(remembered(&scans), 0);
}

#[test]
fn after_a_standstill_waits_count_from_its_end() {
    let mut scans = Scans::new();
    assert_eq!(scans.at(ms(1000), &[waiter(1, 1, Some(ms(500))), waiter(2, 1, None)]), []);
    scans.detector.restart(ms(60_000));
    // A scan met the third task for the first time, and its stamp is from before.
    let all = [waiter(1, 1, Some(ms(500))), waiter(2, 1, None), waiter(3, 1, Some(ms(900)))];
    assert_eq!(scans.at(ms(60_001), &all), []);
    assert_eq!(scans.verdict.next_scan, ms(61_991));
    assert_eq!(scans.at(ms(61_999), &all), []);
    assert_eq!(scans.at(ms(62_000), &all), [(1, T)]);
}

#[test]
fn no_wait_is_restarted_twice() {
    let mut scans = Scans::new();
    for end in [10_000, 11_500, 11_900] {
        assert_eq!(scans.at(ms(end), &[waiter(1, 1, Some(ms(9_000)))]), []);
        scans.detector.restart(ms(end));
    }
    assert_eq!(scans.at(ms(12_000), &[waiter(1, 1, Some(ms(9_000)))]), [(1, T)]);
    // The next wait of the task began after all of them.
    assert_eq!(scans.at(ms(14_000), &[waiter(1, 2, Some(ms(12_100)))]), []);
    assert_eq!(scans.at(ms(14_100), &[waiter(1, 2, Some(ms(12_100)))]), [(1, T)]);
}
