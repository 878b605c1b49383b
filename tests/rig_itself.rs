//! The rig must do what all other live tests take for granted: make tasks starve, and end by itself.

#![allow(clippy::unwrap_used, clippy::panic)]

mod rig;

use rig::{Event, Rig, hogged_cpu, live};
use stalld::sys::{clock, sched};
use stalld::task::{Nanos, Policy, Tid};
use std::fs;
use std::path::Path;
use std::thread;

/// What the kernel says a thread has computed so far, in ns.
fn computed(rig: &Rig, tid: Tid) -> u64 {
    let path = format!("/proc/{}/task/{tid}/schedstat", rig.pid());
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    text.split(' ').next().unwrap().parse().unwrap()
}

/// Checks against the kernel's account that a victim does not run for 300 ms of the hog's time.
fn assert_starves(rig: &Rig, hog: &Event, victim: &Event) {
    let before = computed(rig, victim.tid());
    let start = clock::monotonic();
    clock::sleep_until(start + Nanos::from_millis(300));
    let after = computed(rig, victim.tid());
    assert!(clock::monotonic() < hog.moment("until"), "this test was held up for longer than the hog lives");
    assert_eq!(before, after, "{} ran", victim.line);
}

/// Checks the victim's own account: not while the hog had the CPU, but soon after it.
fn assert_ran_after(hog: &Event, end: &Event) {
    assert!(end.number("progress") > end.number("before"), "{}", end.line);
    assert!(end.moment("first_ran_after") >= hog.moment("until"), "{}", end.line);
}

#[test]
fn a_victim_that_ran_before_the_hog_starves_until_the_hog_ends() {
    let Some(_live) = live() else { return };
    let mut rig = Rig::start(&["--for", "2", "--after", "20"]);
    let (hog, victim) = (rig.event("hog"), rig.event("victim"));
    assert!(victim.number("progress") > 0);
    assert!(victim.moment("since") < hog.moment("at"));
    assert!(hog.moment("at") - victim.moment("since") < Nanos::from_millis(100), "{hog:?} {victim:?}");

    let attr = sched::get_attr(victim.tid()).unwrap();
    assert_eq!((attr.policy, attr.priority), (Policy::FIFO, 1));
    assert_eq!(sched::get_affinity(hog.tid()).unwrap(), [hogged_cpu()].into_iter().collect());
    assert_starves(&rig, &hog, &victim);

    assert!(rig.event("end hog").number("loops") > 0);
    let end = rig.event("end victim");
    assert_eq!(end.tid(), victim.tid());
    assert_ran_after(&hog, &end);
    assert_eq!(rig.finish().0, Some(0));
}

#[test]
fn victims_woken_behind_the_hog_starve_from_then_on() {
    let Some(_live) = live() else { return };
    let mut rig = Rig::start(&["--for", "1", "--woken", "--scene", "names", "--victim", "rr:7:v*3"]);
    let hog = rig.event("hog");
    let victims = rig.events("victim", 8);
    assert!(victims.iter().all(|victim| victim.moment("since") >= hog.moment("at")));
    assert!(victims.iter().all(|victim| victim.number("progress") == 0));
    assert_starves(&rig, &hog, &victims[7]);

    let names: Vec<&str> = victims.iter().map(|victim| victim.text("name")).collect();
    let hostile = ["a\\x0acpu#3,", "\\x1b[2J R 1 2", "", "fifteen-letters", "\\xff%s)"];
    assert_eq!(names, [&hostile[..], &["v"; 3]].concat());
    for end in rig.events("end victim", 8) {
        assert_ran_after(&hog, &end);
    }
    assert_eq!(rig.finish().0, Some(0));
}

#[test]
fn a_victim_in_waitpid_starves_too() {
    let Some(_live) = live() else { return };
    let mut rig = Rig::start(&["--for", "1.5", "--victim", "waitpid"]);
    let (hog, victim) = (rig.event("hog"), rig.event("victim"));
    assert!(victim.number("progress") > 0);
    assert_starves(&rig, &hog, &victim);
    assert_ran_after(&hog, &rig.event("end victim"));
    assert_eq!(rig.finish().0, Some(0));
}

#[test]
fn a_throttled_victim_is_held_back_by_its_quota_alone() {
    let Some(_live) = live() else { return };
    let mut rig = Rig::start(&["--for", "0.5", "--after", "2000", "--victim", "throttled"]);
    let victim = rig.first_of(&["victim", "skipped"]);
    if victim.line.starts_with("skipped") {
        eprintln!("{}", victim.line);
        assert_eq!(rig.finish().0, Some(0));
        return;
    }
    // Alone on its CPU for 2 s, with 1 ms allowed in each and a tick at most until the kernel notices.
    assert!(victim.number("progress") > 0);
    assert!(computed(&rig, victim.tid()) < 200_000_000, "{}", victim.line);
    assert_eq!(sched::get_attr(victim.tid()).unwrap().policy, Policy::OTHER);
    assert!(rig.event("end victim").number("progress") > 0);
    let group = format!("stalld-starve-{}", rig.pid());
    assert_eq!(rig.finish().0, Some(0));
    for root in ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup"] {
        assert!(!Path::new(root).join(&group).exists(), "{root}/{group} is left behind");
    }
}

/// Takes the hogged CPU from a hog of priority 50: for 100 ms at a time, two times in a second, and three times
/// in another.
fn take_from_hog() {
    let taken = thread::spawn(|| {
        sched::set_affinity(Tid(0), &[hogged_cpu()].into_iter().collect())?;
        sched::set_fifo(Tid(0), 60)?;
        let start = clock::monotonic();
        for moment in [200, 400, 2200, 2400, 2600].map(Nanos::from_millis) {
            clock::sleep_until(start + moment);
            while clock::monotonic() < start + moment + Nanos::from_millis(100) {
                std::hint::spin_loop();
            }
        }
        Ok::<(), std::io::Error>(())
    });
    taken.join().unwrap().unwrap();
}

#[test]
fn the_hog_tells_what_it_lost_of_its_worst_second() {
    let Some(_live) = live() else { return };
    let mut rig = Rig::start(&["--for", "5", "--alone"]);
    rig.event("hog");
    take_from_hog();
    let end = rig.event("end hog");
    let (gap, lost) = (end.moment("longest_gap_ns"), end.moment("most_lost_in_a_second_ns"));
    assert!(gap >= Nanos::from_millis(95) && lost > gap, "{}", end.line);
    // Neither that of all times, nor that of the first second.
    assert!((Nanos::from_millis(285)..Nanos::from_millis(480)).contains(&lost), "{}", end.line);
    let (code, said) = rig.finish();
    assert_eq!(code, Some(0));
    assert!(!said.contains("victim"), "{said}");
}

#[test]
fn what_would_stop_the_machine_or_starve_nobody_is_refused() {
    for (args, reason) in [
        (&["--cpu", "0"][..], "CPU 0"),
        (&["--for", "601"], "--for '601' is out of range"),
        (&["--for", "nan"], "--for 'nan' is out of range"),
        (&["--hog", "100"], "--hog '100' is out of range"),
        (&["--after", "60001"], "--after '60001' is out of range"),
        (&["--scene", "zero"], "--scene 'zero' is out of range"),
        (&["--victim", "sleep"], "there is no such kind"),
        (&["--victim", "spin:0"], "the priority is not one of 1 to 99"),
        (&["--victim", "fair:5"], "only SCHED_FIFO and SCHED_RR have a priority"),
        (&["--victim", "spin:1:a%0"], "the name has a % without two digits"),
        (&["--victim", "spin*0"], "the count is not one of 1 to 10000"),
        (&["--alone", "--victim", "spin"], "a hog with victims is not --alone"),
        (&["--frobnicate", "1"], "there is no --frobnicate"),
    ] {
        let (code, said) = Rig::start(args).finish();
        assert_eq!(code, Some(2), "{args:?}: {said}");
        // On a machine with one CPU that is the reason for everything.
        assert!(said.contains(reason) || said.contains("only one CPU"), "{args:?}: {said}");
    }
}

#[test]
fn a_victim_that_outranks_the_hog_is_refused() {
    let (code, said) = Rig::start(&["--hog", "10", "--victim", "spin:10"]).finish();
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("would not starve") || said.contains("only one CPU"), "{said}");
}

#[test]
fn every_option_is_in_the_help() {
    let (code, said) = Rig::start(&["--help"]).finish();
    assert_eq!(code, Some(0));
    let options = ["--cpu", "--for", "--hog", "--hog-name", "--after", "--woken", "--alone"];
    for word in options.into_iter().chain(["--victim", "--scene", "throttled"]) {
        assert!(said.contains(word), "{word}");
    }
}
