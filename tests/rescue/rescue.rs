//! Starving tasks run again during their boosts and get their own scheduling back.

#![cfg(feature = "bpf")]

use rig::boosts::{OWN, await_own_policy, boosted_victim, policy, start};
use rig::process;
use rig::{Event, Record, Rig, hogged_cpu, live, shorter_of_two};
use stalld::sys::sched;
use stalld::task::{Nanos, Policy};
use std::iter;

/// Asserts that a victim ran although the hog still held its CPU.
fn assert_ran_beside(hog: &Event, end: &Event) {
    assert!(end.moment("first_ran_after") < hog.moment("until"), "{} {}", hog.line, end.line);
}

#[test]
#[ignore = "starves tasks, as root"]
fn a_starving_task_runs_again_and_gets_its_own_policy_back() {
    let _live = live();
    for method in ["deadline", "auto"] {
        let mut stalld = start(&["-t", "1", "-d", "1", "--boost", method]);
        let mut rig = Rig::start(&["--for", "6"]);
        let (hog, victim) = (rig.event("hog"), rig.event("victim"));
        let boosted = stalld.event_of("boosted", victim.tid());
        assert_eq!(boosted.number("cpu"), hogged_cpu().0.into());
        let policies =
            if method == "auto" { &["SCHED_DEADLINE", "SCHED_FIFO"][..] } else { &["SCHED_DEADLINE"] };
        assert!(policies.contains(&boosted.text("policy")), "{boosted:?}");
        let restored = stalld.event_of("restored", victim.tid());
        assert_eq!((restored.text("policy"), restored.number("rt_priority")), ("SCHED_FIFO", 1));
        assert_eq!(restored.text("comm"), "victim");
        assert!(restored.at < hog.moment("until"), "the boost outlasted the hog");
        await_own_policy(victim.tid());
        let end = rig.event("end victim");
        assert_ran_beside(&hog, &end);
        assert!(end.number("progress") > victim.number("progress") + 10, "{end:?}");
        assert_eq!(rig.finish().0, Some(0));
        assert_eq!(stalld.terminate().0, Some(0));
    }
}

#[test]
#[ignore = "starves tasks, as root"]
fn sixteen_victims_of_one_hog_all_run_before_it_ends() {
    let _live = live();
    let stalld = start(&["-t", "1"]);
    let mut rig = Rig::start(&["--for", "6", "--scene", "sixteen"]);
    let hog = rig.event("hog");
    assert!(rig.event("end hog").number("loops") > 0);
    for end in rig.events("end victim", 16) {
        assert_ran_beside(&hog, &end);
    }
    assert_eq!(rig.finish().0, Some(0));
    assert_eq!(stalld.terminate().0, Some(0));
}

#[test]
#[ignore = "starves tasks, as root"]
fn a_clean_end_in_the_middle_of_a_boost_restores_first() {
    let _live = live();
    for mode in ["-O", "-A", "-M"] {
        for backend in ["task_iter", "queue_track", "sched_debug"] {
            let mut stalld = start(&[mode, "-b", backend, "-t", "500ms", "-g", "500ms"]);
            let (_rig, victim) = boosted_victim(&mut stalld, &["--for", "30"]);
            assert_eq!(stalld.terminate().0, Some(0), "{mode} {backend}");
            assert_eq!(policy(victim.tid()), Some(OWN), "{mode} {backend}");
        }
    }
}

#[test]
#[ignore = "starves tasks, as root"]
fn a_real_time_victim_runs_while_the_kernel_serves_fair_tasks() {
    let _live = live();
    // From 6.12 on the DL server gives fair tasks the last 50 ms of each second, in which no other
    // task runs. The hog ends before the second of these intervals. The budget exceeds what a tick
    // at its start uses up.
    let _stalld = start(&["-t", "985ms", "-r", "500us"]);
    for _ in 0..4 {
        let mut rig = Rig::start(&["--for", "1.9", "--victim", "spin", "--victim", "fair*2"]);
        let (hog, end) = (rig.event("hog"), rig.event("end victim"));
        assert_ran_beside(&hog, &end);
    }
}

#[test]
#[ignore = "starves tasks, as root"]
fn forced_to_fifo_it_boosts_in_pulses() {
    let _live = live();
    let mut stalld = start(&["-F", "-t", "1", "-d", "1"]);
    let mut rig = Rig::start(&["--for", "6"]);
    let (hog, victim) = (rig.event("hog"), rig.event("victim"));
    let boosted = stalld.event_of("boosted", victim.tid());
    assert_eq!((boosted.number("cpu"), boosted.text("policy")), (hogged_cpu().0.into(), "SCHED_FIFO"));
    assert_ran_beside(&hog, &rig.event("end victim"));
    assert_eq!(rig.finish().0, Some(0));
    assert_eq!(stalld.terminate().0, Some(0));
}

#[test]
#[ignore = "starves tasks, as root"]
fn the_task_makes_progress_in_each_pulse() {
    let _live = live();
    // Without progress in a pulse, the longest gap spans two intervals of at least 500 ms each.
    let most = Nanos::from_millis(250);
    let excess = shorter_of_two(most, excess_of_the_longest_gap);
    assert!(excess <= most, "the longest gap is {} ms longer than an interval", excess.as_millis());
}

/// Returns by how much the longest time without progress exceeds the longest interval between two
/// pulses.
fn excess_of_the_longest_gap() -> Nanos {
    // These options give one pulse for each time that the victim starves.
    let stalld = start(&["-F", "-t", "500ms", "-d", "200ms", "-p", "200ms"]);
    let mut rig = Rig::start(&["--for", "6"]);
    let (hog, victim) = (rig.event("hog"), rig.event("victim"));
    let gap = rig.event("end victim").moment("longest_gap_ns");
    let (code, log) = stalld.terminate();
    assert_eq!(code, Some(0));
    let pulses = log.iter().filter(|record| record.is_of("boosted", victim.tid()));
    let pulses = pulses.map(|record| record.time("monotonic_ns"));
    let moments = iter::once(victim.moment("since")).chain(pulses).chain([hog.moment("until")]);
    let moments: Vec<Nanos> = moments.collect();
    assert!(moments.len() >= 5, "too few pulses: {log:?}");
    gap - moments.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap()
}

#[test]
#[ignore = "starves tasks, as root"]
fn pulses_end_when_the_task_dies() {
    let _live = live();
    let mut stalld = start(&["-F", "-r", "1ms", "-p", "200ms", "-t", "100ms", "-d", "30s"]);
    // The second hog outranks the first one.
    let mut doomed = Rig::start(&["--for", "20", "--hog", "2", "--victim", "spin:1:doomed"]);
    let victim = doomed.event("victim").tid();
    let _rig = Rig::start(&["--for", "20"]);
    for _ in 0..2 {
        let boosted = stalld.event_of("boosted", victim);
        assert_eq!((boosted.number("cpu"), boosted.text("policy")), (hogged_cpu().0.into(), "SCHED_FIFO"));
    }
    process::signal(doomed.pid(), "KILL");
    stalld.event_of("ended", victim);
    let (code, log) = stalld.terminate();
    assert_eq!(code, Some(0));
    let last =
        log.iter().rev().find(|record| record.is_of("boosted", victim) || record.is_of("ended", victim));
    assert!(last.is_some_and(|record| record.is("ended")), "it was boosted after its end: {log:?}");
    assert_eq!(log.count("refused") + log.count("restore_failed"), 0, "{log:?}");
}

#[test]
#[ignore = "starves tasks, as root"]
fn a_victim_on_the_cpu_of_stalld_does_not_shut_stalld_out() {
    let _live = live();
    let cpu = hogged_cpu().to_string();
    let mut stalld = start(&["-F", "-a", &cpu, "-r", "1ms", "-p", "200ms", "-t", "1", "-d", "1"]);
    let mut rig = Rig::start(&["--for", "30", "--hog", "5"]);
    let victim = rig.event("victim").tid();
    for _ in 0..3 {
        let boosted = stalld.event_of("boosted", victim);
        assert_eq!((boosted.number("cpu"), boosted.text("policy")), (hogged_cpu().0.into(), "SCHED_FIFO"));
        stalld.scan();
    }
    let (code, log) = stalld.terminate();
    assert_eq!(code, Some(0));
    assert_eq!(policy(victim), Some(OWN));
    // Without a CPU, stalld would leave the end of each pulse to the guardian, whose lines are
    // plain text.
    let stuck = log.of(Record::PLAIN).filter(|record| record.message().contains("stuck")).count();
    assert!(stuck * 2 <= log.count("boosted"), "{log:?}");
}

#[test]
#[ignore = "starves tasks, as root"]
fn a_task_that_gets_another_policy_during_its_boost_keeps_it() {
    let _live = live();
    let mut stalld = start(&["-t", "1"]);
    let (_rig, victim) = boosted_victim(&mut stalld, &["--for", "20"]);
    sched::set_scheduler(victim.tid(), Policy::RR, 7, false).unwrap();
    assert_eq!(stalld.event_of("left_alone", victim.tid()).text("policy"), "SCHED_RR");
    // The victim goes on starving and may be in its next boost, whose end restores the new policy.
    assert_eq!(stalld.terminate().0, Some(0));
    assert_eq!(policy(victim.tid()), Some((Policy::RR, 7)));
}

#[test]
#[ignore = "starves tasks, as root"]
fn an_ignored_task_does_not_keep_others_from_being_boosted() {
    let _live = live();
    let mut stalld = start(&["-t", "1", "-i", "^first$"]);
    let mut rig = Rig::start(&["--for", "6", "--victim", "spin:1:first", "--victim", "spin:1:second"]);
    let (hog, first, second) = (rig.event("hog"), rig.event("victim"), rig.event("victim"));
    let boosted = stalld.event_of("boosted", second.tid());
    assert_eq!(boosted.text("comm"), "second");
    assert!(boosted.at < hog.moment("until"), "the hog had ended before the boost");
    assert_eq!(policy(first.tid()), Some(OWN));
    assert!(!stalld.terminate().1.has("boosted", first.tid()));
}
