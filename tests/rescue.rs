//! Boosts, for real: who starves runs again, and everything is put back, whatever happens to stalld.

// stalld as it is meant to be: with its BPF backends.
#![cfg(feature = "bpf")]
#![allow(clippy::unwrap_used, clippy::panic)]

mod rig;

use rig::process::{self, eventually};
use rig::{Event, Rig, Stalld, hogged_cpu, live};
use stalld::sys::{clock, sched};
use stalld::task::{Nanos, Policy, Tid};
use std::fs;
use std::process::Command;

const LIMIT: &str = "/proc/sys/kernel/sched_rt_runtime_us";

fn policy(tid: Tid) -> Option<(Policy, u32)> {
    sched::get_attr(tid).ok().map(|attr| (attr.policy, attr.priority))
}

const OWN: (Policy, u32) = (Policy::FIFO, 1);

fn is_boosted(tid: Tid) -> bool {
    policy(tid).is_some_and(|(policy, _)| policy == Policy::DEADLINE)
}

/// A stalld that boosts, after its first look.
fn start(args: &[&str]) -> Stalld {
    let mut stalld = Stalld::start(&[&["-f", "-v"], &Stalld::RIG_ONLY[..], args].concat());
    stalld.look();
    stalld
}

fn guardian(stalld: &Stalld) -> Tid {
    let is_it = |&pid: &Tid| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm == "stall-guard\n")
    };
    eventually("there is a guardian", || process::children(stalld.pid()).into_iter().find(is_it))
}

/// A rig with one victim that is in the middle of its boost.
fn boosted_victim(stalld: &mut Stalld, seconds: &str) -> (Rig, Event) {
    let mut rig = Rig::start(&["--for", seconds]);
    let victim = rig.event("victim");
    stalld.line_with(&format!(
        "boosted pid {} (victim) (cpu {}) using SCHED_DEADLINE",
        victim.tid(),
        hogged_cpu()
    ));
    assert!(is_boosted(victim.tid()));
    (rig, victim)
}

#[test]
fn who_starves_runs_again_and_has_its_own_policy_back() {
    let Some(_live) = live() else { return };
    let mut stalld = start(&["-t", "1", "-d", "1"]);
    let (rig, victim) = boosted_victim(&mut stalld, "3.5");
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
    for backend in ["task_iter", "queue_track", "sched_debug"] {
        let mut stalld = start(&["-t", "1", "-g", "1", "-b", backend]);
        let (_rig, victim) = boosted_victim(&mut stalld, "4");
        assert_eq!(stalld.terminate().0, Some(0), "{backend}");
        assert_eq!(policy(victim.tid()), Some(OWN), "{backend}");
    }
}

#[test]
fn killed_at_any_moment_of_a_boost_it_leaves_nothing_behind() {
    let Some(_live) = live() else { return };
    for moment in 0..8 {
        let mut stalld = start(&["-t", "1"]);
        let guardian = guardian(&stalld);
        let (_rig, victim) = boosted_victim(&mut stalld, "4");
        clock::nap(Nanos::from_millis(moment * 37));
        stalld.signal("KILL");
        eventually("the victim is what it was", || (policy(victim.tid()) == Some(OWN)).then_some(()));
        process::await_end(guardian);
    }
}

#[test]
fn throttling_is_off_while_it_boosts_and_back_after_any_end() {
    let Some(_live) = live() else { return };
    let limit = || fs::read_to_string(LIMIT).unwrap().trim().to_string();
    let before = limit();
    for signal in ["TERM", "KILL"] {
        fs::write(LIMIT, "950000").unwrap();
        let stalld = start(&["-t", "1"]);
        assert_eq!(limit(), "-1");
        stalld.signal(signal);
        eventually("throttling is what it was", || (limit() == "950000").then_some(()));
    }
    let stalld = Stalld::start(&["-f", "-S"]);
    let (code, said) = stalld.finish();
    assert_eq!(code, Some(1));
    assert!(
        said.iter().any(|(_, line)| line.contains("RT throttling is on! stalld cannot run...")),
        "{said:?}"
    );
    let stalld = Stalld::watch(&[]);
    assert_eq!(limit(), "950000");
    drop(stalld);
    fs::write(LIMIT, before).unwrap();
}

#[test]
fn the_guardian_restores_what_a_stopped_stalld_can_not() {
    let Some(_live) = live() else { return };
    let mut stalld = start(&["-t", "1", "-d", "1"]);
    let (_rig, victim) = boosted_victim(&mut stalld, "6");
    stalld.signal("STOP");
    let stopped = clock::monotonic();
    eventually("the victim is what it was", || (policy(victim.tid()) == Some(OWN)).then_some(()));
    assert!(clock::monotonic() - stopped < Nanos::from_secs(4));
    stalld.signal("CONT");
    assert_eq!(stalld.terminate().0, Some(0));
    assert_eq!(policy(victim.tid()), Some(OWN));
}

#[test]
fn what_both_have_left_is_undone_on_request_and_by_the_next_start() {
    let Some(_live) = live() else { return };
    for by_start in [false, true] {
        let mut stalld = start(&["-t", "1"]);
        let (_rig, victim) = boosted_victim(&mut stalld, "5");
        let guardian = guardian(&stalld);
        // Stopped first, so that neither acts on the other's end.
        process::signal(guardian, "STOP");
        stalld.signal("KILL");
        process::signal(guardian, "KILL");
        process::await_end(guardian);
        assert!(is_boosted(victim.tid()));
        if by_start {
            let mut next = start(&["-t", "60"]);
            next.wait_for(|line| line.contains("left by a former stalld"), Nanos::ZERO);
            assert_eq!(policy(victim.tid()), Some(OWN));
            assert_eq!(next.terminate().0, Some(0));
        } else {
            let output = Command::new(Stalld::PATH).arg("--recover").output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(said.contains(&format!("task {}: restored to SCHED_FIFO 1", victim.tid())), "{said}");
            assert_eq!(output.status.code(), Some(0));
            assert_eq!(policy(victim.tid()), Some(OWN));
        }
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
fn a_task_whose_policy_somebody_sets_during_its_boost_is_left_as_it_is() {
    let Some(_live) = live() else { return };
    let mut stalld = start(&["-t", "1"]);
    let (_rig, victim) = boosted_victim(&mut stalld, "5");
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
    stalld.line_with(&format!("boosted pid {} (second)", second.tid()));
    assert_eq!(policy(first.tid()), Some(OWN));
    let (_, said) = stalld.terminate();
    assert!(!said.iter().any(|(_, line)| line.contains("boosted pid") && line.contains("(first)")));
}
