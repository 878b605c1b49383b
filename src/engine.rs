//! One scan and what follows from it: the loop body that the daemon and the library share.

use crate::boost::counters::Counters;
use crate::boost::event::Event;
use crate::boost::plan::request::Denial;
use crate::boost::plan::{Booster, PulsesOnly};
use crate::denylist::{Ignore, Ignored};
use crate::detect::{Detector, Exclusions, Limits, MAX_SCAN_DELAY, Starving, Verdict};
use crate::error::Result;
use crate::fault::{self, Fault};
use crate::observe::{Backend, Effort, Kind, Snapshot, Waiter};
use crate::room::ROOM;
use crate::steps;
use crate::task::{Cpu, Nanos, Task, Tid};

/// A scan that is late by this much is logged.
pub const LATE: Nanos = Nanos::from_millis(100);

/// The time between two checks whether a task has lent its SCHED_DEADLINE boost to another task.
/// The kernel enforces no budget for a lent boost.
const LENDING: Nanos = Nanos::from_millis(10);

/// After a scan, stalld rests for this many times the CPU time that it has used. So stalld uses at
/// most a quarter of a CPU in any second, even in one that begins and ends with a scan of 60 ms.
pub const REST_PER_CPU_TIME: u64 = 5;

/// The longest rest after a scan, however much CPU time the scan took.
const MAX_REST: Nanos = Nanos::from_millis(300);

/// How long after the end of a crowd its memory is freed. A crowd is more than `ROOM` waiters.
const CROWD_MEMORY_TIMEOUT: Nanos = Nanos::from_secs(10);

/// The task that holds a CPU.
#[derive(Clone, Copy, Debug)]
pub struct Hog {
    pub task: Task,
    /// The first scan of an unbroken row in which the task had the CPU.
    pub seen_since: Nanos,
}

/// A backend, a detector, a booster, and the results of the last scan.
pub struct Engine {
    backend: Box<dyn Backend>,
    detector: Detector,
    limits: Limits,
    ignore: Ignore,
    /// The last scan did not list the waiters, because none of them could starve yet. The next scan
    /// has to list them.
    asked_only: bool,
    snapshot: Snapshot,
    verdict: Verdict,
    /// The tasks that the last scan found running, by CPU.
    hogs: Vec<Hog>,
    hogs_before: Vec<Hog>,
    counters: Counters,
    booster: Option<Booster>,
    /// Starving tasks are boosted without a request.
    rescues: bool,
    /// No scan starts before this moment.
    rested: Nanos,
    /// When to check next whether a boost is lent.
    next_lending: Nanos,
    /// When a scan last found a crowd, until the memory of the crowd is freed.
    crowded: Option<Nanos>,
}

/// The exclusions at one scan.
struct Excluded<'a> {
    booster: Option<&'a Booster>,
    ignore: &'a mut Ignore,
    at: Nanos,
}

impl Exclusions for Excluded<'_> {
    fn is_displaced(&self, task: &Task, since: Nanos) -> bool {
        self.booster.is_some_and(|booster| booster.is_displaced_by_boosts(task, since))
    }

    fn is_ignored(&mut self, task: &Task) -> Option<bool> {
        self.ignore.verdict(task, self.at)
    }
}

impl Engine {
    pub fn new(backend: Box<dyn Backend>, limits: Limits, ignore: Ignore) -> Engine {
        Engine {
            backend,
            detector: Detector::new(limits),
            limits,
            ignore,
            asked_only: false,
            snapshot: Snapshot::with_room(ROOM),
            verdict: Verdict::new(),
            hogs: Vec::new(),
            hogs_before: Vec::new(),
            counters: Counters::default(),
            booster: None,
            rescues: false,
            rested: Nanos::ZERO,
            next_lending: Nanos::ZERO,
            crowded: None,
        }
    }

    /// Returns an engine for a monitor, with other limits and another backend. It starts with the
    /// waits that this engine knows.
    pub fn for_cpu(&self, backend: Box<dyn Backend>, limits: Limits) -> Engine {
        let detector = self.detector.synchronised(limits);
        Engine { detector, ..Engine::new(backend, limits, self.ignore.of_monitor()) }
    }

    /// Boosts starving tasks from now on.
    pub fn boost(&mut self, booster: Booster) {
        self.booster = Some(booster);
        self.rescues = true;
    }

    /// Lets `boost_task` boost tasks from now on.
    pub fn boost_on_request(&mut self, booster: Booster) {
        self.booster = Some(booster);
    }

    /// Boosts a task; `waits` is whether it is runnable. Returns `None` if there is no booster.
    pub fn boost_task(
        &mut self,
        task: &Task,
        waits: bool,
        now: Nanos,
    ) -> Option<std::result::Result<(), Denial>> {
        Some(self.booster.as_mut()?.boost(task, waits, now))
    }

    /// Ends the boost of a task. Returns false if the task is not boosted.
    pub fn restore_task(&mut self, tid: Tid, now: Nanos) -> bool {
        let is_boosted = self.booster.as_mut().is_some_and(|booster| booster.restore(tid, now));
        self.adopt(now);
        is_boosted
    }

    /// Does what is due without a scan: ends of boosts, and pulses. Returns whether a scan is due
    /// too.
    pub fn advance(&mut self, now: Nanos) -> bool {
        if let Some(booster) = &mut self.booster {
            booster.advance(now);
            if now < self.verdict.next_scan {
                booster.recheck_by_files(now);
            }
            if now >= self.next_lending {
                self.next_lending = now + LENDING;
                if booster.has_deadline() && self.backend.lends_deadline() && !fault::is(Fault::RankLent) {
                    booster.only_pulse(PulsesOnly::Lent, now);
                }
            }
        }
        let is_due = now >= self.scan_due();
        if !is_due {
            if let Some(booster) = &mut self.booster {
                booster.take_turns(now);
            }
            self.adopt(now);
        }
        is_due
    }

    /// Adopts the children of boosted tasks. Call it after all work that starving tasks wait for.
    fn adopt(&mut self, now: Nanos) {
        if let Some(booster) = &mut self.booster {
            booster.adopt(now);
        }
    }

    /// Returns when to call `advance` next.
    pub fn next(&self) -> Nanos {
        let boosts = self
            .booster()
            .into_iter()
            .flat_map(|it| [it.next_end(), it.next_adoption(), it.next_check(), it.next_turn()]);
        let has_deadline = |booster: &&Booster| booster.has_deadline() && self.backend.sees_loans();
        let lending = self.booster().filter(has_deadline).map(|_| self.next_lending);
        boosts.flatten().chain(lending).fold(self.scan_due(), Nanos::min)
    }

    fn scan_due(&self) -> Nanos {
        let of_boosts = self.booster().and_then(Booster::next_scan);
        let due = of_boosts.map_or(self.verdict.next_scan, |due| due.min(self.verdict.next_scan));
        due.max(self.rested)
    }

    /// Delays the next scan after one that ended at `ended`. `used` is the CPU time that stalld has
    /// used since the end of the scan before, so time off the CPU does not count. Ends of boosts
    /// and pulses never wait for this.
    pub fn rest(&mut self, ended: Nanos, used: Nanos) {
        if !fault::is(Fault::RestIgnored) {
            self.rested = ended + Nanos(used.0.saturating_mul(REST_PER_CPU_TIME)).min(MAX_REST);
        }
    }

    /// Ends all boosts.
    pub fn end_boosts(&mut self, now: Nanos) {
        if let Some(booster) = &mut self.booster {
            booster.end_all(now);
        }
        self.adopt(now);
    }

    /// Returns the events since the last call.
    pub fn events(&mut self) -> impl Iterator<Item = Event> {
        self.booster.iter_mut().flat_map(|booster| booster.events())
    }

    /// Returns why all boosts are pulses from now on, once for each such time.
    pub fn take_pulses_only(&mut self, now: Nanos) -> Option<PulsesOnly> {
        self.booster.as_mut()?.take_pulses_only(now)
    }

    pub fn booster(&self) -> Option<&Booster> {
        self.booster.as_ref()
    }

    /// Lets all waits count from now, because no task could run for a while.
    pub fn restart_waits(&mut self, now: Nanos) {
        self.detector.restart(now);
    }

    /// Makes the next scan list all waiters, even if no task can starve.
    pub fn force_full_scan(&mut self) {
        self.asked_only = true;
    }

    /// Scans, and boosts starving tasks. `woke` is when the calling thread last came out of a
    /// sleep, and `now` is the current time. After an error the results are empty, and the next
    /// scan is due after the granularity, or after the threshold if that is shorter.
    pub fn scan(&mut self, woke: Nanos, now: Nanos) -> Result<()> {
        let outcome = self.try_scan(woke, now);
        self.adopt(now);
        outcome
    }

    /// Frees the memory that a crowd has taken, if the crowd is over. Returns whether it freed
    /// memory. Call it when no starving task needs a boost.
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
        if let Some(booster) = &mut self.booster {
            booster.shrink();
        }
        true
    }

    /// Remembers when a crowd took memory, so that it is freed later.
    fn note_crowd(&mut self) {
        let has_crowd = self.snapshot.waiters.len() > ROOM;
        if has_crowd || self.crowded.is_none() && self.backend.has_spare_memory() {
            self.crowded = Some(self.snapshot.at);
        }
    }

    /// Clears the results after a scan that failed, and plans the next one.
    fn forget_scan(&mut self, now: Nanos) {
        self.counters.failed_scans += 1;
        self.snapshot.clear();
        self.verdict.starving.clear();
        self.verdict.next_scan = now + self.limits.granularity.min(self.limits.threshold);
        if let Some(booster) = &mut self.booster {
            booster.delay_until(self.verdict.next_scan);
        }
    }

    fn try_scan(&mut self, woke: Nanos, now: Nanos) -> Result<()> {
        self.counters.scans += 1;
        let boosting = self.booster().is_some_and(Booster::is_busy);
        self.asked_only = !boosting && !self.asked_only && self.detector.can_wait(now);
        let effort = match (boosting, self.asked_only) {
            (true, _) => Effort::All,
            (_, true) => Effort::Ask,
            _ => Effort::Usual,
        };
        if let Err(e) = self.backend.snapshot(woke, effort, &mut self.snapshot) {
            self.forget_scan(now);
            return Err(e);
        }
        let at = self.snapshot.at;
        self.counters.walks += u64::from(self.snapshot.walked);
        self.note_crowd();
        if let Some(booster) = &mut self.booster {
            booster.see(&self.snapshot);
        }
        let Engine { detector, booster, ignore, snapshot, verdict, .. } = self;
        detector.judge(snapshot, &mut Excluded { booster: booster.as_ref(), ignore, at }, verdict);
        // If a CPU has more than one runnable task, a task may wait, most likely for a tick. Then
        // the next scan comes soon.
        self.asked_only &= !self.snapshot.complete && self.snapshot.load.iter().any(|load| load.runnable > 1);
        if self.asked_only {
            self.verdict.next_scan = self.verdict.next_scan.min(at + MAX_SCAN_DELAY);
        }
        if let Some(booster) = &mut self.booster {
            let starving = if self.rescues { self.verdict.starving.as_slice() } else { &[] };
            // Boosts serve the owners in turn, but reports the longest waits first. So each task
            // that this scan boosted, or tried to boost, is reported too, and so is each that has
            // its turn before the next scan.
            for event in booster.serve(&self.snapshot, starving) {
                if let Event::Boosted { task, .. } | Event::Refused { task, .. } = event {
                    self.detector.report(task.id(), &mut self.verdict);
                }
            }
            for task in booster.turns() {
                self.detector.report(task, &mut self.verdict);
            }
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

    /// Returns all starving tasks, the longest-starved first.
    pub fn starving(&self) -> &[Starving] {
        &self.verdict.starving
    }

    pub fn next_scan(&self) -> Nanos {
        self.verdict.next_scan
    }

    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Returns all waiters of the last scan, each with its wait as far as that is known.
    pub fn waiters(&self) -> impl Iterator<Item = (&Waiter, Nanos)> {
        self.snapshot.waiters.iter().map(|waiter| {
            let since = self.detector.since(&waiter.task).unwrap_or(self.snapshot.at);
            (waiter, self.snapshot.at - since)
        })
    }

    /// Returns how long a waiter that was seen at `at` has waited, as far as its record or the last
    /// scan shows.
    pub fn wait_of(&self, waiter: &Waiter, at: Nanos) -> Nanos {
        let known = self.detector.since(&waiter.task);
        waiter.since.into_iter().chain(known).min().map_or(Nanos::ZERO, |since| at - since)
    }

    /// Returns the hog of a CPU at the last scan.
    pub fn hog(&self, cpu: Cpu) -> Option<&Hog> {
        let first = self.hogs.partition_point(|hog| hog.task.cpu < cpu);
        self.hogs.get(first).filter(|hog| hog.task.cpu == cpu)
    }

    /// Returns the tasks that were found to be on the denylist since the last call.
    pub fn newly_ignored(&mut self) -> std::vec::Drain<'_, Ignored> {
        self.ignore.newly_ignored()
    }

    /// Returns how many more such tasks there were than the log can bear.
    pub fn take_unreported(&mut self) -> u64 {
        self.ignore.take_unreported()
    }

    /// Returns whether no task had waited for `wait` at the last scan, and no task is boosted or is
    /// to be boosted. Returns `None` if that scan did not list the waiters.
    pub fn is_quiet(&self, wait: Nanos) -> Option<bool> {
        let boosts = self.booster().is_some_and(Booster::is_busy);
        let waits = self.waiters().any(|(_, waited)| waited >= wait);
        let has_scanned = !self.asked_only && self.snapshot.at > Nanos::ZERO;
        has_scanned.then_some(!boosts && !waits)
    }

    pub fn kind(&self) -> Kind {
        self.backend.kind()
    }

    pub fn counters(&self) -> Counters {
        let Counters { scans, walks, failed_scans, starved, longest_wait, .. } = self.counters;
        let dropped_waits = self.detector.dropped();
        let boosts = self.booster().map(Booster::counters).unwrap_or_default();
        Counters { scans, walks, failed_scans, starved, longest_wait, dropped_waits, ..boosts }
    }

    pub fn backend(&mut self) -> &mut dyn Backend {
        self.backend.as_mut()
    }

    /// Updates the hogs from the last scan, in the order of their CPUs.
    fn note_hogs(&mut self) {
        std::mem::swap(&mut self.hogs, &mut self.hogs_before);
        self.hogs.clear();
        let place = |task: &Task| (task.cpu, task.tid, task.start);
        self.snapshot.running.sort_unstable_by_key(place);
        for here in self.snapshot.running.chunk_by(|one, other| one.cpu == other.cpu) {
            // During a context switch both tasks may count as running. The one that stays outranks
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
