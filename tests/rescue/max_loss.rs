//! Boosts with a bound on what they take from the hog (`--max-loss`).

#![cfg(feature = "bpf")]

use rig::boosts::{await_own_policy, start};
use rig::{Rig, Stalld, live};
use stalld::proc;

/// Returns how often the victim was given a CPU from its first pulse until the boost was over.
fn runs_in_a_boost(args: &[&str]) -> u64 {
    let mut stalld = start(&[&["-F", "-t", "1", "-d", "1"], args].concat());
    let mut rig = Rig::start(&["--for", "6"]);
    let (hog, victim) = (rig.event("hog"), rig.event("victim"));
    let before = proc::runs(victim.tid()).unwrap();
    let boosted = stalld.event_of("boosted", victim.tid());
    assert_eq!(boosted.text("policy"), "SCHED_FIFO");
    let restored = stalld.event_of("restored", victim.tid());
    let runs = proc::runs(victim.tid()).unwrap() - before;
    assert!(restored.at < hog.moment("until"), "the boost outlasted the hog");
    await_own_policy(victim.tid());
    assert_eq!(rig.finish().0, Some(0));
    let (code, log) = stalld.terminate();
    assert_eq!(code, Some(0));
    // All pulses of a boost have one line together.
    let lines = log.iter().filter(|record| record.is_of("boosted", victim.tid()));
    let lines = lines.filter(|record| record.at <= restored.at).count();
    assert_eq!(lines, 1, "{log:?}");
    runs
}

#[test]
#[ignore = "starves tasks, as root"]
fn a_boosted_task_runs_as_often_as_the_bound_allows() {
    let _live = live();
    let without = runs_in_a_boost(&[]);
    // 39 us are charged for a run of 20 us on a quiet host, so about 24 fit into 0.1 % of a second.
    // Where a hypervisor delays stalld, runs are longer, and fewer.
    for mode in ["-O", "-A"] {
        let with = runs_in_a_boost(&["--max-loss", "0.1%", mode]);
        assert!(with >= 3 + without && with <= 52, "{with} runs, and {without} without a bound");
    }
}

#[test]
#[ignore = "needs root"]
fn a_bound_that_allows_no_boost_is_refused_with_the_smallest_that_does() {
    let _live = live();
    for args in [&[][..], &["-S"], &["-A"]] {
        let args = [&["-f", "-v", "--max-loss", "0.001%"][..], args].concat();
        let (code, lines) = Stalld::start_with_text_log(&args).finish_with_text();
        assert_eq!(code, Some(1), "{lines:?}");
        let error = lines.iter().find(|line| line.contains("--max-loss")).unwrap();
        assert!(error.contains("0.001%: one boost of 20us takes more of a second; give 0.00"), "{error}");
    }
}
