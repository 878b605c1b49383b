//! A simulated task: its state in the kernel, its true state, which only the machine knows, and the
//! notes of the promises.

use stalld::sys::sched::Attr;
use stalld::task::{Comm, Cpu, Nanos, Owner, Policy, Sched, Task, Tid};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Asleep,
    Running,
    Queued,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hidden {
    No,
    /// On its way to another CPU.
    Migrating,
    /// Held back by a quota.
    Throttled,
}

/// How a task is scheduled, as the kernel keeps it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scheduled {
    pub attr: Attr,
    pub slack: u64,
}

#[derive(Clone, Copy, Debug)]
pub struct Life {
    /// A number that no other task ever has.
    pub id: u64,
    pub tid: Tid,
    pub tgid: Tid,
    pub start: u64,
    pub parent: u64,
    pub cpu: Cpu,
    /// The turn of stalld in which it last moved to another CPU.
    pub moved_in: u64,
    pub state: State,
    pub hidden: Hidden,
    /// Since when it has waited without running.
    pub truly: Nanos,
    /// When it was queued, by the kernel's stamp; `None` if the kernel has none.
    pub stamp: Option<Nanos>,
    pub runs: u64,
    /// When it was last given a CPU.
    pub ran_at: Nanos,
    /// When a boost that was made gives it its CPU, at the earliest.
    pub reached_at: Nanos,
    /// The CPU time that it has used.
    pub cpu_time: Nanos,
    /// How the task is scheduled now.
    pub now: Scheduled,
    /// How the task would be scheduled without stalld.
    pub own: Scheduled,
    /// It is real-time, and keeps its CPU.
    pub hog: bool,
    /// It does not get its CPU, although it is boosted.
    pub stuck: bool,
    pub judged: Judged,
}

/// The notes of the promises about a task.
#[derive(Clone, Copy, Debug, Default)]
pub struct Judged {
    /// Since when a perfect detector would know that the task waits.
    pub known: Option<Nanos>,
    /// The number of scans in a row that have missed it.
    pub missed: u32,
    /// The last scan that has seen it wait.
    pub seen: Nanos,
    /// The last scan, if the task had waited for the threshold by then in truth.
    pub starved_at: Option<Nanos>,
    /// The last scan, if stalld must know by then that the task had waited for the threshold.
    pub due_at: Option<Nanos>,
    /// The first of the scans in a row at which the task was due.
    pub due_since: Option<Nanos>,
    /// The CPU on which a scan last saw it wait.
    pub cpu: Cpu,
    pub boosted: bool,
    /// When its pulse began, its CPU, and the CPU time that it had used before.
    pub pulse: Option<(Nanos, Cpu, Nanos)>,
    /// Its CPU had a hog at the last scan.
    pub outranked: bool,
    /// The scan that tried to boost it.
    pub tried_at: Option<Nanos>,
    /// When stalld last compared how often it has run, before it boosted it.
    pub counted_at: Nanos,
    /// Until then stalld need not boost it, because the kernel has refused, and that was reported.
    pub refused_until: Nanos,
    /// By then stalld or its guardian must have restored it.
    pub back_by: Nanos,
    /// The kernel has refused to restore it.
    pub kept: bool,
    /// How it would be scheduled if the RESET_ON_FORK of its parent's boost had not prevented that.
    pub inherits: Option<Attr>,
    /// It was born in the middle of this turn of stalld.
    pub born_in: u64,
    pub named: bool,
    pub touched: bool,
    /// stalld has lowered the rank that a pulse gave this task, and writes its timer slack back.
    pub lowered: bool,
}

impl Life {
    pub fn is_foreign(&self) -> bool {
        self.now.attr != self.own.attr
    }

    pub fn waits(&self) -> bool {
        self.state == State::Queued && self.hidden == Hidden::No && self.now.attr.policy != Policy::DEADLINE
    }

    pub fn prio(&self) -> i32 {
        match self.now.attr {
            Attr { policy: Policy::DEADLINE, .. } => -1,
            Attr { priority: 0, nice, .. } => 120 + nice,
            Attr { priority, .. } => 99 - priority as i32,
        }
    }

    pub fn task(&self) -> Task {
        Task {
            tid: self.tid,
            // stalld has to ask for it, which shows that a boost begins.
            tgid: None,
            cpu: self.cpu,
            start: self.start,
            progress: self.runs,
            sched: Sched { policy: Some(self.now.attr.policy), prio: self.prio() },
            owner: if self.id % 2 == 0 { self.owner() } else { Owner::Unknown },
            misranked: false,
            comm: Comm::new(b"simulated"),
        }
    }

    pub fn owner(&self) -> Owner {
        if self.id % 4 < 2 { Owner::Privileged } else { Owner::User(1000) }
    }
}
