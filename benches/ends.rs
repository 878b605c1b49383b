//! The time from a signal in the middle of a boost until stalld has ended, or until all boosts and
//! settings are restored.

use crate::figures::{Effort, Line, Row, median, millis, quantile};
use crate::lateness::random;
use rig::boosts::{OWN, journal, live_boosts, policy};
use rig::process::{eventually, has_ended, signal};
use rig::throttling::{limit, set_limit};
use rig::{Rig, TIMEOUT, boosts, keep_away_from_the_hog};
use stalld::error::{Error, Result};
use stalld::sys::clock;
use stalld::task::{Nanos, Tid};
use std::{panic, thread};

/// The number of victims: few enough that all of them are boosted until the end.
const VICTIMS: usize = 3;

/// Below a second, so that boosts begin soon. stalld then boosts outranked tasks only, as the
/// victims are.
const THRESHOLD: &str = "200ms";

pub fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for backend in ["task_iter", "queue_track", "sched_debug"] {
        rows.push(Row::new(terminated_name(backend), move |effort| terminated(backend, effort)));
    }
    rows.push(Row::new(KILLED, killed));
    rows
}

fn terminated_name(backend: &str) -> String {
    format!("SIGTERM in a boost to exit, {backend}")
}

/// Measures from just before the start of a shell, which sends the signal, until the process is
/// gone.
fn terminated(backend: &str, effort: &Effort) -> Result<Vec<Line>> {
    let mut measured = Vec::new();
    let mut met = true;
    for mode in ["-O", "-A", "-M"] {
        let mut times = Vec::new();
        for _ in 0..effort.choose(1, 4) {
            let (rig, victims) = starving();
            let stalld = boosts::start(&[mode, "-b", backend, "-t", THRESHOLD]);
            await_a_moment_of_a_boost();
            let pid = stalld.pid();
            let (took, restored) = at_once(|| {
                let sent = clock::monotonic();
                signal(pid, "TERM");
                let took = time_until(sent, || has_ended(pid));
                (took, have_own_policy(&victims))
            });
            let (code, log) = stalld.finish();
            // The guardian logs this if it had to restore the boosts after the end.
            let by_itself = !log.mentions("without cleaning up");
            met &= code == Some(0) && restored && by_itself;
            times.push(millis(took));
            drop(rig);
        }
        let max = quantile(&times, 1.0);
        met &= max <= 300.0;
        measured.push(format!("{mode} p50 {:.1}, max {max:.1} ms", median(&times)));
    }
    let verdict = if met { "all restored" } else { "exit code, restore or time is not as promised" };
    Ok(vec![Line::new(
        terminated_name(backend),
        format!("{}; {verdict}", measured.join("; ")),
        "300 ms, restored before, code 0",
        met,
    )])
}

const KILLED: &str = "SIGKILL in a boost to all as it was";

/// Measures from the system call until each victim has its own policy again, and RT throttling its
/// value.
fn killed(effort: &Effort) -> Result<Vec<Line>> {
    let wanted = effort.choose(10, 100);
    let (mut times, mut kills) = (Vec::new(), 0);
    while times.len() < wanted {
        if kills > 2 * wanted {
            return Err(Error::new("stalld is hardly ever killed in a boost"));
        }
        kills += 1;
        let (rig, victims) = starving();
        set_limit("950000");
        let mut stalld = boosts::start(&["-t", THRESHOLD]);
        await_a_moment_of_a_boost();
        let on_record = live_boosts(&journal()).next().is_some();
        let took = at_once(|| {
            let killed = clock::monotonic();
            stalld.kill();
            time_until(killed, || have_own_policy(&victims) && limit() == "950000")
        });
        // This waits for the guardian too, which has the same stderr.
        stalld.finish();
        if on_record {
            times.push(millis(took));
        }
        set_limit("-1");
        drop(rig);
    }
    let in_time = times.iter().filter(|&&time| time <= 150.0).count();
    Ok(vec![Line::new(
        KILLED,
        format!(
            "{in_time} of {wanted} in time, p50 {:.2}, p95 {:.2}, max {:.2} ms",
            median(&times),
            quantile(&times, 0.95),
            quantile(&times, 1.0)
        ),
        format!("150 ms, {wanted} of {wanted}"),
        in_time == wanted,
    )])
}

/// Starts a rig. Returns it and its starving victims.
fn starving() -> (Rig, Vec<Tid>) {
    let mut rig = Rig::start(&["--for", "10", "--victim", &format!("spin*{VICTIMS}")]);
    let victims = rig.events("victim", VICTIMS).iter().map(|victim| victim.tid()).collect();
    (rig, victims)
}

fn await_a_moment_of_a_boost() {
    let journal = journal();
    eventually("a boost is on record", || live_boosts(&journal).next().map(drop));
    // A random delay, because queue_track still attaches to the events at first.
    clock::nap(Nanos(random() % Nanos::from_millis(200).0));
}

fn have_own_policy(victims: &[Tid]) -> bool {
    victims.iter().all(|&victim| policy(victim) == Some(OWN))
}

/// Returns the time from `since` until `is_so` returns true, or until `TIMEOUT` has passed.
fn time_until(since: Nanos, is_so: impl Fn() -> bool) -> Nanos {
    while !is_so() && clock::monotonic() < since + TIMEOUT {
        clock::nap(Nanos::from_micros(100));
    }
    clock::monotonic() - since
}

/// Runs `action` on a thread that neither the hog nor an ordinary task delays.
pub fn at_once<T: Send>(action: impl FnOnce() -> T + Send) -> T {
    let on_time = || {
        keep_away_from_the_hog();
        action()
    };
    let outcome = thread::scope(|scope| scope.spawn(on_time).join());
    outcome.unwrap_or_else(|reason| panic::resume_unwind(reason))
}
