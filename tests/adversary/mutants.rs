//! Reverts the fixes that bound attacks, one after the other. The test of each has to fail then.

use Reverted::{Code, Packaging};
use rig::PACKAGING;
use rig::scratch::Scratch;
use stalld::fault::{Fault, VARIABLE};
use std::collections::HashSet;
use std::path::PathBuf;
use std::process::Command;
use std::{env, fs};

/// How a fix is reverted.
#[derive(Debug)]
enum Reverted {
    /// By a fault in stalld, in place of the fix. A new fix adds its fault to `src/fault.rs`.
    Code(Fault),
    /// In this file of packaging, by the first words replaced with the second ones.
    Packaging(&'static str, &'static str, &'static str),
}

/// Each reverted fix, the test that finds it, with the name of its program, and words of its panic.
const MUTANTS: &[(Reverted, &str, &str)] = &[
    (
        Code(Fault::NamesUnescaped),
        "adversary names::no_name_makes_a_line_of_the_log_or_gets_another_task_boosted",
        "a line of the log is no record",
    ),
    (
        Code(Fault::LinksFollowed),
        "adversary files::nothing_in_place_of_the_trace_is_followed_or_blocks",
        "--trace, link to a file",
    ),
    (
        Code(Fault::RankKept),
        "adversary ranks::a_victim_does_not_keep_sched_fifo",
        "which it did not begin with",
    ),
    (
        Code(Fault::RankLent),
        "adversary lending::a_spinning_owner_on_the_same_cpu_is_lent_no_rank",
        "has had the rank",
    ),
    (
        Code(Fault::RestIgnored),
        "adversary crowds::a_flood_of_threads_delays_no_other_user_and_costs_a_quarter_of_a_cpu_at_most",
        "% of a CPU in a second",
    ),
    (
        Code(Fault::TurnsIgnored),
        "adversary crowds::a_flood_of_threads_delays_no_other_user_and_costs_a_quarter_of_a_cpu_at_most",
        "a task of root waited",
    ),
    (
        Code(Fault::HiddenIsGone),
        "daemon hidden::a_starving_task_that_proc_hides_is_reported_once_and_not_boosted",
        "stalld never reported 'refused' of task",
    ),
    (
        Code(Fault::GuardianUnlocked),
        "daemon daemon::its_guardian_is_as_safe_from_a_shortage_of_memory",
        "the guardian has locked its memory",
    ),
    (
        Packaging("systemd/stalld.service", "TemporaryFileSystem=/run:ro\n", ""),
        "daemon service::the_unit_hides_the_sockets_and_directories_of_run",
        r#"right: {"/run:ro"}"#,
    ),
    (
        Packaging("throttlectl", "former=$directory/rtthrottle-", "former=$directory/no-such-file-"),
        "daemon throttlectl::settings_that_the_c_program_has_saved_are_imported",
        "700000 us of each 800000 us",
    ),
];

/// The environment variable that names the test programs, as `NAME=PATH:` each. tests/run.sh sets
/// it.
const PROGRAMS: &str = "STALLD_TEST_PROGRAMS";

fn program(name: &str) -> PathBuf {
    let all = env::var(PROGRAMS).expect("`make test-mutants` sets STALLD_TEST_PROGRAMS");
    let path = all.split(':').find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    path.unwrap_or_else(|| panic!("{PROGRAMS} does not name {name}")).into()
}

/// The environment variable with the names of the tests that this host can't run, each with a comma
/// behind it. tests/run.sh sets it.
const SKIPPED: &str = "STALLD_TEST_SKIPPED";

/// Runs one test with a fix reverted. Returns its output, and whether the test failed with
/// `finding`.
fn is_found(reverted: &Reverted, test: &str, finding: &str) -> (String, bool) {
    let (name, test) = test.split_once(' ').unwrap();
    let mut command = Command::new(program(name));
    command.args(["--include-ignored", "--exact", test, "--nocapture"]);
    let scratch = Scratch::new("mutant");
    match *reverted {
        Code(fault) => {
            command.env(VARIABLE, format!("{fault:?}"));
        }
        Packaging(file, from, to) => {
            let text = fs::read_to_string(rig::packaged(file)).unwrap();
            assert!(text.contains(from), "{file} has no {from:?}");
            let mutant = scratch.join(file);
            fs::create_dir_all(mutant.parent().unwrap()).unwrap();
            fs::write(&mutant, text.replace(from, to)).unwrap();
            fs::set_permissions(&mutant, fs::metadata(rig::packaged(file)).unwrap().permissions()).unwrap();
            command.env(PACKAGING, scratch.path());
        }
    }
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let text = text.concat();
    // A test that finds something else, or does not exist, has not found the fault.
    let message = |panic| {
        let ends = ["stack backtrace:", "note: run with"];
        ends.iter().fold(panic, |text: &str, end| text.split(end).next().unwrap_or(text))
    };
    let is_named = text.split("panicked at").skip(1).any(|panic| message(panic).contains(finding));
    let is_found = !output.status.success() && text.contains("1 failed") && is_named;
    (text, is_found)
}

/// The number of times that a test may run with a fix reverted until it fails.
const MAX_RUNS: u32 = 3;

#[test]
#[ignore = "starves tasks, as root"]
fn each_reverted_fix_is_found() {
    let mut missed = Vec::new();
    let skipped = env::var(SKIPPED).unwrap_or_default();
    for (reverted, test, finding) in MUTANTS {
        if skipped.split(',').any(|name| test.split_once(' ').is_some_and(|(_, test)| test == name)) {
            println!("{reverted:?}: not tried, because tests/skips leaves out {test}");
            continue;
        }
        // An attack that is not stopped need not succeed each time.
        let mut runs = (0..MAX_RUNS).map(|_| is_found(reverted, test, finding));
        let first = runs.next().unwrap_or_default();
        let (text, is_found) = if first.1 { first } else { runs.find(|run| run.1).unwrap_or(first) };
        println!("{reverted:?}: {} by {test}", if is_found { "found" } else { "NOT found" });
        if !is_found {
            missed.push(format!("{reverted:?} by {test}:\n{text}"));
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

#[test]
fn each_fault_of_an_attack_has_a_test() {
    let fault = |reverted: &Reverted| match reverted {
        Code(fault) => Some(format!("{fault:?}")),
        Packaging(..) => None,
    };
    let listed: HashSet<String> = MUTANTS.iter().filter_map(|(reverted, ..)| fault(reverted)).collect();
    let faults = Fault::OF_ATTACKS.iter().map(|fault| format!("{fault:?}"));
    assert_eq!(listed, faults.collect());
}
