//! The cost of the daemon while no task starves: CPU time, memory, and the time that it needs to
//! start.

use crate::figures::{Effort, Line, Row, median, millis, quantile};
use crate::load::{Load, Role};
use crate::process;
use rig::{self, Stalld, hogged_cpu};
use stalld::error::{Error, Result};
use stalld::sys::clock;
use stalld::task::{Cpu, Nanos, Tid};
use std::fs;
use std::path::PathBuf;

const START_TIMEOUT: Nanos = Nanos::from_secs(30);

/// Delay after the start of a daemon, because its first scan follows its pidfile.
const SETTLE_TIME: Nanos = Nanos::from_millis(300);

/// Interval between two readings of the CPU time. Scans are further apart at the default
/// granularity.
const READ_INTERVAL: Nanos = Nanos::from_millis(500);

/// Limit on the time between two scans: many times the default granularity.
const SCAN_TIMEOUT: Nanos = Nanos::from_secs(60);

/// Share of its time that a CPU must be idle around a scan. A scan on a busy CPU meets waiters, and
/// walks all threads because of them.
const QUIET_SHARE: f64 = 0.9;

/// Limit on the number of scans for each one on idle CPUs.
const MAX_SCANS_PER_QUIET_ONE: usize = 5;

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

/// A daemon in the foreground with its default options.
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
        let until = clock::monotonic() + START_TIMEOUT;
        while !pidfile.exists() {
            if clock::monotonic() > until {
                return Err(Error::new("stalld did not start"));
            }
            clock::nap(Nanos::from_millis(1));
        }
        clock::nap(SETTLE_TIME);
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
    // The spinner on the hogged CPU is a part of the measurement.
    let spinner = sleepers.map(|_| hogged_cpu());
    let wanted = effort.choose(3, 20);
    let mut costs = Vec::new();
    Scan::next(daemon.pid(), spinner)?;
    let start = clock::monotonic();
    let mut scans = 0;
    while costs.len() < wanted {
        if scans >= MAX_SCANS_PER_QUIET_ONE * wanted {
            return Err(Error::new(format!(
                "the machine is too busy: of {scans} scans {} met idle CPUs; end what else runs",
                costs.len()
            )));
        }
        let scan = Scan::next(daemon.pid(), spinner)?;
        costs.extend(scan.quiet.then_some(scan.micros));
        scans += 1;
    }
    let a_second = scans as f64 * 1e3 / millis(clock::monotonic() - start);
    let scan = median(&costs);
    let micros = scan * a_second;
    Ok(vec![Line::new(
        format!("CPU time, {what}"),
        format!(
            "{micros:.1} us a second ({a_second:.2} scans of {scan:.1} us, median of {wanted} on idle CPUs, {:.1} to {:.1})",
            quantile(&costs, 0.0),
            quantile(&costs, 1.0)
        ),
        format!("{bound} us"),
        micros <= bound,
    )])
}

struct Scan {
    /// CPU time of the daemon.
    micros: f64,
    /// The CPUs were idle, so that the scan met no waiter of another program.
    quiet: bool,
}

impl Scan {
    /// Waits for the next scan.
    fn next(pid: Tid, spinner: Option<Cpu>) -> Result<Scan> {
        let until = clock::monotonic() + SCAN_TIMEOUT;
        let mut before = process::cpu_time(pid)?;
        while clock::monotonic() < until {
            let (start, idle) = (clock::monotonic(), process::idle_time(spinner)?);
            clock::nap(READ_INTERVAL);
            let spent = process::cpu_time(pid)? - before;
            let (idle, passed) = (process::idle_time(spinner)? - idle, clock::monotonic() - start);
            before = before + spent;
            if spent > Nanos::ZERO {
                let cpus = rig::online().len() as u64 - u64::from(spinner.is_some());
                let quiet = idle.0 as f64 >= QUIET_SHARE * (cpus * passed.0) as f64;
                return Ok(Scan { micros: millis(spent) * 1e3, quiet });
            }
        }
        Err(Error::new(format!("stalld did not scan for {} s", SCAN_TIMEOUT.as_secs())))
    }
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

/// Scans a hundred times a second a CPU on which three tasks take turns, so that each scan walks
/// all threads.
fn growth(effort: &Effort) -> Result<Vec<Line>> {
    let scans = effort.choose(1_000, 10_000);
    let _busy = Load::start(Role::Spin, 3, hogged_cpu())?;
    let daemon = Daemon::start(&["-t", "10ms", "-g", "10ms"])?;
    // The daemon allocates the memory for the results of a scan when it first needs it.
    clock::nap(Nanos::from_secs(2));
    let before = process::memory(daemon.pid())?;
    clock::nap(Nanos::from_millis(10) + Nanos(scans * 10_000_000));
    let after = process::memory(daemon.pid())?;
    let grown = after.anonymous_kib as i64 - before.anonymous_kib as i64;
    Ok(vec![Line::new(
        format!("memory, growth over {scans} scans"),
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
        times.push(millis(stalld.scan() - start));
    }
    let time = median(&times);
    Ok(vec![Line::new(
        "start to ready",
        format!("{time:.1} ms (median of {})", times.len()),
        "100 ms",
        time <= 100.0,
    )])
}
