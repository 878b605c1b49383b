//! Decides who is boosted, when, and for how long: all starving tasks, each with its own end,
//! within what the task that holds the CPU can be asked to bear.
//!
//! No clock is read here, and what is done to a task is done by [`Actuator`], which a test can
//! simulate.

pub use super::active::Ward;
use super::active::{Active, Ranks};
pub use super::actuator::{Actuator, BoostHandle, Pulse};
use super::event::{Event, Refusal};
use super::journal::{BoostPolicy, Saved};
use super::probation::Probation;
use super::restore::{RestoreOutcome, share};
pub use super::rules::Rules;
use super::wards::Wards;
use crate::detect::Starving;
use crate::fault::{self, Fault};
use crate::observe::Snapshot;
use crate::room::{ROOM, prefaulted_vec};
use crate::sorted::Sorted;
use crate::steps;
use crate::task::{Cpu, Nanos, Owner, Task, TaskId, Tid};

/// Boosts of a CPU start this far apart, so that the hog gets the CPU back in between, in every
/// period.
const SPACING: Nanos = Nanos::from_millis(20);

/// As many at once on a CPU.
const PLACES: u64 = 16;

/// And all budgets on a CPU together at most this many millionths of it.
const SHARE: u64 = 20_000;

/// How often a boost is looked after: whether it is still needed.
const RECHECK_INTERVAL: Nanos = Nanos::from_millis(100);

/// For so long after a boost was lent, all boosts are pulses.
const ONLY_PULSES: Nanos = Nanos::from_secs(60);

/// A look that an end makes due comes this much later: others may end with it.
const BETWEEN_LOOKS: Nanos = Nanos::from_millis(1);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub boosts: u64,
    pub refused: u64,
    pub failed_restores: u64,
}

/// The identity of no task, to fill memory with.
const NO_TASK: TaskId = TaskId { tid: Tid(-1), start: 0 };

/// The boosts in flight.
pub struct Booster {
    rules: Rules,
    places: usize,
    active: Vec<Active>,
    /// The tasks of `active`.
    boosted: Sorted<TaskId, ()>,
    /// When to try again each task that could not be boosted.
    refused: Sorted<TaskId, Nanos>,
    /// When the next boost may start on each CPU that had one.
    spacing: Sorted<Cpu, Nanos>,
    /// CPUs that had no place for one more boost at this scan.
    full: Sorted<Cpu, ()>,
    ranks: Ranks,
    /// Where each task was running at this scan.
    running: Sorted<TaskId, Cpu>,
    /// The starving tasks of this scan by CPU: their places in its list.
    by_cpu: Vec<(Cpu, usize)>,
    /// Starving tasks that had no place at the last look.
    waiting: usize,
    /// When a look may let one of them start, or find one who has just been put back.
    next_start: Option<Nanos>,
    next_care: Nanos,
    wards: Wards,
    /// Tasks whose pulses are over.
    probation: Probation,
    /// When a boost of each owner last began on a CPU.
    served: Sorted<(Cpu, Owner), Nanos>,
    /// The starving tasks of this scan in the order in which they are served: their places in its
    /// list.
    order: Vec<(Nanos, usize)>,
    /// A boost has been lent to another task, so until then all boosts are pulses.
    pulses_until: Nanos,
    counters: Counters,
}

impl Booster {
    pub fn new(rules: Rules) -> Booster {
        let places = SHARE / share(rules.cost.max(rules.runtime), rules.period).max(1);
        Booster {
            rules,
            places: places.clamp(1, PLACES) as usize,
            active: Vec::with_capacity(64),
            boosted: Sorted::with_room(64, (NO_TASK, ())),
            refused: Sorted::with_room(ROOM, (NO_TASK, Nanos::MAX)),
            spacing: Sorted::with_room(64, (Cpu(0), Nanos::MAX)),
            full: Sorted::with_room(64, (Cpu(u32::MAX), ())),
            ranks: Ranks::new(),
            running: Sorted::with_room(64, (NO_TASK, Cpu(0))),
            by_cpu: prefaulted_vec(ROOM, (Cpu(0), usize::MAX)),
            waiting: 0,
            next_start: None,
            next_care: Nanos::MAX,
            wards: Wards::new(),
            probation: Probation::new(),
            served: Sorted::with_room(64, ((Cpu(0), Owner::Kernel), Nanos::MAX)),
            order: prefaulted_vec(ROOM, (Nanos::MAX, usize::MAX)),
            pulses_until: Nanos::ZERO,
            counters: Counters::default(),
        }
    }

    /// Gives back the memory that a crowd has taken.
    pub fn shrink(&mut self) {
        self.refused.shrink(ROOM);
        self.by_cpu.shrink_to(ROOM);
        self.order.shrink_to(ROOM);
    }

    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// How many boosts are in flight, and how many starving tasks wait for one.
    pub fn load(&self) -> (usize, usize) {
        (self.active.len(), self.waiting)
    }

    /// Whether the next call has to come with a complete look.
    pub fn is_busy(&self) -> bool {
        !self.active.is_empty() || self.waiting > 0
    }

    /// When something is due that needs a look.
    pub fn next_look(&self) -> Option<Nanos> {
        let care = (!self.active.is_empty()).then_some(self.next_care);
        care.into_iter().chain(self.next_start).min()
    }

    /// When something is due that needs none.
    pub fn next_end(&self) -> Option<Nanos> {
        self.active
            .iter()
            .map(|active| active.next_pulse.map_or(active.end, |next| next.min(active.end)))
            .min()
    }

    /// Whether a task is boosted as SCHED_DEADLINE, and could lend that to another task.
    pub fn can_lend(&self) -> bool {
        self.active.iter().any(|active| active.next_pulse.is_none())
    }

    /// Ends the boosts that a task may have lent to another one, and makes only pulses for a while.
    pub fn end_lent(&mut self, now: Nanos, actuator: &mut dyn Actuator, events: &mut Vec<Event>) {
        self.pulses_until = now + ONLY_PULSES;
        while let Some(index) = self.active.iter().position(|active| active.next_pulse.is_none()) {
            self.end(index, now, true, actuator, events);
        }
        self.look_at(now + BETWEEN_LOOKS);
    }

    /// When to check the ranks of tasks whose pulses are over.
    pub fn next_check(&self) -> Option<Nanos> {
        self.probation.next()
    }

    /// Does what is due by the clock alone: ends, pulses, and checks of ranks.
    pub fn advance(&mut self, now: Nanos, actuator: &mut dyn Actuator, events: &mut Vec<Event>) {
        let mut index = 0;
        while index < self.active.len() {
            if self.active[index].end <= now && !fault::is(Fault::EndIgnored) {
                self.end(index, now, false, actuator, events);
                // In DEADLINE it was in no look, and may have been waiting for most of the
                // threshold by now.
                self.look_at(now + BETWEEN_LOOKS);
                continue;
            }
            let is_due = self.active[index].next_pulse.is_some_and(|next| next <= now);
            if !is_due || self.pulse(index, now, actuator, events) {
                index += 1;
            }
        }
        self.check_ranks(now, actuator, events);
    }

    /// Starts the boosts that follow from a scan, as far as there are places. On each CPU the
    /// owners of tasks take turns, and of an owner's tasks the longest-starved is first. So a user
    /// with thousands of them keeps no other task waiting.
    pub fn look(
        &mut self,
        snapshot: &Snapshot,
        starving: &[Starving],
        actuator: &mut dyn Actuator,
        events: &mut Vec<Event>,
    ) {
        let now = snapshot.at;
        self.waiting = 0;
        self.next_start = None;
        if now >= self.next_care && self.care(snapshot, actuator, events) {
            self.rank(snapshot);
        }
        self.refused.retain(|&again| again > now || fault::is(Fault::RefusalNotRetried));
        self.spacing.retain(|&next| next > now && !fault::is(Fault::SpacingIgnored));
        self.full.clear();
        self.by_cpu.clear();
        self.by_cpu.extend(starving.iter().map(|starving| starving.task.cpu).zip(0..));
        self.by_cpu.sort_unstable();
        self.take_ranks(snapshot, actuator, events);
        self.put_in_order(now, starving);
        for index in 0..self.order.len() {
            let Some(candidate) = self.order.get(index).and_then(|&(_, index)| starving.get(index)) else {
                break;
            };
            if !self.wants(candidate) {
                if let Some(again) = self.tried(&candidate.task) {
                    self.look_at(again);
                }
                continue;
            }
            let cpu = candidate.task.cpu;
            if let Some(next) = self.spacing.get(cpu) {
                self.wait_until(next);
                continue;
            }
            if self.full.contains(cpu) || !self.has_place(cpu, now, actuator, events) {
                self.full.insert(cpu, ());
                self.wait_until(now + SPACING);
                continue;
            }
            self.spacing.insert(cpu, now + SPACING);
            self.served.insert((cpu, candidate.task.owner), now);
            let crowded = self.wanted_on(cpu, starving) > self.places;
            self.start(candidate, snapshot, crowded, actuator, events);
        }
    }

    /// Sees to the children of boosted tasks, if that is due. It is to be called when nothing is
    /// left to do that a starving task waits for.
    pub fn adopt(&mut self, now: Nanos, actuator: &mut dyn Actuator, events: &mut Vec<Event>) {
        self.wards.adopt(&self.active, now, actuator, events);
    }

    /// When to call it for the children of boosts that are over. Those of others are seen to after
    /// a scan.
    pub fn next_adoption(&self) -> Option<Nanos> {
        self.wards.next_of_ended()
    }

    /// A look that was due has failed.
    pub fn put_off(&mut self, until: Nanos) {
        self.next_care = self.next_care.max(until);
        self.next_start = self.next_start.map(|next| next.max(until));
    }

    /// Ends all boosts now.
    pub fn end_all(&mut self, now: Nanos, actuator: &mut dyn Actuator, events: &mut Vec<Event>) {
        while !self.active.is_empty() {
            self.end(0, now, true, actuator, events);
        }
    }

    fn wait_until(&mut self, moment: Nanos) {
        self.waiting += 1;
        self.look_at(moment);
    }

    fn look_at(&mut self, moment: Nanos) {
        self.next_start = Some(self.next_start.map_or(moment, |next| next.min(moment)));
    }

    /// False if the boost is over.
    fn pulse(
        &mut self,
        index: usize,
        now: Nanos,
        actuator: &mut dyn Actuator,
        events: &mut Vec<Event>,
    ) -> bool {
        let active = &mut self.active[index];
        let boosted = active.raised.boosted;
        let identified = with_current_owner(&Task { start: boosted.start, ..active.task }, actuator);
        active.task.owner = identified.owner;
        let task = active.task;
        let outcome = actuator.pulse(&identified, Some(boosted.before));
        let ran = outcome.as_ref().ok().and_then(|pulse| pulse.ran);
        active.plan_pulse(now, ran, self.rules.period);
        if let Ok(Pulse { raised, .. }) = &outcome {
            self.probation.begin(&task, raised, now);
        }
        let outcome = match outcome {
            Ok(Pulse { outcome: RestoreOutcome::Restored(_), .. }) => {
                if ran != Some(false) {
                    events.push(Event::Boosted { task, how: BoostPolicy::Fifo });
                }
                return true;
            }
            // The next one may find it free, and room.
            Err(Refusal::Taken | Refusal::JournalFull) => return true,
            Ok(Pulse { outcome, .. }) => outcome,
            Err(Refusal::ChangedByOthers(policy)) => RestoreOutcome::ChangedByOthers(policy),
            Err(Refusal::Kernel(e)) => RestoreOutcome::Failed(e),
            Err(Refusal::Gone | Refusal::IsDeadline) => RestoreOutcome::Gone,
        };
        self.close(index, now, true, outcome, events);
        false
    }

    /// Ends the boosts that nothing makes necessary any more. Returns whether there were any.
    fn care(&mut self, snapshot: &Snapshot, actuator: &mut dyn Actuator, events: &mut Vec<Event>) -> bool {
        let now = snapshot.at;
        self.next_care = now + RECHECK_INTERVAL;
        let before = self.active.len();
        let mut index = 0;
        while index < self.active.len() {
            let active = &self.active[index];
            if snapshot.complete && active.outranked && !self.ranks.outrank(&active.task) {
                self.end(index, now, true, actuator, events);
                self.look_at(now + BETWEEN_LOOKS);
            } else {
                index += 1;
            }
        }
        self.active.len() < before
    }

    fn end(
        &mut self,
        index: usize,
        now: Nanos,
        early: bool,
        actuator: &mut dyn Actuator,
        events: &mut Vec<Event>,
    ) {
        let outcome = actuator.restore(&self.active[index].raised);
        self.close(index, now, early, outcome, events);
    }

    fn close(
        &mut self,
        index: usize,
        now: Nanos,
        early: bool,
        outcome: RestoreOutcome,
        events: &mut Vec<Event>,
    ) {
        let Active { task, raised, started, .. } = self.active.swap_remove(index);
        self.boosted.remove(task.id());
        // One that could not be restored yet is tried again, and its children have missed as much.
        if matches!(outcome, RestoreOutcome::Restored(_) | RestoreOutcome::Failed(_)) {
            self.wards.end(Ward { raised, task });
        }
        self.counters.failed_restores += u64::from(matches!(outcome, RestoreOutcome::Failed(_)));
        let before = raised.boosted.before;
        events.push(Event::Over { task, before, after: now - started, early, outcome });
    }
}

#[path = "choice.rs"]
mod choice;
use choice::with_current_owner;

#[path = "request.rs"]
pub mod request;
#[path = "starts.rs"]
mod starts;

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
