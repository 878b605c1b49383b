//! The cost of a scan by the number of threads on the machine: of the question whether a task can be waiting at
//! all, and of a scan of all threads.

use crate::ends::at_once;
use crate::figures::{Effort, Line, Point, Row, grouped, median};
use crate::load::{Load, Role};
use crate::process;
use stalld::cpus::{self, CpuSet};
use stalld::error::{Error, Result};
use stalld::observe::{self, Backend, Kind, Snapshot, Watch};
use stalld::sys::clock;
use stalld::task::{Cpu, Nanos};

const LARGEST: usize = 20_000;
const THREADS: [usize; 4] = [100, 1_000, 5_000, LARGEST];

/// Threads of one process: each takes some mappings, and vm.max_map_count (65,530 by default) limits their number.
const IN_ONE_PROCESS: usize = 5_000;

/// Bound on the question, at the largest number of threads.
const QUESTION_MICROS: f64 = 50.0;

/// Bound on a scan of all threads, at the largest number of them.
const MICROS_PER_THREAD: f64 = 1.0;

/// Bound on the growth of the cost of a thread from `GROWS_FROM` threads to the largest number.
const LINEAR: f64 = 1.5;

/// The data that a scan reads of 1,000 threads fit into the cache of a CPU, and those of this many do not. So a
/// thread is cheaper where there are fewer, and growth from there would measure the cache.
const GROWS_FROM: usize = 5_000;

const ATTACH_TIMEOUT: Nanos = Nanos::from_secs(30);

pub fn rows() -> Vec<Row> {
    vec![Row::new("a scan of 100 to 20,000 threads", measure)]
}

/// A backend, and the cost of its scans so far.
struct Subject {
    backend: Box<dyn Backend>,
    asked: Vec<Point>,
    walked: Vec<Point>,
    /// The latest cost of a thread at `GROWS_FROM` threads.
    base: f64,
    /// The cost of a thread at the largest number of threads, relative to `base`: one figure for each round.
    growth: Vec<f64>,
}

impl Subject {
    fn open(kind: Kind) -> Result<Subject> {
        let watch =
            Watch { cpus: CpuSet::first(cpus::configured()), idle_detection: true, own_threads: false };
        let (mut backend, _) = observe::open(Some(kind), &watch)?;
        let until = clock::monotonic() + ATTACH_TIMEOUT;
        // Its scans find what its programs at events record.
        while kind == Kind::QueueTrack && !backend.remarks().iter().any(|it| it.contains("being recorded")) {
            if clock::monotonic() > until {
                return Err(Error::new("queue_track was never attached"));
            }
            clock::nap(Nanos::from_millis(10));
        }
        Ok(Subject { backend, asked: Vec::new(), walked: Vec::new(), base: f64::NAN, growth: Vec::new() })
    }

    fn name(&self) -> &'static str {
        self.backend.kind().name()
    }

    fn measure(&mut self, threads: usize, scans: usize) -> Result<()> {
        let name = self.name();
        let all = self.cost(observe::Effort::All, scans)?;
        self.walked.push(Point { series: format!("{name}, all threads"), threads, micros: all });
        // sched_debug asks /proc/loadavg, whose answer is for the whole machine.
        if self.backend.kind() != Kind::SchedDebug {
            let question = self.cost(observe::Effort::Ask, scans)?;
            self.asked.push(Point { series: format!("{name}, no task waits"), threads, micros: question });
        }
        Ok(())
    }

    /// Returns the median cost of a scan in us.
    fn cost(&mut self, effort: observe::Effort, scans: usize) -> Result<f64> {
        let (mut snapshot, mut times) = (Snapshot::default(), Vec::new());
        for _ in 0..scans {
            // The daemon, too, scans after a sleep in which other tasks have used the caches.
            clock::nap(Nanos::from_millis(1));
            let start = clock::monotonic();
            self.backend.snapshot(start, effort, &mut snapshot)?;
            times.push((clock::monotonic() - start).0 as f64 / 1e3);
        }
        Ok(median(&times))
    }

    /// Measures one end of a round: the cost of a thread at `GROWS_FROM` threads, or its growth since.
    fn measure_growth(&mut self, threads: usize, scans: usize) -> Result<()> {
        let each = self.cost(observe::Effort::All, scans)? / threads as f64;
        if threads < 2 * GROWS_FROM {
            self.base = each;
        } else {
            self.growth.push(each / self.base);
        }
        Ok(())
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
        let growth = median(&self.growth);
        let line = Line::new(
            format!("a scan, {name}, all threads"),
            format!(
                "{}; {many:.2} us a thread at the end, {growth:.2} times that at {} (median of {})",
                listed(&self.walked),
                grouped(GROWS_FROM),
                self.growth.len()
            ),
            format!("{MICROS_PER_THREAD} us a thread, {LINEAR} times"),
            many <= MICROS_PER_THREAD && growth <= LINEAR,
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
    let mut crowd = Crowd::default();
    for wanted in THREADS {
        let threads = crowd.grow(wanted)?;
        for subject in &mut subjects {
            at_once(|| subject.measure(threads, effort.choose(15, 101)))?;
        }
    }
    // In turn, because other guests of the host use its caches more at one time than at another.
    for _ in 0..effort.choose(1, 3) {
        for wanted in [GROWS_FROM, LARGEST] {
            let threads = if wanted == LARGEST { crowd.grow(wanted)? } else { crowd.shrink(wanted)? };
            for subject in &mut subjects {
                at_once(|| subject.measure_growth(threads, effort.choose(15, 51)))?;
            }
        }
    }
    Ok(subjects.into_iter().flat_map(Subject::lines).collect())
}

/// Threads that sleep.
#[derive(Default)]
struct Crowd(Vec<Load>);

impl Crowd {
    /// Adds threads until the machine has this many. Returns the number of them then.
    fn grow(&mut self, wanted: usize) -> Result<usize> {
        while threads_of_all() < wanted {
            let more = (wanted - threads_of_all()).min(IN_ONE_PROCESS);
            self.0.push(Load::start(Role::Sleep, more, Cpu(0))?);
        }
        Ok(threads_of_all())
    }

    /// Ends processes until the machine has no more than this many threads, and adds the missing ones.
    fn shrink(&mut self, wanted: usize) -> Result<usize> {
        while threads_of_all() > wanted && self.0.pop().is_some() {}
        self.grow(wanted)
    }
}

fn threads_of_all() -> usize {
    process::threads_of_all() as usize
}
