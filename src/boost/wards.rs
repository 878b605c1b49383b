//! The tasks whose children are adopted, and the times of the passes that do it.

use super::active::{Active, Ward};
use super::actuator::Actuator;
use super::event::Event;
use crate::task::Nanos;

/// The time between two passes during a boost.
pub const ADOPTION: Nanos = Nanos::from_millis(500);

/// The time until the next pass, if there were too many children for this one.
const NEXT_PASS: Nanos = Nanos::from_millis(100);

/// The number of passes for the children of a boost that is over.
pub const MAX_PASSES: u32 = 20;

/// The tasks whose children have to be seen to.
pub struct Wards {
    /// When the next pass is due.
    next: Nanos,
    /// Tasks whose boosts are over and whose children have not been seen to since.
    ended: Vec<Ward>,
    /// How many passes these took so far.
    passes: u32,
    /// The tasks of the latest pass.
    of_pass: Vec<Ward>,
}

impl Wards {
    pub fn new() -> Wards {
        Wards { next: Nanos::MAX, ended: Vec::with_capacity(64), passes: 0, of_pass: Vec::with_capacity(64) }
    }

    /// Plans the first pass of a boost that begins while there is no other.
    pub fn begin(&mut self, started: Nanos) {
        self.next = self.next.min(started + ADOPTION);
    }

    /// Makes a pass due for a task whose boost is over, if its children need one.
    pub fn end(&mut self, ward: Ward) {
        if ward.hands_down() {
            self.ended.push(ward);
            self.next = Nanos::ZERO;
        }
    }

    /// Makes a pass over the children of all tasks, if one is due.
    pub fn adopt(
        &mut self,
        active: &[Active],
        now: Nanos,
        actuator: &mut dyn Actuator,
        events: &mut Vec<Event>,
    ) {
        if now < self.next {
            return;
        }
        self.of_pass.clear();
        self.of_pass.extend(self.ended.iter().copied());
        self.of_pass.extend(active.iter().map(|&Active { raised, task, .. }| Ward { raised, task }));
        let has_met_all = actuator.adopt(&self.of_pass, events);
        self.passes = if self.ended.is_empty() { 0 } else { self.passes + 1 };
        if has_met_all || self.passes >= MAX_PASSES {
            self.ended.clear();
            self.passes = 0;
        }
        self.next = match (has_met_all, active.is_empty() && self.ended.is_empty()) {
            (_, true) => Nanos::MAX,
            (true, _) => now + ADOPTION,
            (false, _) => now + NEXT_PASS,
        };
    }

    /// Returns when the next pass is due, if the boosts of some tasks are over.
    pub fn next_of_ended(&self) -> Option<Nanos> {
        (!self.ended.is_empty()).then_some(self.next)
    }
}
