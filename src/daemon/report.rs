//! What the log tells of a look.

use super::log::{Level, Logger};
use super::options::{Mode, Options};
use crate::denylist::Denylist;
use crate::detect::Starving;
use crate::engine::{Counters, Engine, Hog};
use crate::error::Error;
use crate::observe::Kind;
use crate::sys::clock;
use crate::task::{Cpu, Nanos, Task, Tid};
use std::fmt;
use std::fs;

/// A look this much later than planned is told.
const LATE: Nanos = Nanos::from_millis(100);

/// As many waiters as SIGUSR1 lists.
const LISTED: usize = 100;

/// Turns looks into lines, and remembers what has been said.
pub struct Reporter {
    log: Logger,
    exact: bool,
    idle_detection: bool,
    mode: Mode,
    ignore_threads: Denylist,
    ignore_processes: Denylist,
    ignored: Vec<Ignored>,
    looks: u64,
    failures_in_a_row: u64,
    lateness: Lateness,
}

/// A task on the denylist, said to be so.
struct Ignored {
    tid: Tid,
    start: u64,
    seen: Nanos,
}

/// How late this thread came to its looks.
#[derive(Clone, Copy, Default)]
struct Lateness {
    looks: u64,
    total: Nanos,
    longest: Nanos,
}

impl Reporter {
    pub fn new(log: Logger, options: &Options) -> Reporter {
        Reporter {
            log,
            exact: options.threshold_has_unit,
            idle_detection: options.idle_detection,
            mode: options.mode,
            ignore_threads: options.ignore_threads.clone(),
            ignore_processes: options.ignore_processes.clone(),
            ignored: Vec::new(),
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
        if self.log.shows(Level::Debug) {
            self.cpus(engine);
        }
        self.starving(engine);
        self.looks += 1;
    }

    /// A look failed: told once for a row of them.
    pub fn failed(&mut self, error: &Error) {
        self.failures_in_a_row += 1;
        if self.failures_in_a_row == 1 {
            self.log.warning(format_args!("this look is lost: {error}"));
        }
    }

    /// Who waits, and what has happened so far.
    pub fn status(&self, engine: &Engine, kind: Kind) {
        let Counters { looks, failed_looks, starved, longest_wait } = engine.counters();
        self.log.info(format_args!(
            "{} backend: {looks} looks, {failed_looks} of them lost; {starved} waits reached the threshold, \
             the longest seen {}; {}",
            kind.name(),
            Millis(longest_wait),
            self.lateness,
        ));
        let mut waiters: Vec<_> = engine.waiters().collect();
        waiters.sort_by_key(|&(_, wait)| std::cmp::Reverse(wait));
        for (waiter, wait) in waiters.iter().take(LISTED) {
            let Task { comm, tid, cpu, sched, .. } = waiter.task;
            self.log.info(format_args!("waiting: {comm}-{tid} ({sched}) on CPU {cpu} for {}", Millis(*wait)));
        }
        if waiters.len() > LISTED {
            self.log.info(format_args!("waiting: {} more", waiters.len() - LISTED));
        }
        if waiters.is_empty() {
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

    /// One line a CPU, of the task that has waited longest there and is not on the denylist.
    fn starving(&mut self, engine: &Engine) {
        let now = engine.snapshot().at;
        self.ignored.retain(|ignored| now - ignored.seen < Nanos::from_secs(3600));
        for cpu in engine.snapshot().load.iter().map(|load| load.cpu) {
            let here = engine.starving().iter().filter(|starving| starving.task.cpu == cpu);
            for starving in here {
                if self.is_ignored(&starving.task, now) {
                    continue;
                }
                self.one(starving, engine.hog(cpu));
                break;
            }
        }
    }

    fn one(&self, starving: &Starving, hog: Option<&Hog>) {
        let Starving { task: Task { comm, tid, cpu, .. }, wait, .. } = *starving;
        let exact = ExactWait(self.exact.then_some(wait));
        self.log
            .warning(format_args!("{comm}-{tid} starved on CPU {cpu} for {} seconds{exact}", wait.as_secs()));
        if let Some(&hog) = hog {
            self.log.defer(Level::Warning, move || held_by(cpu, &hog, clock::monotonic()));
        }
    }

    /// Whether a task is on the denylist: by its own name, or by that of its process.
    fn is_ignored(&mut self, task: &Task, now: Nanos) -> bool {
        if self.ignore_threads.is_empty() && self.ignore_processes.is_empty() {
            return false;
        }
        if let Some(known) = self.ignored.iter_mut().find(|it| (it.tid, it.start) == (task.tid, task.start)) {
            known.seen = now;
            return true;
        }
        if self.ignore_threads.matches(task.comm.as_bytes()) {
            self.log.info(format_args!("Ignoring the thread {} from consideration for boosting", task.comm));
        } else if let Some(process) = self.ignored_process(task) {
            self.log.info(format_args!(
                "Ignoring the thread {} (spawned by {process}) from consideration for boosting",
                task.comm
            ));
        } else {
            return false;
        }
        self.ignored.push(Ignored { tid: task.tid, start: task.start, seen: now });
        true
    }

    fn ignored_process(&self, task: &Task) -> Option<crate::task::Comm> {
        if self.ignore_processes.is_empty() {
            return None;
        }
        let tgid = task.tgid.or_else(|| proc::tgid(task.tid))?;
        let name = proc::comm(tgid)?;
        self.ignore_processes.matches(name.as_bytes()).then_some(name)
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

/// What /proc knows of a task.
mod proc {
    use super::*;
    use crate::task::{Comm, Escaped};

    pub fn comm(tid: Tid) -> Option<Comm> {
        let name = fs::read(format!("/proc/{tid}/comm")).ok()?;
        Some(Comm::new(name.strip_suffix(b"\n").unwrap_or(&name)))
    }

    pub fn tgid(tid: Tid) -> Option<Tid> {
        let status = fs::read(format!("/proc/{tid}/status")).ok()?;
        // The name, which comes first, has its newlines escaped.
        let line = status.split(|&b| b == b'\n').find_map(|line| line.strip_prefix(b"Tgid:"))?;
        std::str::from_utf8(line).ok()?.trim().parse().ok().map(Tid)
    }

    /// The control group that tells most of it: that of the cpu controller where it is not the root, else
    /// that of the unified hierarchy.
    pub fn cgroup(tid: Tid, start: u64) -> Option<String> {
        let groups = fs::read(format!("/proc/{tid}/cgroup")).ok()?;
        if start != 0 && self::start(tid)? != start {
            return None;
        }
        let mut best: Option<&[u8]> = None;
        for line in groups.split(|&b| b == b'\n') {
            let mut fields = line.splitn(3, |&b| b == b':').skip(1);
            let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
            let is_cpu = controllers.split(|&b| b == b',').any(|controller| controller == b"cpu");
            if best.is_none() || path != b"/" && (is_cpu || best == Some(b"/")) {
                best = Some(path);
            }
        }
        best.map(|path| Escaped(path).to_string())
    }

    /// When it started, in clock ticks since boot.
    fn start(tid: Tid) -> Option<u64> {
        let stat = fs::read(format!("/proc/{tid}/stat")).ok()?;
        // The name may hold blanks and parentheses; nothing behind it does.
        let rest = stat.get(stat.iter().rposition(|&b| b == b')')? + 2..)?;
        std::str::from_utf8(rest.split(|&b| b == b' ').nth(19)?).ok()?.parse().ok()
    }
}
