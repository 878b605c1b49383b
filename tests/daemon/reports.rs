//! The reports about starving tasks.

#![cfg(feature = "bpf")]

use crate::{assert_words, refusal};
use rig::scratch::Scratch;
use rig::{Event, Log, Rig, Stalld, hogged_cpu, live};
use stalld::observe::Kind;
use stalld::observe::sched_debug::Sources;
use stalld::task::Nanos;
use std::fs;
use std::path::Path;

/// A rig whose hog lives for this many seconds.
pub struct TwoVictims {
    pub rig: Rig,
    pub hog: Event,
    /// This victim has waited for longer.
    pub first: Event,
    pub second: Event,
}

impl TwoVictims {
    pub fn start(seconds: &str) -> TwoVictims {
        let victims = ["--victim", "spin:1:first", "--victim", "spin:1:second"];
        let mut rig = Rig::start(&[&["--for", seconds], &victims[..]].concat());
        let hog = rig.event("hog");
        let (first, second) = (rig.event("victim"), rig.event("victim"));
        TwoVictims { rig, hog, first, second }
    }
}

/// Enough for reports after 1 s, 2 s and 3 s.
pub const SEVERAL_REPORTS: &str = "4.5";

/// Ends a stalld that only watches, and returns its log. There is no boost and no error in it.
fn terminate(stalld: Stalld) -> Log {
    let (code, log) = stalld.terminate();
    assert_eq!(code, Some(0));
    for record in log.iter() {
        assert!(["warning", "info", "debug"].contains(&record.level()), "{record:?}");
        assert!(!record.is("boosted"), "{record:?}");
    }
    log
}

/// Returns the wait in each report about a victim.
fn waits(log: &Log, victim: &Event) -> Vec<Nanos> {
    let reports = log.of("starved").filter(|record| record.tid("tid") == Some(victim.tid()));
    reports.map(|record| record.time("waited_ns")).collect()
}

#[test]
#[ignore = "starves tasks, as root"]
fn each_backend_reports_the_longest_starving_task_again_and_again() {
    let _live = live();
    let watchers = Kind::ALL.map(|kind| Stalld::watch(&["-t", "1", "-g", "1", "-b", kind.name()]));
    let TwoVictims { rig, hog, first, .. } = TwoVictims::start(SEVERAL_REPORTS);
    assert_eq!(rig.finish().0, Some(0));
    for (kind, stalld) in Kind::ALL.iter().zip(watchers) {
        let log = terminate(stalld);
        let name = kind.name();
        let waits = waits(&log, &first);
        assert!(waits.len() >= 2 && waits[0] >= Nanos::from_secs(1), "{name}: {waits:?}");
        assert!(waits.is_sorted() && waits[waits.len() - 1] >= Nanos::from_secs(2), "{name}: {waits:?}");
        // A scan between two that report the first victim may report the second.
        let starved = log.of("starved").next().unwrap();
        assert_eq!(starved.tid("tid"), Some(first.tid()), "{name}");
        assert_eq!((starved.text("comm"), starved.number("cpu")), ("first", hogged_cpu().0.into()));
        assert_eq!(starved.number("rt_priority"), 1, "{name}");
        assert!(starved.at < hog.moment("until"), "{name}: the first report came only after the hog's end");

        let held: Vec<_> = log.of("held").collect();
        assert!(held.len() >= 2, "{name}: {log:?}");
        for held in held {
            assert_eq!((held.tid("hog_tid"), held.text("hog_comm")), (Some(hog.tid()), "hog"), "{name}");
            assert_eq!((held.number("cpu"), held.number("hog_rt_priority")), (hogged_cpu().0.into(), 50));
            assert!(held.time("held_ns") <= held.at - hog.moment("at"), "{name}: {held:?}");
        }
    }
}

#[test]
#[ignore = "starves tasks, as root"]
fn an_ignored_task_is_reported_once_as_ignored_and_hides_no_other() {
    let _live = live();
    let by_thread = Stalld::watch(&["-t", "1", "-g", "1", "-i", "^fir"]);
    let by_process = Stalld::watch(&["-t", "1", "-g", "1", "-I", "^starve$"]);
    let TwoVictims { rig, first, second, .. } = TwoVictims::start(SEVERAL_REPORTS);
    assert_eq!(rig.finish().0, Some(0));
    let ignored = |log: &Log, victim: &Event| -> Vec<String> {
        let reports = log.of("ignored").filter(|record| record.tid("tid") == Some(victim.tid()));
        reports.map(|record| record.text("process").to_string()).collect()
    };

    let log = terminate(by_thread);
    assert_eq!(ignored(&log, &first), [""], "{log:?}");
    assert_eq!(waits(&log, &first), []);
    assert_eq!(ignored(&log, &second), [""; 0], "{log:?}");
    let waits_of_second = waits(&log, &second);
    assert!(waits_of_second.len() >= 2 && waits_of_second.is_sorted(), "{waits_of_second:?}");
    assert!(waits_of_second[0] >= Nanos::from_secs(1), "{waits_of_second:?}");

    let log = terminate(by_process);
    for victim in [first, second] {
        assert_eq!(ignored(&log, &victim), ["starve"], "{log:?}");
        assert_eq!(waits(&log, &victim), []);
    }
}

#[test]
#[ignore = "needs root"]
fn the_first_scan_does_not_wait_for_the_granularity() {
    let _live = live();
    for kind in Kind::ALL {
        // The wait for the first scan times out before the second scan is due.
        let args = ["-f", "-l", "-v", "-t", "600", "-g", "600", "-b", kind.name()];
        let mut stalld = Stalld::start(&args);
        stalld.scan();
        terminate(stalld);
    }
}

#[test]
#[ignore = "starves tasks, as root"]
fn stalld_starts_and_reports_while_a_hog_is_running() {
    let _live = live();
    let TwoVictims { rig: _rig, hog, first, .. } = TwoVictims::start("12");
    for kind in Kind::ALL {
        let mut stalld = Stalld::watch(&["-t", "200ms", "-b", kind.name()]);
        let starved = stalld.event_of("starved", first.tid());
        assert_eq!(starved.number("cpu"), hogged_cpu().0.into());
        assert!(starved.at < hog.moment("until"), "{} reported it only after the hog's end", kind.name());
        assert_eq!(stalld.terminate().0, Some(0));
    }
}

/// Starts stalld with this file mounted over the scheduler's. Returns the path of the latter too.
fn start_with_file(text: &Path, args: &[&str]) -> (String, Stalld) {
    let sources = Sources::find(Path::new("/"))
        .unwrap_or_else(|e| panic!("this kernel has no file for sched_debug: {e}; run one with SCHED_DEBUG"));
    let place = sources.text.display().to_string();
    let script = format!("mount --bind {} {place} && exec \"$@\"", text.display());
    let starter = ["unshare", "-m", "sh", "-c", &script, "sh"];
    let stalld = Stalld::start_by(&starter, &[&["-f", "-l", "-b", "sched_debug"], args].concat());
    (place, stalld)
}

#[test]
#[ignore = "needs root"]
fn a_garbled_scheduler_file_is_an_error_at_the_start() {
    let _live = live();
    let scratch = Scratch::new("reports-garbled");
    let text = scratch.join("text");
    fs::write(&text, "cpu#0\n\x1b[2J\nrunnable tasks:\n").unwrap();
    let (place, stalld) = start_with_file(&text, &[]);
    let line = refusal(stalld);
    assert!(line.starts_with("sched_debug: "), "{line}");
    assert_words(&line, &["make sense", &place, "use -b task_iter"]);
}

#[test]
#[ignore = "needs root"]
fn scans_that_fail_are_reported_once_and_so_is_their_end() {
    let _live = live();
    let scratch = Scratch::new("reports-failed");
    let text = scratch.join("text");
    let good = Sources::find(Path::new("/")).map(|sources| fs::read(sources.text).unwrap());
    let good = good.unwrap_or_default();
    fs::write(&text, &good).unwrap();
    let (place, mut stalld) = start_with_file(&text, &["-v", "-N", "-g", "1"]);
    stalld.scan();
    // The file is overwritten in place because stalld keeps it open.
    fs::write(&text, "no such thing\n").unwrap();
    let reason = format!("make sense of {place}");
    stalld.message(&reason);
    // The scan on request fails too.
    stalld.signal("USR1");
    stalld.message(" of them failed");
    fs::write(&text, &good).unwrap();
    let again = stalld.message("again");
    assert_words(again.message(), &["failed"]);
    stalld.scan();
    let (code, log) = stalld.terminate();
    assert_eq!(code, Some(0));
    assert_eq!(log.count_text(&reason), 1, "{log:?}");
}
