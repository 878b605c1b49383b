//! A boost in flight.

use super::journal::BoostPolicy;
use super::plan::BoostHandle;
use super::restore::RestoreOutcome;
use crate::observe::Snapshot;
use crate::sorted::Sorted;
use crate::steps;
use crate::task::{Cpu, Nanos, Policy, Task, Tid};

/// A pulse in which a task is not given its CPU is made again after this: for 50 ms of a second the
/// kernel's DL server may run fair tasks there, above all others [6.12], and each pulse a period
/// later would meet it again.
pub const AGAIN: Nanos = Nanos::from_millis(5);

/// How many times in a row it is made again.
pub const TRIES: u32 = 20;

/// A task that was not given its CPU in all of them sleeps, most likely. Until it runs again, each
/// period has only one more pulse, later than the DL server can have the CPU: each of them costs a
/// CPU that spins at FIFO 99.
pub const AGAIN_ASLEEP: Nanos = Nanos::from_millis(60);

pub struct Active {
    pub task: Task,
    /// How it was raised, or by the first of its pulses.
    pub raised: BoostHandle,
    pub started: Nanos,
    pub end: Nanos,
    /// Of FIFO emulation.
    pub next_pulse: Option<Nanos>,
    /// How many of the latest pulses it was not given its CPU in.
    pub missed: u32,
    /// It was not given its CPU in a whole row of pulses, nor since.
    pub sleeps: bool,
    /// Something outranked it when it was boosted.
    pub outranked: bool,
}

/// How a task has just been lifted.
pub struct StartedBoost {
    pub how: BoostPolicy,
    pub raised: BoostHandle,
    /// Whether it was given its CPU in a pulse; None where that is not known.
    pub ran: Option<bool>,
    /// Why no pulse can follow the first one.
    pub over: Option<RestoreOutcome>,
}

/// A task that is or was boosted, whose children have to be seen to.
#[derive(Clone, Copy)]
pub struct Ward {
    pub raised: BoostHandle,
    pub task: Task,
}

impl Ward {
    /// Whether its children would inherit anything else than what RESET_ON_FORK makes them.
    pub fn hands_down(&self) -> bool {
        let before = self.raised.boosted.before;
        !before.reset_on_fork && (before.policy != Policy::OTHER || before.nice != 0)
    }
}

impl Active {
    /// Plans the pulse after one that is made now. What was missed before is not made up for.
    pub fn plan_pulse(&mut self, now: Nanos, ran: Option<bool>, period: Nanos) {
        let (again, tries) = if self.sleeps { (AGAIN_ASLEEP, 1) } else { (AGAIN, TRIES) };
        let pause = if ran != Some(false) {
            (self.missed, self.sleeps) = (0, false);
            period
        } else if self.missed < tries {
            self.missed += 1;
            again
        } else {
            (self.missed, self.sleeps) = (0, true);
            period
        };
        self.next_pulse = Some(now + pause);
    }
}

/// The best ranks among the tasks of each CPU that are not boosted, as one scan saw them.
pub struct Ranks {
    cpus: Sorted<Cpu, Best>,
}

#[derive(Clone, Copy)]
struct Best {
    tid: Tid,
    rank: i32,
    /// The best rank of a task other than `tid`.
    second: i32,
}

const NO_RANK: i32 = i32::MAX;

/// Fair tasks take turns, whatever their nice values: they are all of one rank.
fn rank(task: &Task) -> i32 {
    task.sched.prio.min(100)
}

impl Ranks {
    pub fn new() -> Ranks {
        let none = Best { tid: Tid(-1), rank: NO_RANK, second: NO_RANK };
        Ranks { cpus: Sorted::with_room(64, (Cpu(0), none)) }
    }

    /// Replaces what is known by what a scan saw. Takes one step for each task.
    pub fn refill(&mut self, snapshot: &Snapshot, is_boosted: impl Fn(&Task) -> bool) {
        self.cpus.clear();
        let waiting = snapshot.waiters.iter().map(|waiter| &waiter.task);
        for task in snapshot.running.iter().chain(waiting).filter(|task| !is_boosted(task)) {
            steps::count(1);
            let (tid, rank) = (task.tid, rank(task));
            let best = self.cpus.entry(task.cpu, Best { tid, rank, second: NO_RANK });
            if tid == best.tid {
                best.rank = best.rank.min(rank);
            } else if rank < best.rank {
                *best = Best { tid, rank, second: best.rank };
            } else {
                best.second = best.second.min(rank);
            }
        }
    }

    /// Returns whether another task that is not boosted keeps this one off its CPU by its rank. A
    /// real-time task is kept off by an equal too, because an equal keeps the CPU until it gives it
    /// up.
    pub fn outrank(&self, task: &Task) -> bool {
        let Some(best) = self.cpus.get(task.cpu) else { return false };
        let others = if best.tid == task.tid { best.second } else { best.rank };
        others < rank(task) || others == rank(task) && others < 100
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::Waiter;
    use crate::task::{Sched, TaskId};

    /// The definition, by comparing a task with all others.
    fn is_outranked(task: &Task, snapshot: &Snapshot, boosted: &[TaskId]) -> bool {
        let waiting = snapshot.waiters.iter().map(|waiter| &waiter.task);
        snapshot.running.iter().chain(waiting).any(|other| {
            other.cpu == task.cpu
                && other.tid != task.tid
                && (rank(other) < rank(task) || rank(other) == rank(task) && rank(task) < 100)
                && !boosted.contains(&other.id())
        })
    }

    #[test]
    fn ranks_agree_with_a_comparison_of_all_pairs() {
        let mut seed = 7u64;
        let mut below = |limit: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % limit
        };
        let mut ranks = Ranks::new();
        let (mut outranked, mut not) = (0, 0);
        for _ in 0..5_000 {
            // Few tids, so that one is there twice now and then, with another start or another
            // rank.
            let tasks: Vec<Task> = (0..below(9))
                .map(|_| Task {
                    tid: Tid(below(8) as i32),
                    start: below(2),
                    cpu: Cpu(below(2) as u32),
                    sched: Sched {
                        policy: None,
                        prio: [-1, 10, 10, 50, 98, 100, 120, 139][below(8) as usize],
                    },
                    ..Task::default()
                })
                .collect();
            let boosted: Vec<TaskId> = tasks.iter().filter(|_| below(4) == 0).map(Task::id).collect();
            let (running, waiting) = tasks.split_at(below(tasks.len() as u64 + 1) as usize);
            let waiters = waiting.iter().map(|&task| Waiter { task, since: None }).collect();
            let snapshot = Snapshot { running: running.to_vec(), waiters, ..Snapshot::default() };
            ranks.refill(&snapshot, |task| boosted.contains(&task.id()));
            for task in &tasks {
                let expected = is_outranked(task, &snapshot, &boosted);
                assert_eq!(ranks.outrank(task), expected, "{task:?} among {snapshot:?}, boosted {boosted:?}");
                if expected { outranked += 1 } else { not += 1 }
            }
        }
        assert!(outranked > 1000 && not > 1000, "{outranked} {not}");
    }
}
