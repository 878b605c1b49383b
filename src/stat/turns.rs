//! Follows the turns of all CPUs, for `hogs`, `record` and `trace`. A turn is the time that a task
//! runs on a CPU between two context switches.

use super::NAME;
use super::bpf_abi::turn;
use super::collector::{Collector, Plan};
use super::options::Options;
use super::perf::Named;
use super::topology::Topology;
use crate::command_line::complain;
use crate::error::{Context, Result};
use crate::proc;
use crate::sys::clock;
use crate::sys::signal::{Signal, Signals};
use crate::task::Nanos;
use std::fs;
use std::process::ExitCode;

/// A receiver of turns.
pub(super) trait TurnSink {
    fn turn(&mut self, turn: &turn) -> Result<()>;

    /// Ends an interval in which `lost` turns were lost.
    fn interval(&mut self, length: Nanos, lost: u64) -> Result<()>;
}

/// The interval between two reads of the queue of turns, which holds half a second of turns.
const READ: Nanos = Nanos::from_millis(50);

/// The number of entries for tasks that start and end within an interval.
const SPARE_TASKS: u32 = 8192;

/// Returns the number of entries for tasks: twice the present tasks, and spare ones.
pub(super) fn room_for_tasks() -> u32 {
    let tasks = fs::read("/proc/loadavg").ok().and_then(|text| proc::text::tasks(&text)).unwrap_or_default();
    tasks.saturating_mul(2).saturating_add(SPARE_TASKS)
}

/// Passes all turns to `sink` until the run time is over or a signal comes. A long turn is passed
/// in pieces of length `piece`.
pub(super) fn follow(
    options: &Options,
    topology: &Topology,
    events: &[Named],
    piece: Nanos,
    sink: &mut impl TurnSink,
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
            // This frees the entries of tasks that have ended.
            collector.begin_interval()?;
            collector.read(|_, _| ())?;
            (since, lost) = (now, dropped);
        }
        if is_over {
            return Ok(());
        }
    }
}

/// Warns that turns are missing in a file.
pub(super) fn warn_missing(lost: u64) {
    if lost > 0 {
        let message = format!("{lost} turns are missing: they came faster than they could be read");
        complain(NAME, &message, ExitCode::SUCCESS);
    }
}

/// Returns when a turn began; `None` if the start was not seen.
pub(super) fn start(turn: &turn) -> Option<Nanos> {
    (turn.length > 0).then(|| Nanos(turn.end) - Nanos(turn.length))
}
