//! How soon a starving task gets the CPU after its wait has reached the threshold. The daemon has
//! its default options, and its own log doesn't count.

use crate::figures::{Effort, Line, Row, median, millis, quantile};
use crate::holds::first_wait;
use crate::lateness::random;
use crate::tracer::{Scope, Trace, Tracer};
use rig::{Event, Rig, boosts, hogged_cpu, keep_away_from_the_hog};
use stalld::error::{Error, Result};
use stalld::sys::clock;
use stalld::task::{Nanos, Tid};

pub const THRESHOLD: Nanos = Nanos::from_secs(2);

const ONE: &str = "a victim gets the CPU, -t 2";
const SIXTEEN: &str = "first progress of the last of 16 on a CPU, -t 2";

pub fn rows() -> Vec<Row> {
    vec![Row::new(ONE, one), Row::new(SIXTEEN, sixteen)]
}

/// One victim behind one hog.
struct Start {
    victim: Tid,
    /// The time in which the hog held the CPU.
    hogged: (Nanos, Nanos),
    /// The victim has read the clock in that time.
    progressed: bool,
}

/// Measures one victim by the kernel's tracer. The victim's own account misses a run in which the
/// hypervisor stops the CPU, because the budget is used up before the victim reads the clock.
fn one(effort: &Effort) -> Result<Vec<Line>> {
    let starts = effort.choose(10, 100);
    let _stalld = boosts::start(&["-t", "2"]);
    let tracer = Tracer::start(Scope::switches_of(hogged_cpu()), Vec::new(), keep_away_from_the_hog)?;
    let mut seen = Vec::new();
    for _ in 0..starts {
        // Begin at a random phase of stalld's sleep.
        clock::nap(Nanos(random() % THRESHOLD.0));
        let mut rig = Rig::start(&["--for", "2.5", "--victim", "spin"]);
        let (hog, victim, end) = (rig.event("hog"), rig.event("victim").tid(), rig.event("end victim"));
        let hogged = (hog.moment("at"), hog.moment("until"));
        seen.push(Start { victim, hogged, progressed: rescued_at(&hog, &end).is_some() });
    }
    let Trace { sink: events, lost, .. } = tracer.end()?;
    let mut late = Vec::new();
    for start in &seen {
        let wait = first_wait(&events, lost, start.victim, start.hogged)?;
        late.extend(wait.map(|wait| millis(wait) - millis(THRESHOLD)));
    }
    let never = starts - late.len();
    let progressed = seen.iter().filter(|start| start.progressed).count();
    let earliest = quantile(&late, 0.0);
    let (p50, p95) = (median(&late), quantile(&late, 0.95));
    let (p99, max) = (quantile(&late, 0.99), quantile(&late, 1.0));
    Ok(vec![Line::new(
        ONE,
        format!(
            "p50 {p50:.2}, p95 {p95:.2}, p99 {p99:.2}, max {max:.2}, earliest {earliest:.2} ms, {never} of {starts} \
             never; {progressed} read the clock before the hog ended"
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
        SIXTEEN,
        format!("p50 {p50:.1}, max {max:.1} ms of {starts} starts, {never} victims never"),
        "max 1200 ms, all have run",
        never == 0 && max <= 1200.0,
    )])
}

/// Starves this many victims. Returns how long after its threshold each one ran, in ms; `None` if
/// it did not run before the hog ended.
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

/// Returns when a victim first ran, by its own account; `None` if it did not run before the hog
/// ended.
pub fn rescued_at(hog: &Event, end: &Event) -> Option<Nanos> {
    let ran = end.text("first_ran_after") != "never";
    ran.then(|| end.moment("first_ran_after")).filter(|&at| at < hog.moment("until"))
}
