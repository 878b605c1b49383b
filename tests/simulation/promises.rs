//! Compares the promises of stalld with the true state of the machine.

mod losses;
mod needs;
mod sets;

use crate::kernel::Lie;
use crate::machine::World;
use crate::setup::Orders;
use crate::tasks::{Judged, Life, State};
use needs::Need;
use stalld::boost::event::Event;
use stalld::boost::journal::{BoostPolicy, Journal, RestoreRecord};
use stalld::boost::restore::RestoreOutcome;
use stalld::engine::Engine;
use stalld::observe::Snapshot;
use stalld::sys::sched::Attr;
use stalld::task::{Cpu, Nanos, Policy, Task, Tid};
use std::collections::HashMap;
use std::sync::Arc;

/// Boosts of a CPU start this far apart.
pub const SPACING: Nanos = Nanos::from_millis(20);

/// The time between the moment from which stalld counts and the calls of a boost.
const START: Nanos = Nanos::from_micros(20);

/// A task whose boost was refused for a passing reason is tried again after this time, such as one
/// whose record the guardian has claimed.
const RETRY: Nanos = Nanos::from_millis(100);

/// A boost, as it is known outside of stalld.
#[derive(Clone, Copy, Debug)]
pub struct Boost {
    id: u64,
    /// The tid and the start time of the task, as stalld knows them.
    of: (Tid, u64),
    /// How the task was scheduled before.
    own: Attr,
    /// When the boost began, in the ticks of start times.
    since: u64,
    pub end: Nanos,
    pub how: BoostPolicy,
    /// The CPU on which stalld has seen the task last.
    pub cpu: Cpu,
    /// stalld has reported it.
    reported: bool,
    need: Need,
}

/// The machine, and the notes of its observer.
pub struct Watched {
    pub world: World,
    pub orders: Orders,
    pub journal: Arc<Journal>,
    pub lie: Option<Lie>,
    /// Restores don't fail.
    pub calm: bool,
    /// The first promise that was broken.
    pub broken: Option<String>,
    /// When stalld last woke up.
    pub turn_began: Nanos,
    pub boosts: Vec<Boost>,
    /// Boosts that stalld has ended in this turn.
    overs: Vec<Boost>,
    /// How each task that had pulses was scheduled before them.
    pulsed: HashMap<(Tid, u64), Vec<Attr>>,
    /// Children that were born during a boost that has ended, by id. stalld has to give them the
    /// policy of the parent.
    lost: Vec<u64>,
    /// The time of the last snapshot.
    pub scan_at: Nanos,
    pub in_scan: bool,
    /// The end of the last turn that scanned.
    pub scan_ended: Nanos,
    /// When a scan last found another task with the tid of one that starved.
    pub stranger_tried_at: Nanos,
    /// The number of ended boosts at the last scan. If more have ended since, a task may no longer
    /// be outranked.
    overs_at_scan: u64,
    pub tally: Tally,
}

/// Counts of events, so that a run in which too little happens is noticed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub scans: u64,
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
            scans: self.scans + other.scans,
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
            turn_began: Nanos::ZERO,
            boosts: Vec::new(),
            overs: Vec::new(),
            pulsed: HashMap::new(),
            lost: Vec::new(),
            scan_at: Nanos::ZERO,
            in_scan: false,
            scan_ended: Nanos::ZERO,
            stranger_tried_at: Nanos::ZERO,
            overs_at_scan: 0,
            tally: Tally::default(),
        }
    }

    pub fn break_promise(&mut self, life: &Life, what: &str) {
        if self.broken.is_none() {
            let Watched { scan_at, scan_ended, turn_began, .. } = self;
            self.broken = Some(format!(
                "{what}; at {:?}, last scan at {scan_at:?} to {scan_ended:?}, turn from {turn_began:?}, by {:?}: {life:?}",
                self.world.now, self.orders.eyes
            ));
        }
    }

    /// Takes over the results of a scan.
    pub fn scanned(&mut self, snapshot: &Snapshot) {
        let (at, threshold) = (snapshot.at, self.orders.limits.threshold);
        (self.scan_at, self.overs_at_scan) = (at, self.tally.overs);
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
                // stalld may forget a wait that was out of sight for so long.
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
        let at = Some(self.scan_at);
        if !self.in_scan {
            self.takes_turn(&life);
            return;
        }
        let is_pulse = self.boosts.iter().any(|boost| boost.id == life.id && boost.reported);
        if life.judged.tried_at == at || is_pulse {
            return;
        }
        if life.judged.due_at != at {
            // Another task has just got the tid of one that starved, on any CPU.
            self.stranger_tried_at = self.scan_at;
            return;
        }
        self.world.lives[index].judged.tried_at = at;
        let cpu = life.judged.cpu;
        self.begins_on(cpu, &life);
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

    /// stalld reads how often a task has run.
    pub fn counts(&mut self, index: usize) {
        let now = self.world.now;
        // Once a restore record exists, the check is over.
        if self.records_of(&self.world.lives[index]) == 0 {
            self.world.lives[index].judged.counted_at = now;
        }
    }

    /// A boost begins on a CPU now.
    fn begins_on(&mut self, cpu: Cpu, life: &Life) {
        let now = self.world.now;
        let core = &mut self.world.cores[cpu.0 as usize];
        let is_spaced = core.tried_at + SPACING <= now + START;
        core.tried_at = now;
        if !is_spaced {
            self.break_promise(life, "boosts of a CPU start 20 ms apart, and this one does not");
        }
    }

    /// stalld boosts a task between two scans: by one more pulse, or for the first time.
    fn takes_turn(&mut self, life: &Life) {
        let now = self.turn_began;
        // A pulse may follow a boost by SCHED_DEADLINE that failed.
        if life.judged.tried_at == Some(now) || self.boosts.iter().any(|boost| boost.id == life.id) {
            return;
        }
        if let Some(life) = self.life(life.id) {
            life.judged.tried_at = Some(now);
        }
        if life.judged.born_in == self.world.turn {
            // It has just got the tid of a task that starved. stalld is about to notice that.
            return;
        }
        self.begins_on(life.judged.cpu, life);
        if life.judged.starved_at != Some(self.scan_at) {
            self.break_promise(
                life,
                "it is boosted between two scans, and the last one did not find it starving",
            );
        }
    }

    /// Returns true if stalld need not boost the task now, or can't.
    pub fn excused(&self, life: &Life) -> bool {
        let judged = &life.judged;
        judged.boosted
            || life.is_foreign()
            || judged.refused_until > self.scan_at
            // stalld does not report a task whose record the guardian has claimed.
            || judged.tried_at.is_some_and(|tried| tried + RETRY > self.scan_at)
            || judged.known.is_none()
            || !life.waits()
            || self.orders.rules.only_outranked
                && (!judged.outranked || self.tally.overs > self.overs_at_scan)
    }

    /// Notes which tasks have restore records, before something happens to a task.
    pub fn note_records(&mut self) {
        let of_boost = |(_, record)| match record {
            RestoreRecord::Boost(boosted) => Some((boosted.tid, boosted.tgid)),
            _ => None,
        };
        self.world.noted.clear();
        self.world.noted.extend(self.journal.open().filter_map(of_boost));
    }

    /// Returns the boost of a task that stalld has reported, or else one that it has not.
    fn boost_of(&self, task: &Task) -> Option<usize> {
        let of = (task.tid, task.start);
        let of_it =
            |reported| self.boosts.iter().position(|boost| boost.of == of && boost.reported == reported);
        of_it(true).or_else(|| of_it(false))
    }

    fn life(&mut self, id: u64) -> Option<&mut Life> {
        self.world.lives.iter_mut().find(|life| life.id == id)
    }

    /// Takes an event that stalld has reported.
    pub fn on_event(&mut self, event: &Event) {
        match event {
            Event::Boosted { task, how } => {
                self.tally.boosts += 1;
                let Some(index) = self.boost_of(task) else { return };
                self.world.cores[task.cpu.0 as usize].reported_at = self.world.now;
                self.boosts[index].reported = true;
                self.boosts[index].how = *how;
                if *how == BoostPolicy::Fifo {
                    // A boost that began by SCHED_DEADLINE may go on in pulses.
                    self.boosts[index].need.is_in_pulses(self.orders.boost.period);
                }
                // If the task has taken its leader's tid, stalld takes it for the leader, and it
                // stays refused.
                if let Some(life) = self.life(self.boosts[index].id).filter(|life| life.tid == task.tid) {
                    life.judged.refused_until = Nanos::ZERO;
                }
            }
            Event::Refused { task, why, .. } => {
                self.tally.refusals += 1;
                let tried_at = self.world.now;
                let retry = self.orders.rules.retry;
                let until = tried_at + if why.may_pass() { RETRY.min(retry) } else { retry };
                let life =
                    self.world.lives.iter_mut().find(|it| (it.tid, it.start) == (task.tid, task.start));
                if let Some(life) = life {
                    life.judged.refused_until = until;
                }
                let core = &mut self.world.cores[task.cpu.0 as usize];
                core.tried_at = core.tried_at.max(self.scan_at).max(self.turn_began);
                core.reported_at = tried_at;
            }
            Event::Over { task, outcome, .. } => {
                self.tally.overs += 1;
                let Some(index) = self.boost_of(task) else { return };
                let boost = self.boosts.swap_remove(index);
                self.overs.push(boost);
                let Some(life) = self.life(boost.id) else { return };
                life.judged.boosted = false;
                let life = *life;
                if matches!(outcome, RestoreOutcome::Failed(_)) && !life.judged.kept && life.is_foreign() {
                    self.break_promise(&life, "its restore is said to have failed");
                }
                // If another process has set the policy of the task since, stalld promises nothing
                // about its children.
                let is_itself = life.tid == task.tid && life.own.attr == boost.own;
                if matches!(outcome, RestoreOutcome::Restored(_)) && is_itself {
                    // stalld does not recognise a child that was just boosted itself, because it is
                    // not scheduled as RESET_ON_FORK makes tasks.
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

    /// Checks that no task is boosted for longer than even the guardian allows, nor without a
    /// record.
    pub fn stepped(&mut self) {
        self.note_needs();
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

    /// Judges a turn of stalld that began at `begun`. `scanned` is true if its scan succeeded, and
    /// `None` if it did not scan. stalld rests until `rests`.
    pub fn turned(&mut self, begun: Nanos, scanned: Option<bool>, rests: Nanos, engine: &Engine) {
        for id in std::mem::take(&mut self.lost) {
            let lost = |life: &&mut Life| {
                life.judged.inherits.is_some() && !life.is_foreign() && !life.judged.boosted
            };
            let child = self.life(id).filter(lost).copied();
            // Nothing is promised if another process has set the parent's policy before the pass.
            let has_parent = |child: &Life| {
                let is_parent =
                    |it: &Life| it.id == child.parent && child.judged.inherits == Some(it.own.attr);
                self.world.lives.iter().any(is_parent)
            };
            if let Some(child) = child.filter(has_parent) {
                self.break_promise(&child, "it was born to a boosted task, and stays as that has made it");
            }
        }
        self.overs.clear();
        for boost in std::mem::take(&mut self.boosts) {
            let life = self.life(boost.id).map(|life| {
                life.judged.boosted = boost.reported;
                *life
            });
            let life = life.unwrap_or(self.world.lives[0]);
            if !boost.reported {
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
        self.judge_needs(begun);
        match scanned {
            Some(true) => self.judge_scan(rests, engine),
            Some(false) => {
                let limits = self.orders.limits;
                let until = (self.world.now + limits.granularity.min(limits.threshold)).max(rests);
                let life = self.world.lives[0];
                if engine.next() > until {
                    self.break_promise(
                        &life,
                        &format!("after a failed scan stalld sleeps until {:?}", engine.next()),
                    );
                }
            }
            None => {}
        }
    }

    /// Judges the machine after stalld has ended and its guardian has restored everything.
    pub fn recovered(&mut self) {
        self.tally.kills += 1;
        self.boosts.clear();
        self.overs.clear();
        self.lost.clear();
        for core in &mut self.world.cores {
            (core.tried_at, core.reported_at) = (Nanos::ZERO, Nanos::ZERO);
            core.pulses.clear();
        }
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
