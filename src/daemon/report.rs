//! Reports scans and boosts to the log, the metrics and the trace.

use super::log::{Level, LogEvent, Logger, Millis, Scanner};
use super::metrics::Figures;
use super::options::{Mode, Options};
use crate::boost::counters::Counters;
use crate::boost::event::{Event, Refusal};
use crate::boost::plan::PulsesOnly;
use crate::detect::Starving;
use crate::engine::{Engine, Hog, LATE};
use crate::error::Error;
use crate::sorted::Sorted;
use crate::sys::clock;
use crate::task::{Cpu, Nanos, TaskId};
use std::fmt;
use std::sync::Arc;

/// The maximum number of waiters that SIGUSR1 lists.
const LISTED: usize = 100;

/// The role of the thread whose scans are reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// The only scanning thread: it scans and boosts.
    Alone,
    /// The main thread with -A or -M: it starts monitors and boosts no task.
    Supervisor,
    /// The monitor of one CPU.
    Of(Cpu),
}

/// Turns scans into log lines, and remembers what it has logged.
pub(super) struct Reporter {
    log: Logger,
    /// The logger of the trace, if there is one.
    trace: Option<Logger>,
    figures: Arc<Figures>,
    role: Role,
    exact: bool,
    idle_detection: bool,
    mode: Mode,
    scans: u64,
    failures_in_a_row: u64,
    refusals: Refusals,
    lateness: Lateness,
    /// The number of waiters on each CPU; scratch space of `cpus`.
    waiting: Sorted<Cpu, usize>,
}

/// A boost that the kernel keeps refusing is logged again after this time.
const REFUSAL_INTERVAL: Nanos = Nanos::from_secs(600);

/// The last refused boosts. A task whose boost fails at each try is logged once.
#[derive(Clone, Copy, Default)]
struct Refusals {
    last: [Option<Refused>; 32],
    next: usize,
}

#[derive(Clone, Copy)]
struct Refused {
    id: TaskId,
    why: Refusal,
    at: Nanos,
}

impl Refusals {
    /// Returns false for a refusal that was logged less than `REFUSAL_INTERVAL` ago, for the same
    /// task and reason.
    fn is_news(&mut self, event: &Event, now: Nanos) -> bool {
        let Event::Refused { ref task, why, .. } = *event else { return true };
        let is_same = |it: &&mut Refused| (it.id, it.why) == (task.id(), why);
        if let Some(known) = self.last.iter_mut().flatten().find(is_same) {
            let is_news = now - known.at >= REFUSAL_INTERVAL;
            if is_news {
                known.at = now;
            }
            return is_news;
        }
        let places = self.last.len();
        if let Some(place) = self.last.get_mut(self.next % places) {
            *place = Some(Refused { id: task.id(), why, at: now });
        }
        self.next = self.next.wrapping_add(1);
        true
    }
}

/// How late this thread woke up for its scans.
#[derive(Clone, Copy, Default)]
struct Lateness {
    scans: u64,
    total: Nanos,
    longest: Nanos,
}

fn no_waiters() -> Sorted<Cpu, usize> {
    Sorted::with_room(64, (Cpu(u32::MAX), 0))
}

impl Reporter {
    pub(super) fn new(
        log: Logger,
        trace: Option<Logger>,
        figures: Arc<Figures>,
        options: &Options,
        role: Role,
    ) -> Reporter {
        Reporter {
            log,
            trace,
            figures,
            role,
            exact: options.threshold_has_unit,
            idle_detection: options.idle_detection,
            mode: options.mode,
            scans: 0,
            failures_in_a_row: 0,
            refusals: Refusals::default(),
            lateness: Lateness::default(),
            waiting: no_waiters(),
        }
    }

    /// Returns a reporter for another thread, with the role of that thread.
    pub(super) fn with_role(&self, role: Role) -> Reporter {
        let Reporter { log, trace, figures, exact, idle_detection, mode, .. } = self;
        let (log, trace, figures) = (log.clone(), trace.clone(), Arc::clone(figures));
        let (exact, idle_detection, mode) = (*exact, *idle_detection, *mode);
        Reporter {
            log,
            trace,
            figures,
            role,
            exact,
            idle_detection,
            mode,
            scans: 0,
            failures_in_a_row: 0,
            refusals: Refusals::default(),
            lateness: Lateness::default(),
            waiting: no_waiters(),
        }
    }

    /// Reports how late the thread woke up for a scan.
    pub(super) fn woke(&mut self, planned: Nanos, woke: Nanos) {
        let late = woke - planned;
        self.lateness.scans += 1;
        self.lateness.total = self.lateness.total + late;
        self.lateness.longest = self.lateness.longest.max(late);
        self.figures.woke_late(late);
        if late >= LATE {
            self.log.emit(&LogEvent::Late { late });
        }
    }

    /// Reports that this thread was `late`, and had not waited for a CPU meanwhile.
    pub(super) fn stood_still(&self, late: Nanos) {
        self.log.info(format_args!(
            "stalld, or all of this machine, stood still for {} ms: all waits count from now",
            late.as_millis()
        ));
    }

    /// Reports a scan that began at `begun`.
    pub(super) fn scanned(&mut self, engine: &mut Engine, begun: Nanos) {
        if self.failures_in_a_row > 0 {
            self.log.info(format_args!("scanning again after {} failed scans", self.failures_in_a_row));
            self.failures_in_a_row = 0;
        }
        for remark in engine.backend().remarks() {
            self.log.info(format_args!("{remark}"));
        }
        // With -A the monitors log the CPUs.
        if self.log.shows(Level::Debug) && (self.role, self.mode) != (Role::Supervisor, Mode::Aggressive) {
            self.cpus(engine);
        }
        self.ignored(engine);
        // Monitors share scans, so only the supervisor counts them.
        if !matches!(self.role, Role::Of(_)) {
            self.figures.scanned(engine.snapshot());
        }
        self.trace(engine, begun);
        for starving in engine.starving().iter().filter(|starving| starving.due) {
            if self.role == Role::Supervisor {
                self.might_starve(starving);
                continue;
            }
            if !starving.again {
                self.figures.starved();
            }
            self.starves(starving, engine.hog(starving.task.cpu));
        }
        self.scans += 1;
    }

    /// Reports the events of boosts since the last call.
    pub(super) fn boosts(&mut self, engine: &mut Engine) {
        let mut boosts = 0;
        for event in engine.events() {
            self.event(event);
            boosts += 1;
        }
        // The reason matters only to the reader of a line about a boost.
        if boosts > 0 {
            if let Some(why) = engine.take_pulses_only(clock::monotonic()) {
                self.only_pulses(why);
            }
        }
        if let Some(booster) = engine.booster() {
            let monitor = if let Role::Of(cpu) = self.role { cpu } else { Cpu(0) };
            self.figures.boosted(monitor, booster.load().0);
        }
    }

    fn only_pulses(&self, why: PulsesOnly) {
        self.log.info(match why {
            PulsesOnly::Lent => format_args!("a lock has lent a boost: tasks are boosted in pulses for 60 s"),
            PulsesOnly::Hotplug => format_args!("a CPU comes or goes: tasks are boosted in pulses for 60 s"),
        });
    }

    fn event(&mut self, event: Event) {
        self.figures.happened(&event);
        if matches!(event, Event::Refused { why, .. } if !why.is_failure()) {
            return;
        }
        if self.refusals.is_news(&event, clock::monotonic()) {
            self.log.emit(&LogEvent::Task(event));
        }
        self.trace.iter().for_each(|trace| trace.emit(&LogEvent::Task(event)));
    }

    /// Sends the starving tasks and the scan to the trace.
    fn trace(&self, engine: &Engine, begun: Nanos) {
        let Some(trace) = &self.trace else { return };
        let snapshot = engine.snapshot();
        let scanner = match self.role {
            Role::Alone => Scanner::All,
            Role::Of(cpu) => Scanner::Of(cpu),
            Role::Supervisor => Scanner::Supervisor,
        };
        if scanner != Scanner::Supervisor {
            engine.starving().iter().for_each(|starving| trace.emit(&self.starved(starving)));
        }
        // An incomplete scan lists no waiters. It knows that there are none only if no CPU has two
        // runnable tasks.
        let knows = snapshot.complete || snapshot.load.iter().all(|load| load.runnable < 2);
        trace.emit(&LogEvent::Scanned { begun, waiting: snapshot.waiters.len(), scanner, knows });
    }

    /// Counts a failed scan. Logs only the first of several in a row.
    pub(super) fn failed(&mut self, error: &Error) {
        self.failures_in_a_row += 1;
        if !matches!(self.role, Role::Of(_)) {
            self.figures.scan_failed();
        }
        if self.failures_in_a_row == 1 {
            self.log.warning(format_args!("scan failed: {error}"));
        }
    }

    /// Logs the waiters and the counters, for SIGUSR1.
    pub(super) fn status(&self, engine: &Engine) {
        match self.role {
            Role::Alone => {
                self.counters(engine, "");
                self.waiters(engine);
            }
            Role::Supervisor => self.waiters(engine),
            Role::Of(cpu) => self.counters(engine, &format!("CPU {cpu}: ")),
        }
    }

    fn counters(&self, engine: &Engine, whose: &str) {
        let counters = engine.counters();
        let Counters { scans, walks, failed_scans, starved, longest_wait, dropped_waits, .. } = counters;
        self.log.info(format_args!(
            "{whose}{} backend: {scans} scans, {failed_scans} of them failed, {walks} read all tasks; {starved} waits \
             reached the threshold, the longest seen {}; {}",
            engine.kind().name(),
            Millis(longest_wait),
            self.lateness,
        ));
        if dropped_waits > 0 {
            self.log.info(format_args!(
                "{whose}{dropped_waits} short waits dropped: too many tasks out of sight at once"
            ));
        }
        if engine.booster().is_some() {
            let Counters { boosts, refused, failed_restores, active, waiting, .. } = counters;
            self.log.info(format_args!(
                "{whose}{boosts} boosts so far, {refused} refused, {failed_restores} not undone; {active} tasks are \
                 boosted now, {waiting} wait for it"
            ));
        }
    }

    fn waiters(&self, engine: &Engine) {
        let mut waiters: Vec<_> = engine.waiters().collect();
        waiters.sort_by_key(|&(_, wait)| std::cmp::Reverse(wait));
        for &(waiter, wait) in waiters.iter().take(LISTED) {
            self.log.emit(&LogEvent::Waiting { task: waiter.task, wait });
        }
        if waiters.len() > LISTED {
            self.log.info(format_args!("waiting: {} more", waiters.len() - LISTED));
        }
        if self.failures_in_a_row > 0 {
            self.log.info(format_args!("waiting: not known, the last scan failed"));
        } else if waiters.is_empty() {
            self.log.info(format_args!("waiting: no task"));
        }
    }

    fn cpus(&mut self, engine: &Engine) {
        let snapshot = engine.snapshot();
        // The first scan logs all CPUs that the backend lists.
        let brief = self.scans > 0 || snapshot.load.is_empty();
        if brief && !snapshot.complete && snapshot.load.iter().all(|load| load.runnable == 0) {
            self.log.verbose(format_args!("all CPUs had idle time, skipping parse"));
            return;
        }
        self.waiting.clear();
        for waiter in &snapshot.waiters {
            *self.waiting.entry(waiter.task.cpu, 0) += 1;
        }
        for load in &snapshot.load {
            let cpu = load.cpu;
            let waiting = self.waiting.get(cpu).unwrap_or_default();
            if load.runnable > 0 || self.scans == 0 {
                let realtime = load.realtime;
                self.log.verbose(format_args!("checking cpu {cpu} - rt: {realtime} - starving: {waiting}"));
            } else if self.idle_detection {
                self.log.verbose(format_args!("cpu {cpu} had idle time! skipping next phase"));
            }
            if self.mode == Mode::Aggressive {
                self.log.verbose(format_args!("CPU {cpu} has {waiting} waiting tasks"));
            }
        }
    }

    /// Logs newly ignored tasks. Monitors drop theirs, because the supervisor logs all.
    fn ignored(&self, engine: &mut Engine) {
        for ignored in engine.newly_ignored() {
            if !matches!(self.role, Role::Of(_)) {
                self.log.emit(&LogEvent::Ignored(ignored));
            }
        }
        let more = engine.take_unreported();
        if more > 0 && !matches!(self.role, Role::Of(_)) {
            self.log.info(format_args!("Ignoring {more} more threads, too many at once to name each"));
        }
    }

    fn might_starve(&self, starving: &Starving) {
        if self.mode == Mode::Adaptive && !starving.again {
            let Starving { task, wait, .. } = *starving;
            self.log.emit(&LogEvent::MightStarve { task, wait, exact: self.exact });
        }
    }

    fn starves(&self, starving: &Starving, hog: Option<&Hog>) {
        self.log.emit(&self.starved(starving));
        if let Some(&hog) = hog {
            self.log.emit(&LogEvent::Held { cpu: starving.task.cpu, hog, at: clock::monotonic() });
        }
    }

    fn starved(&self, starving: &Starving) -> LogEvent {
        let Starving { task, since, wait, .. } = *starving;
        LogEvent::Starved { task, since, wait, exact: self.exact }
    }
}

impl fmt::Display for Lateness {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let mean = Nanos(self.total.0 / self.scans.max(1));
        write!(f, "woken {} late on average, {} at most", Millis(mean), Millis(self.longest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boost::journal::BoostPolicy;
    use crate::task::{Task, Tid};

    #[test]
    fn a_refusal_is_logged_once_for_a_task_and_a_reason() {
        let mut refusals = Refusals::default();
        let mut is_news = |tid, start, errno, second| {
            let task = Task { tid: Tid(tid), start, ..Task::default() };
            let refused = Event::Refused { task, how: BoostPolicy::Fifo, why: Refusal::Kernel(errno) };
            refusals.is_news(&refused, Nanos::from_secs(second))
        };
        assert!(is_news(7, 1, libc::EPERM, 0));
        assert!(!is_news(7, 1, libc::EPERM, 599));
        assert!(is_news(7, 1, libc::EPERM, 600));
        assert!(!is_news(7, 1, libc::EPERM, 700));
        // Another reason, or another task with that tid, is news.
        assert!(is_news(7, 1, libc::EBUSY, 700) && is_news(7, 2, libc::EPERM, 700));
        // The number of remembered refusals is limited.
        assert!((100..200).all(|tid| is_news(tid, 1, libc::EPERM, 700)));
        assert!(is_news(7, 1, libc::EPERM, 701));
        let boosted = Event::Boosted { task: Task::default(), how: BoostPolicy::Fifo };
        assert!(refusals.is_news(&boosted, Nanos::ZERO));
    }
}
