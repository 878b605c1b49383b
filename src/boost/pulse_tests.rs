//! Boosts that are made of pulses.

use super::*;
use crate::boost::active::{AGAIN, AGAIN_ASLEEP, TRIES};

#[test]
fn where_deadline_is_refused_fifo_does_it_in_pulses_a_period_apart() {
    let mut scene = Scene::new(rules(20));
    scene.host.refuses = Some(libc::EPERM);
    scene.look(&[1], Some(49));
    assert_eq!(scene.host.pulses, [Tid(1)]);
    assert!(scene.events.iter().any(|event| matches!(event, Event::Boosted { how: BoostPolicy::Fifo, .. })));
    scene.pass(Nanos::from_secs(1));
    scene.booster.advance(scene.now, &mut scene.host, &mut scene.events);
    assert_eq!(scene.host.pulses, [Tid(1), Tid(1)]);
    scene.pass(Nanos::from_secs(2));
    scene.booster.advance(scene.now, &mut scene.host, &mut scene.events);
    assert!(!scene.booster.is_busy());
}

#[test]
fn a_pulse_of_a_task_that_another_thread_has_in_hand_is_left_out_and_the_boost_goes_on() {
    let mut scene = Scene::new(Rules { how: BoostPolicy::Fifo, ..rules(20) });
    scene.look(&[1], Some(49));
    scene.host.taken = true;
    scene.pass(Nanos::from_secs(1));
    scene.booster.advance(scene.now, &mut scene.host, &mut scene.events);
    assert!(scene.booster.is_busy());
}

#[test]
fn a_task_that_deadline_leaves_waiting_is_put_back_and_boosted_in_pulses() {
    let mut scene = Scene::new(rules(20));
    scene.host.stuck = true;
    scene.look(&[1], Some(49));
    assert_eq!((scene.host.restored.len(), scene.host.pulses.len()), (1, 1));
    assert!(matches!(scene.events[..], [Event::Boosted { how: BoostPolicy::Fifo, .. }]));
}

#[test]
fn a_boost_that_is_over_with_its_first_pulse_is_reported() {
    let mut scene = Scene::new(Rules { how: BoostPolicy::Fifo, ..rules(20) });
    scene.host.raises_itself = true;
    scene.look_at(&[task(1, 120)], Some(49));
    assert!(
        matches!(
            scene.events[..],
            [Event::Boosted { .. }, Event::Over { outcome: RestoreOutcome::Lowered { .. }, early: true, .. }]
        ),
        "{:?}",
        scene.events
    );
    assert_eq!(scene.booster.load().0, 0);
}

#[test]
fn a_pulse_in_which_the_task_was_not_given_its_cpu_is_made_again_soon() {
    let mut scene = Scene::new(Rules { how: BoostPolicy::Fifo, ..rules(20) });
    scene.host.held = true;
    scene.look(&[1], Some(49));
    let told = |scene: &Scene| scene.events.len();
    assert_eq!((scene.host.pulses.len(), told(&scene)), (1, 1));
    for pulses in 2..=TRIES as usize + 1 {
        assert_eq!(scene.booster.next_end(), Some(scene.now + AGAIN));
        scene.pass(AGAIN);
        scene.booster.advance(scene.now, &mut scene.host, &mut scene.events);
        assert_eq!((scene.host.pulses.len(), told(&scene)), (pulses, 1));
    }
    assert_eq!(scene.booster.next_end(), Some(scene.now + rules(20).period), "it may be asleep");
    let advance = |scene: &mut Scene, time| {
        scene.pass(time);
        scene.booster.advance(scene.now, &mut scene.host, &mut scene.events);
    };
    // As long as it sleeps, a period has two pulses.
    advance(&mut scene, rules(20).period);
    assert_eq!(scene.booster.next_end(), Some(scene.now + AGAIN_ASLEEP));
    advance(&mut scene, AGAIN_ASLEEP);
    assert_eq!(scene.booster.next_end(), Some(scene.now + rules(20).period));
    advance(&mut scene, rules(20).period);
    assert_eq!((scene.host.pulses.len(), told(&scene)), (TRIES as usize + 4, 1));
    scene.host.held = false;
    advance(&mut scene, AGAIN_ASLEEP);
    assert_eq!((scene.host.pulses.len(), told(&scene)), (TRIES as usize + 5, 2));
}
