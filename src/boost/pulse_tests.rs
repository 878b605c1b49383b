//! Boosts that are made of pulses.

use super::*;
use crate::boost::active::{MAX_REPEATS, REPEAT_INTERVAL, REPEAT_INTERVAL_ASLEEP};

#[test]
fn if_deadline_is_refused_fifo_pulses_follow_a_period_apart() {
    let mut scene = Scene::new(rules(20));
    scene.booster.actuator.refuses = Some(libc::EPERM);
    scene.scan(&[1], Some(49));
    assert_eq!(scene.booster.actuator.pulses, [Tid(1)]);
    assert!(
        scene
            .booster
            .events
            .iter()
            .any(|event| matches!(event, Event::Boosted { how: BoostPolicy::Fifo, .. }))
    );
    scene.pass(Nanos::from_secs(1));
    scene.booster.advance(scene.now);
    assert_eq!(scene.booster.actuator.pulses, [Tid(1), Tid(1)]);
    scene.pass(Nanos::from_secs(2));
    scene.booster.advance(scene.now);
    assert!(!scene.booster.is_busy());
}

#[test]
fn a_pulse_is_skipped_while_another_thread_acts_on_the_task() {
    let mut scene = Scene::new(Rules { how: BoostPolicy::Fifo, ..rules(20) });
    scene.scan(&[1], Some(49));
    scene.booster.actuator.pulse_refusal = Some(Refusal::Taken);
    scene.pass(Nanos::from_secs(1));
    scene.booster.advance(scene.now);
    assert!(scene.booster.is_busy());
}

#[test]
fn a_boost_that_was_refused_for_a_passing_reason_is_tried_again_soon() {
    for (why, interval) in [
        (Refusal::JournalFull, Nanos::from_millis(100)),
        (Refusal::Kernel(libc::ENOMEM), Nanos::from_millis(100)),
        (Refusal::ChangedByOthers(Policy::FIFO), Nanos::from_millis(100)),
        (Refusal::Kernel(libc::EPERM), rules(20).retry),
    ] {
        let mut scene = Scene::new(Rules { how: BoostPolicy::Fifo, ..rules(20) });
        scene.booster.actuator.pulse_refusal = Some(why);
        scene.scan(&[1], Some(49));
        assert_eq!(scene.booster.next_scan(), Some(scene.now + interval), "{why:?}");
        scene.booster.actuator.pulse_refusal = None;
        scene.pass(interval);
        scene.scan(&[1], Some(49));
        assert_eq!(scene.booster.actuator.pulses, [Tid(1)], "{why:?}");
    }
}

#[test]
fn a_task_that_deadline_leaves_waiting_is_put_back_and_boosted_in_pulses() {
    let mut scene = Scene::new(rules(20));
    scene.booster.actuator.stuck = true;
    scene.scan(&[1], Some(49));
    assert_eq!((scene.booster.actuator.restored.len(), scene.booster.actuator.pulses.len()), (1, 1));
    assert!(matches!(scene.booster.events[..], [Event::Boosted { how: BoostPolicy::Fifo, .. }]));
}

#[test]
fn a_boost_that_is_over_with_its_first_pulse_is_reported() {
    let mut scene = Scene::new(Rules { how: BoostPolicy::Fifo, ..rules(20) });
    scene.booster.actuator.raises_itself = true;
    scene.scan_at(&[task(1, 120)], Some(49));
    assert!(
        matches!(
            scene.booster.events[..],
            [Event::Boosted { .. }, Event::Over { outcome: RestoreOutcome::Lowered { .. }, early: true, .. }]
        ),
        "{:?}",
        scene.booster.events
    );
    assert_eq!(scene.booster.load().0, 0);
}

#[test]
fn a_pulse_in_which_the_task_was_not_given_its_cpu_is_made_again_soon() {
    let mut scene = Scene::new(Rules { how: BoostPolicy::Fifo, ..rules(20) });
    scene.booster.actuator.held = true;
    scene.scan(&[1], Some(49));
    let events = |scene: &Scene| scene.booster.events.len();
    assert_eq!((scene.booster.actuator.pulses.len(), events(&scene)), (1, 1));
    for pulses in 2..=MAX_REPEATS as usize + 1 {
        assert_eq!(scene.booster.next_end(), Some(scene.now + REPEAT_INTERVAL));
        scene.pass(REPEAT_INTERVAL);
        scene.booster.advance(scene.now);
        assert_eq!((scene.booster.actuator.pulses.len(), events(&scene)), (pulses, 1));
    }
    assert_eq!(scene.booster.next_end(), Some(scene.now + rules(20).period), "it may be asleep");
    let advance = |scene: &mut Scene, time| {
        scene.pass(time);
        scene.booster.advance(scene.now);
    };
    // While the task sleeps, each period has two pulses.
    advance(&mut scene, rules(20).period);
    assert_eq!(scene.booster.next_end(), Some(scene.now + REPEAT_INTERVAL_ASLEEP));
    advance(&mut scene, REPEAT_INTERVAL_ASLEEP);
    assert_eq!(scene.booster.next_end(), Some(scene.now + rules(20).period));
    advance(&mut scene, rules(20).period);
    assert_eq!((scene.booster.actuator.pulses.len(), events(&scene)), (MAX_REPEATS as usize + 4, 1));
    scene.booster.actuator.held = false;
    advance(&mut scene, REPEAT_INTERVAL_ASLEEP);
    assert_eq!((scene.booster.actuator.pulses.len(), events(&scene)), (MAX_REPEATS as usize + 5, 2));
}
