//! Scans the run queues: which tasks wait on each CPU, since when, and which task runs there.
//!
//! A scan may begin with a cheap check of how many tasks are runnable. The scan goes on and reads
//! tasks only if one of them can be waiting.

#[cfg(feature = "bpf")]
pub mod bpf;
pub mod sched_debug;
mod share;

pub use share::Shared;

use crate::cpus::CpuSet;
use crate::error::{Error, Result};
use crate::room::{ROOM, prefaulted_vec};
use crate::task::{Cpu, Nanos, Task, Tid};

/// A task that is queued on a CPU and not running.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiter {
    pub task: Task,
    /// The start of the wait, if the kernel records it. Without a record, the wait counts from the
    /// first scan that saw the task with this `task.progress`.
    pub since: Option<Nanos>,
}

/// The load of a CPU, without stalld itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    pub cpu: Cpu,
    /// Tasks that run or wait.
    pub runnable: u32,
    /// The real-time tasks among them.
    pub realtime: u32,
}

/// The result of one scan, for the monitored CPUs only. It is reused, so that later scans need not
/// allocate.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The moment on CLOCK_MONOTONIC that every `since` is relative to.
    pub at: Nanos,
    /// False if the scan ended after the cheap check, because no task can be waiting or because no
    /// more was requested. Then only `load` is filled, and an empty `waiters` does not prove that
    /// no task waits.
    pub complete: bool,
    /// Whether the scan read all tasks of the machine, and not only its run queues.
    pub walked: bool,
    /// Whether `Task::progress` is how often the task has been given a CPU, as in
    /// /proc/TID/schedstat.
    pub counts_runs: bool,
    pub waiters: Vec<Waiter>,
    pub running: Vec<Task>,
    /// One for each monitored CPU that is online, in order.
    pub load: Vec<Load>,
}

impl Snapshot {
    /// Makes a snapshot with memory for this many waiters, so that a scan of a host that is
    /// suddenly busy need not wait for memory.
    pub fn with_room(waiters: usize) -> Snapshot {
        let task = Task { tid: Tid(-1), ..Task::default() };
        Snapshot { waiters: prefaulted_vec(waiters, Waiter { task, since: None }), ..Snapshot::default() }
    }

    pub fn clear(&mut self) {
        self.at = Nanos::ZERO;
        self.complete = false;
        self.walked = false;
        self.counts_runs = false;
        self.waiters.clear();
        self.running.clear();
        self.load.clear();
    }

    /// Frees the memory beyond `ROOM` tasks.
    pub fn shrink(&mut self) {
        self.waiters.shrink_to(ROOM);
        self.running.shrink_to(ROOM);
    }
}

/// A way to read the run queues.
pub trait Backend: Send {
    fn kind(&self) -> Kind;

    /// Scans once. `woke` is when the calling thread last came out of a sleep.
    fn snapshot(&mut self, woke: Nanos, effort: Effort, snapshot: &mut Snapshot) -> Result<()>;

    /// Returns whether this backend supports `lends_deadline`.
    fn sees_loans(&self) -> bool {
        false
    }

    /// Returns whether a running task has inherited the rank of a SCHED_DEADLINE task, which waits
    /// for a lock of it.
    fn lends_deadline(&mut self) -> bool {
        false
    }

    /// Returns the helper process of the backend, if it has one.
    fn helper(&self) -> Option<Tid> {
        None
    }

    /// Frees the memory that only a scan of very many tasks needs. Returns false if some of it is
    /// in use.
    fn shrink(&mut self) -> bool {
        true
    }

    /// Returns whether `shrink` may free memory, though the last scans found few tasks.
    fn has_spare_memory(&self) -> bool {
        false
    }

    /// Returns messages for the administrator that are new since the last call, one sentence each.
    fn remarks(&mut self) -> Vec<String> {
        Vec::new()
    }
}

/// How much work a scan does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// The cheap check only. The snapshot need not be complete, even if a CPU has more than one
    /// runnable task.
    Ask,
    /// The cheap check, and the rest of the scan if a task can be waiting.
    Usual,
    /// The whole scan, even if no task can be waiting.
    All,
}

/// The CPUs and tasks that a backend scans.
#[derive(Clone, Debug)]
pub struct Watch {
    pub cpus: CpuSet,
    /// Whether a scan begins with the cheap check.
    pub idle_detection: bool,
    /// Whether to report the other threads of this process, too. In a program that uses the
    /// library, they are the program's own.
    pub own_threads: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    TaskIter,
    QueueTrack,
    SchedDebug,
}

/// Opens the chosen backend or, without a choice, the first one that works. Returns also the errors
/// of the backends that failed.
pub fn open(choice: Option<Kind>, watch: &Watch) -> Result<(Box<dyn Backend>, Vec<Error>)> {
    let mut refusals = Vec::new();
    for kind in choice.map_or(Kind::ALL.to_vec(), |kind| vec![kind]) {
        match open_one(kind, watch) {
            Ok(backend) => return Ok((backend, refusals)),
            Err(e) => refusals.push(e.of(kind.name())),
        }
    }
    match (refusals.pop(), refusals.is_empty()) {
        (Some(only), true) => Err(only),
        (last, _) => {
            let all: Vec<String> = refusals.iter().chain(&last).map(Error::to_string).collect();
            let errno = refusals.iter().chain(&last).find_map(Error::errno);
            Err(Error::new(format!("no backend works here: {}", all.join("; "))).with_errno(errno))
        }
    }
}

/// Whether this build includes the BPF backends.
pub const HAS_BPF: bool = cfg!(feature = "bpf");

/// Checks whether a backend works here, by opening it and scanning once. The programs of
/// queue_track are only loaded, because a hog can delay attaching them without limit.
pub fn try_out(kind: Kind, watch: &Watch) -> Result<()> {
    match kind {
        #[cfg(feature = "bpf")]
        Kind::QueueTrack => bpf::BpfBackend::try_load(kind),
        _ => open_one(kind, watch).map(drop),
    }
}

/// Returns the names of a backend's BPF programs, each with the statistics of the kernel's
/// verifier; none for a backend without programs.
pub fn verified(kind: Kind) -> Vec<(String, String)> {
    match kind {
        #[cfg(feature = "bpf")]
        Kind::TaskIter | Kind::QueueTrack => bpf::BpfBackend::verified(kind).unwrap_or_default(),
        _ => Vec::new(),
    }
}

fn open_one(kind: Kind, watch: &Watch) -> Result<Box<dyn Backend>> {
    match kind {
        #[cfg(feature = "bpf")]
        Kind::TaskIter | Kind::QueueTrack => Ok(Box::new(bpf::BpfBackend::open(kind, watch.clone())?)),
        #[cfg(not(feature = "bpf"))]
        Kind::TaskIter | Kind::QueueTrack => {
            Err(Error::new("this stalld was built without BPF; use -b sched_debug"))
        }
        Kind::SchedDebug => Ok(Box::new(sched_debug::SchedDebug::open(watch)?)),
    }
}

impl Kind {
    pub const ALL: [Kind; 3] = [Kind::TaskIter, Kind::QueueTrack, Kind::SchedDebug];

    pub fn name(self) -> &'static str {
        match self {
            Kind::TaskIter => "task_iter",
            Kind::QueueTrack => "queue_track",
            Kind::SchedDebug => "sched_debug",
        }
    }

    /// Returns the backend with this name, or with this one-letter name.
    pub fn from_name(name: &str) -> Option<Kind> {
        Some(match name {
            "task_iter" | "T" => Kind::TaskIter,
            "queue_track" | "Q" => Kind::QueueTrack,
            "sched_debug" | "S" => Kind::SchedDebug,
            _ => return None,
        })
    }
}
