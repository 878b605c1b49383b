//! The BPF backends. `task_iter` reads the kernel's own record of when each task was queued, and
//! `queue_track` keeps one.
//!
//! Both use the same BPF object. A scan begins with the cheap check, which costs a read per CPU. If
//! a CPU has more than one runnable task, `task_iter` reads the queue of that CPU, and
//! `queue_track` walks all tasks. `task_iter` attaches no program to events. `queue_track` attaches
//! programs to scheduler events, which record when each task was queued.

// The style of bindgen.
#[allow(non_camel_case_types, clippy::unreadable_literal, unreachable_pub)]
mod records;

mod load;
mod online;
mod reader;

use super::{Backend, Effort, Kind, Load, Snapshot, Waiter, Watch};
use crate::error::{Context, Error, Result};
use crate::sys::bpf::{AttachHelper, BpfIter, Program};
use crate::sys::clock;
use crate::sys::map::{self, SharedArray};
use crate::sys::sched;
use crate::task::{Comm, Cpu, Nanos, Owner, Policy, Sched, Task, Tid};
use load::{EVENTS, Reads, attach, first_that_works, load_best, open, settings_for};
use online::OnlineCpus;
use reader::Reader;
use records::{losses, queue, record, settings};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};

crate::plain! {
    record { queued, progress, start, tid, tgid, cpu, prio, policy, kind, owner, misranked, spare, uid, comm }
    queue { address, runnable, realtime, prio, policy }
    losses { untracked }
}

/// The most bytes that the kernel returns from one read of an iterator.
const CHUNK: usize = 32 * 1024;

/// The unit of the start of a task in /proc.
const CLOCK_TICK_NS: u64 = 10_000_000;

/// A CPU that comes online is found within this time, even if the list of online CPUs can't be
/// read, or if the walk that followed a change of the list came too early.
const REDISCOVER: Nanos = Nanos::from_secs(60);

/// For this long after a sleep, the end of the sleep still counts as the present time.
const FRESH: Nanos = Nanos::from_micros(500);

/// A BPF backend, ready to scan.
pub(crate) struct BpfBackend {
    kind: Kind,
    watch: Watch,
    walk: BpfIter,
    /// The program of the cheap check; `None` if the kernel rejects it.
    runnable: Option<Program>,
    /// The program that reads one queue; `None` if the kernel rejects it.
    reader: Option<Reader>,
    queues: SharedArray<queue>,
    buffer: Box<[u8]>,
    /// The time of the last walk.
    walked: Nanos,
    /// A CPU may have come online since then.
    seeks_cpus: bool,
    online: Option<OnlineCpus>,
    tracking: Option<Tracking>,
    remarks: Vec<String>,
}

/// The most pauses of a walk. A walk over the largest possible number of tasks makes four.
const MAX_PAUSES: u32 = 16;

/// The parts that `queue_track` has and `task_iter` does not.
struct Tracking {
    attach_helper: AttachHelper,
    losses: OwnedFd,
    losses_logged: u64,
}

impl BpfBackend {
    pub(crate) fn open(kind: Kind, watch: Watch) -> Result<BpfBackend> {
        let settings = settings { own_threads: watch.own_threads.into(), ..settings_for(kind) };
        let mut remarks = Vec::new();
        let (object, reads, refusal) = load_best(kind, &settings)?;
        if let Some(refusal) = refusal {
            let what = match reads {
                Reads::Nothing => "every scan walks all tasks",
                _ => "scans walk all tasks while a task may be waiting",
            };
            remarks.push(format!("{}: {what}, because the queues can't be read: {refusal}", kind.name()));
        }
        let queues = object.take_map(c"queues")?;
        let tracking = match kind {
            Kind::QueueTrack => Some(Tracking {
                attach_helper: attach(&object)?,
                losses: object.take_map(c".data.losses")?,
                losses_logged: 0,
            }),
            _ => None,
        };
        let mut backend = BpfBackend {
            kind,
            watch,
            walk: object.take_program(c"walk")?.link_iterator().context("make an iterator over all tasks")?,
            runnable: match reads {
                Reads::Nothing => None,
                _ => Some(object.take_program(c"runnable")?),
            },
            reader: if reads == Reads::Tasks { Some(Reader::of(&object)?) } else { None },
            queues: SharedArray::map(queues.as_fd(), settings.cpus as usize)
                .context("map what the BPF programs write")?,
            // Not zeros, whose pages would become present only in a later walk.
            buffer: vec![1; CHUNK].into_boxed_slice(),
            walked: Nanos::ZERO,
            seeks_cpus: false,
            online: OnlineCpus::open(clock::monotonic()),
            tracking,
            remarks,
        };
        backend.prove()?;
        Ok(backend)
    }

    /// Loads the programs and drops them, to check that the kernel accepts them.
    pub(super) fn try_load(kind: Kind) -> Result<()> {
        load_best(kind, &settings_for(kind)).map(drop)
    }

    /// Returns the name of each program, and the verifier's statistics for it.
    pub(super) fn verified(kind: Kind) -> Result<Vec<(String, String)>> {
        let settings = settings_for(kind);
        let try_with = |reads: Reads| -> Result<Vec<(String, String)>> {
            let mut names = vec![c"walk"];
            names.extend((reads >= Reads::Counts).then_some(c"runnable"));
            names.extend((reads >= Reads::Tasks).then_some(c"tasks_of_queue"));
            names.extend((kind == Kind::QueueTrack).then_some(EVENTS).into_iter().flatten());
            let figures = open(&settings, reads)?.load_with_figures(&names)?;
            let names = names.iter().map(|name| name.to_string_lossy().into_owned());
            Ok(names.zip(figures).collect())
        };
        first_that_works(kind, try_with).map(|(figures, ..)| figures)
    }

    /// Scans once, so that a backend that can't scan is rejected now, not when a task starves.
    fn prove(&mut self) -> Result<()> {
        let now = self.walk(&mut Snapshot::default())?;
        if now.is_none() && self.kind == Kind::TaskIter {
            return Err(Error::new(
                "this kernel does not record when a task is queued (no CONFIG_SCHED_INFO, or delay \
                 accounting is off: boot without 'nodelayacct', or with 'delayacct'); use -b queue_track",
            ));
        }
        Ok(())
    }

    /// Makes the cheap check: reads how many tasks each CPU has. Returns whether a task can be
    /// waiting; `None` if it is unknown.
    fn ask(&mut self, load: &mut Vec<Load>) -> Option<bool> {
        let own_cpu = self.count_all()?;
        // Read it each time, because a reservation (-R) changes it.
        let own_policy = sched::get_attr(Tid(0)).ok().map(|attr| attr.policy);
        let (mut may_wait, mut knows_all) = (false, true);
        for cpu in self.watch.cpus.iter() {
            let queue = self.queues.get(cpu.0 as usize)?;
            if queue.address == 0 {
                knows_all = false;
                continue;
            }
            if queue.runnable == records::RUNNABLE_UNKNOWN {
                return None;
            }
            let (runnable, realtime) = without(own_policy.filter(|_| cpu.0 == own_cpu), queue);
            may_wait |= runnable > 1;
            load.push(Load { cpu, runnable, realtime });
        }
        (knows_all || !self.may_have_more_cpus()).then_some(may_wait)
    }

    /// Has the tasks of each queue counted. Returns the CPU on which that was done; `None` if it
    /// failed.
    fn count_all(&self) -> Option<u32> {
        let runnable = self.runnable.as_ref()?;
        let firsts = (0..self.queues.len() as u32).step_by(records::CPUS_PER_RUN as usize);
        firsts.map(|first| runnable.run(&[first.into()]).ok()).try_fold(0, |_, cpu| cpu)
    }

    /// Returns whether a CPU may have come online that was offline at every walk so far. Only a
    /// walk finds its queue.
    fn may_have_more_cpus(&mut self) -> bool {
        let now = clock::monotonic();
        let have_changed = self.online.as_mut().is_some_and(|online| online.have_changed(now));
        self.seeks_cpus |= have_changed || now - self.walked > REDISCOVER;
        self.seeks_cpus
    }

    /// Walks all tasks. Returns when this thread last got a CPU, in the clock of the run queue;
    /// `None` if that is not recorded.
    fn walk(&mut self, snapshot: &mut Snapshot) -> Result<Option<u64>> {
        let now = self.fresh_moment(Nanos::ZERO);
        self.walk_from(now, snapshot)
    }

    /// Returns the present time, at which this thread has just got its CPU. `woke` is when it last
    /// came out of a sleep. If that was long ago, it sleeps for a moment.
    fn fresh_moment(&self, woke: Nanos) -> Nanos {
        let now = clock::monotonic();
        if now - woke <= FRESH {
            return now;
        }
        clock::nap(Nanos(1));
        clock::monotonic()
    }

    fn walk_from(&mut self, at: Nanos, snapshot: &mut Snapshot) -> Result<Option<u64>> {
        snapshot.at = at;
        snapshot.load.extend(
            (self.watch.cpus.iter())
                .filter(|cpu| self.queues.get(cpu.0 as usize).is_some_and(|queue| queue.address != 0))
                .map(|cpu| Load { cpu, ..Load::default() }),
        );
        let mut now = None;
        let mut own = Tid(0);
        let mut walk = File::from(self.walk.start().context("start a walk over all tasks")?);
        let mut filled = 0;
        let mut pauses = 0;
        loop {
            let free = self.buffer.get_mut(filled..).unwrap_or_default();
            let read = match walk.read(free) {
                Ok(0) => break,
                Ok(read) => read,
                // The kernel pauses a walk after a million tasks without a record.
                Err(e) if pauses < MAX_PAUSES && is_passing(&e) => {
                    pauses += 1;
                    continue;
                }
                Err(e) => return Err(Error::io("walk over all tasks", &e)),
            };
            filled += read;
            for record in map::records::<record>(self.buffer.get(..filled).unwrap_or_default()) {
                if record.kind == records::RECORD_SELF {
                    now = Some(record.queued).filter(|&queued| queued != 0);
                    own = Tid(record.tgid);
                } else if self.watch.cpus.contains(Cpu(record.cpu)) {
                    take(&record, snapshot);
                }
            }
            let whole = filled - filled % size_of::<record>();
            self.buffer.copy_within(whole..filled, 0);
            filled -= whole;
        }
        if own == Tid(0) {
            // A task that is missing would seem to wait no longer.
            return Err(Error::new("cannot walk over all tasks: it ended before it came to this thread"));
        }
        // The walk may meet this thread last, so only now `since` can be converted from the clock
        // of the run queue.
        self.finish(now, own, snapshot);
        (snapshot.walked, self.walked, self.seeks_cpus) = (true, at, false);
        add_to_loads(snapshot);
        Ok(now)
    }

    /// Reads the queues that have at least `least` tasks. `snapshot.load` is from the cheap check.
    /// Returns false if a walk has to follow.
    fn read_queues(&self, at: Nanos, least: u32, snapshot: &mut Snapshot) -> bool {
        let Some(reader) = &self.reader else { return false };
        snapshot.at = at;
        let (mut now, mut own) = (None, Tid(0));
        for index in 0..snapshot.load.len() {
            let cpu = snapshot.load[index].cpu;
            // The load is without this thread, behind which a task may wait as well.
            let queue = self.queues.get(cpu.0 as usize).unwrap_or_default();
            if queue.runnable.max(queue.realtime) < least {
                continue;
            }
            let Some(count) = reader.read(cpu) else { return false };
            for record in (0..count).map_while(|index| reader.records.get(index)) {
                if record.kind == records::RECORD_SELF {
                    now = Some(record.queued).filter(|&queued| queued != 0);
                    own = Tid(record.tgid);
                } else {
                    take(&record, snapshot);
                }
            }
        }
        self.finish(now, own, snapshot);
        true
    }

    /// Completes a snapshot of `own` records. `now` is `snapshot.at` in the clock of the run queue.
    fn finish(&self, now: Option<u64>, own: Tid, snapshot: &mut Snapshot) {
        for waiter in &mut snapshot.waiters {
            waiter.since = match (waiter.since, now) {
                (Some(Nanos(queued)), Some(now)) if queued != 0 => {
                    Some(snapshot.at - (Nanos(now) - Nanos(queued)))
                }
                _ => None,
            };
        }
        if !self.watch.own_threads {
            snapshot.running.retain(|task| task.tgid != Some(own));
        }
        snapshot.counts_runs = self.kind == Kind::TaskIter;
        snapshot.complete = true;
    }
}

impl Backend for BpfBackend {
    fn kind(&self) -> Kind {
        self.kind
    }

    fn snapshot(&mut self, woke: Nanos, effort: Effort, snapshot: &mut Snapshot) -> Result<()> {
        snapshot.clear();
        let is_whole = effort == Effort::All || !self.watch.idle_detection;
        if !is_whole || self.reader.is_some() {
            let may_wait = self.ask(&mut snapshot.load);
            if !is_whole && (may_wait == Some(false) || may_wait.is_some() && effort == Effort::Ask) {
                snapshot.at = clock::monotonic();
                return Ok(());
            }
            // During boosts each running task counts, because it may outrank a boosted task that
            // sleeps.
            let least = if is_whole { 1 } else { 2 };
            if may_wait.is_some() && self.read_queues(self.fresh_moment(woke), least, snapshot) {
                return Ok(());
            }
            snapshot.clear();
        }
        let now = self.fresh_moment(woke);
        self.walk_from(now, snapshot).map(drop)
    }

    fn sees_loans(&self) -> bool {
        self.runnable.is_some()
    }

    fn lends_deadline(&mut self) -> bool {
        let is_counted = self.count_all().is_some();
        let queues = self.watch.cpus.iter().map_while(|cpu| self.queues.get(cpu.0 as usize));
        // A task with the rank, but without the policy, of SCHED_DEADLINE has inherited the rank.
        let mut known = queues.filter(|queue| queue.address != 0);
        is_counted && known.any(|queue| queue.prio < 0 && queue.policy != Policy::DEADLINE.0)
    }

    fn helper(&self) -> Option<Tid> {
        self.tracking.as_ref().map(|tracking| tracking.attach_helper.pid())
    }

    fn remarks(&mut self) -> Vec<String> {
        let mut remarks = std::mem::take(&mut self.remarks);
        let Some(tracking) = &mut self.tracking else { return remarks };
        match tracking.attach_helper.poll() {
            None => {}
            Some(Ok(())) => remarks.push("queue_track: scheduler events are being recorded".to_string()),
            Some(Err(e)) => remarks.push(format!(
                "{}; going on by the kernel's own records",
                Error::io("record the scheduler's events", &e)
            )),
        }
        let lost = map::read_value::<losses>(tracking.losses.as_fd()).map_or(0, |losses| losses.untracked);
        if lost > tracking.losses_logged {
            let more = lost - tracking.losses_logged;
            tracking.losses_logged = lost;
            remarks.push(format!(
                "queue_track: no room to track {more} tasks: the kernel's own records show their waits"
            ));
        }
        remarks
    }
}

/// Returns the numbers of all tasks and of real-time tasks on a queue, without the scanning thread.
/// `scanner` is the policy of that thread if it is on this CPU.
///
/// While real-time tasks are throttled (50 ms a second by default), the kernel leaves them out of
/// the first number. Scans that are whole seconds apart may all fall into that phase, so the larger
/// number counts.
fn without(scanner: Option<Policy>, queue: queue) -> (u32, u32) {
    let is_realtime = scanner.is_some_and(Policy::is_realtime);
    let realtime = queue.realtime.saturating_sub(u32::from(is_realtime));
    let runnable = queue.runnable.saturating_sub(u32::from(scanner.is_some()));
    (runnable.max(realtime), realtime)
}

/// Counts each task of a snapshot in the load of its CPU.
fn add_to_loads(snapshot: &mut Snapshot) {
    for task in snapshot.waiters.iter().map(|waiter| &waiter.task).chain(&snapshot.running) {
        if let Ok(index) = snapshot.load.binary_search_by_key(&task.cpu, |load| load.cpu) {
            snapshot.load[index].runnable += 1;
            snapshot.load[index].realtime += u32::from(task.sched.is_realtime());
        }
    }
}

fn is_passing(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::EAGAIN | libc::EINTR))
}

fn take(record: &record, snapshot: &mut Snapshot) {
    let task = Task {
        tid: Tid(record.tid),
        tgid: Some(Tid(record.tgid)),
        cpu: Cpu(record.cpu),
        start: record.start / CLOCK_TICK_NS,
        progress: record.progress,
        sched: Sched { policy: Some(Policy(record.policy)), prio: record.prio },
        misranked: record.misranked != 0,
        owner: match record.owner.into() {
            records::OWNER_KERNEL => Owner::Kernel,
            records::OWNER_PRIVILEGED => Owner::Privileged,
            _ => Owner::User(record.uid),
        },
        comm: Comm::new(&record.comm),
    };
    match record.kind {
        records::RECORD_WAITS => snapshot.waiters.push(Waiter { task, since: Some(Nanos(record.queued)) }),
        records::RECORD_RUNS => snapshot.running.push(task),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn throttled_tasks_count_beside_a_scanning_thread_of_any_policy() {
        let queue = |runnable, realtime| queue { runnable, realtime, ..queue::default() };
        // A hog and a victim. While they are throttled, only the scanning thread is in the first
        // number.
        for policy in [Policy::DEADLINE, Policy::OTHER] {
            assert_eq!(without(Some(policy), queue(1, 2)), (2, 2));
            assert_eq!(without(Some(policy), queue(3, 2)), (2, 2));
        }
        assert_eq!(without(Some(Policy::FIFO), queue(0, 3)), (2, 2));
        assert_eq!(without(Some(Policy::FIFO), queue(3, 3)), (2, 2));
        assert_eq!(without(None, queue(2, 2)), (2, 2));
        // The scanning thread alone, and beside a lone hog.
        assert_eq!(without(Some(Policy::FIFO), queue(1, 1)), (0, 0));
        assert_eq!(without(Some(Policy::DEADLINE), queue(2, 1)), (1, 1));
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod queue_tests;
