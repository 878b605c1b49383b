//! Threads that watch a CPU each: for all CPUs from the start (-A), or for those where somebody has
//! waited for half the threshold, until it is quiet there again (-M).
//!
//! They are the same engine as without them, over what they share of one look. The thread that
//! starts them watches all CPUs, boosts nobody, and starts one for each CPU that needs it.

use super::options::{Mode, Options};
use super::report::{Reporter, Role};
use super::run::{OWN_PRIORITY, raise};
use super::watcher::{Turn, Watcher};
use crate::boost::kernel_actuator::KernelActuator;
use crate::boost::plan::{Booster, Rules};
use crate::cpus::CpuSet;
use crate::detect::Limits;
use crate::engine::{Engine, Tally};
use crate::error::{Error, Result};
use crate::observe::Shared;
use crate::proc;
use crate::sys::{clock, cpu, memory, sched};
use crate::task::{Cpu, Nanos, Tid};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

/// An adaptive monitor ends after as many looks that found nobody waiting for long.
const QUIET_LOOKS: u32 = 10;

const STACK: usize = 256 * 1024;

/// The monitors, and what they are made of.
pub struct Monitors {
    shared: Arc<Shared>,
    limits: Limits,
    boosts: Option<(Rules, KernelActuator)>,
    reporter: Reporter,
    /// They don't end by themselves.
    stay: bool,
    list: Vec<Monitor>,
    /// Of those that have ended.
    past: Tally,
}

struct Monitor {
    cpu: Cpu,
    thread: Thread,
    orders: Arc<Orders>,
}

/// What a monitor is told, and tells.
#[derive(Default)]
struct Orders {
    end: AtomicBool,
    report: AtomicBool,
    ended: AtomicBool,
    /// 0 as long as it has not run.
    tid: AtomicI32,
    /// When it has last looked.
    looked: AtomicU64,
    /// As many waits have reached the threshold, boosts been made, and tasks are boosted now.
    starved: AtomicU64,
    boosts: AtomicU64,
    active: AtomicU64,
}

impl Monitors {
    pub fn new(
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
            past: Tally::default(),
        }
    }

    /// Those who wait for half the threshold are the business of the thread that starts the
    /// monitors.
    pub fn supervision(limits: Limits) -> Limits {
        Limits { threshold: Nanos(limits.threshold.0 / 2), ..limits }
    }

    /// Starts one for each CPU that the last look found somebody at, and that has none.
    pub fn look_after(&mut self, engine: &Engine) -> Result<()> {
        let past = &mut self.past;
        self.list.retain(|monitor| {
            let ended = monitor.orders.ended.load(Ordering::Acquire);
            if ended {
                *past = monitor.orders.added_to(*past);
            }
            !ended
        });
        for starving in engine.starving() {
            self.start(starving.task.cpu, engine)?;
        }
        Ok(())
    }

    /// Starts one, unless there is one, that goes on from what `engine` knows.
    pub fn start(&mut self, cpu: Cpu, engine: &Engine) -> Result<()> {
        if self.list.iter().any(|monitor| monitor.cpu == cpu) {
            return Ok(());
        }
        let only: CpuSet = [cpu].into_iter().collect();
        let mut engine = engine.branch(self.shared.view(only), self.limits);
        if let Some((rules, actuator)) = &self.boosts {
            engine.boost(Booster::new(*rules), actuator.clone());
        }
        let orders = Arc::new(Orders { looked: AtomicU64::new(clock::monotonic().0), ..Orders::default() });
        let theirs = Arc::clone(&orders);
        let watcher = Watcher::new(engine, self.reporter.playing(Role::Of(cpu)), true);
        let half = Monitors::supervision(self.limits).threshold;
        let quiet_looks = if self.stay { u32::MAX } else { QUIET_LOOKS };
        let thread = thread::Builder::new()
            .name(format!("stalld/{cpu}"))
            .stack_size(STACK)
            .spawn(move || {
                let _told = Ended(&theirs);
                monitor(watcher, &theirs, half, quiet_looks);
            })
            .map_err(|e| Error::io(format!("start a monitor of CPU {cpu}"), &e))?
            .thread()
            .clone();
        self.list.push(Monitor { cpu, thread, orders });
        Ok(())
    }

    /// What they and the thread that starts them have done, in numbers. That one's looks are all
    /// that there are.
    pub fn tally(&self, supervisor: Tally) -> Tally {
        let Tally { looks, failed_looks, .. } = supervisor;
        let all = self.list.iter().fold(self.past, |sum, monitor| monitor.orders.added_to(sum));
        Tally { looks, failed_looks, ..all }
    }

    /// Since when each of them has looked, and the thread that starts them, which does so now.
    pub fn looked_since(&self, now: Nanos) -> Nanos {
        let goes_on = |orders: &&Orders| !orders.ended.load(Ordering::Acquire);
        let orders = self.list.iter().map(|monitor| &*monitor.orders).filter(goes_on);
        orders.map(|orders| Nanos(orders.looked.load(Ordering::Relaxed))).fold(now, Nanos::min)
    }

    /// Has all of them tell what they have seen.
    pub fn report(&self) {
        for Monitor { thread, orders, .. } in &self.list {
            orders.report.store(true, Ordering::Release);
            thread.unpark();
        }
    }

    /// Has all of them end their boosts and themselves. False if one has not done so in time.
    pub fn end(&self, within: Nanos) -> bool {
        for Monitor { thread, orders, .. } in &self.list {
            orders.end.store(true, Ordering::Release);
            thread.unpark();
        }
        if self.have_ended(Nanos(within.0 / 2)) {
            return true;
        }
        // A thread that waits behind a hog can't even be killed, nor can its process end: it is
        // given a CPU that is known to serve it.
        let here: CpuSet = [cpu::current()].into_iter().collect();
        for Monitor { orders, .. } in &self.list {
            let tid = Tid(orders.tid.load(Ordering::Acquire));
            if !orders.ended.load(Ordering::Acquire) && proc::is_own_thread(tid) {
                let _ = sched::set_affinity(tid, &here);
                let _ = sched::set_fifo(tid, OWN_PRIORITY);
            }
        }
        self.have_ended(Nanos(within.0 / 2))
    }

    fn have_ended(&self, within: Nanos) -> bool {
        let until = clock::monotonic() + within;
        loop {
            if self.list.iter().all(|monitor| monitor.orders.ended.load(Ordering::Acquire)) {
                return true;
            }
            if clock::monotonic() > until {
                return false;
            }
            clock::nap(Nanos::from_micros(200));
        }
    }
}

impl Orders {
    fn added_to(&self, sum: Tally) -> Tally {
        let starved = sum.starved + self.starved.load(Ordering::Relaxed);
        let boosts = sum.boosts + self.boosts.load(Ordering::Relaxed);
        let active = sum.active + self.active.load(Ordering::Relaxed);
        Tally { starved, boosts, active, ..sum }
    }

    fn note(&self, tally: Tally) {
        self.starved.store(tally.starved, Ordering::Relaxed);
        self.boosts.store(tally.boosts, Ordering::Relaxed);
        self.active.store(tally.active, Ordering::Relaxed);
    }
}

/// Tells of the end of a monitor, however it comes about.
struct Ended<'a>(&'a Orders);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::Release);
    }
}

/// The life of a monitor.
fn monitor(mut watcher: Watcher, orders: &Orders, half: Nanos, quiet_looks: u32) {
    orders.tid.store(sched::gettid().0, Ordering::Release);
    // Born real-time, unless a service manager has seen to it that it is not. Who started it has
    // told why not.
    let _ = raise();
    memory::no_timer_slack();
    memory::fault_in_stack();
    let mut quiet = 0;
    while quiet < quiet_looks {
        if watcher.turn(orders.report.swap(false, Ordering::AcqRel)) == Turn::Looked {
            orders.looked.store(clock::monotonic().0, Ordering::Relaxed);
            quiet = match watcher.engine().is_quiet(half) {
                Some(true) => quiet.saturating_add(1),
                Some(false) => 0,
                None => quiet,
            };
        }
        orders.note(watcher.engine().tally());
        let planned = watcher.planned();
        thread::park_timeout(Duration::from_nanos((planned - clock::monotonic()).0));
        if orders.end.load(Ordering::Acquire) {
            break;
        }
        watcher.woke((clock::monotonic() >= planned).then_some(planned));
    }
    watcher.end();
    orders.note(watcher.engine().tally());
}
