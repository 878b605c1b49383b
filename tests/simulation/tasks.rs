//! A simulated task: what the kernel knows of it, what only the machine knows, and what the
//! promises note.

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
    /// Never used twice.
    pub id: u64,
    pub tid: Tid,
    pub tgid: Tid,
    pub start: u64,
    pub parent: u64,
    pub cpu: Cpu,
    pub state: State,
    pub hidden: Hidden,
    /// Since when it has waited without running.
    pub truly: Nanos,
    /// What the kernel has on record of that.
    pub stamp: Option<Nanos>,
    pub runs: u64,
    /// As it is, ...
    pub now: Scheduled,
    /// ... and as it would be without stalld.
    pub own: Scheduled,
    /// It is real-time, and keeps its CPU.
    pub hog: bool,
    /// Boosted with DEADLINE, it gets nothing.
    pub stuck: bool,
    pub judged: Judged,
}

/// What the promises need to know of a task.
#[derive(Clone, Copy, Debug, Default)]
pub struct Judged {
    /// Since when a perfect detector would know it to wait, how many looks have missed it, and the
    /// last that has not.
    pub known: Option<Nanos>,
    pub missed: u32,
    pub seen: Nanos,
    /// The look at which it had waited for the threshold, as the machine knows, ...
    pub starved_at: Option<Nanos>,
    /// ... and as stalld has to know.
    pub due_at: Option<Nanos>,
    /// The first of the looks in a row for which that is so.
    pub due_since: Option<Nanos>,
    /// The CPU at that look.
    pub cpu: Cpu,
    pub boosted: bool,
    /// There was a hog then.
    pub outranked: bool,
    /// The look that tried to boost it.
    pub tried_at: Option<Nanos>,
    /// Nothing is promised of it before: the kernel has refused, and that was reported.
    pub refused_until: Nanos,
    /// By then its boost is to be undone, by whomever.
    pub back_by: Nanos,
    /// The kernel has refused to undo it.
    pub kept: bool,
    /// How RESET_ON_FORK has kept it from being scheduled, born to a boosted task.
    pub inherits: Option<Attr>,
    /// It was born in the middle of this turn of stalld.
    pub born_in: u64,
    pub named: bool,
    pub touched: bool,
    /// stalld has taken a rank from it that it had given itself, and gives its timer slack back.
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
            // stalld has to ask for it, which tells that a boost begins.
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
