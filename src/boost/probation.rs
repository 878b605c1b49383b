//! Tasks on probation: their pulses are over, but a system call that began in a pulse may still
//! raise their ranks.
//!
//! The kernel checks whether a process may set a priority before it locks the task. A thread that
//! is preempted between check and lock sets the priority after the restore. A pulse sets
//! RESET_ON_FORK, and an unprivileged process can't clear that flag. So a rank without the flag was
//! set by a privileged process, and stays.

use super::plan::BoostHandle;
use crate::sorted::Sorted;
use crate::task::{Nanos, Owner, Task, TaskId};

/// The time from a pulse to the first check. It doubles from check to check, up to `MAX_PAUSE`.
const FIRST_CHECK: Nanos = Nanos::from_millis(5);
/// The longest time between two checks, and so the longest time that a task keeps a rank that is
/// too high.
const MAX_PAUSE: Nanos = Nanos::from_millis(80);

/// The time between two checks for a privileged task. Such a task may have any rank. But a child
/// gets one from a pulse if the kernel copies the task just while the pulse ends, which is rare.
const PAUSE_PRIVILEGED: Nanos = Nanos::from_secs(1);

/// The length of the probation.
const TIME: Nanos = Nanos::from_secs(30);

/// A task that has ended stays on probation for this time, because its children may have ranks from
/// its pulses.
const TIME_AFTER_END: Nanos = Nanos::from_secs(1);

/// The most tasks on probation. The task that has been on probation longest makes room for a new
/// one.
const MAX_TASKS: usize = 1024;

/// The tasks on probation.
#[derive(Default)]
pub struct Probation {
    tasks: Sorted<TaskId, Entry>,
    /// When to call `check`.
    next: Option<Nanos>,
    /// When to look for their children next.
    children: Nanos,
    /// The time from then to the next time.
    pause: Nanos,
}

#[derive(Clone, Copy)]
pub struct Entry {
    pub task: Task,
    pub raised: BoostHandle,
    /// The start of the first pulse, in clock ticks since boot. A task that started later may have
    /// been born in a pulse of this task.
    pub births: u64,
    begun: Nanos,
    until: Nanos,
    next: Nanos,
    pause: Nanos,
}

impl Probation {
    /// Starts the probation of a task after a pulse, or starts it again. A kernel thread needs
    /// none, because it sets no rank, and has no children.
    pub(super) fn begin(&mut self, task: &Task, raised: &BoostHandle, now: Nanos) {
        if task.owner == Owner::Kernel {
            return;
        }
        if self.tasks.len() >= MAX_TASKS {
            let oldest = self.tasks.iter_mut().min_by_key(|(_, entry)| entry.begun).map(|(id, _)| id);
            oldest.into_iter().for_each(|id| self.tasks.remove(id));
        }
        let (task, raised) = (*task, *raised);
        let before = self.of(&task);
        let births = before.map_or(raised.since, |before| before.births);
        let pause = first_pause(task.owner);
        // Pulses may follow each other faster than checks.
        let next = before.map_or(Nanos::MAX, |before| before.next).min(now + pause);
        let entry = Entry { task, raised, births, begun: now, until: now + TIME, next, pause };
        self.tasks.insert(task.id(), entry);
        let is_first = self.next.is_none();
        self.next = Some(self.next.map_or(next, |earlier| earlier.min(next)));
        self.children = if is_first { next } else { self.children.min(next) };
        self.pause = if is_first { pause } else { self.pause.min(pause) };
    }

    /// Returns whether it is time to look for children of these tasks, and plans the next time.
    pub(super) fn children_are_due(&mut self, now: Nanos) -> bool {
        let is_due = self.next.is_some() && now >= self.children;
        if is_due {
            let longest = self.iter().map(|entry| longest_pause(entry.task.owner)).min();
            self.pause = (self.pause + self.pause).min(longest.unwrap_or(MAX_PAUSE));
            self.children = now + self.pause;
        }
        is_due
    }

    pub(super) fn of(&self, task: &Task) -> Option<Entry> {
        self.tasks.get(task.id())
    }

    /// Returns the tasks in no particular order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.tasks.values()
    }

    /// Returns when to call `check` or `children_are_due`.
    pub(super) fn next(&self) -> Option<Nanos> {
        self.next.map(|next| next.min(self.children))
    }

    /// Calls `has_ended` for each task whose check is due, and removes the tasks whose probation is
    /// over.
    pub(super) fn check(&mut self, now: Nanos, mut has_ended: impl FnMut(&Entry) -> bool) {
        if self.next.is_none_or(|next| now < next) {
            return;
        }
        self.tasks.update(|entry| {
            if entry.next > now {
                return true;
            }
            entry.pause = (entry.pause + entry.pause).min(longest_pause(entry.task.owner));
            entry.next = now + entry.pause;
            if has_ended(entry) {
                entry.until = entry.until.min(now + TIME_AFTER_END);
            }
            now < entry.until
        });
        self.next = self.tasks.iter_mut().map(|(_, entry)| entry.next).min();
    }
}

/// Returns the time from a pulse to the first check.
fn first_pause(owner: Owner) -> Nanos {
    if owner.may_take_any_rank() { PAUSE_PRIVILEGED } else { FIRST_CHECK }
}

/// Returns the longest time between two checks.
fn longest_pause(owner: Owner) -> Nanos {
    if owner.may_take_any_rank() { PAUSE_PRIVILEGED } else { MAX_PAUSE }
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
        let mut probation = Probation::default();
        probation.begin(&task(1), &raised(), Nanos::ZERO);
        let mut checks = Vec::new();
        let mut passes = 0;
        while let Some(now) = probation.next() {
            passes += u32::from(probation.children_are_due(now));
            probation.check(now, |_| {
                checks.push(now.as_millis());
                false
            });
        }
        assert_eq!(checks[..4], [5, 15, 35, 75]);
        assert!(checks.is_sorted_by(|one, next| next - one <= 80), "{checks:?}");
        assert!(checks.len() < 400 && *checks.last().unwrap() >= 30_000, "{checks:?}");
        assert!(probation.of(&task(1)).is_none());
        assert!((300..400).contains(&passes), "{passes}");
    }

    #[test]
    fn privileged_tasks_are_checked_each_second_and_kernel_threads_never() {
        let mut probation = Probation::default();
        let of = |owner: Owner, tid: i32| Task { owner, ..task(tid) };
        probation.begin(&of(Owner::Kernel, 1), &raised(), Nanos::ZERO);
        assert_eq!(probation.next(), None);
        let second = |n: u64| Some(Nanos::from_secs(n));
        let begin = |probation: &mut Probation, ms: u64| {
            probation.begin(&of(Owner::Privileged, 2), &raised(), Nanos::from_millis(ms));
        };
        begin(&mut probation, 0);
        for n in 1..5 {
            // A pulse between two checks delays none of them.
            begin(&mut probation, n * 1000 - 400);
            assert_eq!(probation.next(), second(n));
            assert!(probation.children_are_due(Nanos::from_secs(n)));
            let mut checked = 0;
            probation.check(Nanos::from_secs(n), |_| {
                checked += 1;
                false
            });
            assert_eq!(checked, 1);
        }
        // A user's task is checked at the short interval, and so are the children of both tasks.
        probation.begin(&of(Owner::User(1000), 3), &raised(), Nanos::from_secs(4));
        let due = Nanos::from_millis(4005);
        assert_eq!(probation.next(), Some(due));
        assert!(probation.children_are_due(due));
        assert_eq!(probation.children, Nanos::from_millis(4015));
    }

    #[test]
    fn probation_has_a_bound_and_forgets_an_ended_task_a_second_later() {
        let mut probation = Probation::default();
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
        assert!(probation.of(&task(1999)).is_some() && probation.of(&task(2000)).is_some());
        probation.check(Nanos::from_secs(1) + TIME_AFTER_END, |_| false);
        assert!(probation.of(&task(1999)).is_none() && probation.of(&task(2000)).is_some());
    }
}
