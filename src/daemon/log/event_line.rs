//! The lines that people read about tasks.

use super::event::LogEvent;
use crate::boost::journal::BoostPolicy;
use crate::denylist::{Ignored, Why};
use crate::engine::Hog;
use crate::error::Reason;
use crate::proc;
use crate::task::{Cpu, Nanos, Task, Tid};
use std::fmt::{self, Display};
use std::io;

/// The line of an event.
pub struct Line<'a> {
    pub told: &'a LogEvent,
    pub cgroup: Option<&'a str>,
}

impl Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match *self.told {
            LogEvent::Starved { task: Task { comm, tid, cpu, .. }, wait, exact, .. } => {
                let (seconds, exact) = (wait.as_secs(), ExactWait(exact.then_some(wait)));
                write!(f, "{comm}-{tid} starved on CPU {cpu} for {seconds} seconds{exact}")
            }
            LogEvent::Held { cpu, hog, at } => held(f, cpu, &hog, at, self.cgroup),
            LogEvent::MightStarve { task: Task { comm, tid, cpu, .. }, wait, exact } => {
                let (seconds, exact) = (wait.as_secs(), ExactWait(exact.then_some(wait)));
                write!(f, "{comm}-{tid} might starve on CPU {cpu} (waiting for {seconds} seconds){exact}")
            }
            LogEvent::Waiting { task: Task { comm, tid, cpu, sched, .. }, wait } => {
                write!(f, "waiting: {comm}-{tid} ({sched}) on CPU {cpu} for {}", Millis(wait))
            }
            LogEvent::Boosted { task: Task { tid, comm, cpu, .. }, how } => {
                write!(f, "boosted pid {tid} ({comm}) (cpu {cpu}) using {}", how.name())
            }
            LogEvent::Refused { task, how, errno } => refused(f, task.tid, how, errno),
            LogEvent::Restored { task: Task { tid, comm, cpu, .. }, now, before, after, early } => {
                write!(f, "restored pid {tid} ({comm}) (cpu {cpu}")?;
                if now != tid {
                    write!(f, ", now {now}")?;
                }
                let why = if early { ", ended early" } else { "" };
                write!(f, ") to {before} after {} ms{why}", after.as_millis())
            }
            LogEvent::RestoreFailed { task, errno } => not_restored(f, task.tid, errno),
            LogEvent::LeftAlone { task: Task { tid, comm, .. }, policy } => {
                let policy = policy.name().unwrap_or("something else");
                write!(f, "left pid {tid} ({comm}) as it is: somebody has made it {policy} meanwhile")
            }
            LogEvent::Lowered { task: Task { tid, comm, cpu, .. }, from, before } => write!(
                f,
                "lowered pid {tid} ({comm}) (cpu {cpu}) from {from} to {before}: it got that rank by a pulse"
            ),
            LogEvent::Ended { task: Task { tid, comm, .. } } => {
                write!(f, "pid {tid} ({comm}) has ended during its boost")
            }
            LogEvent::Adopted { parent: Task { tid, comm, .. }, child, policy } => write!(
                f,
                "gave pid {child}, started by pid {tid} ({comm}) during its boost, its policy {policy}"
            ),
            LogEvent::Orphan { parent: Task { tid, comm, .. }, child, policy } => write!(
                f,
                "pid {child} was started during the boost of pid {tid} ({comm}) and is SCHED_OTHER; without it, it \
                 might be {policy}"
            ),
            LogEvent::Ignored(Ignored { task, why }) => ignored(f, &task, why),
            LogEvent::Late { late } => write!(f, "looked {} ms later than planned", late.as_millis()),
            LogEvent::Looked { waiting, .. } => write!(f, "{waiting} waiting"),
            LogEvent::Dropped { lines: 1 } => f.write_str("1 message was dropped"),
            LogEvent::Dropped { lines } => write!(f, "{lines} messages were dropped"),
            LogEvent::LeftOut { cpu, tasks, longest, others, .. } => left_out(f, cpu, tasks, longest, others),
        }
    }
}

fn held(f: &mut fmt::Formatter, cpu: Cpu, hog: &Hog, at: Nanos, cgroup: Option<&str>) -> fmt::Result {
    let Task { comm, tid, sched, .. } = hog.task;
    write!(f, "CPU {cpu} is held by {comm}-{tid} ({sched})")?;
    if let Some(cgroup) = cgroup {
        write!(f, ", cgroup {cgroup}")?;
    }
    write!(f, ", seen there for {}", Millis(at - hog.seen_since))
}

fn refused(f: &mut fmt::Formatter, tid: Tid, how: BoostPolicy, errno: Option<i32>) -> fmt::Result {
    let call = match how {
        BoostPolicy::Deadline { .. } => "boost_with_deadline",
        BoostPolicy::Fifo => "boost_with_fifo",
    };
    write!(f, "{call} failed to boost pid {tid}: ")?;
    match errno {
        Some(proc::HIDDEN) => f.write_str("/proc hides it (hidepid), see stalld --check"),
        Some(errno) => Reason(&io::Error::from_raw_os_error(errno)).fmt(f),
        None => f.write_str("the journal is full"),
    }
}

fn not_restored(f: &mut fmt::Formatter, tid: Tid, errno: i32) -> fmt::Result {
    let reason = io::Error::from_raw_os_error(errno);
    write!(f, "restore_policy: failed to restore sched policy for pid {tid}: {}", Reason(&reason))
}

fn ignored(f: &mut fmt::Formatter, task: &Task, why: Why) -> fmt::Result {
    let Task { comm, tid, .. } = task;
    match why {
        Why::Name => write!(f, "Ignoring the thread {comm} from consideration for boosting"),
        Why::Unknown => write!(
            f,
            "Ignoring the thread {comm} ({tid}): the name of its process can't be read now, and may be on a \
             denylist (-I)"
        ),
        Why::Process(process) => {
            write!(f, "Ignoring the thread {comm} (spawned by {process}) from consideration for boosting")
        }
    }
}

fn left_out(f: &mut fmt::Formatter, cpu: Cpu, tasks: u64, longest: Nanos, others: u64) -> fmt::Result {
    if tasks == 0 {
        return write!(f, "{others} more lines about tasks of CPU {cpu}");
    }
    write!(f, "{tasks} more tasks starve on CPU {cpu}, the longest for {} s", longest.as_secs())?;
    match others {
        0 => Ok(()),
        _ => write!(f, "; {others} more lines about tasks of that CPU"),
    }
}

/// `1234.567 ms`
pub struct Millis(pub Nanos);

impl Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}.{:03} ms", self.0.as_millis(), self.0.0 / 1000 % 1000)
    }
}

/// Nothing, or ` (1234 ms)`.
struct ExactWait(Option<Nanos>);

impl Display for ExactWait {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.0 {
            Some(wait) => write!(f, " ({} ms)", wait.as_millis()),
            None => Ok(()),
        }
    }
}
