//! Measures what stalld promises, and prints each figure with its bound beside it: `make bench`.
//!
//! All figures come from outside of the daemon: from a victim, from the kernel's tracer and
//! accounts, or from a workload beside it. A missed bound is a failure only with `--strict`,
//! because other guests of the host influence every time. A row that can't be measured is always a
//! failure.

#![allow(unreachable_pub)]

mod calls;
mod debug_file;
mod disturbance;
mod docs;
mod ends;
mod events;
mod figures;
mod holds;
mod lateness;
mod library;
mod load;
mod observer;
mod peer;
mod pipe;
mod plot;
mod process;
mod rescue;
mod scans;
mod sizes;
mod soak;
mod stat;
mod text;
mod trace_line;
mod tracer;
mod upkeep;

use figures::{Effort, Line, Row};
use stalld::error::{Error, Result};
use std::io::Read;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::{env, fs, thread};

const HELP: &str = "\
Usage: cargo bench --bench bench -- [--quick] [--strict] [--list] [--write=DIR] [ROW]...
       cargo bench --bench bench -- --soak=TIME

Measures the rows whose names contain one of these words; all of them where none is given. It needs
root, two CPUs, and the release build of the rig: cargo build --release --example starve. The machine
should have nothing else to do: what else wants the last CPU takes it from the hog, too.

  --quick      fewer starts, shorter times
  --strict     exit with 1 where a bound is missed
  --list       only name the rows
  --write=DIR  also write the table and a plot to DIR/BENCHMARKS.md and DIR/scan-cost.svg
  --soak=TIME  starve tasks at random for so long (90, 10m, 2h), watched by the kernel's tracer; strict

Where the environment has PEER=/path/to/another/stalld, that one is measured beside ours, in turn.
";

pub const TABLE_HEAD: &str = "| measure | measured | bound | |\n|---|---|---|---|";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let [extra, role @ ..] = arguments.as_slice() {
        if extra == load::ROLE {
            return load::play(role);
        }
    }
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let value = |flag: &str| arguments.iter().find_map(|argument| argument.strip_prefix(flag));
    if has("--help") {
        print!("{HELP}");
        return ExitCode::SUCCESS;
    }
    // `cargo test --all-targets` starts this program, too, but without the flag that `cargo bench`
    // adds.
    if !has("--bench") {
        eprintln!("nothing is measured: run this by 'cargo bench'");
        return ExitCode::SUCCESS;
    }
    let effort = Effort { quick: has("--quick") };
    if let Some(time) = value("--soak=") {
        return match soak::row(time) {
            Ok(row) => run(&[row], &effort, true, None),
            Err(e) => {
                eprintln!("bench: {e}");
                ExitCode::FAILURE
            }
        };
    }
    let words: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with("--")).collect();
    let mut rows = match env::var("PEER") {
        Ok(peer) if !peer.is_empty() => peer::rows(&peer),
        _ => all_rows(),
    };
    rows.retain(|row| words.is_empty() || words.iter().any(|word| row.name.contains(word.as_str())));
    if has("--list") {
        rows.iter().for_each(|row| println!("{}", row.name));
        return ExitCode::SUCCESS;
    }
    run(&rows, &effort, has("--strict"), value("--write=").map(Path::new))
}

fn all_rows() -> Vec<Row> {
    let rows = [
        calls::rows(),
        lateness::rows(),
        rescue::rows(),
        disturbance::rows(),
        ends::rows(),
        pipe::rows(),
        events::rows(),
        debug_file::rows(),
        text::rows(),
        scans::rows(),
        library::rows(),
        upkeep::rows(),
        stat::rows(),
        sizes::rows(),
    ];
    rows.into_iter().flatten().collect()
}

fn run(rows: &[Row], effort: &Effort, strict: bool, docs: Option<&Path>) -> ExitCode {
    let machine = machine();
    println!("{machine}\n\n{TABLE_HEAD}");
    let (mut table, mut failed) = (Vec::new(), Vec::new());
    for row in rows {
        match measure(row, effort) {
            Ok(lines) => {
                lines.iter().for_each(|line| println!("{line}"));
                table.extend(lines);
            }
            Err(error) => {
                println!("| {} | could not be measured: {error} | | FAILED |", row.name);
                failed.push(row.name.as_str());
            }
        }
    }
    println!();
    let missed: Vec<&str> =
        table.iter().filter(|line| line.met == Some(false)).map(|line| line.measure.as_str()).collect();
    for (title, names) in [("Missed", &missed), ("Not measured", &failed)] {
        if !names.is_empty() {
            println!("{title}:");
            names.iter().for_each(|name| println!("  {name}"));
        }
    }
    let mut met = failed.is_empty() && (missed.is_empty() || !strict);
    if let Some(Err(e)) = docs.map(|directory| docs::write(directory, &machine, &table)) {
        eprintln!("bench: {e}");
        met = false;
    }
    if met { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Measures one row while no live test and no other measurement runs.
fn measure(row: &Row, effort: &Effort) -> Result<Vec<Line>> {
    // The rig panics if an event that it waits for does not happen.
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| {
        let _live = rig::live();
        (row.measure)(effort)
    }));
    outcome.unwrap_or_else(|_| Err(Error::new("see above")))
}

/// Describes the machine.
fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cpus = thread::available_parallelism().map_or(0, |count| count.get());
    format!(
        "Linux {}, {cpus} CPUs{}, {}, {} threads",
        read("/proc/sys/kernel/osrelease").trim(),
        model.map(|(_, name)| format!(" ({name})")).unwrap_or_default(),
        ticks().map_or("HZ unknown".to_string(), |hz| format!("HZ {hz}")),
        process::threads_of_all(),
    )
}

/// Returns the kernel's CONFIG_HZ; `None` if its configuration can't be read.
fn ticks() -> Option<u32> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    let configuration =
        fs::read_to_string(format!("/boot/config-{}", release.trim())).ok().or_else(|| {
            let mut gzip = Command::new("gzip");
            gzip.args(["-dc", "/proc/config.gz"]).stdout(Stdio::piped()).stderr(Stdio::null());
            let mut child = gzip.spawn().ok()?;
            let mut text = String::new();
            let read = child.stdout.take()?.read_to_string(&mut text);
            child.wait().ok()?.success().then_some(text).filter(|_| read.is_ok())
        })?;
    configuration.lines().find_map(|line| line.strip_prefix("CONFIG_HZ=")?.parse().ok())
}
