//! The numbers that Prometheus reads: what has happened is in the file, and the file is one that it understands.

// stalld as it is meant to be: with its BPF backends.
#![cfg(feature = "bpf")]
#![allow(clippy::unwrap_used, clippy::panic)]

mod rig;

use rig::boosts::start;
use rig::process::eventually;
use rig::scratch::Scratch;
use rig::{Rig, Stalld, hogged_cpu, live};
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

/// The value of a sample, by all that stands before it on its line.
fn sample(path: &Path, name: &str) -> Option<f64> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

/// Prometheus's own opinion, where it is installed: its packages bring a server, which nobody wants for a test.
fn promtool(args: &[&str], input: File) {
    match Command::new("promtool").args(args).stdin(input).output() {
        Ok(output) => assert!(output.status.success(), "{output:?}"),
        Err(e) => eprintln!("left out: promtool: {e}"),
    }
}

/// What the format asks for: each family has its help and its type before its samples, which are numbers.
fn is_exposition(text: &str) {
    let mut family = "";
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            family = help.split_once(' ').unwrap().0;
        } else if let Some(of) = line.strip_prefix("# TYPE ") {
            let (name, kind) = of.split_once(' ').unwrap();
            assert!(name == family && ["counter", "gauge", "summary"].contains(&kind), "{line}");
        } else {
            let (name, value) = line.rsplit_once(' ').unwrap();
            let name = name.split_once('{').map_or(name, |(name, labels)| {
                assert!(labels.ends_with("\"}"), "{line}");
                name
            });
            let suffix = name.strip_prefix(family).unwrap_or_else(|| panic!("{line} is not of {family}"));
            assert!(["", "_sum", "_count"].contains(&suffix) && value.parse::<f64>().is_ok(), "{line}");
        }
    }
}

#[test]
fn what_has_happened_is_in_the_file_that_prometheus_reads_and_gone_at_the_end() {
    let Some(_live) = live() else { return };
    let scratch = Scratch::new("metrics-live");
    let path = scratch.join("stalld.prom");
    for mode in ["-O", "-A"] {
        let stalld = start(&["-t", "1", "-d", "1", mode, "--metrics", path.to_str().unwrap()]);
        assert_eq!(sample(&path, "stalld_boosts_total{policy=\"SCHED_DEADLINE\"}"), Some(0.0));
        let mut rig = Rig::start(&["--for", "3"]);
        rig.event("victim");
        eventually("the boost is counted", || {
            let by_policy = ["SCHED_DEADLINE", "SCHED_FIFO"].map(|policy| {
                sample(&path, &format!("stalld_boosts_total{{policy=\"{policy}\"}}")).unwrap_or(0.0)
            });
            let here = sample(&path, &format!("stalld_cpu_boosts_total{{cpu=\"{}\"}}", hogged_cpu()));
            (by_policy.iter().sum::<f64>() >= 1.0 && here >= Some(1.0)).then_some(())
        });
        eventually("and so is the end of it", || {
            let restored = sample(&path, "stalld_restores_total")?;
            (restored >= 1.0 && sample(&path, "stalld_boosted_tasks") == Some(0.0)).then_some(())
        });
        assert!(sample(&path, "stalld_starvations_total") >= Some(1.0), "{mode}");
        assert!(sample(&path, "stalld_looks_total") >= Some(1.0), "{mode}");
        is_exposition(&fs::read_to_string(&path).unwrap());
        promtool(&["check", "metrics"], File::open(&path).unwrap());
        assert_eq!(stalld.terminate().0, Some(0));
        assert!(!path.exists());
    }
}

#[test]
fn a_file_that_can_not_be_written_ends_the_start() {
    let Some(_live) = live() else { return };
    let scratch = Scratch::new("metrics-nowhere");
    let path = scratch.join("missing/stalld.prom");
    let (code, said) = Stalld::start(&["-f", "-l", "--metrics", path.to_str().unwrap()]).finish();
    let line = format!("stalld: cannot write {}: No such file or directory", path.display());
    assert_eq!((code, said.iter().map(|(_, line)| line.clone()).collect()), (Some(1), vec![line]));
}

#[test]
fn the_alerts_are_rules_that_prometheus_takes() {
    let alerts = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/monitoring/alerts.yml");
    promtool(&["check", "rules", alerts.to_str().unwrap()], File::open("/dev/null").unwrap());
}
