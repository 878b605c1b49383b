//! `stallstat trace FILE`: writes which tasks ran on each CPU, and which waited, for Perfetto.

use crate::chrome_trace::{ChromeTrace, Phase, TraceEvent};
use crate::error::Result;
use crate::host::own_file;
use crate::json::{Object, Value};
use crate::stat::bpf_abi::turn;
use crate::stat::options::Options;
use crate::stat::select::Selection;
use crate::stat::task_table::{next, runner};
use crate::stat::topology::Topology;
use crate::stat::turns::{self, TurnSink};
use crate::task::{Comm, Cpu, Nanos};
use std::collections::BTreeSet;
use std::path::Path;

/// A long turn is recorded in pieces of this length.
const PIECE: Nanos = Nanos::from_secs(1);

/// The maximum size of the file: a viewer in a browser can't load more.
const LIMIT: u64 = 1 << 30;

/// The Perfetto process whose tracks are CPUs. Viewers hide process 0.
const CPUS: u32 = 1;
/// The Perfetto process whose tracks are tasks, by tid.
const WAITS: u32 = 2;

pub(super) fn run(options: &Options, path: &Path) -> Result<()> {
    let mut trace = TraceRecorder {
        // Private, because the file shows names of tasks and when they ran.
        file: ChromeTrace::begin(own_file::create_private(path)?, path, LIMIT)?,
        selection: Selection::new(options)?,
        named_threads: BTreeSet::new(),
        lost: 0,
    };
    trace.name("process_name", CPUS, 0, "runs on")?;
    trace.name("process_name", WAITS, 0, "waits")?;
    turns::follow(options, &Topology::read(Path::new("/")), &[], PIECE, &mut trace)?;
    trace.file.end()?;
    turns::warn_missing(trace.lost);
    Ok(())
}

struct TraceRecorder {
    file: ChromeTrace,
    selection: Selection,
    /// The tracks that have a name.
    named_threads: BTreeSet<(u32, i32, [u8; 16])>,
    lost: u64,
}

impl TraceRecorder {
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
        self.file.put(&TraceEvent { phase, name, category: "sched", at, pid, tid, args })
    }

    /// Names a track when a task is first on it, and again after the task changes its name.
    fn name_once(&mut self, pid: u32, tid: i32, comm: [u8; 16], name: &str) -> Result<()> {
        if self.named_threads.insert((pid, tid, comm)) {
            self.name("thread_name", pid, tid, name)
        } else {
            Ok(())
        }
    }
}

impl TurnSink for TraceRecorder {
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
