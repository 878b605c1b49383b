//! The CPU time that boosts take from a hog: the length of each hold, and the loss in the worst
//! second. A hold is a time in which other tasks have the hog's CPU.
//!
//! The kernel's tracer measures it. A hog can't: a gap in its own loop may also be an interrupt, or
//! time that the hypervisor gave to another guest.

use crate::figures::{Effort, Line, Row, grouped, median, millis, quantile};
use crate::holds::{Account, Cast, Hold, Loss, Part};
use crate::process;
use crate::tracer::{Scope, Trace, Tracer};
use rig::boosts::guardian;
use rig::{Rig, boosts, hogged_cpu, keep_away_from_the_hog};
use stalld::error::{Error, Result};
use stalld::proc;
use stalld::sys::clock;
use stalld::task::Nanos;

/// Bound on the loss of any second to victims, stalld and its guardian, in percent. All budgets of
/// a CPU together are at most 2 % of it. A second that cuts a run at each end may contain one tick
/// more than a period (0.4 % at 250 Hz). The rest is a margin. Other tasks have no bound: the
/// kernel's DL server may give them 5 %.
const LOST_PERCENT: f64 = 3.0;

/// Bound on the loss of any second to victims with `Method::Bounded`, in percent.
const MAX_LOSS_PERCENT: f64 = 0.1;

/// Bound on the 99th percentile of a pulse in us. stalld ends a pulse after 200 us if the task does
/// not run. The budget is 20 us, and the restore interrupts another CPU. The rest is a margin.
const PULSE_P99_MICROS: f64 = 400.0;

/// Bound on the median of a pulse in us: the budget of 20 us, and 80 us to begin and to end it.
const PULSE_MEDIAN_MICROS: f64 = 100.0;

/// Margin above a tick for a hold by SCHED_DEADLINE, because a tick may come late.
const TICK_MARGIN: Nanos = Nanos::from_millis(1);

/// At most one hold in this many may have an end that the trace does not show.
const MAX_UNKNOWN_SHARE: usize = 10;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Method {
    Deadline,
    Pulses,
    /// In pulses, within `MAX_LOSS_PERCENT`.
    Bounded,
}

impl Method {
    fn options(self) -> &'static [&'static str] {
        match self {
            Method::Deadline => &["--boost", "deadline", "-t", "2"],
            Method::Pulses => &["-F", "-t", "2"],
            // The hog's CPU is free of stalld and its guardian, as on a host with isolated CPUs.
            Method::Bounded => &["-F", "-a", "0", "--max-loss", "0.1%", "-t", "2"],
        }
    }

    /// Returns the bound on the loss of any second, in percent, and the losses that it covers.
    fn lost(self) -> (f64, fn(&Loss) -> Nanos) {
        match self {
            // The option does not cover the guardian, which wakes for each pulse.
            Method::Bounded => (MAX_LOSS_PERCENT, |loss| loss.victims),
            _ => (LOST_PERCENT, Loss::boosts),
        }
    }

    /// Returns the bounds on the median and on the 99th percentile of a hold, in us.
    ///
    /// Without HRTICK the kernel ends a budget at the next tick, so a hold in SCHED_DEADLINE may
    /// last that long. No median is promised for it, because it depends on the phase of the tick.
    fn bounds(self) -> (Option<f64>, f64) {
        match self {
            Method::Deadline => (None, millis(clock::tick() + TICK_MARGIN) * 1e3),
            Method::Pulses | Method::Bounded => (Some(PULSE_MEDIAN_MICROS), PULSE_P99_MICROS),
        }
    }
}

/// Boosts by SCHED_DEADLINE or in pulses, and the number of victims.
const CASES: [(Method, usize); 9] = [
    (Method::Deadline, 0),
    (Method::Deadline, 1),
    (Method::Deadline, 16),
    (Method::Deadline, 200),
    (Method::Pulses, 1),
    (Method::Pulses, 16),
    (Method::Bounded, 1),
    (Method::Bounded, 16),
    (Method::Bounded, 200),
];

pub fn rows() -> Vec<Row> {
    let row =
        |(method, victims)| Row::new(name(method, victims), move |effort| loss(method, victims, effort));
    let mut rows: Vec<Row> = CASES.into_iter().map(row).collect();
    rows.push(Row::new(PULSES, pulses));
    for (runtime, bound) in [("20us", 8), ("100us", 4)] {
        rows.push(Row::new(work_name(runtime), move |_| work(runtime, bound)));
    }
    rows
}

fn name(method: Method, victims: usize) -> String {
    let noun = if victims == 1 { "victim" } else { "victims" };
    format!("a hog's loss to {victims} {noun}, {}", method.options().join(" "))
}

fn loss(method: Method, victims: usize, effort: &Effort) -> Result<Vec<Line>> {
    // A single victim has few holds in a second, and the 99th percentile needs many.
    let account = trace(method.options(), victims, effort.choose(8, if victims == 1 { 120 } else { 30 }))?;
    let served = account.victims_run();
    let (lost_percent, covered) = method.lost();
    let worst = account.worst_second(covered);
    let others = account.worst_second(|loss| loss.others).others;
    let lost = percent(covered(&worst));
    let loss = format!(
        "worst second {lost:.2} % (victims {:.2}, stalld {:.2}), of other tasks {:.2} %",
        percent(worst.victims),
        percent(worst.stalld),
        percent(others)
    );
    let whose = if method == Method::Bounded { " to victims" } else { "" };
    let bound = format!("{lost_percent} % of any second{whose}");
    if victims == 0 {
        let count = grouped(account.holds().len());
        let measured = format!("{count} holds, {}; {loss}", longest(account.holds().iter()));
        return Ok(vec![Line::new(name(method, victims), measured, bound, lost <= lost_percent)]);
    }
    let lengths = Lengths::of(&account)?;
    let (hold_bound, met) = lengths.judge(method);
    Ok(vec![Line::new(
        name(method, victims),
        format!("{}; {loss}; {served} of {victims} victims ran", lengths.text),
        format!("{hold_bound}; {bound}; each victim ran"),
        met && lost <= lost_percent && served == victims,
    )])
}

const PULSES: &str = "length of a pulse, -F -r 20us";
const PULSE_OPTIONS: [&str; 9] = ["-F", "-r", "20us", "-p", "200ms", "-d", "10", "-t", "10"];

/// The number of victims. Boosts start 20 ms apart, so ten fit into a period of 200 ms, and no two
/// pulses overlap.
const PULSED: usize = 10;

/// Each victim computes for as long as it has the CPU, so its hold is as long as its pulse.
fn pulses(effort: &Effort) -> Result<Vec<Line>> {
    let account = trace(&PULSE_OPTIONS, PULSED, effort.choose(13, 20))?;
    let served = account.victims_run();
    let lengths = Lengths::of(&account)?;
    let (bound, met) = lengths.judge(Method::Pulses);
    Ok(vec![Line::new(
        PULSES,
        format!("{}; {served} of {PULSED} victims ran", lengths.text),
        format!("{bound}; each victim ran"),
        met && served == PULSED,
    )])
}

/// The work of the victim whose time is measured.
const WORK: Nanos = Nanos::from_millis(2);

/// The longest time that a victim may take for it, beyond the bound.
const WORK_TIMEOUT: Nanos = Nanos::from_secs(70);

/// The time between two readings of the victim's CPU time.
const READ_INTERVAL: Nanos = Nanos::from_millis(20);

fn work_name(runtime: &str) -> String {
    format!("2 ms of work behind a hog, -F --max-loss 0.1% -r {runtime} -t 30 -d 30")
}

/// Measures how long a starving task takes from its first pulse until it has used `WORK` of CPU
/// time.
fn work(runtime: &'static str, bound: u64) -> Result<Vec<Line>> {
    let _stalld = boosts::start(&["-F", "--max-loss", "0.1%", "-r", runtime, "-t", "30", "-d", "30"]);
    let mut rig = Rig::start(&["--for", "75", "--victim", "spin"]);
    let victim = rig.event("victim").tid();
    let used = || proc::cpu_time(victim).unwrap_or_default();
    let (before, begun) = (used(), clock::monotonic());
    let mut first = None;
    while used() < before + WORK && clock::monotonic() < begun + WORK_TIMEOUT {
        if used() > before {
            first.get_or_insert(clock::monotonic());
        }
        clock::nap(READ_INTERVAL);
    }
    let Some(first) = first else { return Err(Error::new("the victim was given no CPU")) };
    let (took, done) = (clock::monotonic() - first, used() - before);
    let measured = format!("{:.1} s for {:.2} ms", millis(took) / 1e3, millis(done));
    let met = done >= WORK && took <= Nanos::from_secs(bound);
    Ok(vec![Line::new(work_name(runtime), measured, format!("{bound} s"), met)])
}

/// Traces the hogged CPU for as long as the hog holds it, beside a stalld with these options.
fn trace(options: &[&str], victims: usize, seconds: u32) -> Result<Account> {
    let stalld = boosts::start(options);
    let cpu = hogged_cpu();
    let tracer = Tracer::start(Scope::switches_of(cpu), Vec::new(), keep_away_from_the_hog)?;
    let (spec, seconds) = (format!("spin*{victims}"), seconds.to_string());
    let cast = if victims == 0 { vec!["--alone"] } else { vec!["--victim", &spec] };
    let mut rig = Rig::start(&[&["--for", &seconds], &cast[..]].concat());
    let hog = rig.event("hog");
    let cast = Cast {
        hog: hog.tid(),
        victims: rig.events("victim", victims).iter().map(|victim| victim.tid()).collect(),
        stalld: process::threads(&[stalld.pid(), guardian(&stalld)])?,
    };
    // This is longer than the rig waits for an event.
    clock::sleep_until(hog.moment("until"));
    rig.event("end hog");
    let Trace { sink: events, lost, .. } = tracer.end()?;
    let account = Account::new(&events, lost, cpu, &cast, (hog.moment("at"), hog.moment("until")))?;
    let (unknown, known) = (account.unknown(), account.holds().len());
    match unknown <= known / MAX_UNKNOWN_SHARE {
        true => Ok(account),
        false => Err(Error::new(format!(
            "the trace does not show the end of {unknown} holds beside {known} others"
        ))),
    }
}

/// The lengths of the holds in which a victim ran.
struct Lengths {
    median: f64,
    p99: f64,
    text: String,
}

impl Lengths {
    fn of(account: &Account) -> Result<Lengths> {
        let holds = || account.holds().iter().filter(|hold| hold.has(Part::Victim));
        let micros: Vec<f64> = holds().map(|hold| millis(hold.length()) * 1e3).collect();
        if micros.is_empty() {
            return Err(Error::new("no victim ever had the CPU while the hog wanted it"));
        }
        let (median, p99) = (median(&micros), quantile(&micros, 0.99));
        let count = grouped(micros.len());
        let text = format!("{count} holds, p50 {median:.0}, p99 {p99:.0} us, {}", longest(holds()));
        Ok(Lengths { median, p99, text })
    }

    fn judge(&self, method: Method) -> (String, bool) {
        let (median, p99) = method.bounds();
        let met = median.is_none_or(|bound| self.median <= bound) && self.p99 <= p99;
        let median = median.map(|bound| format!("p50 {bound:.0}, ")).unwrap_or_default();
        (format!("{median}p99 {p99:.0} us, no bound on the longest"), met)
    }
}

/// Describes the longest hold. It has no bound, because the time in which the hypervisor stops the
/// CPU counts as a part of a hold.
fn longest<'a>(holds: impl Iterator<Item = &'a Hold>) -> String {
    match holds.max_by_key(|hold| hold.length()) {
        Some(hold) => {
            let task = hold.longest_task().map(|name| name.to_string()).unwrap_or_default();
            format!("longest {:.0} us by '{task}'", millis(hold.length()) * 1e3)
        }
        None => "no longest one".to_string(),
    }
}

/// Returns a part of a second in percent.
fn percent(of_a_second: Nanos) -> f64 {
    millis(of_a_second) / 10.0
}
