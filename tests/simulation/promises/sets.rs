//! Judges each change that stalld makes to how a task is scheduled.

use super::needs::Need;
use super::{Boost, Watched};
use crate::setup::Eyes;
use crate::tasks::{Life, Scheduled};
use stalld::boost::journal::{BoostPolicy, Boosted, Rank, RestoreRecord, Saved};
use stalld::sys::sched::Attr;
use stalld::task::{Nanos, Policy, Tid};

/// The guardian restores a boost at most this long after it was due.
const STUCK: Nanos = Nanos::from_secs(1);

/// The time after which a failed restore is tried again.
const RETRY: Nanos = Nanos::from_secs(1);

/// The duration of the calls and sleeps of one turn.
const SLOP: Nanos = Nanos::from_millis(100);

impl Watched {
    /// Judges a change to how a task is scheduled, before it is made.
    pub fn before_set(&mut self, index: usize, attr: &Attr, raises: bool) {
        let life = self.world.lives[index];
        let settings = |attr: &Attr| (attr.policy, attr.priority, attr.reset_on_fork());
        if raises {
            return self.before_raise(index, attr);
        }
        if life.is_foreign() {
            self.charge(index);
            if settings(attr) != settings(&life.own.attr) {
                self.break_promise(&life, &format!("it was restored to {attr:?}"));
            }
            return;
        }
        // A rank is lowered several times in a row.
        if settings(&life.now.attr) == settings(attr) {
            return;
        }
        let rank = |attr: &Attr| Rank::of(attr.policy, attr.priority);
        let pulsed = self.pulsed.get(&(life.tid, life.start)).into_iter().flatten();
        let had_pulse = pulsed.into_iter().any(|before| settings(before) == settings(attr));
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
        let alike = elders.find(|own| (own.policy, own.priority, false) == settings(attr));
        match life.judged.inherits.or(alike) {
            Some(own) if (own.policy, own.priority, false) == settings(attr) => {
                self.world.lives[index].judged.inherits = Some(own);
                self.tally.adopted += 1;
                let slack = self.world.slack_of(&life.now, attr.policy);
                let it = &mut self.world.lives[index];
                it.own = Scheduled { attr: Attr { nice: it.own.attr.nice, ..*attr }, slack };
            }
            _ => self.break_promise(&life, &format!("it was not boosted, and was set to {attr:?}")),
        }
    }

    /// Returns how the task was scheduled before a pulse, if this call restores that from a higher
    /// rank.
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
        // stalld compares how often the task has run. It may run right after that. By the backend
        // without stamps, stalld does not know that count at the scan.
        let is_compared = !self.in_scan || self.orders.eyes == Eyes::Stamps;
        let since = if is_compared { life.judged.counted_at } else { self.scan_at };
        let is_unknown = self.orders.eyes == Eyes::Presence && life.ran_at <= self.scan_ended;
        let has_waited = life.ran_at <= self.scan_at || life.ran_at >= since || is_unknown;
        let starved = life.judged.starved_at == Some(self.scan_at) && has_waited;
        // Its own boosts, or those of the leader whose tid it has taken.
        let is_of = |boost: &&Boost| boost.id == life.id || boost.of == (life.tid, life.start);
        let pulses = self.boosts.iter().filter(is_of).any(|boost| now <= boost.end + SLOP);
        if !starved && !pulses {
            // The task has just got the tid of one that starved. stalld can't notice that if it was
            // by exec(2). If the tid was reused, it notices that at once.
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
        let end = now + self.orders.boost.duration;
        let back_by = if fifo { now + self.orders.rules.runtime + STUCK } else { end + STUCK };
        let since = self.world.ticks();
        let need = Need::of(&life, fifo.then_some(self.orders.boost.period), now);
        if fifo {
            self.note_pulse(index);
        }
        let judged = &mut self.world.lives[index].judged;
        judged.back_by = back_by + SLOP;
        judged.boosted = true;
        // Boosts begin during a scan, and go on between scans.
        let new = !self.boosts.iter().any(|boost| boost.id == life.id && (!boost.reported || !self.in_scan));
        if new {
            let (id, of) = (life.id, (life.tid, life.start));
            self.boosts.push(Boost {
                id,
                of,
                own: life.own.attr,
                since,
                end,
                how: if fifo { BoostPolicy::Fifo } else { self.orders.rules.how },
                cpu: judged.cpu,
                reported: false,
                need,
            });
        }
    }

    pub fn after_set(&mut self, index: usize, raises: bool) {
        let life = &mut self.world.lives[index];
        life.judged.touched = true;
        if !raises {
            life.judged.kept = false;
        }
    }

    /// Notes that the kernel has refused a restore.
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

    /// Counts the restore records of a task.
    pub(super) fn records_of(&self, life: &Life) -> usize {
        let count = |names: fn(&Boosted) -> (Tid, u64)| {
            let is_of =
                |record| matches!(record, RestoreRecord::Boost(it) if names(&it) == (life.tid, life.start));
            self.journal.open().filter(|&(_, record)| is_of(record)).count()
        };
        // By exec(2) a thread takes the tid of its process.
        match count(|it| (it.tid, it.start)) {
            0 => count(|it| (it.tgid, it.leader_start)).min(1),
            own => own,
        }
    }
}
