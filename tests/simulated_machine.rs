//! Random machines, driven for a simulated hour each, and what the detector promises about them.

// A machine that breaks its own rules is a broken test.
#![allow(clippy::unwrap_used, clippy::panic)]

use stalld::detect::{Detector, Limits, Verdict};
use stalld::observe::{Snapshot, Waiter};
use stalld::task::{Cpu, Nanos, Task, Tid};

const CPUS: u64 = 4;
const HOUR: Nanos = Nanos::from_secs(3600);

/// xorshift64: the same run for the same seed, on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Asleep,
    Running,
    /// `truly` is when the wait began, `stamp` what the kernel's record says since the last migration.
    Queued {
        truly: Nanos,
        stamp: Nanos,
        migrating: bool,
    },
}

#[derive(Clone, Copy)]
struct Simulated {
    task: Task,
    state: State,
    /// The moment at which this wait was named first.
    named: Option<Nanos>,
    /// A look has seen it in this wait.
    seen: bool,
    /// A look was lost, or fell into a migration, while it waited; or it migrated before any look saw it,
    /// and then the kernel's record of the wait is the only one and too short.
    missed: bool,
}

/// How a backend sees the machine.
#[derive(Clone, Copy, PartialEq)]
enum Eyes {
    /// It knows since when each task is queued.
    Stamps,
    /// It sees only who is queued.
    Presence,
}

struct Machine {
    now: Nanos,
    random: Random,
    tasks: Vec<Simulated>,
    starts: u64,
    waits: u64,
}

impl Machine {
    fn new(seed: u64) -> Machine {
        let mut machine =
            Machine { now: Nanos(1), random: Random(seed), tasks: Vec::new(), starts: 0, waits: 0 };
        for tid in 1..=30 {
            let born = machine.born(Tid(tid));
            machine.tasks.push(born);
        }
        machine
    }

    fn born(&mut self, tid: Tid) -> Simulated {
        self.starts += 1;
        let cpu = Cpu(self.random.below(CPUS) as u32);
        let task = Task { tid, start: self.starts, cpu, ..Task::default() };
        Simulated { task, state: State::Asleep, named: None, seen: false, missed: false }
    }

    /// One thing happens to one task.
    fn step(&mut self) {
        let index = self.random.below(self.tasks.len() as u64) as usize;
        let (now, roll) = (self.now, self.random.below(100));
        let mut it = self.tasks[index];
        it.state = match it.state {
            State::Queued { truly, stamp, migrating: true } => {
                State::Queued { truly, stamp, migrating: false }
            }
            // Most of those who wait do not get far.
            State::Queued { .. } if roll < 20 => {
                it.task.progress += 1;
                it.named = None;
                State::Running
            }
            State::Queued { truly, .. } if roll < 30 => {
                it.task.cpu = Cpu(self.random.below(CPUS) as u32);
                it.missed |= !it.seen;
                State::Queued { truly, stamp: now, migrating: true }
            }
            queued @ State::Queued { .. } => queued,
            State::Running if roll < 50 => State::Asleep,
            State::Asleep if roll < 10 => {
                self.tasks[index] = self.born(it.task.tid);
                return;
            }
            _ => {
                (it.seen, it.missed) = (false, false);
                self.waits += 1;
                State::Queued { truly: now, stamp: now, migrating: false }
            }
        };
        self.tasks[index] = it;
    }

    fn snapshot(&mut self, eyes: Eyes) -> Snapshot {
        let mut snapshot = Snapshot { at: self.now, complete: true, ..Snapshot::default() };
        for it in &mut self.tasks {
            match it.state {
                State::Queued { migrating: true, .. } => it.missed = true,
                State::Queued { stamp, .. } => {
                    let since = (eyes == Eyes::Stamps).then_some(stamp);
                    snapshot.waiters.push(Waiter { task: it.task, since });
                    it.seen = true;
                }
                _ => {}
            }
        }
        snapshot
    }
}

fn run(seed: u64, limits: Limits, eyes: Eyes, lost_one_in: u64) {
    let mut machine = Machine::new(seed);
    let mut detector = Detector::new(limits);
    let mut verdict = Verdict::default();
    let (mut looks, mut named) = (0u64, 0u64);
    // One task of a CPU is named at a look, and looks are a millisecond apart.
    let slack = Nanos::from_millis(30);
    while machine.now < HOUR {
        let until = verdict.next_look.max(machine.now + Nanos(1));
        loop {
            let pause = Nanos(machine.random.below(2 * limits.threshold.0 / 10) + 1);
            if machine.now + pause >= until {
                break;
            }
            machine.now = machine.now + pause;
            machine.step();
        }
        machine.now = until;
        looks += 1;
        if machine.random.one_in(lost_one_in) {
            verdict.next_look = machine.now + limits.granularity.min(limits.threshold);
            machine.tasks.iter_mut().for_each(|it| it.missed = true);
            continue;
        }
        let mut snapshot = machine.snapshot(eyes);
        detector.look(&mut snapshot, &mut |_| false, &mut verdict);
        for starving in verdict.starving.iter().filter(|starving| starving.due) {
            let it = machine.tasks.iter_mut().find(|it| it.task.tid == starving.task.tid).unwrap();
            let State::Queued { truly, .. } = it.state else { panic!("{:?} does not wait", starving.task) };
            assert_eq!(it.task.start, starving.task.start);
            assert!(machine.now - truly >= limits.threshold, "{:?} was named early", starving.task);
            assert!(starving.wait <= machine.now - truly, "{:?} has not waited that long", starving.task);
            if it.named.is_none() {
                it.named = Some(machine.now);
                named += 1;
            }
        }
        for it in &machine.tasks {
            let State::Queued { truly, migrating: false, .. } = it.state else { continue };
            let overdue = machine.now - truly >= limits.threshold + slack;
            if eyes == Eyes::Stamps && !it.missed && overdue {
                assert!(it.named.is_some(), "{:?} starves unnamed since {truly:?}", it.task);
            }
        }
    }
    assert!(named > 50, "only {named} tasks starved: this machine shows nothing");
    // A look per pause, and a few per wait for its coming of age and its turn to be named: never a poll.
    let pauses = HOUR.0 / limits.granularity.min(limits.threshold - Nanos::from_millis(10)).0 + 1;
    assert!(looks <= pauses + 4 * machine.waits, "{looks} looks for {} waits", machine.waits);
}

#[test]
fn every_starving_task_is_named_in_time_and_no_other_ever() {
    for seed in 1..=6 {
        for (threshold, granularity) in [(2000, 5000), (60_000, 5000), (200, 5000), (2000, 1000)] {
            let limits = Limits {
                threshold: Nanos::from_millis(threshold),
                granularity: Nanos::from_millis(granularity),
            };
            run(seed * 7919, limits, Eyes::Stamps, 1_000_000);
            run(seed * 104_729, limits, Eyes::Presence, 1_000_000);
        }
    }
}

#[test]
fn lost_looks_make_it_late_and_never_wrong() {
    let limits = Limits { threshold: Nanos::from_secs(2), granularity: Nanos::from_secs(5) };
    for seed in 1..=6 {
        run(seed * 31, limits, Eyes::Stamps, 3);
        run(seed * 37, limits, Eyes::Presence, 3);
    }
}
