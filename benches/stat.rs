//! The cost of stallstat for other programs while it counts, its own memory and start-up time, and
//! the events that it loses.

use crate::events::above_empty;
use crate::figures::{Effort, Line, Row, median, millis};
use crate::load::{Load, Role};
use crate::pipe::Turns;
use crate::process;
use rig::process::eventually;
use rig::scratch::Scratch;
use rig::stallstat::{self, Stallstat};
use rig::{Program, Rig};
use stalld::error::Result;
use stalld::sys::clock;
use stalld::task::{Cpu, Nanos};
use std::fs;
use std::process::Command;

/// The arguments of stallstat, and the bound on the ratio of round trips with and without it. Only
/// the default group has a bound.
const KINDS: [(&str, Option<f64>); 10] = [
    ("-g latency", Some(1.15)),
    ("-g slice", None),
    ("-g sleep", None),
    ("-g waking", None),
    ("-g migration", None),
    ("-g perf -e task-clock,page-faults", None),
    ("-g latency,slice,sleep,waking,migration", None),
    ("hogs", None),
    ("record FILE.csv", None),
    ("trace FILE", None),
];
const BOUND_NS: f64 = 130.0;
const EVENTS: &str = "stallstat, above an empty program";
const TASKS: usize = 10_000;
const MOST_KIB: u64 = 8 * 1024;

pub fn rows() -> Vec<Row> {
    let mut rows = vec![Row::new(EVENTS, |effort| {
        let stallstat = Stallstat::start(&[]);
        above_empty(EVENTS, stallstat.pid(), BOUND_NS, effort)
    })];
    for (kind, bound) in KINDS {
        rows.push(Row::new(ratio_name(kind), move |effort| ratio(kind, bound, effort)));
    }
    rows.push(Row::new(CROWD, |_| crowd()));
    rows.push(Row::new("stallstat, a long wait", long_wait));
    rows.push(Row::new(START, start_to_report));
    rows
}

fn ratio_name(kind: &str) -> String {
    format!("stallstat {kind}, sched-pipe with / without")
}

fn ratio(kind: &str, bound: Option<f64>, effort: &Effort) -> Result<Vec<Line>> {
    let scratch = Scratch::new("bench-stallstat");
    let path = scratch.join("turns.csv");
    let file = path.display().to_string();
    let start = || {
        let args: Vec<&str> =
            kind.split(' ').map(|word| if word.starts_with("FILE") { &file } else { word }).collect();
        if !kind.contains("FILE") {
            return Ok(Stallstat::start(&args));
        }
        let stallstat = Stallstat::start_as(&[&args[..], &["-i", "100ms"]].concat());
        // By then the file has more than a heading.
        eventually("turns are written", || (fs::metadata(&path).ok()?.len() > 4096).then_some(()));
        Ok(stallstat)
    };
    let turns = Turns::take(effort.choose(4, 10), effort, start)?;
    let bound_text = bound.map_or("none".to_string(), |bound| format!("ratio at most {bound}"));
    let met = bound.map(|bound| turns.ratio() <= bound);
    Ok(vec![Line { met, ..Line::new(ratio_name(kind), turns.to_string(), bound_text, true) }])
}

const CROWD: &str = "stallstat, 10,000 tasks";

/// Counts tasks that sleep when stallstat starts. Each has to run once more when it is killed.
fn crowd() -> Result<Vec<Line>> {
    let crowd = Load::start(Role::Sleep, TASKS, Cpu(0))?;
    let mut stallstat = Stallstat::start(&["-d", "-C"]);
    drop(crowd);
    let report = stallstat.report();
    let memory = process::memory(stallstat.pid())?;
    let (rows, lost) = (report.rows("latency").len(), report.not_counted());
    Ok(vec![
        Line::new(
            format!("{CROWD}: lost"),
            format!("{lost} events not counted, {rows} tasks shown"),
            "none, and all of them",
            lost == 0 && rows >= TASKS,
        ),
        Line::new(
            format!("{CROWD}: memory"),
            format!("RSS {} KiB, peak {} KiB", memory.resident_kib, memory.peak_kib),
            format!("peak {MOST_KIB} KiB"),
            memory.peak_kib <= MOST_KIB,
        ),
    ])
}

/// Compares a wait as stallstat shows it with the victim's own account.
fn long_wait(effort: &Effort) -> Result<Vec<Line>> {
    let seconds = effort.choose("5", "30");
    let mut stallstat = Stallstat::start(&["-d", "-C"]);
    let mut rig = Rig::start(&["--for", seconds, "--victim", "spin:1:waiter"]);
    let victim = rig.event("victim");
    let end = rig.event("end victim");
    let own = end.moment("first_ran_after") - victim.moment("since");
    let report = stallstat.report();
    let shown = report.of_task("latency", victim.tid()).time("max_ns");
    let off = (shown.0 as f64 - own.0 as f64).abs() * 100.0 / own.0 as f64;
    Ok(vec![Line::new(
        format!("stallstat, a wait of {seconds} s"),
        format!("shown as {:.3} s, {off:.4} % off", millis(shown) / 1e3),
        "5 % off",
        off <= 5.0,
    )])
}

const START: &str = "stallstat, start to report";

/// Measures the time from the start to the first report, without the interval.
fn start_to_report(effort: &Effort) -> Result<Vec<Line>> {
    const INTERVAL: Nanos = Nanos::from_millis(10);
    let mut times = Vec::new();
    for _ in 0..effort.choose(5, 11) {
        let start = clock::monotonic();
        let mut command = Command::new(stallstat::path());
        command.args(["--json", "-1", "-i", "10ms"]);
        let (at, _) = Program::start("stallstat", command).line_with("{\"time\":");
        times.push(millis(at - start - INTERVAL));
    }
    let line = Line::new(
        START,
        format!("{:.1} ms (median of {}), less the interval", median(&times), times.len()),
        "none",
        true,
    );
    Ok(vec![Line { met: None, ..line }])
}
