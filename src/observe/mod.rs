//! Looks at the run queues: who waits on which CPU, since when, and who runs there.

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
    /// The moment its wait began, where the kernel has it on record; else the wait counts from the
    /// first look that saw it with this `task.progress`.
    pub since: Option<Nanos>,
}

/// How busy a CPU is, stalld itself left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    pub cpu: Cpu,
    /// Tasks that run or wait.
    pub runnable: u32,
    /// Those of them that are real-time.
    pub realtime: u32,
}

/// What one look saw, of the monitored CPUs only. Reused from look to look, so that a warm one
/// allocates nothing.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The moment on CLOCK_MONOTONIC that every `since` is relative to.
    pub at: Nanos,
    /// False where a cheaper question has been enough, because nobody can be waiting or no more was
    /// asked for: then only `load` is filled, and what is not in `waiters` may still wait for all
    /// this look knows.
    pub complete: bool,
    pub waiters: Vec<Waiter>,
    pub running: Vec<Task>,
    /// One for each monitored CPU that is online, in order.
    pub load: Vec<Load>,
}

impl Snapshot {
    /// With room for so many waiters, so that a look at a host that is suddenly busy need not wait
    /// for memory.
    pub fn with_room(waiters: usize) -> Snapshot {
        let task = Task { tid: Tid(-1), ..Task::default() };
        Snapshot { waiters: prefaulted_vec(waiters, Waiter { task, since: None }), ..Snapshot::default() }
    }

    pub fn clear(&mut self) {
        self.at = Nanos::ZERO;
        self.complete = false;
        self.waiters.clear();
        self.running.clear();
        self.load.clear();
    }

    /// Gives back the memory that a crowd has taken.
    pub fn shrink(&mut self) {
        self.waiters.shrink_to(ROOM);
        self.running.shrink_to(ROOM);
    }
}

/// A way to see the run queues.
pub trait Backend: Send {
    fn kind(&self) -> Kind;

    /// Looks once. `woke` is when the calling thread last came out of a sleep.
    fn snapshot(&mut self, woke: Nanos, effort: Effort, snapshot: &mut Snapshot) -> Result<()>;

    /// Returns whether `lends_deadline` can tell.
    fn sees_loans(&self) -> bool {
        false
    }

    /// Returns whether a task runs at the rank of a SCHED_DEADLINE task that waits for it.
    fn lends_deadline(&mut self) -> bool {
        false
    }

    /// A process of ours that works for it.
    fn helper(&self) -> Option<Tid> {
        None
    }

    /// Gives back the memory that a crowd has taken. Returns false if some of it is in use.
    fn shrink(&mut self) -> bool {
        true
    }

    /// Returns whether `shrink` may give back memory, though the last scans found no crowd.
    fn has_spare_memory(&self) -> bool {
        false
    }

    /// What an admin should know of since this was last asked, a sentence each.
    fn remarks(&mut self) -> Vec<String> {
        Vec::new()
    }
}

/// How much a look may leave out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// All but the cheap question whether anybody can be waiting. If somebody can, the snapshot is
    /// not complete, though a CPU has more than one runnable task.
    Ask,
    /// What is not needed if nobody can be waiting.
    Usual,
    /// Nothing.
    All,
}

/// What a backend is asked to look at.
#[derive(Clone, Debug)]
pub struct Watch {
    pub cpus: CpuSet,
    /// Ask cheaply first whether anybody can be waiting at all.
    pub idle_detection: bool,
    /// Tell of the other threads of this process too: around the library they are a program's.
    pub own_threads: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    TaskIter,
    QueueTrack,
    SchedDebug,
}

/// Opens the backend that is asked for, or the first of them that works. Returns also what the
/// others were refused for.
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

/// Whether this build has the BPF backends.
pub const HAS_BPF: bool = cfg!(feature = "bpf");

/// Whether a backend works here, found out by opening it and looking once. queue_track is only
/// loaded: to attach it may take as long as some CPU is hogged.
pub fn try_out(kind: Kind, watch: &Watch) -> Result<()> {
    match kind {
        #[cfg(feature = "bpf")]
        Kind::QueueTrack => bpf::BpfBackend::try_load(kind),
        _ => open_one(kind, watch).map(drop),
    }
}

/// The BPF programs of a backend, and what it takes the kernel's verifier to accept each; none
/// where it loads none.
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

    /// By its name, or by its one-letter name.
    pub fn from_name(name: &str) -> Option<Kind> {
        Some(match name {
            "task_iter" | "T" => Kind::TaskIter,
            "queue_track" | "Q" => Kind::QueueTrack,
            "sched_debug" | "S" => Kind::SchedDebug,
            _ => return None,
        })
    }
}
