//! The lines about rescues that scripts search the text log for, letter for letter.

#![cfg(feature = "bpf")]

use rig::{Rig, Stalld, hogged_cpu, live};

/// Starts stalld with the text log and waits for its first scan.
fn start(args: &[&str]) -> Stalld {
    let options = ["-f", "-v", "-t", "1", "-d", "1"];
    let mut stalld = Stalld::start_with_text_log(&[&options, &Stalld::RIG_ONLY[..], args].concat());
    stalld.scan();
    stalld
}

/// Ends stalld and returns its lines, each of which has the prefix.
fn terminate(stalld: Stalld) -> Vec<String> {
    stalld.signal("TERM");
    let (code, lines) = stalld.finish_with_text();
    assert_eq!(code, Some(0), "{lines:#?}");
    assert!(lines.iter().all(|line| line.starts_with("stalld: ")), "{lines:#?}");
    assert!(!lines.iter().flat_map(|line| line.chars()).any(char::is_control), "{lines:#?}");
    lines
}

#[test]
#[ignore = "starves tasks, as root"]
fn a_rescue_logs_the_lines_that_scripts_search_for() {
    let _live = live();
    let cpu = hogged_cpu();
    for (options, class, first) in [
        (&["--boost", "deadline"][..], "SCHED_DEADLINE", "using SCHED_DEADLINE for boosting"),
        (&["-F"], "SCHED_FIFO", "forcing SCHED_FIFO for boosting"),
    ] {
        let mut stalld = start(options);
        let mut rig = Rig::start(&["--for", "6"]);
        let victim = rig.event("victim").tid();
        let boosted = format!("boosted pid {victim} (victim) (cpu {cpu}) using {class}");
        stalld.message(&boosted);
        let lines = terminate(stalld);
        let has = |text: &str| lines.iter().any(|line| line == &format!("stalld: {text}"));
        assert!(has(first) && has(&boosted), "{lines:#?}");
        let number = |prefix: &str, suffix: &str| {
            let mut rests = lines.iter().filter_map(|line| line.strip_prefix(prefix));
            rests.find_map(|rest| rest.split_once(suffix)?.0.parse::<u64>().ok())
        };
        let starved = format!("stalld: victim-{victim} starved on CPU {cpu} for ");
        assert!(number(&starved, " seconds").is_some_and(|seconds| seconds >= 1), "{lines:#?}");
        let checking = format!("stalld: checking cpu {cpu} - rt: ");
        assert!(number(&checking, " - starving: ").is_some(), "{lines:#?}");
        assert_eq!(lines.last().unwrap(), "stalld: stalld shutting down");
    }
}

#[test]
#[ignore = "starves tasks, as root"]
fn no_name_of_a_task_makes_a_line_of_its_own() {
    let _live = live();
    let names = ["%0A R 1 1", "%0Acpu#0, 1", "%0A%0A%0A", "%1B[2J%FF"];
    let victims: Vec<String> = names.iter().map(|name| format!("spin:1:{name}")).collect();
    let mut args = vec!["--for", "6", "--hog-name", "%0A R 1 1"];
    args.extend(victims.iter().flat_map(|victim| ["--victim", victim]));
    for backend in ["sched_debug", "task_iter", "queue_track"] {
        let mut stalld = start(&["-b", backend]);
        let mut rig = Rig::start(&args);
        let mut boosts: Vec<String> = Vec::new();
        for victim in rig.events("victim", names.len()) {
            boosts.push(format!("boosted pid {} (", victim.tid()));
        }
        while !boosts.is_empty() {
            let boosted = stalld.message("boosted pid ");
            boosts.retain(|boost| !boosted.message().starts_with(boost));
        }
        terminate(stalld);
    }
}
