//! The cost of the default backend for other programs: two processes pass a byte to and fro on one
//! CPU, with and without stalld, in turn.

use crate::figures::{Effort, Line, Row, median};
use crate::load::{Load, Role, pin};
use crate::process;
use crate::upkeep::Daemon;
use rig::hogged_cpu;
use stalld::error::{Context, Error, Result};
use stalld::sys::{clock, sched};
use stalld::task::{Cpu, Nanos, Tid};
use std::fmt;
use std::io::{Read, Write};
use std::thread;

pub fn rows() -> Vec<Row> {
    vec![
        Row::new("default backend, links and programs", |_| links()),
        Row::new("default backend, sched-pipe with / without", ratio),
    ]
}

/// Reports the BPF links and programs that the daemon and its children hold open.
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
    let turns = Turns::take(effort.choose(5, 15), effort, || Daemon::start(&[]))?;
    Ok(vec![Line::new(
        "default backend, sched-pipe with / without",
        turns.to_string(),
        "ratio at most 1.03",
        turns.ratio() <= 1.03,
    )])
}

/// The time of round trips with and without another program beside them, measured in turn.
pub struct Turns {
    /// The time without the program and with it, in us.
    pairs: Vec<[f64; 2]>,
}

impl Turns {
    pub fn take<T>(pairs: usize, effort: &Effort, start: impl Fn() -> Result<T>) -> Result<Turns> {
        let trips = effort.choose(50_000, 150_000);
        let mut pipe = PingPong::start(hogged_cpu())?;
        pipe.round_trips(trips)?;
        let mut taken = Vec::new();
        for pair in 0..pairs {
            let mut times = [0.0; 2];
            // The order alternates, so that a host that grows faster or slower favours neither.
            for turn in [pair % 2, 1 - pair % 2] {
                let started = if turn == 1 { Some(start()?) } else { None };
                let time = pipe.round_trips(trips)?.0 as f64 / trips as f64 / 1e3;
                if let Some(time_of_turn) = times.get_mut(turn) {
                    *time_of_turn = time;
                }
                drop(started);
            }
            taken.push(times);
        }
        Ok(Turns { pairs: taken })
    }

    pub fn ratio(&self) -> f64 {
        self.median(|[without, with]| with / without)
    }

    fn median(&self, of: impl Fn([f64; 2]) -> f64) -> f64 {
        median(&self.pairs.iter().map(|&pair| of(pair)).collect::<Vec<_>>())
    }
}

impl fmt::Display for Turns {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(
            f,
            "{:.3} (median of {} pairs; {:.2} and {:.2} us a round trip)",
            self.ratio(),
            self.pairs.len(),
            self.median(|[_, with]| with),
            self.median(|[without, _]| without)
        )
    }
}

/// A byte that two processes on one CPU pass to and fro. Each way takes a wakeup and a switch.
pub struct PingPong {
    other: Load,
    cpu: Cpu,
    realtime: bool,
}

impl PingPong {
    pub fn start(cpu: Cpu) -> Result<PingPong> {
        Ok(PingPong { other: Load::start(Role::Echo, 0, cpu)?, cpu, realtime: false })
    }

    /// Starts it at SCHED_FIFO 1, so that ordinary tasks on that CPU do not slow it down.
    pub fn start_realtime(cpu: Cpu) -> Result<PingPong> {
        let pipe = PingPong::start(cpu)?;
        be_realtime(pipe.other.pid())?;
        Ok(PingPong { realtime: true, ..pipe })
    }

    /// Returns the time that this many round trips take.
    pub fn round_trips(&mut self, count: u32) -> Result<Nanos> {
        let PingPong { other, cpu, realtime } = self;
        // Only this thread moves to that CPU, because no other one of this process should stay
        // there.
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
