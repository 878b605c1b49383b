//! A /proc that hides tasks or shifts their start is noticed, and never taken for the end of a
//! task.

#![cfg(feature = "bpf")]

use crate::assert_words;
use rig::boosts::{OWN, policy};
use rig::throttling::limit;
use rig::{Rig, Stalld, live, process};
use std::process::{Command, Output};

/// Executes its arguments with a /proc that shows other users' processes to group 12345 only, and
/// with the capabilities of the unit, as far as that matters.
const HIDING: &str =
    "mount -t proc -o hidepid=2,gid=12345 proc /proc && exec setpriv --bounding-set -sys_ptrace \"$@\"";

/// The same for a user with all capabilities.
const HIDING_FROM_OTHERS: &str = "mount -t proc -o hidepid=2,gid=12345 proc /proc && exec \"$@\"";

fn check(starter: &[&str]) -> Output {
    let mut words = starter.iter().copied().chain([Stalld::path(), "--check"]);
    Command::new(words.next().unwrap()).args(words).output().unwrap()
}

fn assert_finds(output: &Output, code: i32, words: &[&str]) {
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert_words(&text, words);
}

#[test]
#[ignore = "starves tasks, as root"]
fn a_starving_task_that_proc_hides_is_reported_once_and_not_boosted() {
    let _live = live();
    let starter = ["unshare", "-m", "sh", "-c", HIDING, "sh"];
    let mut stalld = Stalld::start_by(&starter, &["-f", "-v", "-t", "1", "-g", "1"]);
    stalld.scan();
    let mut rig = Rig::start(&["--for", "8"]);
    let victim = rig.event("victim").tid();
    let refused = stalld.event_of("refused", victim);
    assert_words(refused.message(), &["/proc hides it", "hidepid", "stalld --check"]);
    // By the third report it has been tried again.
    for _ in 0..2 {
        stalld.event_of("starved", victim);
    }
    assert_eq!(policy(victim), Some(OWN));
    let (code, log) = stalld.terminate();
    assert_eq!(code, Some(0));
    let of_victim = log.of("refused").filter(|record| record.tid("tid") == Some(victim)).count();
    assert_eq!((of_victim, log.count("boosted")), (1, 0), "{log:?}");
}

#[test]
#[ignore = "needs root"]
fn the_check_names_a_proc_that_hides_tasks() {
    let hiding = check(&["unshare", "-m", "sh", "-c", HIDING, "sh"]);
    let words = ["hidepid=invisible,gid=12345", "hides tasks from stalld", "SupplementaryGroups=12345"];
    assert_finds(&hiding, 1, &words);
    let others = check(&["unshare", "-m", "sh", "-c", HIDING_FROM_OTHERS, "sh"]);
    assert_finds(
        &others,
        0,
        &["hidepid=invisible,gid=12345", "as its service is", "SupplementaryGroups=12345"],
    );
    assert_finds(
        &check(&["sh", "-c", "ulimit -n 64; exec \"$@\"", "sh"]),
        0,
        &["RLIMIT_NOFILE", "LimitNOFILE="],
    );
}

const IN_A_TIME_NAMESPACE: [&str; 6] = ["unshare", "-T", "--boottime", "1000", "--fork", "--kill-child"];

#[test]
#[ignore = "needs root"]
fn the_check_names_a_time_namespace() {
    assert_finds(&check(&IN_A_TIME_NAMESPACE), 1, &["time namespace", "run it outside"]);
}

#[test]
#[ignore = "needs root"]
fn in_a_time_namespace_it_only_logs() {
    let _live = live();
    let before = limit();
    let mut stalld = Stalld::start_by(&IN_A_TIME_NAMESPACE, &["-f", "-v"]);
    assert_words(stalld.message("only logs").message(), &["time namespace"]);
    stalld.scan();
    assert_eq!(limit(), before);
    // The test's own child is unshare, and stalld is its child.
    process::signal(process::children(stalld.pid())[0], "TERM");
    assert_eq!(stalld.finish().0, Some(0));
}
