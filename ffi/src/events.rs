//! The queue of events for C, which the program empties by stalld_next_event().

use crate::abi::{self, stalld_event, stalld_task, stalld_waiter};
use crate::options::{Log, number_of};
use libc::{ENOSPC, c_char};
use stalld::boost::event::{Event, Refusal};
use stalld::boost::journal::{BoostPolicy, Saved};
use stalld::boost::restore::{FIFO_PRIORITY, RestoreOutcome};
use stalld::detect::Starving;
use stalld::engine::{Engine, Hog};
use stalld::observe::{Kind, Waiter};
use stalld::task::{Nanos, Policy, Task};
use std::collections::VecDeque;

/// The value of `policy` if there is none, or if it is unknown.
const NONE: i32 = -1;

pub struct EventQueue {
    events: VecDeque<stalld_event>,
    room: usize,
    backend: i32,
    /// The events dropped since the last one was stored.
    lost: u32,
    lost_so_far: u64,
}

impl EventQueue {
    pub fn new(room: usize, kind: Kind) -> EventQueue {
        let backend = number_of(kind);
        EventQueue { events: VecDeque::with_capacity(room), room, backend, lost: 0, lost_so_far: 0 }
    }

    pub fn take(&mut self) -> Option<stalld_event> {
        self.events.pop_front()
    }

    pub fn len(&self) -> usize {
        self.events.len()
    }

    pub fn lost(&self) -> u64 {
        self.lost_so_far
    }

    /// Stores an event; drops it if the queue is full. The oldest events stay, because they show
    /// how a problem began.
    fn push(&mut self, event: stalld_event) {
        if self.events.len() >= self.room {
            self.lost = self.lost.saturating_add(1);
            self.lost_so_far += 1;
            return;
        }
        let lost = std::mem::take(&mut self.lost);
        self.events.push_back(stalld_event { backend: self.backend, lost, ..event });
    }

    pub fn backend_chosen(&mut self, now: Nanos) {
        self.push(event(abi::STALLD_EVENT_BACKEND, now));
    }

    pub fn late(&mut self, now: Nanos, late: Nanos) {
        self.push(stalld_event { length_ns: late.0, ..event(abi::STALLD_EVENT_LATE, now) });
    }

    pub fn starving(&mut self, engine: &Engine) {
        let at = engine.snapshot().at;
        for Starving { task, wait, again, .. } in engine.starving().iter().filter(|starving| starving.due) {
            self.push(stalld_event {
                wait_ns: wait.0,
                flags: if *again { abi::STALLD_EVENT_AGAIN } else { 0 },
                ..about(abi::STALLD_EVENT_STARVING, at, task, engine)
            });
        }
    }

    /// Stores the engine's events about boosts. Those without an event in C become log messages.
    pub fn boosts(&mut self, engine: &mut Engine, now: Nanos, log: &Log) {
        let events: Vec<Event> = engine.events().collect();
        for event in events {
            self.boost(event, engine, now, log);
        }
    }

    fn boost(&mut self, event: Event, engine: &Engine, now: Nanos, log: &Log) {
        match event {
            Event::Boosted { task, how } => {
                let wait_ns = engine.starving().iter().find(|starving| starving.task.tid == task.tid);
                let wait_ns = wait_ns.map_or(0, |starving| starving.wait.0);
                let about = about(abi::STALLD_EVENT_BOOSTED, now, &task, engine);
                self.push(stalld_event { wait_ns, ..by(how, about) });
            }
            Event::Refused { task, how, why } => {
                let errno = match why {
                    Refusal::Kernel(errno) => errno,
                    Refusal::JournalFull => ENOSPC,
                    // The task needs no boost any more.
                    _ => return,
                };
                let about = about(abi::STALLD_EVENT_FAILED, now, &task, engine);
                self.push(stalld_event { error: -errno, ..by(how, about) });
            }
            Event::Over { task, before, after, early, outcome } => {
                let kind = match outcome {
                    RestoreOutcome::Restored(_) | RestoreOutcome::Lowered { .. } => abi::STALLD_EVENT_RESTORED,
                    RestoreOutcome::Failed(_) => abi::STALLD_EVENT_FAILED,
                    _ => abi::STALLD_EVENT_ENDED,
                };
                let mut event = about(kind, now, &task, engine);
                event.length_ns = after.0;
                event.flags = if early { abi::STALLD_EVENT_EARLY } else { 0 };
                match outcome {
                    RestoreOutcome::Restored(tid) | RestoreOutcome::Lowered { tid, .. } => {
                        event.now_tid = tid.0;
                        (event.policy, event.priority) = scheduled(before);
                    }
                    RestoreOutcome::ChangedByOthers(policy) => event.policy = policy.0 as i32,
                    RestoreOutcome::Failed(errno) => {
                        event.error = -errno;
                        event.flags |= abi::STALLD_EVENT_RESTORE;
                        (event.policy, event.priority) = scheduled(before);
                    }
                    RestoreOutcome::Gone | RestoreOutcome::NeverBoosted => {}
                }
                self.push(event);
            }
            Event::Lowered { task: Task { tid, comm, .. }, from, before } => log.warning(format_args!(
                "lowered pid {tid} ({comm}) from {from} to {before}: it got that rank by a pulse"
            )),
            Event::Adopted { parent, child, policy } => log.info(format_args!(
                "gave pid {child}, started by pid {} ({}) during its boost, its policy {policy}",
                parent.tid, parent.comm
            )),
            Event::Orphan { parent, child, policy } => log.warning(format_args!(
                "pid {child} was started during the boost of pid {} ({}) and is SCHED_OTHER; without it, it might be \
                 {policy}",
                parent.tid, parent.comm
            )),
        }
    }
}

fn event(kind: u32, now: Nanos) -> stalld_event {
    stalld_event { kind, time_ns: now.0, policy: NONE, ..stalld_event::default() }
}

fn about(kind: u32, now: Nanos, task: &Task, engine: &Engine) -> stalld_event {
    let hog = engine.hog(task.cpu).copied();
    stalld_event {
        task: shown(task),
        hog: hog.map(|Hog { task, .. }| shown(&task)).unwrap_or_default(),
        hog_seen_ns: hog.map_or(0, |hog| (now - hog.seen_since).0),
        ..event(kind, now)
    }
}

fn by(how: BoostPolicy, event: stalld_event) -> stalld_event {
    let (policy, priority) = match how {
        BoostPolicy::Deadline { .. } => (Policy::DEADLINE, 0),
        BoostPolicy::Fifo => (Policy::FIFO, FIFO_PRIORITY),
    };
    stalld_event { policy: policy.0 as i32, priority: priority as i32, ..event }
}

fn scheduled(before: Saved) -> (i32, i32) {
    (before.policy.0 as i32, before.priority as i32)
}

fn shown(task: &Task) -> stalld_task {
    let mut comm = [0; 16];
    // The last byte stays NUL.
    for (to, from) in comm.iter_mut().zip(task.comm.as_bytes().iter().take(15)) {
        *to = *from as c_char;
    }
    let prio = task.sched.prio;
    stalld_task {
        tid: task.tid.0,
        tgid: task.tgid.map_or(0, |tgid| tgid.0),
        cpu: task.cpu.0,
        policy: task.sched.policy.map_or(NONE, |policy| policy.0 as i32),
        prio,
        rt_priority: if task.sched.is_realtime() { 99 - prio } else { 0 },
        start: task.start,
        comm,
    }
}

pub fn waiting(waiter: &Waiter, wait: Nanos, hog: Option<&Task>) -> stalld_waiter {
    stalld_waiter { task: shown(&waiter.task), wait_ns: wait.0, hog: hog.map(shown).unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_that_are_not_taken_are_dropped_and_counted() {
        let mut queue = EventQueue::new(2, Kind::TaskIter);
        (1..=5).for_each(|late| queue.late(Nanos(9), Nanos(late)));
        assert_eq!((queue.len(), queue.lost()), (2, 3));
        let mut next = || queue.take().map(|event| (event.length_ns, event.lost));
        assert_eq!([next(), next(), next()], [Some((1, 0)), Some((2, 0)), None]);
        queue.late(Nanos(9), Nanos(6));
        queue.late(Nanos(9), Nanos(7));
        let mut next = || queue.take().map(|event| (event.length_ns, event.lost));
        assert_eq!([next(), next()], [Some((6, 3)), Some((7, 0))]);
    }

    #[test]
    fn a_task_is_shown_on_both_scales() {
        use stalld::task::{Comm, Sched, Tid};
        let sched = Sched { policy: Some(Policy::FIFO), prio: 49 };
        let comm = Comm::new(b"fifteen letters");
        let task = Task { tid: Tid(7), comm, sched, ..Task::default() };
        let stalld_task { tid, policy, prio, rt_priority, comm, .. } = shown(&task);
        assert_eq!((tid, policy, prio, rt_priority, comm[15]), (7, 1, 49, 50, 0));
        let sched = Sched { policy: None, prio: 120 };
        let stalld_task { policy, rt_priority, .. } = shown(&Task { sched, ..task });
        assert_eq!((policy, rt_priority), (-1, 0));
    }
}
