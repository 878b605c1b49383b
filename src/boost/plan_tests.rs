use super::rechecks::{RECHECK_INTERVAL, RESCAN_INTERVAL};
use super::starts::RETRY_INTERVAL;
use super::*;
use crate::boost::journal::{Boosted, Rank, Slot};
use crate::boost::kernel::Standing;
use crate::boost::pulse_children::LoweredChild;
use crate::observe::Waiter;
use crate::task::{Comm, Policy, Sched};

/// One CPU with a hog, and a booster that decides when it scans.
struct Scene {
    booster: Booster<Simulated>,
    now: Nanos,
}

const D: Nanos = Nanos::from_secs(3);

fn rules(cost_us: u64) -> Rules {
    Rules {
        how: BoostPolicy::Deadline { runtime: Nanos::from_micros(20), period: Nanos::from_secs(1) },
        runtime: Nanos::from_micros(20),
        period: Nanos::from_secs(1),
        duration: D,
        cost: Nanos::from_micros(cost_us),
        pulsed: Pulsed::Nothing,
        max_loss: None,
        only_outranked: false,
        retry: Nanos::from_secs(5),
    }
}

fn task(tid: i32, prio: i32) -> Task {
    Task { tid: Tid(tid), cpu: Cpu(1), start: 5, sched: Sched { policy: None, prio }, ..Task::default() }
}

impl Scene {
    fn new(rules: Rules) -> Scene {
        Scene { booster: Booster::new(rules, Box::default(), 4), now: Nanos::from_secs(100) }
    }

    /// Scans, and finds these tasks starving except the boosted ones, because these have run.
    fn scan(&mut self, tids: &[i32], hog: Option<i32>) {
        let waiting = tids
            .iter()
            .filter(|&&tid| !self.booster.actuator.raised.iter().any(|(raised, _)| raised.0 == tid));
        let waiting: Vec<Task> = waiting.map(|&tid| task(tid, 98)).collect();
        self.scan_at(&waiting, hog);
    }

    fn scan_at(&mut self, waiting: &[Task], hog: Option<i32>) {
        let mut snapshot = Snapshot { at: self.now, complete: true, ..Snapshot::default() };
        snapshot.running.extend(hog.map(|prio| task(999, prio)));
        let starves = |&task: &Task| {
            let since = Nanos(task.tid.0 as u64);
            Starving { task, since, wait: D, due: true, again: false }
        };
        let starving: Vec<Starving> = waiting.iter().map(starves).collect();
        self.booster.advance(self.now);
        self.booster.see(&snapshot);
        self.booster.serve(&snapshot, &starving);
    }

    fn pass(&mut self, time: Nanos) {
        self.now = self.now + time;
    }

    fn raised(&self) -> Vec<i32> {
        self.booster.actuator.raised.iter().map(|(tid, _)| tid.0).collect()
    }
}

#[test]
fn a_boost_that_is_needed_as_before_needs_no_scan() {
    let mut scene = Scene::new(rules(20));
    scene.scan(&[1], Some(49));
    let queued = |cpu: u32, prio: i32| Standing { cpu: Cpu(cpu), prio, is_runnable: true };
    let sleeping = Standing { is_runnable: false, ..queued(1, 49) };
    let standings = |hog: Option<Standing>, task: Standing| {
        hog.map(|hog| (Tid(999), hog)).into_iter().chain([(Tid(1), task)]).collect::<Vec<_>>()
    };
    for standings in [
        standings(Some(sleeping), queued(1, -1)),
        standings(Some(queued(0, 49)), queued(1, -1)),
        standings(Some(queued(1, 120)), queued(1, -1)),
        standings(Some(queued(1, 49)), queued(0, -1)),
        standings(None, queued(1, -1)),
    ] {
        scene.booster.actuator.standings = standings;
        let due = scene.booster.next_scan().unwrap();
        scene.booster.recheck_by_files(due);
        assert_eq!(scene.booster.next_scan(), Some(due));
    }
    // The hog may have left the CPU for a moment, and the task may sleep.
    for (hog, task) in [(queued(1, 49), queued(1, -1)), (queued(1, 0), sleeping)] {
        scene.booster.actuator.standings = standings(Some(hog), task);
        let due = scene.booster.next_scan().unwrap();
        scene.booster.recheck_by_files(Nanos(due.0 - 1));
        assert_eq!(scene.booster.next_scan(), Some(due));
        scene.booster.recheck_by_files(due);
        assert_eq!(scene.booster.next_scan(), Some(due + RECHECK_INTERVAL));
    }
}

#[test]
fn a_boost_ends_when_its_time_is_over() {
    let mut scene = Scene::new(rules(20));
    scene.scan(&[1], Some(49));
    assert_eq!(scene.booster.actuator.raised, [(Tid(1), scene.now + D)]);
    let end = scene.now + D;
    scene.now = Nanos(end.0 - 1);
    scene.booster.advance(scene.now);
    assert!(scene.booster.actuator.restored.is_empty());
    scene.booster.advance(end);
    assert_eq!(scene.booster.actuator.restored, [Tid(1)]);
    assert!(!scene.booster.is_busy() && scene.booster.next_end().is_none());
    // No scan saw the task while it was SCHED_DEADLINE.
    assert_eq!(scene.booster.next_scan(), Some(end + SCAN_AFTER_END));
    scene.scan(&[], Some(49));
    assert_eq!(scene.booster.next_scan(), None);
}

#[test]
fn boosts_of_a_cpu_start_20_ms_apart_the_longest_starved_first() {
    let mut scene = Scene::new(rules(20));
    scene.scan(&[1, 2, 3], Some(49));
    assert_eq!(scene.raised(), [1]);
    assert_eq!(scene.booster.load(), (1, 2));
    assert_eq!(scene.booster.next_start, Some(scene.now + SPACING));
    scene.pass(Nanos::from_millis(10));
    scene.scan(&[1, 2, 3], Some(49));
    assert_eq!(scene.raised(), [1]);
    scene.pass(Nanos::from_millis(10));
    scene.scan(&[1, 2, 3], Some(49));
    assert_eq!(scene.raised(), [1, 2]);
}

#[test]
fn sixteen_are_boosted_at_once_and_their_places_go_on_to_the_next() {
    let mut scene = Scene::new(rules(20));
    let many: Vec<i32> = (1..=40).collect();
    for _ in 0..40 {
        scene.scan(&many, Some(49));
        assert!(scene.booster.load().0 <= 16);
        scene.pass(SPACING);
    }
    let mut raised = scene.raised();
    raised.dedup();
    assert_eq!(raised, many);
}

#[test]
fn boosted_tasks_that_come_from_other_cpus_take_places_too() {
    let mut scene = Scene::new(rules(4000));
    let come = |tid| Task { cpu: Cpu(if tid < 4 { 2 } else { 3 }), ..task(tid, 98) };
    for tid in 1..=6 {
        let starving = Starving { task: come(tid), since: Nanos(1), wait: D, due: true, again: false };
        let snapshot = Snapshot { at: scene.now, complete: true, ..Snapshot::default() };
        scene.booster.see(&snapshot);
        scene.booster.serve(&snapshot, &[starving]);
        scene.pass(SPACING);
    }
    let running = (1..=6).map(|tid| task(tid, 98)).collect();
    let snapshot = Snapshot { at: scene.now, complete: true, running, ..Snapshot::default() };
    let one_more = Starving { task: task(7, 98), since: Nanos(1), wait: D, due: true, again: false };
    scene.booster.see(&snapshot);
    scene.booster.serve(&snapshot, &[one_more]);
    assert_eq!((scene.raised().len(), scene.booster.load().0), (7, 5));
}

#[test]
fn a_hog_with_the_number_of_a_boosted_task_that_has_ended_is_a_hog() {
    let mut scene = Scene::new(Rules { only_outranked: true, ..rules(20) });
    scene.scan(&[1], Some(49));
    scene.pass(SPACING);
    let hog = Task { start: 6, ..task(1, 49) };
    let snapshot = Snapshot { at: scene.now, complete: true, running: vec![hog], ..Snapshot::default() };
    let fair = Starving { task: task(2, 120), since: Nanos(1), wait: D, due: true, again: false };
    scene.booster.see(&snapshot);
    scene.booster.serve(&snapshot, &[fair]);
    assert_eq!(scene.raised(), [1, 2]);
}

#[test]
fn where_a_budget_costs_a_tick_a_crowd_is_served_one_by_one() {
    // A boost costs 4 ms of each second, so five places are 2 %.
    let mut scene = Scene::new(rules(4000));
    let many: Vec<i32> = (1..=16).collect();
    for _ in 0..16 {
        scene.scan(&many, Some(49));
        assert!(scene.booster.load().0 <= 5);
        scene.pass(SPACING);
    }
    assert_eq!(scene.raised().len(), 16, "all have had a turn within 320 ms");
    assert!(scene.booster.actuator.restored.len() >= 11, "most are lowered as soon as they have run");
}

#[test]
fn a_boost_that_nothing_makes_necessary_any_more_ends_early() {
    let mut scene = Scene::new(rules(20));
    scene.scan(&[1], Some(49));
    scene.pass(RECHECK_INTERVAL);
    scene.scan(&[], Some(49));
    assert!(scene.booster.actuator.restored.is_empty(), "the hog is there");
    scene.pass(RESCAN_INTERVAL);
    scene.scan(&[], None);
    assert_eq!(scene.booster.actuator.restored, [Tid(1)]);
    assert!(matches!(scene.booster.events.last(), Some(Event::Over { early: true, .. })));
}

#[test]
fn at_short_thresholds_tasks_of_equal_rank_are_not_boosted() {
    let mut scene = Scene::new(Rules { only_outranked: true, ..rules(20) });
    let fair = Starving { task: task(1, 120), since: Nanos(1), wait: D, due: true, again: false };
    let mut snapshot = Snapshot { at: scene.now, complete: true, ..Snapshot::default() };
    snapshot.running.push(task(999, 110));
    scene.booster.see(&snapshot);
    scene.booster.serve(&snapshot, &[fair]);
    assert!(scene.booster.actuator.raised.is_empty() && !scene.booster.is_busy());
    snapshot.running.push(task(998, 49));
    scene.booster.see(&snapshot);
    scene.booster.serve(&snapshot, &[fair]);
    assert_eq!(scene.raised(), [1]);
}

#[test]
fn a_task_on_which_another_thread_acts_is_retried_and_delays_no_other() {
    let mut scene = Scene::new(Rules { how: BoostPolicy::Fifo, ..rules(20) });
    scene.booster.actuator.pulse_refusal = Some(Refusal::Taken);
    scene.scan(&[1, 2], Some(49));
    assert!(scene.booster.events.is_empty());
    scene.booster.actuator.pulse_refusal = None;
    scene.pass(SPACING);
    scene.scan(&[1, 2], Some(49));
    assert_eq!(scene.booster.actuator.pulses, [Tid(2)]);
    assert_eq!(scene.booster.next_scan(), Some(scene.now + RETRY_INTERVAL - SPACING));
    scene.pass(RETRY_INTERVAL);
    scene.scan(&[1], Some(49));
    assert_eq!(scene.booster.actuator.pulses, [Tid(2), Tid(1)]);
}

#[test]
fn a_boosted_task_is_followed_to_the_cpu_that_it_runs_on() {
    let mut scene = Scene::new(rules(20));
    scene.scan(&[1], Some(49));
    let moved = Task { cpu: Cpu(3), ..task(1, 98) };
    let snapshot = Snapshot { at: scene.now, complete: true, running: vec![moved], ..Snapshot::default() };
    scene.booster.see(&snapshot);
    scene.booster.serve(&snapshot, &[]);
    scene.booster.end_all(scene.now);
    assert!(matches!(scene.booster.events.last(), Some(Event::Over { task: Task { cpu: Cpu(3), .. }, .. })));
}

#[test]
fn a_task_that_can_not_be_boosted_is_not_tried_again_at_once() {
    let mut scene = Scene::new(rules(20));
    scene.booster.actuator.refuses = Some(libc::EINVAL);
    for _ in 0..10 {
        scene.scan(&[1], Some(49));
        scene.pass(SPACING);
    }
    assert_eq!(scene.booster.events.iter().filter(|event| matches!(event, Event::Refused { .. })).count(), 1);
    scene.pass(Nanos::from_secs(5));
    scene.booster.actuator.refuses = None;
    scene.scan(&[1], Some(49));
    assert_eq!(scene.raised(), [1]);
}

#[test]
fn at_the_end_no_task_stays_boosted() {
    let mut scene = Scene::new(rules(20));
    for _ in 0..3 {
        scene.scan(&[1, 2, 3], Some(49));
        scene.pass(SPACING);
    }
    scene.booster.end_all(scene.now);
    scene.booster.actuator.restored.sort();
    assert_eq!(scene.booster.actuator.restored, [Tid(1), Tid(2), Tid(3)]);
}

#[path = "simulated_actuator.rs"]
mod simulated_actuator;
use simulated_actuator::{Simulated, raised};

#[path = "crowd_tests.rs"]
mod crowd_tests;

#[path = "loss_tests.rs"]
mod loss_tests;

#[path = "pulse_tests.rs"]
mod pulse_tests;

#[path = "method_tests.rs"]
mod method_tests;
