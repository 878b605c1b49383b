//! Decides who is boosted, when, and for how long: all starving tasks, each with its own end, within what
//! the task that holds the CPU can be asked to bear.
//!
//! No clock is read here, and what is done to a task is done by [`Hands`], which a test can simulate.

use super::active::{Active, Lifted, outranked};
use super::event::{Event, Refusal};
use super::journal::{Boosted, How, Saved, Slot};
use super::undo::{Undone, share};
use crate::detect::{Limits, Starving};
use crate::fault::{self, Fault};
use crate::observe::Snapshot;
use crate::task::{Cpu, Nanos, Owner, Task, Tid};
use crate::timing::Boost;

/// What the command line and the host allow.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    pub how: How,
    pub runtime: Nanos,
    pub period: Nanos,
    pub duration: Nanos,
    /// What a run may really take: the budget, or a tick where no timer enforces it.
    pub cost: Nanos,
    /// Leave those alone who wait for their turn among equals: at short thresholds that is a busy host.
    pub only_outranked: bool,
    /// A task that could not be boosted is tried again after this.
    pub retry: Nanos,
}

/// Below it, a fair task that waits among fair tasks is a busy host, and no starvation.
const BUSY_HOST: Nanos = Nanos::from_secs(1);

impl Rules {
    /// `cost` is what a run by DEADLINE may really take. A pulse by FIFO takes its runtime.
    pub fn new(how: How, boost: &Boost, limits: &Limits, cost: Nanos) -> Rules {
        let Boost { duration, period, runtime } = *boost;
        let cost = if how == How::Fifo { runtime } else { cost };
        let only_outranked = limits.threshold < BUSY_HOST;
        Rules { how, runtime, period, duration, cost, only_outranked, retry: limits.granularity }
    }
}

/// Boosts of a CPU start this far apart, so that the hog gets the CPU back in between, in every period.
const SPACING: Nanos = Nanos::from_millis(20);

/// As many at once on a CPU.
const PLACES: u64 = 16;

/// And all budgets on a CPU together at most this many millionths of it.
const SHARE: u64 = 20_000;

/// How often a boost is looked after: whether it is still needed, ...
const CARE: Nanos = Nanos::from_millis(100);

/// ... and who was born during it.
const ADOPTION: Nanos = Nanos::from_millis(500);

/// A look that an end makes due comes this much later: others may end with it.
const BETWEEN_LOOKS: Nanos = Nanos::from_millis(1);

/// Returns whether a task may be boosted as SCHED_DEADLINE; any other task is boosted in pulses.
///
/// By priority inheritance, the boost of a task that blocks goes on to the owner of the lock, and the kernel does
/// not enforce an inherited budget. So an unprivileged user could lend the boost of one task to another one, which
/// then keeps a CPU for as long as the boost lasts.
///
/// The kernel thread that starts and stops a CPU would be moved to another CPU with its budget used up once its own
/// is out of use, and the kernel dies of that [5.10].
fn may_be_deadline(task: &Task, owner: Owner) -> bool {
    match owner {
        Owner::Kernel => !task.comm.as_bytes().trim_ascii_start().starts_with(b"cpuhp/"),
        Owner::Privileged => true,
        Owner::Unknown | Owner::User(_) => false,
    }
}

/// What a boost does to the host.
pub trait Hands: Send {
    /// Returns the owner of a task where the backend does not know it.
    fn owner(&self, task: &Task) -> Owner;

    /// Makes a task SCHED_DEADLINE, and notes first how to undo that.
    fn raise(&mut self, task: &Task, end: Nanos) -> Result<Raised, Refusal>;

    /// Undoes that, or finds it undone: between two pulses, or by a guardian that was faster.
    fn restore(&mut self, raised: &Raised) -> Undone;

    /// Waits, for no longer than a run may take, until a task just raised has had its budget. False if it has
    /// not been given its CPU, None where the kernel does not tell.
    fn let_run(&mut self, raised: &Raised) -> Option<bool>;

    /// One period of FIFO emulation: puts a task above the hog for the length of its budget. It has to be
    /// scheduled as it was at the first pulse.
    fn pulse(&mut self, task: &Task, before: Option<Saved>) -> Result<Pulse, Refusal>;

    /// Gives those who were born to a boosted task the policy that it would have handed down.
    fn adopt(&mut self, raised: &Raised, task: &Task, events: &mut Vec<Event>);
}

/// A pulse that is over.
#[derive(Debug)]
pub struct Pulse {
    pub raised: Raised,
    pub outcome: Undone,
    /// Whether the task was given its CPU; None where the kernel does not tell.
    pub ran: Option<bool>,
}

/// A task that has been raised.
#[derive(Clone, Copy, Debug)]
pub struct Raised {
    pub boosted: Boosted,
    pub slot: Slot,
    /// In clock ticks since boot: who started later was born during the boost.
    pub since: u64,
    /// How often it had been given a CPU before, where the kernel tells.
    pub runs: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub boosts: u64,
    pub refused: u64,
    pub failed_restores: u64,
}

struct Tried {
    task: Task,
    again: Nanos,
}

/// The boosts in flight.
pub struct Booster {
    rules: Rules,
    places: usize,
    active: Vec<Active>,
    refused: Vec<Tried>,
    /// When the next boost may start on each CPU that had one.
    spacing: Vec<(Cpu, Nanos)>,
    /// Starving tasks that had no place at the last look.
    waiting: usize,
    /// When a look may let one of them start, or find one who has just been put back.
    next_start: Option<Nanos>,
    next_care: Nanos,
    next_adoption: Nanos,
    counters: Counters,
}

impl Booster {
    pub fn new(rules: Rules) -> Booster {
        let places = SHARE / share(rules.cost.max(rules.runtime), rules.period).max(1);
        Booster {
            rules,
            places: places.clamp(1, PLACES) as usize,
            active: Vec::with_capacity(64),
            refused: Vec::with_capacity(64),
            spacing: Vec::with_capacity(64),
            waiting: 0,
            next_start: None,
            next_care: Nanos::MAX,
            next_adoption: Nanos::MAX,
            counters: Counters::default(),
        }
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

    /// What is due by the clock alone: ends, and pulses.
    pub fn advance(&mut self, now: Nanos, hands: &mut dyn Hands, events: &mut Vec<Event>) {
        let mut index = 0;
        while index < self.active.len() {
            if self.active[index].end <= now && !fault::is(Fault::EndIgnored) {
                self.end(index, now, false, hands, events);
                // In DEADLINE it was in no look, and may have been waiting for most of the threshold by now.
                self.look_at(now + BETWEEN_LOOKS);
                continue;
            }
            let is_due = self.active[index].next_pulse.is_some_and(|next| next <= now);
            if !is_due || self.pulse(index, now, hands, events) {
                index += 1;
            }
        }
    }

    /// What follows from a look: the longest-starved first, as far as there are places.
    pub fn look(
        &mut self,
        snapshot: &Snapshot,
        starving: &[Starving],
        hands: &mut dyn Hands,
        events: &mut Vec<Event>,
    ) {
        let now = snapshot.at;
        for active in &mut self.active {
            let here = snapshot.running.iter().find(|task| active.is_of(task));
            active.task.cpu = here.map_or(active.task.cpu, |task| task.cpu);
        }
        self.waiting = 0;
        self.next_start = None;
        if now >= self.next_care {
            self.care(snapshot, hands, events);
        }
        self.refused.retain(|tried| tried.again > now || fault::is(Fault::RefusalNotRetried));
        self.spacing.retain(|&(_, next)| next > now && !fault::is(Fault::SpacingIgnored));
        for candidate in starving {
            if !self.wants(candidate, snapshot) {
                if let Some(again) = self.tried(&candidate.task) {
                    self.look_at(again);
                }
                continue;
            }
            let cpu = candidate.task.cpu;
            if let Some(&(_, next)) = self.spacing.iter().find(|&&(spaced, _)| spaced == cpu) {
                self.wait_until(next);
                continue;
            }
            if !self.has_place(cpu, now, hands, events) {
                self.wait_until(now + SPACING);
                continue;
            }
            self.spacing.push((cpu, now + SPACING));
            let behind = starving.iter().filter(|other| other.task.cpu == cpu && self.wants(other, snapshot));
            let crowded = behind.count() > self.places;
            self.start(candidate, snapshot, crowded, hands, events);
        }
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

    fn on(&self, cpu: Cpu) -> impl Iterator<Item = &Active> {
        self.active.iter().filter(move |active| active.task.cpu == cpu)
    }

    /// When to try again one that could not be boosted.
    fn tried(&self, task: &Task) -> Option<Nanos> {
        let is_it = |tried: &&Tried| (tried.task.tid, tried.task.start) == (task.tid, task.start);
        self.refused.iter().find(is_it).map(|tried| tried.again)
    }

    fn wants(&self, candidate: &Starving, snapshot: &Snapshot) -> bool {
        !self.active.iter().any(|active| active.is_of(&candidate.task))
            && self.tried(&candidate.task).is_none()
            && (!self.rules.only_outranked || outranked(&candidate.task, snapshot, &self.active))
    }

    fn start(
        &mut self,
        candidate: &Starving,
        snapshot: &Snapshot,
        crowded: bool,
        hands: &mut dyn Hands,
        events: &mut Vec<Event>,
    ) {
        let task = candidate.task;
        let started = snapshot.at;
        match self.lift(&task, started, true, hands, events) {
            Ok(lifted) => {
                let is_outranked = outranked(&task, snapshot, &self.active);
                let ends_at_once = crowded && lifted.how != How::Fifo && lifted.raised.runs.is_some();
                self.begin(task, lifted, started, is_outranked, events);
                // In a crowd the place is needed for the next as soon as this one has had its budget once.
                if ends_at_once {
                    self.end(self.active.len() - 1, started, true, hands, events);
                }
            }
            Err((_, Refusal::Taken)) => {
                // Those who wait behind it have their turns meanwhile.
                self.refused.push(Tried { task, again: started + CARE });
                self.look_at(started + CARE);
            }
            Err((how, why)) => {
                self.counters.refused += 1;
                self.refused.push(Tried { task, again: started + self.rules.retry });
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
        let owner = || match task.owner {
            Owner::Unknown => hands.owner(task),
            known => known,
        };
        if how != How::Fifo && may_be_deadline(task, owner()) {
            match hands.raise(task, started + self.rules.duration) {
                // Somebody has turned RT throttling on again, say: the kernel admits no pinned task then.
                Err(Refusal::Kernel(e)) => {
                    events.push(Event::Refused { task: *task, how, why: Refusal::Kernel(e) });
                }
                // A task that was put back while its budget was used up stays marked as throttled: boosted again,
                // it is in no queue, and no timer brings it back [6.18].
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
            self.next_adoption = started + ADOPTION;
        }
        let end = started + self.rules.duration;
        let mut active = Active { task, raised, started, end, next_pulse: None, missed: 0, outranked };
        if how == How::Fifo {
            active.plan_pulse(started, ran, self.rules.period);
        }
        self.active.push(active);
        if let Some(outcome) = over {
            self.close(self.active.len() - 1, started, true, outcome, events);
        }
    }

    /// False if the boost is over.
    fn pulse(&mut self, index: usize, now: Nanos, hands: &mut dyn Hands, events: &mut Vec<Event>) -> bool {
        let active = &mut self.active[index];
        let (task, boosted) = (active.task, active.raised.boosted);
        let outcome = hands.pulse(&Task { start: boosted.start, ..task }, Some(boosted.before));
        let ran = outcome.as_ref().ok().and_then(|pulse| pulse.ran);
        active.plan_pulse(now, ran, self.rules.period);
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

    /// Boosted tasks that have come from other CPUs take places here, too.
    fn has_place(&mut self, cpu: Cpu, now: Nanos, hands: &mut dyn Hands, events: &mut Vec<Event>) -> bool {
        while self.on(cpu).count() >= self.places && !fault::is(Fault::CapIgnored) {
            if !self.make_room(cpu, now, hands, events) {
                return false;
            }
        }
        true
    }

    /// Takes the place of a boost that has had its budget once, if there is one.
    fn make_room(&mut self, cpu: Cpu, now: Nanos, hands: &mut dyn Hands, events: &mut Vec<Event>) -> bool {
        let oldest = (0..self.active.len())
            .filter(|&index| self.active[index].task.cpu == cpu)
            .filter(|&index| now >= self.active[index].started + SPACING)
            .min_by_key(|&index| self.active[index].started);
        match oldest {
            Some(index) => {
                self.end(index, now, true, hands, events);
                // The task may not have run in its pulses, and then it is the next to get a place.
                self.look_at(now + SPACING);
                true
            }
            None => false,
        }
    }

    fn care(&mut self, snapshot: &Snapshot, hands: &mut dyn Hands, events: &mut Vec<Event>) {
        let now = snapshot.at;
        self.next_care = now + CARE;
        let adopts = now >= self.next_adoption;
        if adopts {
            self.next_adoption = now + ADOPTION;
        }
        let mut index = 0;
        while index < self.active.len() {
            let active = &self.active[index];
            if adopts {
                hands.adopt(&active.raised, &active.task, events);
            }
            if snapshot.complete && active.outranked && !outranked(&active.task, snapshot, &self.active) {
                self.end(index, now, true, hands, events);
                self.look_at(now + BETWEEN_LOOKS);
            } else {
                index += 1;
            }
        }
    }

    fn end(&mut self, index: usize, now: Nanos, early: bool, hands: &mut dyn Hands, events: &mut Vec<Event>) {
        let Active { task, raised, .. } = &self.active[index];
        let outcome = hands.restore(raised);
        if matches!(outcome, Undone::Restored(_)) {
            hands.adopt(raised, task, events);
        }
        self.close(index, now, early, outcome, events);
    }

    fn close(&mut self, index: usize, now: Nanos, early: bool, outcome: Undone, events: &mut Vec<Event>) {
        let Active { task, raised, started, .. } = self.active.swap_remove(index);
        self.counters.failed_restores += u64::from(matches!(outcome, Undone::Failed(_)));
        let before = raised.boosted.before;
        events.push(Event::Over { task, before, after: now - started, early, outcome });
    }
}

#[path = "request.rs"]
pub mod request;

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
