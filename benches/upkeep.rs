//! What the daemon takes while nothing starves: CPU time, memory, and the time it needs to start.

use crate::figures::{Effort, Line, Row, median, millis, quantile};
use crate::load::{Load, Role};
use crate::process;
use rig::{Stalld, hogged_cpu};
use stalld::error::{Error, Result};
use stalld::sys::clock;
use stalld::task::{Cpu, Nanos, Tid};
use std::fs;
use std::path::PathBuf;

const TIMEOUT: Nanos = Nanos::from_secs(30);

/// A daemon that has just started is left alone for so long: its first look follows its pidfile.
const SETTLED: Nanos = Nanos::from_millis(300);

/// Some looks at the default granularity.
const SPAN_SECS: u64 = 20;

pub fn rows() -> Vec<Row> {
    let mut rows = vec![
        Row::new("CPU time, the machine as it is", |effort| cpu(effort, None)),
        Row::new("CPU time, 5,000 threads and a busy CPU", |effort| cpu(effort, Some(5_000))),
    ];
    for backend in ["task_iter", "queue_track", "sched_debug"] {
        rows.push(Row::new(format!("memory, {backend}"), move |_| memory(backend)));
    }
    rows.push(Row::new("memory, growth", growth));
    rows.push(Row::new("start to ready", start_to_ready));
    rows
}

/// A daemon in the foreground, with no option that makes it do more than it does by default.
pub struct Daemon {
    stalld: Stalld,
    pidfile: PathBuf,
}

impl Daemon {
    pub fn start(options: &[&str]) -> Result<Daemon> {
        let pidfile = std::env::temp_dir().join(format!("stalld-bench-{}.pid", std::process::id()));
        let path = pidfile.to_string_lossy();
        let mut arguments = vec!["-f", "-l", "--pidfile", &path];
        arguments.extend(options);
        let daemon = Daemon { stalld: Stalld::start(&arguments), pidfile: pidfile.clone() };
        let until = clock::monotonic() + TIMEOUT;
        while !pidfile.exists() {
            if clock::monotonic() > until {
                return Err(Error::new("stalld did not start"));
            }
            clock::nap(Nanos::from_millis(1));
        }
        clock::nap(SETTLED);
        Ok(daemon)
    }

    pub fn pid(&self) -> Tid {
        self.stalld.pid()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.pidfile);
    }
}

fn cpu(effort: &Effort, sleepers: Option<usize>) -> Result<Vec<Line>> {
    let (bound, what) = match sleepers {
        None => (30.0, format!("{} threads", process::threads_of_all())),
        Some(count) => (60.0, format!("{count} threads more and one busy CPU")),
    };
    let _sleepers = sleepers.map(|count| Load::start(Role::Sleep, count, Cpu(0))).transpose()?;
    let _busy = sleepers.map(|_| Load::start(Role::Spin, 1, hogged_cpu())).transpose()?;
    let daemon = Daemon::start(&[])?;
    // Several spans: whatever else wakes up on this machine has a part in some of them.
    let mut spans = Vec::new();
    for _ in 0..effort.choose(1, 5) {
        let before = process::cpu_time(daemon.pid())?;
        clock::nap(Nanos::from_secs(SPAN_SECS));
        let spent = process::cpu_time(daemon.pid())? - before;
        spans.push(spent.0 as f64 / 1e3 / SPAN_SECS as f64);
    }
    let micros = median(&spans);
    Ok(vec![Line::new(
        format!("CPU time, {what}"),
        format!(
            "{micros:.1} us a second (median of {} spans of {SPAN_SECS} s, {:.1} to {:.1})",
            spans.len(),
            quantile(&spans, 0.0),
            quantile(&spans, 1.0)
        ),
        format!("{bound} us"),
        micros <= bound,
    )])
}

fn memory(backend: &str) -> Result<Vec<Line>> {
    let daemon = Daemon::start(&["-b", backend])?;
    let memory = process::memory(daemon.pid())?;
    let mut measured = format!(
        "RssAnon {} KiB, RSS {} KiB, peak {} KiB",
        memory.anonymous_kib, memory.resident_kib, memory.peak_kib
    );
    for child in process::descendants(daemon.pid())? {
        let memory = process::memory(child)?;
        measured += &format!("; child: {} and {} KiB", memory.anonymous_kib, memory.resident_kib);
    }
    let met = memory.anonymous_kib <= 1024 && memory.resident_kib <= 4096;
    Ok(vec![Line::new(format!("memory, {backend}"), measured, "RssAnon 1 MiB, RSS 4 MiB", met)])
}

/// Looks a hundred times a second at a CPU on which three tasks take turns, so that each look is a walk.
fn growth(effort: &Effort) -> Result<Vec<Line>> {
    let looks = effort.choose(1_000, 10_000);
    let _busy = Load::start(Role::Spin, 3, hogged_cpu())?;
    let daemon = Daemon::start(&["-t", "10ms", "-g", "10ms"])?;
    // Room for what a look may find is made as it is first needed.
    clock::nap(Nanos::from_secs(2));
    let before = process::memory(daemon.pid())?;
    clock::nap(Nanos::from_millis(10) + Nanos(looks * 10_000_000));
    let after = process::memory(daemon.pid())?;
    let grown = after.anonymous_kib as i64 - before.anonymous_kib as i64;
    Ok(vec![Line::new(
        format!("memory, growth over {looks} looks"),
        format!("RssAnon {} to {} KiB", before.anonymous_kib, after.anonymous_kib),
        "none",
        grown <= 0,
    )])
}

fn start_to_ready(effort: &Effort) -> Result<Vec<Line>> {
    let mut times = Vec::new();
    for _ in 0..effort.choose(5, 11) {
        let start = clock::monotonic();
        let mut stalld = Stalld::start(&["-f", "-v", "-l"]);
        let looked = stalld.wait_for(|line| line.contains("checking cpu"), TIMEOUT);
        let (at, _) = looked.ok_or_else(|| Error::new("stalld never looked"))?;
        times.push(millis(at - start));
    }
    let time = median(&times);
    Ok(vec![Line::new(
        "start to ready",
        format!("{time:.1} ms (median of {})", times.len()),
        "100 ms",
        time <= 100.0,
    )])
}
