//! Boosts in flight, and the priorities of the tasks on each CPU.

use super::journal::BoostPolicy;
use super::plan::{BoostHandle, Run};
use super::restore::RestoreOutcome;
use super::rules::Rules;
use crate::observe::Snapshot;
use crate::sorted::Sorted;
use crate::steps;
use crate::task::{Cpu, Nanos, Owner, Policy, Task, Tid};

/// A pulse is missed if the task gets no CPU in it. After this time it is repeated. The kernel's DL
/// server may run fair tasks above all others for 50 ms of a second [6.12], and pulses a period
/// apart would meet it each time.
pub(super) const REPEAT_INTERVAL: Nanos = Nanos::from_millis(5);

/// The most repeats of a missed pulse in a row.
pub(super) const MAX_REPEATS: u32 = 20;

/// The time until a missed pulse is repeated if the task most likely sleeps. It is longer than the
/// DL server can have the CPU. Until the task runs again, each period has one repeat only, because
/// each pulse spins a CPU at FIFO 99.
pub(super) const REPEAT_INTERVAL_ASLEEP: Nanos = Nanos::from_millis(60);

/// A boost in flight.
pub(super) struct Active {
    pub task: Task,
    /// The boost, or the first of its pulses.
    pub raised: BoostHandle,
    /// The owner of the task by the scan that found it starving. `task` may have a newer one.
    pub found_owner: Owner,
    pub started: Nanos,
    pub end: Nanos,
    /// When the next pulse is due; `None` for a boost by SCHED_DEADLINE.
    pub next_pulse: Option<Nanos>,
    /// The missed pulses in a row that have been repeated so far.
    pub missed: u32,
    /// The task missed a pulse and all its repeats, and has not run since.
    pub sleeps: bool,
    /// Another task kept it off the CPU by its priority when it was boosted.
    pub outranked: bool,
    /// It ends once the task has had its budget, because more tasks wait than have places.
    pub is_for_one_budget: bool,
}

/// A task that is to be boosted, as a scan or a request found it.
#[derive(Clone, Copy)]
pub(super) struct FoundTask {
    pub task: Task,
    pub found_owner: Owner,
    pub at: Nanos,
    /// Another task keeps it off the CPU by its priority.
    pub outranked: bool,
}

/// A boost that has started.
pub(super) struct StartedBoost {
    pub how: BoostPolicy,
    pub raised: BoostHandle,
    pub run: Run,
    /// The outcome, if no pulse can follow the first one.
    pub over: Option<RestoreOutcome>,
}

impl StartedBoost {
    /// Returns a boost by SCHED_DEADLINE.
    pub(super) fn by_deadline(how: BoostPolicy, raised: BoostHandle) -> StartedBoost {
        StartedBoost { how, raised, run: Run::Unknown, over: None }
    }
}

/// A task that was raised to SCHED_DEADLINE, and that may not have had its CPU since.
pub(super) struct RaisedTask {
    pub found: FoundTask,
    pub raised: BoostHandle,
    /// More tasks wait than have places, so the boost ends after one budget.
    pub crowded: bool,
}

/// A task that is or was boosted. Its children need the policy that they would have inherited
/// without the boost.
#[derive(Clone, Copy)]
pub struct Ancestor {
    pub raised: BoostHandle,
    pub task: Task,
}

impl Ancestor {
    /// Returns whether its children would have inherited another policy or nice value than
    /// RESET_ON_FORK gives them.
    pub(super) fn hands_down(&self) -> bool {
        let before = self.raised.boosted.before;
        !before.reset_on_fork && (before.policy != Policy::OTHER || before.nice != 0)
    }
}

impl Active {
    /// Plans the pulse that follows one made now, which is a period later if the task seems to
    /// sleep. The time until then counts from now, even if this pulse is late.
    pub(super) fn plan_pulse(&mut self, now: Nanos, run: Run, rules: &Rules) {
        let (again, tries) =
            if self.sleeps { (REPEAT_INTERVAL_ASLEEP, 1) } else { (REPEAT_INTERVAL, MAX_REPEATS) };
        let pause = if run != Run::Missed {
            (self.missed, self.sleeps) = (0, false);
            rules.pulse_interval()
        } else if self.missed < tries {
            self.missed += 1;
            again
        } else {
            (self.missed, self.sleeps) = (0, true);
            rules.period
        };
        self.next_pulse = Some(now + pause);
    }
}

/// The best priorities of the tasks on each CPU in one scan, without boosted tasks. A lower number
/// is a better priority.
pub(super) struct TopPriorities {
    cpus: Sorted<Cpu, Best>,
}

#[derive(Clone, Copy)]
struct Best {
    tid: Tid,
    priority: i32,
    /// The best priority of a task other than `tid`.
    second: i32,
}

const NO_PRIORITY: i32 = i32::MAX;

/// Returns the priority of a task. Fair tasks take turns, whatever their nice values, so they all
/// have the same priority.
fn priority(task: &Task) -> i32 {
    task.sched.prio.min(100)
}

impl TopPriorities {
    pub(super) fn new(cpus: usize) -> TopPriorities {
        let none = Best { tid: Tid(-1), priority: NO_PRIORITY, second: NO_PRIORITY };
        TopPriorities { cpus: Sorted::with_room(cpus, (Cpu(0), none)) }
    }

    /// Replaces the priorities by those of a scan, in one step for each task.
    pub(super) fn refill(&mut self, snapshot: &Snapshot, is_boosted: impl Fn(&Task) -> bool) {
        self.cpus.clear();
        let waiting = snapshot.waiters.iter().map(|waiter| &waiter.task);
        for task in snapshot.running.iter().chain(waiting).filter(|task| !is_boosted(task)) {
            steps::count(1);
            let (tid, priority) = (task.tid, priority(task));
            let best = self.cpus.entry(task.cpu, Best { tid, priority, second: NO_PRIORITY });
            if tid == best.tid {
                best.priority = best.priority.min(priority);
            } else if priority < best.priority {
                *best = Best { tid, priority, second: best.priority };
            } else {
                best.second = best.second.min(priority);
            }
        }
    }

    /// Returns the task with the best priority of a CPU, and its priority.
    pub(super) fn best(&self, cpu: Cpu) -> Option<(Tid, i32)> {
        self.cpus.get(cpu).map(|best| (best.tid, best.priority))
    }

    /// Returns whether another task that is not boosted keeps this one off its CPU by its priority.
    /// For a real-time task an equal priority is enough, because a FIFO task runs until it blocks
    /// or yields.
    pub(super) fn outrank(&self, task: &Task) -> bool {
        let Some(best) = self.cpus.get(task.cpu) else { return false };
        let others = if best.tid == task.tid { best.second } else { best.priority };
        others < priority(task) || others == priority(task) && others < 100
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
                && (priority(other) < priority(task)
                    || priority(other) == priority(task) && priority(task) < 100)
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
        let mut priorities = TopPriorities::new(2);
        let (mut outranked, mut not) = (0, 0);
        for _ in 0..5_000 {
            // Few tids, so that one is there twice now and then, with another start or another
            // priority.
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
            priorities.refill(&snapshot, |task| boosted.contains(&task.id()));
            for task in &tasks {
                let expected = is_outranked(task, &snapshot, &boosted);
                assert_eq!(
                    priorities.outrank(task),
                    expected,
                    "{task:?} among {snapshot:?}, boosted {boosted:?}"
                );
                if expected { outranked += 1 } else { not += 1 }
            }
        }
        assert!(outranked > 1000 && not > 1000, "{outranked} {not}");
    }
}
