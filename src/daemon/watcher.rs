//! What a thread that looks does between two sleeps.

use super::report::Reporter;
use crate::engine::Engine;
use crate::sys::{clock, memory};
use crate::task::Nanos;

/// What came of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// No look was due.
    Rested,
    Looked,
    /// Nothing is known of this moment.
    Failed,
}

pub struct Watcher {
    engine: Engine,
    reporter: Reporter,
    /// When this thread last came out of a sleep. The time since start-up is not time since a
    /// sleep.
    woke: Nanos,
    /// Whether other threads of this process scan too.
    shares: bool,
    /// The CPU time that counts for the rest after a scan, up to the end of the last scan.
    used: Nanos,
}

impl Watcher {
    /// `shares` is true if other threads of this process scan too.
    pub fn new(engine: Engine, reporter: Reporter, shares: bool) -> Watcher {
        Watcher { engine, reporter, woke: Nanos::ZERO, shares, used: used(shares) }
    }

    /// Does what is due, and looks in any case if somebody has asked.
    pub fn turn(&mut self, asked: bool) -> Turn {
        let begun = clock::monotonic();
        let mut turn = Turn::Rested;
        if asked {
            self.engine.force_full_scan();
        }
        if self.engine.advance(begun) || asked {
            let looks = clock::monotonic();
            turn = match self.engine.look(self.woke, looks) {
                Ok(()) => {
                    self.reporter.looked(&mut self.engine, looks);
                    Turn::Looked
                }
                Err(e) => {
                    self.reporter.failed(&e);
                    Turn::Failed
                }
            };
            // The time of pulses and of the log since the last scan counts too.
            let before = std::mem::replace(&mut self.used, used(self.shares));
            self.engine.rest(clock::monotonic(), self.used - before);
        }
        self.reporter.boosts(&mut self.engine);
        if asked {
            self.reporter.status(&self.engine);
        }
        // malloc_trim(3) holds locks that the other threads may need in the middle of a boost.
        if turn == Turn::Looked && self.engine.shrink() && !self.shares {
            memory::trim_heap();
        }
        turn
    }

    /// When the next turn is due.
    pub fn planned(&self) -> Nanos {
        self.engine.next()
    }

    /// To be called after a sleep; `planned` is until when it was to be, if it was not cut short.
    pub fn woke(&mut self, planned: Option<Nanos>) {
        self.woke = clock::monotonic();
        if let Some(planned) = planned {
            self.reporter.woke(planned, self.woke);
        }
    }

    /// Ends all its boosts.
    pub fn end(&mut self) {
        self.engine.end_boosts(clock::monotonic());
        self.reporter.boosts(&mut self.engine);
    }

    pub fn engine(&self) -> &Engine {
        &self.engine
    }
}

/// Returns the CPU time of this thread, or of the whole process if no other thread scans: a crowd
/// on one CPU does not slow down the monitors of other CPUs.
fn used(shares: bool) -> Nanos {
    if shares { clock::thread_cpu() } else { clock::process_cpu() }
}
