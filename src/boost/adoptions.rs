//! The boosted tasks whose children are adopted, and the times of the passes that do it.

use super::active::{Active, Ancestor};
use crate::task::Nanos;

/// The time between two passes during a boost.
pub(super) const PASS_INTERVAL: Nanos = Nanos::from_millis(500);

/// The time until the next pass, if there were too many children for this one.
const PASS_INTERVAL_BEHIND: Nanos = Nanos::from_millis(100);

/// The most passes for the children of boosts that are over.
pub(super) const MAX_PASSES: u32 = 20;

/// The ancestors, and when to adopt their children.
pub(super) struct Adoptions {
    /// When the next pass is due.
    next: Nanos,
    /// Tasks whose boosts are over, until a pass has met all their children.
    ended: Vec<Ancestor>,
    /// How many passes there were for `ended`.
    passes: u32,
    /// The tasks of the latest pass.
    of_pass: Vec<Ancestor>,
}

impl Adoptions {
    /// `boosts` is the number of boosts that may be in flight.
    pub(super) fn new(boosts: usize) -> Adoptions {
        Adoptions {
            next: Nanos::MAX,
            ended: Vec::with_capacity(boosts),
            passes: 0,
            of_pass: Vec::with_capacity(2 * boosts),
        }
    }

    /// Plans the first pass, when a boost begins while no other is in flight.
    pub(super) fn begin(&mut self, started: Nanos) {
        self.next = self.next.min(started + PASS_INTERVAL);
    }

    /// Makes a pass due for a task whose boost is over, if its children need one.
    pub(super) fn end(&mut self, ancestor: Ancestor) {
        if ancestor.hands_down() {
            self.ended.push(ancestor);
            self.next = Nanos::ZERO;
        }
    }

    /// Makes a pass over the children of all these tasks, if one is due. `pass` returns false if
    /// there were too many children for one pass.
    pub(super) fn adopt(&mut self, active: &[Active], now: Nanos, pass: impl FnOnce(&[Ancestor]) -> bool) {
        if now < self.next {
            return;
        }
        self.of_pass.clear();
        self.of_pass.extend(self.ended.iter().copied());
        self.of_pass.extend(active.iter().map(|&Active { raised, task, .. }| Ancestor { raised, task }));
        let has_met_all = pass(&self.of_pass);
        self.passes = if self.ended.is_empty() { 0 } else { self.passes + 1 };
        if has_met_all || self.passes >= MAX_PASSES {
            self.ended.clear();
            self.passes = 0;
        }
        self.next = match (has_met_all, active.is_empty() && self.ended.is_empty()) {
            (_, true) => Nanos::MAX,
            (true, _) => now + PASS_INTERVAL,
            (false, _) => now + PASS_INTERVAL_BEHIND,
        };
    }

    /// Returns when the next pass is due, if the boosts of some tasks are over.
    pub(super) fn next_of_ended(&self) -> Option<Nanos> {
        (!self.ended.is_empty()).then_some(self.next)
    }
}
