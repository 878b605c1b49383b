//! Turns one by one, as they end: what `hogs`, `record` and `trace` are made of.

use super::NAME;
use super::collector::{Collector, Plan};
use super::options::Options;
use super::perf::Named;
use super::records::turn;
use super::topology::Topology;
use crate::command_line::complain;
use crate::error::{Context, Result};
use crate::proc;
use crate::sys::clock;
use crate::sys::signal::{Signal, Signals};
use crate::task::Nanos;
use std::fs;
use std::process::ExitCode;

/// Who makes something of turns.
pub trait Sink {
    fn turn(&mut self, turn: &turn) -> Result<()>;

    /// An interval is over, in which as many turns were lost.
    fn interval(&mut self, length: Nanos, lost: u64) -> Result<()>;
}

/// Often enough for a buffer that has room for half a second of 100,000 turns a second.
const READ: Nanos = Nanos::from_millis(50);

/// Room for tasks that come and go within an interval.
const SPARE_TASKS: u32 = 8192;

/// As many tasks as there are now, and more.
pub fn room_for_tasks() -> u32 {
    let tasks = fs::read("/proc/loadavg").ok().and_then(|text| proc::text::tasks(&text)).unwrap_or_default();
    tasks.saturating_mul(2).saturating_add(SPARE_TASKS)
}

/// Follows all CPUs until the time is over or a signal comes. A turn that lasts is told in pieces
/// of this length.
pub fn follow(
    options: &Options,
    topology: &Topology,
    events: &[Named],
    piece: Nanos,
    sink: &mut impl Sink,
) -> Result<()> {
    let signals = Signals::hold().context("hold signals back")?;
    let plan = Plan {
        events: events.iter().map(|named| named.event).collect(),
        turns: Some(piece),
        tasks: room_for_tasks(),
        ..Plan::default()
    };
    let mut collector = Collector::open(&plan, topology)?;
    if let Some(error) = collector.without_ticks() {
        complain(
            NAME,
            &format!("turns are told at their ends, however long they take: {error}"),
            ExitCode::SUCCESS,
        );
    }
    let begun = clock::monotonic();
    let end = options.run_time.map_or(Nanos::MAX, |time| begun + time);
    let (mut since, mut lost) = (begun, 0);
    loop {
        let signal = signals.wait_until(clock::monotonic() + READ);
        let now = clock::monotonic();
        collector.turns(|turn| sink.turn(turn))?;
        let is_over = now >= end || signal == Some(Signal::End);
        if is_over || now - since >= options.interval || signal == Some(Signal::Report) {
            let dropped = collector.losses().dropped;
            sink.interval(now - since, dropped - lost)?;
            // What is of no use any more has ended.
            collector.begin_interval()?;
            collector.read(|_, _| ())?;
            (since, lost) = (now, dropped);
        }
        if is_over {
            return Ok(());
        }
    }
}

/// A file with turns missing is not what it seems.
pub fn tell_missing(lost: u64) {
    if lost > 0 {
        let message = format!("{lost} turns are missing: they came faster than they could be read");
        complain(NAME, &message, ExitCode::SUCCESS);
    }
}

/// When a turn began, where that was seen.
pub fn start(turn: &turn) -> Option<Nanos> {
    (turn.length > 0).then(|| Nanos(turn.end) - Nanos(turn.length))
}
