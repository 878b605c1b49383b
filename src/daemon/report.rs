//! What the log tells of a look.

use super::log::{Level, Logger};
use super::metrics::Figures;
use super::options::{Mode, Options};
use crate::boost::journal::How;
use crate::boost::plan::{Event, Refusal};
use crate::boost::undo::Undone;
use crate::denylist::{Ignored, Why};
use crate::detect::Starving;
use crate::engine::{Counters, Engine, Hog, LATE};
use crate::error::{Error, Reason};
use crate::proc;
use crate::sys::clock;
use crate::task::{Cpu, Nanos, Task};
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
    figures: Arc<Figures>,
    role: Role,
    exact: bool,
    idle_detection: bool,
    mode: Mode,
    looks: u64,
    failures_in_a_row: u64,
    lateness: Lateness,
}

/// How late this thread came to its looks.
#[derive(Clone, Copy, Default)]
struct Lateness {
    looks: u64,
    total: Nanos,
    longest: Nanos,
}

impl Reporter {
    pub fn new(log: Logger, figures: Arc<Figures>, options: &Options, role: Role) -> Reporter {
        Reporter {
            log,
            figures,
            role,
            exact: options.threshold_has_unit,
            idle_detection: options.idle_detection,
            mode: options.mode,
            looks: 0,
            failures_in_a_row: 0,
            lateness: Lateness::default(),
        }
    }

    /// One for another thread, with a part of its own.
    pub fn playing(&self, role: Role) -> Reporter {
        let Reporter { log, figures, exact, idle_detection, mode, .. } = self;
        let (log, figures) = (log.clone(), Arc::clone(figures));
        let (exact, idle_detection, mode) = (*exact, *idle_detection, *mode);
        Reporter {
            log,
            figures,
            role,
            exact,
            idle_detection,
            mode,
            looks: 0,
            failures_in_a_row: 0,
            lateness: Lateness::default(),
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
            self.log.warning(format_args!("looked {} ms later than planned", late.as_millis()));
        }
    }

    /// A look was carried out.
    pub fn looked(&mut self, engine: &mut Engine) {
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
    pub fn boosts(&self, engine: &mut Engine) {
        for event in engine.events() {
            self.event(&event);
        }
        if let Some(booster) = engine.booster() {
            let monitor = if let Role::Of(cpu) = self.role { cpu } else { Cpu(0) };
            self.figures.boosted(monitor, booster.load().0);
        }
    }

    fn event(&self, event: &Event) {
        self.figures.happened(event);
        match event {
            Event::Boosted { task: Task { tid, comm, cpu, .. }, how } => {
                let policy = match how {
                    How::Deadline { .. } => "SCHED_DEADLINE",
                    How::Fifo => "SCHED_FIFO",
                };
                self.log.info(format_args!("boosted pid {tid} ({comm}) (cpu {cpu}) using {policy}"));
            }
            Event::Refused {
                why: Refusal::Gone | Refusal::IsDeadline | Refusal::Taken | Refusal::ChangedByOthers(_),
                ..
            } => {}
            Event::Refused { task, how, why } => {
                let call = match how {
                    How::Deadline { .. } => "boost_with_deadline",
                    How::Fifo => "boost_with_fifo",
                };
                let reason = match why {
                    Refusal::Kernel(e) => Reason(e).to_string(),
                    _ => "the journal is full".to_string(),
                };
                self.log.warning(format_args!("{call} failed to boost pid {}: {reason}", task.tid));
            }
            Event::Over { task: Task { tid, comm, cpu, .. }, before, after, early, outcome } => match outcome {
                Undone::Failed(e) => self.log.error(format_args!(
                    "restore_policy: failed to restore sched policy for pid {tid}: {}",
                    Reason(e)
                )),
                Undone::Restored(now) => {
                    let why = if *early { ", ended early" } else { "" };
                    let moved = if now == tid { String::new() } else { format!(", now {now}") };
                    self.log.info(format_args!(
                        "restored pid {tid} ({comm}) (cpu {cpu}{moved}) to {before} after {} ms{why}",
                        after.as_millis()
                    ));
                }
                Undone::ChangedByOthers(policy) => self.log.info(format_args!(
                    "left pid {tid} ({comm}) as it is: somebody has made it {} meanwhile",
                    policy.name().unwrap_or("something else")
                )),
                Undone::Gone | Undone::NeverBoosted => {
                    self.log.verbose(format_args!("pid {tid} ({comm}) has ended during its boost"));
                }
            },
            Event::Adopted { parent, child, policy } => self.log.verbose(format_args!(
                "gave pid {child}, started by pid {} ({}) during its boost, its policy {policy}",
                parent.tid, parent.comm
            )),
            Event::Orphan { parent, child, policy } => self.log.warning(format_args!(
                "pid {child} was started during the boost of pid {} ({}) and is SCHED_OTHER; without it, it might be \
                 {policy}",
                parent.tid, parent.comm
            )),
        }
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
        let Counters { looks, failed_looks, starved, longest_wait } = engine.counters();
        self.log.info(format_args!(
            "{whose}{} backend: {looks} looks, {failed_looks} of them lost; {starved} waits reached the threshold, \
             the longest seen {}; {}",
            engine.kind().name(),
            Millis(longest_wait),
            self.lateness,
        ));
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
        for (waiter, wait) in waiters.iter().take(LISTED) {
            let Task { comm, tid, cpu, sched, .. } = waiter.task;
            self.log.info(format_args!("waiting: {comm}-{tid} ({sched}) on CPU {cpu} for {}", Millis(*wait)));
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

    fn cpus(&self, engine: &Engine) {
        let snapshot = engine.snapshot();
        // Of the first look each CPU is told, where it is known which there are.
        let brief = self.looks > 0 || snapshot.load.is_empty();
        if brief && !snapshot.complete && snapshot.load.iter().all(|load| load.runnable == 0) {
            self.log.verbose(format_args!("all CPUs had idle time, skipping parse"));
            return;
        }
        for load in &snapshot.load {
            let cpu = load.cpu;
            let waiting = snapshot.waiters.iter().filter(|waiter| waiter.task.cpu == cpu).count();
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
        for Ignored { task: Task { comm, tid, .. }, why } in engine.newly_ignored() {
            match why {
                _ if matches!(self.role, Role::Of(_)) => {}
                Why::Name => {
                    self.log.info(format_args!("Ignoring the thread {comm} from consideration for boosting"));
                }
                Why::Unknown => self.log.warning(format_args!(
                    "Ignoring the thread {comm} ({tid}): the name of its process can't be read now, and may be on a \
                     denylist (-I)"
                )),
                Why::Process(process) => self.log.info(format_args!(
                    "Ignoring the thread {comm} (spawned by {process}) from consideration for boosting"
                )),
            }
        }
    }

    fn might_starve(&self, starving: &Starving) {
        if self.mode != Mode::Adaptive || starving.again {
            return;
        }
        let Starving { task: Task { comm, tid, cpu, .. }, wait, .. } = *starving;
        let (seconds, exact) = (wait.as_secs(), ExactWait(self.exact.then_some(wait)));
        self.log.info(format_args!(
            "{comm}-{tid} might starve on CPU {cpu} (waiting for {seconds} seconds){exact}"
        ));
    }

    fn starves(&self, starving: &Starving, hog: Option<&Hog>) {
        let Starving { task: Task { comm, tid, cpu, .. }, wait, .. } = *starving;
        let exact = ExactWait(self.exact.then_some(wait));
        self.log
            .warning(format_args!("{comm}-{tid} starved on CPU {cpu} for {} seconds{exact}", wait.as_secs()));
        if let Some(&hog) = hog {
            self.log.defer(Level::Warning, move || held_by(cpu, &hog, clock::monotonic()));
        }
    }
}

/// Runs in the thread that writes the log: the kernel may make a reader of /proc/TID/cgroup wait.
fn held_by(cpu: Cpu, hog: &Hog, now: Nanos) -> String {
    let Task { comm, tid, sched, start, .. } = hog.task;
    let cgroup = match proc::cgroup(tid, start) {
        Some(path) => format!(", cgroup {path}"),
        None => String::new(),
    };
    let seen = Millis(now - hog.seen_since);
    format!("CPU {cpu} is held by {comm}-{tid} ({sched}){cgroup}, seen there for {seen}")
}

impl fmt::Display for Lateness {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let mean = Nanos(self.total.0 / self.looks.max(1));
        write!(f, "woken {} late on average, {} at most", Millis(mean), Millis(self.longest))
    }
}

/// `1234.567 ms`
struct Millis(Nanos);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}.{:03} ms", self.0.as_millis(), self.0.0 / 1000 % 1000)
    }
}

/// Nothing, or ` (1234 ms)`.
struct ExactWait(Option<Nanos>);

impl fmt::Display for ExactWait {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.0 {
            Some(wait) => write!(f, " ({} ms)", wait.as_millis()),
            None => Ok(()),
        }
    }
}
