//! `stallstat jitter`: how late timers are, as a table.

use crate::error::{Context, Result};
use crate::stat::collector::online;
use crate::stat::histogram::Histogram;
use crate::stat::interval_tables::{time_columns, times_of};
use crate::stat::options::Options;
use crate::stat::report::IntervalReport;
use crate::stat::screen::Screen;
use crate::stat::table::{Subject, Table};
use crate::stat::timer_probe;
use crate::sys::clock;
use crate::sys::signal::{Signal, Signals};
use crate::task::{Cpu, Nanos};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// A histogram for each CPU. Its lock is rarely contended.
type LatenessByCpu = BTreeMap<Cpu, Mutex<Histogram>>;

/// The run time if the options set none.
const FOR_EVER: Nanos = Nanos::from_secs(100 * 365 * 24 * 3600);

pub(super) fn run(options: &Options) -> Result<()> {
    let signals = Signals::hold().context("hold signals back")?;
    let cpus = options.cpus.clone().unwrap_or_else(online);
    let lateness: Arc<LatenessByCpu> = Arc::new(cpus.iter().map(|cpu| (cpu, Mutex::default())).collect());
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
    let measuring = thread::spawn(move || timer_probe::run(&cpus, period, time, priority, &sink));
    let mut since = clock::monotonic();
    let end = since + time;
    loop {
        // The last report covers all that is left, so that no very short report follows it.
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
            IntervalReport { length: now - since, tables: vec![table(&lateness)], more: Vec::new(), lost: 0 };
        since = now;
        if is_over && !interrupted {
            // The measurement may have failed.
            measuring.join().unwrap_or(Ok(()))?;
            return report.show(options, &mut screen);
        }
        report.show(options, &mut screen)?;
        if interrupted {
            return Ok(());
        }
    }
}

/// Returns a table of the delays since the last call, and resets the histograms.
fn table(lateness: &LatenessByCpu) -> Table {
    let take = |histogram: &Mutex<Histogram>| {
        std::mem::take(&mut *histogram.lock().unwrap_or_else(PoisonError::into_inner))
    };
    let rows =
        lateness.iter().map(|(&cpu, histogram)| (Subject::Cpu(cpu), times_of(&take(histogram)).into()));
    Table { name: "timers late", columns: time_columns(), order: 0, rows: rows.collect(), bands: false }
}
