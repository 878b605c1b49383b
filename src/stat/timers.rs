//! `stallstat jitter`: how late timers are, as a table.

use super::collector::online;
use super::counted::{time_columns, times_of};
use super::histogram::Histogram;
use super::jitter;
use super::options::Options;
use super::report::Report;
use super::screen::Screen;
use super::table::{Subject, Table};
use crate::error::{Context, Result};
use crate::sys::clock;
use crate::sys::signal::{Signal, Signals};
use crate::task::{Cpu, Nanos};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// One histogram for each CPU, behind a lock that nobody else is likely to hold.
type Lateness = BTreeMap<Cpu, Mutex<Histogram>>;

/// Without an end of its own.
const FOR_EVER: Nanos = Nanos::from_secs(100 * 365 * 24 * 3600);

pub fn run(options: &Options) -> Result<()> {
    let signals = Signals::hold().context("hold signals back")?;
    let cpus = options.cpus.clone().unwrap_or_else(online);
    let lateness: Arc<Lateness> = Arc::new(cpus.iter().map(|cpu| (cpu, Mutex::default())).collect());
    let mut screen = Screen::new(options.form);
    let (period, priority) = (options.period, options.priority);
    let time = options.run_time.unwrap_or(FOR_EVER);
    let sink = Arc::new({
        let lateness = lateness.clone();
        move |cpu: Cpu, late: Nanos| {
            if let Some(histogram) = lateness.get(&cpu) {
                histogram.lock().unwrap_or_else(PoisonError::into_inner).add(late.0);
            }
            ControlFlow::Continue(())
        }
    });
    let measuring = thread::spawn(move || jitter::run(&cpus, period, time, priority, &sink));
    let mut since = clock::monotonic();
    let end = since + time;
    loop {
        // The last report is of what is left, and not of a moment behind another.
        let next = since + options.interval;
        let until = if next + Nanos(options.interval.0 / 2) < end { next } else { Nanos::MAX };
        let mut interrupted = false;
        while clock::monotonic() < until && !interrupted && !measuring.is_finished() {
            let soon = clock::monotonic() + Nanos::from_millis(50);
            interrupted = signals.wait_until(until.min(soon)) == Some(Signal::End);
        }
        let is_over = interrupted || measuring.is_finished();
        let now = clock::monotonic();
        let report =
            Report { length: now - since, tables: vec![table(&lateness)], more: Vec::new(), lost: 0 };
        since = now;
        if is_over && !interrupted {
            // It may have been refused.
            measuring.join().unwrap_or(Ok(()))?;
            return report.show(options, &mut screen);
        }
        report.show(options, &mut screen)?;
        if interrupted {
            return Ok(());
        }
    }
}

/// What was measured since the last time.
fn table(lateness: &Lateness) -> Table {
    let take = |histogram: &Mutex<Histogram>| {
        std::mem::take(&mut *histogram.lock().unwrap_or_else(PoisonError::into_inner))
    };
    let rows =
        lateness.iter().map(|(&cpu, histogram)| (Subject::Cpu(cpu), times_of(&take(histogram)).into()));
    Table { name: "timers late", columns: time_columns(), order: 0, rows: rows.collect(), bands: false }
}
