//! The time that the calls of a boost take: the simulation charges it, and a row of the bench
//! measures it.

use stalld::task::Nanos;

/// The 90th percentile of the time of each call.
#[derive(Clone, Copy, Debug)]
pub struct Costs {
    /// sched_getattr(2).
    pub get_attr: Nanos,
    /// sched_setscheduler(2) and sched_setattr(2).
    pub set_attr: Nanos,
    /// Reading /proc/TID/stat.
    pub stat: Nanos,
    /// Reading /proc/TID/schedstat.
    pub schedstat: Nanos,
    /// Reading /proc/TID/status.
    pub status: Nanos,
    /// Reading or writing /proc/TID/timerslack_ns.
    pub slack: Nanos,
    /// Reading one run queue in a scan.
    pub queue: Nanos,
}

/// The times that the simulation assumes for a host with many CPUs.
pub const ASSUMED: Costs = Costs {
    get_attr: Nanos(1_000),
    set_attr: Nanos(5_000),
    stat: Nanos(5_000),
    schedstat: Nanos(3_000),
    status: Nanos(20_000),
    slack: Nanos(4_000),
    queue: Nanos(8_000),
};
