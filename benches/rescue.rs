//! How soon a starving task runs: from the moment its wait reaches the threshold to its own first look at the
//! clock. The daemon is as it is by default, and stalld's own times count for nothing.

use crate::figures::{Effort, Line, Row, median, millis, quantile};
use crate::lateness::random;
use rig::{Event, Rig, boosts};
use stalld::error::{Error, Result};
use stalld::sys::clock;
use stalld::task::Nanos;

pub const THRESHOLD: Nanos = Nanos::from_secs(2);

pub fn rows() -> Vec<Row> {
    vec![
        Row::new("first progress of a victim, -t 2", one),
        Row::new("first progress of the last of 16 on a CPU, -t 2", sixteen),
    ]
}

fn one(effort: &Effort) -> Result<Vec<Line>> {
    let starts = effort.choose(10, 100);
    let _stalld = boosts::start(&["-t", "2"]);
    let mut late = Vec::new();
    for _ in 0..starts {
        // At any phase of stalld's sleep.
        clock::nap(Nanos(random() % THRESHOLD.0));
        late.extend(starve(1, "2.5").into_iter().flatten());
    }
    let never = starts - late.len();
    let earliest = quantile(&late, 0.0);
    let (p50, p95) = (median(&late), quantile(&late, 0.95));
    let (p99, max) = (quantile(&late, 0.99), quantile(&late, 1.0));
    Ok(vec![Line::new(
        "first progress of a victim, -t 2",
        format!(
            "p50 {p50:.2}, p95 {p95:.2}, p99 {p99:.2}, max {max:.2}, earliest {earliest:.2} ms, {never} of {starts} never"
        ),
        "p95 20 ms, max 60 ms, none early",
        never == 0 && earliest >= 0.0 && p95 <= 20.0 && max <= 60.0,
    )])
}

fn sixteen(effort: &Effort) -> Result<Vec<Line>> {
    let starts = effort.choose(2, 6);
    let _stalld = boosts::start(&["-t", "2"]);
    let (mut last, mut never) = (Vec::new(), 0);
    for _ in 0..starts {
        let late = starve(16, "4");
        never += late.iter().filter(|late| late.is_none()).count();
        last.extend(late.into_iter().flatten().max_by(f64::total_cmp));
    }
    if last.is_empty() {
        return Err(Error::new("no victim was ever rescued"));
    }
    let (p50, max) = (median(&last), quantile(&last, 1.0));
    Ok(vec![Line::new(
        "first progress of the last of 16 on a CPU, -t 2",
        format!("p50 {p50:.1}, max {max:.1} ms of {starts} starts, {never} victims never"),
        "max 1200 ms, all have run",
        never == 0 && max <= 1200.0,
    )])
}

/// Lets so many starve: how long after its threshold each ran, in ms, if it did while the hog was there.
pub fn starve(victims: usize, seconds: &str) -> Vec<Option<f64>> {
    let mut rig = Rig::start(&["--for", seconds, "--victim", &format!("spin*{victims}")]);
    let hog = rig.event("hog");
    let waits = rig.events("victim", victims);
    let ends = rig.events("end victim", victims);
    let late = |(wait, end): (&Event, &Event)| {
        rescued_at(&hog, end).map(|at| millis(at) - millis(wait.moment("since") + THRESHOLD))
    };
    waits.iter().zip(&ends).map(late).collect()
}

/// When a victim first ran, by its own account. A victim that nobody has rescued runs when the hog has ended.
pub fn rescued_at(hog: &Event, end: &Event) -> Option<Nanos> {
    let ran = end.text("first_ran_after") != "never";
    ran.then(|| end.moment("first_ran_after")).filter(|&at| at < hog.moment("until"))
}
