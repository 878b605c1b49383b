//! The events of the log: those of boosts, and the log's own. Each has a line for people and fields
//! for programs.
//!
//! An event is small, and is made without a system call or an allocation. The writer thread does
//! all slow work.

use super::Level;
use super::event_line::EventLine;
use crate::boost::event::{Event, Refusal};
use crate::boost::journal::Saved;
use crate::boost::restore::RestoreOutcome;
use crate::denylist::{Ignored, Why};
use crate::engine::Hog;
use crate::json::Value;
use crate::proc;
use crate::task::{Cpu, Nanos, Owner, Sched, Task};
use std::fmt;

/// An event that the log reports.
#[derive(Clone, Copy, Debug)]
pub enum LogEvent {
    /// An event of a boost.
    Task(Event),
    Starved {
        task: Task,
        since: Nanos,
        wait: Nanos,
        /// The line gives the wait in milliseconds too.
        exact: bool,
    },
    /// The hog of a CPU, as seen at `at`.
    Held {
        cpu: Cpu,
        hog: Hog,
        at: Nanos,
    },
    MightStarve {
        task: Task,
        wait: Nanos,
        exact: bool,
    },
    Waiting {
        task: Task,
        wait: Nanos,
    },
    Ignored(Ignored),
    Late {
        late: Nanos,
    },
    /// A scan has ended. Only the trace uses it.
    Scanned {
        begun: Nanos,
        waiting: usize,
        scanner: Scanner,
        /// The scan has reported all starving tasks on its CPUs.
        knows: bool,
    },
    Dropped {
        lines: u64,
    },
    /// Sums up the lines of a CPU and an owner that exceeded the limit in one second.
    LeftOut {
        cpu: Cpu,
        owner: Owner,
        /// The number of starving tasks.
        tasks: u64,
        /// The longest wait of these tasks.
        longest: Nanos,
        /// The number of other lines.
        others: u64,
    },
}

/// The scanner of all CPUs, or the monitor of one. The supervisor leaves waits to the monitors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scanner {
    All,
    Of(Cpu),
    Supervisor,
}

impl LogEvent {
    /// Returns the event's name in JSON and in the journal.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            LogEvent::Task(event) => name(event),
            LogEvent::Starved { .. } => "starved",
            LogEvent::Held { .. } => "held",
            LogEvent::MightStarve { .. } => "might_starve",
            LogEvent::Waiting { .. } => "waiting",
            LogEvent::Ignored(_) => "ignored",
            LogEvent::Late { .. } => "late",
            LogEvent::Scanned { .. } => "scanned",
            LogEvent::Dropped { .. } => "dropped",
            LogEvent::LeftOut { .. } => "left_out",
        }
    }

    pub(super) fn level(&self) -> Level {
        match self {
            LogEvent::Task(event) => level(event),
            LogEvent::Starved { .. }
            | LogEvent::Held { .. }
            | LogEvent::Ignored(Ignored { why: Why::Unknown, .. })
            | LogEvent::Late { .. }
            | LogEvent::Dropped { .. }
            | LogEvent::LeftOut { tasks: 1.., .. } => Level::Warning,
            LogEvent::Scanned { .. } => Level::Debug,
            _ => Level::Info,
        }
    }

    /// Returns the CPU and the owner that the limit of lines applies to. `None` for lines without a
    /// limit: failures, and answers to a signal.
    pub(super) fn owner(&self) -> Option<(Cpu, Owner)> {
        match *self {
            LogEvent::Task(Event::Over { outcome: RestoreOutcome::Failed(_), .. })
            | LogEvent::Waiting { .. }
            | LogEvent::Late { .. }
            | LogEvent::Scanned { .. }
            | LogEvent::Dropped { .. }
            | LogEvent::LeftOut { .. } => None,
            LogEvent::Task(event) => Some((event.task().cpu, event.task().owner)),
            LogEvent::Starved { task, .. }
            | LogEvent::MightStarve { task, .. }
            | LogEvent::Ignored(Ignored { task, .. }) => Some((task.cpu, task.owner)),
            LogEvent::Held { cpu, hog, .. } => Some((cpu, hog.task.owner)),
        }
    }

    /// Returns the hog's cgroup, for the events that show it. This may block in the kernel.
    pub(super) fn resolve_cgroup(&self) -> Option<String> {
        match self {
            LogEvent::Held { hog, .. } => proc::cgroup(hog.task.tid, hog.task.start),
            _ => None,
        }
    }

    /// Passes all fields to `give`. A field's name means the same in all events.
    pub(crate) fn fields(&self, cgroup: Option<&str>, give: &mut dyn FnMut(&'static str, Value)) {
        let number = |number: u64| Value::Number(number as i64);
        match *self {
            LogEvent::Task(event) => of_event(event, give),
            LogEvent::Starved { task, wait, .. }
            | LogEvent::MightStarve { task, wait, .. }
            | LogEvent::Waiting { task, wait } => {
                of_task(&task, give);
                of_sched(task.sched, ["policy", "rt_priority"], give);
                give("waited_ns", number(wait.0));
            }
            LogEvent::Held { cpu, hog, at } => {
                give("cpu", number(cpu.0.into()));
                of_hog(&hog, at, cgroup, give);
            }
            LogEvent::Ignored(ignored) => of_ignored(&ignored, give),
            LogEvent::Late { late } => give("late_ns", number(late.0)),
            LogEvent::Scanned { waiting, .. } => give("waiting", number(waiting as u64)),
            LogEvent::Dropped { lines } => give("lines", number(lines)),
            LogEvent::LeftOut { cpu, owner, tasks, longest, others } => {
                give("cpu", number(cpu.0.into()));
                if let Owner::User(uid) = owner {
                    give("uid", number(uid.into()));
                }
                give("tasks", number(tasks));
                give("waited_ns", number(longest.0));
                give("lines", number(others));
            }
        }
    }

    /// Returns the line for people.
    pub(super) fn line<'a>(&'a self, cgroup: Option<&'a str>) -> impl fmt::Display + 'a {
        EventLine { event: self, cgroup }
    }
}

/// Returns the name of a boost's event in JSON and in the journal.
fn name(event: &Event) -> &'static str {
    match event {
        Event::Boosted { .. } => "boosted",
        Event::Refused { .. } => "refused",
        Event::Over { outcome: RestoreOutcome::Restored(_), .. } => "restored",
        Event::Over { outcome: RestoreOutcome::Failed(_), .. } => "restore_failed",
        Event::Over { outcome: RestoreOutcome::ChangedByOthers(_), .. } => "left_alone",
        Event::Over { outcome: RestoreOutcome::Lowered { .. }, .. } | Event::Lowered { .. } => "lowered",
        Event::Over { outcome: RestoreOutcome::Gone | RestoreOutcome::NeverBoosted, .. } => "ended",
        Event::Adopted { .. } => "adopted",
        Event::Orphan { .. } => "orphan",
    }
}

fn level(event: &Event) -> Level {
    match event {
        Event::Over { outcome: RestoreOutcome::Failed(_), .. } => Level::Error,
        Event::Refused { .. }
        | Event::Over { outcome: RestoreOutcome::Lowered { .. }, .. }
        | Event::Lowered { .. }
        | Event::Orphan { .. } => Level::Warning,
        Event::Over { outcome: RestoreOutcome::Gone | RestoreOutcome::NeverBoosted, .. }
        | Event::Adopted { .. } => Level::Debug,
        Event::Boosted { .. } | Event::Over { .. } => Level::Info,
    }
}

/// Passes the fields of a boost's event to `give`.
fn of_event(event: Event, give: &mut dyn FnMut(&'static str, Value)) {
    of_task(event.task(), give);
    match event {
        Event::Boosted { how, .. } => give("policy", Value::Text(how.name())),
        Event::Refused { how, why, .. } => {
            give("policy", Value::Text(how.name()));
            if let Refusal::Kernel(errno) = why {
                give("errno", Value::Number(errno.into()));
            }
        }
        Event::Over { outcome: RestoreOutcome::Restored(now), task, before, after, early } => {
            if now != task.tid {
                give("now_tid", Value::Number(now.0.into()));
            }
            of_saved(&before, give);
            give("boosted_ns", Value::Number(after.0 as i64));
            give("early", Value::Flag(early));
        }
        Event::Over { outcome: RestoreOutcome::Failed(errno), .. } => {
            give("errno", Value::Number(errno.into()));
        }
        Event::Over { outcome: RestoreOutcome::ChangedByOthers(policy), .. } => {
            policy.name().inspect(|name| give("policy", Value::Text(name)));
        }
        Event::Over { outcome: RestoreOutcome::Lowered { from, .. }, before, .. }
        | Event::Lowered { from, before, .. } => {
            of_rank(&from, give);
            of_saved(&before, give);
        }
        Event::Over { outcome: RestoreOutcome::Gone | RestoreOutcome::NeverBoosted, .. } => {}
        Event::Adopted { child, policy, .. } | Event::Orphan { child, policy, .. } => {
            give("child_tid", Value::Number(child.0.into()));
            of_saved(&policy, give);
        }
    }
}

/// Passes the fields that identify a task to `give`.
pub fn of_task(task: &Task, give: &mut dyn FnMut(&'static str, Value)) {
    give("tid", Value::Number(task.tid.0.into()));
    if let Some(tgid) = task.tgid {
        give("tgid", Value::Number(tgid.0.into()));
    }
    give("comm", Value::Bytes(task.comm.as_bytes()));
    give("cpu", Value::Number(task.cpu.0.into()));
}

fn of_hog(hog: &Hog, at: Nanos, cgroup: Option<&str>, give: &mut dyn FnMut(&'static str, Value)) {
    let Hog { task, seen_since } = hog;
    give("hog_tid", Value::Number(task.tid.0.into()));
    if let Some(tgid) = task.tgid {
        give("hog_tgid", Value::Number(tgid.0.into()));
    }
    give("hog_comm", Value::Bytes(task.comm.as_bytes()));
    of_sched(task.sched, ["hog_policy", "hog_rt_priority"], give);
    give("held_ns", Value::Number((at - *seen_since).0 as i64));
    if let Some(cgroup) = cgroup {
        give("hog_cgroup", Value::Bytes(cgroup.as_bytes()));
    }
}

fn of_ignored(ignored: &Ignored, give: &mut dyn FnMut(&'static str, Value)) {
    of_task(&ignored.task, give);
    if let Why::Process(process) = ignored.why {
        give("process", Value::Bytes(process.as_bytes()));
    }
}

/// Passes the rank that a task had before it was lowered to `give`.
fn of_rank(from: &Saved, give: &mut dyn FnMut(&'static str, Value)) {
    from.policy.name().inspect(|name| give("from_policy", Value::Text(name)));
    give("from_rt_priority", Value::Number(from.priority.into()));
}

fn of_sched(sched: Sched, names: [&'static str; 2], give: &mut dyn FnMut(&'static str, Value)) {
    give(names[0], Value::Text(sched.name()));
    if sched.is_realtime() {
        give(names[1], Value::Number((99 - sched.prio).into()));
    }
}

fn of_saved(saved: &Saved, give: &mut dyn FnMut(&'static str, Value)) {
    saved.policy.name().inspect(|name| give("policy", Value::Text(name)));
    if saved.policy.is_realtime() {
        give("rt_priority", Value::Number(saved.priority.into()));
    }
}
