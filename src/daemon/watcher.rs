//! The turn of a scanning thread: all that it does between two sleeps.

use super::report::Reporter;
use super::standstill::StandstillDetector;
use crate::engine::Engine;
use crate::proc;
use crate::sys::{clock, memory, sched};
use crate::task::Nanos;

/// The outcome of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// No scan was due.
    Rested,
    Scanned,
    /// The scan failed.
    Failed,
}

/// The engine and the reporter of a scanning thread.
pub(super) struct Watcher {
    engine: Engine,
    reporter: Reporter,
    /// When this thread last woke up; 0 before its first sleep, because the start is no wakeup.
    woke: Nanos,
    /// Whether other threads of this process scan too.
    shares: bool,
    /// The CPU time, as `used` returns it, at the end of the last scan.
    used: Nanos,
    standstills: StandstillDetector,
}

impl Watcher {
    /// `shares` is true if other threads of this process scan too.
    pub(super) fn new(engine: Engine, reporter: Reporter, shares: bool) -> Watcher {
        let (woke, used) = (Nanos::ZERO, used(shares));
        let standstills = StandstillDetector::new(|| proc::waited(sched::gettid()));
        Watcher { engine, reporter, woke, shares, used, standstills }
    }

    /// Ends boosts and makes pulses that are due. Scans if a scan is due, or if `asked` by a
    /// signal.
    pub(super) fn turn(&mut self, asked: bool) -> Turn {
        let begun = clock::monotonic();
        let mut turn = Turn::Rested;
        if asked {
            self.engine.force_full_scan();
        }
        if self.engine.advance(begun) || asked {
            let scans = clock::monotonic();
            turn = match self.engine.scan(self.woke, scans) {
                Ok(()) => {
                    self.reporter.scanned(&mut self.engine, scans);
                    Turn::Scanned
                }
                Err(e) => {
                    self.reporter.failed(&e);
                    Turn::Failed
                }
            };
            // The rest after a scan depends on all CPU time since the last scan, also that of
            // pulses and the log.
            let before = std::mem::replace(&mut self.used, used(self.shares));
            self.engine.rest(clock::monotonic(), self.used - before);
        }
        self.reporter.boosts(&mut self.engine);
        if asked {
            self.reporter.status(&self.engine);
        }
        // malloc_trim(3) holds locks that the other threads may need in the middle of a boost.
        if turn == Turn::Scanned && self.engine.shrink() && !self.shares {
            memory::trim_heap();
        }
        turn
    }

    /// Returns when the next turn is due. Call it before each sleep.
    pub(super) fn plan(&mut self) -> Nanos {
        self.standstills.sleeps(clock::monotonic());
        self.engine.next()
    }

    /// Call it after each sleep. `planned` is the planned end of the sleep; `None` if it was cut
    /// short.
    pub(super) fn woke(&mut self, planned: Option<Nanos>) {
        self.woke = clock::monotonic();
        let Some(planned) = planned else { return };
        self.reporter.woke(planned, self.woke);
        if let Some(length) = self.standstills.woke(planned, self.woke) {
            self.reporter.stood_still(length);
            self.engine.restart_waits(self.woke);
        }
    }

    /// Ends all boosts of this engine.
    pub(super) fn end(&mut self) {
        self.engine.end_boosts(clock::monotonic());
        self.reporter.boosts(&mut self.engine);
    }

    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }
}

/// Returns the CPU time of this thread, or of the whole process if no other thread scans. So a
/// crowd on one CPU does not slow down the monitors of other CPUs.
fn used(shares: bool) -> Nanos {
    if shares { clock::thread_cpu() } else { clock::process_cpu() }
}
