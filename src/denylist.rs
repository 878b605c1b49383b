//! The tasks that are never boosted.

use crate::boost::kernel::{Host, Kernel};
use crate::patterns::Patterns;
use crate::steps;
use crate::task::{Comm, Nanos, Task, TaskId, Tid};
use std::hash::{BuildHasher, RandomState};

/// Decides which tasks are never boosted: those of stalld, and those whose name or process name is
/// on a denylist. Tasks of stalld are not reported.
#[derive(Clone, Default)]
pub struct Ignore {
    /// The tid and the start of each process of stalld.
    own: Vec<(Tid, Option<u64>)>,
    threads: Patterns,
    processes: Patterns,
    /// The verdicts on tasks, so that no task is judged and reported again at each scan.
    known: Verdicts,
    /// The process whose name was read last. Threads of a process mostly follow each other in a
    /// scan.
    process: Option<Process>,
    /// The last name that was matched with the patterns for threads, and the result.
    last_name: Option<(Comm, bool)>,
    /// Ignored tasks that have not been reported yet.
    new: Vec<Ignored>,
    /// How many more there are than `new` has room for.
    unreported: u64,
}

/// The name of a process at one scan, `None` if it could not be read.
#[derive(Clone, Copy)]
struct Process {
    tgid: Tid,
    name: Option<Comm>,
    at: Nanos,
}

/// A task that is not boosted although it starves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ignored {
    pub task: Task,
    pub why: Why,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The name of the task is on a denylist.
    Name,
    /// The name of the task's process, which is this, is on a denylist.
    Process(Comm),
    /// The name of the task's process could not be read, because memory or descriptors are short.
    /// It may be on a denylist, and is read again at each scan.
    Unknown,
}

/// A verdict that was not needed for this long is no longer used.
const MAX_AGE: Nanos = Nanos::from_secs(600);

/// The number of verdicts in a set, which is also the most comparisons that a look-up takes.
const WAYS: usize = 8;

/// The number of sets for all CPUs: enough for 4,096 tasks.
const SETS: usize = 512;

/// The number of sets of a monitor, which has one CPU: enough for 512 tasks.
const SETS_OF_MONITOR: usize = 64;

/// The most ignored tasks that are reported at one scan.
const NEWS: usize = 64;

/// A verdict on a task.
#[derive(Clone, Copy)]
struct Judged {
    id: TaskId,
    name: Comm,
    /// `None` if the task may be boosted.
    why: Option<Why>,
    seen: Nanos,
}

impl Judged {
    /// Returns whether the verdict is on this task. A task that takes another name is judged again.
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

    /// Returns the verdict on a task, and notes that it is needed now. Returns `None` if there is
    /// no recent one.
    fn find(&mut self, task: &Task, now: Nanos) -> Option<Judged> {
        let known = self.set_of(task)?.iter_mut().flatten().find(|known| known.is_of(task))?;
        let is_recent = now - known.seen < MAX_AGE;
        known.seen = now;
        is_recent.then_some(*known)
    }

    /// Keeps a verdict in place of the one in its set that was needed least recently. Returns false
    /// if this scan has needed all of them: then more tasks starve than there are places.
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

    /// Returns a denylist for a monitor, with its own verdicts. Shared verdicts would need a lock,
    /// and a monitor that loses its CPU while it holds the lock would stop all others.
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

    /// Adds a process of stalld, such as the guardian, which is never boosted.
    pub fn own(&mut self, process: Tid) {
        self.own.push((process, Host.start(process)));
    }

    fn is_own(&self, task: &Task) -> bool {
        let start = || if task.start == 0 { Host.start(task.tid) } else { Some(task.start) };
        self.own.iter().any(|&(tid, since)| tid == task.tid && since == start())
    }

    /// Returns whether a task is never to be boosted; `None` if that is unknown. `now` is the
    /// moment of the scan that found it starving.
    pub fn verdict(&mut self, task: &Task, now: Nanos) -> Option<bool> {
        if self.is_own(task) {
            return Some(true);
        }
        if self.threads.is_empty() && self.processes.is_empty() {
            return Some(false);
        }
        let before = self.known.find(task, now).map(|known| known.why);
        match before {
            None | Some(Some(Why::Unknown)) => {}
            Some(why) => return Some(why.is_some()),
        }
        let why = self.judge(task, now);
        // A task whose verdict is not kept is not reported, because each scan would report it
        // again.
        if before != Some(why) && self.known.keep(task, why, now) {
            why.into_iter().for_each(|why| self.report(Ignored { task: *task, why }));
        }
        (why != Some(Why::Unknown)).then_some(why.is_some())
    }

    fn report(&mut self, ignored: Ignored) {
        if self.new.len() < NEWS {
            self.new.push(ignored);
        } else {
            self.unreported += 1;
        }
    }

    /// Returns the tasks that were found to be ignored since the last call, up to a number that a
    /// log can bear.
    pub fn newly_ignored(&mut self) -> std::vec::Drain<'_, Ignored> {
        self.new.drain(..)
    }

    /// Returns how many more such tasks there were.
    pub fn take_unreported(&mut self) -> u64 {
        std::mem::take(&mut self.unreported)
    }

    /// Returns why a task is ignored; `None` if it may be boosted.
    fn judge(&mut self, task: &Task, now: Nanos) -> Option<Why> {
        if self.matches_name(task.comm) {
            return Some(Why::Name);
        }
        if self.processes.is_empty() {
            return None;
        }
        let tgid = task.tgid.or_else(|| Host.tgid(task.tid));
        match tgid.and_then(|tgid| self.name_of(tgid, now)) {
            // The task has ended.
            None if Host.try_start(task.tid).is_ok_and(|start| start.is_none()) => None,
            None => Some(Why::Unknown),
            Some(name) => self.processes.matches(name.as_bytes()).then_some(Why::Process(name)),
        }
    }

    /// Returns whether a thread of this name is ignored. Matches the patterns once for threads of
    /// the same name that follow each other in a scan.
    fn matches_name(&mut self, name: Comm) -> bool {
        let last = self.last_name.filter(|&(last, _)| last == name);
        let (_, is_ignored) = last.unwrap_or_else(|| (name, self.threads.matches(name.as_bytes())));
        self.last_name = Some((name, is_ignored));
        is_ignored
    }

    /// Returns the name of a process. Reads it once for the threads that follow each other in a
    /// scan.
    fn name_of(&mut self, tgid: Tid, now: Nanos) -> Option<Comm> {
        let last = self.process.filter(|last| (last.tgid, last.at) == (tgid, now));
        let process = last.unwrap_or_else(|| Process { tgid, name: Host.comm(tgid), at: now });
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
    fn an_own_process_is_ignored_but_not_a_later_one_with_its_pid() {
        let own = Tid(std::process::id() as i32);
        let mut ignore = Ignore::default();
        ignore.own(own);
        let mut verdict = |start| ignore.verdict(&Task { tid: own, start, ..Task::default() }, Nanos::ZERO);
        let start = Host.start(own).unwrap();
        assert_eq!([start, 0, start + 1].map(&mut verdict), [Some(true), Some(true), Some(false)]);
    }

    #[test]
    fn renamed_threads_do_not_grow_the_memory_and_cost_few_steps_each() {
        let mut ignore = Ignore::new(denylist("^evil"), Patterns::default());
        let places = ignore.known.sets.len() * WAYS;
        let begins = ignore.known.sets.as_ptr();
        assert_eq!(places, 4096);
        for scan in 1..=5u64 {
            let steps = steps::of(|| {
                for tid in 1..=30_000 {
                    let comm = Comm::new(format!("evil{scan}").as_bytes());
                    let task = Task { tid: Tid(tid), start: 7, comm, ..Task::default() };
                    assert_eq!(ignore.verdict(&task, Nanos::from_secs(scan)), Some(true));
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
    fn a_starving_task_is_judged_and_reported_once_while_others_are_renamed() {
        let mut ignore = Ignore::new(denylist("^known$"), Patterns::default());
        let known = Task { tid: Tid(1), start: 7, comm: Comm::new(b"known"), ..Task::default() };
        for scan in 1..=100u64 {
            assert_eq!(ignore.verdict(&known, Nanos::from_secs(scan)), Some(true));
            for tid in 2..=200 {
                let comm = Comm::new(format!("n{scan}").as_bytes());
                assert_eq!(
                    ignore.verdict(&Task { tid: Tid(tid), comm, ..known }, Nanos::from_secs(scan)),
                    Some(false)
                );
            }
            let expected = usize::from(scan == 1);
            assert_eq!(ignore.newly_ignored().count(), expected, "at scan {scan}");
        }
        assert_eq!(ignore.verdict(&known, Nanos::from_secs(100) + MAX_AGE), Some(true));
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
        assert_eq!([&mut ignore, &mut of_monitor].map(|it| it.verdict(&task, Nanos(1))), [Some(true); 2]);
        assert_eq!(of_monitor.verdict(&Task { tid: own, ..Task::default() }, Nanos(1)), Some(true));
        assert!(Ignore::default().of_monitor().known.sets.is_empty(), "no list needs no memory");
    }

    #[test]
    fn the_name_of_a_process_is_read_once_a_scan_for_all_its_threads() {
        let own = Tid(std::process::id() as i32);
        let name = Host.comm(own).unwrap();
        let mut ignore = Ignore::new(Patterns::default(), denylist(&format!("^{name}$")));
        let thread = |tid| Task { tid: Tid(tid), start: 1, tgid: Some(own), ..Task::default() };
        assert_eq!(ignore.verdict(&thread(1), Nanos(5)), Some(true));
        // /proc has another name than this, so a match shows that it was not read again.
        ignore.process = Some(Process { tgid: own, name: Some(Comm::new(b"other")), at: Nanos(5) });
        assert_eq!(ignore.verdict(&thread(2), Nanos(5)), Some(false));
        assert_eq!(ignore.verdict(&thread(3), Nanos(6)), Some(true));
    }
}
