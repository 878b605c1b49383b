//! Boosts of many tasks, and of tasks with many children.

use super::*;

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
    scene.pass(CARE);
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
