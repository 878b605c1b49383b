//! Checks the consequences of each successful scan.

use crate::machine::BEGINNING;
use crate::promises::{SPACING, Watched};
use crate::setup::Trouble;
use crate::tasks::Life;
use stalld::engine::Engine;
use stalld::task::{Cpu, Nanos};

/// Limit on the time until a starving task is reported. A scan reports one task of a CPU, and the
/// next one follows a millisecond later.
const NAMING: Nanos = Nanos::from_millis(100);

const SHORTEST_PAUSE: Nanos = Nanos::from_millis(1);

impl Watched {
    pub fn judge_scan(&mut self, rests: Nanos, engine: &Engine) {
        self.tally.scans += 1;
        let (at, next, limits) = (self.scan_at, engine.next(), self.orders.limits);
        self.judge_names(engine);
        let mut promised = at + limits.granularity.min(limits.threshold);
        for index in 0..self.world.lives.len() {
            let life = self.world.lives[index];
            let known = life.judged.known.filter(|_| life.judged.missed <= 1);
            let due = known.map(|known| known + limits.threshold).filter(|&due| due > at);
            promised = due.map_or(promised, |due| promised.min(due));
            if self.orders.boosts && life.judged.due_at == Some(at) {
                let until = self.judge_starving(&life);
                promised = until.map_or(promised, |until| promised.min(until));
            }
        }
        if next > promised.max(at + SHORTEST_PAUSE).max(rests) {
            let life = self.world.lives[0];
            self.break_promise(&life, &format!("stalld sleeps until {next:?}, not {promised:?}"));
        }
        for cpu in (0..self.world.setup.cpus).map(Cpu) {
            let here = self.boosts.iter().filter(|boost| boost.cpu == cpu);
            let began = here.clone().any(|boost| boost.end >= at + self.orders.boost.duration);
            let count = here.clone().count();
            if began && !self.orders.allows(here.map(|boost| boost.how)) {
                let life = self.world.lives[0];
                self.break_promise(&life, &format!("one more boost has made {count} of them on CPU {cpu}"));
            }
        }
    }

    /// Checks that a starving task is boosted, or that there is a reason why not. Returns when the
    /// next scan is due at the latest, if the reason is a limit on boosts.
    fn judge_starving(&mut self, life: &Life) -> Option<Nanos> {
        if self.excused(life) || life.judged.tried_at == Some(self.scan_at) {
            return None;
        }
        let cpu = life.judged.cpu;
        let core = &self.world.cores[cpu.0 as usize];
        let tried_at = core.tried_at.max(core.reported_at).max(self.stranger_tried_at);
        let spaced = (tried_at + SPACING).max(self.delayed_by_losses(cpu));
        if spaced > self.scan_at {
            return Some(spaced);
        }
        let here = self.boosts.iter().filter(|boost| boost.cpu == cpu).map(|boost| boost.how);
        if !self.orders.allows(here.chain([self.orders.rules.how])) {
            return Some(self.scan_at + SPACING);
        }
        self.break_promise(life, "it starves, and is neither boosted nor refused");
        None
    }

    fn judge_names(&mut self, engine: &Engine) {
        let at = self.scan_at;
        for starving in engine.starving() {
            let is_it = |it: &&mut Life| (it.tid, it.start) == (starving.task.tid, starving.task.start);
            // The task may have ended by now.
            let Some(life) = self.world.lives.iter_mut().find(is_it) else { continue };
            let is_new = starving.due && !life.judged.named;
            let judged = &mut life.judged;
            judged.named |= starving.due;
            let right = judged.starved_at == Some(at) || judged.known.is_none();
            let wrong_wait = judged.known.is_some_and(|known| starving.wait > at - known);
            let life = *life;
            self.tally.named += u64::from(is_new);
            if !right || wrong_wait {
                self.break_promise(&life, &format!("it is said to have waited for {:?}", starving.wait));
            }
        }
        let quiet = !self.world.setup.has(Trouble::Late) && !self.world.setup.has(Trouble::Lost);
        let unnamed = |it: &&Life| {
            !it.judged.named
                && it.judged.due_at == Some(at)
                && it.judged.due_since.is_some_and(|since| since + NAMING < at)
        };
        if let Some(life) =
            self.world.lives.iter().find(unnamed).filter(|_| quiet && !self.orders.boosts).copied()
        {
            self.break_promise(&life, "it starves, and is not named");
        }
    }

    /// Checks that stalld does not poll. It needs a scan for each pause, and a few for each wait:
    /// one when the wait reaches the threshold, and those until the task is reported.
    pub fn scanned_no_more_than_needed(&mut self) {
        let limits = self.orders.limits;
        let pauses =
            (self.world.now - BEGINNING).0 / (limits.granularity.min(limits.threshold).0 * 9 / 10) + 1;
        let enough = 2 * pauses + 5 * self.world.waits + self.tally.kills;
        if !self.orders.boosts && self.tally.scans > enough {
            let life = self.world.lives[0];
            self.break_promise(&life, &format!("{} scans where {enough} are enough", self.tally.scans));
        }
    }
}
