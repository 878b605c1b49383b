//! The lines on stderr that scripts and people search for: the C program's, letter for letter.

#![cfg(feature = "bpf")]

use crate::reports::{SEVERAL_REPORTS, TwoVictims};
use rig::throttling::set_limit;
use rig::{Event, Rig, Stalld, hogged_cpu, live};
use stalld::observe::Kind;

/// Starts a stalld that logs everything about the rig and boosts nothing, and waits for a scan.
fn watch(args: &[&str]) -> Stalld {
    let mut stalld =
        Stalld::start_with_text_log(&[&["-f", "-l", "-v"], &Stalld::RIG_ONLY[..], args].concat());
    stalld.scan();
    stalld
}

/// Ends stalld and returns its lines without the prefix.
fn terminate(stalld: Stalld) -> Vec<String> {
    stalld.signal("TERM");
    let (code, lines) = stalld.finish_with_text();
    assert_eq!(code, Some(0));
    let text = |line: &String| line.strip_prefix("stalld: ").unwrap_or_else(|| panic!("{line}")).to_string();
    lines.iter().map(text).collect()
}

/// Asserts that nothing in the lines of a stalld that only watches looks like trouble.
fn assert_healthy(lines: &[String]) {
    for line in lines {
        assert!(line.chars().all(|c| !c.is_control()), "{line:?}");
        for word in ["error", "segfault", "crash", "boosted", "panic"] {
            assert!(!line.to_lowercase().contains(word), "{line}");
        }
    }
}

fn starved(victim: &Event) -> String {
    format!("{}-{} starved on CPU {} for ", victim.text("name"), victim.tid(), hogged_cpu())
}

/// Returns the seconds in each line about a starving victim.
fn seconds(lines: &[String], victim: &Event) -> Vec<u64> {
    let rests = lines.iter().filter_map(|line| line.strip_prefix(&starved(victim)));
    rests.map(|rest| rest.strip_suffix(" seconds").unwrap().parse().unwrap()).collect()
}

#[track_caller]
fn assert_has(lines: &[String], line: &str) {
    assert_eq!(lines.iter().filter(|other| *other == line).count(), 1, "'{line}' in {lines:?}");
}

#[test]
#[ignore = "starves tasks, as root"]
fn each_backend_prints_scans_and_starving_tasks_like_the_c_program() {
    let _live = live();
    let watchers = Kind::ALL.map(|kind| watch(&["-t", "1", "-g", "1", "-b", kind.name()]));
    let TwoVictims { rig, hog, first, .. } = TwoVictims::start(SEVERAL_REPORTS);
    assert_eq!(rig.finish().0, Some(0));
    for (kind, stalld) in Kind::ALL.iter().zip(watchers) {
        let lines = terminate(stalld);
        let name = kind.name();
        assert_healthy(&lines);
        assert_has(&lines, "single threaded mode");
        assert_has(&lines, &format!("using {name} backend"));
        assert_eq!(lines.last().unwrap(), "stalld shutting down");

        let reported = seconds(&lines, &first);
        assert!(reported.len() >= 2 && reported[0] >= 1, "{name}: {reported:?}");
        assert!(reported.is_sorted() && reported[reported.len() - 1] >= 2, "{name}: {reported:?}");
        let held = format!("CPU {} is held by hog-{} (", hogged_cpu(), hog.tid());
        assert!(lines.iter().filter(|line| line.starts_with(&held)).count() >= 2, "{name}: {lines:?}");

        // Each scan names at most one task of a CPU.
        let here = format!(" starved on CPU {} for ", hogged_cpu());
        let checking = format!("checking cpu {} - rt: ", hogged_cpu());
        for scan in lines.split(|line| line.starts_with(&checking)) {
            assert!(scan.iter().filter(|line| line.contains(&here)).count() <= 1, "{name}: {scan:?}");
        }
        // The hog and the two victims, and tasks of the kernel.
        let counts =
            lines.iter().filter_map(|line| line.strip_prefix(&checking)?.split_once(" - starving: "));
        let mut counts = counts.map(|(rt, starving)| (rt.parse().unwrap(), starving.parse().unwrap()));
        assert!(counts.any(|(rt, starving): (u32, u32)| rt >= 3 && starving >= 2), "{name}: {lines:?}");
    }
}

#[test]
#[ignore = "starves tasks, as root"]
fn a_rescue_is_printed_like_the_c_program_prints_it() {
    let _live = live();
    set_limit("950000");
    let args =
        [&["-f", "-v", "--boost", "deadline", "-M", "-t", "1", "-d", "1"], &Stalld::RIG_ONLY[..]].concat();
    let mut stalld = Stalld::start_with_text_log(&args);
    stalld.scan();
    let mut rig = Rig::start(&["--for", "8"]);
    let victim = rig.event("victim");
    let (tid, cpu) = (victim.tid(), hogged_cpu());
    stalld.message(&format!("victim-{tid} might starve on CPU {cpu} (waiting for 0 seconds)"));
    stalld.message(&starved(&victim));
    let boosted = format!("boosted pid {tid} (victim) (cpu {cpu}) using SCHED_DEADLINE");
    stalld.message(&boosted);
    let lines = terminate(stalld);
    for line in [
        "RT Throttling disabled",
        "using SCHED_DEADLINE for boosting",
        &boosted,
        "RT Throttling runtime restored to 950000",
    ] {
        assert_has(&lines, line);
    }
}

#[test]
#[ignore = "starves tasks, as root"]
fn a_refused_boost_is_printed_like_the_c_program_prints_it() {
    let _live = live();
    let options = ["-f", "-v", "-S", "--boost", "deadline", "-t", "1", "-g", "1"];
    let mut stalld = Stalld::start_with_text_log(&[&options, &Stalld::RIG_ONLY[..]].concat());
    stalld.scan();
    // With throttling on, the kernel refuses SCHED_DEADLINE for a task that is pinned to one CPU.
    set_limit("970000");
    let mut rig = Rig::start(&["--for", "8"]);
    let tid = rig.event("victim").tid();
    stalld.message(&format!("boost_with_deadline failed to boost pid {tid}: "));
    stalld.message(&format!("boosted pid {tid} (victim) (cpu {}) using SCHED_FIFO", hogged_cpu()));
    stalld.message("(sched_rt_runtime_us is 970000)");
    terminate(stalld);
}

#[test]
#[ignore = "starves tasks, as root"]
fn a_reservation_is_printed_like_the_c_program_prints_it() {
    let _live = live();
    let mut stalld =
        Stalld::start_with_text_log(&["-f", "-v", "-l", "-t", "1", "-d", "1", "-g", "2", "-R", "10"]);
    stalld.message("successfully set 10% SCHED_DEADLINE reservation runtime/period = 200000000/2000000000");
    terminate(stalld);
}

#[test]
#[ignore = "starves tasks, as root"]
fn nothing_is_printed_about_a_cpu_that_is_not_monitored() {
    let _live = live();
    let watcher = watch(&["-t", "1", "-g", "1", "-c", "0", "-a", "0"]);
    let TwoVictims { rig, .. } = TwoVictims::start(SEVERAL_REPORTS);
    assert_eq!(rig.finish().0, Some(0));
    let lines = terminate(watcher);
    assert_healthy(&lines);
    assert_has(&lines, "cpulist: adding cpu 0");
    assert_has(&lines, "self-affinity: adding cpu 0");
    let cpu = hogged_cpu();
    for line in &lines {
        for name in [format!("cpu {cpu} "), format!("CPU {cpu} "), "first".into(), "second".into()] {
            assert!(!line.contains(&name), "{line}");
        }
    }
}

#[test]
#[ignore = "starves tasks, as root"]
fn an_ignored_task_is_printed_like_the_c_program_prints_it() {
    let _live = live();
    let by_thread = watch(&["-t", "1", "-g", "1", "-i", "^fir"]);
    let by_process = watch(&["-t", "1", "-g", "1", "-I", "^starve$"]);
    let TwoVictims { rig, .. } = TwoVictims::start("2");
    assert_eq!(rig.finish().0, Some(0));

    let lines = terminate(by_thread);
    assert_healthy(&lines);
    assert_has(&lines, "task ignore string ^fir");
    assert_has(&lines, "Ignoring the thread first from consideration for boosting");

    let lines = terminate(by_process);
    assert_healthy(&lines);
    for name in ["first", "second"] {
        let line = format!("Ignoring the thread {name} (spawned by starve) from consideration for boosting");
        assert_has(&lines, &line);
    }
}

#[test]
#[ignore = "starves tasks, as root"]
fn a_threshold_with_a_unit_adds_the_wait_in_milliseconds() {
    let _live = live();
    let mut stalld = watch(&["-t", "1500ms"]);
    let TwoVictims { rig: _rig, first, .. } = TwoVictims::start("8");
    let starved = starved(&first);
    let line = stalld.message(&starved).message().to_string();
    let (seconds, millis) = line.strip_prefix(&starved).unwrap().split_once(" seconds (").unwrap();
    let millis: u64 = millis.strip_suffix(" ms)").unwrap().parse().unwrap();
    assert!(millis >= 1500, "{line}");
    assert_eq!(seconds.parse(), Ok(millis / 1000), "{line}");
    terminate(stalld);
}

#[test]
#[ignore = "starves tasks, as root"]
fn a_hostile_task_name_is_printed_escaped_and_on_one_line() {
    let _live = live();
    // A CPU's report names one task, so each name has a rig of its own.
    for name in ["a%0Ab starved on", "%1B[2J%07", "%FF%C2%9B31m", "stalld: error"] {
        let watchers = Kind::ALL.map(|kind| watch(&["-t", "200ms", "-b", kind.name()]));
        let mut rig = Rig::start(&["--for", "0.8", "--victim", &format!("spin:1:{name}")]);
        let victim = rig.event("victim");
        assert_eq!(rig.finish().0, Some(0));
        for (kind, stalld) in Kind::ALL.iter().zip(watchers) {
            let lines = terminate(stalld);
            let reports: Vec<_> = lines.iter().filter(|line| line.contains(&starved(&victim))).collect();
            assert!(!reports.is_empty(), "{}: {lines:?}", kind.name());
            let expected = format!("{}0 seconds (", starved(&victim));
            assert!(reports.iter().all(|line| line.starts_with(&expected)), "{}: {reports:?}", kind.name());
            assert!(!lines.iter().any(|line| line.contains('\x1b')), "{}: {lines:?}", kind.name());
        }
    }
}
