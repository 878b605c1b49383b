//! The lines for people.

use super::event::LogEvent;
use crate::boost::event::{Event, Refusal};
use crate::boost::journal::BoostPolicy;
use crate::boost::restore::RestoreOutcome;
use crate::denylist::{Ignored, Why};
use crate::engine::Hog;
use crate::error::Reason;
use crate::proc;
use crate::task::{Cpu, Nanos, Task, Tid};
use std::fmt::{self, Display};
use std::io;

/// The line of an event.
pub(super) struct EventLine<'a> {
    pub event: &'a LogEvent,
    pub cgroup: Option<&'a str>,
}

impl Display for EventLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match *self.event {
            LogEvent::Task(ref event) => write!(f, "{}", TaskLine(event)),
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
            LogEvent::Ignored(Ignored { task, why }) => ignored(f, &task, why),
            LogEvent::Late { late } => write!(f, "scan is {} ms later than planned", late.as_millis()),
            LogEvent::Scanned { waiting, .. } => write!(f, "{waiting} waiting"),
            LogEvent::Dropped { lines: 1 } => f.write_str("1 message was dropped"),
            LogEvent::Dropped { lines } => write!(f, "{lines} messages were dropped"),
            LogEvent::LeftOut { cpu, tasks, longest, others, .. } => left_out(f, cpu, tasks, longest, others),
        }
    }
}

/// The line of an event of a boost.
struct TaskLine<'a>(&'a Event);

impl Display for TaskLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Task { tid, comm, cpu, .. } = *self.0.task();
        match *self.0 {
            Event::Boosted { how, .. } => {
                write!(f, "boosted pid {tid} ({comm}) (cpu {cpu}) using {}", how.name())
            }
            Event::Refused { how, why, .. } => refused(f, tid, how, why),
            Event::Over { outcome: RestoreOutcome::Restored(now), before, after, early, .. } => {
                write!(f, "restored pid {tid} ({comm}) (cpu {cpu}")?;
                if now != tid {
                    write!(f, ", now {now}")?;
                }
                let why = if early { ", ended early" } else { "" };
                write!(f, ") to {before} after {} ms{why}", after.as_millis())
            }
            Event::Over { outcome: RestoreOutcome::Failed(errno), .. } => not_restored(f, tid, errno),
            Event::Over { outcome: RestoreOutcome::ChangedByOthers(policy), .. } => {
                let policy = policy.name().unwrap_or("something else");
                write!(f, "left pid {tid} ({comm}) as it is: another process has made it {policy}")
            }
            Event::Over { outcome: RestoreOutcome::Lowered { from, .. }, before, .. }
            | Event::Lowered { from, before, .. } => write!(
                f,
                "lowered pid {tid} ({comm}) (cpu {cpu}) from {from} to {before}: it got that rank by a pulse"
            ),
            Event::Over { outcome: RestoreOutcome::Gone | RestoreOutcome::NeverBoosted, .. } => {
                write!(f, "pid {tid} ({comm}) has ended during its boost")
            }
            Event::Adopted { child, policy, .. } => write!(
                f,
                "gave pid {child}, started by pid {tid} ({comm}) during its boost, its policy {policy}"
            ),
            Event::Orphan { child, policy, .. } => write!(
                f,
                "pid {child} was started during the boost of pid {tid} ({comm}) and is SCHED_OTHER; without it, it \
                 might be {policy}"
            ),
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

fn refused(f: &mut fmt::Formatter, tid: Tid, how: BoostPolicy, why: Refusal) -> fmt::Result {
    let call = match how {
        BoostPolicy::Deadline { .. } => "boost_with_deadline",
        BoostPolicy::Fifo => "boost_with_fifo",
    };
    write!(f, "{call} failed to boost pid {tid}: ")?;
    match why {
        Refusal::Kernel(proc::HIDDEN) => f.write_str("/proc hides it (hidepid), see stalld --check"),
        Refusal::Kernel(errno) => Reason(&io::Error::from_raw_os_error(errno)).fmt(f),
        Refusal::JournalFull => f.write_str("the journal is full"),
        Refusal::Gone | Refusal::IsDeadline | Refusal::Taken | Refusal::ChangedByOthers(_) => {
            f.write_str("it needs no boost any more")
        }
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

/// Shows a time as `1234.567 ms`.
pub(in crate::daemon) struct Millis(pub(in crate::daemon) Nanos);

impl Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}.{:03} ms", self.0.as_millis(), self.0.0 / 1000 % 1000)
    }
}

/// Shows ` (1234 ms)`; nothing for `None`.
struct ExactWait(Option<Nanos>);

impl Display for ExactWait {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.0 {
            Some(wait) => write!(f, " ({} ms)", wait.as_millis()),
            None => Ok(()),
        }
    }
}
