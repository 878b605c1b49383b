//! Tests which tasks are boosted by SCHED_DEADLINE, and which in pulses.

use super::*;

#[test]
fn only_kernel_threads_and_privileged_tasks_are_boosted_as_deadline() {
    for (owner, start, comm, is_deadline) in [
        (Owner::Kernel, 5, "kworker/1:1", true),
        (Owner::Kernel, 5, "cpuhp/1", false),
        (Owner::Privileged, 5, "cpuhp/1", true),
        (Owner::User(0), 5, "victim", false),
        (Owner::User(1000), 5, "victim", false),
        // The simulated host reports that the task is privileged.
        (Owner::Unknown, 5, "victim", true),
        (Owner::User(1000), 0, "victim", true),
    ] {
        let mut scene = Scene::new(rules(20));
        let comm = Comm::new(comm.as_bytes());
        scene.scan_at(&[Task { start, owner, comm, ..task(1, 120) }], Some(49));
        let (raised, pulses) = (scene.booster.actuator.raised.len(), scene.booster.actuator.pulses.len());
        assert_eq!((raised, pulses), if is_deadline { (1, 0) } else { (0, 1) }, "{owner:?} {comm}");
    }
}

#[test]
fn threads_that_the_kernel_binds_to_their_cpu_are_boosted_in_pulses_if_the_rules_say_so() {
    for (pulsed, is_bound, owner, pulses) in [
        (Pulsed::Bound, true, Owner::Kernel, 1),
        (Pulsed::Bound, false, Owner::Kernel, 0),
        (Pulsed::Bound, true, Owner::Privileged, 0),
        (Pulsed::Nothing, true, Owner::Kernel, 0),
    ] {
        let mut scene = Scene::new(Rules { pulsed, ..rules(20) });
        scene.booster.actuator.is_bound = is_bound;
        scene.scan_at(&[Task { start: 5, owner, ..task(1, 120) }], Some(49));
        assert_eq!(scene.booster.actuator.pulses.len(), pulses, "{pulsed:?} {is_bound} {owner:?}");
    }
}

#[test]
fn while_a_cpu_comes_or_goes_all_boosts_are_pulses() {
    let hotplug = |owner| Task { owner, cpu: Cpu(2), comm: Comm::new(b"cpuhp/2"), ..task(77, 120) };
    for (owner, is_deadline) in [(Owner::Kernel, false), (Owner::User(1000), true)] {
        let mut scene = Scene::new(rules(20));
        scene.scan_at(&[task(1, 120)], Some(49));
        assert_eq!(scene.raised(), [1]);
        scene.pass(Nanos::from_secs(1));
        let mut snapshot = Snapshot { at: scene.now, complete: true, ..Snapshot::default() };
        snapshot.running.extend([task(999, 49), hotplug(owner)]);
        scene.booster.see(&snapshot);
        assert_eq!(scene.booster.load().0 == 1, is_deadline, "{owner:?}");
        // This scan did not see the task of the boost that has just ended. The next one comes soon.
        scene.booster.serve(&snapshot, &[]);
        let told = [scene.now, scene.now].map(|now| scene.booster.take_pulses_only(now));
        assert_eq!(told, [(!is_deadline).then_some(PulsesOnly::Hotplug), None], "{owner:?}");
        let is_soon = scene.booster.next_scan() == Some(scene.now + SCAN_AFTER_END);
        assert_eq!(is_soon, !is_deadline, "{owner:?} {:?}", scene.booster.next_scan());
        scene.scan_at(&[task(2, 120)], Some(49));
        let pulses = if is_deadline { vec![] } else { vec![Tid(2)] };
        assert_eq!(scene.booster.actuator.pulses, pulses, "{owner:?}");
        scene.pass(ONLY_PULSES);
        scene.scan_at(&[task(3, 120)], Some(49));
        assert_eq!(scene.raised().last(), Some(&3));
    }
}

#[test]
fn where_pulses_are_preferred_only_a_task_that_they_do_not_outrank_is_a_reason_for_deadline() {
    for (hog, is_missed, is_deadline) in [
        (Some(49), false, false),
        // The task most likely sleeps.
        (Some(49), true, false),
        // Such a task may have had the CPU for a moment only.
        (Some(1), false, false),
        (Some(1), true, true),
        (Some(0), true, true),
        (Some(-1), true, true),
    ] {
        let mut scene = Scene::new(Rules { pulsed: Pulsed::All, ..rules(20) });
        scene.booster.actuator.held = is_missed;
        scene.scan_at(&[task(1, 120)], hog);
        assert_eq!(scene.booster.actuator.raised.len(), usize::from(is_deadline), "{hog:?} {is_missed}");
        assert_eq!(scene.booster.actuator.pulses, [Tid(1)], "{hog:?} {is_missed}");
    }
}

#[test]
fn a_boost_takes_as_much_of_its_cpu_as_its_method_costs() {
    // A DEADLINE boost costs 4 ms of each second, so five take 2 %. A pulse costs 20 us.
    let started = |pulsed: Pulsed, is_deadline: bool| {
        let mut scene = Scene::new(Rules { pulsed, ..rules(4000) });
        scene.booster.actuator.held = is_deadline;
        let hog = Some(if is_deadline { 0 } else { 49 });
        let mut most = 0;
        for tid in 1..=30 {
            scene.scan_at(&[task(tid, 120)], hog);
            most = most.max(scene.booster.active.len());
            // An older boost would make room for another one.
            scene.booster.active.iter_mut().for_each(|active| active.started = scene.now + SPACING);
            scene.pass(SPACING);
        }
        most
    };
    assert_eq!(started(Pulsed::All, false), 16);
    // Five DEADLINE boosts leave no share for a pulse.
    assert_eq!(started(Pulsed::All, true), 5);
}
