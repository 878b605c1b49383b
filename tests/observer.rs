//! The observer of `make soak` has to find what it is there for: fed with lines as the kernel's tracer prints them.

#![allow(clippy::unwrap_used)]

#[path = "../benches/observer.rs"]
mod observer;

use observer::{Observer, Promise, read};
use stalld::task::{Nanos, Tid};

const STALLD: i32 = 900;

/// A CPU on which the victim, 20, is preempted by the hog, 10, at 1.0 s.
const STARVES: &str = "victim-20 [001] d..2. 1.000000: sched_switch: prev_comm=victim prev_pid=20 prev_prio=98 \
                       prev_state=R+ ==> next_comm=hog next_pid=10 next_prio=49";

fn boost(at: f64) -> String {
    format!(
        "          stalld-{STALLD}     [000] ..... {at:.6}: sys_sched_setattr(pid: 0x14, uattr: 0x7ffc, flags: 0)"
    )
}

fn restore(at: f64) -> String {
    format!(
        "   stalld-{STALLD} [000] ..... {at:.6}: sys_sched_setscheduler(pid: 0x14, policy: 1, param: 0x7ffd)"
    )
}

/// The victim gets its CPU, and the hog is not there.
fn runs(at: f64, prio: i32) -> String {
    format!(
        "hog-10 [001] d..2. {at:.6}: sched_switch: prev_comm=hog prev_pid=10 prev_prio=49 prev_state=S ==> \
         next_comm=victim next_pid=20 next_prio={prio}"
    )
}

/// ... and gives it back, because it has no more budget or because it sleeps.
fn stops(at: f64, prio: i32, state: &str) -> String {
    format!(
        "victim-20 [001] d..2. {at:.6}: sched_switch: prev_comm=victim prev_pid=20 prev_prio={prio} \
         prev_state={state} ==> next_comm=hog next_pid=10 next_prio=49"
    )
}

/// Observes until 10 s, with a threshold of 2 s, half a second for the rescue, and 4 s for a boost.
fn observed(lines: &[String]) -> Observer {
    let promise = Promise {
        threshold: Nanos::from_secs(2),
        rescue: Nanos::from_millis(500),
        boost: Nanos::from_secs(4),
    };
    let mut observer = Observer::new(promise, vec![Tid(STALLD), Tid(STALLD + 1)], Nanos::from_millis(900));
    for line in lines {
        observer.note(read(line).unwrap());
    }
    observer.finish(Nanos::from_secs(10), |tid| tid != Tid(21));
    observer
}

fn faults(lines: &[String]) -> (usize, usize, usize) {
    let observer = observed(lines);
    (observer.missed.len(), observer.unjust.len(), observer.left_boosted.len())
}

/// Boosted at the threshold, ran, was put back, and slept.
fn rescued() -> Vec<String> {
    vec![
        STARVES.to_string(),
        boost(3.0003),
        runs(3.0004, -1),
        stops(3.0005, -1, "R"),
        restore(5.0),
        runs(5.1, 98),
        stops(5.2, 98, "S"),
    ]
}

#[test]
fn a_rescue_as_it_should_be_is_no_fault() {
    let observer = observed(&rescued());
    assert!(observer.missed.is_empty() && observer.unjust.is_empty() && observer.left_boosted.is_empty());
    assert_eq!((observer.boosts, observer.pulses, observer.starvations), (1, 0, 2));
    assert_eq!(observer.longest_wait, Nanos::from_micros(2_099_500));
}

#[test]
fn a_task_that_nobody_rescues_is_missed_whether_it_runs_at_last_or_not() {
    assert_eq!(faults(&[STARVES.to_string()]), (1, 0, 0));
    assert_eq!(faults(&[STARVES.to_string(), runs(3.6, 98)]), (1, 0, 0));
    let woken =
        "hog-10 [001] dN.. 1.200000: sched_wakeup: comm=victim pid=20 prio=98 target_cpu=001".to_string();
    assert_eq!(faults(std::slice::from_ref(&woken)), (1, 0, 0));
    assert_eq!(faults(&[woken, runs(1.3, 98), stops(1.4, 98, "S")]), (0, 0, 0));
}

#[test]
fn a_boost_of_a_task_that_has_not_starved_is_unjust() {
    let early = [STARVES.to_string(), boost(2.9), runs(2.91, -1), restore(3.0), stops(3.1, 98, "S")];
    assert_eq!(faults(&early), (0, 1, 0));
    let asleep = [runs(1.0, 98), stops(1.1, 98, "S"), boost(8.0), restore(8.1)];
    assert_eq!(faults(&asleep), (0, 1, 0));
    let running = [runs(1.0, 98), boost(8.0), restore(8.1)];
    assert_eq!(faults(&running), (0, 1, 0));
}

#[test]
fn a_task_that_ran_in_the_moment_before_its_boost_has_starved_all_the_same() {
    let late = [STARVES.to_string(), runs(3.0001, 98), boost(3.0003), restore(3.1), stops(3.2, 98, "S")];
    assert_eq!(faults(&late), (0, 0, 0));
    let too_late = [STARVES.to_string(), runs(3.0001, 98), boost(3.2), restore(3.3)];
    assert_eq!(faults(&too_late), (0, 1, 0));
}

#[test]
fn pulses_follow_a_boost_that_was_due_and_no_other() {
    let pulse = |at: [f64; 4]| {
        // What stalld sets before a pulse and after it looks alike.
        [restore(at[0]), runs(at[1], 1), stops(at[2], 1, "R"), restore(at[3])]
    };
    let mut lines = vec![STARVES.to_string()];
    lines.extend(pulse([3.0, 3.1, 3.2, 3.3]));
    lines.extend(pulse([4.0, 4.1, 4.2, 4.3]));
    lines.extend([runs(4.4, 98), stops(4.5, 98, "S")]);
    assert_eq!(faults(&lines), (0, 0, 0));
    let first = observed(&lines);
    assert_eq!((first.boosts, first.pulses), (0, 1));
    lines.extend(pulse([9.0, 9.1, 9.2, 9.3]));
    assert_eq!(faults(&lines).1, 1);
}

#[test]
fn a_boost_that_lasts_or_is_put_back_otherwise_is_a_fault() {
    let without = |index: usize| {
        let mut lines = rescued();
        lines.remove(index);
        lines
    };
    // Never put back: it is boosted at the end.
    assert_eq!(faults(&without(4)).2, 1);
    let mut lines = rescued();
    lines[4] = restore(7.1);
    lines[5] = runs(7.2, 98);
    lines[6] = stops(7.3, 98, "S");
    assert_eq!(faults(&lines).2, 1);
    let mut lines = rescued();
    lines[5] = runs(5.1, 120);
    assert_eq!(faults(&lines).2, 1);
    // One that is no more needs nothing.
    let exit =
        "victim-20 [001] ..... 4.000000: sched_process_exit: comm=victim pid=20 prio=-1 group_dead=true";
    let mut lines = without(4);
    lines.truncate(3);
    lines.extend([exit.to_string(), stops(4.1, -1, "R")]);
    assert_eq!(faults(&lines), (0, 0, 0));
    // Nor is what it did laid to the next one of its number.
    let born = "hog-10 [001] dN.. 9.000000: sched_wakeup_new: comm=next pid=20 prio=120 target_cpu=001";
    lines.extend([born.to_string(), runs(9.1, 120)]);
    assert_eq!(faults(&lines), (0, 0, 0));
}

#[test]
fn what_others_set_is_not_laid_to_stalld() {
    let other = boost(1.5).replace("900", "901").replace("stalld", "stall-guard").replace("901", "55");
    assert_eq!(faults(&[runs(1.0, 98), other, stops(2.0, 98, "S")]), (0, 0, 0));
    assert_eq!(read("CPU:1 [LOST 17 EVENTS]"), None);
    assert_eq!(read("bash-1 [000] d..2. 1.5: sched_waking: comm=x pid=2 prio=120 target_cpu=000"), None);
}
