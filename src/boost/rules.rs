//! The rules by which tasks are boosted.

use super::journal::BoostPolicy;
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
    /// The longest time that a task may run in a period: the budget, or a tick if no timer enforces
    /// the budget.
    pub cost: Nanos,
    /// Boost only tasks that a higher-ranked one keeps off the CPU. At a short threshold, a wait
    /// among equals is the sign of a busy host.
    pub only_outranked: bool,
    /// The time until a task that could not be boosted is tried again.
    pub retry: Nanos,
}

/// Below this threshold, a wait of a fair task among fair tasks means a busy host, and no
/// starvation.
const BUSY_HOST: Nanos = Nanos::from_secs(1);

impl Rules {
    /// `cost` is that of a DEADLINE boost. The cost of a pulse is its runtime.
    pub fn new(how: BoostPolicy, boost: &Boost, limits: &Limits, cost: Nanos) -> Rules {
        let Boost { duration, period, runtime } = *boost;
        let cost = if how == BoostPolicy::Fifo { runtime } else { cost };
        let only_outranked = limits.threshold < BUSY_HOST;
        Rules { how, runtime, period, duration, cost, only_outranked, retry: limits.granularity }
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
