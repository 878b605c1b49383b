//! Tasks whose pulses are over, and to which a call that began in a pulse may still give a rank.
//!
//! The kernel checks whether a process may set a priority before it locks the task. A thread that
//! is preempted in between sets it after the pulse, and no restore sees that. While a task is
//! SCHED_RESET_ON_FORK, an unprivileged process can't take that flag from it, so a rank without the
//! flag was set by a privileged process.

use super::plan::BoostHandle;
use crate::sorted::Sorted;
use crate::task::{Nanos, Task, TaskId};

/// The first check of a task comes so long after its pulse. Each of the next ones is twice as far
/// from the one before, up to `MAX_PAUSE`: for so long the task can have the CPU.
const FIRST_CHECK: Nanos = Nanos::from_millis(5);
const MAX_PAUSE: Nanos = Nanos::from_millis(80);

/// A task is checked for so long. Later its rank is lowered only if a scan finds it.
const TIME: Nanos = Nanos::from_secs(30);

/// At most so many tasks are on probation. Of more than that the ones that have been for longest
/// are forgotten.
const MAX_TASKS: usize = 1024;

/// The tasks, and when to check them.
pub struct Probation {
    tasks: Sorted<TaskId, Entry>,
    next: Option<Nanos>,
}

#[derive(Clone, Copy)]
pub struct Entry {
    pub task: Task,
    pub raised: BoostHandle,
    /// Tasks that were started later than that, in clock ticks since boot, may be born in a pulse
    /// of this one.
    pub births: u64,
    begun: Nanos,
    next: Nanos,
    pause: Nanos,
}

impl Probation {
    pub fn new() -> Probation {
        Probation { tasks: Sorted::new(), next: None }
    }

    /// Begins, or begins anew, after a pulse.
    pub fn begin(&mut self, task: &Task, raised: &BoostHandle, now: Nanos) {
        if self.tasks.len() >= MAX_TASKS {
            let oldest = self.tasks.iter_mut().min_by_key(|(_, entry)| entry.begun).map(|(id, _)| id);
            oldest.into_iter().for_each(|id| self.tasks.remove(id));
        }
        let next = now + FIRST_CHECK;
        let (task, raised) = (*task, *raised);
        let births = self.of(&task).map_or(raised.since, |before| before.births);
        self.tasks.insert(task.id(), Entry { task, raised, births, begun: now, next, pause: FIRST_CHECK });
        self.next = Some(self.next.map_or(next, |earlier| earlier.min(next)));
    }

    pub fn of(&self, task: &Task) -> Option<Entry> {
        self.tasks.get(task.id())
    }

    /// The tasks, in no order that matters.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.tasks.values()
    }

    pub fn end(&mut self, task: &Task) {
        self.tasks.remove(task.id());
    }

    /// When to call `check`.
    pub fn next(&self) -> Option<Nanos> {
        self.next
    }

    /// Calls `is_over` for each task that is due, and forgets those for which it returns true and
    /// those that were on probation for long enough.
    pub fn check(&mut self, now: Nanos, mut is_over: impl FnMut(&Entry) -> bool) {
        if self.next.is_none_or(|next| now < next) {
            return;
        }
        self.tasks.update(|entry| {
            if entry.next > now {
                return true;
            }
            entry.pause = (entry.pause + entry.pause).min(MAX_PAUSE);
            entry.next = now + entry.pause;
            !is_over(entry) && now < entry.begun + TIME
        });
        self.next = self.tasks.iter_mut().map(|(_, entry)| entry.next).min();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boost::journal::{BoostPolicy, Boosted, Rank, Saved, Slot};
    use crate::task::{Policy, Tid};

    fn raised() -> BoostHandle {
        let before =
            Saved { policy: Policy::OTHER, priority: 0, reset_on_fork: false, nice: 0, timer_slack: 0 };
        let boosted = Boosted {
            tid: Tid(1),
            tgid: Tid(1),
            start: 1,
            leader_start: 1,
            leader_rank: Rank::FAIR,
            end: Nanos::ZERO,
            grace: Nanos::ZERO,
            before,
            how: BoostPolicy::Fifo,
        };
        BoostHandle { boosted, slot: Slot::default(), since: 0, runs: None }
    }

    fn task(tid: i32) -> Task {
        Task { tid: Tid(tid), ..Task::default() }
    }

    #[test]
    fn a_task_is_checked_soon_ever_less_often_and_not_for_ever() {
        let mut probation = Probation::new();
        probation.begin(&task(1), &raised(), Nanos::ZERO);
        let mut checks = Vec::new();
        while let Some(now) = probation.next() {
            probation.check(now, |_| {
                checks.push(now.as_millis());
                false
            });
        }
        assert_eq!(checks[..4], [5, 15, 35, 75]);
        assert!(checks.is_sorted_by(|one, next| next - one <= 80), "{checks:?}");
        assert!(checks.len() < 400 && *checks.last().unwrap() >= 30_000, "{checks:?}");
        assert!(probation.of(&task(1)).is_none());
    }

    #[test]
    fn a_crowd_has_a_bound_and_what_is_over_is_forgotten() {
        let mut probation = Probation::new();
        for tid in 1..=2000 {
            probation.begin(&task(tid), &raised(), Nanos(tid as u64));
        }
        assert!(probation.of(&task(976)).is_none() && probation.of(&task(977)).is_some());
        let mut checked = 0;
        probation.check(Nanos::from_secs(1), |entry| {
            checked += 1;
            entry.task.tid != Tid(2000)
        });
        assert_eq!(checked, MAX_TASKS);
        assert!(probation.of(&task(1999)).is_none() && probation.of(&task(2000)).is_some());
        probation.end(&task(2000));
        assert!(probation.of(&task(2000)).is_none());
    }
}
