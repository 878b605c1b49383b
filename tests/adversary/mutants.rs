//! Faults that revert what bounds an attack. For each of them its test has to fail.

use stalld::fault::{Fault, VARIABLE};
use std::collections::HashSet;
use std::process::Command;

/// Each fault, the test of this program that finds it, and words of what it finds. A new fix adds its fault to
/// `src/fault.rs`, and a row here.
const MUTANTS: &[(Fault, &str, &str)] = &[
    (
        Fault::NamesUnescaped,
        "names::no_name_makes_a_line_of_the_log_or_gets_another_task_boosted",
        "a line of the log is no record",
    ),
    (
        Fault::LinksFollowed,
        "files::nothing_in_place_of_the_trace_is_followed_or_blocks",
        "--trace, link to a file",
    ),
    (Fault::RankKept, "ranks::a_victim_does_not_keep_sched_fifo", "which it did not begin with"),
    (Fault::RankLent, "lending::a_spinning_owner_on_the_same_cpu_is_lent_no_rank", "has had the rank"),
];

/// The words by which a test of this program reports that an attack succeeded.
const SUCCESS: &str = "the attack succeeded";

#[test]
#[ignore = "starves tasks, as root"]
fn each_reverted_fix_is_found() {
    let mut missed = Vec::new();
    for (fault, test, finding) in MUTANTS {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--include-ignored", "--exact", test, "--nocapture"]);
        let output = command.env(VARIABLE, format!("{fault:?}")).output().unwrap();
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let text = text.concat();
        // The words stand behind the announcement, so that it is the fault that was found and nothing else.
        let verdict = text.split_once(SUCCESS).map_or("", |(_, verdict)| verdict);
        let is_found = !output.status.success() && text.contains("1 failed") && verdict.contains(finding);
        println!("{fault:?}: {} by {test}", if is_found { "found" } else { "NOT found" });
        if !is_found {
            missed.push(format!("{fault:?} by {test}:\n{text}"));
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

#[test]
fn each_fault_of_an_attack_has_a_test() {
    let listed: HashSet<String> = MUTANTS.iter().map(|(fault, ..)| format!("{fault:?}")).collect();
    for fault in Fault::OF_ATTACKS {
        assert!(listed.contains(&format!("{fault:?}")), "{fault:?} is not in the table of mutants");
    }
    assert_eq!(listed.len(), Fault::OF_ATTACKS.len());
}
