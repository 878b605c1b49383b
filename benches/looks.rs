//! What a look costs as the machine has more and more threads: the question whether anybody can be waiting at
//! all, and a look at every thread.

use crate::ends::at_once;
use crate::figures::{Effort, Line, Point, Row, grouped, median};
use crate::load::{Load, Role};
use crate::process;
use stalld::cpus::{self, CpuSet};
use stalld::error::{Error, Result};
use stalld::observe::{self, Backend, Kind, Snapshot, Watch};
use stalld::sys::clock;
use stalld::task::{Cpu, Nanos};

const THREADS: [usize; 4] = [100, 1_000, 5_000, 20_000];

/// A process can't have more mappings than vm.max_map_count, 65,530 unless changed, and a thread takes some.
const IN_ONE_PROCESS: usize = 5_000;

/// At the largest number of threads.
const QUESTION_MICROS: f64 = 50.0;
const MICROS_PER_THREAD: f64 = 1.0;

/// What a thread may cost at 20,000 of them, in terms of what it costs at 1,000.
const LINEAR: f64 = 1.5;

const TIMEOUT: Nanos = Nanos::from_secs(30);

pub fn rows() -> Vec<Row> {
    vec![Row::new("a look at 100 to 20,000 threads", measure)]
}

/// A backend, and what its looks have cost so far.
struct Subject {
    backend: Box<dyn Backend>,
    asked: Vec<Point>,
    walked: Vec<Point>,
}

impl Subject {
    fn open(kind: Kind) -> Result<Subject> {
        let watch =
            Watch { cpus: CpuSet::first(cpus::configured()), idle_detection: true, own_threads: false };
        let (mut backend, _) = observe::open(Some(kind), &watch)?;
        let until = clock::monotonic() + TIMEOUT;
        // What it does at events is what its looks find.
        while kind == Kind::QueueTrack && !backend.remarks().iter().any(|it| it.contains("being recorded")) {
            if clock::monotonic() > until {
                return Err(Error::new("queue_track was never attached"));
            }
            clock::nap(Nanos::from_millis(10));
        }
        Ok(Subject { backend, asked: Vec::new(), walked: Vec::new() })
    }

    fn name(&self) -> &'static str {
        self.backend.kind().name()
    }

    fn measure(&mut self, threads: usize, looks: usize) -> Result<()> {
        let name = self.name();
        let all = self.cost(observe::Effort::All, looks)?;
        self.walked.push(Point { series: format!("{name}, all threads"), threads, micros: all });
        // sched_debug asks /proc/loadavg, whose answer is for the whole machine.
        if self.backend.kind() != Kind::SchedDebug {
            let question = self.cost(observe::Effort::Ask, looks)?;
            self.asked.push(Point { series: format!("{name}, nobody waits"), threads, micros: question });
        }
        Ok(())
    }

    /// Of one look, in us.
    fn cost(&mut self, effort: observe::Effort, looks: usize) -> Result<f64> {
        let (mut snapshot, mut times) = (Snapshot::default(), Vec::new());
        for _ in 0..looks {
            // As the daemon does, it comes out of a sleep, and others had the caches meanwhile.
            clock::nap(Nanos::from_millis(1));
            let start = clock::monotonic();
            self.backend.snapshot(start, effort, &mut snapshot)?;
            times.push((clock::monotonic() - start).0 as f64 / 1e3);
        }
        Ok(median(&times))
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
                ..Line::new(format!("a look, {name}, where nobody waits"), measured, bound, met)
            });
        }
        let each = |point: &Point| point.micros / point.threads as f64;
        let few = self.walked.iter().find(|point| point.threads >= 1_000).map_or(f64::NAN, each);
        let many = self.walked.last().map_or(f64::NAN, each);
        let growth = many / few;
        let line = Line::new(
            format!("a look, {name}, at all threads"),
            format!(
                "{}; {many:.2} us a thread at the end, {growth:.2} times that at {}",
                listed(&self.walked),
                grouped(1_000)
            ),
            format!("{MICROS_PER_THREAD} us a thread, {LINEAR} times"),
            many <= MICROS_PER_THREAD && growth <= LINEAR,
        );
        // How long the kernel takes to write the text is not ours to bound.
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
    for wanted in THREADS {
        let there = process::threads_of_all() as usize;
        let mut sleepers = Vec::new();
        for _ in (0..wanted.saturating_sub(there)).step_by(IN_ONE_PROCESS) {
            let more = wanted.saturating_sub(process::threads_of_all() as usize).min(IN_ONE_PROCESS);
            sleepers.push(Load::start(Role::Sleep, more, Cpu(0))?);
        }
        let threads = process::threads_of_all() as usize;
        for subject in &mut subjects {
            at_once(|| subject.measure(threads, effort.choose(15, 101)))?;
        }
    }
    Ok(subjects.into_iter().flat_map(Subject::lines).collect())
}
