//! An observer that is not stalld. It reads the rank of every thread of the attacks from the
//! kernel.

use rig::attack::Attack;
use rig::{keep_away_from_the_hog, process};
use stalld::sys::sched::{self, Attr};
use stalld::sys::{clock, sched::RESET_ON_FORK};
use stalld::task::{Nanos, Policy, Tid};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::{self, JoinHandle};

/// The interval of the readings.
const INTERVAL: Nanos = Nanos::from_millis(20);

/// The time for which a task may keep a rank that it gave itself within a pulse, or by a call that
/// began there.
const MAX_KEPT: Nanos = Nanos::from_millis(100);

/// The longest time for which a task may have the priority of a pulse, or a lent rank, without a
/// break.
const MAX_HIGH: Nanos = Nanos::from_millis(200);

/// The longest time for which a boost may make a task SCHED_DEADLINE without a break. That is three
/// boosts of the tests.
const MAX_BOOST: Nanos = Nanos::from_millis(1500);

/// The priority of stalld's pulses.
const PULSE: u32 = 98;

/// The rank of SCHED_FIFO 1. The kernel itself lends it to a task that blocks RCU.
const LOWEST_FIFO: i32 = -2;

/// Processes with more threads are not searched for lent ranks.
const MAX_SEARCHED: usize = 50;

/// How certain a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Certain,
    /// The cause may be a hypervisor that takes a CPU away for some milliseconds.
    ByTime,
}

/// An event that must not happen.
#[derive(Clone, Debug)]
pub struct Finding {
    pub kind: Kind,
    /// The act that caused it, if a task of that act shows it.
    pub act: Option<&'static str>,
    /// The task that shows it.
    pub tid: Option<Tid>,
    pub text: String,
}

/// An attack under observation.
pub struct Watched {
    pub act: &'static str,
    pub group: Tid,
    /// Whether its tasks began as SCHED_FIFO 1.
    pub is_fifo: bool,
}

impl Watched {
    pub fn new(act: &'static str, attack: &Attack, is_fifo: bool) -> Watched {
        Watched { act, group: attack.group(), is_fifo }
    }
}

/// The budget of the boosts of the stalld under test.
#[derive(Clone, Copy)]
pub struct Budget {
    pub runtime: Nanos,
    pub period: Nanos,
}

/// The readings go on until `finish`.
pub struct Observer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Readings>,
    max_share: u64,
}

impl Observer {
    /// Watches these attacks and the CPU time of `stalld`, which may use `max_share` hundredths of
    /// a CPU.
    pub fn start(attacks: Vec<Watched>, budget: Budget, stalld: Tid, max_share: u64) -> Observer {
        let stop = Arc::new(AtomicBool::new(false));
        let is_over = stop.clone();
        let thread = thread::spawn(move || {
            keep_away_from_the_hog();
            let mut readings = Readings::new(attacks, budget);
            let mut second = Second { begun: clock::monotonic(), before: process::cpu_time(stalld) };
            while !is_over.load(SeqCst) {
                let wake = clock::monotonic() + INTERVAL;
                clock::sleep_until(wake);
                let late = clock::monotonic() - wake;
                if late > MAX_HIGH {
                    readings.displaced(late);
                }
                readings.read(true);
                readings.busiest = readings.busiest.max(second.share(stalld).unwrap_or(0));
            }
            readings
        });
        Observer { stop, thread, max_share }
    }

    /// Returns the findings. Call it when stalld has ended and the attacks have not: at that moment
    /// each task must have its original rank.
    pub fn finish(self) -> Vec<Finding> {
        self.stop.store(true, SeqCst);
        let mut readings = self.thread.join().unwrap();
        readings.read(false);
        println!("  stalld used {} % of a CPU in its busiest second", readings.busiest);
        if readings.busiest > self.max_share {
            let text = format!("stalld used {} % of a CPU in a second", readings.busiest);
            readings.find(Kind::ByTime, None, text);
        }
        readings.findings
    }
}

/// The second in which CPU time is counted.
struct Second {
    begun: Nanos,
    before: Nanos,
}

impl Second {
    /// Returns the share of a CPU that a process has used, once in a second.
    fn share(&mut self, process: Tid) -> Option<u64> {
        let now = clock::monotonic();
        let length = now - self.begun;
        if length < Nanos::from_secs(1) || process::has_ended(process) {
            return None;
        }
        let used = process::cpu_time(process);
        let share = (used - self.before).0 * 100 / length.0;
        *self = Second { begun: now, before: used };
        Some(share)
    }
}

/// The earlier readings of one task.
#[derive(Default)]
struct Seen {
    /// The highest nice value so far, which no user without privileges can lower.
    nice: i32,
    high_since: Option<Nanos>,
    lent_since: Option<Nanos>,
}

struct Readings {
    attacks: Vec<Watched>,
    budget: Budget,
    tasks: HashMap<Tid, Seen>,
    told: HashSet<(Tid, &'static str)>,
    busiest: u64,
    findings: Vec<Finding>,
}

impl Readings {
    fn new(attacks: Vec<Watched>, budget: Budget) -> Readings {
        let (tasks, told, findings) = Default::default();
        Readings { attacks, budget, tasks, told, busiest: 0, findings }
    }

    fn find(&mut self, kind: Kind, act: Option<&'static str>, text: String) {
        println!("  found: {}: {text}", act.unwrap_or("all"));
        self.findings.push(Finding { kind, act, tid: None, text });
    }

    /// The observer itself got its CPU late.
    fn displaced(&mut self, late: Nanos) {
        let text = format!("CPU 0 was taken from a FIFO 20 task for {} ms", late.as_millis());
        self.find(Kind::ByTime, None, text.clone());
        if let [only] = self.attacks.as_slice() {
            self.find(Kind::ByTime, Some(only.act), text);
        }
    }

    /// Reads the rank of all tasks once. A task may have a boost if `is_boosting`.
    fn read(&mut self, is_boosting: bool) {
        for pid in process::all() {
            let Some(group) = process::group(pid) else { continue };
            let Some(watched) = self.attacks.iter().find(|watched| watched.group == group) else { continue };
            let (act, is_fifo) = (watched.act, watched.is_fifo);
            let threads = process::threads(pid);
            let searches = threads.len() <= MAX_SEARCHED;
            for tid in threads {
                // A task that has ended keeps the policy of its boost as a zombie.
                let Ok(attr) = sched::get_attr(tid) else { continue };
                if searches && process::has_ended(tid) {
                    continue;
                }
                let rank = searches.then(|| process::rank(tid)).flatten();
                self.judge(tid, (act, is_fifo), &attr, rank, is_boosting);
            }
        }
    }

    fn judge(
        &mut self,
        tid: Tid,
        (act, is_fifo): (&'static str, bool),
        attr: &Attr,
        rank: Option<i32>,
        is_boosting: bool,
    ) {
        let now = clock::monotonic();
        let is_fair = [Policy::OTHER, Policy::BATCH, Policy::IDLE].contains(&attr.policy);
        let is_own = is_fair || is_fifo && attr.policy == Policy::FIFO && attr.priority == 1;
        let seen = self.tasks.entry(tid).or_default();
        let is_lent = is_own && rank.is_some_and(|rank| rank < LOWEST_FIFO);
        let lent_for = since(&mut seen.lent_since, is_lent, now);
        let high_for = since(&mut seen.high_since, !is_own, now);
        let nice_before = seen.nice;
        if is_fair {
            seen.nice = seen.nice.max(attr.nice);
        }
        let has_reset = attr.flags & RESET_ON_FORK != 0;
        let is_pulse = has_reset && (attr.policy, attr.priority) == (Policy::FIFO, PULSE);
        let Budget { runtime, period } = self.budget;
        let is_budget =
            has_reset && (attr.policy, attr.runtime, attr.period) == (Policy::DEADLINE, runtime, period);
        let name = attr.policy.name().unwrap_or("a policy without a name");
        let what = format!("task {tid} has {name} {}", attr.priority);
        let (kind, text) = if is_own {
            if is_fair && attr.nice < nice_before {
                ("nice", format!("task {tid} has nice {}, and had {nice_before}", attr.nice))
            } else if lent_for > MAX_HIGH {
                // A change to the policy that it already has would have no effect.
                let _ = sched::set_scheduler(tid, Policy::BATCH, 0, false);
                let _ = sched::set_scheduler(tid, Policy::OTHER, 0, false);
                let rank = rank.unwrap_or_default();
                let text = format!("{what} and has had the rank {rank} for {} ms", lent_for.as_millis());
                ("lent", text)
            } else {
                return;
            }
        } else if is_boosting && (is_pulse && high_for <= MAX_HIGH || is_budget && high_for <= MAX_BOOST) {
            return;
        } else if high_for <= MAX_KEPT || rank.is_some_and(|rank| rank >= 0) {
            // A fork may copy a policy without its rank. That alone gains the task nothing.
            return;
        } else if is_pulse || is_budget {
            let _ = sched::set_scheduler(tid, Policy::OTHER, 0, false);
            ("boost", format!("{what} by a boost that does not end ({} ms)", high_for.as_millis()))
        } else {
            // The other attacks of this run shall have the CPU too.
            let _ = sched::set_scheduler(tid, Policy::OTHER, 0, false);
            ("kept", format!("{what}, which it did not begin with"))
        };
        if self.told.insert((tid, kind)) {
            self.find(Kind::Certain, Some(act), text);
            self.findings.iter_mut().last().into_iter().for_each(|last| last.tid = Some(tid));
        }
    }
}

/// Returns the time for which a condition has held, by all readings in a row.
fn since(begun: &mut Option<Nanos>, is_so: bool, now: Nanos) -> Nanos {
    *begun = is_so.then(|| begun.unwrap_or(now));
    begun.map_or(Nanos::ZERO, |begun| now - begun)
}
