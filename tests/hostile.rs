//! Neighbours who mean no good: what an ordinary user's threads can't get stalld to do.

// stalld as it is meant to be: with its BPF backends.
#![cfg(feature = "bpf")]
#![allow(clippy::unwrap_used, clippy::panic)]

mod rig;

use rig::boosts::{await_own_policy, start};
use rig::process;
use rig::{PATIENCE, Rig, Stalld, hogged_cpu, live};
use stalld::sys::clock;
use stalld::task::{Nanos, Tid};
use std::collections::HashSet;
use std::process::Command;

/// Who was boosted, by the log.
fn boosted(line: &str) -> Option<Tid> {
    line.split_once("boosted pid ")?.1.split(' ').next()?.parse().ok().map(Tid)
}

#[test]
fn no_name_gets_anybody_else_boosted() {
    let Some(_live) = live() else { return };
    // What a parser may take for a line, a column or the end of the text: of another task, of another CPU.
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
        stalld.look();
        let victims: Vec<String> = names.iter().map(|name| format!("spin:1:{name}")).collect();
        let mut args = vec!["--for", "4", "--hog-name", "%0A R 1 1"];
        victims.iter().for_each(|victim| args.extend(["--victim", victim]));
        let mut rig = Rig::start(&args);
        let victims: HashSet<Tid> =
            rig.events("victim", names.len()).iter().map(|victim| victim.tid()).collect();
        rig.event("end hog");
        let (code, said) = stalld.terminate();
        let boosted: HashSet<Tid> = said.iter().filter_map(|(_, line)| boosted(line)).collect();
        assert_eq!((code, victims.is_subset(&boosted)), (Some(0), true), "{backend}: {said:#?}");
        // Behind the hog the kernel's own threads of that CPU starve, too, and nobody else.
        for stranger in boosted.difference(&victims) {
            let is_kernels = process::status(*stranger, "VmSize").is_none();
            assert!(is_kernels, "{backend}: {stranger} was boosted: {said:#?}");
        }
        assert!(said.iter().all(|(_, line)| line.starts_with("stalld: ")), "{backend}: {said:#?}");
        victims.into_iter().filter(|&victim| process::state(victim).is_some()).for_each(await_own_policy);
    }
}

#[test]
fn who_goes_by_a_name_of_stallds_own_is_rescued_like_anybody() {
    let Some(_live) = live() else { return };
    let mut stalld = Stalld::start(&["-f", "-v", "-t", "1", "-d", "1"]);
    stalld.look();
    for name in ["stalld", "stall-guard", "stall-events"] {
        let mut rig = Rig::start(&["--for", "5", "--victim", &format!("spin:1:{name}")]);
        let victim = rig.event("victim").tid();
        stalld.line_with(&format!("boosted pid {victim} ({name})"));
    }
    assert_eq!(stalld.terminate().0, Some(0));
}

/// As many lines a second as the log may have of those that are worth a word to everybody, twice over.
const LINES_A_SECOND: usize = 200;

#[test]
fn ten_thousand_who_starve_fill_neither_log_nor_memory_and_keep_nobody_from_ending() {
    let Some(_live) = live() else { return };
    const CROWD: usize = 10_000;
    let mut stalld = start(&["-t", "1", "-d", "1"]);
    let before = anonymous_kib(stalld.pid());
    let mut rig = Rig::start(&["--for", "6", "--victim", &format!("spin*{CROWD}")]);
    let hog = rig.event("hog");
    let begun = clock::monotonic();
    let end = rig.event("end hog");
    let lasted = clock::monotonic() - begun;
    let (after, restored) = (anonymous_kib(stalld.pid()), |line: &str| line.contains("restored pid"));
    assert!(stalld.wait_for(restored, PATIENCE).is_some(), "nobody was rescued");
    let (code, said) = stalld.terminate();
    assert_eq!(code, Some(0));
    let lines = said.iter().filter(|(at, line)| *at >= hog.at && !line.contains("checking cpu")).count();
    let allowed = LINES_A_SECOND * (lasted.as_secs() as usize + 1);
    println!("{lines} lines in {} s; memory: {before} to {after} KiB", lasted.as_secs());
    assert!(lines < allowed, "{lines} lines, more than {allowed}");
    // A few hundred bytes of each.
    assert!(after < before + 8 * 1024, "memory: {before} to {after} KiB");
    // Half of the time would be far too much, however busy this machine is.
    assert!(end.moment("most_lost_in_a_second_ns") < Nanos::from_millis(500), "{}", end.line);
}

fn anonymous_kib(pid: Tid) -> u64 {
    let value = process::status(pid, "RssAnon").unwrap();
    value.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn an_ordinary_user_can_neither_touch_what_stalld_keeps_nor_hold_up_its_start() {
    let Some(_live) = live() else { return };
    drop(Stalld::start(&["-f", "-v"]).terminate());
    // Locks on what can be opened, and files where stalld has its own.
    let script = "cd /run/stalld && for file in stalld.lock journal; do \
         (exec 9<$file) 2>/dev/null && echo opened $file; (: >$file) 2>/dev/null && echo wrote $file; done; \
         mkdir x 2>/dev/null && echo made; mv journal y 2>/dev/null && echo moved; ln -s /etc/passwd z 2>/dev/null && \
         echo linked; (exec 9<.; flock -n 9; exec sleep 20) >/dev/null 2>&1 & echo tried";
    let nobody = ["--reuid", "65534", "--regid", "65534", "--clear-groups", "sh", "-c", script];
    let output = Command::new("setpriv").args(nobody).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "tried\n", "{output:?}");
    let mut stalld = Stalld::start(&["-f", "-v", "-t", "1"]);
    stalld.look();
    let mut rig = Rig::start(&["--for", "4"]);
    let victim = rig.event("victim").tid();
    stalld.line_with(&format!("boosted pid {victim} (victim) (cpu {})", hogged_cpu()));
    assert_eq!(stalld.terminate().0, Some(0));
}
