//! The kernel's throttling of real-time tasks: off while stalld boosts, and restored afterwards.

#![cfg(feature = "bpf")]

use crate::{assert_words, refusal};
use rig::boosts::start;
use rig::daemon::Daemon;
use rig::process::eventually;
use rig::scratch::Scratch;
use rig::throttling::{limit, set_limit};
use rig::{Rig, Stalld, hogged_cpu, live};
use stalld::sys::sched;
use stalld::task::{Nanos, Tid};
use std::process::Command;

/// The limit before stalld starts. No kernel has it by default, so only a restore explains it. A
/// kernel with RT_GROUP_SCHED refuses a limit below 950000, because its first group has that much.
const BEFORE: &str = "960000";

/// The limit that another process sets while stalld runs.
const AFTER: &str = "970000";

fn await_limit(wanted: &str) {
    eventually("the limit is restored", || (limit() == wanted).then_some(()));
}

#[test]
#[ignore = "needs root"]
fn throttling_is_off_while_stalld_runs_and_restored_after_any_end() {
    let _live = live();
    for signal in ["TERM", "KILL"] {
        set_limit(BEFORE);
        let stalld = start(&["-t", "1"]);
        assert_eq!(limit(), "-1");
        stalld.signal(signal);
        await_limit(BEFORE);
    }
}

#[test]
#[ignore = "needs root"]
fn throttling_can_be_changed_right_after_a_reservation_has_ended() {
    let _live = live();
    for _ in 0..20 {
        let mut sleeper = Command::new("sleep").arg("60").spawn().unwrap();
        let (runtime, period) = (Nanos::from_millis(200), Nanos::from_secs(2));
        sched::set_deadline(Tid(sleeper.id() as i32), runtime, period, sched::RESET_ON_FORK).unwrap();
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
        // Linux 6.18 miscounts at the first change, and refuses the second one.
        for to in [BEFORE, "-1"] {
            set_limit(to);
            assert_eq!(limit(), to);
        }
    }
}

#[test]
#[ignore = "needs root"]
fn a_daemon_keeps_throttling_off_after_the_process_that_started_it_ends() {
    let _live = live();
    let scratch = Scratch::new("settings-daemon");
    set_limit("950000");
    for signal in ["TERM", "KILL"] {
        // The process that was started has ended when this returns.
        let daemon = Daemon::start(&scratch.join("pid"), &["-t", "60"]);
        assert_eq!(limit(), "-1");
        daemon.end(signal);
        await_limit("950000");
    }
}

#[test]
#[ignore = "needs root"]
fn a_service_and_a_watching_stalld_do_not_change_throttling() {
    let _live = live();
    set_limit(BEFORE);
    let line = refusal(Stalld::start(&["-f", "-S"]));
    assert_words(&line, &["RT throttling is on", "throttlectl off"]);
    let stalld = Stalld::watch(&[]);
    assert_eq!(limit(), BEFORE);
    assert_eq!(stalld.terminate().0, Some(0));
    assert_eq!(limit(), BEFORE);
}

#[test]
#[ignore = "starves tasks, as root"]
fn throttling_that_another_process_turns_on_is_reported_and_left_on() {
    let _live = live();
    for (before, mode) in [(BEFORE, "-O"), ("-1", "-S")] {
        set_limit(before);
        let mut stalld = start(&[mode, "-t", "1", "-g", "1"]);
        set_limit(AFTER);
        // The kernel refuses SCHED_DEADLINE for a pinned task, so stalld boosts with SCHED_FIFO.
        let mut rig = Rig::start(&["--for", "8"]);
        let victim = rig.event("victim").tid();
        let refused = stalld.event_of("refused", victim);
        assert_eq!((refused.text("policy"), refused.number("errno")), ("SCHED_DEADLINE", libc::EPERM as u64));
        let boosted = stalld.event_of("boosted", victim);
        assert_eq!((boosted.text("comm"), boosted.text("policy")), ("victim", "SCHED_FIFO"));
        assert_eq!(boosted.number("cpu"), hogged_cpu().0.into());
        let notice = stalld.message("RT throttling on");
        assert_words(notice.message(), &[AFTER, "SCHED_DEADLINE"]);
        let (code, log) = stalld.terminate();
        assert_eq!(code, Some(0));
        assert_eq!(log.count_text("RT throttling on"), 1, "{log:?}");
        assert!(!log.mentions("restored to "), "{log:?}");
        assert_eq!(limit(), AFTER);
    }
}
