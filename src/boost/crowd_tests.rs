//! Boosts of many tasks, and of tasks with many children.

use super::*;
use crate::boost::wards::{ADOPTION, MAX_PASSES};

/// No real-time tasks, so that the place of each is a tick of 4 ms and five tasks are boosted at
/// once.
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
        scene.host.refuses = refuses;
        let (mut snapshot, starving) = crowd(30_000, cpus);
        for _ in 0..10 {
            let steps = crate::steps::of(|| {
                scene.booster.see(&snapshot);
                scene.booster.look(&snapshot, &starving, &mut scene.host, &mut scene.events);
            });
            assert!(steps < 30_000 * 100, "{steps} steps on {cpus} CPUs, refusing {refuses:?}");
            snapshot.at = snapshot.at + SPACING;
        }
        assert!(scene.events.len() >= 10 * cpus as usize, "a task of each CPU is tried at each scan");
    }
}

#[test]
fn children_are_looked_for_after_a_boost_and_twice_a_second_during_it_and_never_in_a_scan() {
    let mut scene = Scene::new(rules(20));
    scene.look(&[1], Some(49));
    let adopt = |scene: &mut Scene| scene.booster.adopt(scene.now, &mut scene.host, &mut scene.events);
    adopt(&mut scene);
    assert!(scene.host.adoptions.is_empty(), "it has just begun");
    assert_eq!(scene.booster.next_adoption(), None);
    scene.pass(ADOPTION);
    scene.look(&[], Some(49));
    assert!(scene.host.adoptions.is_empty(), "a scan comes first");
    adopt(&mut scene);
    assert_eq!(scene.host.adoptions, [[Tid(1)]]);
    // The hog is gone, and the boost ends early.
    scene.pass(RECHECK_INTERVAL);
    scene.look(&[], None);
    assert_eq!((scene.host.restored.len(), scene.host.adoptions.len()), (1, 1));
    assert!(scene.booster.next_adoption() <= Some(scene.now));
    adopt(&mut scene);
    assert_eq!(scene.host.adoptions.len(), 2);
    assert_eq!(scene.booster.next_adoption(), None);
}

#[test]
fn a_task_with_too_many_children_is_given_up_after_some_passes() {
    let mut scene = Scene::new(rules(20));
    scene.host.crowded = true;
    scene.look(&[1], Some(49));
    scene.booster.end_all(scene.now, &mut scene.host, &mut scene.events);
    while let Some(next) = scene.booster.next_adoption() {
        scene.now = scene.now.max(next);
        scene.booster.adopt(scene.now, &mut scene.host, &mut scene.events);
        assert!(scene.host.adoptions.len() <= MAX_PASSES as usize);
    }
    assert_eq!(scene.host.adoptions, vec![vec![Tid(1)]; MAX_PASSES as usize]);
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
        let before = scene.host.raised.len() + scene.host.pulses.len();
        scene.look_at(&waiting, Some(49));
        assert_eq!(scene.host.raised.len() + scene.host.pulses.len(), before + 1);
        let last = scene.host.raised.last().map(|&(tid, _)| tid).filter(|tid| *tid == Tid(102));
        let tid = last.filter(|tid| !served.contains(tid)).or(scene.host.pulses.last().copied()).unwrap();
        served.push(tid);
        // A boosted task has run, and waits anew behind all others of its owner.
        waiting.retain(|task| task.tid != tid);
        scene.pass(SPACING);
    }
    // Longest-starved first, then in turn, and then those that are left.
    assert_eq!(served[..3], [1, 101, 102].map(Tid));
    assert_eq!(served[3..], [2, 3, 4, 5, 6].map(Tid));
}

#[test]
fn a_hog_that_waits_for_a_boost_is_displaced_unless_another_task_outranks_it() {
    let mut scene = Scene::new(rules(20));
    scene.look(&[1], Some(49));
    let hog = task(999, 49);
    let seen = |scene: &mut Scene, others: &[Task]| {
        let waiters = others.iter().chain([&hog]).map(|&task| Waiter { task, since: None }).collect();
        let running = vec![task(1, -1)];
        let at = scene.now + D;
        scene.booster.see(&Snapshot { at, complete: true, waiters, running, ..Snapshot::default() });
        scene.booster.displaces(&hog, scene.now + Nanos(1))
    };
    assert!(seen(&mut scene, &[]));
    assert!(seen(&mut scene, &[task(5, 120), task(6, 70)]), "tasks of a lower rank keep it from nothing");
    assert!(!seen(&mut scene, &[task(5, 49)]) && !seen(&mut scene, &[task(5, 10)]));
    seen(&mut scene, &[]);
    assert!(!scene.booster.displaces(&hog, scene.now - Nanos(1)), "it waited before the boost began");
    assert!(!scene.booster.displaces(&task(998, 120), scene.now + Nanos(1)), "a fair task gets its turn");
    let elsewhere = Task { cpu: Cpu(2), ..hog };
    assert!(!scene.booster.displaces(&elsewhere, scene.now + Nanos(1)));
}

#[test]
fn after_a_loan_deadline_boosts_end_and_pulses_follow_for_a_minute() {
    let mut scene = Scene::new(rules(20));
    scene.look(&[1], Some(49));
    assert!(scene.booster.can_lend());
    scene.booster.end_lent(scene.now, &mut scene.host, &mut scene.events);
    assert_eq!((&scene.host.restored[..], scene.booster.can_lend()), (&[Tid(1)][..], false));
    assert!(scene.booster.next_look() <= Some(scene.now + BETWEEN_LOOKS));
    scene.pass(ONLY_PULSES - Nanos(1));
    scene.look_at(&[task(2, 120)], Some(49));
    assert_eq!((scene.raised(), &scene.host.pulses[..]), (vec![1], &[Tid(2)][..]));
    scene.pass(SPACING);
    scene.look_at(&[task(3, 120)], Some(49));
    assert_eq!(scene.raised(), [1, 3]);
}

#[test]
fn a_scan_takes_the_ranks_that_tasks_have_from_pulses() {
    let mut scene = Scene::new(Rules { how: BoostPolicy::Fifo, ..rules(20) });
    scene.host.is_of_user = true;
    scene.look(&[1], Some(49));
    // It has given itself the rank of its pulse after that, and its child was born with it.
    scene.host.raises_itself = true;
    let child = Task { misranked: true, sched: Sched { policy: Some(Policy::OTHER), prio: 1 }, ..task(7, 1) };
    scene.events.clear();
    // Another child was born in the middle of a restore, with the policy of the pulse. A third one
    // has chosen a lower priority since.
    scene.host.children = vec![Tid(8), Tid(10)];
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
    scene.booster.look(&snapshot, &[], &mut scene.host, &mut scene.events);
    let lowered = scene.events.iter().filter_map(|event| match event {
        Event::Lowered { task, from, .. } => Some((task.tid.0, from.priority)),
        _ => None,
    });
    assert_eq!(lowered.collect::<Vec<_>>(), [(1, 97), (7, 98), (8, 98), (10, 98)]);
    assert_eq!(scene.host.taken_from, [Tid(7)]);
}
