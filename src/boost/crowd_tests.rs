//! Boosts of many tasks, and of tasks with many children.

use super::*;
use crate::boost::adoptions::{MAX_PASSES, PASS_INTERVAL};

/// Returns a crowd without real-time tasks. Each place costs a tick of 4 ms, so five tasks are
/// boosted at once.
fn crowd(tasks: i32, cpus: u32) -> (Snapshot, Vec<Starving>) {
    let on = |tid: i32| Task { cpu: Cpu(tid as u32 % cpus), ..task(tid, 120) };
    let hogs = (0..cpus).map(|cpu| Task { cpu: Cpu(cpu), ..task(1_000_000 + cpu as i32, 49) });
    let mut snapshot = Snapshot { at: Nanos::from_secs(100), complete: true, ..Snapshot::default() };
    snapshot.running.extend(hogs);
    snapshot.waiters.extend((1..=tasks).map(|tid| Waiter { task: on(tid), since: None }));
    let starves = |waiter: &Waiter| {
        let since = Nanos(waiter.task.tid.0 as u64);
        Starving { task: waiter.task, since, wait: D, due: true, again: false }
    };
    let starving = snapshot.waiters.iter().map(starves).collect();
    (snapshot, starving)
}

#[test]
fn a_scan_of_many_starving_tasks_takes_steps_in_proportion_to_them() {
    for (cpus, refuses) in [(1, None), (1, Some(libc::EINVAL)), (64, None), (64, Some(libc::EINVAL))] {
        let mut scene = Scene::new(Rules { only_outranked: true, ..rules(4000) });
        scene.booster.actuator.refuses = refuses;
        let (mut snapshot, starving) = crowd(30_000, cpus);
        for _ in 0..10 {
            let steps = crate::steps::of(|| {
                scene.booster.see(&snapshot);
                scene.booster.serve(&snapshot, &starving);
            });
            assert!(steps < 30_000 * 100, "{steps} steps on {cpus} CPUs, refusing {refuses:?}");
            snapshot.at = snapshot.at + SPACING;
        }
        assert!(scene.booster.events.len() >= 10 * cpus as usize, "a task of each CPU is tried at each scan");
    }
}

#[test]
fn children_are_searched_twice_a_second_and_after_a_boost_never_in_a_scan() {
    let mut scene = Scene::new(rules(20));
    scene.scan(&[1], Some(49));
    let adopt = |scene: &mut Scene| scene.booster.adopt(scene.now);
    adopt(&mut scene);
    assert!(scene.booster.actuator.adoptions.is_empty(), "it has just begun");
    assert_eq!(scene.booster.next_adoption(), None);
    scene.pass(PASS_INTERVAL);
    scene.scan(&[], Some(49));
    assert!(scene.booster.actuator.adoptions.is_empty(), "a scan comes first");
    adopt(&mut scene);
    assert_eq!(scene.booster.actuator.adoptions, [[Tid(1)]]);
    // The hog is gone, and the boost ends early.
    scene.pass(RESCAN_INTERVAL);
    scene.scan(&[], None);
    assert_eq!((scene.booster.actuator.restored.len(), scene.booster.actuator.adoptions.len()), (1, 1));
    assert!(scene.booster.next_adoption() <= Some(scene.now));
    adopt(&mut scene);
    assert_eq!(scene.booster.actuator.adoptions.len(), 2);
    assert_eq!(scene.booster.next_adoption(), None);
}

#[test]
fn a_task_with_too_many_children_is_dropped_after_some_passes() {
    let mut scene = Scene::new(rules(20));
    scene.booster.actuator.crowded = true;
    scene.scan(&[1], Some(49));
    scene.booster.end_all(scene.now);
    while let Some(next) = scene.booster.next_adoption() {
        scene.now = scene.now.max(next);
        scene.booster.adopt(scene.now);
        assert!(scene.booster.actuator.adoptions.len() <= MAX_PASSES as usize);
    }
    assert_eq!(scene.booster.actuator.adoptions, vec![vec![Tid(1)]; MAX_PASSES as usize]);
}

#[test]
fn the_owners_of_starving_tasks_take_turns_on_each_cpu() {
    let mut scene = Scene::new(rules(20));
    let owned = |tid, owner| Task { owner, ..task(tid, 120) };
    let crowd = (1..=100).map(|tid| owned(tid, Owner::User(1000)));
    let others = [owned(101, Owner::User(1001)), owned(102, Owner::Kernel)];
    let mut waiting: Vec<Task> = crowd.chain(others).collect();
    let mut served = Vec::new();
    for _ in 0..8 {
        let before = scene.booster.actuator.raised.len() + scene.booster.actuator.pulses.len();
        scene.scan_at(&waiting, Some(49));
        assert_eq!(scene.booster.actuator.raised.len() + scene.booster.actuator.pulses.len(), before + 1);
        let last = scene.booster.actuator.raised.last().map(|&(tid, _)| tid).filter(|tid| *tid == Tid(102));
        let tid = last
            .filter(|tid| !served.contains(tid))
            .or(scene.booster.actuator.pulses.last().copied())
            .unwrap();
        served.push(tid);
        // A boosted task has run, and waits anew behind all others of its owner.
        waiting.retain(|task| task.tid != tid);
        scene.pass(SPACING);
    }
    // The longest-starved task comes first, then the owners take turns, and then the rest follows.
    assert_eq!(served[..3], [1, 101, 102].map(Tid));
    assert_eq!(served[3..], [2, 3, 4, 5, 6].map(Tid));
}

#[test]
fn between_two_scans_each_owner_has_one_turn_if_its_task_has_waited_since() {
    let owned = |tid, owner| Task { owner, ..task(tid, 120) };
    let crowd = (1..=100).map(|tid| owned(tid, Owner::User(1000)));
    let others = [owned(101, Owner::User(1001)), owned(102, Owner::Kernel)];
    let waiting: Vec<Task> = crowd.chain(others).collect();
    for has_waited in [true, false] {
        let mut scene = Scene::new(Rules { how: BoostPolicy::Fifo, ..rules(20) });
        scene.scan_at(&waiting, Some(49));
        assert_eq!(scene.booster.actuator.pulses, [Tid(1)]);
        assert_eq!(scene.booster.turns().map(|task| task.tid).collect::<Vec<_>>(), [101, 102].map(Tid));
        scene.booster.actuator.runs += u64::from(!has_waited);
        for late in [Nanos::from_millis(5), Nanos::ZERO] {
            scene.booster.take_turns(scene.now + SPACING - Nanos(1));
            scene.pass(SPACING + late);
            let before = scene.booster.actuator.pulses.len();
            scene.booster.take_turns(scene.now);
            assert_eq!(scene.booster.actuator.pulses.len(), before + usize::from(has_waited));
        }
        let served = if has_waited { &[1, 101, 102][..] } else { &[1] };
        assert_eq!(scene.booster.actuator.pulses.iter().map(|tid| tid.0).collect::<Vec<_>>(), served);
        assert_eq!(scene.booster.next_turn(), None);
    }
}

#[test]
fn a_hog_behind_a_boost_is_displaced_unless_another_task_outranks_it() {
    let mut scene = Scene::new(rules(20));
    scene.scan(&[1], Some(49));
    let hog = task(999, 49);
    let seen = |scene: &mut Scene, others: &[Task]| {
        let waiters = others.iter().chain([&hog]).map(|&task| Waiter { task, since: None }).collect();
        let running = vec![task(1, -1)];
        let at = scene.now + D;
        scene.booster.see(&Snapshot { at, complete: true, waiters, running, ..Snapshot::default() });
        scene.booster.is_displaced_by_boosts(&hog, scene.now + Nanos(1))
    };
    assert!(seen(&mut scene, &[]));
    assert!(seen(&mut scene, &[task(5, 120), task(6, 70)]), "tasks of a lower rank keep it from nothing");
    assert!(!seen(&mut scene, &[task(5, 49)]) && !seen(&mut scene, &[task(5, 10)]));
    seen(&mut scene, &[]);
    assert!(
        !scene.booster.is_displaced_by_boosts(&hog, scene.now - Nanos(1)),
        "it waited before the boost began"
    );
    assert!(
        !scene.booster.is_displaced_by_boosts(&task(998, 120), scene.now + Nanos(1)),
        "a fair task gets its turn"
    );
    let elsewhere = Task { cpu: Cpu(2), ..hog };
    assert!(!scene.booster.is_displaced_by_boosts(&elsewhere, scene.now + Nanos(1)));
}

#[test]
fn after_a_loan_deadline_boosts_end_and_pulses_follow_for_a_minute() {
    let mut scene = Scene::new(rules(20));
    scene.scan(&[1], Some(49));
    assert!(scene.booster.has_deadline());
    scene.booster.only_pulse(PulsesOnly::Lent, scene.now);
    assert_eq!((&scene.booster.actuator.restored[..], scene.booster.has_deadline()), (&[Tid(1)][..], false));
    assert!(scene.booster.next_scan() <= Some(scene.now + SCAN_AFTER_END));
    scene.pass(ONLY_PULSES - Nanos(1));
    scene.scan_at(&[task(2, 120)], Some(49));
    assert_eq!((scene.raised(), &scene.booster.actuator.pulses[..]), (vec![1], &[Tid(2)][..]));
    scene.pass(SPACING);
    scene.scan_at(&[task(3, 120)], Some(49));
    assert_eq!(scene.raised(), [1, 3]);
}

#[test]
fn a_scan_takes_the_ranks_that_tasks_have_from_pulses() {
    let mut scene = Scene::new(Rules { how: BoostPolicy::Fifo, ..rules(20) });
    scene.booster.actuator.is_of_user = true;
    scene.scan(&[1], Some(49));
    // After its pulse the task sets the rank of the pulse for itself. Its child was born with that
    // rank.
    scene.booster.actuator.raises_itself = true;
    let child = Task { misranked: true, sched: Sched { policy: Some(Policy::OTHER), prio: 1 }, ..task(7, 1) };
    scene.booster.events.clear();
    // Another child was born in the middle of a restore, with the policy of the pulse. A third one
    // has chosen a lower priority since.
    scene.booster.actuator.children = vec![Tid(8), Tid(10)];
    let running = vec![
        task(1, 1),
        child,
        task(8, 1),
        Task { misranked: true, ..task(9, 120) },
        task(10, 2),
        task(11, 1),
    ];
    let snapshot = Snapshot { at: scene.now, complete: true, running, ..Snapshot::default() };
    scene.booster.see(&snapshot);
    scene.booster.serve(&snapshot, &[]);
    let lowered = scene.booster.events.iter().filter_map(|event| match event {
        Event::Lowered { task, from, .. } => Some((task.tid.0, from.priority)),
        _ => None,
    });
    assert_eq!(lowered.collect::<Vec<_>>(), [(1, 97), (7, 98), (8, 98), (10, 98)]);
    assert_eq!(scene.booster.actuator.taken_from, [Tid(7)]);
}

#[test]
fn children_with_the_rank_of_a_pulse_are_found_without_a_scan() {
    let mut scene = Scene::new(Rules { how: BoostPolicy::Fifo, ..rules(20) });
    scene.booster.actuator.is_of_user = true;
    scene.scan(&[1], Some(49));
    let raised = raised(&task(12, 1), BoostPolicy::Fifo, Nanos::MAX);
    let from = Saved { priority: 97, ..raised.boosted.before };
    scene.booster.actuator.newborn = vec![LoweredChild { task: task(12, 1), raised, from }];
    let due = scene.booster.next_check().unwrap();
    scene.booster.adopt(due - Nanos(1));
    assert_eq!(scene.booster.actuator.newborn.len(), 1);
    scene.booster.adopt(due);
    assert!(matches!(
        scene.booster.events.last(),
        Some(Event::Lowered { task: Task { tid: Tid(12), .. }, .. })
    ));
    assert!(scene.booster.probation.of(&task(12, 1)).is_some());
}

/// Scans once, with a task that starves on each of these CPUs.
fn scan_cpus(scene: &mut Scene, cpus: std::ops::Range<u32>, counts_runs: bool) {
    let snapshot = Snapshot { at: scene.now, complete: true, counts_runs, ..Snapshot::default() };
    let on = |cpu| Task { cpu: Cpu(cpu), progress: 3, ..task(100 + cpu as i32, 98) };
    let starves = |cpu| Starving { task: on(cpu), since: Nanos(1), wait: D, due: true, again: false };
    let starving: Vec<Starving> = cpus.map(starves).collect();
    scene.booster.see(&snapshot);
    scene.booster.serve(&snapshot, &starving);
}

#[test]
fn starts_do_not_wait_for_each_other() {
    let mut scene = Scene::new(rules(20));
    // An older boost on another CPU ends in the middle of the starts.
    scene.scan(&[1], Some(49));
    scene.pass(D - Nanos::from_millis(1));
    let actuator = &mut scene.booster.actuator;
    actuator.log.clear();
    (actuator.clock, actuator.length_of_raise) = (scene.now, Nanos::from_micros(100));
    scan_cpus(&mut scene, 2..34, false);
    let actuator = &scene.booster.actuator;
    let order = |what: &str| actuator.log.iter().position(|line| line.starts_with(what)).unwrap();
    assert!(actuator.log.iter().rposition(|line| line.starts_with("raise")).unwrap() < order("await"));
    assert!(order("restore 1") < order("raise 120"), "{:?}", actuator.log);
    // Each boost has its full length, and 20 ms to the next one on its CPU.
    let last = scene.booster.active.iter().find(|active| active.task.cpu == Cpu(33)).unwrap();
    assert!(last.started >= scene.now + Nanos::from_micros(3100), "{:?}", last.started);
    assert_eq!(last.end, last.started + D);
    assert_eq!(scene.booster.spacing.get(Cpu(33)), Some(last.started + SPACING));
}

#[test]
fn a_task_that_has_run_since_the_scan_is_not_boosted() {
    for (runs, counts_runs, boosts) in [(3, true, 1), (4, true, 0), (4, false, 1)] {
        let mut scene = Scene::new(rules(20));
        scene.booster.actuator.runs = runs;
        scan_cpus(&mut scene, 2..3, counts_runs);
        assert_eq!((scene.raised().len(), scene.booster.load().0), (boosts, boosts), "{runs} {counts_runs}");
        // Another task of its CPU need not wait.
        assert_eq!(scene.booster.spacing.get(Cpu(2)).is_some(), boosts > 0);
    }
}
