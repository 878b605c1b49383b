//! Pulses with a bound on what the hog loses.

use super::*;
use crate::boost::max_loss::MaxLoss;
use crate::boost::plan::request::Denial;

const MAX: MaxLoss = MaxLoss { per_second: Nanos::from_micros(1000), switching: Nanos::from_micros(5) };
const USED: Nanos = Nanos::from_micros(40);
const SECOND: Nanos = Nanos::from_secs(1);

fn bounded() -> Scene {
    let mut scene = Scene::new(Rules { how: BoostPolicy::Fifo, max_loss: Some(MAX), ..rules(20) });
    scene.booster.actuator.used = USED;
    scene
}

/// Advances until `end`, and scans when a scan is due. Returns the pulses with their times.
fn run(scene: &mut Scene, end: Nanos, waiting: &[i32]) -> Vec<(Nanos, i32)> {
    let mut pulses = Vec::new();
    let mut seen = scene.booster.actuator.pulses.len();
    let note = |scene: &Scene, pulses: &mut Vec<(Nanos, i32)>, seen: &mut usize| {
        let all = &scene.booster.actuator.pulses;
        pulses.extend(all[*seen..].iter().map(|tid| (scene.now, tid.0)));
        *seen = all.len();
    };
    loop {
        let next = scene.booster.next_end().into_iter().chain(scene.booster.next_scan()).min();
        let Some(next) = next.filter(|&next| next < end) else { break };
        scene.now = scene.now.max(next);
        scene.booster.advance(scene.now);
        note(scene, &mut pulses, &mut seen);
        if scene.booster.next_scan().is_some_and(|due| due <= scene.now) {
            // A task that has run starts a new wait.
            let has_run = |tid: &i32| scene.booster.actuator.pulses.contains(&Tid(*tid));
            let waiting: Vec<i32> = waiting.iter().copied().filter(|tid| !has_run(tid)).collect();
            scene.scan(&waiting, Some(49));
            note(scene, &mut pulses, &mut seen);
        }
    }
    scene.now = end;
    pulses
}

#[test]
fn pulses_follow_each_other_as_fast_as_the_bound_allows_and_tasks_take_turns() {
    let mut scene = bounded();
    let begin = scene.now;
    scene.scan(&[1], Some(49));
    let alone = run(&mut scene, begin + SECOND, &[1]);
    // 45 us of 945 us a second, after each pulse.
    assert!((20..=22).contains(&alone.len()), "{}", alone.len());
    // A new task does not wait for a pause in the pulses of the first one.
    scene.scan(&[1, 2], Some(49));
    let both = run(&mut scene, begin + SECOND + SECOND, &[1, 2]);
    let of = |tid| both.iter().filter(|&&(_, it)| it == tid).count();
    assert!(of(1).abs_diff(of(2)) <= 1, "{both:?}");
    let all: Vec<Nanos> = alone.iter().chain(&both).map(|&(at, _)| at).collect();
    for &first in &all {
        let within = all.iter().filter(|&&at| at >= first && at < first + SECOND).count() as u64;
        assert!(within * (USED + MAX.switching).0 <= MAX.per_second.0, "{within} pulses from {first:?}");
    }
    // The pulses of a period belong to one boost.
    let boosted = scene.booster.events.iter().filter(|it| matches!(it, Event::Boosted { .. })).count();
    assert_eq!(boosted, 2);
}

#[test]
fn each_of_many_tasks_has_its_pulse() {
    let mut scene = bounded();
    let many: Vec<i32> = (1..=60).collect();
    scene.scan(&many, Some(49));
    let end = scene.now + Nanos::from_secs(9);
    run(&mut scene, end, &many);
    let pulses = &scene.booster.actuator.pulses;
    assert!(many.iter().all(|&tid| pulses.contains(&Tid(tid))), "{pulses:?}");
    assert!(scene.booster.load().0 <= 16);
}

#[test]
fn a_boost_is_over_when_its_task_sleeps() {
    for (is_runnable, is_over) in [(true, false), (false, true)] {
        let mut scene = bounded();
        scene.scan(&[1], Some(49));
        scene.booster.actuator.held = true;
        scene.booster.actuator.standings = vec![(Tid(1), Standing { cpu: Cpu(1), prio: 120, is_runnable })];
        // A task that was preempted on its way to sleep waits, and does not look runnable.
        scene.pass(SECOND);
        scene.booster.advance(scene.now);
        assert_eq!(scene.booster.load().0, 1);
        scene.pass(SECOND);
        scene.booster.advance(scene.now);
        assert_eq!(scene.booster.load().0 == 0, is_over);
        let over = |event: &Event| matches!(event, Event::Over { early: true, .. });
        assert_eq!(scene.booster.events.iter().any(over), is_over);
        // If it waits all the same, the next scan sees it.
        let next = scene.booster.next_scan().unwrap();
        assert_eq!(next == scene.now + SCAN_AFTER_END, is_over, "{next:?}");
    }
}

#[test]
fn a_boost_is_over_when_its_task_has_moved_because_another_hog_would_pay() {
    let mut scene = bounded();
    scene.scan(&[1], Some(49));
    scene.booster.actuator.standings = vec![(Tid(1), Standing { cpu: Cpu(7), prio: 120, is_runnable: true })];
    scene.pass(SECOND);
    scene.booster.advance(scene.now);
    assert_eq!((scene.booster.actuator.pulses.len(), scene.booster.load().0), (1, 0));
    assert_eq!(scene.booster.next_scan(), Some(scene.now + SCAN_AFTER_END));
}

/// Returns the pause after a first pulse.
fn pause_of(change: impl FnOnce(&mut Simulated)) -> Nanos {
    let mut scene = bounded();
    change(&mut scene.booster.actuator);
    scene.scan(&[1], Some(49));
    scene.booster.spacing.get(Cpu(1)).unwrap() - scene.now
}

#[test]
fn an_unknown_use_of_a_pulse_costs_as_much_as_a_whole_one() {
    let hold = MAX.hold(Nanos::from_micros(20));
    assert_eq!(pause_of(|actuator| actuator.is_uncounted = true), MAX.pause_after(hold, hold));
}

#[test]
fn a_pulse_costs_no_more_than_its_own_length() {
    // Before the pulse the task ran, and the kernel counts that only at the next tick.
    let of = |length| {
        pause_of(|actuator| (actuator.used, actuator.pulse_length) = (Nanos::from_millis(4), length))
    };
    let cost = Nanos::from_micros(45);
    assert_eq!(of(Nanos::from_micros(40)), MAX.pause_after(cost, MAX.hold(Nanos::from_micros(20))));
    assert_eq!(of(Nanos::from_millis(9)), SECOND);
}

#[test]
fn a_pulse_that_is_missed_again_and_again_is_repeated_once_in_a_period() {
    let mut scene = bounded();
    scene.booster.actuator.held = true;
    scene.scan(&[1], Some(0));
    let end = scene.now + Nanos::from_millis(2900);
    // The first pulse has 20 repeats, and each of the next ones has one.
    let pulses = run(&mut scene, end, &[1]);
    assert!((20..=25).contains(&pulses.len()), "{} pulses", pulses.len());
}

#[test]
fn a_crowd_of_one_owner_takes_no_pulses_of_others() {
    let mut scene = bounded();
    let own = |tid, owner| Task { owner, ..task(tid, 120) };
    let of_kernel = own(1000, Owner::Kernel);
    let mut crowd: Vec<Task> = (1..=60).map(|tid| own(tid, Owner::User(7))).collect();
    crowd.push(of_kernel);
    let end = scene.now + Nanos::from_millis(2500);
    while scene.now < end {
        let has_run = |task: &Task| scene.booster.actuator.pulses.contains(&task.tid);
        let waiting: Vec<Task> = crowd.iter().copied().filter(|task| !has_run(task)).collect();
        scene.scan_at(&waiting, Some(49));
        let next = scene.booster.next_end().into_iter().chain(scene.booster.next_scan()).min().unwrap();
        scene.now = scene.now.max(next);
    }
    let pulses = &scene.booster.actuator.pulses;
    let of_it = pulses.iter().filter(|&&tid| tid == of_kernel.tid).count();
    assert!(of_it * 3 >= pulses.len(), "{of_it} of {}", pulses.len());
    assert!(of_it * 3 <= pulses.len() * 2, "{of_it} of {}", pulses.len());
}

#[test]
fn a_pulse_that_is_refused_for_a_passing_reason_ends_no_boost() {
    for (errno, goes_on) in [(libc::ENOMEM, true), (libc::EPERM, false)] {
        let mut scene = bounded();
        scene.scan(&[1], Some(49));
        scene.booster.actuator.pulse_refusal = Some(Refusal::Kernel(errno));
        scene.pass(SECOND);
        scene.booster.advance(scene.now);
        assert_eq!(scene.booster.load().0 == 1, goes_on, "{errno}");
    }
}

#[test]
fn a_requested_boost_keeps_the_bound_too() {
    let mut scene = bounded();
    scene.scan(&[1], Some(49));
    let now = scene.now;
    assert!(matches!(scene.booster.boost(&task(2, 120), true, now), Err(Denial::NoPlace)));
    assert!(scene.booster.boost(&task(2, 120), true, now + SECOND).is_ok());
}
