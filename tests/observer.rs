//! Tests of the observer of `make soak` and of the account of a hog's losses, by lines as the
//! kernel's tracer prints them.

#![allow(clippy::unwrap_used, unreachable_pub)]

#[path = "../benches/holds.rs"]
mod holds;
#[path = "../benches/observer.rs"]
mod observer;
#[path = "../benches/trace_line.rs"]
mod trace_line;

use holds::{Account, Cast, Loss, Part, first_wait};
use observer::{Observer, Promise};
use stalld::error::Result;
use stalld::task::{Cpu, Nanos, Tid};
use trace_line::{Event, lost_events, read};

const STALLD: i32 = 900;

/// The hog, 10, preempts the victim, 20, at 1.0 s.
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

/// The hog sleeps, and the victim gets its CPU.
fn runs(at: f64, prio: i32) -> String {
    format!(
        "hog-10 [001] d..2. {at:.6}: sched_switch: prev_comm=hog prev_pid=10 prev_prio=49 prev_state=S ==> \
         next_comm=victim next_pid=20 next_prio={prio}"
    )
}

/// The hog gets its CPU back, because the victim has used its budget up or sleeps.
fn stops(at: f64, prio: i32, state: &str) -> String {
    format!(
        "victim-20 [001] d..2. {at:.6}: sched_switch: prev_comm=victim prev_pid=20 prev_prio={prio} \
         prev_state={state} ==> next_comm=hog next_pid=10 next_prio=49"
    )
}

/// Observes until 10 s with a threshold of 2 s, half a second for the rescue, and 4 s for a boost.
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

/// A task is boosted at the threshold, runs, is restored, and sleeps.
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
fn a_correct_rescue_is_no_fault() {
    let observer = observed(&rescued());
    assert!(observer.missed.is_empty() && observer.unjust.is_empty() && observer.left_boosted.is_empty());
    assert_eq!((observer.boosts, observer.pulses, observer.starvations), (1, 0, 2));
    assert_eq!(observer.longest_wait, Nanos::from_micros(2_099_500));
}

#[test]
fn a_task_without_a_rescue_is_missed_even_if_it_runs_later() {
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
fn a_boost_just_after_a_starving_task_ran_is_justified() {
    let late = [STARVES.to_string(), runs(3.0001, 98), boost(3.0003), restore(3.1), stops(3.2, 98, "S")];
    assert_eq!(faults(&late), (0, 0, 0));
    let too_late = [STARVES.to_string(), runs(3.0001, 98), boost(3.2), restore(3.3)];
    assert_eq!(faults(&too_late), (0, 1, 0));
}

#[test]
fn pulses_follow_a_boost_that_was_due_and_no_other() {
    let pulse = |at: [f64; 4]| {
        // The trace shows the same call before a pulse and after it.
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
fn a_boost_that_lasts_or_is_restored_wrongly_is_a_fault() {
    let without = |index: usize| {
        let mut lines = rescued();
        lines.remove(index);
        lines
    };
    // Without a restore it is boosted at the end.
    assert_eq!(faults(&without(4)).2, 1);
    let mut lines = rescued();
    lines[4] = restore(7.1);
    lines[5] = runs(7.2, 98);
    lines[6] = stops(7.3, 98, "S");
    assert_eq!(faults(&lines).2, 1);
    let mut lines = rescued();
    lines[5] = runs(5.1, 120);
    assert_eq!(faults(&lines).2, 1);
    // A task that has exited needs no restore.
    let exit =
        "victim-20 [001] ..... 4.000000: sched_process_exit: comm=victim pid=20 prio=-1 group_dead=true";
    let mut lines = without(4);
    lines.truncate(3);
    lines.extend([exit.to_string(), stops(4.1, -1, "R")]);
    assert_eq!(faults(&lines), (0, 0, 0));
    // The next task of the same tid starts without a history.
    let born = "hog-10 [001] dN.. 9.000000: sched_wakeup_new: comm=next pid=20 prio=120 target_cpu=001";
    lines.extend([born.to_string(), runs(9.1, 120)]);
    assert_eq!(faults(&lines), (0, 0, 0));
}

#[test]
fn calls_of_other_processes_do_not_count_as_boosts() {
    let other = boost(1.5).replace("900", "901").replace("stalld", "stall-guard").replace("901", "55");
    assert_eq!(faults(&[runs(1.0, 98), other, stops(2.0, 98, "S")]), (0, 0, 0));
    assert_eq!(read("CPU:1 [LOST 17 EVENTS]"), None);
    assert_eq!(read("bash-1 [000] d..2. 1.5: sched_waking: comm=x pid=2 prio=120 target_cpu=000"), None);
}

const HOG: i32 = 10;
const KERNEL_THREAD: i32 = 31;

/// Returns a switch of the hogged CPU from one task to another one.
fn switch(at: f64, from: i32, to: i32) -> String {
    switch_on(1, at, from, to)
}

fn switch_on(cpu: u32, at: f64, from: i32, to: i32) -> String {
    format!(
        "x-{from} [{cpu:03}] d..2. {at:.6}: sched_switch: prev_comm=x prev_pid={from} prev_prio=49 prev_state=R+ \
         ==> next_comm=task {to} next_pid={to} next_prio=49"
    )
}

/// The hog comes at 1.0 s, and these switches follow.
fn after_the_hog_came(switches: &[(f64, i32, i32)]) -> Vec<String> {
    let first = switch(1.0, 0, HOG);
    let rest = switches.iter().map(|&(at, from, to)| switch(at, from, to));
    std::iter::once(first).chain(rest).collect()
}

/// The account of CPU 1 from 1.0 s to 5.0 s, with the victims 20 and 21.
fn account(lines: &[String]) -> Result<Account> {
    let events: Vec<Event> = lines.iter().filter_map(|line| read(line)).collect();
    let lost = lines.iter().map(|line| lost_events(line)).sum();
    let cast =
        Cast { hog: Tid(HOG), victims: vec![Tid(20), Tid(21)], stalld: vec![Tid(STALLD), Tid(STALLD + 1)] };
    Account::new(&events, lost, Cpu(1), &cast, (Nanos::from_secs(1), Nanos::from_secs(5)))
}

/// The lengths of all holds in us.
fn lengths(account: &Account) -> Vec<u64> {
    account.holds().iter().map(|hold| hold.length().0 / 1000).collect()
}

fn boosts_and_others(loss: &Loss) -> Nanos {
    loss.boosts() + loss.others
}

fn millis(victims: u64, stalld: u64, others: u64) -> Loss {
    let [victims, stalld, others] = [victims, stalld, others].map(Nanos::from_millis);
    Loss { victims, stalld, others }
}

#[test]
fn a_hold_lasts_from_the_switch_in_of_a_victim_to_its_switch_out() {
    let lines = after_the_hog_came(&[
        (2.0, HOG, 20),
        (2.000_060, 20, HOG),
        (3.0, HOG, 21),
        (3.000_310, 21, HOG),
        (4.0, HOG, KERNEL_THREAD),
        (4.000_007, KERNEL_THREAD, HOG),
    ]);
    let account = account(&lines).unwrap();
    assert_eq!(lengths(&account), [60, 310, 7]);
    let victims: Vec<bool> = account.holds().iter().map(|hold| hold.has(Part::Victim)).collect();
    assert_eq!(victims, [true, true, false]);
    assert_eq!(account.victims_run(), 2);
    let longest = account.holds()[1].longest_task().unwrap();
    assert_eq!(longest.to_string(), "task 21");
}

#[test]
fn a_kernel_thread_inside_a_hold_counts_for_the_hold_and_not_the_victim() {
    let lines = after_the_hog_came(&[
        (2.0, HOG, 20),
        (2.010, 20, KERNEL_THREAD),
        (2.013, KERNEL_THREAD, 20),
        (2.014, 20, STALLD + 1),
        (2.016, STALLD + 1, HOG),
    ]);
    let account = account(&lines).unwrap();
    assert_eq!(lengths(&account), [16_000]);
    assert_eq!(account.holds()[0].longest_task().unwrap().to_string(), "task 20");
    assert_eq!(account.worst_second(boosts_and_others), millis(11, 2, 3));
    assert_eq!(account.victims_run(), 1);
}

#[test]
fn the_worst_second_begins_anywhere() {
    // The second and the third turn lie within a second, but in two whole seconds of the window.
    let lines = after_the_hog_came(&[
        (1.2, HOG, 20),
        (1.204, 20, HOG),
        (2.6, HOG, 20),
        (2.610, 20, HOG),
        (3.4, HOG, 21),
        (3.420, 21, HOG),
        (4.7, HOG, 20),
        (4.715, 20, HOG),
    ]);
    let lost = account(&lines).unwrap().worst_second(boosts_and_others);
    assert_eq!(lost, millis(30, 0, 0));
    assert_eq!(lost.boosts(), Nanos::from_millis(30));
    // A turn that a second cuts counts as far as it lies inside.
    let lines = after_the_hog_came(&[(2.0, HOG, 20), (3.9, 20, HOG)]);
    assert_eq!(account(&lines).unwrap().worst_second(boosts_and_others), millis(1000, 0, 0));
}

#[test]
fn time_outside_of_the_window_does_not_count() {
    // A victim may run for any time before the hog comes, and after it has ended.
    let lines = [
        switch(0.2, 0, 20),
        switch(0.999, 20, KERNEL_THREAD),
        switch(1.002, KERNEL_THREAD, HOG),
        switch(4.996, HOG, 21),
        switch(5.5, 21, HOG),
    ];
    let account = account(&lines).unwrap();
    // Neither hold lies in the window as a whole; the losses contain the part that does.
    assert_eq!(lengths(&account), [0; 0]);
    assert_eq!(account.worst_second(boosts_and_others), millis(4, 0, 0));
    assert_eq!(account.victims_run(), 1);
}

#[test]
fn a_victim_that_never_gives_the_cpu_back_is_a_loss_without_a_hold() {
    let account = account(&after_the_hog_came(&[(3.0, HOG, 20)])).unwrap();
    assert_eq!(lengths(&account), [0; 0]);
    assert_eq!(account.worst_second(boosts_and_others), millis(1000, 0, 0));
}

#[test]
fn a_switch_from_the_idle_task_to_the_hog_may_be_missing() {
    let lines = [switch(0.9, 5, 0), switch(2.0, HOG, 20), switch(2.003, 20, HOG)];
    let account = account(&lines).unwrap();
    assert_eq!(lengths(&account), [3000]);
    assert_eq!(account.worst_second(boosts_and_others), millis(3, 0, 0));
    // A hog that loses nothing is only seen when it ends, after the window.
    assert_eq!(
        self::account(&[switch(5.1, HOG, 0)]).unwrap().worst_second(boosts_and_others),
        Loss::default()
    );
}

#[test]
fn a_switch_from_another_task_to_the_hog_may_be_missing() {
    let lines = after_the_hog_came(&[
        (2.0, HOG, 20),
        (2.005, 20, KERNEL_THREAD),
        (2.5, HOG, 21),
        (2.501, 21, HOG),
        // The switch between these two kernel threads is missing.
        (2.8, HOG, KERNEL_THREAD),
        (2.802, KERNEL_THREAD + 1, HOG),
    ]);
    let account = account(&lines).unwrap();
    // The first hold has no end, and so no length.
    assert_eq!((account.unknown(), lengths(&account)), (1, vec![1000, 2000]));
    assert_eq!(account.worst_second(boosts_and_others), millis(6, 0, 2));
    // The end of a turn of stalld must not be missing, nor the beginning of a victim's.
    for other in [20, STALLD] {
        assert!(self::account(&after_the_hog_came(&[(2.0, HOG, other), (2.5, HOG, 20)])).is_err());
        let beginning = after_the_hog_came(&[(2.0, HOG, KERNEL_THREAD), (2.1, other, HOG)]);
        assert!(self::account(&beginning).is_err());
    }
}

#[test]
fn the_worst_second_depends_on_the_part_that_counts() {
    let lines = after_the_hog_came(&[
        (1.5, HOG, 20),
        (1.502, 20, HOG),
        (3.5, HOG, KERNEL_THREAD),
        (3.550, KERNEL_THREAD, HOG),
    ]);
    let account = account(&lines).unwrap();
    assert_eq!(account.worst_second(Loss::boosts), millis(2, 0, 0));
    assert_eq!(account.worst_second(|loss| loss.others), millis(0, 0, 50));
}

#[test]
fn switches_of_other_cpus_do_not_count() {
    let mut lines = after_the_hog_came(&[(2.0, HOG, 20), (2.001, 20, HOG)]);
    lines.extend([switch_on(0, 3.0, HOG, 20), switch_on(0, 3.5, 20, HOG)]);
    lines.push(switch_on(0, 4.0, 55, 56));
    assert_eq!(account(&lines).unwrap().worst_second(boosts_and_others), millis(1, 0, 0));
}

#[test]
fn a_trace_with_a_gap_gives_an_error_and_no_figures() {
    let message = |lines: &[String]| account(lines).err().map(|e| e.to_string()).unwrap_or_default();
    let mut lines = after_the_hog_came(&[(2.0, HOG, 20), (2.001, 20, HOG)]);
    assert_eq!(message(&lines), "");
    lines.push("CPU:1 [LOST 17 EVENTS]".to_string());
    assert_eq!(message(&lines), "the trace has lost 17 events");
    *lines.last_mut().unwrap() = "CPU:1 [LOST EVENTS]".to_string();
    assert_eq!(message(&lines), "the trace has lost 1 events");
    // The switch back to the hog is missing, although no loss was reported.
    let lines = after_the_hog_came(&[(2.0, HOG, 20), (3.0, HOG, 20), (3.1, 20, HOG)]);
    assert_eq!(
        message(&lines),
        "the trace has a gap 2000 ms after the hog came: task 10 leaves the CPU of task 20"
    );
    // The first switch after the hog came is from a task that never got the CPU.
    let lines = [switch(2.0, 20, HOG)];
    assert_eq!(
        message(&lines),
        "the trace has a gap 1000 ms after the hog came: task 20 leaves the CPU of task 10"
    );
    assert_eq!(message(&[]), "the trace never shows the hog on CPU 1");
    assert_eq!(message(&[switch(0.5, 0, 20)]), "the trace never shows the hog on CPU 1");
}

#[test]
fn a_wait_lasts_from_the_victims_last_switch_out_to_its_next_switch_in() {
    let waited = |lines: &[String], lost| {
        let events: Vec<Event> = lines.iter().filter_map(|line| read(line)).collect();
        let window = (Nanos::from_secs(1), Nanos::from_secs(5));
        first_wait(&events, lost, Tid(20), window).map_err(|e| e.to_string())
    };
    let mut lines = vec![switch(0.2, 20, 0), switch(0.3, 0, 20), switch(0.999_990, 20, HOG)];
    assert_eq!(waited(&lines, 0), Ok(None));
    lines.push(switch(5.1, HOG, 20));
    assert_eq!(waited(&lines, 0), Ok(None));
    lines.extend([switch(3.0, HOG, 21), switch(3.000_2, 21, 20), switch(3.1, 20, HOG), switch(4.0, HOG, 20)]);
    assert_eq!(waited(&lines, 0), Ok(Some(Nanos::from_micros(2_000_210))));
    assert_eq!(waited(&lines, 2), Err("the trace has lost 2 events".to_string()));
    let unseen = "the trace never shows that the hog preempts victim 20";
    assert_eq!(waited(&lines[3..], 0), Err(unseen.to_string()));
    assert_eq!(waited(&[], 0), Err(unseen.to_string()));
}
