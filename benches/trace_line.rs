//! One event of the kernel's trace, and how its line is read.

use stalld::task::{Comm, Cpu, Nanos, Policy, Tid};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    pub at: Nanos,
    /// The CPU on which it happened.
    pub cpu: Cpu,
    pub kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A CPU switches to another task. `stays` is true if the previous one is still queued.
    Switch {
        from: Tid,
        from_prio: i32,
        stays: bool,
        to: Tid,
        to_prio: i32,
        to_name: Comm,
    },
    Wakeup(Tid),
    /// The first wakeup of a new task, which may reuse the tid of an earlier one.
    Birth(Tid),
    Exit(Tid),
    /// A call of sched_setattr(2): stalld uses it only to boost by SCHED_DEADLINE.
    SetAttr {
        by: Tid,
        of: Tid,
    },
    /// A call of sched_setscheduler(2): stalld uses it to restore a task and to begin a pulse.
    SetScheduler {
        by: Tid,
        of: Tid,
        policy: Policy,
    },
}

/// Reads a line of the trace. Returns `None` if it is no event of the kinds above.
pub fn read(line: &str) -> Option<Event> {
    // The form is `name-pid [cpu] flags time: event`, and the name may hold blanks.
    let (head, event) = line.split_once(": ")?;
    let (caller, time) = head.rsplit_once(' ')?;
    let (seconds, micros) = time.split_once('.')?;
    let at = Nanos::from_secs(seconds.parse().ok()?) + Nanos::from_micros(micros.parse().ok()?);
    let (task, rest) = caller.rsplit_once('[')?;
    let cpu = Cpu(rest.split(']').next()?.parse().ok()?);
    let by = || Some(Tid(task.trim_end().rsplit_once('-')?.1.parse().ok()?));
    let kind = if let Some((from, to)) = event.split_once(" ==> ") {
        Kind::Switch {
            from: Tid(number(from, "prev_pid=")?),
            from_prio: number(from, "prev_prio=")?,
            // The state of a preempted task is 'R+', even if it was about to sleep.
            stays: from.rsplit_once("prev_state=")?.1.starts_with('R'),
            to: Tid(number(to, "next_pid=")?),
            to_prio: number(to, "next_prio=")?,
            to_name: Comm::new(to.strip_prefix("next_comm=")?.rsplit_once(" next_pid=")?.0.as_bytes()),
        }
    } else if event.starts_with("sched_wakeup_new") {
        Kind::Birth(Tid(number(event, " pid=")?))
    } else if event.starts_with("sched_wakeup") {
        Kind::Wakeup(Tid(number(event, " pid=")?))
    } else if event.starts_with("sched_process_exit") {
        Kind::Exit(Tid(number(event, " pid=")?))
    } else if let Some(arguments) = event.strip_prefix("sys_sched_setattr(pid: ") {
        Kind::SetAttr { by: by()?, of: Tid(hexadecimal(arguments)?) }
    } else if let Some(arguments) = event.strip_prefix("sys_sched_setscheduler(pid: ") {
        let policy = hexadecimal(arguments.split_once("policy: ")?.1)?;
        Kind::SetScheduler { by: by()?, of: Tid(hexadecimal(arguments)?), policy: Policy(policy as u32) }
    } else {
        return None;
    };
    Some(Event { at, cpu, kind })
}

/// Returns how many events the kernel reports as lost in this line: 0 for every other line.
pub fn lost_events(line: &str) -> u64 {
    // The form is `CPU:1 [LOST 17 EVENTS]`, and the number is missing if the kernel doesn't know
    // it.
    let report = line.strip_prefix("CPU:").and_then(|report| report.split_once("[LOST "));
    report.map_or(0, |(_, count)| count.split(' ').next().and_then(|count| count.parse().ok()).unwrap_or(1))
}

fn number(text: &str, key: &str) -> Option<i32> {
    let (_, rest) = text.rsplit_once(key)?;
    rest.split(' ').next()?.parse().ok()
}

/// Reads an argument of a system call, which the kernel prints with or without `0x`.
fn hexadecimal(text: &str) -> Option<i32> {
    let text = text.strip_prefix("0x").unwrap_or(text);
    let end = text.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(text.len());
    i32::from_str_radix(&text[..end], 16).ok()
}
