//! Judges stalld by the kernel's trace of the scheduler alone: how long each task waited, which
//! tasks stalld boosted, and whether it restored them.

use crate::trace_line::{Event, Kind};
use stalld::task::{Nanos, Policy, Tid};
use std::collections::HashMap;

/// The limits that stalld promises to keep.
#[derive(Clone, Copy)]
pub struct Promise {
    pub threshold: Nanos,
    /// A starving task runs within this time after the threshold.
    pub rescue: Nanos,
    /// No boost is longer.
    pub boost: Nanos,
}

/// Tolerance for the age of what stalld has seen, and for the difference between the clocks of
/// waits and events.
const SLACK: Nanos = Nanos::from_millis(5);

/// The kernel's internal priority of a SCHED_DEADLINE task.
const DEADLINE: i32 = -1;

/// The kernel's internal priority of FIFO 98, which only stalld uses.
const PULSE: i32 = 1;

pub struct Observer {
    promise: Promise,
    /// The threads of stalld and its guardian.
    stalld: Vec<Tid>,
    start: Nanos,
    tasks: HashMap<Tid, Task>,
    pub events: u64,
    pub boosts: u64,
    pub pulses: u64,
    /// Waits that reached the threshold.
    pub starvations: u64,
    pub longest_wait: Nanos,
    pub missed: Vec<String>,
    pub unjust: Vec<String>,
    pub left_boosted: Vec<String>,
}

#[derive(Clone, Copy)]
struct Task {
    runs: bool,
    exits: bool,
    /// Since when it has been queued; `None` if it runs or sleeps.
    waits: Option<Nanos>,
    /// First and last moment of the last wait that ended.
    waited: (Nanos, Nanos),
    /// Its priority without a boost.
    prio: Option<i32>,
    boosted: Option<Nanos>,
    /// The last justified boost, which also justifies the pulses that follow it.
    just: Option<Nanos>,
    /// When stalld last called sched_setscheduler(2) for it in this boost. The call restores it or
    /// begins a pulse; the priority at its next switch-in shows which.
    set: Option<Nanos>,
}

impl Observer {
    /// Creates an observer of the events from `start` on. A task that was queued before, and has
    /// not run since, counts as waiting from `start`.
    pub fn new(promise: Promise, stalld: Vec<Tid>, start: Nanos) -> Observer {
        Observer {
            promise,
            stalld,
            start,
            tasks: HashMap::new(),
            events: 0,
            boosts: 0,
            pulses: 0,
            starvations: 0,
            longest_wait: Nanos::ZERO,
            missed: Vec::new(),
            unjust: Vec::new(),
            left_boosted: Vec::new(),
        }
    }

    /// Takes the next event, in the order of time.
    pub fn note(&mut self, event: Event) {
        self.events += 1;
        let at = event.at;
        match event.kind {
            Kind::Switch { from, from_prio, stays, to, to_prio, .. } => {
                self.leaves(from, from_prio, stays, at);
                self.comes(to, to_prio, at);
            }
            Kind::Wakeup(tid) => {
                let task = self.task(tid);
                if !task.runs && !task.exits && task.waits.is_none() {
                    task.waits = Some(at);
                }
            }
            Kind::Birth(tid) => {
                self.tasks.remove(&tid);
                self.task(tid).waits = Some(at);
            }
            Kind::Exit(tid) => {
                let task = self.task(tid);
                *task = Task { exits: true, boosted: None, just: None, set: None, ..*task };
            }
            Kind::SetAttr { by, of } if self.is_boost(by, of) => {
                self.boosts += 1;
                self.boost(of, at);
            }
            Kind::SetScheduler { by, of, policy } if self.is_boost(by, of) => self.set(of, policy, at),
            Kind::SetAttr { .. } | Kind::SetScheduler { .. } => {}
        }
    }

    /// Judges the waits and boosts that have not ended at `at`. A task that has exited has neither.
    pub fn finish(&mut self, at: Nanos, is_there: impl Fn(Tid) -> bool) {
        let limit = self.promise.threshold + self.promise.rescue;
        for (tid, task) in self.tasks.iter().filter(|(tid, _)| is_there(**tid)) {
            if let Some(since) = task.waits.filter(|&since| at - since > limit) {
                let waited = (at - since).as_millis();
                self.missed.push(format!("task {tid} waits at the end, for {waited} ms by now"));
            }
            if task.boosted.is_some() && task.set.is_none() {
                self.left_boosted.push(format!("task {tid} is boosted at the end"));
            }
        }
    }

    /// Returns true if stalld made this call for another task than its own threads.
    fn is_boost(&self, by: Tid, of: Tid) -> bool {
        self.stalld.contains(&by) && of != Tid(0) && !self.stalld.contains(&of)
    }

    fn task(&mut self, tid: Tid) -> &mut Task {
        let unseen = Task {
            runs: false,
            exits: false,
            waits: None,
            waited: (self.start, self.start),
            prio: None,
            boosted: None,
            just: None,
            set: None,
        };
        self.tasks.entry(tid).or_insert(unseen)
    }

    fn leaves(&mut self, tid: Tid, prio: i32, stays: bool, at: Nanos) {
        if tid == Tid(0) {
            return;
        }
        let task = self.task(tid);
        task.runs = false;
        task.waits = (stays && !task.exits).then_some(at);
        if task.boosted.is_none() {
            task.prio = Some(prio);
        }
    }

    fn comes(&mut self, tid: Tid, prio: i32, at: Nanos) {
        if tid == Tid(0) {
            return;
        }
        let Promise { threshold, rescue, .. } = self.promise;
        let task = self.task(tid);
        task.runs = true;
        let wait = task.waits.take().map(|since| (since, at));
        task.waited = wait.unwrap_or(task.waited);
        match (task.boosted, task.set) {
            (None, _) => task.prio = Some(prio),
            // The call did not restore it: it began a pulse, or another boost.
            (Some(_), Some(_)) if prio == PULSE || prio == DEADLINE => task.set = None,
            (Some(_), Some(_)) => {
                let own = task.prio.filter(|&own| own != prio);
                self.restored(tid);
                if let Some(own) = own {
                    let text = format!(
                        "task {tid} had priority {own} by the kernel's count, and was left with {prio}"
                    );
                    self.left_boosted.push(text);
                }
            }
            (Some(_), None) => {}
        }
        let waited = wait.map_or(Nanos::ZERO, |(since, at)| at - since);
        self.longest_wait = self.longest_wait.max(waited);
        self.starvations += u64::from(waited >= threshold);
        if waited > threshold + rescue {
            self.missed.push(format!(
                "task {tid} waited {} ms until {} ms",
                waited.as_millis(),
                at.as_millis()
            ));
        }
    }

    fn set(&mut self, tid: Tid, policy: Policy, at: Nanos) {
        let longest = self.promise.boost;
        let task = self.task(tid);
        // The last call has ended that boost, although the task has not run since.
        let is_old = task.boosted.is_some_and(|since| at - since > longest) && task.set.is_some();
        if task.boosted.is_some() && !is_old {
            task.set = Some(at);
        } else if policy == Policy::FIFO {
            self.pulses += 1;
            self.boost(tid, at);
        }
    }

    fn boost(&mut self, tid: Tid, at: Nanos) {
        if self.task(tid).set.is_some() {
            self.restored(tid);
        }
        let (promise, start) = (self.promise, self.start);
        let task = self.task(tid);
        // A task without any event has not run since the start.
        let unseen = (!task.runs && task.prio.is_none()).then_some(start);
        // Stalld may have scanned a moment before the task ran.
        let just_ended = Some(task.waited.0).filter(|_| at - task.waited.1 <= SLACK && task.waited.1 > start);
        let since = task.waits.or(unseen).into_iter().chain(just_ended).min();
        let starved = since.is_some_and(|since| at - since + SLACK >= promise.threshold);
        let goes_on = task.just.is_some_and(|just| at - just <= promise.boost);
        if starved {
            task.just = Some(at);
        }
        task.boosted = Some(at);
        if !starved && !goes_on {
            let waited = since
                .map_or("not at all".to_string(), |since| format!("for {} ms", (at - since).as_millis()));
            self.unjust.push(format!("task {tid} was boosted at {} ms, and waited {waited}", at.as_millis()));
        }
    }

    /// Ends its boost at the last call of sched_setscheduler(2).
    fn restored(&mut self, tid: Tid) {
        let longest = self.promise.boost;
        let task = self.task(tid);
        let length = task.boosted.take().zip(task.set.take()).map_or(Nanos::ZERO, |(since, set)| set - since);
        if length > longest {
            self.left_boosted.push(format!("task {tid} was boosted for {} ms", length.as_millis()));
        }
    }
}
