//! The rules by which tasks are boosted.

use super::journal::BoostPolicy;
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

/// The most boosts at once on a CPU.
const PLACES: usize = 16;

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
        Rules { how, runtime, period, duration, cost, pulsed, only_outranked, retry }
    }
}

impl Rules {
    /// Returns the longest time that a boost may take in a period.
    pub(super) fn cost_of(&self, is_deadline: bool) -> Nanos {
        if is_deadline { self.cost.max(self.runtime) } else { self.runtime }
    }

    /// Returns how many boosts by `how` a CPU may have at once.
    pub(super) fn places(&self) -> usize {
        let places = SHARE / share(self.cost_of(true), self.period).max(1);
        places.clamp(1, PLACES as u64) as usize
    }

    /// Returns whether a CPU may have one more boost than `count`. `cost` is the time that all of
    /// them may take in a period.
    pub(super) fn allows(&self, count: usize, cost: Nanos) -> bool {
        count == 0 || count < PLACES && share(cost, self.period) <= SHARE
    }
}

/// Returns whether a task may be boosted as SCHED_DEADLINE; any other task is boosted in pulses.
///
/// By priority inheritance, the boost of a task that blocks goes on to the owner of the lock, and
/// the kernel does not enforce an inherited budget. So an unprivileged user could lend the boost of
/// one task to another one, which then keeps a CPU for as long as the boost lasts.
///
/// The kernel thread `cpuhp/N` starts and stops a CPU. If it has used up its budget when its own
/// CPU stops, the kernel moves it to another CPU, and crashes [5.10].
pub(super) fn may_be_deadline(task: &Task) -> bool {
    match task.owner {
        Owner::Kernel => !task.comm.as_bytes().trim_ascii_start().starts_with(b"cpuhp/"),
        Owner::Privileged => true,
        Owner::Unknown | Owner::User(_) => fault::is(Fault::RankLent),
    }
}
