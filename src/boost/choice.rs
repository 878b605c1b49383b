//! Which starving tasks are to be boosted, and whether their CPU has a place for one more boost.

use super::{Booster, Cpu, Event, Fault, Hands, Nanos, SPACING, Snapshot, Starving, Task, fault, id, steps};
use crate::boost::active::Active;

impl Booster {
    pub(super) fn on(&self, cpu: Cpu) -> impl Iterator<Item = &Active> {
        self.active.iter().inspect(|_| steps::count(1)).filter(move |active| active.task.cpu == cpu)
    }

    /// Takes over from a scan where the boosted tasks run now.
    pub(super) fn follow(&mut self, snapshot: &Snapshot) {
        self.running.refill(snapshot.running.iter().map(|task| (id(task), task.cpu)));
        for active in &mut self.active {
            active.task.cpu = self.running.get(id(&active.task)).unwrap_or(active.task.cpu);
        }
    }

    pub(super) fn rank(&mut self, snapshot: &Snapshot) {
        let Booster { ranks, boosted, .. } = self;
        ranks.refill(snapshot, |task| boosted.contains(id(task)));
    }

    /// When to try again a task that could not be boosted.
    pub(super) fn tried(&self, task: &Task) -> Option<Nanos> {
        self.refused.get(id(task))
    }

    pub(super) fn wants(&self, candidate: &Starving) -> bool {
        !self.boosted.contains(id(&candidate.task))
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
        hands: &mut dyn Hands,
        events: &mut Vec<Event>,
    ) -> bool {
        while self.on(cpu).count() >= self.places && !fault::is(Fault::CapIgnored) {
            if !self.make_room(cpu, now, hands, events) {
                return false;
            }
        }
        true
    }

    /// Ends a boost that has had its budget once, if there is one.
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
}
