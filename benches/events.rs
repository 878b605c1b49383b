//! The time that queue_track adds to each scheduler event. The kernel's own account has the time of
//! the programs of a running daemon. The time of programs that do nothing at the same events is
//! subtracted. stallstat is measured in the same way.

use crate::figures::{Effort, Line, Row, median};
use crate::load::{Load, Role, pin};
use crate::pipe::{PingPong, be_realtime};
use crate::process;
use rig::{Stalld, hogged_cpu};
use stalld::error::{Context, Error, Result};
use stalld::sys::bpf::{self, BpfObject, ObjectBytes, Program, Runs};
use stalld::sys::clock;
use stalld::task::{Cpu, Nanos, Tid};
use std::os::fd::OwnedFd;
use std::thread;

pub static EMPTY: &ObjectBytes<[u8]> = &ObjectBytes(rig::bpf::EMPTY);

const TIMEOUT: Nanos = Nanos::from_secs(30);
const BOUND_NS: f64 = 70.0;
const ROW: &str = "queue_track, above an empty program";

pub fn rows() -> Vec<Row> {
    vec![Row::new(ROW, measure)]
}

fn measure(effort: &Effort) -> Result<Vec<Line>> {
    let mut stalld = Stalld::start(&["-v", "-l", "-b", "queue_track"]);
    stalld
        .wait_for(|record| record.message().contains("events are being recorded"), TIMEOUT)
        .ok_or_else(|| Error::new("queue_track was never attached"))?;
    above_empty(ROW, stalld.pid(), BOUND_NS, effort)
}

/// Measures the programs that a process keeps attached to both events.
pub fn above_empty(row: &str, pid: Tid, bound_ns: f64, effort: &Effort) -> Result<Vec<Line>> {
    let _counting = bpf::count_runs().context("have the kernel count the runs of BPF programs")?;
    let cpu = hogged_cpu();
    let wakeup = Pair::attach(pid, "sched_wakeup", c"empty_wakeup")?;
    let switch = Pair::attach(pid, "sched_switch", c"empty_switch")?;
    // All work is real-time, because 2,000 tasks of the lowest weight together would take most of
    // the CPU from a fair task.
    let mut pipe = PingPong::start_realtime(cpu)?;
    let mut lines = Vec::new();
    let pairs = [&wakeup, &switch];
    for (crowd, with) in [(1, "1"), (2_000, "2,000")] {
        let _crowd = Load::start(Role::SpinIdle, crowd, cpu)?;
        let trips = effort.choose(30_000, 100_000);
        let slept = extra(&pairs, effort, || pipe.round_trips(trips).map(drop))?;
        let stayed = extra(&pairs, effort, || yield_in_turn(cpu, effort))?;
        for (event, figure) in [
            ("sched_wakeup", slept.first()),
            ("sched_switch from a task that sleeps", slept.last()),
            ("sched_switch from a task that stays queued", stayed.last()),
        ] {
            let Some(&(extra, empty)) = figure else { continue };
            lines.push(Line::new(
                format!("{row}: {event}, {with} more runnable"),
                format!("{extra:.0} ns (the empty one {empty:.0} ns)"),
                format!("{bound_ns} ns"),
                extra <= bound_ns,
            ));
        }
        if crowd > 1 {
            // Each task has a turn only every few seconds, so its data have left the caches by
            // then.
            let turns = extra(&pairs, effort, || {
                clock::nap(Nanos::from_secs(1));
                Ok(())
            })?;
            let Some(&(extra, empty)) = turns.last() else { continue };
            lines.push(Line {
                met: None,
                ..Line::new(
                    format!("{row}: sched_switch from one of {with} that take turns of a tick"),
                    format!("{extra:.0} ns (the empty one {empty:.0} ns)"),
                    "none, as it comes once a tick",
                    true,
                )
            });
        }
    }
    Ok(lines)
}

/// A program of the measured process and one that does nothing, at the same event.
struct Pair {
    keeper: Tid,
    /// The id of the program, as `bpftool prog` shows it.
    id: String,
    empty: Program,
    _attached: OwnedFd,
}

impl Pair {
    fn attach(pid: Tid, event: &str, empty: &'static std::ffi::CStr) -> Result<Pair> {
        let mut object = BpfObject::open(EMPTY, c"empty")?;
        object.load()?;
        let empty = object.take_program(empty)?;
        let attached = empty.attach().context(format!("attach to {event}"))?;
        // One process keeps both the programs and their links open, and nothing else has them.
        for keeper in process::descendants(pid)? {
            for descriptor in process::descriptors(keeper)? {
                if descriptor.get("tp_name").is_some_and(|name| name == event) {
                    let id = descriptor.get("prog_id").cloned().unwrap_or_default();
                    return Ok(Pair { keeper, id, empty, _attached: attached });
                }
            }
        }
        Err(Error::new(format!("no child of process {pid} has a link to {event}")))
    }

    /// Returns the runs of the program and of the empty one.
    fn runs(&self) -> Result<(Runs, Runs)> {
        let own = |descriptor: &std::collections::HashMap<String, String>| {
            let is_it = descriptor.contains_key("prog_type") && descriptor.get("prog_id") == Some(&self.id);
            let number = |key: &str| descriptor.get(key)?.parse().ok();
            is_it.then_some(())?;
            Some(Runs { count: number("run_cnt")?, time_ns: number("run_time_ns")? })
        };
        let found = process::descriptors(self.keeper)?.iter().find_map(own);
        let own = found.ok_or_else(|| Error::new("the kernel does not tell the runs of a program"))?;
        Ok((own, self.empty.runs().context("ask for the runs of a program")?))
    }
}

/// Repeats some work. Returns two medians for each pair, in ns a run: the time that its program
/// took more than the empty one, and the time of the empty one.
fn extra(pairs: &[&Pair], effort: &Effort, mut work: impl FnMut() -> Result<()>) -> Result<Vec<(f64, f64)>> {
    let mut samples: Vec<(Vec<f64>, Vec<f64>)> = vec![Default::default(); pairs.len()];
    for _ in 0..effort.choose(3, 7) {
        let before = pairs.iter().map(|pair| pair.runs()).collect::<Result<Vec<_>>>()?;
        work()?;
        let after = pairs.iter().map(|pair| pair.runs()).collect::<Result<Vec<_>>>()?;
        for ((before, after), (extras, empties)) in before.iter().zip(&after).zip(&mut samples) {
            let mean = |before: Runs, after: Runs| {
                (after.time_ns - before.time_ns) as f64 / (after.count - before.count) as f64
            };
            let empty = mean(before.1, after.1);
            extras.push(mean(before.0, after.0) - empty);
            empties.push(empty);
        }
    }
    Ok(samples.iter().map(|(extras, empties)| (median(extras), median(empties))).collect())
}

/// Runs two tasks that yield to each other without ever leaving the queue.
fn yield_in_turn(cpu: Cpu, effort: &Effort) -> Result<()> {
    let until = clock::monotonic() + effort.choose(Nanos::from_millis(200), Nanos::from_millis(500));
    let body = || {
        // The policy comes first: an ordinary thread would never run behind the other one on that
        // CPU, and so could not change its policy there.
        be_realtime(Tid(0))?;
        pin(cpu)?;
        while clock::monotonic() < until {
            thread::yield_now();
        }
        Ok(())
    };
    thread::scope(|scope| {
        let other = scope.spawn(body);
        let outcome = scope.spawn(body).join().and_then(|own| other.join().map(|other| own.and(other)));
        outcome.unwrap_or_else(|_| Err(Error::new("a thread has panicked")))
    })
}
