//! Decides who is boosted, when, and for how long: all starving tasks, each with its own end,
//! within what the task that holds the CPU can be asked to bear.
//!
//! No clock is read here, and what is done to a task is done by [`Hands`], which a test can
//! simulate.

pub use super::actions::{Hands, Pulse, Raised};
pub use super::active::Ward;
use super::active::{Active, Lifted, Ranks};
use super::event::{Event, Refusal};
use super::journal::{How, Saved};
use super::probation::Probation;
pub use super::rules::Rules;
use super::rules::may_be_deadline;
use super::undo::{Undone, share};
use super::wards::Wards;
use crate::detect::Starving;
use crate::fault::{self, Fault};
use crate::observe::Snapshot;
use crate::room::{ROOM, room_for};
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
const CARE: Nanos = Nanos::from_millis(100);

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
            by_cpu: room_for(ROOM, (Cpu(0), usize::MAX)),
            waiting: 0,
            next_start: None,
            next_care: Nanos::MAX,
            wards: Wards::new(),
            probation: Probation::new(),
            served: Sorted::with_room(64, ((Cpu(0), Owner::Kernel), Nanos::MAX)),
            order: room_for(ROOM, (Nanos::MAX, usize::MAX)),
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
    pub fn end_lent(&mut self, now: Nanos, hands: &mut dyn Hands, events: &mut Vec<Event>) {
        self.pulses_until = now + ONLY_PULSES;
        while let Some(index) = self.active.iter().position(|active| active.next_pulse.is_none()) {
            self.end(index, now, true, hands, events);
        }
        self.look_at(now + BETWEEN_LOOKS);
    }

    /// When to check the ranks of tasks whose pulses are over.
    pub fn next_check(&self) -> Option<Nanos> {
        self.probation.next()
    }

    /// Does what is due by the clock alone: ends, pulses, and checks of ranks.
    pub fn advance(&mut self, now: Nanos, hands: &mut dyn Hands, events: &mut Vec<Event>) {
        let mut index = 0;
        while index < self.active.len() {
            if self.active[index].end <= now && !fault::is(Fault::EndIgnored) {
                self.end(index, now, false, hands, events);
                // In DEADLINE it was in no look, and may have been waiting for most of the
                // threshold by now.
                self.look_at(now + BETWEEN_LOOKS);
                continue;
            }
            let is_due = self.active[index].next_pulse.is_some_and(|next| next <= now);
            if !is_due || self.pulse(index, now, hands, events) {
                index += 1;
            }
        }
        self.check_ranks(now, hands, events);
    }

    /// Starts the boosts that follow from a scan, as far as there are places. On each CPU the
    /// owners of tasks take turns, and of an owner's tasks the longest-starved is first. So a user
    /// with thousands of them keeps no other task waiting.
    pub fn look(
        &mut self,
        snapshot: &Snapshot,
        starving: &[Starving],
        hands: &mut dyn Hands,
        events: &mut Vec<Event>,
    ) {
        let now = snapshot.at;
        self.waiting = 0;
        self.next_start = None;
        if now >= self.next_care && self.care(snapshot, hands, events) {
            self.rank(snapshot);
        }
        self.refused.retain(|&again| again > now || fault::is(Fault::RefusalNotRetried));
        self.spacing.retain(|&next| next > now && !fault::is(Fault::SpacingIgnored));
        self.full.clear();
        self.by_cpu.clear();
        self.by_cpu.extend(starving.iter().map(|starving| starving.task.cpu).zip(0..));
        self.by_cpu.sort_unstable();
        self.take_ranks(snapshot, hands, events);
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
            if self.full.contains(cpu) || !self.has_place(cpu, now, hands, events) {
                self.full.insert(cpu, ());
                self.wait_until(now + SPACING);
                continue;
            }
            self.spacing.insert(cpu, now + SPACING);
            self.served.insert((cpu, candidate.task.owner), now);
            let crowded = self.wanted_on(cpu, starving) > self.places;
            self.start(candidate, snapshot, crowded, hands, events);
        }
    }

    /// Sees to the children of boosted tasks, if that is due. It is to be called when nothing is
    /// left to do that a starving task waits for.
    pub fn adopt(&mut self, now: Nanos, hands: &mut dyn Hands, events: &mut Vec<Event>) {
        self.wards.adopt(&self.active, now, hands, events);
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
    pub fn end_all(&mut self, now: Nanos, hands: &mut dyn Hands, events: &mut Vec<Event>) {
        while !self.active.is_empty() {
            self.end(0, now, true, hands, events);
        }
    }

    fn wait_until(&mut self, moment: Nanos) {
        self.waiting += 1;
        self.look_at(moment);
    }

    fn look_at(&mut self, moment: Nanos) {
        self.next_start = Some(self.next_start.map_or(moment, |next| next.min(moment)));
    }

    fn start(
        &mut self,
        candidate: &Starving,
        snapshot: &Snapshot,
        crowded: bool,
        hands: &mut dyn Hands,
        events: &mut Vec<Event>,
    ) {
        let task = with_current_owner(&candidate.task, hands);
        let started = snapshot.at;
        match self.lift(&task, started, true, hands, events) {
            Ok(lifted) => {
                let is_outranked = self.ranks.outrank(&task);
                let ends_at_once = crowded && lifted.how != How::Fifo && lifted.raised.runs.is_some();
                self.begin(task, lifted, started, is_outranked, events);
                // In a crowd the place is needed for the next as soon as this one has had its
                // budget once.
                if ends_at_once {
                    self.end(self.active.len() - 1, started, true, hands, events);
                }
            }
            Err((_, Refusal::Taken)) => {
                // Those who wait behind it have their turns meanwhile.
                self.refused.insert(task.id(), started + CARE);
                self.look_at(started + CARE);
            }
            Err((how, why)) => {
                self.counters.refused += 1;
                self.refused.insert(task.id(), started + self.rules.retry);
                events.push(Event::Refused { task, how, why });
            }
        }
    }

    /// Raises a task, in a pulse where nothing better is to be had.
    fn lift(
        &self,
        task: &Task,
        started: Nanos,
        waits: bool,
        hands: &mut dyn Hands,
        events: &mut Vec<Event>,
    ) -> Result<Lifted, (How, Refusal)> {
        let how = self.rules.how;
        if how != How::Fifo && started >= self.pulses_until && may_be_deadline(task) {
            match hands.raise(task, started + self.rules.duration) {
                // Somebody has turned RT throttling on again, say: the kernel admits no pinned task
                // then.
                Err(Refusal::Kernel(e)) => {
                    events.push(Event::Refused { task: *task, how, why: Refusal::Kernel(e) });
                }
                // A task that was put back while its budget was used up stays marked as throttled:
                // boosted again, it is in no queue, and no timer brings it back [6.18].
                Ok(raised) if waits && hands.let_run(&raised) == Some(false) => {
                    hands.restore(&raised);
                }
                Ok(raised) => return Ok(Lifted { how, raised, ran: None, over: None }),
                Err(why) => return Err((how, why)),
            }
        }
        let Pulse { raised, ran, outcome } = hands.pulse(task, None).map_err(|why| (How::Fifo, why))?;
        // A restore that has failed is tried again, by this boost or by the guardian.
        let goes_on = matches!(outcome, Undone::Restored(_) | Undone::Failed(_));
        let over = (!goes_on).then_some(outcome);
        Ok(Lifted { how: How::Fifo, raised, ran, over })
    }

    fn begin(
        &mut self,
        task: Task,
        Lifted { how, raised, ran, over }: Lifted,
        started: Nanos,
        outranked: bool,
        events: &mut Vec<Event>,
    ) {
        self.counters.boosts += 1;
        events.push(Event::Boosted { task, how });
        if self.active.is_empty() {
            self.next_care = started + CARE;
            self.wards.begin(started);
        }
        let end = started + self.rules.duration;
        let mut active =
            Active { task, raised, started, end, next_pulse: None, missed: 0, sleeps: false, outranked };
        if how == How::Fifo {
            active.plan_pulse(started, ran, self.rules.period);
            self.probation.begin(&task, &raised, started);
        }
        self.boosted.insert(task.id(), ());
        self.active.push(active);
        if let Some(outcome) = over {
            self.close(self.active.len() - 1, started, true, outcome, events);
        }
    }

    /// False if the boost is over.
    fn pulse(&mut self, index: usize, now: Nanos, hands: &mut dyn Hands, events: &mut Vec<Event>) -> bool {
        let active = &mut self.active[index];
        let boosted = active.raised.boosted;
        let identified = with_current_owner(&Task { start: boosted.start, ..active.task }, hands);
        active.task.owner = identified.owner;
        let task = active.task;
        let outcome = hands.pulse(&identified, Some(boosted.before));
        let ran = outcome.as_ref().ok().and_then(|pulse| pulse.ran);
        active.plan_pulse(now, ran, self.rules.period);
        if let Ok(Pulse { raised, .. }) = &outcome {
            self.probation.begin(&task, raised, now);
        }
        let outcome = match outcome {
            Ok(Pulse { outcome: Undone::Restored(_), .. }) => {
                if ran != Some(false) {
                    events.push(Event::Boosted { task, how: How::Fifo });
                }
                return true;
            }
            // The next one may find it free, and room.
            Err(Refusal::Taken | Refusal::JournalFull) => return true,
            Ok(Pulse { outcome, .. }) => outcome,
            Err(Refusal::ChangedByOthers(policy)) => Undone::ChangedByOthers(policy),
            Err(Refusal::Kernel(e)) => Undone::Failed(e),
            Err(Refusal::Gone | Refusal::IsDeadline) => Undone::Gone,
        };
        self.close(index, now, true, outcome, events);
        false
    }

    /// Ends the boosts that nothing makes necessary any more. Returns whether there were any.
    fn care(&mut self, snapshot: &Snapshot, hands: &mut dyn Hands, events: &mut Vec<Event>) -> bool {
        let now = snapshot.at;
        self.next_care = now + CARE;
        let before = self.active.len();
        let mut index = 0;
        while index < self.active.len() {
            let active = &self.active[index];
            if snapshot.complete && active.outranked && !self.ranks.outrank(&active.task) {
                self.end(index, now, true, hands, events);
                self.look_at(now + BETWEEN_LOOKS);
            } else {
                index += 1;
            }
        }
        self.active.len() < before
    }

    fn end(&mut self, index: usize, now: Nanos, early: bool, hands: &mut dyn Hands, events: &mut Vec<Event>) {
        let outcome = hands.restore(&self.active[index].raised);
        self.close(index, now, early, outcome, events);
    }

    fn close(&mut self, index: usize, now: Nanos, early: bool, outcome: Undone, events: &mut Vec<Event>) {
        let Active { task, raised, started, .. } = self.active.swap_remove(index);
        self.boosted.remove(task.id());
        // One that could not be restored yet is tried again, and its children have missed as much.
        if matches!(outcome, Undone::Restored(_) | Undone::Failed(_)) {
            self.wards.end(Ward { raised, task });
        }
        self.counters.failed_restores += u64::from(matches!(outcome, Undone::Failed(_)));
        let before = raised.boosted.before;
        events.push(Event::Over { task, before, after: now - started, early, outcome });
    }
}

#[path = "choice.rs"]
mod choice;
use choice::with_current_owner;

#[path = "request.rs"]
pub mod request;

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
