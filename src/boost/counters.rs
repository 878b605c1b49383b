//! Counters of scans, waits and boosts.

use crate::task::Nanos;

/// Counters since the start. The booster counts boosts, the engine counts the rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub scans: u64,
    /// Scans that read all tasks of the machine, and not only its run queues.
    pub walks: u64,
    /// Scans that failed.
    pub failed_scans: u64,
    /// Waits that reached the threshold.
    pub starved: u64,
    /// The longest wait that a scan saw.
    pub longest_wait: Nanos,
    /// Waits that were dropped because too many tasks were missing from a scan at once.
    pub dropped_waits: u64,
    pub boosts: u64,
    pub refused: u64,
    pub failed_restores: u64,
    /// Tasks that are boosted now.
    pub active: u64,
    /// Starving tasks that wait for a boost now.
    pub waiting: u64,
}
