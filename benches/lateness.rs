//! The lateness of the first report of a starving task, beyond the threshold. The wait begins when
//! the task last ran, by its own account. It ends when an observer has the line of the report.
//! Times that stalld reports do not count, but the lateness of its wake-ups, as it logs that, is
//! shown beside the result.

use crate::figures::{Effort, Line, Row, median, millis, quantile};
use crate::load::{Load, Role};
use rig::{Record, Rig, Stalld};
use stalld::error::{Error, Result};
use stalld::sys::clock;
use stalld::task::{Cpu, Nanos};
use std::cell::RefCell;
use std::hash::{BuildHasher, RandomState};

const SECOND: Nanos = Nanos::from_secs(1);
const TIMEOUT: Nanos = Nanos::from_secs(30);

#[derive(Clone, Copy)]
struct Case {
    backend: &'static str,
    /// The argument of -t, and its value.
    threshold: (&'static str, Nanos),
    granularity: Option<&'static str>,
    /// Whether two ordinary tasks compute on CPU 0 meanwhile.
    busy: bool,
    bound: Bound,
    starts: usize,
}

/// Bounds on the lateness in milliseconds.
#[derive(Clone, Copy)]
struct Bound {
    p95: f64,
    max: f64,
}

pub fn rows() -> Vec<Row> {
    let exact = Bound { p95: 10.0, max: 50.0 };
    let by_scans = Bound { p95: 1050.0, max: 1050.0 };
    let two_seconds = ("2", Nanos::from_secs(2));
    let mut cases = Vec::new();
    for busy in [false, true] {
        for backend in ["task_iter", "queue_track"] {
            for threshold in [("200ms", Nanos::from_millis(200)), two_seconds] {
                // More starts for the default backend, and for thresholds that take little time.
                let starts =
                    if (backend, busy) == ("task_iter", false) || threshold.1 < SECOND { 100 } else { 40 };
                cases.push(Case { backend, threshold, granularity: None, busy, bound: exact, starts });
            }
        }
    }
    cases.push(Case {
        backend: "sched_debug",
        threshold: two_seconds,
        granularity: Some("1"),
        busy: false,
        bound: by_scans,
        starts: 20,
    });
    cases.into_iter().map(|case| Row::new(case.name(), move |effort| case.measure(effort))).collect()
}

impl Case {
    fn name(&self) -> String {
        let granularity = self.granularity.map(|g| format!(" -g {g}")).unwrap_or_default();
        let busy = if self.busy { ", two spinners on CPU 0" } else { "" };
        format!("lateness, {} -t {}{granularity}{busy}", self.backend, self.threshold.0)
    }

    fn measure(&self, effort: &Effort) -> Result<Vec<Line>> {
        let starts = effort.choose(self.starts.min(40) / 4, self.starts);
        let _busy = if self.busy { Some(Load::start(Role::Spin, 2, Cpu(0))?) } else { None };
        let mut stalld = self.start()?;
        let mut late = Vec::new();
        for start in 0..starts {
            late.extend(self.one_start(&mut stalld, start));
        }
        let woken = own_lateness(&mut stalld)?;
        let never = starts - late.len();
        let earliest = quantile(&late, 0.0);
        let (p50, p95) = (median(&late), quantile(&late, 0.95));
        let (p99, max) = (quantile(&late, 0.99), quantile(&late, 1.0));
        let Bound { p95: p95_bound, max: max_bound } = self.bound;
        Ok(vec![Line::new(
            self.name(),
            format!(
                "p50 {p50:.2}, p95 {p95:.2}, p99 {p99:.2}, max {max:.2}, earliest {earliest:.2} ms, {never} of {starts} never \
                 (says it was {woken})"
            ),
            if p95_bound < max_bound {
                format!("p95 {p95_bound} ms, max {max_bound} ms, none early")
            } else {
                format!("max {max_bound} ms, none early")
            },
            never == 0 && earliest >= 0.0 && p95 <= p95_bound && max <= max_bound,
        )])
    }

    fn start(&self) -> Result<Stalld> {
        let mut arguments = vec!["-v", "-l", "-b", self.backend, "-t", self.threshold.0];
        if let Some(granularity) = self.granularity {
            arguments.extend(["-g", granularity]);
        }
        let mut stalld = Stalld::start(&arguments);
        if self.backend == "queue_track" {
            wait_for(&mut stalld, "events are being recorded")?;
        }
        stalld.scan();
        Ok(stalld)
    }

    /// Starves one task, from a random phase of stalld's sleep. Returns how late it is reported in
    /// ms, which is negative if that is early; `None` if it is not reported while the hog runs.
    fn one_start(&self, stalld: &mut Stalld, start: usize) -> Option<f64> {
        let (_, threshold) = self.threshold;
        clock::nap(Nanos(random() % threshold.0));
        let span = threshold + SECOND + SECOND;
        let seconds = format!("{}.{}", span.as_secs(), span.as_millis() / 100 % 10);
        let victim = format!("spin:1:late-{start}");
        let mut rig = Rig::start(&["--for", &seconds, "--victim", &victim]);
        let victim = rig.event("victim");
        let others = RefCell::new(Vec::new());
        let is_it = |record: &Record| {
            let found = record.is_of("starved", victim.tid());
            if !found && record.is("starved") {
                others.borrow_mut().push(record.message().to_string());
            }
            found
        };
        let report = stalld.wait_for(is_it, span)?;
        let late = millis(report.at) - millis(victim.moment("since") + threshold);
        if late > self.bound.max {
            eprintln!("late-{start} was {late:.2} ms late, stalld reported before it: {:?}", others.take());
        }
        Some(late)
    }
}

/// Returns the lateness of stalld's wake-ups, as it logs that at SIGUSR1.
fn own_lateness(stalld: &mut Stalld) -> Result<String> {
    stalld.signal("USR1");
    let line = wait_for(stalld, "woken ")?;
    line.split_once("; woken ")
        .map(|(_, lateness)| format!("woken {lateness}"))
        .ok_or_else(|| Error::new(format!("unknown form of '{line}'")))
}

fn wait_for(stalld: &mut Stalld, words: &str) -> Result<String> {
    let found = stalld.wait_for(|record| record.message().contains(words), TIMEOUT);
    let message = found.map(|record| record.message().to_string());
    message.ok_or_else(|| Error::new(format!("stalld never logged '{words}'")))
}

/// Returns a random number, so that measurements begin at any moment of what a program does.
pub fn random() -> u64 {
    // std seeds its hash tables from the kernel.
    RandomState::new().hash_one(0)
}
