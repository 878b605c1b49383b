//! What stalld changes of the machine, for as long as it boosts and no longer.

// stalld as it is meant to be: with its BPF backends.
#![cfg(feature = "bpf")]
#![allow(clippy::unwrap_used)]

mod rig;

use rig::boosts::start;
use rig::daemon::Daemon;
use rig::process::eventually;
use rig::scratch::Scratch;
use rig::throttling::{limit, set_limit};
use rig::{Rig, Stalld, hogged_cpu, live};
use stalld::sys::sched;
use stalld::task::{Nanos, Tid};
use std::process::Command;

/// Not what any kernel comes with, so that it can't be there by chance. A kernel with groups of real-time tasks
/// takes nothing below 950000, which the first of them has.
const BEFORE: &str = "960000";
const AFTER: &str = "970000";

fn await_limit(wanted: &str) {
    eventually("throttling is what it was", || (limit() == wanted).then_some(()));
}

#[test]
fn throttling_is_off_while_it_boosts_and_back_after_any_end() {
    let Some(_live) = live() else { return };
    for signal in ["TERM", "KILL"] {
        set_limit(BEFORE);
        let stalld = start(&["-t", "1"]);
        assert_eq!(limit(), "-1");
        stalld.signal(signal);
        await_limit(BEFORE);
    }
}

#[test]
fn a_reservation_that_has_just_ended_keeps_nobody_from_changing_throttling() {
    let Some(_live) = live() else { return };
    for _ in 0..20 {
        let mut sleeper = Command::new("sleep").arg("60").spawn().unwrap();
        let (runtime, period) = (Nanos::from_millis(200), Nanos::from_secs(2));
        sched::set_deadline(Tid(sleeper.id() as i32), runtime, period, sched::RESET_ON_FORK).unwrap();
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
        // The kernel miscounts at the first change, and refuses the second one.
        for to in [BEFORE, "-1"] {
            set_limit(to);
            assert_eq!(limit(), to);
        }
    }
}

#[test]
fn a_daemon_turns_throttling_off_for_its_own_life_and_not_for_that_of_its_starter() {
    let Some(_live) = live() else { return };
    let scratch = Scratch::new("settings-daemon");
    set_limit("950000");
    for signal in ["TERM", "KILL"] {
        // The process that was started has ended by then.
        let daemon = Daemon::start(&scratch.join("pid"), &["-t", "60"]);
        assert_eq!(limit(), "-1");
        daemon.end(signal);
        await_limit("950000");
    }
}

#[test]
fn one_that_may_not_change_throttling_or_only_watches_leaves_it_alone() {
    let Some(_live) = live() else { return };
    set_limit(BEFORE);
    let (code, said) = Stalld::start(&["-f", "-S"]).finish();
    assert_eq!(code, Some(1));
    assert!(
        said.iter().any(|(_, line)| line.contains("RT throttling is on! stalld cannot run...")),
        "{said:?}"
    );
    let stalld = Stalld::watch(&[]);
    assert_eq!(limit(), BEFORE);
    assert_eq!(stalld.terminate().0, Some(0));
    assert_eq!(limit(), BEFORE);
}

#[test]
fn somebody_who_turns_throttling_on_again_is_noticed_and_has_the_last_word() {
    let Some(_live) = live() else { return };
    for (before, mode) in [(BEFORE, "-O"), ("-1", "-S")] {
        set_limit(before);
        let mut stalld = start(&[mode, "-t", "1", "-g", "1"]);
        set_limit(AFTER);
        stalld.line_with(&format!(
            "somebody has turned RT throttling on again (sched_rt_runtime_us is {AFTER}): \
             pinned tasks can't be boosted with SCHED_DEADLINE"
        ));
        // Rescued all the same.
        let mut rig = Rig::start(&["--for", "3"]);
        let victim = rig.event("victim").tid();
        stalld.line_with(&format!("boost_with_deadline failed to boost pid {victim}: "));
        stalld.line_with(&format!("boosted pid {victim} (victim) (cpu {}) using SCHED_FIFO", hogged_cpu()));
        let (code, said) = stalld.terminate();
        assert_eq!(code, Some(0));
        let notices = said.iter().filter(|(_, line)| line.contains("somebody has turned")).count();
        assert_eq!(notices, 1, "{said:?}");
        assert!(!said.iter().any(|(_, line)| line.contains("restored to ")), "{said:?}");
        assert_eq!(limit(), AFTER);
    }
}
