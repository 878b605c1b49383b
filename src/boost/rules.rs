//! The rules by which tasks are boosted.

use super::journal::BoostPolicy;
use super::max_loss::MaxLoss;
use super::restore::share;
use crate::detect::Limits;
use crate::fault::{self, Fault};
use crate::task::{Nanos, Owner, Task};
use crate::timing::Boost;

/// The rules that the command line and the host set.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    pub how: BoostPolicy,
    pub runtime: Nanos,
    pub period: Nanos,
    pub duration: Nanos,
    /// The longest time that a task may run in a period of a boost by `how`: the budget, or a tick
    /// if no timer enforces the budget.
    pub cost: Nanos,
    pub pulsed: Pulsed,
    /// The bound on what hogs lose, for boosts in pulses only. Without it, `SPACING`, `PLACES` and
    /// `SHARE` are the bounds.
    pub max_loss: Option<MaxLoss>,
    /// Boost only tasks that a higher-ranked one keeps off the CPU. At a short threshold, a wait
    /// among equals is the sign of a busy host.
    pub only_outranked: bool,
    /// The time until a task that could not be boosted is tried again.
    pub retry: Nanos,
}

/// The tasks that are boosted in pulses, although they may be SCHED_DEADLINE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pulsed {
    Nothing,
    /// The kernel threads whose CPU no user may choose. Most of them belong to one CPU. If such a
    /// thread is SCHED_DEADLINE without budget when its CPU stops, the kernel moves it to another
    /// CPU, and may crash [5.10-rt, 7.2-rt].
    Bound,
    All,
}

/// The time between the starts of two boosts on a CPU, so that the hog has the CPU in between, in
/// every period.
pub(super) const SPACING: Nanos = Nanos::from_millis(20);

/// The most boosts at once on a CPU.
pub(super) const PLACES: usize = 16;

/// The most CPU time that all boosts on a CPU may take together, in millionths.
const SHARE: u64 = 20_000;

/// Below this threshold, a wait of a fair task among fair tasks means a busy host, and no
/// starvation.
const BUSY_HOST: Nanos = Nanos::from_secs(1);

impl Rules {
    /// `cost` is that of a DEADLINE boost. The cost of a pulse is its runtime.
    pub fn new(how: BoostPolicy, boost: &Boost, limits: &Limits, cost: Nanos) -> Rules {
        let Boost { duration, period, runtime } = *boost;
        let cost = if how == BoostPolicy::Fifo { runtime } else { cost };
        let only_outranked = limits.threshold < BUSY_HOST;
        let (pulsed, retry) = (Pulsed::Nothing, limits.granularity);
        let max_loss = None;
        Rules { how, runtime, period, duration, cost, pulsed, max_loss, only_outranked, retry }
    }
}

impl Rules {
    /// Returns how many boosts by `how` a CPU may have at once.
    pub(super) fn places(&self) -> usize {
        (1..=PLACES).rev().find(|&count| self.allows(0, count)).unwrap_or(1)
    }

    /// Returns whether a CPU may have so many boosts in pulses, and so many by SCHED_DEADLINE.
    pub(super) fn allows(&self, pulsed: usize, by_deadline: usize) -> bool {
        let times = |cost: Nanos, count: usize| Nanos(cost.0.saturating_mul(count as u64));
        let cost = times(self.runtime, pulsed) + times(self.cost.max(self.runtime), by_deadline);
        // The pauses between pulses keep `max_loss`.
        let fits = self.max_loss.is_some() || share(cost, self.period) <= SHARE;
        match pulsed + by_deadline {
            0 | 1 => true,
            count => count <= PLACES && fits,
        }
    }

    /// Returns the pause from a pulse of a task to its next one. With a bound on the loss, pulses
    /// follow each other as fast as the bound allows.
    pub(super) fn pulse_interval(&self) -> Nanos {
        if self.max_loss.is_some() { SPACING } else { self.period }
    }
}

/// Returns whether a task may be boosted as SCHED_DEADLINE; any other task is boosted in pulses.
///
/// By priority inheritance, the boost of a task that blocks goes on to the owner of the lock, and
/// the kernel does not enforce an inherited budget. So an unprivileged user could lend the boost of
/// one task to another one, which then keeps a CPU for as long as the boost lasts.
///
/// If the kernel thread that stops a CPU has used up its budget by then, the kernel moves it to
/// another CPU, and crashes [5.10].
pub(super) fn may_be_deadline(task: &Task) -> bool {
    match task.owner {
        Owner::Kernel => !changes_cpus(task),
        Owner::Privileged => true,
        Owner::Unknown | Owner::User(_) => fault::is(Fault::RankLent),
    }
}

/// Returns whether a task is the kernel thread `cpuhp/N`, which starts and stops a CPU.
pub(super) fn changes_cpus(task: &Task) -> bool {
    task.owner == Owner::Kernel && task.comm.as_bytes().trim_ascii_start().starts_with(b"cpuhp/")
}
