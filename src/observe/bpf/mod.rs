//! The BPF backends: `task_iter` reads the kernel's own record of who waits, `queue_track` keeps
//! one.
//!
//! They are one program. `task_iter` attaches nothing: it walks the tasks when stalld looks, and
//! only if a question that costs a read per CPU has found one with more than one task.
//! `queue_track` has besides, for each task, its own note of when it was queued, made at every
//! scheduler event.

// As bindgen writes it.
#[allow(non_camel_case_types, clippy::unreadable_literal)]
mod records;

use super::{Backend, Effort, Kind, Load, Snapshot, Waiter, Watch};
use crate::error::{Context, Error, Result};
use crate::host::privilege;
use crate::sys::bpf::{self, AttachHelper, Iterator, Object, ObjectBytes, Program};
use crate::sys::map::{self, SharedArray};
use crate::sys::sched;
use crate::sys::{clock, cpu};
use crate::task::{Comm, Cpu, Nanos, Owner, Policy, Sched, Task, Tid};
use records::{losses, queue, record, settings};
use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};

crate::plain! {
    record { queued, progress, start, tid, tgid, cpu, prio, policy, kind, owner, misranked, spare, uid, comm }
    queue { address, runnable, realtime, prio, policy }
    losses { untracked }
}

static OBJECT: &ObjectBytes<[u8]> = &ObjectBytes(*include_bytes!(concat!(env!("OUT_DIR"), "/stalld.bpf.o")));

const EVENTS: [&CStr; 4] = [c"on_wakeup", c"on_wakeup_new", c"on_switch", c"on_exit"];

/// Tasks that can be told apart where they have to be kept by tid.
const TRACKED_BY_TID: u32 = 65_536;

/// What the kernel gives out of an iterator in one read, at most.
const CHUNK: usize = 32 * 1024;

/// /proc counts a start in these.
const CLOCK_TICK_NS: u64 = 10_000_000;

/// A CPU that comes online is noticed within this time at the latest.
const REDISCOVER: Nanos = Nanos::from_secs(60);

/// How long after a sleep the time at which the sleep ended still passes for now.
const FRESH: Nanos = Nanos::from_micros(500);

/// A BPF backend, ready to look.
pub struct BpfBackend {
    kind: Kind,
    watch: Watch,
    look: Iterator,
    /// None where the kernel refuses the program that asks.
    runnable: Option<Program>,
    queues: SharedArray<queue>,
    buffer: Box<[u8]>,
    /// When all tasks were last walked over.
    walked: Nanos,
    tracking: Option<Tracking>,
    remarks: Vec<String>,
}

/// What `queue_track` has on top of `task_iter`.
/// A walk over as many tasks as there can be gives way four times.
const GIVES_WAY: u32 = 16;

struct Tracking {
    keeper: AttachHelper,
    losses: OwnedFd,
    losses_told: u64,
}

impl BpfBackend {
    pub fn open(kind: Kind, watch: Watch) -> Result<BpfBackend> {
        let settings = settings { own_threads: watch.own_threads.into(), ..settings_for(kind) };
        let mut remarks = Vec::new();
        let (object, asks) = match load(&settings, true) {
            Ok(object) => (object, true),
            Err(refusal) => {
                let object = load(&settings, false)?;
                remarks.push(format!(
                    "{}: every look walks all tasks, because a cheaper question can't be asked: {refusal}",
                    kind.name()
                ));
                (object, false)
            }
        };
        let queues = object.take_map(c"queues")?;
        let tracking = match kind {
            Kind::QueueTrack => Some(Tracking {
                keeper: attach(&object)?,
                losses: object.take_map(c".data.losses")?,
                losses_told: 0,
            }),
            _ => None,
        };
        let mut backend = BpfBackend {
            kind,
            watch,
            look: object.take_program(c"look")?.link_iterator().context("make an iterator over all tasks")?,
            runnable: if asks { Some(object.take_program(c"runnable")?) } else { None },
            queues: SharedArray::map(queues.as_fd(), settings.cpus as usize)
                .context("map what the BPF programs write")?,
            // Not zeros: those would be pages that are first touched in some later walk.
            buffer: vec![1; CHUNK].into_boxed_slice(),
            walked: Nanos::ZERO,
            tracking,
            remarks,
        };
        backend.prove()?;
        Ok(backend)
    }

    /// Loads the programs and lets them go.
    pub fn try_load(kind: Kind) -> Result<()> {
        let settings = settings_for(kind);
        load(&settings, true).or_else(|_| load(&settings, false)).map(drop)
    }

    /// What it takes the kernel's verifier to accept each program.
    pub fn verified(kind: Kind) -> Result<Vec<(String, String)>> {
        let settings = settings_for(kind);
        let try_with = |ask: bool| -> Result<Vec<(String, String)>> {
            let mut names = vec![c"look"];
            names.extend(ask.then_some(c"runnable"));
            names.extend((kind == Kind::QueueTrack).then_some(EVENTS).into_iter().flatten());
            let figures = open(&settings, ask)?.load_with_figures(&names)?;
            let names = names.iter().map(|name| name.to_string_lossy().into_owned());
            Ok(names.zip(figures).collect())
        };
        try_with(true).or_else(|_| try_with(false))
    }

    /// Looks once: a backend that can't is refused now, not when something starves.
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

    /// Asks how many tasks each CPU has; false where nobody can be waiting, None where that is not
    /// known.
    fn ask(&mut self, load: &mut Vec<Load>) -> Option<bool> {
        let own_cpu = self.runnable.as_ref()?.run().ok()?;
        // Asked each time, because a reservation (-R) changes it.
        let own_policy = sched::get_attr(Tid(0)).ok().map(|attr| attr.policy);
        let mut somebody = false;
        for cpu in self.watch.cpus.iter() {
            let queue = self.queues.get(cpu.0 as usize)?;
            // A CPU that was offline at every walk so far. A walk finds out when it comes.
            if queue.address == 0 {
                if clock::monotonic() - self.walked > REDISCOVER {
                    return None;
                }
                continue;
            }
            if queue.runnable == records::RUNNABLE_UNKNOWN {
                return None;
            }
            let (runnable, realtime) = without(own_policy.filter(|_| cpu.0 == own_cpu), queue);
            somebody |= runnable > 1;
            load.push(Load { cpu, runnable, realtime });
        }
        Some(somebody)
    }

    /// Walks all tasks. Returns the run queue's clock at the moment when this thread last got a
    /// CPU; None where nothing keeps it.
    fn walk(&mut self, snapshot: &mut Snapshot) -> Result<Option<u64>> {
        // That moment has to be now.
        clock::nap(Nanos(1));
        self.walk_from(clock::monotonic(), snapshot)
    }

    fn walk_from(&mut self, at: Nanos, snapshot: &mut Snapshot) -> Result<Option<u64>> {
        snapshot.at = at;
        self.walked = at;
        snapshot.load.extend(
            (self.watch.cpus.iter())
                .filter(|cpu| self.queues.get(cpu.0 as usize).is_some_and(|queue| queue.address != 0))
                .map(|cpu| Load { cpu, ..Load::default() }),
        );
        let mut now = None;
        let mut own = Tid(0);
        let mut walk = File::from(self.look.start().context("start a walk over all tasks")?);
        let mut filled = 0;
        let mut gives_way = 0;
        loop {
            let free = self.buffer.get_mut(filled..).unwrap_or_default();
            let read = match walk.read(free) {
                Ok(0) => break,
                Ok(read) => read,
                // A walk gives way after a million tasks that it had nothing to say of.
                Err(e) if gives_way < GIVES_WAY && is_passing(&e) => {
                    gives_way += 1;
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
            // Who is missing would be taken to wait no longer.
            return Err(Error::new("cannot walk over all tasks: it ended before it came to this thread"));
        }
        // Until here a wait is in the run queue's clock, and this thread may have been met last.
        for waiter in &mut snapshot.waiters {
            waiter.since = match (waiter.since, now) {
                (Some(Nanos(queued)), Some(now)) if queued != 0 => Some(at - (Nanos(now) - Nanos(queued))),
                _ => None,
            };
        }
        if !self.watch.own_threads {
            snapshot.running.retain(|task| task.tgid != Some(own));
        }
        add_to_loads(snapshot);
        snapshot.complete = true;
        Ok(now)
    }
}

impl Backend for BpfBackend {
    fn kind(&self) -> Kind {
        self.kind
    }

    fn snapshot(&mut self, woke: Nanos, effort: Effort, snapshot: &mut Snapshot) -> Result<()> {
        snapshot.clear();
        if self.watch.idle_detection && effort != Effort::All {
            let somebody = self.ask(&mut snapshot.load);
            if somebody == Some(false) || somebody.is_some() && effort == Effort::Ask {
                snapshot.at = clock::monotonic();
                return Ok(());
            }
            snapshot.load.clear();
        }
        let now = clock::monotonic();
        if now - woke > FRESH { self.walk(snapshot) } else { self.walk_from(now, snapshot) }.map(drop)
    }

    fn sees_loans(&self) -> bool {
        self.runnable.is_some()
    }

    fn lends_deadline(&mut self) -> bool {
        let Some(Ok(_)) = self.runnable.as_ref().map(Program::run) else { return false };
        let queues = self.watch.cpus.iter().map_while(|cpu| self.queues.get(cpu.0 as usize));
        // The rank of a SCHED_DEADLINE task without its policy.
        queues
            .filter(|queue| queue.address != 0)
            .any(|queue| queue.prio < 0 && queue.policy != Policy::DEADLINE.0)
    }

    fn helper(&self) -> Option<Tid> {
        self.tracking.as_ref().map(|tracking| tracking.keeper.pid())
    }

    fn remarks(&mut self) -> Vec<String> {
        let mut remarks = std::mem::take(&mut self.remarks);
        let Some(tracking) = &mut self.tracking else { return remarks };
        match tracking.keeper.poll() {
            None => {}
            Some(Ok(())) => remarks.push("queue_track: scheduler events are being recorded".to_string()),
            Some(Err(e)) => remarks.push(format!(
                "{}; going on by the kernel's own records",
                Error::io("record the scheduler's events", &e)
            )),
        }
        let lost = map::read_value::<losses>(tracking.losses.as_fd()).map_or(0, |losses| losses.untracked);
        if lost > tracking.losses_told {
            let more = lost - tracking.losses_told;
            tracking.losses_told = lost;
            remarks.push(format!(
                "queue_track: no room to track {more} tasks, their waits count from the first look"
            ));
        }
        remarks
    }
}

/// Returns how many tasks a queue has, and how many of them are real-time ones, without the
/// scanning thread if that is on this CPU and has this policy.
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

fn settings_for(kind: Kind) -> settings {
    let tracking = kind == Kind::QueueTrack;
    settings {
        cpus: cpu::configured(),
        tracking: tracking.into(),
        by_tid: (tracking && !bpf::has_task_storage()).into(),
        own_threads: 0,
    }
}

fn load(settings: &settings, ask: bool) -> Result<Object> {
    let mut object = open(settings, ask)?;
    object.load().map_err(privilege::explain_bpf)?;
    Ok(object)
}

fn open(settings: &settings, ask: bool) -> Result<Object> {
    let mut object = Object::open(OBJECT, c"stalld")?;
    let tracking = settings.tracking != 0;
    object.want_program(c"runnable", ask)?;
    for event in EVENTS {
        object.want_program(event, tracking)?;
    }
    object.want_map(c"waits_by_task", tracking && settings.by_tid == 0)?;
    object.want_map(c"waits_by_tid", tracking && settings.by_tid != 0)?;
    object.set_entries(c"waits_by_tid", TRACKED_BY_TID)?;
    object.set_entries(c"queues", settings.cpus)?;
    object.set_constants(settings)?;
    Ok(object)
}

fn attach(object: &Object) -> Result<AttachHelper> {
    let programs = EVENTS.iter().map(|event| object.take_program(event)).collect::<Result<Vec<_>>>()?;
    AttachHelper::attach(&programs).context("start the process that attaches to the scheduler's events")
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
