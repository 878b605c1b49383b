//! What the log tells of a look.

use super::log::{Level, LogEvent, Logger, Looker, Millis};
use super::metrics::Figures;
use super::options::{Mode, Options};
use crate::boost::event::Event;
use crate::detect::Starving;
use crate::engine::{Counters, Engine, Hog, LATE};
use crate::error::Error;
use crate::sorted::Sorted;
use crate::sys::clock;
use crate::task::{Cpu, Nanos, TaskId};
use std::fmt;
use std::sync::Arc;

/// As many waiters as SIGUSR1 lists.
const LISTED: usize = 100;

/// Which part the thread has whose looks are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It does everything.
    Alone,
    /// It sees to it that there are monitors.
    Supervisor,
    /// It is the monitor of one CPU.
    Of(Cpu),
}

/// Turns looks into lines, and remembers what has been said.
pub struct Reporter {
    log: Logger,
    /// Where there is one to write.
    trace: Option<Logger>,
    figures: Arc<Figures>,
    role: Role,
    exact: bool,
    idle_detection: bool,
    mode: Mode,
    looks: u64,
    failures_in_a_row: u64,
    refusals: Refusals,
    lateness: Lateness,
    /// How many tasks wait on each CPU.
    waiting: Sorted<Cpu, usize>,
}

/// A boost that the kernel goes on refusing is logged again after this time.
const REFUSAL_INTERVAL: Nanos = Nanos::from_secs(600);

/// The last boosts that were refused: a task whose boost fails at each try is logged once.
#[derive(Clone, Copy, Default)]
struct Refusals {
    last: [Option<Refused>; 32],
    next: usize,
}

#[derive(Clone, Copy)]
struct Refused {
    id: TaskId,
    errno: Option<i32>,
    at: Nanos,
}

impl Refusals {
    /// False for a refusal that was logged a short time ago, for the same task and the same reason.
    fn is_news(&mut self, told: &LogEvent, now: Nanos) -> bool {
        let LogEvent::Refused { ref task, errno, .. } = *told else { return true };
        let is_same = |it: &&mut Refused| (it.id, it.errno) == (task.id(), errno);
        if let Some(known) = self.last.iter_mut().flatten().find(is_same) {
            let is_news = now - known.at >= REFUSAL_INTERVAL;
            if is_news {
                known.at = now;
            }
            return is_news;
        }
        let places = self.last.len();
        if let Some(place) = self.last.get_mut(self.next % places) {
            *place = Some(Refused { id: task.id(), errno, at: now });
        }
        self.next = self.next.wrapping_add(1);
        true
    }
}

/// How late this thread came to its looks.
#[derive(Clone, Copy, Default)]
struct Lateness {
    looks: u64,
    total: Nanos,
    longest: Nanos,
}

fn no_waiters() -> Sorted<Cpu, usize> {
    Sorted::with_room(64, (Cpu(u32::MAX), 0))
}

impl Reporter {
    pub fn new(
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
            looks: 0,
            failures_in_a_row: 0,
            refusals: Refusals::default(),
            lateness: Lateness::default(),
            waiting: no_waiters(),
        }
    }

    /// One for another thread, with a part of its own.
    pub fn playing(&self, role: Role) -> Reporter {
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
            looks: 0,
            failures_in_a_row: 0,
            refusals: Refusals::default(),
            lateness: Lateness::default(),
            waiting: no_waiters(),
        }
    }

    /// A look that was planned for one moment began at another.
    pub fn woke(&mut self, planned: Nanos, woke: Nanos) {
        let late = woke - planned;
        self.lateness.looks += 1;
        self.lateness.total = self.lateness.total + late;
        self.lateness.longest = self.lateness.longest.max(late);
        self.figures.woke_late(late);
        if late >= LATE {
            self.log.tell(&LogEvent::Late { late });
        }
    }

    /// A look was carried out, which began at this moment.
    pub fn looked(&mut self, engine: &mut Engine, begun: Nanos) {
        if self.failures_in_a_row > 0 {
            self.log.info(format_args!("looking again after {} looks that failed", self.failures_in_a_row));
            self.failures_in_a_row = 0;
        }
        for remark in engine.backend().remarks() {
            self.log.info(format_args!("{remark}"));
        }
        // Where each CPU has a monitor, that tells of it.
        if self.log.shows(Level::Debug) && (self.role, self.mode) != (Role::Supervisor, Mode::Aggressive) {
            self.cpus(engine);
        }
        self.ignored(engine);
        // A monitor's looks are those of all.
        if !matches!(self.role, Role::Of(_)) {
            self.figures.looked(engine.snapshot().waiters.len());
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
        self.looks += 1;
    }

    /// What has happened to tasks that were boosted.
    pub fn boosts(&mut self, engine: &mut Engine) {
        for event in engine.events() {
            self.event(&event);
        }
        if let Some(booster) = engine.booster() {
            let monitor = if let Role::Of(cpu) = self.role { cpu } else { Cpu(0) };
            self.figures.boosted(monitor, booster.load().0);
        }
    }

    fn event(&mut self, event: &Event) {
        self.figures.happened(event);
        if let Some(told) = LogEvent::of(event) {
            if self.refusals.is_news(&told, clock::monotonic()) {
                self.log.tell(&told);
            }
            self.trace.iter().for_each(|trace| trace.tell(&told));
        }
    }

    /// Who starves and for how long, for those who want to see it drawn.
    fn trace(&self, engine: &Engine, begun: Nanos) {
        let Some(trace) = &self.trace else { return };
        let snapshot = engine.snapshot();
        let looker = match self.role {
            Role::Alone => Looker::All,
            Role::Of(cpu) => Looker::Of(cpu),
            Role::Supervisor => Looker::Supervisor,
        };
        if looker != Looker::Supervisor {
            engine.starving().iter().for_each(|starving| trace.tell(&self.starved(starving)));
        }
        // A look that only asks, and finds two tasks in a queue, does not know who waits.
        let knows = snapshot.complete || snapshot.load.iter().all(|load| load.runnable < 2);
        trace.tell(&LogEvent::Looked { begun, waiting: snapshot.waiters.len(), looker, knows });
    }

    /// A look failed: told once for a row of them.
    pub fn failed(&mut self, error: &Error) {
        self.failures_in_a_row += 1;
        if !matches!(self.role, Role::Of(_)) {
            self.figures.lost_a_look();
        }
        if self.failures_in_a_row == 1 {
            self.log.warning(format_args!("this look is lost: {error}"));
        }
    }

    /// Who waits, and what has happened so far.
    pub fn status(&self, engine: &Engine) {
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
        let Counters { looks, failed_looks, starved, longest_wait, dropped_waits } = engine.counters();
        self.log.info(format_args!(
            "{whose}{} backend: {looks} looks, {failed_looks} of them lost; {starved} waits reached the threshold, \
             the longest seen {}; {}",
            engine.kind().name(),
            Millis(longest_wait),
            self.lateness,
        ));
        if dropped_waits > 0 {
            self.log.info(format_args!(
                "{whose}{dropped_waits} short waits dropped: too many tasks out of sight at once"
            ));
        }
        if let Some(booster) = engine.booster() {
            let (active, waiting) = booster.load();
            let counters = booster.counters();
            self.log.info(format_args!(
                "{whose}{} boosts so far, {} refused, {} not undone; {active} tasks are boosted now, {waiting} wait for it",
                counters.boosts, counters.refused, counters.failed_restores
            ));
        }
    }

    fn waiters(&self, engine: &Engine) {
        let mut waiters: Vec<_> = engine.waiters().collect();
        waiters.sort_by_key(|&(_, wait)| std::cmp::Reverse(wait));
        for &(waiter, wait) in waiters.iter().take(LISTED) {
            self.log.tell(&LogEvent::Waiting { task: waiter.task, wait });
        }
        if waiters.len() > LISTED {
            self.log.info(format_args!("waiting: {} more", waiters.len() - LISTED));
        }
        if self.failures_in_a_row > 0 {
            self.log.info(format_args!("waiting: not known, the last look failed"));
        } else if waiters.is_empty() {
            self.log.info(format_args!("waiting: nobody"));
        }
    }

    fn cpus(&mut self, engine: &Engine) {
        let snapshot = engine.snapshot();
        // Of the first look each CPU is told, where it is known which there are.
        let brief = self.looks > 0 || snapshot.load.is_empty();
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
            if load.runnable > 0 || self.looks == 0 {
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

    /// The supervisor, who sees them first, tells of those that all let alone.
    fn ignored(&self, engine: &mut Engine) {
        for ignored in engine.newly_ignored() {
            if !matches!(self.role, Role::Of(_)) {
                self.log.tell(&LogEvent::Ignored(ignored));
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
            self.log.tell(&LogEvent::MightStarve { task, wait, exact: self.exact });
        }
    }

    fn starves(&self, starving: &Starving, hog: Option<&Hog>) {
        self.log.tell(&self.starved(starving));
        if let Some(&hog) = hog {
            self.log.tell(&LogEvent::Held { cpu: starving.task.cpu, hog, at: clock::monotonic() });
        }
    }

    fn starved(&self, starving: &Starving) -> LogEvent {
        let Starving { task, since, wait, .. } = *starving;
        LogEvent::Starved { task, since, wait, exact: self.exact }
    }
}

impl fmt::Display for Lateness {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let mean = Nanos(self.total.0 / self.looks.max(1));
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
            let told = LogEvent::Refused { task, how: BoostPolicy::Fifo, errno: Some(errno) };
            refusals.is_news(&told, Nanos::from_secs(second))
        };
        assert!(is_news(7, 1, libc::EPERM, 0));
        assert!(!is_news(7, 1, libc::EPERM, 599));
        assert!(is_news(7, 1, libc::EPERM, 600));
        assert!(!is_news(7, 1, libc::EPERM, 700));
        // Another reason, and another task of that number.
        assert!(is_news(7, 1, libc::EBUSY, 700) && is_news(7, 2, libc::EPERM, 700));
        // Only so many are remembered.
        assert!((100..200).all(|tid| is_news(tid, 1, libc::EPERM, 700)));
        assert!(is_news(7, 1, libc::EPERM, 701));
        assert!(refusals.is_news(&LogEvent::Late { late: Nanos::ZERO }, Nanos::ZERO));
    }
}
