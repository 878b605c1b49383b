//! Hostile threads of an ordinary user can't mislead stalld, flood it or block its start.

#![cfg(feature = "bpf")]

use rig::boosts::{await_own_policy, start};
use rig::process;
use rig::{Record, Rig, Stalld, hogged_cpu, live};
use stalld::sys::clock;
use stalld::task::{Nanos, Tid};
use std::collections::HashSet;
use std::process::Command;

#[test]
#[ignore = "starves tasks, as root"]
fn no_name_gets_another_task_boosted() {
    let _live = live();
    // A parser may take these for a line, a column or the end of the text: of another task, of
    // another CPU.
    let names = [
        "%0A R 1 1",
        "x 1 0.0 9 120",
        ") R 1 1 (",
        "%0Acpu#0, 1",
        "runnable tasks:",
        "%0A%0A%0A",
        "%1B[2J%FF",
    ];
    for backend in ["sched_debug", "task_iter", "queue_track"] {
        let mut stalld = Stalld::start(&["-f", "-v", "-t", "1", "-d", "1", "-b", backend]);
        stalld.scan();
        let victims: Vec<String> = names.iter().map(|name| format!("spin:1:{name}")).collect();
        let mut args = vec!["--for", "8", "--hog-name", "%0A R 1 1"];
        args.extend(victims.iter().flat_map(|victim| ["--victim", victim]));
        let mut rig = Rig::start(&args);
        let victims: HashSet<Tid> =
            rig.events("victim", names.len()).iter().map(|victim| victim.tid()).collect();
        rig.event("end hog");
        let (code, log) = stalld.terminate();
        let boosted: HashSet<Tid> = log.of("boosted").filter_map(|record| record.tid("tid")).collect();
        assert_eq!((code, victims.is_subset(&boosted)), (Some(0), true), "{backend}: {log:#?}");
        // The only other tasks that starve behind the hog are the kernel's own threads of that CPU.
        for stranger in boosted.difference(&victims) {
            let is_kernels = process::status(*stranger, "VmSize").is_none();
            assert!(is_kernels, "{backend}: {stranger} was boosted: {log:#?}");
        }
        assert_eq!(log.count(Record::PLAIN), 0, "{backend}: a name made a line of its own: {log:#?}");
        victims.into_iter().filter(|&victim| process::state(victim).is_some()).for_each(await_own_policy);
    }
}

#[test]
#[ignore = "starves tasks, as root"]
fn a_task_with_the_name_of_a_thread_of_stalld_is_rescued_too() {
    let _live = live();
    let mut stalld = Stalld::start(&["-f", "-v", "-t", "1", "-d", "1"]);
    stalld.scan();
    for name in ["stalld", "stall-guard", "stall-events"] {
        let mut rig = Rig::start(&["--for", "20", "--victim", &format!("spin:1:{name}")]);
        let victim = rig.event("victim").tid();
        assert_eq!(stalld.event_of("boosted", victim).text("comm"), name);
    }
    assert_eq!(stalld.terminate().0, Some(0));
}

/// Twice the number of lines that the log accepts in a second from the levels that are on by
/// default.
const MAX_LINES_PER_SECOND: usize = 200;

#[test]
#[ignore = "starves tasks, as root"]
fn ten_thousand_starving_tasks_flood_neither_log_nor_memory() {
    let _live = live();
    const CROWD: usize = 10_000;
    let mut stalld = start(&["-t", "1", "-d", "1"]);
    let before = anonymous_kib(stalld.pid());
    let mut rig = Rig::start(&["--for", "6", "--victim", &format!("spin*{CROWD}")]);
    let hog = rig.event("hog");
    let begun = clock::monotonic();
    let end = rig.event("end hog");
    let lasted = clock::monotonic() - begun;
    let after = anonymous_kib(stalld.pid());
    stalld.event("restored");
    let (code, log) = stalld.terminate();
    assert_eq!(code, Some(0));
    let is_counted = |record: &&Record| record.at >= hog.at && !record.message().contains("checking cpu");
    let lines = log.iter().filter(is_counted).count();
    let allowed = MAX_LINES_PER_SECOND * (lasted.as_secs() as usize + 1);
    println!("{lines} lines in {} s; memory: {before} to {after} KiB", lasted.as_secs());
    assert!(lines < allowed, "{lines} lines, more than {allowed}");
    // That is a few hundred bytes for each task.
    assert!(after < before + 8 * 1024, "memory: {before} to {after} KiB");
    // The boosts may take far less than half of the CPU from the hog.
    assert!(end.moment("most_lost_in_a_second_ns") < Nanos::from_millis(500), "{}", end.line);
}

fn anonymous_kib(pid: Tid) -> u64 {
    let value = process::status(pid, "RssAnon").unwrap();
    value.split(' ').next().unwrap().parse().unwrap()
}

#[test]
#[ignore = "starves tasks, as root"]
fn an_ordinary_user_can_neither_touch_its_files_nor_block_its_start() {
    let _live = live();
    drop(Stalld::start(&["-f", "-v"]).terminate());
    // The user tries to open, write, move and add files, and locks the directory while stalld
    // starts.
    let script = "cd /run/stalld || exit; for file in stalld.lock journal; do \
         (exec 9<$file) 2>/dev/null && echo opened $file; (: >$file) 2>/dev/null && echo wrote $file; done; \
         mkdir x 2>/dev/null && echo made; mv journal y 2>/dev/null && echo moved; ln -s /etc/passwd z 2>/dev/null && \
         echo linked; exec 9<.; { flock -n 9 && exec sleep 60; } >/dev/null 2>&1 & echo locker $!";
    let ordinary_user = ["--reuid", "65534", "--regid", "65534", "--clear-groups", "sh", "-c", script];
    let output = Command::new("setpriv").args(ordinary_user).output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    let locker = printed.strip_prefix("locker ").and_then(|pid| pid.trim().parse().ok()).map(Tid);
    let locker = locker.unwrap_or_else(|| panic!("the ordinary user succeeded: {output:?}"));
    let mut stalld = Stalld::start(&["-f", "-v", "-t", "1"]);
    stalld.scan();
    let mut rig = Rig::start(&["--for", "20"]);
    let victim = rig.event("victim").tid();
    assert_eq!(stalld.event_of("boosted", victim).number("cpu"), hogged_cpu().0.into());
    assert!(!process::has_ended(locker), "the lock was not held while stalld started");
    process::signal(locker, "KILL");
    assert_eq!(stalld.terminate().0, Some(0));
}
