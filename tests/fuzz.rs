//! Runs each input in fuzz/ through its target again. They are inputs that fuzzing has found.

#![allow(clippy::expect_used, clippy::unwrap_used)]

use rig::Rig;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn fuzz() -> Command {
    Command::new(Rig::path().with_file_name("fuzz"))
}

/// Returns the directories of targets that have inputs of this kind.
fn targets(kind: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(kind);
    let mut targets: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    targets.sort();
    targets
}

fn replay(kind: &str) {
    for inputs in targets(kind) {
        let target = inputs.file_name().unwrap();
        if !cfg!(feature = "bpf") && OF_STALLSTAT.iter().any(|name| target == *name) {
            continue;
        }
        let output = fuzz().arg(target).arg(&inputs).output().expect("'cargo build --examples' makes it");
        let printed = String::from_utf8_lossy(&output.stdout);
        let last: Vec<&str> = printed.lines().rev().take(1).collect();
        let failure = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{target:?} ended by {last:?}: {failure}");
        let count = fs::read_dir(&inputs).unwrap().count();
        assert!(count > 0);
        assert_eq!(last, [format!("{count} inputs")]);
    }
}

#[test]
fn no_input_of_the_corpus_breaks_a_promise() {
    replay("corpus");
}

#[test]
fn no_input_that_once_broke_a_promise_breaks_it_again() {
    replay("regressions");
}

#[test]
fn each_target_has_a_corpus() {
    let usage = String::from_utf8(fuzz().output().unwrap().stderr).unwrap();
    let (_, names) = usage.trim().split_once("the targets are ").unwrap();
    let mut names: Vec<&str> = names.split(", ").collect();
    names.sort_unstable();
    let with_corpus: Vec<_> = targets("corpus");
    let with_corpus: Vec<_> =
        with_corpus.iter().map(|it| it.file_name().unwrap().to_str().unwrap()).collect();
    // Two targets exist only if stallstat is built.
    let with_corpus: Vec<_> = with_corpus
        .into_iter()
        .filter(|name| cfg!(feature = "bpf") || !OF_STALLSTAT.contains(name))
        .collect();
    assert_eq!(with_corpus, names);
}

const OF_STALLSTAT: [&str; 2] = ["groups", "schedstat"];
