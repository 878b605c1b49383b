//! Which starving tasks are to be boosted, and whether their CPU has a place for one more boost.

use super::{
    Actuator, Booster, Cpu, Event, Fault, Nanos, RestoreOutcome, SPACING, Saved, Snapshot, Starving, Task,
    fault, steps,
};
use crate::boost::active::Active;
use crate::boost::probation::Entry;
use crate::task::{Owner, Policy};

/// A turn is remembered for so long: as long as 500 boosts of a CPU take.
const MEMORY_OF_TURNS: Nanos = Nanos::from_secs(10);

/// So many turns are remembered: a user may have thousands of uids.
const MAX_TURNS: usize = 1024;

/// The parents of so many real-time tasks are read in a scan.
const MAX_FAMILIES: u32 = 64;

/// Lowers the rank of a task that is on probation. Returns whether that is over.
fn lower(actuator: &mut dyn Actuator, entry: &Entry, events: &mut Vec<Event>) -> bool {
    if fault::is(Fault::RankKept) {
        return false;
    }
    match actuator.lower_late(&entry.raised) {
        Some(RestoreOutcome::Lowered { from, .. }) => {
            let before = entry.raised.boosted.before;
            events.push(Event::Lowered { task: entry.task, from, before });
            false
        }
        Some(RestoreOutcome::Gone) => true,
        _ => false,
    }
}

/// Returns a task with its owner of this moment, where the owner that a scan saw may be another
/// one. Without a start time, the tid may have been reused since that scan. A privileged task may
/// have dropped its privileges, and only a kernel thread stays what it is.
pub(super) fn with_current_owner(task: &Task, actuator: &dyn Actuator) -> Task {
    let owner = match task.owner {
        Owner::Kernel | Owner::User(_) if task.start != 0 => task.owner,
        _ => actuator.owner(task),
    };
    Task { owner, ..*task }
}

impl Booster {
    pub(super) fn on(&self, cpu: Cpu) -> impl Iterator<Item = &Active> {
        self.active.iter().inspect(|_| steps::count(1)).filter(move |active| active.task.cpu == cpu)
    }

    /// Takes in a scan, before it is judged which of its tasks starve.
    pub fn see(&mut self, snapshot: &Snapshot) {
        self.follow(snapshot);
        self.rank(snapshot);
    }

    /// Returns whether boosts keep a real-time task off its CPU, and no other task does: one began
    /// before its wait, and it would have the CPU otherwise.
    pub fn displaces(&self, task: &Task, since: Nanos) -> bool {
        task.sched.is_realtime()
            && self.on(task.cpu).any(|active| active.started <= since)
            && !self.ranks.outrank(task)
    }

    /// Takes over from a scan where the boosted tasks run now.
    pub(super) fn follow(&mut self, snapshot: &Snapshot) {
        self.running.refill(snapshot.running.iter().map(|task| (task.id(), task.cpu)));
        for active in &mut self.active {
            active.task.cpu = self.running.get(active.task.id()).unwrap_or(active.task.cpu);
        }
    }

    pub(super) fn rank(&mut self, snapshot: &Snapshot) {
        let Booster { ranks, boosted, .. } = self;
        ranks.refill(snapshot, |task| boosted.contains(task.id()));
    }

    /// Puts the starving tasks, which are in the order of their waits, in that in which they are
    /// served.
    pub(super) fn put_in_order(&mut self, now: Nanos, starving: &[Starving]) {
        let Booster { served, order, .. } = self;
        served.retain(|&at| now < at + MEMORY_OF_TURNS);
        if served.len() >= MAX_TURNS {
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

    /// Lowers ranks that tasks have been given since their pulses.
    pub(super) fn check_ranks(&mut self, now: Nanos, actuator: &mut dyn Actuator, events: &mut Vec<Event>) {
        let Booster { probation, .. } = self;
        probation.check(now, |entry| lower(actuator, entry, events));
    }

    /// Takes the ranks that tasks of a scan have from pulses of theirs or of their parents.
    pub(super) fn take_ranks(
        &mut self,
        snapshot: &Snapshot,
        actuator: &mut dyn Actuator,
        events: &mut Vec<Event>,
    ) {
        if fault::is(Fault::RankKept) {
            return;
        }
        let waiting = snapshot.waiters.iter().map(|waiter| &waiter.task);
        let mut families = MAX_FAMILIES;
        // A child may also have the policy of a pulse without its rank, and may choose a rank by
        // it.
        let is_of_pulse =
            |task: &&Task| task.sched.prio < 100 || task.sched.policy.is_some_and(Policy::is_realtime);
        for task in snapshot.running.iter().chain(waiting).filter(is_of_pulse) {
            let entry = if task.misranked { None } else { self.probation.of(task) };
            if entry.is_some_and(|entry| lower(actuator, &entry, events)) {
                self.probation.end(task);
            }
            let may_be_child = entry.is_none()
                && !task.sched.is_deadline()
                && !task.misranked
                && !task.owner.may_take_any_rank()
                && self.probation.next().is_some();
            if may_be_child && families > 0 {
                families -= 1;
                self.lower_child(task, actuator, events);
            }
            if task.misranked && actuator.take_foreign_rank(task) {
                let priority = (99 - task.sched.prio).clamp(0, 99) as u32;
                let own = Saved {
                    policy: task.sched.policy.unwrap_or_default(),
                    priority: 0,
                    reset_on_fork: false,
                    nice: 0,
                    timer_slack: 0,
                };
                let from = Saved { policy: Policy::FIFO, priority, ..own };
                events.push(Event::Lowered { task: *task, from, before: own });
            }
        }
    }

    /// Lowers a task that was born with the policy of a pulse of its parent, or of a thread of its
    /// process.
    fn lower_child(&self, task: &Task, actuator: &mut dyn Actuator, events: &mut Vec<Event>) {
        if self.boosted.contains(task.id()) {
            return;
        }
        let Some(birth) = actuator.birth(task) else { return };
        let is_parent = |entry: &&Entry| {
            let tgid = entry.raised.boosted.tgid;
            birth.start >= entry.births && (birth.parent == tgid || task.tgid == Some(tgid))
        };
        let Some(parent) = self.probation.iter().find(is_parent) else { return };
        if let Some(RestoreOutcome::Lowered { from, .. }) = actuator.lower_child(&birth, &parent.raised) {
            events.push(Event::Lowered { task: *task, from, before: parent.raised.boosted.before });
        }
    }

    /// When to try again a task that could not be boosted.
    pub(super) fn tried(&self, task: &Task) -> Option<Nanos> {
        self.refused.get(task.id())
    }

    pub(super) fn wants(&self, candidate: &Starving) -> bool {
        !self.boosted.contains(candidate.task.id())
            && self.tried(&candidate.task).is_none()
            && (!self.rules.only_outranked || self.ranks.outrank(&candidate.task))
    }

    /// How many of the starving tasks of a CPU are to be boosted. At each scan it is asked once for
    /// a CPU at most.
    pub(super) fn wanted_on(&self, cpu: Cpu, starving: &[Starving]) -> usize {
        let first = self.by_cpu.partition_point(|&(other, _)| other < cpu);
        let here = self.by_cpu.iter().skip(first).take_while(|&&(other, _)| other == cpu);
        let starving = here.inspect(|_| steps::count(1)).filter_map(|&(_, index)| starving.get(index));
        starving.filter(|starving| self.wants(starving)).count()
    }

    /// Makes a place for a boost on a CPU, if it has none. Boosted tasks that have come from other
    /// CPUs take places here too. Returns false if there is none.
    pub(super) fn has_place(
        &mut self,
        cpu: Cpu,
        now: Nanos,
        actuator: &mut dyn Actuator,
        events: &mut Vec<Event>,
    ) -> bool {
        while self.on(cpu).count() >= self.places && !fault::is(Fault::CapIgnored) {
            if !self.make_room(cpu, now, actuator, events) {
                return false;
            }
        }
        true
    }

    /// Ends a boost that has had its budget once, if there is one.
    fn make_room(
        &mut self,
        cpu: Cpu,
        now: Nanos,
        actuator: &mut dyn Actuator,
        events: &mut Vec<Event>,
    ) -> bool {
        let oldest = (0..self.active.len())
            .filter(|&index| self.active[index].task.cpu == cpu)
            .filter(|&index| now >= self.active[index].started + SPACING)
            .min_by_key(|&index| self.active[index].started);
        match oldest {
            Some(index) => {
                self.end(index, now, true, actuator, events);
                // The task may not have run in its pulses, and then it is the next to get a place.
                self.look_at(now + SPACING);
                true
            }
            None => false,
        }
    }
}
