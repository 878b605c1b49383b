//! Decides which starving tasks are boosted, in which order, and whether a CPU has a place for one
//! more boost. Also lowers ranks that pulses have left behind.

use super::{
    Actuator, Booster, Cpu, Event, Fault, Nanos, PulsesOnly, RestoreOutcome, SPACING, Saved, Snapshot,
    Starving, Task, fault, steps,
};
use crate::boost::active::Active;
use crate::boost::journal::BoostPolicy;
use crate::boost::probation::Entry;
use crate::boost::pulse_children::LoweredChild;
use crate::boost::restore::FIFO_PRIORITY;
use crate::boost::rules::{PLACES, changes_cpus};
use crate::task::{Owner, Policy};
use std::cmp::Reverse;

/// The kernel's internal priority of a task in a pulse.
const PULSE_PRIORITY: i32 = 99 - FIFO_PRIORITY as i32;

/// How long the last boost of an owner on a CPU is remembered: in that time 500 boosts start on a
/// CPU.
const MEMORY_OF_TURNS: Nanos = Nanos::from_secs(10);

/// The number of real-time tasks per scan for which the parent is read.
const MAX_FAMILIES: u32 = 64;

/// Returns whether a task still has the owner that it had at the scan.
fn has_current_owner(task: &Task) -> bool {
    task.start != 0 && matches!(task.owner, Owner::Kernel | Owner::User(_))
}

impl<A: Actuator + ?Sized> Booster<A> {
    /// Returns a task with its owner of this moment. The owner is read again if it may have changed
    /// since the scan. Without a start time, the tid may have been reused. A privileged task may
    /// have dropped its privileges.
    pub(super) fn with_current_owner(&self, task: &Task) -> Task {
        let owner = if has_current_owner(task) { task.owner } else { self.actuator.owner(task) };
        Task { owner, ..*task }
    }

    /// Returns the boosts in flight on a CPU.
    pub(super) fn on(&self, cpu: Cpu) -> impl Iterator<Item = &Active> {
        self.active.iter().inspect(|_| steps::count(1)).filter(move |active| active.task.cpu == cpu)
    }

    /// Updates the CPUs of boosted tasks, and all ranks, before the detector judges the scan. If a
    /// CPU comes or goes, ends all boosts by SCHED_DEADLINE: a task without budget may keep its CPU
    /// from going, or be moved to one where it must not run.
    pub(crate) fn see(&mut self, snapshot: &Snapshot) {
        self.next_start = None;
        let mut queued = snapshot.waiters.iter().map(|waiter| &waiter.task).chain(&snapshot.running);
        if self.rules.how != BoostPolicy::Fifo && queued.any(changes_cpus) {
            self.only_pulse(PulsesOnly::Hotplug, snapshot.at);
        }
        self.follow(snapshot);
        self.rank(snapshot);
    }

    /// Returns whether only boosts keep a real-time task off its CPU: a boost started before its
    /// wait, and no other task outranks it.
    pub(crate) fn is_displaced_by_boosts(&self, task: &Task, since: Nanos) -> bool {
        task.sched.is_realtime()
            && self.on(task.cpu).any(|active| active.started <= since)
            && !self.priorities.outrank(task)
    }

    /// Updates the CPUs on which the boosted tasks run.
    pub(super) fn follow(&mut self, snapshot: &Snapshot) {
        self.running.refill(snapshot.running.iter().map(|task| (task.id(), task.cpu)));
        for active in &mut self.active {
            active.task.cpu = self.running.get(active.task.id()).unwrap_or(active.task.cpu);
        }
    }

    /// Updates the ranks of the tasks that are not boosted.
    pub(super) fn rank(&mut self, snapshot: &Snapshot) {
        let Booster { priorities, boosted, .. } = self;
        priorities.refill(snapshot, |task| boosted.contains(task.id()));
    }

    /// Sorts the starving tasks, which come in the order of their waits, by the last boost of their
    /// owner on their CPU, the oldest first.
    pub(super) fn put_in_order(&mut self, now: Nanos, starving: &[Starving]) {
        let Booster { served, order, max_owners, .. } = self;
        served.retain(|&at| now < at + MEMORY_OF_TURNS);
        if served.len() >= *max_owners {
            served.clear();
        }
        let last = |task: &Task| match fault::is(Fault::TurnsIgnored) {
            true => Nanos::ZERO,
            false => served.get((task.cpu, task.owner)).unwrap_or(Nanos::ZERO),
        };
        order.clear();
        order.extend(starving.iter().map(|starving| last(&starving.task)).zip(0..));
        order.sort_unstable();
        steps::count(order.len() * (order.len().max(1).ilog2() as usize + 1));
    }

    /// Lowers the rank of a task that is on probation, if it is too high. Returns true if the task
    /// has ended.
    fn lower(&mut self, entry: &Entry) -> bool {
        if fault::is(Fault::RankKept) {
            return false;
        }
        match self.actuator.lower_late(&entry.raised) {
            Some(RestoreOutcome::Lowered { from, .. }) => {
                let before = entry.raised.boosted.before;
                self.events.push(Event::Lowered { task: entry.task, from, before });
                false
            }
            Some(RestoreOutcome::Gone) => true,
            _ => false,
        }
    }

    /// Lowers ranks that tasks on probation have been given since their pulses.
    pub(super) fn check_ranks(&mut self, now: Nanos) {
        let mut probation = std::mem::take(&mut self.probation);
        probation.check(now, |entry| self.lower(entry));
        self.probation = probation;
    }

    /// Lowers the ranks that tasks of a scan have from their own pulses or from those of their
    /// parents.
    pub(super) fn take_ranks(&mut self, snapshot: &Snapshot) {
        if fault::is(Fault::RankKept) {
            return;
        }
        let waiting = snapshot.waiters.iter().map(|waiter| &waiter.task);
        let mut families = MAX_FAMILIES;
        // A child may have the policy of a pulse without its rank, and may raise its rank by that
        // policy later.
        let is_of_pulse =
            |task: &&Task| task.sched.prio < 100 || task.sched.policy.is_some_and(Policy::is_realtime);
        for task in snapshot.running.iter().chain(waiting).filter(is_of_pulse) {
            let entry = if task.misranked { None } else { self.probation.of(task) };
            if let Some(entry) = &entry {
                self.lower(entry);
            }
            let may_be_child = entry.is_none()
                && !task.sched.is_deadline()
                && !task.misranked
                && !task.owner.may_take_any_rank()
                && self.probation.next().is_some();
            if may_be_child && families > 0 {
                families -= 1;
                self.lower_child(task, snapshot.at);
            }
            if task.misranked && self.actuator.take_foreign_rank(task) {
                let priority = (99 - task.sched.prio).clamp(0, 99) as u32;
                let own = Saved {
                    policy: task.sched.policy.unwrap_or_default(),
                    priority: 0,
                    reset_on_fork: false,
                    nice: 0,
                    timer_slack: 0,
                };
                let from = Saved { policy: Policy::FIFO, priority, ..own };
                self.events.push(Event::Lowered { task: *task, from, before: own });
            }
        }
    }

    /// Lowers a task that was born with the policy or the rank of a pulse.
    fn lower_child(&mut self, task: &Task, now: Nanos) {
        if self.boosted.contains(task.id()) {
            return;
        }
        if let Some(child) = self.actuator.lower_child(task, &self.probation) {
            self.put_on_probation(LoweredChild { task: *task, ..child }, now);
        }
    }

    /// Lowers the new children of tasks on probation, if it is time to look for them. Call it after
    /// all work that starving tasks wait for.
    pub(super) fn lower_children(&mut self, now: Nanos) {
        if !self.probation.children_are_due(now) || fault::is(Fault::RankKept) {
            return;
        }
        let mut lowered = Vec::new();
        self.actuator.ascend();
        self.actuator.lower_children(&self.probation, &mut |child| lowered.push(child));
        self.actuator.descend();
        for child in lowered {
            self.put_on_probation(child, now);
        }
    }

    fn put_on_probation(&mut self, LoweredChild { task, raised, from }: LoweredChild, now: Nanos) {
        self.events.push(Event::Lowered { task, from, before: raised.boosted.before });
        self.probation.begin(&task, &raised, now);
    }

    /// Returns when to try again a task that could not be boosted.
    pub(super) fn tried(&self, task: &Task) -> Option<Nanos> {
        self.refused.get(task.id())
    }

    /// Returns whether a starving task that has no boost comes before the pulses that are due on
    /// its CPU by `at`, because no owner of these was served longer ago.
    pub(super) fn comes_first(&self, task: &Task, at: Nanos) -> bool {
        let last = self.last_served(task.cpu, task.owner);
        let is_due = |active: &&Active| active.next_pulse.is_some_and(|next| next <= at);
        let mut due = self.on(task.cpu).filter(is_due);
        !due.any(|active| self.last_served(task.cpu, active.found_owner) < last)
    }

    /// Returns when an owner was last served on a CPU.
    pub(super) fn last_served(&self, cpu: Cpu, owner: Owner) -> Nanos {
        self.served.get((cpu, owner)).unwrap_or(Nanos::ZERO)
    }

    /// Returns whether a starving task may be boosted now, if its CPU has a place.
    pub(super) fn wants(&self, starving: &Starving) -> bool {
        !self.boosted.contains(starving.task.id())
            && self.tried(&starving.task).is_none()
            && (!self.rules.only_outranked || self.priorities.outrank(&starving.task))
    }

    /// Returns how many of the starving tasks of a CPU are to be boosted. A scan calls it at most
    /// once for each CPU.
    pub(super) fn wanted_on(&self, cpu: Cpu, starving: &[Starving]) -> usize {
        let first = self.by_cpu.partition_point(|&(other, _)| other < cpu);
        let here = self.by_cpu.iter().skip(first).take_while(|&&(other, _)| other == cpu);
        let starving = here.inspect(|_| steps::count(1)).filter_map(|&(_, index)| starving.get(index));
        starving.filter(|starving| self.wants(starving)).count()
    }

    /// Returns whether a task in a pulse outranks all other tasks of a CPU.
    pub(super) fn pulses_outrank_all_on(&self, cpu: Cpu) -> bool {
        self.priorities.best(cpu).is_none_or(|(_, priority)| priority > PULSE_PRIORITY)
    }

    /// Returns whether a CPU has a place for one more boost.
    pub(super) fn fits(&self, cpu: Cpu, is_deadline: bool) -> bool {
        let kinds = self.on(cpu).map(|active| active.next_pulse.is_none()).chain([is_deadline]);
        let (by_deadline, all) =
            kinds.fold((0, 0), |(by_deadline, all), is| (by_deadline + usize::from(is), all + 1));
        self.rules.allows(all - by_deadline, by_deadline)
    }

    /// Returns whether a CPU has a place for one more boost. If it has none, ends older boosts to
    /// make one. Boosted tasks that have moved here from other CPUs take places too.
    pub(super) fn has_place(&mut self, task: &Task, now: Nanos) -> bool {
        // The owner is read again at the start.
        let owner = if has_current_owner(task) { task.owner } else { Owner::Privileged };
        let is_deadline = self.boosts_by_deadline(&Task { owner, ..*task }, now);
        while !self.fits(task.cpu, is_deadline) && !fault::is(Fault::CapIgnored) {
            if !self.make_room(task.cpu, now) {
                return false;
            }
        }
        true
    }

    /// Ends a boost of a CPU that is old enough to have had its budget once: the oldest one of an
    /// owner with the most boosts there, so that a crowd takes no place of others. Returns whether
    /// there was one.
    fn make_room(&mut self, cpu: Cpu, now: Nanos) -> bool {
        let mut indices = (0..self.active.len()).filter(|&index| self.active[index].task.cpu == cpu);
        // More than these are here only if boosted tasks have come from other CPUs.
        let here: [Option<usize>; PLACES] = std::array::from_fn(|_| indices.next());
        let owner = |index: usize| self.active[index].found_owner;
        let boosts_of = |of: Owner| here.iter().flatten().filter(|&&index| owner(index) == of).count();
        let oldest = (here.iter().flatten().copied())
            .filter(|&index| now >= self.active[index].started + SPACING)
            .min_by_key(|&index| (Reverse(boosts_of(owner(index))), self.active[index].started));
        match oldest {
            Some(index) => {
                self.end(index, now, true);
                // The task may not have run in its pulses. Then it needs a place again.
                self.scan_at(now + SPACING);
                true
            }
            None => false,
        }
    }
}
