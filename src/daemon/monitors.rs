//! Monitors: threads that each watch one CPU. With -A each CPU has a monitor from the start. With
//! -M a CPU gets a monitor once a task there has waited for half the threshold. Such a monitor ends
//! after some quiet scans, at which no task has waited for so long and no task is boosted.
//!
//! Each monitor has an engine. The engines share their scans. The main thread is the supervisor: it
//! watches all CPUs, boosts no task, and starts the monitors.

use super::options::{Mode, Options};
use super::report::{Reporter, Role};
use super::run::{OWN_PRIORITY, raise};
use super::watcher::{Turn, Watcher};
use crate::boost::counters::Counters;
use crate::boost::kernel_actuator::KernelActuator;
use crate::boost::plan::{Booster, Rules};
use crate::cpus::CpuSet;
use crate::detect::Limits;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::observe::Shared;
use crate::proc;
use crate::sys::{clock, cpu, memory, sched};
use crate::task::{Cpu, Nanos, Tid};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

/// A monitor of -M ends after this many quiet scans in a row.
const QUIET_SCANS: u32 = 10;

const STACK: usize = 256 * 1024;

/// All monitors, and the parts that a new one is made from.
pub(super) struct Monitors {
    shared: Arc<Shared>,
    limits: Limits,
    boosts: Option<(Rules, KernelActuator)>,
    reporter: Reporter,
    /// Monitors do not end by themselves (-A).
    stay: bool,
    list: Vec<Monitor>,
    /// The counters of monitors that have ended.
    past: Counters,
}

struct Monitor {
    cpu: Cpu,
    thread: Thread,
    flags: Arc<MonitorShared>,
}

/// The state that a monitor and the supervisor share: requests to the monitor, and its reports.
#[derive(Default)]
struct MonitorShared {
    end: AtomicBool,
    report: AtomicBool,
    ended: AtomicBool,
    /// 0 until the thread runs.
    tid: AtomicI32,
    /// The time of its last scan.
    scanned: AtomicU64,
    /// Waits that reached the threshold.
    starved: AtomicU64,
    /// Boosts since the start.
    boosts: AtomicU64,
    /// Tasks that are boosted now.
    active: AtomicU64,
}

impl Monitors {
    pub(super) fn new(
        shared: Arc<Shared>,
        limits: Limits,
        boosts: Option<(Rules, KernelActuator)>,
        options: &Options,
        reporter: Reporter,
    ) -> Monitors {
        Monitors {
            shared,
            limits,
            boosts,
            reporter,
            stay: options.mode == Mode::Aggressive,
            list: Vec::new(),
            past: Counters::default(),
        }
    }

    /// Returns the limits of the supervisor: its scans report tasks that have waited for half the
    /// threshold.
    pub(super) fn supervision(limits: Limits) -> Limits {
        Limits { threshold: Nanos(limits.threshold.0 / 2), ..limits }
    }

    /// Removes ended monitors. Starts a monitor for each CPU where the supervisor's last scan found
    /// a task that has waited for half the threshold.
    pub(super) fn supervise(&mut self, engine: &Engine) -> Result<()> {
        let past = &mut self.past;
        self.list.retain(|monitor| {
            let ended = monitor.flags.ended.load(Ordering::Acquire);
            if ended {
                *past = monitor.flags.added_to(*past);
            }
            !ended
        });
        for starving in engine.starving() {
            self.start(starving.task.cpu, engine)?;
        }
        Ok(())
    }

    /// Starts a monitor of `cpu`, unless it has one. The monitor takes over the waits that `engine`
    /// knows.
    pub(super) fn start(&mut self, cpu: Cpu, engine: &Engine) -> Result<()> {
        if self.list.iter().any(|monitor| monitor.cpu == cpu) {
            return Ok(());
        }
        let only: CpuSet = [cpu].into_iter().collect();
        let mut engine = engine.for_cpu(self.shared.view(only), self.limits);
        if let Some((rules, actuator)) = &self.boosts {
            engine.boost(Booster::new(*rules, Box::new(actuator.clone()), 1));
        }
        let flags = Arc::new(MonitorShared {
            scanned: AtomicU64::new(clock::monotonic().0),
            ..MonitorShared::default()
        });
        let theirs = Arc::clone(&flags);
        let watcher = Watcher::new(engine, self.reporter.with_role(Role::Of(cpu)), true);
        let half = Monitors::supervision(self.limits).threshold;
        let quiet_scans = if self.stay { u32::MAX } else { QUIET_SCANS };
        let thread = thread::Builder::new()
            .name(format!("stalld/{cpu}"))
            .stack_size(STACK)
            .spawn(move || {
                let _ended = Ended(&theirs);
                monitor(watcher, &theirs, half, quiet_scans);
            })
            .map_err(|e| Error::io(format!("start a monitor of CPU {cpu}"), &e))?
            .thread()
            .clone();
        self.list.push(Monitor { cpu, thread, flags });
        Ok(())
    }

    /// Returns the sum of the counters of all monitors. The numbers of scans are the supervisor's,
    /// because monitors share scans.
    pub(super) fn counters(&self, supervisor: Counters) -> Counters {
        let Counters { scans, failed_scans, .. } = supervisor;
        let all = self.list.iter().fold(self.past, |sum, monitor| monitor.flags.added_to(sum));
        Counters { scans, failed_scans, ..all }
    }

    /// Returns the oldest of the last scans of all running monitors; `now` if none runs.
    pub(super) fn scanned_since(&self, now: Nanos) -> Nanos {
        let goes_on = |flags: &&MonitorShared| !flags.ended.load(Ordering::Acquire);
        let flags = self.list.iter().map(|monitor| &*monitor.flags).filter(goes_on);
        flags.map(|flags| Nanos(flags.scanned.load(Ordering::Relaxed))).fold(now, Nanos::min)
    }

    /// Requests a status report from each monitor.
    pub(super) fn report(&self) {
        for Monitor { thread, flags, .. } in &self.list {
            flags.report.store(true, Ordering::Release);
            thread.unpark();
        }
    }

    /// Requests all monitors to end their boosts and exit. Returns false if one still runs after
    /// the time `within`.
    pub(super) fn end(&self, within: Nanos) -> bool {
        for Monitor { thread, flags, .. } in &self.list {
            flags.end.store(true, Ordering::Release);
            thread.unpark();
        }
        if self.have_ended(Nanos(within.0 / 2)) {
            return true;
        }
        // A thread that starves behind a hog can't exit, and neither can its process. So move it to
        // this CPU, which runs the main thread, and make it real-time.
        let here: CpuSet = [cpu::current()].into_iter().collect();
        for Monitor { flags, .. } in &self.list {
            let tid = Tid(flags.tid.load(Ordering::Acquire));
            if !flags.ended.load(Ordering::Acquire) && proc::is_own_thread(tid) {
                let _ = sched::set_affinity(tid, &here);
                let _ = sched::set_fifo(tid, OWN_PRIORITY);
            }
        }
        self.have_ended(Nanos(within.0 / 2))
    }

    fn have_ended(&self, within: Nanos) -> bool {
        let until = clock::monotonic() + within;
        loop {
            if self.list.iter().all(|monitor| monitor.flags.ended.load(Ordering::Acquire)) {
                return true;
            }
            if clock::monotonic() > until {
                return false;
            }
            clock::nap(Nanos::from_micros(200));
        }
    }
}

impl MonitorShared {
    fn added_to(&self, sum: Counters) -> Counters {
        let starved = sum.starved + self.starved.load(Ordering::Relaxed);
        let boosts = sum.boosts + self.boosts.load(Ordering::Relaxed);
        let active = sum.active + self.active.load(Ordering::Relaxed);
        Counters { starved, boosts, active, ..sum }
    }

    fn note(&self, counters: Counters) {
        self.starved.store(counters.starved, Ordering::Relaxed);
        self.boosts.store(counters.boosts, Ordering::Relaxed);
        self.active.store(counters.active, Ordering::Relaxed);
    }
}

/// Marks a monitor as ended when dropped, also after a panic.
struct Ended<'a>(&'a MonitorShared);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::Release);
    }
}

/// Runs a monitor until it is asked to end, or until its CPU is quiet.
fn monitor(mut watcher: Watcher, flags: &MonitorShared, half: Nanos, quiet_scans: u32) {
    flags.tid.store(sched::gettid().0, Ordering::Release);
    // The thread inherits real-time priority, unless the service manager has set reset-on-fork.
    // `prepare_thread` has logged why stalld can't raise itself.
    let _ = raise();
    clock::be_punctual();
    memory::fault_in_stack();
    let mut quiet = 0;
    while quiet < quiet_scans {
        if watcher.turn(flags.report.swap(false, Ordering::AcqRel)) == Turn::Scanned {
            flags.scanned.store(clock::monotonic().0, Ordering::Relaxed);
            quiet = match watcher.engine().is_quiet(half) {
                Some(true) => quiet.saturating_add(1),
                Some(false) => 0,
                None => quiet,
            };
        }
        flags.note(watcher.engine().counters());
        let planned = watcher.plan();
        thread::park_timeout(Duration::from_nanos((planned - clock::monotonic()).0));
        if flags.end.load(Ordering::Acquire) {
            break;
        }
        watcher.woke((clock::monotonic() >= planned).then_some(planned));
    }
    watcher.end();
    flags.note(watcher.engine().counters());
}
