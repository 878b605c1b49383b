//! The tasks that are never boosted.

use crate::patterns::Patterns;
use crate::proc;
use crate::steps;
use crate::task::{Comm, Nanos, Task, TaskId, Tid};
use std::hash::{BuildHasher, RandomState};

/// The tasks that are never boosted: by their own name, by that of their process, or because they
/// belong to stalld. The last are never reported.
#[derive(Clone, Default)]
pub struct Ignore {
    /// Number and start.
    own: Vec<(Tid, Option<u64>)>,
    threads: Patterns,
    processes: Patterns,
    /// Keeps each task from being judged and reported again at each scan.
    known: Verdicts,
    /// The process that was asked for its name last. Threads of a process mostly follow each other
    /// in a scan.
    process: Option<Process>,
    new: Vec<Ignored>,
    unreported: u64,
}

/// The name of a process at one scan, `None` if it could not be read.
#[derive(Clone, Copy)]
struct Process {
    tgid: Tid,
    name: Option<Comm>,
    at: Nanos,
}

/// A task that is let alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ignored {
    pub task: Task,
    pub why: Why,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Its name is on a denylist, ...
    Name,
    /// ... or that of its process.
    Process(Comm),
    /// The name of its process could not be read, for want of memory or descriptors, and may be on
    /// a denylist. It is asked for again each time.
    Unknown,
}

/// A verdict is not relied on when it was last needed as long ago as this.
const MAX_AGE: Nanos = Nanos::from_secs(600);

/// A set of verdicts has this many places, so that a look-up takes as many comparisons at most.
const WAYS: usize = 8;

/// For 4,096 tasks of all CPUs.
const SETS: usize = 512;

/// For 512 tasks of the one CPU of a monitor.
const SETS_OF_MONITOR: usize = 64;

/// How many tasks are reported as ignored at one scan.
const NEWS: usize = 64;

#[derive(Clone, Copy)]
struct Judged {
    id: TaskId,
    name: Comm,
    /// None where it is not let alone.
    why: Option<Why>,
    seen: Nanos,
}

impl Judged {
    /// A task that takes another name is judged again.
    fn is_of(&self, task: &Task) -> bool {
        steps::count(1);
        (self.id, self.name) == (task.id(), task.comm)
    }
}

/// Verdicts on tasks, in memory of a fixed size. A hash with a random key chooses the set of a
/// task, so that no user can aim at the verdicts on another user's tasks.
#[derive(Clone, Default)]
struct Verdicts {
    sets: Vec<[Option<Judged>; WAYS]>,
    key: RandomState,
}

impl Verdicts {
    fn with_sets(count: usize) -> Verdicts {
        Verdicts { sets: vec![[None; WAYS]; count], key: RandomState::new() }
    }

    /// Returns the verdict on a task, and notes that it is needed now. `None` if there is none that
    /// is recent enough.
    fn find(&mut self, task: &Task, now: Nanos) -> Option<Judged> {
        let known = self.set_of(task)?.iter_mut().flatten().find(|known| known.is_of(task))?;
        let is_recent = now - known.seen < MAX_AGE;
        known.seen = now;
        is_recent.then_some(*known)
    }

    /// Keeps a verdict in place of the one of its set that was needed least recently. Returns false
    /// if all of them are needed at this very scan: then more tasks starve than there are places,
    /// and one more is not kept.
    fn keep(&mut self, task: &Task, why: Option<Why>, now: Nanos) -> bool {
        let Some(set) = self.set_of(task) else { return false };
        let place = match set.iter().position(|known| known.is_some_and(|known| known.is_of(task))) {
            Some(place) => set.get_mut(place),
            None => set
                .iter_mut()
                .min_by_key(|known| known.map(|known| known.seen))
                .filter(|known| known.is_none_or(|known| known.seen < now)),
        };
        let judged = Judged { id: task.id(), name: task.comm, why, seen: now };
        place.map(|place| *place = Some(judged)).is_some()
    }

    fn set_of(&mut self, task: &Task) -> Option<&mut [Option<Judged>; WAYS]> {
        let count = self.sets.len().max(1) as u64;
        let hash = self.key.hash_one((task.id(), task.comm));
        self.sets.get_mut((hash % count) as usize)
    }
}

impl Ignore {
    pub fn new(threads: Patterns, processes: Patterns) -> Ignore {
        Ignore::with_sets(threads, processes, SETS)
    }

    /// Returns one for a monitor, with verdicts of its own. Shared ones would need a lock, and a
    /// monitor that loses its CPU while it holds that would stop all others.
    pub fn of_monitor(&self) -> Ignore {
        let Ignore { own, threads, processes, .. } = self.clone();
        Ignore { own, ..Ignore::with_sets(threads, processes, SETS_OF_MONITOR) }
    }

    fn with_sets(threads: Patterns, processes: Patterns, sets: usize) -> Ignore {
        let has_lists = !threads.is_empty() || !processes.is_empty();
        let known = if has_lists { Verdicts::with_sets(sets) } else { Verdicts::default() };
        let new = if has_lists { Vec::with_capacity(NEWS) } else { Vec::new() };
        Ignore { threads, processes, known, new, ..Ignore::default() }
    }

    /// A process of ours, such as the guardian: it does not starve, or nobody could help it.
    pub fn own(&mut self, process: Tid) {
        self.own.push((process, proc::start(process)));
    }

    fn is_own(&self, task: &Task) -> bool {
        let start = || if task.start == 0 { proc::start(task.tid) } else { Some(task.start) };
        self.own.iter().any(|&(tid, since)| tid == task.tid && since == start())
    }

    /// Returns whether a task is never to be boosted. `now` is the moment of the scan that found it
    /// starving.
    pub fn covers(&mut self, task: &Task, now: Nanos) -> bool {
        if self.is_own(task) {
            return true;
        }
        if self.threads.is_empty() && self.processes.is_empty() {
            return false;
        }
        let before = self.known.find(task, now).map(|known| known.why);
        match before {
            None | Some(Some(Why::Unknown)) => {}
            Some(why) => return why.is_some(),
        }
        let why = self.judge(task, now);
        // A verdict that is not kept would be reported at each scan.
        if before != Some(why) && self.known.keep(task, why, now) {
            why.into_iter().for_each(|why| self.report(Ignored { task: *task, why }));
        }
        why.is_some()
    }

    fn report(&mut self, ignored: Ignored) {
        if self.new.len() < NEWS {
            self.new.push(ignored);
        } else {
            self.unreported += 1;
        }
    }

    /// Returns the tasks that have been found to be ignored since the last call, up to a number
    /// that a log can bear.
    pub fn newly_ignored(&mut self) -> std::vec::Drain<'_, Ignored> {
        self.new.drain(..)
    }

    /// Returns how many more of them there were.
    pub fn take_unreported(&mut self) -> u64 {
        std::mem::take(&mut self.unreported)
    }

    fn judge(&mut self, task: &Task, now: Nanos) -> Option<Why> {
        if self.threads.matches(task.comm.as_bytes()) {
            return Some(Why::Name);
        }
        if self.processes.is_empty() {
            return None;
        }
        let tgid = task.tgid.or_else(|| proc::tgid(task.tid));
        match tgid.and_then(|tgid| self.name_of(tgid, now)) {
            // It has ended.
            None if proc::try_start(task.tid).is_ok_and(|start| start.is_none()) => None,
            None => Some(Why::Unknown),
            Some(name) => self.processes.matches(name.as_bytes()).then_some(Why::Process(name)),
        }
    }

    fn name_of(&mut self, tgid: Tid, now: Nanos) -> Option<Comm> {
        let last = self.process.filter(|last| (last.tgid, last.at) == (tgid, now));
        let process = last.unwrap_or_else(|| Process { tgid, name: proc::comm(tgid), at: now });
        self.process = Some(process);
        process.name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denylist(list: &str) -> Patterns {
        let mut denylist = Patterns::default();
        denylist.add(list).unwrap();
        denylist
    }

    #[test]
    fn a_process_of_ours_is_let_alone_and_not_whoever_has_its_number_later() {
        let own = Tid(std::process::id() as i32);
        let mut ignore = Ignore::default();
        ignore.own(own);
        let mut covers = |start| ignore.covers(&Task { tid: own, start, ..Task::default() }, Nanos::ZERO);
        let start = proc::start(own).unwrap();
        assert!(covers(start) && covers(0));
        assert!(!covers(start + 1));
    }

    #[test]
    fn renamed_threads_neither_grow_the_memory_nor_cost_more_than_a_few_steps_each() {
        let mut ignore = Ignore::new(denylist("^evil"), Patterns::default());
        let places = ignore.known.sets.len() * WAYS;
        let begins = ignore.known.sets.as_ptr();
        assert_eq!(places, 4096);
        for scan in 1..=5u64 {
            let steps = steps::of(|| {
                for tid in 1..=30_000 {
                    let comm = Comm::new(format!("evil{scan}").as_bytes());
                    let task = Task { tid: Tid(tid), start: 7, comm, ..Task::default() };
                    assert!(ignore.covers(&task, Nanos::from_secs(scan)));
                }
            });
            assert!(steps <= 30_000 * 2 * WAYS as u64, "{steps} steps");
            let (reported, more) = (ignore.newly_ignored().count(), ignore.take_unreported());
            assert_eq!((reported, reported as u64 + more), (NEWS, 4096), "at scan {scan}");
        }
        assert_eq!((ignore.known.sets.len() * WAYS, ignore.known.sets.as_ptr()), (places, begins));
        assert!(ignore.new.capacity() == NEWS);
    }

    #[test]
    fn a_task_that_keeps_starving_is_judged_and_reported_once_whoever_is_renamed_meanwhile() {
        let mut ignore = Ignore::new(denylist("^known$"), Patterns::default());
        let known = Task { tid: Tid(1), start: 7, comm: Comm::new(b"known"), ..Task::default() };
        for scan in 1..=100u64 {
            assert!(ignore.covers(&known, Nanos::from_secs(scan)));
            for tid in 2..=200 {
                let comm = Comm::new(format!("n{scan}").as_bytes());
                assert!(!ignore.covers(&Task { tid: Tid(tid), comm, ..known }, Nanos::from_secs(scan)));
            }
            let expected = usize::from(scan == 1);
            assert_eq!(ignore.newly_ignored().count(), expected, "at scan {scan}");
        }
        assert!(ignore.covers(&known, Nanos::from_secs(100) + MAX_AGE));
        assert_eq!(ignore.newly_ignored().count(), 1, "it is judged again after a long time");
    }

    #[test]
    fn a_monitor_has_a_smaller_memory_of_its_own_and_the_same_lists() {
        let mut ignore = Ignore::new(denylist("a"), denylist("b"));
        let own = Tid(std::process::id() as i32);
        ignore.own(own);
        let mut of_monitor = ignore.of_monitor();
        assert_eq!(of_monitor.known.sets.len() * WAYS, 512);
        let task = Task { comm: Comm::new(b"a"), tid: Tid(5), start: 1, tgid: Some(own), ..Task::default() };
        assert!(ignore.covers(&task, Nanos(1)) && of_monitor.covers(&task, Nanos(1)));
        assert!(of_monitor.covers(&Task { tid: own, ..Task::default() }, Nanos(1)));
        assert!(Ignore::default().of_monitor().known.sets.is_empty(), "no list needs no memory");
    }

    #[test]
    fn the_threads_of_a_process_share_one_look_up_of_its_name_at_a_scan() {
        let own = Tid(std::process::id() as i32);
        let name = proc::comm(own).unwrap();
        let mut ignore = Ignore::new(Patterns::default(), denylist(&format!("^{name}$")));
        let thread = |tid| Task { tid: Tid(tid), start: 1, tgid: Some(own), ..Task::default() };
        assert!(ignore.covers(&thread(1), Nanos(5)));
        // A name that /proc does not have shows that it is not asked again.
        ignore.process = Some(Process { tgid: own, name: Some(Comm::new(b"other")), at: Nanos(5) });
        assert!(!ignore.covers(&thread(2), Nanos(5)));
        assert!(ignore.covers(&thread(3), Nanos(6)));
    }
}
