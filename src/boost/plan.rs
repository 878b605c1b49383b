//! Decides which starving tasks are boosted, when, and for how long, within limits for the CPU time
//! that boosts take from hogs.
//!
//! This module reads no clock and makes no system call. An [`Actuator`] acts on the tasks, and a
//! test can simulate it.

pub use super::active::Ancestor;
use super::active::{Active, RaisedTask, TopPriorities};
pub use super::actuator::{Actuator, BoostHandle, Pulse, Run};
use super::adoptions::Adoptions;
use super::counters::Counters;
use super::event::{Event, Refusal};
use super::journal::{BoostPolicy, Saved};
use super::probation::Probation;
use super::restore::RestoreOutcome;
use super::rules::{PLACES, SPACING};
pub use super::rules::{Pulsed, Rules};
use crate::detect::Starving;
use crate::fault::{self, Fault};
use crate::observe::Snapshot;
use crate::room::{ROOM, prefaulted_vec};
use crate::sorted::Sorted;
use crate::steps;
use crate::task::{Cpu, Nanos, Owner, Task, TaskId, Tid};
use turns::PlannedStart;

/// After a boost was lent to another task, or a CPU came or went, all boosts are pulses for this
/// long.
const ONLY_PULSES: Nanos = Nanos::from_secs(60);

/// Why all boosts are pulses for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PulsesOnly {
    /// A task has inherited a boost by SCHED_DEADLINE through a lock.
    Lent,
    /// A CPU comes or goes.
    Hotplug,
}

/// The time from the end of a boost to the scan that follows it. One scan may follow several ends.
const SCAN_AFTER_END: Nanos = Nanos::from_millis(1);

/// The least number of entries for which the lists of a booster have memory.
const MIN_ROOM: usize = 64;

/// The number of owners whose last boosts are remembered: a user may have thousands of uids. A host
/// with more than 64 CPUs remembers `OWNERS_OF_CPU` for each.
const MAX_OWNERS: usize = 1024;
const OWNERS_OF_CPU: usize = 16;

/// The identity of no task, to fill memory with.
const NO_TASK: TaskId = TaskId { tid: Tid(-1), start: 0 };

/// The boosts in flight.
pub struct Booster<A: ?Sized = dyn Actuator> {
    rules: Rules,
    /// The events that the caller has not taken yet.
    events: Vec<Event>,
    active: Vec<Active>,
    /// The tasks of `active`.
    boosted: Sorted<TaskId, ()>,
    /// When to try again each task that could not be boosted.
    refused: Sorted<TaskId, Nanos>,
    /// When the next boost may start on each CPU that had one. With `Rules::max_loss` this holds
    /// for each pulse.
    spacing: Sorted<Cpu, Nanos>,
    /// The cost of the longest of the last pulses on each CPU, for `Rules::max_loss`. Interrupts
    /// between CPUs are slow on some hosts.
    longest_pulses: Sorted<Cpu, Nanos>,
    /// CPUs where a starving task waits only for that, and whether it comes before the pulses that
    /// are due.
    claimed: Sorted<Cpu, bool>,
    /// CPUs that had no place for one more boost at this scan.
    full: Sorted<Cpu, ()>,
    priorities: TopPriorities,
    /// The CPUs of the tasks that were running at this scan.
    running: Sorted<TaskId, Cpu>,
    /// The starving tasks of this scan by CPU, as indices of its list.
    by_cpu: Vec<(Cpu, usize)>,
    /// `Task::progress` of the starving tasks is the count that `Actuator::runs` returns.
    counts_runs: bool,
    /// Starving tasks that had no place at the last scan.
    waiting: usize,
    /// When the next scan is due that may start a boost, or find a task that was just restored.
    next_start: Option<Nanos>,
    /// When to check next which boosts are still needed.
    next_recheck: Nanos,
    adoptions: Adoptions,
    /// Tasks whose pulses are over.
    probation: Probation,
    /// When a boost of each owner last began on a CPU. With `Rules::max_loss` each pulse counts.
    served: Sorted<(Cpu, Owner), Nanos>,
    /// If more owners than these are remembered, all are forgotten.
    max_owners: usize,
    /// The tasks that were raised since the last call of `finish_starts`.
    raised: Vec<RaisedTask>,
    /// The boosts that may start without a further scan.
    turns: Vec<PlannedStart>,
    /// The starving tasks of this scan in the order in which they are served: the last boost of the
    /// owner, and the index in the scan's list.
    order: Vec<(Nanos, usize)>,
    /// All boosts are pulses until then.
    pulses_until: Nanos,
    /// The reason, until the caller takes it.
    pulses_only: Option<PulsesOnly>,
    counters: Counters,
    actuator: Box<A>,
}

impl<A: Actuator + ?Sized> Booster<A> {
    /// `cpus` is the number of CPUs whose tasks it boosts. Their boosts need no more memory later.
    pub fn new(rules: Rules, actuator: Box<A>, cpus: usize) -> Booster<A> {
        let (owners, boosts) = (MAX_OWNERS.max(OWNERS_OF_CPU * cpus), MIN_ROOM.max(PLACES * cpus));
        let cpus = MIN_ROOM.max(cpus);
        Booster {
            rules,
            events: Vec::with_capacity(ROOM.max(2 * boosts)),
            active: Vec::with_capacity(boosts),
            boosted: Sorted::with_room(boosts, (NO_TASK, ())),
            refused: Sorted::with_room(ROOM, (NO_TASK, Nanos::MAX)),
            spacing: Sorted::with_room(cpus, (Cpu(0), Nanos::MAX)),
            longest_pulses: Sorted::with_room(cpus, (Cpu(u32::MAX), Nanos::ZERO)),
            claimed: Sorted::with_room(cpus, (Cpu(u32::MAX), false)),
            full: Sorted::with_room(cpus, (Cpu(u32::MAX), ())),
            priorities: TopPriorities::new(cpus),
            running: Sorted::with_room(2 * cpus, (NO_TASK, Cpu(0))),
            by_cpu: prefaulted_vec(ROOM, (Cpu(0), usize::MAX)),
            counts_runs: false,
            waiting: 0,
            next_start: None,
            next_recheck: Nanos::MAX,
            adoptions: Adoptions::new(boosts),
            probation: Probation::default(),
            max_owners: owners,
            served: Sorted::with_room(boosts, ((Cpu(0), Owner::Kernel), Nanos::MAX)),
            raised: Vec::with_capacity(cpus),
            turns: Vec::with_capacity(cpus),
            order: prefaulted_vec(ROOM, (Nanos::MAX, usize::MAX)),
            pulses_until: Nanos::ZERO,
            pulses_only: None,
            counters: Counters::default(),
            actuator,
        }
    }

    /// Returns the events since the last call.
    pub fn events(&mut self) -> std::vec::Drain<'_, Event> {
        self.events.drain(..)
    }

    /// Frees the memory that was needed for a crowd.
    pub(crate) fn shrink(&mut self) {
        self.refused.shrink(ROOM);
        self.by_cpu.shrink_to(ROOM);
        self.order.shrink_to(ROOM);
    }

    pub(crate) fn counters(&self) -> Counters {
        let (active, waiting) = self.load();
        Counters { active: active as u64, waiting: waiting as u64, ..self.counters }
    }

    /// Returns how many boosts are in flight, and how many starving tasks wait for one.
    pub(crate) fn load(&self) -> (usize, usize) {
        (self.active.len(), self.waiting)
    }

    /// Returns whether boosts are in flight or tasks wait for one: then the next scan has to be
    /// complete.
    pub(crate) fn is_busy(&self) -> bool {
        !self.active.is_empty() || self.waiting > 0
    }

    /// Returns when a scan is due for boosts.
    pub(crate) fn next_scan(&self) -> Option<Nanos> {
        let recheck = (!self.active.is_empty()).then_some(self.next_recheck);
        recheck.into_iter().chain(self.next_start).min()
    }

    /// Returns when an end or a pulse is due, which needs no scan.
    pub(crate) fn next_end(&self) -> Option<Nanos> {
        self.active
            .iter()
            .map(|active| self.pulse_due(active).map_or(active.end, |due| due.min(active.end)))
            .min()
    }

    /// Returns whether a task is boosted as SCHED_DEADLINE, and so could lend its boost to another
    /// task.
    pub(crate) fn has_deadline(&self) -> bool {
        self.active.iter().any(|active| active.next_pulse.is_none())
    }

    /// Ends all boosts by SCHED_DEADLINE, and makes only pulses for a while.
    pub(crate) fn only_pulse(&mut self, why: PulsesOnly, now: Nanos) {
        let is_change = self.rules.pulsed != Pulsed::All || self.has_deadline();
        if now >= self.pulses_until && is_change {
            self.pulses_only = Some(why);
        }
        self.pulses_until = now + ONLY_PULSES;
        if !self.has_deadline() {
            return;
        }
        self.actuator.ascend();
        while let Some(index) = self.active.iter().position(|active| active.next_pulse.is_none()) {
            self.end(index, now, true);
        }
        self.actuator.descend();
        self.scan_at(now + SCAN_AFTER_END);
    }

    /// Returns why all boosts are pulses now, once for each such time.
    pub(crate) fn take_pulses_only(&mut self, now: Nanos) -> Option<PulsesOnly> {
        self.pulses_only.take().filter(|_| now < self.pulses_until)
    }

    /// Returns when to check the ranks of tasks whose pulses are over.
    pub(crate) fn next_check(&self) -> Option<Nanos> {
        self.probation.next()
    }

    /// Does what is due without a scan: ends, pulses, and checks of ranks.
    pub(crate) fn advance(&mut self, now: Nanos) {
        let due = self.next_end().into_iter().chain(self.probation.next()).min();
        if due.is_none_or(|due| now < due) {
            return;
        }
        self.actuator.ascend();
        self.end_and_pulse(now);
        self.check_ranks(now);
        self.actuator.descend();
    }

    /// Ends the boosts that are over, and makes the pulses that are due.
    fn end_and_pulse(&mut self, now: Nanos) {
        let is_over = |active: &Active| active.end <= now && !fault::is(Fault::EndIgnored);
        while let Some(index) = self.active.iter().position(is_over) {
            self.end(index, now, false);
            // No scan sees a task while it is SCHED_DEADLINE. It may have waited for most of the
            // threshold by now.
            self.scan_at(now + SCAN_AFTER_END);
        }
        while let Some(index) = self.next_due_pulse(now) {
            self.pulse(index, now);
        }
    }

    /// Starts the boosts that follow from a scan, as far as there are places. The owners of tasks
    /// take turns on each CPU, so that a user with thousands of tasks does not delay the tasks of
    /// others. The longest-starved task of an owner comes first. Returns the events of this scan.
    pub fn serve(&mut self, snapshot: &Snapshot, starving: &[Starving]) -> &[Event] {
        let now = snapshot.at;
        let first = self.events.len();
        self.waiting = 0;
        self.counts_runs = snapshot.counts_runs;
        let has_work = !starving.is_empty() || !self.active.is_empty() || self.probation.next().is_some();
        if has_work {
            self.actuator.ascend();
        }
        if now >= self.next_recheck && self.recheck_by_scan(snapshot) {
            self.rank(snapshot);
        }
        self.refused.retain(|&again| again > now || fault::is(Fault::RefusalNotRetried));
        self.spacing.retain(|&next| next > now && !fault::is(Fault::SpacingIgnored));
        self.full.clear();
        self.claimed.clear();
        self.turns.clear();
        self.by_cpu.clear();
        self.by_cpu.extend(starving.iter().map(|starving| starving.task.cpu).zip(0..));
        self.by_cpu.sort_unstable();
        self.take_ranks(snapshot);
        self.put_in_order(now, starving);
        for index in 0..self.order.len() {
            let Some(next) = self.order.get(index).and_then(|&(_, index)| starving.get(index)) else {
                break;
            };
            self.serve_one(next, now, starving);
        }
        self.finish_starts();
        if has_work {
            self.actuator.descend();
        }
        self.events.get(first..).unwrap_or_default()
    }

    /// Starts the boost of a starving task, or notes when that is to be tried next. `now` is the
    /// moment of the scan.
    fn serve_one(&mut self, next: &Starving, now: Nanos, starving: &[Starving]) {
        let Task { cpu, .. } = next.task;
        if !self.wants(next) {
            if let Some(again) = self.tried(&next.task) {
                self.scan_at(again);
            }
            return;
        }
        if let Some(at) = self.spacing.get(cpu) {
            self.wait_until(at);
            // The tasks come in the order of the last boosts of their owners.
            if self.rules.max_loss.is_some() && !self.claimed.contains(cpu) {
                let comes_first = self.comes_first(&next.task, at);
                self.claimed.insert(cpu, comes_first);
            }
            self.plan_turn(next, at, now);
            return;
        }
        if self.full.contains(cpu) || !self.has_place(&next.task, now) {
            self.full.insert(cpu, ());
            self.wait_until(now + SPACING);
            return;
        }
        if self.has_run_since(&next.task) {
            return;
        }
        let crowded = self.wanted_on(cpu, starving) > self.rules.places();
        self.start(next, now, crowded);
        // On a host with many CPUs, other boosts may come to their ends meanwhile.
        let so_far = self.actuator.now();
        if self.next_end().is_some_and(|end| end <= so_far) {
            self.end_and_pulse(so_far);
        }
    }

    /// Adopts the children of boosted tasks, if that is due. Call it after all work that starving
    /// tasks wait for.
    pub(crate) fn adopt(&mut self, now: Nanos) {
        let Booster { adoptions, active, actuator, events, .. } = self;
        adoptions.adopt(active, now, |ancestors| {
            actuator.ascend();
            let has_met_all = actuator.adopt(ancestors, events);
            actuator.descend();
            has_met_all
        });
        self.lower_children(now);
    }

    /// Returns when to call `adopt` for the children of boosts that are over. For other children it
    /// is called after a scan.
    pub(crate) fn next_adoption(&self) -> Option<Nanos> {
        self.adoptions.next_of_ended()
    }

    /// Delays all work that needs a scan, because a scan has failed.
    pub(crate) fn delay_until(&mut self, until: Nanos) {
        self.next_recheck = self.next_recheck.max(until);
        self.next_start = self.next_start.map(|next| next.max(until));
        self.turns.clear();
    }

    /// Ends all boosts now.
    pub fn end_all(&mut self, now: Nanos) {
        self.actuator.ascend();
        while !self.active.is_empty() {
            self.end(0, now, true);
        }
        self.actuator.descend();
    }

    /// Counts a starving task that has to wait, and makes a scan due at `moment`.
    fn wait_until(&mut self, moment: Nanos) {
        self.waiting += 1;
        self.scan_at(moment);
    }

    /// Makes a scan due at `moment` or earlier.
    fn scan_at(&mut self, moment: Nanos) {
        self.next_start = Some(self.next_start.map_or(moment, |next| next.min(moment)));
    }

    /// Restores a boosted task and removes its boost.
    fn end(&mut self, index: usize, now: Nanos, early: bool) {
        let outcome = self.actuator.restore(&self.active[index].raised);
        self.close(index, now, early, outcome);
    }

    /// Removes a boost that is over.
    fn close(&mut self, index: usize, now: Nanos, early: bool, outcome: RestoreOutcome) {
        let Active { task, raised, started, .. } = self.active.swap_remove(index);
        self.boosted.remove(task.id());
        // A task that could not be restored yet is restored later. Its children need adoption too.
        if matches!(outcome, RestoreOutcome::Restored(_) | RestoreOutcome::Failed(_)) {
            self.adoptions.end(Ancestor { raised, task });
        }
        self.counters.failed_restores += u64::from(outcome.has_failed());
        let before = raised.boosted.before;
        self.events.push(Event::Over { task, before, after: now - started, early, outcome });
    }
}

#[path = "choice.rs"]
mod choice;

#[path = "pulses.rs"]
mod pulses;
#[path = "rechecks.rs"]
mod rechecks;
#[path = "request.rs"]
pub mod request;
#[path = "starts.rs"]
mod starts;
#[path = "turns.rs"]
mod turns;

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
