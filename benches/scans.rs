//! The cost of a scan by the number of threads on the machine. It is measured for a scan that only
//! asks whether a task can be waiting, and for a scan of all threads.

use crate::ends::at_once;
use crate::events::EMPTY;
use crate::figures::{Effort, Line, Point, Row, grouped, median};
use crate::load::{Load, Role};
use crate::process;
use stalld::cpus::CpuSet;
use stalld::error::{Context, Error, Result};
use stalld::observe::{self, Backend, Kind, Snapshot, Watch};
use stalld::sys::bpf::{self, BpfObject};
use stalld::sys::{clock, cpu};
use stalld::task::{Cpu, Nanos};
use std::fs::File;
use std::io::Read;

const THREADS: [usize; 4] = [100, FEW, 5_000, 20_000];

/// Threads of one process: each takes some mappings, and vm.max_map_count (65,530 by default)
/// limits their number.
const IN_ONE_PROCESS: usize = 5_000;

/// Bound on a scan that only asks, at the largest number of threads.
const QUESTION_MICROS: f64 = 50.0;

/// Bound on a scan of all threads, at the largest number of them.
const MICROS_PER_THREAD: f64 = 1.0;

/// Bound on the growth of a scan from `FEW` threads to the largest number, beyond that of an empty
/// walk. With many threads an empty walk takes longer for each thread too, because their data leave
/// the CPU's caches.
const EXTRA_GROWTH: f64 = 1.5;
const FEW: usize = 1_000;

const ATTACH_TIMEOUT: Nanos = Nanos::from_secs(30);

pub fn rows() -> Vec<Row> {
    vec![Row::new("a scan of 100 to 20,000 threads", measure)]
}

/// A backend, and the cost of its scans so far.
struct Subject {
    backend: Box<dyn Backend>,
    snapshot: Snapshot,
    asked: Vec<Point>,
    walked: Vec<Point>,
    /// The cost of `walked` relative to an empty walk, in the same order.
    relative: Vec<f64>,
}

impl Subject {
    fn open(kind: Kind) -> Result<Subject> {
        let watch =
            Watch { cpus: CpuSet::first(cpu::configured()), idle_detection: true, own_threads: false };
        let (mut backend, _) = observe::open(Some(kind), &watch)?;
        let until = clock::monotonic() + ATTACH_TIMEOUT;
        // Measure only scans that find the records of its programs at events.
        while kind == Kind::QueueTrack && !backend.remarks().iter().any(|it| it.contains("being recorded")) {
            if clock::monotonic() > until {
                return Err(Error::new("queue_track was never attached"));
            }
            clock::nap(Nanos::from_millis(10));
        }
        Ok(Subject {
            backend,
            snapshot: Snapshot::default(),
            asked: Vec::new(),
            walked: Vec::new(),
            relative: Vec::new(),
        })
    }

    fn name(&self) -> &'static str {
        self.backend.kind().name()
    }

    fn measure(&mut self, empty: &EmptyWalk, threads: usize, scans: usize) -> Result<()> {
        let name = self.name();
        let (mut all, mut empties) = (Vec::new(), Vec::new());
        // In turn, because other guests of the host use its caches more at one time than at
        // another.
        for _ in 0..scans {
            all.push(self.scan(observe::Effort::All)?);
            empties.push(empty.walk()?);
        }
        let all = median(&all);
        self.walked.push(Point { series: format!("{name}, all threads"), threads, micros: all });
        self.relative.push(all / median(&empties));
        // sched_debug reads /proc/loadavg instead, which counts the tasks of the whole machine.
        if self.backend.kind() != Kind::SchedDebug {
            let questions =
                (0..scans).map(|_| self.scan(observe::Effort::Ask)).collect::<Result<Vec<_>>>()?;
            let micros = median(&questions);
            self.asked.push(Point { series: format!("{name}, no task waits"), threads, micros });
        }
        Ok(())
    }

    /// Returns the time of one scan in us.
    fn scan(&mut self, effort: observe::Effort) -> Result<f64> {
        let mut snapshot = std::mem::take(&mut self.snapshot);
        let time = timed(|| self.backend.snapshot(clock::monotonic(), effort, &mut snapshot));
        self.snapshot = snapshot;
        time
    }

    fn lines(self) -> Vec<Line> {
        let name = self.name();
        let mut lines = Vec::new();
        if let Some(last) = self.asked.last() {
            let met = last.micros <= QUESTION_MICROS;
            let bound = format!("{QUESTION_MICROS} us at {}", grouped(last.threads));
            let measured = listed(&self.asked);
            lines.push(Line {
                points: self.asked,
                ..Line::new(format!("a scan, {name}, no task waits"), measured, bound, met)
            });
        }
        let many = self.walked.last().map_or(f64::NAN, |point| point.micros / point.threads as f64);
        let few = self.walked.iter().position(|point| point.threads >= FEW).unwrap_or_default();
        let relative = |index: usize| self.relative.get(index).copied().unwrap_or(f64::NAN);
        let (at_few, at_many) = (relative(few), relative(self.relative.len() - 1));
        let growth = at_many / at_few;
        let line = Line::new(
            format!("a scan, {name}, all threads"),
            format!(
                "{}; {many:.2} us a thread at the end, {at_many:.2} times an empty walk, {growth:.2} times that at {}",
                listed(&self.walked),
                grouped(FEW)
            ),
            format!("{MICROS_PER_THREAD} us a thread, {EXTRA_GROWTH} times"),
            many <= MICROS_PER_THREAD && growth <= EXTRA_GROWTH,
        );
        // The kernel needs most of the time of sched_debug to write the text.
        let met = line.met.filter(|_| self.backend.kind() != Kind::SchedDebug);
        let bound = if met.is_some() { line.bound } else { "none, most of it is the kernel's".to_string() };
        lines.push(Line { points: self.walked, met, bound, ..line });
        lines
    }
}

fn listed(points: &[Point]) -> String {
    let each = |point: &Point| format!("{:.1} us at {}", point.micros, grouped(point.threads));
    points.iter().map(each).collect::<Vec<_>>().join(", ")
}

fn measure(effort: &Effort) -> Result<Vec<Line>> {
    let mut subjects = Kind::ALL.into_iter().map(Subject::open).collect::<Result<Vec<_>>>()?;
    let empty = EmptyWalk::open()?;
    let mut sleepers = Vec::new();
    for wanted in THREADS {
        while threads_of_all() < wanted {
            let more = (wanted - threads_of_all()).min(IN_ONE_PROCESS);
            sleepers.push(Load::start(Role::Sleep, more, Cpu(0))?);
        }
        let threads = threads_of_all();
        for subject in &mut subjects {
            at_once(|| subject.measure(&empty, threads, effort.choose(15, 101)))?;
        }
    }
    Ok(subjects.into_iter().flat_map(Subject::lines).collect())
}

fn threads_of_all() -> usize {
    process::threads_of_all() as usize
}

/// Returns the time of an action in us. It sleeps before the action, because the daemon also scans
/// after a sleep, in which other tasks have used the caches.
fn timed(action: impl FnOnce() -> Result<()>) -> Result<f64> {
    clock::nap(Nanos::from_millis(1));
    let start = clock::monotonic();
    action()?;
    Ok((clock::monotonic() - start).0 as f64 / 1e3)
}

/// A walk over all threads by a BPF program that does nothing.
struct EmptyWalk(bpf::BpfIter);

impl EmptyWalk {
    fn open() -> Result<EmptyWalk> {
        let mut object = BpfObject::open(EMPTY, c"empty")?;
        object.load()?;
        let program = object.take_program(c"empty_walk")?;
        program.link_iterator().context("make an iterator over all tasks").map(EmptyWalk)
    }

    /// Returns the time of one walk in us.
    fn walk(&self) -> Result<f64> {
        timed(|| {
            let mut walk = File::from(self.0.start().context("start a walk over all tasks")?);
            let length = walk.read(&mut [0]).context("walk over all tasks")?;
            if length == 0 { Ok(()) } else { Err(Error::new("an empty walk has written something")) }
        })
    }
}
