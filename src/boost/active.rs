//! A boost in flight.

use super::journal::How;
use super::plan::Raised;
use super::undo::Undone;
use crate::observe::Snapshot;
use crate::task::{Nanos, Task};

/// A pulse in which a task is not given its CPU is made again after this: for 50 ms of a second the kernel's DL
/// server may run fair tasks there, above all others [6.12], and each pulse a period later would meet it again.
pub const AGAIN: Nanos = Nanos::from_millis(5);

/// As many times in a row: a task that sleeps takes no CPU either.
pub const TRIES: u32 = 20;

pub struct Active {
    pub task: Task,
    /// How it was raised, or by the first of its pulses.
    pub raised: Raised,
    pub started: Nanos,
    pub end: Nanos,
    /// Of FIFO emulation.
    pub next_pulse: Option<Nanos>,
    /// How many of the latest pulses it was not given its CPU in.
    pub missed: u32,
    /// Something outranked it when it was boosted.
    pub outranked: bool,
}

/// How a task has just been lifted.
pub struct Lifted {
    pub how: How,
    pub raised: Raised,
    /// Whether it was given its CPU in a pulse; None where that is not known.
    pub ran: Option<bool>,
    /// Why no pulse can follow the first one.
    pub over: Option<Undone>,
}

impl Active {
    /// Whether it is this task that is boosted, and not a former bearer of its number.
    pub fn is_of(&self, task: &Task) -> bool {
        (self.task.tid, self.task.start) == (task.tid, task.start)
    }

    /// The pulse after one that is made now. What was missed before is not made up for.
    pub fn plan_pulse(&mut self, now: Nanos, ran: Option<bool>, period: Nanos) {
        let again = ran == Some(false) && self.missed < TRIES;
        self.missed = if again { self.missed + 1 } else { 0 };
        self.next_pulse = Some(now + if again { AGAIN } else { period });
    }
}

/// Whether a task that is not boosted by us keeps this one off its CPU by its rank. Of real-time tasks an
/// equal does too: it keeps the CPU until it gives it up.
pub fn outranked(task: &Task, snapshot: &Snapshot, boosted: &[Active]) -> bool {
    let rank = |prio: i32| prio.min(100);
    let prio = rank(task.sched.prio);
    let waiting = snapshot.waiters.iter().map(|waiter| &waiter.task);
    snapshot.running.iter().chain(waiting).any(|other| {
        other.cpu == task.cpu
            && other.tid != task.tid
            && (rank(other.sched.prio) < prio || rank(other.sched.prio) == prio && prio < 100)
            && !boosted.iter().any(|active| active.is_of(other))
    })
}
