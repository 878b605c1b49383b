//! Judges what stalld does by the kernel's trace of the scheduler alone: who waited for how long, whom stalld
//! boosted, and whether that was put back.

use stalld::task::{Nanos, Policy, Tid};
use std::collections::HashMap;

/// An event of the trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    pub at: Nanos,
    pub what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A CPU goes on with another task. The one that had it stays in the queue, or doesn't.
    Switch {
        from: Tid,
        from_prio: i32,
        stays: bool,
        to: Tid,
        to_prio: i32,
    },
    Wakeup(Tid),
    /// The first one of a new task, whose number may have been another's.
    Birth(Tid),
    /// What it still does after that is not judged.
    Exit(Tid),
    /// sched_setattr(2), by which stalld boosts and nothing else.
    SetAttr {
        by: Tid,
        of: Tid,
    },
    /// sched_setscheduler(2), by which stalld puts back, and makes a task FIFO for the time of a pulse.
    SetScheduler {
        by: Tid,
        of: Tid,
        policy: Policy,
    },
}

/// Reads a line of the trace; None for one that tells of nothing that matters.
pub fn read(line: &str) -> Option<Event> {
    // `name-pid [cpu] flags time: event`, where the name may hold blanks.
    let (head, event) = line.split_once(": ")?;
    let (caller, time) = head.rsplit_once(' ')?;
    let (seconds, micros) = time.split_once('.')?;
    let at = Nanos::from_secs(seconds.parse().ok()?) + Nanos::from_micros(micros.parse().ok()?);
    let by = || Some(Tid(caller.rsplit_once('[')?.0.trim_end().rsplit_once('-')?.1.parse().ok()?));
    let what = if let Some((from, to)) = event.split_once(" ==> ") {
        What::Switch {
            from: Tid(number(from, "prev_pid=")?),
            from_prio: number(from, "prev_prio=")?,
            // Also of one that is preempted, whatever it was about to do: that is 'R+'.
            stays: from.rsplit_once("prev_state=")?.1.starts_with('R'),
            to: Tid(number(to, "next_pid=")?),
            to_prio: number(to, "next_prio=")?,
        }
    } else if event.starts_with("sched_wakeup_new") {
        What::Birth(Tid(number(event, " pid=")?))
    } else if event.starts_with("sched_wakeup") {
        What::Wakeup(Tid(number(event, " pid=")?))
    } else if event.starts_with("sched_process_exit") {
        What::Exit(Tid(number(event, " pid=")?))
    } else if let Some(arguments) = event.strip_prefix("sys_sched_setattr(pid: ") {
        What::SetAttr { by: by()?, of: Tid(hexadecimal(arguments)?) }
    } else if let Some(arguments) = event.strip_prefix("sys_sched_setscheduler(pid: ") {
        let policy = hexadecimal(arguments.split_once("policy: ")?.1)?;
        What::SetScheduler { by: by()?, of: Tid(hexadecimal(arguments)?), policy: Policy(policy as u32) }
    } else {
        return None;
    };
    Some(Event { at, what })
}

fn number(text: &str, key: &str) -> Option<i32> {
    let (_, rest) = text.rsplit_once(key)?;
    rest.split(' ').next()?.parse().ok()
}

/// As arguments are printed, with or without `0x`.
fn hexadecimal(text: &str) -> Option<i32> {
    let text = text.strip_prefix("0x").unwrap_or(text);
    let end = text.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(text.len());
    i32::from_str_radix(&text[..end], 16).ok()
}

/// What stalld is held to.
#[derive(Clone, Copy)]
pub struct Promise {
    pub threshold: Nanos,
    /// Within this time after the threshold a task has to run.
    pub rescue: Nanos,
    /// No boost is longer.
    pub boost: Nanos,
}

/// The clocks that stamp waits and events may differ by this, and what stalld has seen may be as old.
const SLACK: Nanos = Nanos::from_millis(5);

/// The kernel's count of priorities: of a DEADLINE task, and of FIFO 98, which only stalld gives to anybody.
const DEADLINE: i32 = -1;
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
    /// When it was queued, unless it runs or sleeps.
    waits: Option<Nanos>,
    /// The last wait that ended, by its first and last moment.
    waited: (Nanos, Nanos),
    /// As it is by itself.
    prio: Option<i32>,
    boosted: Option<Nanos>,
    /// The last boost that was due to it: pulses go on from there.
    just: Option<Nanos>,
    /// When stalld last called sched_setscheduler(2) for it in this boost: to put it back or for a pulse, which only
    /// its priority can tell when it runs.
    set: Option<Nanos>,
}

impl Observer {
    /// Of what happens from `start` on. Who was queued before, and isn't seen to run, waits since then at least.
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

    /// To be given all events in their order.
    pub fn note(&mut self, event: Event) {
        self.events += 1;
        let at = event.at;
        match event.what {
            What::Switch { from, from_prio, stays, to, to_prio } => {
                self.leaves(from, from_prio, stays, at);
                self.comes(to, to_prio, at);
            }
            What::Wakeup(tid) => {
                let task = self.task(tid);
                if !task.runs && !task.exits && task.waits.is_none() {
                    task.waits = Some(at);
                }
            }
            What::Birth(tid) => {
                self.tasks.remove(&tid);
                self.task(tid).waits = Some(at);
            }
            What::Exit(tid) => {
                let task = self.task(tid);
                *task = Task { exits: true, boosted: None, just: None, set: None, ..*task };
            }
            What::SetAttr { by, of } if self.is_boost(by, of) => {
                self.boosts += 1;
                self.boost(of, at);
            }
            What::SetScheduler { by, of, policy } if self.is_boost(by, of) => self.set(of, policy, at),
            What::SetAttr { .. } | What::SetScheduler { .. } => {}
        }
    }

    /// Judges what has not come to an end. A task that isn't there any more neither waits nor is boosted.
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

    /// Stalld sets its own threads, too.
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
            // Stalld has not put it back, but made it something else.
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
        // What was set before has been the end of that boost, though it has not run since.
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
        // A task of which nothing was seen has not run at all.
        let unseen = (!task.runs && task.prio.is_none()).then_some(start);
        // Stalld may have seen it a moment before it ran.
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

    /// It was put back when stalld last set it.
    fn restored(&mut self, tid: Tid) {
        let longest = self.promise.boost;
        let task = self.task(tid);
        let length = task.boosted.take().zip(task.set.take()).map_or(Nanos::ZERO, |(since, set)| set - since);
        if length > longest {
            self.left_boosted.push(format!("task {tid} was boosted for {} ms", length.as_millis()));
        }
    }
}
