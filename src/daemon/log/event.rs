//! What the log tells of tasks: each thing that happens as one value, from which come the line that
//! people read and the fields that programs read.
//!
//! A value is small, and made without a call or an allocation. What takes time is done where it is
//! written.

use super::Level;
use super::event_line::Line;
use crate::boost::event::{Event, Refusal};
use crate::boost::journal::{BoostPolicy, Saved};
use crate::boost::restore::RestoreOutcome;
use crate::denylist::{Ignored, Why};
use crate::engine::Hog;
use crate::json::Value;
use crate::proc;
use crate::task::{Cpu, Nanos, Owner, Policy, Sched, Task, Tid};
use std::{fmt, io};

#[derive(Clone, Copy, Debug)]
pub enum LogEvent {
    Starved {
        task: Task,
        since: Nanos,
        wait: Nanos,
        /// The line gives the wait to the millisecond.
        exact: bool,
    },
    /// Which task holds a CPU, as it was seen at this moment.
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
    Boosted {
        task: Task,
        how: BoostPolicy,
    },
    Refused {
        task: Task,
        how: BoostPolicy,
        /// None if there was no room to note it.
        errno: Option<i32>,
    },
    Restored {
        task: Task,
        /// The number that it has by now.
        now: Tid,
        before: Saved,
        after: Nanos,
        early: bool,
    },
    RestoreFailed {
        task: Task,
        errno: i32,
    },
    LeftAlone {
        task: Task,
        policy: Policy,
    },
    Lowered {
        task: Task,
        from: Saved,
        before: Saved,
    },
    Ended {
        task: Task,
    },
    Adopted {
        parent: Task,
        child: Tid,
        policy: Saved,
    },
    Orphan {
        parent: Task,
        child: Tid,
        policy: Saved,
    },
    Ignored(Ignored),
    Late {
        late: Nanos,
    },
    /// A look is over. It is of use to a trace only.
    Looked {
        begun: Nanos,
        waiting: usize,
        looker: Looker,
        /// It has told of all who starve, as far as they are the looker's business.
        knows: bool,
    },
    Dropped {
        lines: u64,
    },
    /// Lines of a CPU in one second that were too many for the log.
    LeftOut {
        cpu: Cpu,
        owner: Owner,
        /// Starving tasks, and the longest wait of one of them.
        tasks: u64,
        longest: Nanos,
        /// Lines of anything else.
        others: u64,
    },
}

/// The scanner: of all CPUs, or the monitor of one. A supervisor leaves waits to the monitors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Looker {
    All,
    Of(Cpu),
    Supervisor,
}

impl LogEvent {
    /// Returns what the log writes of an event of a boost; `None` if it writes nothing.
    pub fn of(event: &Event) -> Option<LogEvent> {
        let errno = |e: &io::Error| e.raw_os_error().unwrap_or(libc::EIO);
        Some(match *event {
            Event::Boosted { task, how } => LogEvent::Boosted { task, how },
            Event::Refused { task, how, ref why } => match why {
                Refusal::Kernel(e) => LogEvent::Refused { task, how, errno: Some(errno(e)) },
                Refusal::JournalFull => LogEvent::Refused { task, how, errno: None },
                Refusal::Gone | Refusal::IsDeadline | Refusal::Taken | Refusal::ChangedByOthers(_) => {
                    return None;
                }
            },
            Event::Over { task, before, after, early, ref outcome } => match *outcome {
                RestoreOutcome::Failed(ref e) => LogEvent::RestoreFailed { task, errno: errno(e) },
                RestoreOutcome::Restored(now) => LogEvent::Restored { task, now, before, after, early },
                RestoreOutcome::ChangedByOthers(policy) => LogEvent::LeftAlone { task, policy },
                RestoreOutcome::Lowered { from, .. } => LogEvent::Lowered { task, from, before },
                RestoreOutcome::Gone | RestoreOutcome::NeverBoosted => LogEvent::Ended { task },
            },
            Event::Lowered { task, from, before } => LogEvent::Lowered { task, from, before },
            Event::Adopted { parent, child, policy } => LogEvent::Adopted { parent, child, policy },
            Event::Orphan { parent, child, policy } => LogEvent::Orphan { parent, child, policy },
        })
    }

    /// The name that programs know it by.
    pub fn event(&self) -> &'static str {
        match self {
            LogEvent::Starved { .. } => "starved",
            LogEvent::Held { .. } => "held",
            LogEvent::MightStarve { .. } => "might_starve",
            LogEvent::Waiting { .. } => "waiting",
            LogEvent::Boosted { .. } => "boosted",
            LogEvent::Refused { .. } => "refused",
            LogEvent::Restored { .. } => "restored",
            LogEvent::RestoreFailed { .. } => "restore_failed",
            LogEvent::LeftAlone { .. } => "left_alone",
            LogEvent::Lowered { .. } => "lowered",
            LogEvent::Ended { .. } => "ended",
            LogEvent::Adopted { .. } => "adopted",
            LogEvent::Orphan { .. } => "orphan",
            LogEvent::Ignored(_) => "ignored",
            LogEvent::Late { .. } => "late",
            LogEvent::Looked { .. } => "looked",
            LogEvent::Dropped { .. } => "dropped",
            LogEvent::LeftOut { .. } => "left_out",
        }
    }

    pub fn level(&self) -> Level {
        match self {
            LogEvent::RestoreFailed { .. } => Level::Error,
            LogEvent::Starved { .. }
            | LogEvent::Held { .. }
            | LogEvent::Refused { .. }
            | LogEvent::Lowered { .. }
            | LogEvent::Orphan { .. }
            | LogEvent::Ignored(Ignored { why: Why::Unknown, .. })
            | LogEvent::Late { .. }
            | LogEvent::Dropped { .. }
            | LogEvent::LeftOut { tasks: 1.., .. } => Level::Warning,
            LogEvent::Ended { .. } | LogEvent::Adopted { .. } | LogEvent::Looked { .. } => Level::Debug,
            _ => Level::Info,
        }
    }

    /// The CPU whose tasks it is about, and their owner. `None` for what is never left out:
    /// failures, and answers to a signal.
    pub fn owner(&self) -> Option<(Cpu, Owner)> {
        match *self {
            LogEvent::Starved { task, .. }
            | LogEvent::MightStarve { task, .. }
            | LogEvent::Boosted { task, .. }
            | LogEvent::Refused { task, .. }
            | LogEvent::Restored { task, .. }
            | LogEvent::LeftAlone { task, .. }
            | LogEvent::Lowered { task, .. }
            | LogEvent::Ended { task }
            | LogEvent::Adopted { parent: task, .. }
            | LogEvent::Orphan { parent: task, .. }
            | LogEvent::Ignored(Ignored { task, .. }) => Some((task.cpu, task.owner)),
            LogEvent::Held { cpu, hog, .. } => Some((cpu, hog.task.owner)),
            LogEvent::RestoreFailed { .. }
            | LogEvent::Waiting { .. }
            | LogEvent::Late { .. }
            | LogEvent::Looked { .. }
            | LogEvent::Dropped { .. }
            | LogEvent::LeftOut { .. } => None,
        }
    }

    /// What has to be read up: the hog's control group. The kernel may make a reader wait.
    pub fn read_up(&self) -> Option<String> {
        match self {
            LogEvent::Held { hog, .. } => proc::cgroup(hog.task.tid, hog.task.start),
            _ => None,
        }
    }

    /// Gives out all that programs may want to know. A name stands for the same thing in all
    /// events.
    pub fn fields(&self, cgroup: Option<&str>, give: &mut dyn FnMut(&'static str, Value)) {
        let number = |number: u64| Value::Number(number as i64);
        match *self {
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
            LogEvent::Boosted { task, how } => of_attempt(&task, how, None, give),
            LogEvent::Refused { task, how, errno } => of_attempt(&task, how, errno, give),
            LogEvent::Restored { task, now, before, after, early } => {
                of_task(&task, give);
                if now != task.tid {
                    give("now_tid", number(now.0 as u64));
                }
                of_saved(&before, give);
                give("boosted_ns", number(after.0));
                give("early", Value::Flag(early));
            }
            LogEvent::RestoreFailed { task, errno } => {
                of_task(&task, give);
                give("errno", Value::Number(errno.into()));
            }
            LogEvent::LeftAlone { task, policy } => {
                of_task(&task, give);
                policy.name().inspect(|name| give("policy", Value::Text(name)));
            }
            LogEvent::Lowered { task, from, before } => {
                of_task(&task, give);
                of_rank(&from, give);
                of_saved(&before, give);
            }
            LogEvent::Ended { task } => of_task(&task, give),
            LogEvent::Adopted { parent, child, policy } | LogEvent::Orphan { parent, child, policy } => {
                of_task(&parent, give);
                give("child_tid", number(child.0 as u64));
                of_saved(&policy, give);
            }
            LogEvent::Ignored(ignored) => of_ignored(&ignored, give),
            LogEvent::Late { late } => give("late_ns", number(late.0)),
            LogEvent::Looked { waiting, .. } => give("waiting", number(waiting as u64)),
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

    /// The line that people read.
    pub fn line<'a>(&'a self, cgroup: Option<&'a str>) -> impl fmt::Display + 'a {
        Line { told: self, cgroup }
    }
}

fn of_task(task: &Task, give: &mut dyn FnMut(&'static str, Value)) {
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

/// Gives out a boost, or the failure of one.
fn of_attempt(task: &Task, how: BoostPolicy, errno: Option<i32>, give: &mut dyn FnMut(&'static str, Value)) {
    of_task(task, give);
    give("policy", Value::Text(how.name()));
    if let Some(errno) = errno {
        give("errno", Value::Number(errno.into()));
    }
}

fn of_ignored(ignored: &Ignored, give: &mut dyn FnMut(&'static str, Value)) {
    of_task(&ignored.task, give);
    if let Why::Process(process) = ignored.why {
        give("process", Value::Bytes(process.as_bytes()));
    }
}

/// Gives out the rank that a task had until it was lowered.
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
