//! One look and what follows from it: the loop body that the daemon and the library share.

use crate::boost::event::Event;
use crate::boost::plan::request::Denial;
use crate::boost::plan::{Actuator, Booster};
use crate::denylist::{Ignore, Ignored};
use crate::detect::{Detector, Limits, MAX_SCAN_DELAY, Starving, Verdict};
use crate::error::Result;
use crate::fault::{self, Fault};
use crate::observe::{Backend, Effort, Kind, Snapshot, Waiter};
use crate::room::ROOM;
use crate::steps;
use crate::task::{Cpu, Nanos, Task, Tid};

/// A look that is this much later than planned is worth a word.
pub const LATE: Nanos = Nanos::from_millis(100);

/// While a task is boosted as SCHED_DEADLINE, stalld checks so often that the task has not lent
/// that to another one, for which the kernel enforces no budget.
const LENDING: Nanos = Nanos::from_millis(10);

/// The rest after a scan is as many times as long as stalld had a CPU. So stalld uses at most a
/// quarter of a CPU in any second, even in one that begins and ends with a scan of 60 ms.
pub const REST_PER_CPU_TIME: u64 = 4;

/// No rest after a scan is longer, however much CPU time the scan took.
const MAX_REST: Nanos = Nanos::from_millis(300);

/// The memory that a crowd has taken is given back so long after the crowd has gone.
const CROWD_MEMORY_TIMEOUT: Nanos = Nanos::from_secs(10);

/// The task that holds a CPU.
#[derive(Clone, Copy, Debug)]
pub struct Hog {
    pub task: Task,
    /// The first of the unbroken row of looks that found it there.
    pub seen_since: Nanos,
}

/// A backend, a detector, and what they have seen.
pub struct Engine {
    backend: Box<dyn Backend>,
    detector: Detector,
    limits: Limits,
    ignore: Ignore,
    /// The last look was put off for a moment, so the next one must not be.
    put_off: bool,
    snapshot: Snapshot,
    verdict: Verdict,
    /// The tasks that the last walk found running, by CPU.
    hogs: Vec<Hog>,
    hogs_before: Vec<Hog>,
    counters: Counters,
    boosts: Option<(Booster, Box<dyn Actuator>)>,
    /// Who starves is boosted without being asked for.
    rescues: bool,
    /// No scan is due before.
    rested: Nanos,
    /// When to check next that no boost is lent.
    next_lending: Nanos,
    /// When more tasks waited than there was room for at the start, unless their memory has been
    /// given back.
    crowded: Option<Nanos>,
    events: Vec<Event>,
}

/// What has happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub looks: u64,
    /// Looks that could not be carried out.
    pub failed_looks: u64,
    /// Waits that reached the threshold.
    pub starved: u64,
    /// The longest of them, as far as a look saw it.
    pub longest_wait: Nanos,
    /// Waits that were dropped because more tasks than are remembered were out of sight at once.
    pub dropped_waits: u64,
}

/// What one who asks for the state of things wants to hear.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub looks: u64,
    pub failed_looks: u64,
    pub starved: u64,
    pub boosts: u64,
    /// Tasks that are boosted now.
    pub active: u64,
}

impl Engine {
    pub fn new(backend: Box<dyn Backend>, limits: Limits, ignore: Ignore) -> Engine {
        Engine {
            backend,
            detector: Detector::new(limits),
            limits,
            ignore,
            put_off: false,
            snapshot: Snapshot::with_room(ROOM),
            verdict: Verdict::new(),
            hogs: Vec::new(),
            hogs_before: Vec::new(),
            counters: Counters::default(),
            boosts: None,
            rescues: false,
            rested: Nanos::ZERO,
            next_lending: Nanos::ZERO,
            crowded: None,
            events: Vec::with_capacity(ROOM),
        }
    }

    /// Another one, with other limits over another backend, that goes on from what this one knows
    /// of waits.
    pub fn branch(&self, backend: Box<dyn Backend>, limits: Limits) -> Engine {
        let detector = self.detector.synchronised(limits);
        Engine { detector, ..Engine::new(backend, limits, self.ignore.of_monitor()) }
    }

    /// From now on, who starves is boosted.
    pub fn boost(&mut self, booster: Booster, actuator: impl Actuator + 'static) {
        self.boosts = Some((booster, Box::new(actuator)));
        self.rescues = true;
    }

    /// From now on, a task can be boosted by `boost_task`.
    pub fn boost_on_request(&mut self, booster: Booster, actuator: impl Actuator + 'static) {
        self.boosts = Some((booster, Box::new(actuator)));
    }

    /// Boosts a task; `waits` says whether it is runnable. None where nobody can be boosted.
    pub fn boost_task(
        &mut self,
        task: &Task,
        waits: bool,
        now: Nanos,
    ) -> Option<std::result::Result<(), Denial>> {
        let (booster, actuator) = self.boosts.as_mut()?;
        Some(booster.boost(task, waits, now, actuator.as_mut(), &mut self.events))
    }

    /// Ends the boost of a task. False if it is not boosted.
    pub fn restore_task(&mut self, tid: Tid, now: Nanos) -> bool {
        let events = &mut self.events;
        let Some((booster, actuator)) = &mut self.boosts else { return false };
        let is_boosted = booster.restore(tid, now, actuator.as_mut(), events);
        self.adopt(now);
        is_boosted
    }

    /// Does what is due by the clock alone: ends of boosts, and pulses. Returns whether a scan is
    /// due too.
    pub fn advance(&mut self, now: Nanos) -> bool {
        if let Some((booster, actuator)) = &mut self.boosts {
            booster.advance(now, actuator.as_mut(), &mut self.events);
            if now >= self.next_lending {
                self.next_lending = now + LENDING;
                if booster.can_lend() && self.backend.lends_deadline() && !fault::is(Fault::RankLent) {
                    booster.end_lent(now, actuator.as_mut(), &mut self.events);
                }
            }
        }
        let is_due = now >= self.next_scan();
        if !is_due {
            self.adopt(now);
        }
        is_due
    }

    /// Sees to the children of boosted tasks, after everything that a starving task may wait for.
    fn adopt(&mut self, now: Nanos) {
        if let Some((booster, actuator)) = &mut self.boosts {
            booster.adopt(now, actuator.as_mut(), &mut self.events);
        }
    }

    /// Returns when to call again.
    pub fn next(&self) -> Nanos {
        let boosts =
            self.booster().into_iter().flat_map(|it| [it.next_end(), it.next_adoption(), it.next_check()]);
        let can_lend = |booster: &&Booster| booster.can_lend() && self.backend.sees_loans();
        let lending = self.booster().filter(can_lend).map(|_| self.next_lending);
        boosts.flatten().chain(lending).fold(self.next_scan(), Nanos::min)
    }

    fn next_scan(&self) -> Nanos {
        let of_boosts = self.booster().and_then(Booster::next_look);
        let due = of_boosts.map_or(self.verdict.next_look, |due| due.min(self.verdict.next_look));
        due.max(self.rested)
    }

    /// Lets no scan begin for a while after one that has just ended; stalld has had a CPU for the
    /// time `used` since the end of the scan before. A scan that was blocked or preempted did not
    /// use that time. Ends of boosts and pulses never wait for this.
    pub fn rest(&mut self, ended: Nanos, used: Nanos) {
        if !fault::is(Fault::RestIgnored) {
            self.rested = ended + Nanos(used.0.saturating_mul(REST_PER_CPU_TIME)).min(MAX_REST);
        }
    }

    /// Ends all boosts.
    pub fn end_boosts(&mut self, now: Nanos) {
        if let Some((booster, actuator)) = &mut self.boosts {
            booster.end_all(now, actuator.as_mut(), &mut self.events);
        }
        self.adopt(now);
    }

    /// What has happened to tasks since this was last asked.
    pub fn events(&mut self) -> std::vec::Drain<'_, Event> {
        self.events.drain(..)
    }

    pub fn booster(&self) -> Option<&Booster> {
        self.boosts.as_ref().map(|(booster, _)| booster)
    }

    /// Lets the next look go as far as it takes to tell who waits, whether or not anybody can be
    /// due.
    pub fn force_full_scan(&mut self) {
        self.put_off = true;
    }

    /// Looks. `woke` is when the calling thread last came out of a sleep, and `now` what the clock
    /// says. After an error nothing is known of this moment, and `next_look` is a granularity away.
    pub fn look(&mut self, woke: Nanos, now: Nanos) -> Result<()> {
        let outcome = self.scan(woke, now);
        self.adopt(now);
        outcome
    }

    /// Gives back the memory that a crowd has taken, if the crowd has gone. Returns true if it
    /// freed memory. Call it when no starving task needs a boost.
    pub fn shrink(&mut self) -> bool {
        let is_busy = self.booster().is_some_and(Booster::is_busy);
        let has_gone = |at: Nanos| self.snapshot.at >= at + CROWD_MEMORY_TIMEOUT;
        if is_busy || !self.crowded.is_some_and(has_gone) || !self.backend.shrink() {
            return false;
        }
        self.crowded = None;
        self.snapshot.shrink();
        self.verdict.starving.shrink_to(ROOM);
        self.detector.shrink();
        if let Some((booster, _)) = &mut self.boosts {
            booster.shrink();
        }
        true
    }

    /// Reports the tasks that a scan has boosted, or tried to, in the same scan: boosts serve the
    /// owners in turn, reports the longest waits first. `first` is the first event of the scan.
    fn name_boosted(&mut self, first: usize) {
        for event in self.events.iter().skip(first) {
            if let Event::Boosted { task, .. } | Event::Refused { task, .. } = event {
                self.detector.name(task, &mut self.verdict);
            }
        }
    }

    /// Notes that a crowd has memory, which is to be given back once the crowd has gone.
    fn note_crowd(&mut self) {
        let has_crowd = self.snapshot.waiters.len() > ROOM;
        if has_crowd || self.crowded.is_none() && self.backend.has_spare_memory() {
            self.crowded = Some(self.snapshot.at);
        }
    }

    fn scan(&mut self, woke: Nanos, now: Nanos) -> Result<()> {
        self.counters.looks += 1;
        let boosting = self.boosts.as_ref().is_some_and(|(booster, _)| booster.is_busy());
        self.put_off = !boosting && !self.put_off && self.detector.can_wait(now);
        let effort = match (boosting, self.put_off) {
            (true, _) => Effort::All,
            (_, true) => Effort::Ask,
            _ => Effort::Usual,
        };
        if let Err(e) = self.backend.snapshot(woke, effort, &mut self.snapshot) {
            self.counters.failed_looks += 1;
            self.snapshot.clear();
            self.verdict.starving.clear();
            self.verdict.next_look = now + self.limits.granularity.min(self.limits.threshold);
            if let Some((booster, _)) = &mut self.boosts {
                booster.put_off(self.verdict.next_look);
            }
            return Err(e);
        }
        let at = self.snapshot.at;
        self.note_crowd();
        if let Some((booster, _)) = &mut self.boosts {
            booster.see(&self.snapshot);
        }
        let boosts = self.boosts.as_ref().map(|(booster, _)| booster);
        let mut ignore = |task: &Task, since| {
            boosts.is_some_and(|booster| booster.displaces(task, since)) || self.ignore.covers(task, at)
        };
        self.detector.look(&mut self.snapshot, &mut ignore, &mut self.verdict);
        // Somebody may be waiting, most likely for a tick.
        self.put_off &= !self.snapshot.complete && self.snapshot.load.iter().any(|load| load.runnable > 1);
        if self.put_off {
            self.verdict.next_look = self.verdict.next_look.min(at + MAX_SCAN_DELAY);
        }
        if let Some((booster, actuator)) = &mut self.boosts {
            let candidates = if self.rescues { self.verdict.starving.as_slice() } else { &[] };
            let first = self.events.len();
            booster.look(&self.snapshot, candidates, actuator.as_mut(), &mut self.events);
            self.name_boosted(first);
        }
        if self.next_lending < at {
            self.next_lending = at + LENDING;
        }
        if self.snapshot.complete {
            self.note_hogs();
        } else {
            self.hogs.clear();
        }
        for starving in &self.verdict.starving {
            self.counters.starved += u64::from(starving.due && !starving.again);
            self.counters.longest_wait = self.counters.longest_wait.max(starving.wait);
        }
        Ok(())
    }

    /// All who starve, the longest-starved first.
    pub fn starving(&self) -> &[Starving] {
        &self.verdict.starving
    }

    pub fn next_look(&self) -> Nanos {
        self.verdict.next_look
    }

    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Everybody who waited at the last look, with the wait as far as it is known.
    pub fn waiters(&self) -> impl Iterator<Item = (&Waiter, Nanos)> {
        self.snapshot.waiters.iter().map(|waiter| {
            let since = self.detector.since(&waiter.task).unwrap_or(self.snapshot.at);
            (waiter, self.snapshot.at - since)
        })
    }

    /// How long a task that was seen at a moment has waited, as far as it is known by its record or
    /// the last look.
    pub fn wait_of(&self, waiter: &Waiter, at: Nanos) -> Nanos {
        let known = self.detector.since(&waiter.task);
        waiter.since.into_iter().chain(known).min().map_or(Nanos::ZERO, |since| at - since)
    }

    pub fn hog(&self, cpu: Cpu) -> Option<&Hog> {
        let first = self.hogs.partition_point(|hog| hog.task.cpu < cpu);
        self.hogs.get(first).filter(|hog| hog.task.cpu == cpu)
    }

    /// Those who have been found to be on the denylist since this was last asked.
    pub fn newly_ignored(&mut self) -> std::vec::Drain<'_, Ignored> {
        self.ignore.newly_ignored()
    }

    /// Returns how many more there were than the log can bear.
    pub fn take_unreported(&mut self) -> u64 {
        self.ignore.take_unreported()
    }

    /// Whether nobody had waited for so long at the last look, and nobody is boosted. None where
    /// that look did not go far enough to tell.
    pub fn is_quiet(&self, wait: Nanos) -> Option<bool> {
        let boosts = self.boosts.as_ref().is_some_and(|(booster, _)| booster.is_busy());
        let waits = self.waiters().any(|(_, waited)| waited >= wait);
        let has_looked = !self.put_off && self.snapshot.at > Nanos::ZERO;
        has_looked.then_some(!boosts && !waits)
    }

    pub fn kind(&self) -> Kind {
        self.backend.kind()
    }

    /// What is going on, in numbers.
    pub fn tally(&self) -> Tally {
        let Counters { looks, failed_looks, starved, .. } = self.counters;
        let (boosts, active) =
            self.booster().map_or((0, 0), |booster| (booster.counters().boosts, booster.load().0));
        Tally { looks, failed_looks, starved, boosts, active: active as u64 }
    }

    pub fn counters(&self) -> Counters {
        Counters { dropped_waits: self.detector.dropped(), ..self.counters }
    }

    pub fn backend(&mut self) -> &mut dyn Backend {
        self.backend.as_mut()
    }

    /// Notes the tasks that run, in the order of their CPUs.
    fn note_hogs(&mut self) {
        std::mem::swap(&mut self.hogs, &mut self.hogs_before);
        self.hogs.clear();
        let place = |task: &Task| (task.cpu, task.tid, task.start);
        self.snapshot.running.sort_unstable_by_key(place);
        for here in self.snapshot.running.chunk_by(|one, other| one.cpu == other.cpu) {
            // In the middle of a switch both tasks may count as running: the one to stay outranks
            // the other.
            let best = here.iter().map(|task| task.sched.prio).min();
            for task in here.iter().filter(|task| Some(task.sched.prio) == best) {
                steps::count(1);
                let before = self.hogs_before.binary_search_by_key(&place(task), |hog| place(&hog.task)).ok();
                let before = before.and_then(|index| self.hogs_before.get(index));
                let seen_since = before.map_or(self.snapshot.at, |hog| hog.seen_since);
                self.hogs.push(Hog { task: *task, seen_since });
            }
        }
    }
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
