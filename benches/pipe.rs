//! What the default backend costs everybody else: two processes pass a byte to and fro on one CPU, with
//! and without stalld, in turn.

use crate::figures::{Effort, Line, Row, median};
use crate::load::{Load, Role, pin};
use crate::process;
use crate::rig::hogged_cpu;
use crate::upkeep::Daemon;
use stalld::error::{Context, Error, Result};
use stalld::sys::{clock, sched};
use stalld::task::{Cpu, Nanos, Tid};
use std::io::{Read, Write};
use std::thread;

pub fn rows() -> Vec<Row> {
    vec![
        Row::new("default backend, links and programs", |_| links()),
        Row::new("default backend, sched-pipe with / without", ratio),
    ]
}

/// What of BPF the daemon and its children hold open.
fn links() -> Result<Vec<Line>> {
    let daemon = Daemon::start(&[])?;
    let mut processes = process::descendants(daemon.pid())?;
    processes.push(daemon.pid());
    let (mut links, mut programs) = (Vec::new(), 0);
    for pid in processes {
        for descriptor in process::descriptors(pid)? {
            links.extend(descriptor.get("link_type").cloned());
            programs += u32::from(descriptor.contains_key("prog_type"));
        }
    }
    let met = links == ["iter"];
    Ok(vec![Line::new(
        "default backend, links and programs",
        format!("links: {}; {programs} programs", links.join(", ")),
        "the iterator is the only link",
        met,
    )])
}

fn ratio(effort: &Effort) -> Result<Vec<Line>> {
    let trips = effort.choose(50_000, 150_000);
    let mut pipe = PingPong::start(hogged_cpu())?;
    pipe.round_trips(trips)?;
    let (mut with, mut without, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for pair in 0..effort.choose(5, 15) {
        let mut times = [0.0; 2];
        // The order alternates, so that a host that grows faster or slower favours neither.
        for turn in [pair % 2, 1 - pair % 2] {
            let daemon = if turn == 1 { Some(Daemon::start(&[])?) } else { None };
            let time = pipe.round_trips(trips)?.0 as f64 / trips as f64 / 1e3;
            if let Some(time_of_turn) = times.get_mut(turn) {
                *time_of_turn = time;
            }
            drop(daemon);
        }
        let [time_without, time_with] = times;
        without.push(time_without);
        with.push(time_with);
        ratios.push(time_with / time_without);
    }
    let ratio = median(&ratios);
    Ok(vec![Line::new(
        "default backend, sched-pipe with / without",
        format!(
            "{ratio:.3} (median of {} pairs; {:.2} and {:.2} us a round trip)",
            ratios.len(),
            median(&with),
            median(&without)
        ),
        "ratio at most 1.03",
        ratio <= 1.03,
    )])
}

/// A byte that goes to and fro between this process and another on the same CPU: each way is a wakeup and
/// a switch.
pub struct PingPong {
    other: Load,
    cpu: Cpu,
    realtime: bool,
}

impl PingPong {
    pub fn start(cpu: Cpu) -> Result<PingPong> {
        Ok(PingPong { other: Load::start(Role::Echo, 0, cpu)?, cpu, realtime: false })
    }

    /// The same at SCHED_FIFO 1, which nobody else on that CPU can slow down.
    pub fn start_realtime(cpu: Cpu) -> Result<PingPong> {
        let pipe = PingPong::start(cpu)?;
        be_realtime(pipe.other.pid())?;
        Ok(PingPong { realtime: true, ..pipe })
    }

    /// How long so many of them take.
    pub fn round_trips(&mut self, count: u32) -> Result<Nanos> {
        let PingPong { other, cpu, realtime } = self;
        // A thread of its own, as nothing else here should stay on that CPU.
        let outcome = thread::scope(|scope| {
            let trips = || {
                if *realtime {
                    be_realtime(Tid(0))?;
                }
                pin(*cpu)?;
                let start = clock::monotonic();
                let mut byte = [1];
                for _ in 0..count {
                    other.stdin.write_all(&byte).context("write to a pipe")?;
                    other.stdout.read_exact(&mut byte).context("read from a pipe")?;
                }
                Ok(clock::monotonic() - start)
            };
            scope.spawn(trips).join()
        });
        outcome.unwrap_or_else(|_| Err(Error::new("a thread has panicked")))
    }
}

pub fn be_realtime(tid: Tid) -> Result<()> {
    sched::set_fifo(tid, 1).context("make a task SCHED_FIFO")
}
