//! What the log tells of tasks: each thing that happens as one value, from which come the line that
//! people read and the fields that programs read.
//!
//! A value is small, and made without a call or an allocation. What takes time is done where it is
//! written.

use super::Level;
use crate::boost::event::{Event, Refusal};
use crate::boost::journal::{How, Saved};
use crate::boost::undo::Undone;
use crate::denylist::{Ignored, Why};
use crate::engine::Hog;
use crate::error::Reason;
use crate::json::Value;
use crate::proc;
use crate::task::{Cpu, Nanos, Owner, Policy, Sched, Task, Tid};
use std::{fmt, io};

#[derive(Clone, Copy, Debug)]
pub enum Told {
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
        how: How,
    },
    Refused {
        task: Task,
        how: How,
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

/// Who looks, at the waits of all CPUs, or of one. A supervisor leaves them to the monitors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Looker {
    All,
    Of(Cpu),
    Supervisor,
}

impl Told {
    /// Of what has become of a boost; None where nobody needs to hear of it.
    pub fn of(event: &Event) -> Option<Told> {
        let errno = |e: &io::Error| e.raw_os_error().unwrap_or(libc::EIO);
        Some(match *event {
            Event::Boosted { task, how } => Told::Boosted { task, how },
            Event::Refused { task, how, ref why } => match why {
                Refusal::Kernel(e) => Told::Refused { task, how, errno: Some(errno(e)) },
                Refusal::JournalFull => Told::Refused { task, how, errno: None },
                Refusal::Gone | Refusal::IsDeadline | Refusal::Taken | Refusal::ChangedByOthers(_) => {
                    return None;
                }
            },
            Event::Over { task, before, after, early, ref outcome } => match *outcome {
                Undone::Failed(ref e) => Told::RestoreFailed { task, errno: errno(e) },
                Undone::Restored(now) => Told::Restored { task, now, before, after, early },
                Undone::ChangedByOthers(policy) => Told::LeftAlone { task, policy },
                Undone::Lowered { from, .. } => Told::Lowered { task, from, before },
                Undone::Gone | Undone::NeverBoosted => Told::Ended { task },
            },
            Event::Lowered { task, from, before } => Told::Lowered { task, from, before },
            Event::Adopted { parent, child, policy } => Told::Adopted { parent, child, policy },
            Event::Orphan { parent, child, policy } => Told::Orphan { parent, child, policy },
        })
    }

    /// The name that programs know it by.
    pub fn event(&self) -> &'static str {
        match self {
            Told::Starved { .. } => "starved",
            Told::Held { .. } => "held",
            Told::MightStarve { .. } => "might_starve",
            Told::Waiting { .. } => "waiting",
            Told::Boosted { .. } => "boosted",
            Told::Refused { .. } => "refused",
            Told::Restored { .. } => "restored",
            Told::RestoreFailed { .. } => "restore_failed",
            Told::LeftAlone { .. } => "left_alone",
            Told::Lowered { .. } => "lowered",
            Told::Ended { .. } => "ended",
            Told::Adopted { .. } => "adopted",
            Told::Orphan { .. } => "orphan",
            Told::Ignored(_) => "ignored",
            Told::Late { .. } => "late",
            Told::Looked { .. } => "looked",
            Told::Dropped { .. } => "dropped",
            Told::LeftOut { .. } => "left_out",
        }
    }

    pub fn level(&self) -> Level {
        match self {
            Told::RestoreFailed { .. } => Level::Error,
            Told::Starved { .. }
            | Told::Held { .. }
            | Told::Refused { .. }
            | Told::Lowered { .. }
            | Told::Orphan { .. }
            | Told::Ignored(Ignored { why: Why::Unknown, .. })
            | Told::Late { .. }
            | Told::Dropped { .. }
            | Told::LeftOut { tasks: 1.., .. } => Level::Warning,
            Told::Ended { .. } | Told::Adopted { .. } | Told::Looked { .. } => Level::Debug,
            _ => Level::Info,
        }
    }

    /// The CPU whose tasks it is about, and their owner. `None` for what is never left out:
    /// failures, and answers to a signal.
    pub fn owner(&self) -> Option<(Cpu, Owner)> {
        match *self {
            Told::Starved { task, .. }
            | Told::MightStarve { task, .. }
            | Told::Boosted { task, .. }
            | Told::Refused { task, .. }
            | Told::Restored { task, .. }
            | Told::LeftAlone { task, .. }
            | Told::Lowered { task, .. }
            | Told::Ended { task }
            | Told::Adopted { parent: task, .. }
            | Told::Orphan { parent: task, .. }
            | Told::Ignored(Ignored { task, .. }) => Some((task.cpu, task.owner)),
            Told::Held { cpu, hog, .. } => Some((cpu, hog.task.owner)),
            Told::RestoreFailed { .. }
            | Told::Waiting { .. }
            | Told::Late { .. }
            | Told::Looked { .. }
            | Told::Dropped { .. }
            | Told::LeftOut { .. } => None,
        }
    }

    /// What has to be read up: the hog's control group. The kernel may make a reader wait.
    pub fn read_up(&self) -> Option<String> {
        match self {
            Told::Held { hog, .. } => proc::cgroup(hog.task.tid, hog.task.start),
            _ => None,
        }
    }

    /// Gives out all that programs may want to know. A name stands for the same thing in all
    /// events.
    pub fn fields(&self, cgroup: Option<&str>, give: &mut dyn FnMut(&'static str, Value)) {
        let number = |number: u64| Value::Number(number as i64);
        match *self {
            Told::Starved { task, wait, .. }
            | Told::MightStarve { task, wait, .. }
            | Told::Waiting { task, wait } => {
                of_task(&task, give);
                of_sched(task.sched, ["policy", "rt_priority"], give);
                give("waited_ns", number(wait.0));
            }
            Told::Held { cpu, hog, at } => {
                give("cpu", number(cpu.0.into()));
                give("hog_tid", number(hog.task.tid.0 as u64));
                if let Some(tgid) = hog.task.tgid {
                    give("hog_tgid", number(tgid.0 as u64));
                }
                give("hog_comm", Value::Bytes(hog.task.comm.as_bytes()));
                of_sched(hog.task.sched, ["hog_policy", "hog_rt_priority"], give);
                give("held_ns", number((at - hog.seen_since).0));
                if let Some(cgroup) = cgroup {
                    give("hog_cgroup", Value::Bytes(cgroup.as_bytes()));
                }
            }
            Told::Boosted { task, how } => {
                of_task(&task, give);
                give("policy", Value::Text(how.name()));
            }
            Told::Refused { task, how, errno } => {
                of_task(&task, give);
                give("policy", Value::Text(how.name()));
                if let Some(errno) = errno {
                    give("errno", Value::Number(errno.into()));
                }
            }
            Told::Restored { task, now, before, after, early } => {
                of_task(&task, give);
                if now != task.tid {
                    give("now_tid", number(now.0 as u64));
                }
                of_saved(&before, give);
                give("boosted_ns", number(after.0));
                give("early", Value::Flag(early));
            }
            Told::RestoreFailed { task, errno } => {
                of_task(&task, give);
                give("errno", Value::Number(errno.into()));
            }
            Told::LeftAlone { task, policy } => {
                of_task(&task, give);
                policy.name().inspect(|name| give("policy", Value::Text(name)));
            }
            Told::Lowered { task, from, before } => {
                of_task(&task, give);
                from.policy.name().inspect(|name| give("from_policy", Value::Text(name)));
                give("from_rt_priority", number(from.priority.into()));
                of_saved(&before, give);
            }
            Told::Ended { task } => of_task(&task, give),
            Told::Adopted { parent, child, policy } | Told::Orphan { parent, child, policy } => {
                of_task(&parent, give);
                give("child_tid", number(child.0 as u64));
                of_saved(&policy, give);
            }
            Told::Ignored(Ignored { task, why }) => {
                of_task(&task, give);
                if let Why::Process(process) = why {
                    give("process", Value::Bytes(process.as_bytes()));
                }
            }
            Told::Late { late } => give("late_ns", number(late.0)),
            Told::Looked { waiting, .. } => give("waiting", number(waiting as u64)),
            Told::Dropped { lines } => give("lines", number(lines)),
            Told::LeftOut { cpu, owner, tasks, longest, others } => {
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
        ForPeople { told: self, cgroup }
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

struct ForPeople<'a> {
    told: &'a Told,
    cgroup: Option<&'a str>,
}

impl fmt::Display for ForPeople<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match *self.told {
            Told::Starved { task: Task { comm, tid, cpu, .. }, wait, exact, .. } => {
                let (seconds, exact) = (wait.as_secs(), ExactWait(exact.then_some(wait)));
                write!(f, "{comm}-{tid} starved on CPU {cpu} for {seconds} seconds{exact}")
            }
            Told::Held { cpu, hog, at } => {
                let Task { comm, tid, sched, .. } = hog.task;
                write!(f, "CPU {cpu} is held by {comm}-{tid} ({sched})")?;
                if let Some(cgroup) = self.cgroup {
                    write!(f, ", cgroup {cgroup}")?;
                }
                write!(f, ", seen there for {}", Millis(at - hog.seen_since))
            }
            Told::MightStarve { task: Task { comm, tid, cpu, .. }, wait, exact } => {
                let (seconds, exact) = (wait.as_secs(), ExactWait(exact.then_some(wait)));
                write!(f, "{comm}-{tid} might starve on CPU {cpu} (waiting for {seconds} seconds){exact}")
            }
            Told::Waiting { task: Task { comm, tid, cpu, sched, .. }, wait } => {
                write!(f, "waiting: {comm}-{tid} ({sched}) on CPU {cpu} for {}", Millis(wait))
            }
            Told::Boosted { task: Task { tid, comm, cpu, .. }, how } => {
                write!(f, "boosted pid {tid} ({comm}) (cpu {cpu}) using {}", how.name())
            }
            Told::Refused { task: Task { tid, .. }, how, errno } => {
                let call = match how {
                    How::Deadline { .. } => "boost_with_deadline",
                    How::Fifo => "boost_with_fifo",
                };
                write!(f, "{call} failed to boost pid {tid}: ")?;
                match errno {
                    Some(proc::HIDDEN) => f.write_str("/proc hides it (hidepid), see stalld --check"),
                    Some(errno) => Reason(&io::Error::from_raw_os_error(errno)).fmt(f),
                    None => f.write_str("the journal is full"),
                }
            }
            Told::Restored { task: Task { tid, comm, cpu, .. }, now, before, after, early } => {
                write!(f, "restored pid {tid} ({comm}) (cpu {cpu}")?;
                if now != tid {
                    write!(f, ", now {now}")?;
                }
                let why = if early { ", ended early" } else { "" };
                write!(f, ") to {before} after {} ms{why}", after.as_millis())
            }
            Told::RestoreFailed { task: Task { tid, .. }, errno } => {
                let reason = io::Error::from_raw_os_error(errno);
                write!(f, "restore_policy: failed to restore sched policy for pid {tid}: {}", Reason(&reason))
            }
            Told::LeftAlone { task: Task { tid, comm, .. }, policy } => {
                let policy = policy.name().unwrap_or("something else");
                write!(f, "left pid {tid} ({comm}) as it is: somebody has made it {policy} meanwhile")
            }
            Told::Lowered { task: Task { tid, comm, cpu, .. }, from, before } => write!(
                f,
                "lowered pid {tid} ({comm}) (cpu {cpu}) from {from} to {before}: it got that rank by a pulse"
            ),
            Told::Ended { task: Task { tid, comm, .. } } => {
                write!(f, "pid {tid} ({comm}) has ended during its boost")
            }
            Told::Adopted { parent: Task { tid, comm, .. }, child, policy } => write!(
                f,
                "gave pid {child}, started by pid {tid} ({comm}) during its boost, its policy {policy}"
            ),
            Told::Orphan { parent: Task { tid, comm, .. }, child, policy } => write!(
                f,
                "pid {child} was started during the boost of pid {tid} ({comm}) and is SCHED_OTHER; without it, it \
                 might be {policy}"
            ),
            Told::Ignored(Ignored { task: Task { comm, tid, .. }, why }) => match why {
                Why::Name => write!(f, "Ignoring the thread {comm} from consideration for boosting"),
                Why::Unknown => write!(
                    f,
                    "Ignoring the thread {comm} ({tid}): the name of its process can't be read now, and may be on a \
                     denylist (-I)"
                ),
                Why::Process(process) => write!(
                    f,
                    "Ignoring the thread {comm} (spawned by {process}) from consideration for boosting"
                ),
            },
            Told::Late { late } => write!(f, "looked {} ms later than planned", late.as_millis()),
            Told::Looked { waiting, .. } => write!(f, "{waiting} waiting"),
            Told::Dropped { lines: 1 } => f.write_str("1 message was dropped"),
            Told::Dropped { lines } => write!(f, "{lines} messages were dropped"),
            Told::LeftOut { cpu, tasks: 0, others, .. } => {
                write!(f, "{others} more lines about tasks of CPU {cpu}")
            }
            Told::LeftOut { cpu, tasks, longest, others, .. } => {
                write!(f, "{tasks} more tasks starve on CPU {cpu}, the longest for {} s", longest.as_secs())?;
                match others {
                    0 => Ok(()),
                    _ => write!(f, "; {others} more lines about tasks of that CPU"),
                }
            }
        }
    }
}

/// `1234.567 ms`
pub struct Millis(pub Nanos);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}.{:03} ms", self.0.as_millis(), self.0.0 / 1000 % 1000)
    }
}

/// Nothing, or ` (1234 ms)`.
struct ExactWait(Option<Nanos>);

impl fmt::Display for ExactWait {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.0 {
            Some(wait) => write!(f, " ({} ms)", wait.as_millis()),
            None => Ok(()),
        }
    }
}
