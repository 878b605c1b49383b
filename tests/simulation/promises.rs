//! What stalld promises, held against what the machine knows.

use crate::kernel::Lie;
use crate::machine::World;
use crate::setup::Orders;
use crate::tasks::{Judged, Life, Scheduled, State};
use stalld::boost::event::Event;
use stalld::boost::journal::{BoostPolicy, Boosted, Journal, Rank, RestoreRecord, Saved};
use stalld::boost::restore::RestoreOutcome;
use stalld::engine::Engine;
use stalld::observe::Snapshot;
use stalld::sys::sched::Attr;
use stalld::task::{Cpu, Nanos, Policy, Task, Tid};
use std::collections::HashMap;
use std::sync::Arc;

/// Boosts of a CPU start this far apart.
pub const SPACING: Nanos = Nanos::from_millis(20);

/// A task that the guardian has in hand is tried again after this.
const TAKEN: Nanos = Nanos::from_millis(100);

/// The guardian steps in as late.
const STUCK: Nanos = Nanos::from_secs(1);
const RETRY: Nanos = Nanos::from_secs(1);

/// What the calls of a turn take, and what is slept through in it.
const SLOP: Nanos = Nanos::from_millis(100);

/// A boost, as far as it is known outside of stalld.
#[derive(Clone, Copy, Debug)]
pub struct Boost {
    id: u64,
    /// The number and the start under which stalld knows it.
    of: (Tid, u64),
    /// How it was scheduled before.
    own: Attr,
    /// In the ticks that tasks' starts are in.
    since: u64,
    pub end: Nanos,
    /// Where stalld has seen it last.
    pub cpu: Cpu,
    /// stalld has said so.
    told: bool,
}

/// The machine, and who watches it.
pub struct Watched {
    pub world: World,
    pub orders: Orders,
    pub journal: Arc<Journal>,
    pub lie: Option<Lie>,
    /// Restores don't fail.
    pub calm: bool,
    /// The first promise that was broken.
    pub broken: Option<String>,
    pub boosts: Vec<Boost>,
    /// Boosts that stalld has ended in this turn.
    overs: Vec<Boost>,
    /// How each task that had pulses was scheduled before them.
    pulsed: HashMap<(Tid, u64), Vec<Attr>>,
    /// Tasks that were born to them, by their number on the machine, and have not been seen to yet.
    lost: Vec<u64>,
    /// Of the last snapshot.
    pub look_at: Nanos,
    pub in_look: bool,
    /// The last look that found another task at the number of one that starved.
    pub stranger_tried_at: Nanos,
    /// Whom a boost that has just ended outranks is not judged.
    overs_at_look: u64,
    pub tally: Tally,
}

/// What has happened, so that a run that shows nothing is noticed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub looks: u64,
    pub named: u64,
    pub boosts: u64,
    pub refusals: u64,
    pub overs: u64,
    pub guarded: u64,
    pub adopted: u64,
    pub kills: u64,
}

impl Tally {
    pub fn plus(self, other: Tally) -> Tally {
        Tally {
            looks: self.looks + other.looks,
            named: self.named + other.named,
            boosts: self.boosts + other.boosts,
            refusals: self.refusals + other.refusals,
            overs: self.overs + other.overs,
            guarded: self.guarded + other.guarded,
            adopted: self.adopted + other.adopted,
            kills: self.kills + other.kills,
        }
    }
}

impl Watched {
    pub fn new(world: World, orders: Orders, journal: Arc<Journal>, lie: Option<Lie>) -> Watched {
        Watched {
            world,
            orders,
            journal,
            lie,
            calm: false,
            broken: None,
            boosts: Vec::new(),
            overs: Vec::new(),
            pulsed: HashMap::new(),
            lost: Vec::new(),
            look_at: Nanos::ZERO,
            in_look: false,
            stranger_tried_at: Nanos::ZERO,
            overs_at_look: 0,
            tally: Tally::default(),
        }
    }

    pub fn break_promise(&mut self, life: &Life, what: &str) {
        if self.broken.is_none() {
            self.broken =
                Some(format!("{what}; at {:?}, last look at {:?}: {life:?}", self.world.now, self.look_at));
        }
    }

    /// What a look shows.
    pub fn looked(&mut self, snapshot: &Snapshot) {
        let (at, threshold) = (snapshot.at, self.orders.limits.threshold);
        (self.look_at, self.overs_at_look) = (at, self.tally.overs);
        let hogs: Vec<Cpu> = self
            .world
            .lives
            .iter()
            .filter(|life| life.hog && life.state == State::Running && !life.judged.boosted)
            .map(|life| life.cpu)
            .collect();
        for life in &mut self.world.lives {
            let waits = snapshot.complete && life.waits();
            let shown = snapshot.waiters.iter().find(|waiter| waiter.task.tid == life.tid).filter(|_| waits);
            let judged = &mut life.judged;
            judged.outranked = hogs.contains(&life.cpu);
            judged.starved_at = (waits && at - life.truly >= threshold).then_some(at);
            if let Some(shown) = shown {
                let since = shown.since.unwrap_or(at);
                let known = judged.known.map_or(since, |known| known.min(since));
                (judged.known, judged.missed, judged.seen, judged.cpu) = (Some(known), 0, at, life.cpu);
                let due = known + threshold <= at;
                judged.due_since = due.then(|| judged.due_since.unwrap_or(at));
                judged.due_at = due.then_some(at);
            } else {
                (judged.missed, judged.due_since, judged.due_at) = (judged.missed + 1, None, None);
                // One that has been out of sight for so long may be forgotten.
                let remembered = judged.missed <= 8 || at - judged.seen <= threshold;
                judged.known = judged.known.filter(|_| remembered);
            }
        }
        for task in &snapshot.running {
            let of_it = self.boosts.iter_mut().filter(|boost| boost.of == (task.tid, task.start));
            of_it.for_each(|boost| boost.cpu = task.cpu);
        }
    }

    /// stalld is about to boost a task.
    pub fn begins(&mut self, index: usize) {
        let life = self.world.lives[index];
        let at = Some(self.look_at);
        if !self.in_look || life.judged.tried_at == at {
            return;
        }
        if life.judged.due_at != at {
            // It has taken the number of one that starved a microsecond ago, on whatever CPU.
            self.stranger_tried_at = self.look_at;
            return;
        }
        self.world.lives[index].judged.tried_at = at;
        let cpu = life.judged.cpu;
        if self.world.cores[cpu.0 as usize].tried_at + SPACING > self.look_at {
            self.break_promise(&life, "boosts of a CPU start 20 ms apart, and this one does not");
        }
        self.world.cores[cpu.0 as usize].tried_at = self.look_at;
        let owner = life.task().owner;
        let longer = |it: &&Life| {
            let is_here = (it.judged.due_at, it.judged.cpu) == (at, cpu);
            is_here && it.task().owner == owner && it.judged.known < life.judged.known
        };
        let first = self.world.lives.iter().find(|it| longer(it) && !self.excused(it)).copied();
        if let Some(first) = first.filter(|it| it.judged.tried_at != at) {
            self.break_promise(
                &first,
                &format!("it has starved for longer than {}, which was first", life.tid),
            );
        }
    }

    /// stalld need not boost it now, or can't.
    pub fn excused(&self, life: &Life) -> bool {
        let judged = &life.judged;
        judged.boosted
            || life.is_foreign()
            || judged.refused_until > self.look_at
            // stalld does not tell of one that its guardian has in hand.
            || judged.tried_at.is_some_and(|tried| tried + TAKEN > self.look_at)
            || judged.known.is_none()
            || !life.waits()
            || self.orders.rules.only_outranked
                && (!judged.outranked || self.tally.overs > self.overs_at_look)
    }

    /// Whose records there are, before something happens to a task.
    pub fn note_records(&mut self) {
        let of_boost = |(_, record)| match record {
            RestoreRecord::Boost(boosted) => Some((boosted.tid, boosted.tgid)),
            _ => None,
        };
        self.world.noted.clear();
        self.world.noted.extend(self.journal.open().filter_map(of_boost));
    }

    /// A task is about to be scheduled otherwise.
    pub fn before_set(&mut self, index: usize, attr: &Attr, raises: bool) {
        let life = self.world.lives[index];
        let says = |attr: &Attr| (attr.policy, attr.priority, attr.reset_on_fork());
        if raises {
            return self.before_raise(index, attr);
        }
        if life.is_foreign() {
            if says(attr) != says(&life.own.attr) {
                self.break_promise(&life, &format!("it was restored to {attr:?}"));
            }
            return;
        }
        // A rank is lowered several times in a row.
        if says(&life.now.attr) == says(attr) {
            return;
        }
        let rank = |attr: &Attr| Rank::of(attr.policy, attr.priority);
        let pulsed = self.pulsed.get(&(life.tid, life.start)).into_iter().flatten();
        let had_pulse = pulsed.into_iter().any(|before| says(before) == says(attr));
        if had_pulse && life.now.attr.reset_on_fork() && rank(&life.now.attr) > rank(attr) {
            let slack = self.world.slack_of(&life.now, attr.policy);
            let it = &mut self.world.lives[index];
            let attr = Attr { nice: it.own.attr.nice, ..*attr };
            (it.own, it.judged.lowered) = (Scheduled { attr, slack }, true);
            return;
        }
        if let Some(before) = self.lowered_to(&life, attr) {
            let slack = match before.timer_slack {
                0 => self.world.slack_of(&life.now, attr.policy),
                slack => slack,
            };
            let it = &mut self.world.lives[index];
            it.own = Scheduled { attr: Attr { nice: it.own.attr.nice, ..*attr }, slack };
            return;
        }
        if life.tid == life.tgid && life.runs > 0 {
            self.break_promise(&life, &format!("it may have set its policy itself, and was set to {attr:?}"));
        }
        // A task that was born within the tick in which the boost began may be meant too.
        let since = |boost: &&Boost| life.start >= boost.since;
        let mut elders = self.boosts.iter().chain(&self.overs).filter(since).map(|boost| boost.own);
        let alike = elders.find(|own| (own.policy, own.priority, false) == says(attr));
        match life.judged.inherits.or(alike) {
            Some(own) if (own.policy, own.priority, false) == says(attr) => {
                self.world.lives[index].judged.inherits = Some(own);
                self.tally.adopted += 1;
                let slack = self.world.slack_of(&life.now, attr.policy);
                let it = &mut self.world.lives[index];
                it.own = Scheduled { attr: Attr { nice: it.own.attr.nice, ..*attr }, slack };
            }
            _ => self.break_promise(&life, &format!("it was not boosted, and was set to {attr:?}")),
        }
    }

    /// Returns how the task was scheduled before a pulse if that is as it is set now, and it has a
    /// higher rank.
    fn lowered_to(&self, life: &Life, attr: &Attr) -> Option<Saved> {
        let rank = |attr: &Attr| Rank::of(attr.policy, attr.priority);
        self.journal.open().find_map(|(_, record)| {
            let RestoreRecord::Boost(boosted) = record else { return None };
            let names = [(boosted.tid, boosted.start), (boosted.tgid, boosted.leader_start)];
            let is_lowered = names.contains(&(life.tid, life.start))
                && boosted.how == BoostPolicy::Fifo
                && boosted.before.is(attr)
                && rank(&life.now.attr) > rank(attr);
            is_lowered.then_some(boosted.before)
        })
    }

    fn before_raise(&mut self, index: usize, attr: &Attr) {
        let (life, now) = (self.world.lives[index], self.world.now);
        if life.is_foreign() {
            self.break_promise(&life, "it was boosted, and is boosted once more");
        }
        let starved = self.in_look && life.judged.starved_at == Some(self.look_at);
        // Its own, or those of the leader whose number it has taken.
        let is_of = |boost: &&Boost| boost.id == life.id || boost.of == (life.tid, life.start);
        let pulses = self.boosts.iter().filter(is_of).any(|boost| now <= boost.end + SLOP);
        if !starved && !pulses {
            // It has taken the number of one that starved a microsecond ago: by exec(2), which
            // stalld can't tell from that one, or by chance, which it notices at once.
            if life.judged.born_in != self.world.turn {
                self.break_promise(&life, "it was boosted, and has not starved");
            }
            if life.judged.born_in != self.world.turn || self.records_of(&life) == 0 {
                return;
            }
        }
        if self.records_of(&life) != 1 {
            self.break_promise(&life, "it was boosted without a record of how to undo that");
        }
        let fifo = attr.policy == Policy::FIFO;
        if fifo {
            self.pulsed.entry((life.tid, life.start)).or_default().push(life.own.attr);
        }
        let end = self.look_at + self.orders.boost.duration;
        let back_by = if fifo { now + self.orders.rules.runtime + STUCK } else { end + STUCK };
        let since = self.world.ticks();
        let judged = &mut self.world.lives[index].judged;
        judged.back_by = back_by + SLOP;
        judged.boosted = true;
        // In a look boosts begin; between looks they go on.
        let new = !self.boosts.iter().any(|boost| boost.id == life.id && (!boost.told || !self.in_look));
        if new {
            let (id, of) = (life.id, (life.tid, life.start));
            self.boosts.push(Boost { id, of, own: life.own.attr, since, end, cpu: judged.cpu, told: false });
        }
    }

    pub fn after_set(&mut self, index: usize, raises: bool) {
        let life = &mut self.world.lives[index];
        life.judged.touched = true;
        if !raises {
            life.judged.kept = false;
        }
    }

    /// The kernel has refused to take a boost back.
    pub fn kept(&mut self, index: usize) {
        let now = self.world.now;
        let life = &mut self.world.lives[index];
        if life.is_foreign() {
            (life.judged.kept, life.judged.back_by) = (true, now + RETRY + STUCK + SLOP);
        }
    }

    pub fn niced(&mut self, index: usize, nice: i32) {
        let life = self.world.lives[index];
        match life.judged.inherits {
            Some(own) if own.nice == nice => {
                let it = &mut self.world.lives[index];
                (it.own.attr.nice, it.now.attr.nice) = (nice, nice);
            }
            _ => self.break_promise(&life, &format!("its nice value was set to {nice}")),
        }
    }

    fn records_of(&self, life: &Life) -> usize {
        let count = |names: fn(&Boosted) -> (Tid, u64)| {
            let is_of =
                |record| matches!(record, RestoreRecord::Boost(it) if names(&it) == (life.tid, life.start));
            self.journal.open().filter(|&(_, record)| is_of(record)).count()
        };
        // By exec(2) a thread takes the number of its process.
        match count(|it| (it.tid, it.start)) {
            0 => count(|it| (it.tgid, it.leader_start)).min(1),
            own => own,
        }
    }

    /// One that stalld has told of, or else one that it is to tell of.
    fn boost_of(&self, task: &Task, told: bool) -> Option<usize> {
        let of = (task.tid, task.start);
        let of_it = |told: bool| self.boosts.iter().position(|boost| boost.of == of && boost.told == told);
        of_it(told).or_else(|| of_it(!told))
    }

    fn life(&mut self, id: u64) -> Option<&mut Life> {
        self.world.lives.iter_mut().find(|life| life.id == id)
    }

    /// What stalld says it has done.
    pub fn told(&mut self, event: &Event) {
        match event {
            Event::Boosted { task, .. } => {
                self.tally.boosts += 1;
                let Some(index) = self.boost_of(task, false) else { return };
                self.boosts[index].told = true;
                // One that has taken its leader's number since is what the leader was, to stalld.
                if let Some(life) = self.life(self.boosts[index].id).filter(|life| life.tid == task.tid) {
                    life.judged.refused_until = Nanos::ZERO;
                }
            }
            Event::Refused { task, .. } => {
                self.tally.refusals += 1;
                let until = self.look_at + self.orders.rules.retry;
                let life =
                    self.world.lives.iter_mut().find(|it| (it.tid, it.start) == (task.tid, task.start));
                if let Some(life) = life {
                    life.judged.refused_until = until;
                }
                self.world.cores[task.cpu.0 as usize].tried_at = self.look_at;
            }
            Event::Over { task, outcome, .. } => {
                self.tally.overs += 1;
                let Some(index) = self.boost_of(task, true) else { return };
                let boost = self.boosts.swap_remove(index);
                self.overs.push(boost);
                let Some(life) = self.life(boost.id) else { return };
                life.judged.boosted = false;
                let life = *life;
                if matches!(outcome, RestoreOutcome::Failed(_)) && !life.judged.kept && life.is_foreign() {
                    self.break_promise(&life, "its restore is said to have failed");
                }
                // What its children are is another's business if its policy was set since by
                // somebody else.
                let is_itself = life.tid == task.tid && life.own.attr == boost.own;
                if matches!(outcome, RestoreOutcome::Restored(_)) && is_itself {
                    // One that was boosted itself just now is not seen to be as RESET_ON_FORK makes
                    // tasks.
                    let lost = |it: &&Life| {
                        it.parent == life.id
                            && it.judged.inherits == Some(boost.own)
                            && it.start >= boost.since
                            && !it.is_foreign()
                            && !it.judged.boosted
                            && !it.judged.touched
                    };
                    self.lost.extend(self.world.lives.iter().filter(lost).map(|life| life.id));
                }
            }
            Event::Lowered { .. } => {}
            Event::Adopted { child, .. } | Event::Orphan { child, .. } => {
                if let Some(index) = self.world.find(*child) {
                    self.world.lives[index].judged.inherits = None;
                }
            }
        }
    }

    /// Nobody is boosted for longer than was said, whoever has to end it.
    pub fn stepped(&mut self) {
        let now = self.world.now;
        let late = |life: &&Life| life.is_foreign() && now > life.judged.back_by;
        if let Some(life) = self.world.lives.iter().find(late).copied() {
            self.break_promise(&life, "it is boosted for longer than even the guardian allows");
        }
        let bare = |life: &&Life| life.is_foreign() && self.records_of(life) == 0;
        if let Some(life) = self.world.lives.iter().find(bare).copied() {
            self.break_promise(&life, "it is boosted, and nothing says how to undo that");
        }
    }

    /// A turn of stalld that began then is over; `looked` is what came of its look, `rests` until
    /// when it rests.
    pub fn turned(&mut self, begun: Nanos, looked: Option<bool>, rests: Nanos, engine: &Engine) {
        for id in std::mem::take(&mut self.lost) {
            let lost = |life: &&mut Life| {
                life.judged.inherits.is_some() && !life.is_foreign() && !life.judged.boosted
            };
            if let Some(child) = self.life(id).filter(lost).copied() {
                self.break_promise(&child, "it was born to a boosted task, and stays as that has made it");
            }
        }
        self.overs.clear();
        for boost in std::mem::take(&mut self.boosts) {
            let life = self.life(boost.id).map(|life| {
                life.judged.boosted = boost.told;
                *life
            });
            let life = life.unwrap_or(self.world.lives[0]);
            if !boost.told {
                continue;
            }
            self.boosts.push(boost);
            if boost.end <= begun {
                self.break_promise(&life, &format!("it is not over at its end: {boost:?}"));
            }
            if engine.next() > boost.end {
                let what = format!("stalld sleeps through its end, until {:?}: {boost:?}", engine.next());
                self.break_promise(&life, &what);
            }
        }
        for index in 0..self.world.lives.len() {
            let life = self.world.lives[index];
            if life.is_foreign() {
                let in_deadline = life.now.attr.policy == Policy::DEADLINE && life.judged.boosted;
                if !life.judged.kept && !in_deadline {
                    self.break_promise(&life, "it is left as stalld has made it");
                }
                if self.records_of(&life) != 1 {
                    self.break_promise(&life, "it is boosted, and there is not one record of it");
                }
            } else if life.judged.touched {
                self.world.lives[index].judged.touched = false;
                if life.now.slack != life.own.slack {
                    self.break_promise(&life, "its timer slack is not what it was");
                }
            }
        }
        match looked {
            Some(true) => self.judge_look(rests, engine),
            Some(false) => {
                let limits = self.orders.limits;
                let until = (self.world.now + limits.granularity.min(limits.threshold)).max(rests);
                let life = self.world.lives[0];
                if engine.next() > until {
                    self.break_promise(
                        &life,
                        &format!("after a lost look stalld sleeps until {:?}", engine.next()),
                    );
                }
            }
            None => {}
        }
    }

    /// stalld is dead, and its guardian has been through.
    pub fn recovered(&mut self) {
        self.tally.kills += 1;
        self.boosts.clear();
        self.overs.clear();
        self.lost.clear();
        self.world.cores.iter_mut().for_each(|core| core.tried_at = Nanos::ZERO);
        for index in 0..self.world.lives.len() {
            let life = self.world.lives[index];
            let mistaken = life.judged.born_in == self.world.turn;
            let it = &mut self.world.lives[index];
            if mistaken {
                it.now = it.own;
            } else if life.now != life.own {
                self.break_promise(&life, "stalld was killed, and it is not as it was");
            }
            let it = &mut self.world.lives[index];
            it.judged = Judged::default();
        }
        if self.journal.open().count() > 0 {
            let life = self.world.lives[0];
            let open: Vec<_> = self.journal.open().collect();
            self.break_promise(&life, &format!("stalld was killed, and its journal is not empty: {open:?}"));
        }
    }
}
