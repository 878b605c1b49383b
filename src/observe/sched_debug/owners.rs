//! Reads the owners of the waiters, which the text does not show.
//!
//! The owners decide which task is boosted next. The text does not hold the start of a task, so its
//! owner is read again before the task becomes SCHED_DEADLINE.

use crate::observe::Waiter;
use crate::proc;
use crate::room::{ROOM, prefaulted_vec};
use crate::sys::clock;
use crate::task::{Nanos, Owner, Task, Tid};

/// Time limit for reading owners in one scan.
const MAX_READ_TIME: Nanos = Nanos::from_millis(10);

/// A task of the last scan, with its progress at that time.
#[derive(Clone, Copy)]
struct Known {
    tid: Tid,
    progress: u64,
    owner: Owner,
    /// Whether two scans in a row have found the task waiting with this progress.
    stays: bool,
}

pub(super) struct Owners {
    /// Sorted by tid.
    known: Vec<Known>,
    before: Vec<Known>,
    /// The task whose owner was read last. The next scan continues after it, so that the other
    /// tasks have their turn even if tasks with low tids come and go.
    last: Tid,
}

impl Owners {
    pub(super) fn new() -> Owners {
        let some = Known { tid: Tid(-1), progress: 0, owner: Owner::Unknown, stays: false };
        Owners { known: prefaulted_vec(ROOM, some), before: prefaulted_vec(ROOM, some), last: Tid(0) }
    }

    /// Frees the memory beyond `ROOM` tasks.
    pub(super) fn shrink(&mut self) {
        self.known.shrink_to(ROOM);
        self.before.shrink_to(ROOM);
    }

    /// Sets the owners of the tasks that waited at the last scan, too. `waiters` is sorted by tid.
    pub(super) fn add(&mut self, waiters: &mut [Waiter]) {
        let end = clock::monotonic() + MAX_READ_TIME;
        self.add_by(waiters, |tid| (clock::monotonic() < end).then(|| read(tid)));
    }

    /// `read` returns `None` if this scan has no time for it.
    fn add_by(&mut self, waiters: &mut [Waiter], read: impl Fn(Tid) -> Option<Owner>) {
        std::mem::swap(&mut self.known, &mut self.before);
        self.known.clear();
        let mut before = self.before.iter().peekable();
        for Waiter { task, .. } in waiters.iter() {
            let Task { tid, progress, .. } = *task;
            while before.next_if(|it| it.tid < tid).is_some() {}
            let same = before.next_if(|it| it.tid == tid && it.progress == progress);
            let owner = same.map_or(Owner::Unknown, |it| it.owner);
            self.known.push(Known { tid, progress, owner, stays: same.is_some() });
        }
        let first = self.known.partition_point(|it| it.tid <= self.last);
        let (low, high) = self.known.split_at_mut(first);
        let is_unread = |it: &&mut Known| it.stays && it.owner == Owner::Unknown;
        for known in high.iter_mut().chain(low).filter(is_unread) {
            let Some(owner) = read(known.tid) else { break };
            (known.owner, self.last) = (owner, known.tid);
        }
        for (waiter, known) in waiters.iter_mut().zip(&self.known) {
            waiter.task.owner = known.owner;
        }
    }
}

/// Reads the owner of a task. The directory of a task belongs to its user, and is cheap to read.
/// Only a task of root needs more.
fn read(tid: Tid) -> Owner {
    match proc::uid(tid) {
        Some(0) => proc::owner(tid),
        Some(uid) => Owner::User(uid),
        None => Owner::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{process, sched};
    use std::cell::Cell;

    fn waiter(tid: i32, progress: u64) -> Waiter {
        Waiter { task: Task { tid: Tid(tid), progress, ..Task::default() }, since: None }
    }

    /// Returns the owners of these tasks after one more scan, which has time to read `most` of
    /// them.
    fn scan<const N: usize>(owners: &mut Owners, tasks: [(i32, u64); N], most: u32) -> [Owner; N] {
        let mut waiters = tasks.map(|(tid, progress)| waiter(tid, progress));
        let left = Cell::new(most);
        owners.add_by(&mut waiters, |tid| {
            left.set(left.get().checked_sub(1)?);
            Some(Owner::User(tid.0 as u32))
        });
        waiters.map(|waiter| waiter.task.owner)
    }

    #[test]
    fn the_owner_of_a_task_that_goes_on_waiting_is_read_once() {
        use Owner::{Unknown, User};
        let mut owners = Owners::new();
        assert_eq!(scan(&mut owners, [(1, 0), (3, 0)], 9), [Unknown; 2]);
        assert_eq!(scan(&mut owners, [(1, 0), (2, 0), (3, 0)], 9), [User(1), Unknown, User(3)]);
        assert_eq!(scan(&mut owners, [(1, 0), (2, 0), (3, 0)], 0), [User(1), Unknown, User(3)]);
        // Task 1 has run, and its number may be another task's.
        assert_eq!(scan(&mut owners, [(1, 1), (3, 0)], 0), [Unknown, User(3)]);
        // The owner of task 1 is read as soon as there is time.
        assert_eq!(scan(&mut owners, [(1, 1), (3, 0)], 0), [Unknown, User(3)]);
        assert_eq!(scan(&mut owners, [(1, 1), (3, 0)], 1), [User(1), User(3)]);
    }

    #[test]
    fn scans_with_too_little_time_get_through_a_crowd_together() {
        let mut owners = Owners::new();
        let crowd: [(i32, u64); 100] = std::array::from_fn(|index| (index as i32, 7));
        let unknown = |owners: [Owner; 100]| owners.iter().filter(|&&owner| owner == Owner::Unknown).count();
        let left: [usize; 4] = std::array::from_fn(|_| unknown(scan(&mut owners, crowd, 40)));
        assert_eq!(left, [100, 60, 20, 0]);
    }

    #[test]
    fn tasks_that_come_and_go_keep_no_other_task_without_an_owner() {
        let mut owners = Owners::new();
        // Each scan has time to read two, and tasks 1 to 4 run between any two scans but one.
        let mut last = Owner::Unknown;
        for progress in [0, 0, 1, 1, 2, 2] {
            let others = [1, 2, 3, 4].map(|tid| (tid, progress));
            let [.., owner] = scan(&mut owners, [others[0], others[1], others[2], others[3], (9, 0)], 2);
            last = owner;
        }
        assert_eq!(last, Owner::User(9));
    }

    #[test]
    fn proc_has_the_owner_of_this_thread() {
        let tid = sched::gettid();
        let expected = match process::effective_uid() {
            0 => proc::owner(tid),
            uid => Owner::User(uid),
        };
        assert_eq!(read(tid), expected);
        assert_eq!(read(Tid(-1)), Owner::Unknown);
    }
}
