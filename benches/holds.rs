//! The CPU time that other tasks take from a hog, and how long they wait behind it, by the kernel's
//! trace of the switches of its CPU.
//!
//! The trace sees neither interrupts nor the hypervisor. Time that they take counts only inside a
//! hold.

use crate::trace_line::{Event, Kind};
use stalld::error::{Error, Result};
use stalld::task::{Comm, Cpu, Nanos, Tid};

const SECOND: Nanos = Nanos::from_secs(1);

/// The tid of each CPU's idle task.
const IDLE: Tid = Tid(0);

/// Tasks that have a part in the measurement.
pub struct Cast {
    pub hog: Tid,
    pub victims: Vec<Tid>,
    /// All threads of stalld and of its guardian.
    pub stalld: Vec<Tid>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Hog,
    Victim,
    Stalld,
    /// Another task, most often a kernel thread.
    Other,
}

/// The time from the switch to a task until the switch to the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    pub from: Nanos,
    pub until: Nanos,
    pub tid: Tid,
    pub name: Comm,
    pub part: Part,
}

impl Turn {
    fn length(&self) -> Nanos {
        self.until - self.from
    }
}

/// The time from the switch away from the hog until the switch back to it: one turn or several.
#[derive(Clone, Debug, Default)]
pub struct Hold(Vec<Turn>);

impl Hold {
    pub fn length(&self) -> Nanos {
        self.0.iter().map(Turn::length).fold(Nanos::ZERO, |sum, length| sum + length)
    }

    pub fn has(&self, part: Part) -> bool {
        self.0.iter().any(|turn| turn.part == part)
    }

    /// Returns the name of the task that had the longest turn.
    pub fn longest_task(&self) -> Option<Comm> {
        self.0.iter().max_by_key(|turn| turn.length()).map(|turn| turn.name)
    }
}

/// CPU time that the hog lost, by the part of the task that had the CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loss {
    pub victims: Nanos,
    pub stalld: Nanos,
    pub others: Nanos,
}

impl Loss {
    /// The part that stalld causes.
    pub fn boosts(&self) -> Nanos {
        self.victims + self.stalld
    }

    fn add(&mut self, part: Part, length: Nanos) {
        let sum = match part {
            Part::Victim => &mut self.victims,
            Part::Stalld => &mut self.stalld,
            Part::Other => &mut self.others,
            Part::Hog => return,
        };
        *sum = *sum + length;
    }
}

/// The turns of all tasks but the hog while it wants its CPU.
pub struct Account {
    from: Nanos,
    until: Nanos,
    /// In the order of time, cut at both ends of the window.
    turns: Vec<Turn>,
    holds: Vec<Hold>,
    unknown: usize,
}

impl Account {
    /// Evaluates the events between `from` and `until`, a window in which the hog never sleeps.
    ///
    /// A trace with a gap is an error, because each figure that it gives could be too small.
    pub fn new(
        events: &[Event],
        lost: u64,
        cpu: Cpu,
        cast: &Cast,
        (from, until): (Nanos, Nanos),
    ) -> Result<Account> {
        if lost > 0 {
            return Err(Error::new(format!("the trace has lost {lost} events")));
        }
        let switches: Vec<Switch> = events.iter().filter_map(|event| Switch::of(event, cpu)).collect();
        if !switches.iter().any(|switch| switch.left == cast.hog || switch.to == cast.hog) {
            return Err(Error::new(format!("the trace never shows the hog on CPU {cpu}")));
        }
        let mut account = Account { from, until, turns: Vec::new(), holds: Vec::new(), unknown: 0 };
        let before = switches.partition_point(|switch| switch.at <= from);
        // The hog has reported that it has the CPU now. A switch from the idle task is not always
        // traced.
        let mut turn = match before.checked_sub(1).and_then(|last| switches.get(last)) {
            Some(last) if last.to != IDLE => last.turn(until, cast),
            _ => Turn { from, until, tid: cast.hog, name: Comm::default(), part: Part::Hog },
        };
        let mut hold = Hold::default();
        for switch in switches.iter().skip(before).take_while(|switch| switch.at < until) {
            match (turn.part, cast.part(switch.left)) {
                _ if switch.left == turn.tid => account.note(Turn { until: switch.at, ..turn }, &mut hold),
                // The kernel does not trace the switches from some tasks, as seen on 6.18: from the
                // idle task of CPU 1, and from an old task of user space.
                (Part::Other, Part::Other) => account.note(Turn { until: switch.at, ..turn }, &mut hold),
                (Part::Other, Part::Hog) => {
                    account.unknown += 1;
                    hold = Hold::default();
                }
                _ => return Err(gap(switch, turn.tid, from)),
            }
            turn = switch.turn(until, cast);
        }
        // The last turn has no switch at its end, and a hold that goes on then has no length.
        account.note(turn, &mut hold);
        Ok(account)
    }

    fn note(&mut self, turn: Turn, hold: &mut Hold) {
        if turn.part == Part::Hog {
            // A hold that began before the window may have begun before the hog came.
            let complete = hold.0.first().is_some_and(|first| first.from > self.from);
            let ended = std::mem::take(hold);
            self.holds.extend(complete.then_some(ended));
            return;
        }
        hold.0.push(turn);
        self.turns.push(Turn { from: turn.from.max(self.from), ..turn });
    }

    /// Returns the holds that began and ended in the window.
    pub fn holds(&self) -> &[Hold] {
        &self.holds
    }

    /// Returns the number of victims that had the CPU at least once.
    pub fn victims_run(&self) -> usize {
        let mut tids: Vec<i32> =
            self.turns.iter().filter(|turn| turn.part == Part::Victim).map(|turn| turn.tid.0).collect();
        tids.sort_unstable();
        tids.dedup();
        tids.len()
    }

    /// Returns the number of holds whose end the trace does not show. They have no length, and
    /// their last turn is no loss.
    pub fn unknown(&self) -> usize {
        self.unknown
    }

    /// Returns the loss of the worst second, wherever it begins in the window. `of` chooses the
    /// part of the loss by which seconds are compared.
    pub fn worst_second(&self, of: fn(&Loss) -> Nanos) -> Loss {
        let last_start = (self.until - SECOND).max(self.from);
        // A worst second begins with a turn or ends with one.
        let starts = self.turns.iter().flat_map(|turn| [turn.from, turn.until - SECOND]);
        let starts = starts.map(|start| start.clamp(self.from, last_start));
        starts.map(|start| self.loss_after(start)).max_by_key(of).unwrap_or_default()
    }

    /// Returns what was lost in the second that begins at this moment.
    fn loss_after(&self, start: Nanos) -> Loss {
        let end = start + SECOND;
        let first = self.turns.partition_point(|turn| turn.until <= start);
        let mut loss = Loss::default();
        for turn in self.turns.iter().skip(first).take_while(|turn| turn.from < end) {
            loss.add(turn.part, turn.until.min(end) - turn.from.max(start));
        }
        loss
    }
}

fn gap(switch: &Switch, tid: Tid, from: Nanos) -> Error {
    let at = (switch.at - from).as_millis();
    let left = switch.left;
    Error::new(format!(
        "the trace has a gap {at} ms after the hog came: task {left} leaves the CPU of task {tid}"
    ))
}

/// A switch of the hogged CPU.
struct Switch {
    at: Nanos,
    left: Tid,
    to: Tid,
    name: Comm,
}

impl Switch {
    fn of(event: &Event, cpu: Cpu) -> Option<Switch> {
        match event.kind {
            Kind::Switch { from: left, to, to_name: name, .. } if event.cpu == cpu => {
                Some(Switch { at: event.at, left, to, name })
            }
            _ => None,
        }
    }

    /// Returns the turn that begins here, without an end before `until`.
    fn turn(&self, until: Nanos, cast: &Cast) -> Turn {
        Turn { from: self.at, until, tid: self.to, name: self.name, part: cast.part(self.to) }
    }
}

impl Cast {
    fn part(&self, tid: Tid) -> Part {
        match tid {
            _ if tid == self.hog => Part::Hog,
            _ if self.victims.contains(&tid) => Part::Victim,
            _ if self.stalld.contains(&tid) => Part::Stalld,
            _ => Part::Other,
        }
    }
}

/// Returns how long a victim waits from its last switch-out before the hog comes until it has the
/// CPU again; `None` if it doesn't have it before `until`. A trace with a gap is an error.
pub fn first_wait(
    events: &[Event],
    lost: u64,
    victim: Tid,
    (from, until): (Nanos, Nanos),
) -> Result<Option<Nanos>> {
    if lost > 0 {
        return Err(Error::new(format!("the trace has lost {lost} events")));
    }
    let mut since = None;
    for event in events.iter().filter(|event| event.at < until) {
        match event.kind {
            Kind::Switch { from: left, .. } if left == victim && event.at <= from => since = Some(event.at),
            Kind::Switch { to, .. } if to == victim && event.at > from => {
                let Some(since) = since else { break };
                return Ok(Some(event.at - since));
            }
            _ => {}
        }
    }
    match since {
        Some(_) => Ok(None),
        None => Err(Error::new(format!("the trace never shows that the hog preempts victim {victim}"))),
    }
}
