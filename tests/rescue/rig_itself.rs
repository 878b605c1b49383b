//! The rig makes tasks starve and ends by itself: all other live tests rely on that.

use rig::{Event, Rig, hogged_cpu, keep_away_from_the_hog, live};
use stalld::sys::{clock, sched};
use stalld::task::{Nanos, Policy, Tid};
use std::fs;
use std::path::Path;
use std::thread;

/// Returns the CPU time of a thread so far, in ns.
fn computed(rig: &Rig, tid: Tid) -> u64 {
    let path = format!("/proc/{}/task/{tid}/schedstat", rig.pid());
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    text.split(' ').next().unwrap().parse().unwrap()
}

/// Asserts that a victim gets no CPU time for 300 ms while the hog runs.
fn assert_starves(rig: &Rig, hog: &Event, victim: &Event) {
    let before = computed(rig, victim.tid());
    let start = clock::monotonic();
    clock::sleep_until(start + Nanos::from_millis(300));
    let after = computed(rig, victim.tid());
    assert!(clock::monotonic() < hog.moment("until"), "this test was held up for longer than the hog lives");
    assert_eq!(before, after, "{} ran", victim.line);
}

/// Asserts that a victim did not run until the hog had ended, and that it ran afterwards.
fn assert_ran_after(hog: &Event, end: &Event) {
    assert!(end.number("progress") > end.number("before"), "{}", end.line);
    assert!(end.moment("first_ran_after") >= hog.moment("until"), "{}", end.line);
}

#[test]
#[ignore = "starves tasks, as root"]
fn a_victim_that_ran_before_the_hog_starves_until_the_hog_ends() {
    let _live = live();
    keep_away_from_the_hog();
    let mut rig = Rig::start(&["--for", "3", "--after", "1000"]);
    let ready = rig.event("ready");
    let (hog, victim) = (rig.event("hog"), rig.event("victim"));
    assert!(victim.number("progress") > 0);
    // The victim ran for a second before the hog came, and its wait begins at the end of that
    // second.
    assert!(victim.moment("since") < hog.moment("at"));
    assert!(victim.moment("since") >= ready.at + Nanos::from_millis(500), "{ready:?} {victim:?}");

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
#[ignore = "starves tasks, as root"]
fn victims_woken_behind_the_hog_starve_from_then_on() {
    let _live = live();
    keep_away_from_the_hog();
    let mut rig = Rig::start(&["--for", "2", "--woken", "--scene", "names", "--victim", "rr:7:v*3"]);
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
#[ignore = "starves tasks, as root"]
fn a_victim_in_waitpid_starves_too() {
    let _live = live();
    keep_away_from_the_hog();
    let mut rig = Rig::start(&["--for", "2", "--victim", "waitpid"]);
    let (hog, victim) = (rig.event("hog"), rig.event("victim"));
    assert!(victim.number("progress") > 0);
    assert_starves(&rig, &hog, &victim);
    assert_ran_after(&hog, &rig.event("end victim"));
    assert_eq!(rig.finish().0, Some(0));
}

#[test]
#[ignore = "starves tasks, as root"]
fn only_its_quota_keeps_a_throttled_victim_off_the_cpu() {
    let _live = live();
    let mut rig = Rig::start(&["--for", "0.5", "--after", "2000", "--victim", "throttled"]);
    let victim = rig.first_of(&["victim", "skipped"]);
    assert!(!victim.line.starts_with("skipped"), "the rig has no cgroup with a quota: {}", victim.line);
    // It was alone on its CPU for 2 s. Its quota allows 1 ms in each, and the kernel enforces that
    // at the next tick.
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

/// Takes the CPU from a hog of priority 50, for 100 ms at a time: two, three and two times in one
/// second each.
fn take_from_hog() {
    let taken = thread::spawn(|| {
        sched::set_affinity(Tid(0), &[hogged_cpu()].into_iter().collect())?;
        sched::set_fifo(Tid(0), 60)?;
        let start = clock::monotonic();
        for moment in [200, 400, 2200, 2400, 2600, 4200, 4400].map(Nanos::from_millis) {
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
#[ignore = "starves tasks, as root"]
fn the_hog_reports_its_loss_in_its_worst_second() {
    let _live = live();
    let mut rig = Rig::start(&["--for", "8", "--alone"]);
    rig.event("hog");
    take_from_hog();
    let end = rig.event("end hog");
    let (gap, lost) = (end.moment("longest_gap_ns"), end.moment("most_lost_in_a_second_ns"));
    assert!(gap >= Nanos::from_millis(95) && lost > gap, "{}", end.line);
    // The first second has 200 ms of loss, the worst one 300 ms, and the whole time 700 ms.
    assert!((Nanos::from_millis(285)..Nanos::from_millis(650)).contains(&lost), "{}", end.line);
    let (code, printed) = rig.finish();
    assert_eq!(code, Some(0));
    assert!(!printed.contains("victim"), "{printed}");
}

#[test]
fn options_that_would_stop_the_machine_or_starve_no_task_are_refused() {
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
        let (code, printed) = Rig::start(args).finish();
        assert_eq!(code, Some(2), "{args:?}: {printed}");
        // A machine with one CPU is a reason to refuse everything.
        assert!(printed.contains(reason) || printed.contains("only one CPU"), "{args:?}: {printed}");
    }
}

#[test]
fn a_victim_that_outranks_the_hog_is_refused() {
    let (code, printed) = Rig::start(&["--hog", "10", "--victim", "spin:10"]).finish();
    assert_eq!(code, Some(2), "{printed}");
    assert!(printed.contains("would not starve") || printed.contains("only one CPU"), "{printed}");
}

#[test]
fn every_option_is_in_the_help() {
    let (code, printed) = Rig::start(&["--help"]).finish();
    assert_eq!(code, Some(0));
    let options = ["--cpu", "--for", "--hog", "--hog-name", "--after", "--woken", "--alone"];
    for word in options.into_iter().chain(["--victim", "--scene", "throttled"]) {
        assert!(printed.contains(word), "{word}");
    }
}
