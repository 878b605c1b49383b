//! What the rescue costs the task that holds the CPU: how long a hog is kept from it, and how long a pulse
//! of FIFO emulation is.

use crate::figures::{Effort, Line, Row, median, millis, quantile};
use crate::process;
use crate::rescue::rescued_at;
use rig::{Rig, boosts};
use stalld::error::{Error, Result};
use stalld::task::{Nanos, Tid};
use std::collections::HashMap;

/// Victims on the hog's CPU, and the longest gap in ms that the hog is asked to bear for them. That of none
/// is what the machine itself does to it.
const CROWDS: [(usize, f64); 4] = [(0, 3.0), (1, 6.0), (16, 10.0), (200, 10.0)];

/// So much of any second.
const LOST_PERCENT: f64 = 3.0;

pub fn rows() -> Vec<Row> {
    let mut rows: Vec<Row> = CROWDS
        .into_iter()
        .map(|(victims, bound)| Row::new(hog_name(victims), move |effort| hog(victims, bound, effort)))
        .collect();
    rows.push(Row::new(PULSES, pulses));
    rows
}

fn hog_name(victims: usize) -> String {
    format!("what a hog loses to {victims} victims, -t 2")
}

fn hog(victims: usize, bound: f64, effort: &Effort) -> Result<Vec<Line>> {
    let _stalld = boosts::start(&["-t", "2"]);
    let spec = format!("spin*{victims}");
    let cast = if victims == 0 { vec!["--alone"] } else { vec!["--victim", &spec] };
    let mut rig = Rig::start(&[&["--for", effort.choose("8", "30")], &cast[..]].concat());
    let hog = rig.event("hog");
    let end = rig.event("end hog");
    let ends = rig.events("end victim", victims);
    let rescued = ends.iter().filter(|end| rescued_at(&hog, end).is_some()).count();
    let gap = millis(end.moment("longest_gap_ns"));
    // A second has 1000 ms.
    let lost = millis(end.moment("most_lost_in_a_second_ns")) / 10.0;
    Ok(vec![Line::new(
        hog_name(victims),
        format!(
            "longest gap {gap:.2} ms, at most {lost:.2} % of a second, {rescued} of {victims} victims have run"
        ),
        format!("gap {bound} ms, {LOST_PERCENT} % of any second, each has run"),
        gap <= bound && lost <= LOST_PERCENT && rescued == victims,
    )])
}

const PULSES: &str = "length of a pulse, -F -r 20us";
const PULSES_MAX: f64 = 100.0;

/// As many at once as have room in a period: they start 20 ms apart, so no two pulses meet.
const PULSED: usize = 10;
const PERIOD: Nanos = Nanos::from_millis(200);

/// The victim computes whenever it is let, and of those above FIFO 98 only the guardian takes its CPU, for a
/// moment: so it runs for as long as it is there. How long that was is the kernel's own account of it, read each
/// time stalld tells that a pulse is over. An observer of its policy would see nothing: stalld spins through a
/// pulse at FIFO 99, on the CPU that is left for observers.
fn pulses(effort: &Effort) -> Result<Vec<Line>> {
    let wanted = effort.choose(80, 400);
    let mut stalld = boosts::start(&["-F", "-r", "20us", "-p", "200ms", "-d", "10", "-t", "10"]);
    let mut rig = Rig::start(&["--for", "25", "--victim", &format!("spin*{PULSED}")]);
    let mut ran: HashMap<Tid, Nanos> = HashMap::new();
    for victim in rig.events("victim", PULSED) {
        ran.insert(victim.tid(), process::computed(victim.tid())?);
    }
    let mut lengths = Vec::new();
    while lengths.len() < wanted {
        let (_, line) = stalld.line_with("using SCHED_FIFO");
        let tid = line.split_once("boosted pid ").and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
        let Some((tid, before)) = tid.map(Tid).and_then(|tid| Some((tid, ran.get_mut(&tid)?))) else {
            continue;
        };
        let now = process::computed(tid)?;
        lengths.push((now - *before).0 as f64 / 1e3);
        *before = now;
    }
    let idle = lengths.iter().filter(|&&length| length == 0.0).count();
    if idle == lengths.len() {
        return Err(Error::new("no victim ran in any pulse"));
    }
    let (p50, p99, max) = (median(&lengths), quantile(&lengths, 0.99), quantile(&lengths, 1.0));
    Ok(vec![Line::new(
        PULSES,
        format!(
            "p50 {p50:.1}, p99 {p99:.1}, max {max:.1} us of {wanted} pulses, {idle} of them without a run"
        ),
        format!("p99 {PULSES_MAX} us, never a period of {} ms", PERIOD.as_millis()),
        p99 <= PULSES_MAX && max < millis(PERIOD) * 1e3,
    )])
}
