//! `stallstat trace FILE`: who ran on each CPU, and who waited, for Perfetto.

use super::options::Options;
use super::people::{next, runner};
use super::records::turn;
use super::select::Selection;
use super::topology::Topology;
use super::turns::{self, Sink};
use crate::chrome_trace::{ChromeTrace, Event, Phase};
use crate::error::Result;
use crate::host::own_file;
use crate::json::{Object, Value};
use crate::task::{Comm, Cpu, Nanos};
use std::collections::BTreeSet;
use std::path::Path;

/// A turn that lasts is told at its end, and there a moment or two later.
const PIECE: Nanos = Nanos::from_secs(1);

/// As large as a viewer in a browser can take.
const LIMIT: u64 = 1 << 30;

/// Tracks are CPUs, by their numbers, and tasks, by theirs. Viewers have no process 0.
const CPUS: u32 = 1;
const WAITS: u32 = 2;

pub fn run(options: &Options, path: &Path) -> Result<()> {
    let mut trace = Trace {
        // The names and the habits of tasks are for no other user.
        file: ChromeTrace::begin(own_file::begin(path)?, path, LIMIT)?,
        selection: Selection::new(options)?,
        named: BTreeSet::new(),
        lost: 0,
    };
    trace.name("process_name", CPUS, 0, "runs on")?;
    trace.name("process_name", WAITS, 0, "waits")?;
    turns::follow(options, &Topology::read(Path::new("/")), &[], PIECE, &mut trace)?;
    trace.file.end()?;
    turns::tell_missing(trace.lost);
    Ok(())
}

struct Trace {
    file: ChromeTrace,
    selection: Selection,
    /// Tracks that have been given a name.
    named: BTreeSet<(u32, i32, [u8; 16])>,
    lost: u64,
}

impl Trace {
    fn name(&mut self, what: &'static str, pid: u32, tid: i32, name: &str) -> Result<()> {
        let args = |object: &mut Object| object.put("name", Value::Text(name));
        self.put(Phase::Metadata, what, Nanos::ZERO, (pid, tid), &args)
    }

    fn put(
        &mut self,
        phase: Phase,
        name: &str,
        at: Nanos,
        track: (u32, i32),
        args: &dyn Fn(&mut Object),
    ) -> Result<()> {
        let (pid, tid) = track;
        self.file.put(&Event { phase, name, category: "sched", at, pid, tid, args })
    }

    /// A track has the name that its task had when it first was on it, and each that it took later.
    fn name_once(&mut self, pid: u32, tid: i32, comm: [u8; 16], name: &str) -> Result<()> {
        if self.named.insert((pid, tid, comm)) { self.name("thread_name", pid, tid, name) } else { Ok(()) }
    }
}

impl Sink for Trace {
    fn turn(&mut self, turn: &turn) -> Result<()> {
        let (cpu, end) = (turn.cpu as i32, Nanos(turn.end));
        if !self.selection.watches(Cpu(turn.cpu)) {
            return Ok(());
        }
        let ran = turns::start(turn).filter(|_| turn.tid != 0 && self.selection.covers(&runner(turn)));
        if let Some(start) = ran {
            self.name_once(CPUS, cpu, [0; 16], &format!("CPU {cpu}"))?;
            let name = format!("{}-{}", Comm::new(&turn.comm), turn.tid);
            let preempted = turn.runnable != 0;
            let args = |object: &mut Object| {
                object.put("tid", Value::Number(turn.tid.into()));
                object.put("preempted", Value::Flag(preempted));
            };
            self.put(Phase::Complete(end - start), &name, start, (CPUS, cpu), &args)?;
        }
        if turn.next_tid != 0 && turn.waited > 0 && self.selection.covers(&next(turn)) {
            let name = format!("{}-{}", Comm::new(&turn.next_comm), turn.next_tid);
            self.name_once(WAITS, turn.next_tid, turn.next_comm, &name)?;
            let behind = format!("behind {}-{}", Comm::new(&turn.comm), turn.tid);
            let args = |object: &mut Object| {
                object.put("cpu", Value::Number(turn.cpu.into()));
                if turn.moved == 0 {
                    object.put("at_last", Value::Text(&behind));
                }
            };
            let waited = Nanos(turn.waited);
            self.put(Phase::Complete(waited), "waits", end - waited, (WAITS, turn.next_tid), &args)?;
        }
        Ok(())
    }

    fn interval(&mut self, _: Nanos, lost: u64) -> Result<()> {
        self.lost += lost;
        self.file.flush()
    }
}
