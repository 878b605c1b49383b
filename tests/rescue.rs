//! Boosts, for real: who starves runs again, and everything is put back, whatever happens to stalld.

// stalld as it is meant to be: with its BPF backends.
#![cfg(feature = "bpf")]
#![allow(clippy::unwrap_used, clippy::panic)]

mod rig;

use rig::boosts::{OWN, boosted_victim, policy, start};
use rig::process;
use rig::{Event, Rig, hogged_cpu, live};
use stalld::sys::sched;
use stalld::task::{Nanos, Policy};

#[test]
fn who_starves_runs_again_and_has_its_own_policy_back() {
    let Some(_live) = live() else { return };
    let mut stalld = start(&["-t", "1", "-d", "1"]);
    let (rig, victim) = boosted_victim(&mut stalld, &["--for", "3.5"]);
    stalld.line_with(&format!("restored pid {} (victim)", victim.tid()));
    assert_eq!(policy(victim.tid()), Some(OWN));
    let (code, said) = rig.finish();
    assert_eq!(code, Some(0));
    let end = said.lines().find(|line| line.starts_with("end victim")).unwrap();
    let end = Event { at: Nanos::ZERO, line: end.to_string() };
    assert!(end.number("progress") > victim.number("progress") + 10, "{end:?}");
    assert_eq!(stalld.terminate().0, Some(0));
}

#[test]
fn sixteen_on_one_cpu_all_run_and_the_hog_goes_on() {
    let Some(_live) = live() else { return };
    let stalld = start(&["-t", "1"]);
    let (code, said) = Rig::start(&["--for", "4", "--scene", "sixteen"]).finish();
    assert_eq!(code, Some(0));
    let ends: Vec<&str> = said.lines().filter(|line| line.starts_with("end victim")).collect();
    assert_eq!(ends.len(), 16, "{said}");
    assert!(ends.iter().all(|line| !line.contains("first_ran_after=never")), "{said}");
    assert_eq!(stalld.terminate().0, Some(0));
}

#[test]
fn a_clean_end_in_the_middle_of_a_boost_restores_first() {
    let Some(_live) = live() else { return };
    for mode in ["-O", "-A", "-M"] {
        for backend in ["task_iter", "queue_track", "sched_debug"] {
            let mut stalld = start(&[mode, "-b", backend, "-t", "500ms", "-g", "500ms"]);
            let (_rig, victim) = boosted_victim(&mut stalld, &["--for", "4"]);
            assert_eq!(stalld.terminate().0, Some(0), "{mode} {backend}");
            assert_eq!(policy(victim.tid()), Some(OWN), "{mode} {backend}");
        }
    }
}

#[test]
fn who_starves_while_the_kernel_serves_fair_tasks_runs_all_the_same() {
    let Some(_live) = live() else { return };
    // From 6.12 on fair tasks get the last 50 ms of each second, and nobody else then runs. The hog ends before
    // the next second does. The budget is more than a tick uses up that meets it as it begins.
    let _stalld = start(&["-t", "985ms", "-r", "500us"]);
    for _ in 0..4 {
        let mut rig = Rig::start(&["--for", "1.9", "--victim", "spin", "--victim", "fair*2"]);
        let (hog, end) = (rig.event("hog"), rig.event("end victim"));
        assert!(end.moment("first_ran_after") < hog.moment("until"), "{} {}", hog.line, end.line);
    }
}

#[test]
fn forced_to_fifo_it_boosts_in_pulses() {
    let Some(_live) = live() else { return };
    let mut stalld = start(&["-F", "-t", "1", "-d", "1"]);
    let mut rig = Rig::start(&["--for", "3.5"]);
    let victim = rig.event("victim");
    stalld.line_with(&format!(
        "boosted pid {} (victim) (cpu {}) using SCHED_FIFO",
        victim.tid(),
        hogged_cpu()
    ));
    let (code, said) = rig.finish();
    assert_eq!(code, Some(0));
    assert!(!said.contains("first_ran_after=never"), "{said}");
    assert_eq!(stalld.terminate().0, Some(0));
}

#[test]
fn in_each_pulse_the_task_gets_on() {
    let Some(_live) = live() else { return };
    // A single pulse for each time that it starves.
    let _stalld = start(&["-F", "-t", "500ms", "-d", "200ms", "-p", "200ms"]);
    let mut rig = Rig::start(&["--for", "6"]);
    let end = rig.event("end victim");
    assert!(end.moment("longest_gap_ns") < Nanos::from_millis(650), "{}", end.line);
}

#[test]
fn pulses_end_when_the_task_dies() {
    let Some(_live) = live() else { return };
    let mut stalld = start(&["-F", "-r", "1ms", "-p", "200ms", "-t", "100ms", "-d", "30s"]);
    // The first hog does not get in the way of the second.
    let mut doomed = Rig::start(&["--for", "20", "--hog", "2", "--victim", "spin:1:doomed"]);
    let victim = doomed.event("victim");
    let _rig = Rig::start(&["--for", "20"]);
    let boosted = format!("boosted pid {} (doomed) (cpu {}) using SCHED_FIFO", victim.tid(), hogged_cpu());
    stalld.line_with(&boosted);
    stalld.line_with(&boosted);
    process::signal(doomed.pid(), "KILL");
    stalld.line_with(&format!("pid {} (doomed) has ended during its boost", victim.tid()));
    let (code, said) = stalld.terminate();
    assert_eq!(code, Some(0));
    assert_eq!(said.last().unwrap().1, "stalld: stalld shutting down");
    assert!(!said.iter().any(|(_, line)| line.contains("failed")), "{said:?}");
}

#[test]
fn a_victim_on_its_own_cpu_does_not_shut_it_out() {
    let Some(_live) = live() else { return };
    let cpu = hogged_cpu().to_string();
    let mut stalld = start(&["-F", "-a", &cpu, "-r", "1ms", "-p", "200ms", "-t", "1", "-d", "1"]);
    let mut rig = Rig::start(&["--for", "6", "--hog", "5"]);
    let victim = rig.event("victim").tid();
    for _ in 0..3 {
        stalld.line_with(&format!("boosted pid {victim} (victim) (cpu {cpu}) using SCHED_FIFO"));
        stalld.look();
    }
    let (code, said) = stalld.terminate();
    assert_eq!(code, Some(0));
    assert_eq!(policy(victim), Some(OWN));
    // Shut out, it would leave the end of each pulse to the guardian.
    let count = |text: &str| said.iter().filter(|(_, line)| line.contains(text)).count();
    assert!(count("stalld is stuck: ") * 2 <= count("boosted pid"), "{said:?}");
}

#[test]
fn a_task_whose_policy_somebody_sets_during_its_boost_is_left_as_it_is() {
    let Some(_live) = live() else { return };
    let mut stalld = start(&["-t", "1"]);
    let (_rig, victim) = boosted_victim(&mut stalld, &["--for", "5"]);
    sched::set_scheduler(victim.tid(), Policy::RR, 7, false).unwrap();
    stalld.line_with(&format!("left pid {} (victim) as it is: somebody has made it SCHED_RR", victim.tid()));
    // It starves on, and may be in its next boost: what that puts back is what somebody has set.
    assert_eq!(stalld.terminate().0, Some(0));
    assert_eq!(policy(victim.tid()), Some((Policy::RR, 7)));
}

#[test]
fn an_ignored_task_keeps_nobody_from_being_boosted() {
    let Some(_live) = live() else { return };
    let mut stalld = start(&["-t", "1", "-i", "^first$"]);
    let mut rig = Rig::start(&["--for", "3", "--victim", "spin:1:first", "--victim", "spin:1:second"]);
    let (first, second) = (rig.event("victim"), rig.event("victim"));
    let (boosted, _) = stalld.line_with(&format!("boosted pid {} (second)", second.tid()));
    // The threshold and a second.
    assert!(boosted - second.moment("since") <= Nanos::from_secs(2));
    assert_eq!(policy(first.tid()), Some(OWN));
    let (_, said) = stalld.terminate();
    assert!(!said.iter().any(|(_, line)| line.contains("boosted pid") && line.contains("(first)")));
}
