//! Numbers for Prometheus, in a file as node_exporter's textfile collector reads it: `--metrics FILE`.
//!
//! Who looks only counts. The file is written by a thread of its own, which may wait for a disk.

use super::log::Logger;
use crate::boost::event::Event;
use crate::boost::journal::How;
use crate::boost::undo::Undone;
use crate::cpus;
use crate::error::{Context, Error, Result};
use crate::observe::Kind;
use crate::task::{Cpu, Nanos};
use std::fmt::{self, Display, Write as _};
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// The file is not written more often.
const PAUSE: Duration = Duration::from_secs(1);

/// What is counted, by all threads that look.
#[derive(Default)]
pub struct Figures {
    looks: AtomicU64,
    lost_looks: AtomicU64,
    wakes: AtomicU64,
    late_ns: AtomicU64,
    latest_ns: AtomicU64,
    waiting: AtomicU64,
    starvations: AtomicU64,
    by_deadline: AtomicU64,
    by_fifo: AtomicU64,
    refused: AtomicU64,
    restored: AtomicU64,
    not_restored: AtomicU64,
    adopted: AtomicU64,
    /// Boosts on each CPU.
    by_cpu: Box<[AtomicU64]>,
    /// Tasks that are boosted now, by the monitor that has boosted them.
    boosted: Box<[AtomicU64]>,
    changed: AtomicBool,
}

impl Figures {
    pub fn new() -> Figures {
        Figures::of(cpus::configured())
    }

    fn of(cpus: u32) -> Figures {
        let of_each = || (0..cpus).map(|_| AtomicU64::new(0)).collect();
        Figures { by_cpu: of_each(), boosted: of_each(), ..Figures::default() }
    }

    /// A look is over, which found so many waiting.
    pub fn looked(&self, waiting: usize) {
        self.waiting.store(waiting as u64, Relaxed);
        self.count(&self.looks);
    }

    pub fn lost_a_look(&self) {
        self.count(&self.looks);
        self.count(&self.lost_looks);
    }

    pub fn woke_late(&self, late: Nanos) {
        self.wakes.fetch_add(1, Relaxed);
        self.late_ns.fetch_add(late.0, Relaxed);
        self.latest_ns.fetch_max(late.0, Relaxed);
    }

    pub fn starved(&self) {
        self.count(&self.starvations);
    }

    pub fn happened(&self, event: &Event) {
        match event {
            Event::Boosted { task, how } => {
                self.count(if *how == How::Fifo { &self.by_fifo } else { &self.by_deadline });
                self.by_cpu.get(task.cpu.0 as usize).inspect(|boosts| self.count(boosts));
            }
            Event::Refused { .. } => self.count(&self.refused),
            Event::Over { outcome, .. } => match outcome {
                Undone::Restored(_) | Undone::Lowered { .. } => self.count(&self.restored),
                Undone::Failed(_) => self.count(&self.not_restored),
                _ => {}
            },
            Event::Adopted { .. } => self.count(&self.adopted),
            Event::Orphan { .. } => {}
        }
    }

    /// So many tasks are boosted now, by the monitor of this CPU or the one thread that there is.
    pub fn boosted(&self, monitor: Cpu, tasks: usize) {
        if let Some(boosted) = self.boosted.get(monitor.0 as usize) {
            if boosted.swap(tasks as u64, Relaxed) != tasks as u64 {
                self.changed.store(true, Relaxed);
            }
        }
    }

    fn count(&self, of: &AtomicU64) {
        of.fetch_add(1, Relaxed);
        self.changed.store(true, Relaxed);
    }

    /// The text that Prometheus reads.
    fn text(&self, kind: Kind) -> String {
        let mut text = String::with_capacity(4096);
        let get = |of: &AtomicU64| of.load(Relaxed);
        let seconds = |of: &AtomicU64| Seconds(Nanos(get(of)));
        let mut put = |kind, name: &str, help: &str, samples: &[(&str, &dyn Display)]| {
            // Writing to a String can't fail.
            let _ = writeln!(text, "# HELP stalld_{name} {help}\n# TYPE stalld_{name} {kind}");
            for (suffix, value) in samples {
                let _ = writeln!(text, "stalld_{name}{suffix} {value}");
            }
        };
        let info = format!("{{version=\"{}\",backend=\"{}\"}}", env!("CARGO_PKG_VERSION"), kind.name());
        let boosted: u64 = self.boosted.iter().map(get).sum();
        put("gauge", "info", "Always 1; its labels tell which stalld looks in which way.", &[(&info, &1)]);
        put("counter", "looks_total", "Looks at who waits.", &[("", &get(&self.looks))]);
        put("counter", "looks_lost_total", "Looks that failed.", &[("", &get(&self.lost_looks))]);
        put(
            "summary",
            "look_lateness_seconds",
            "How much later than planned the threads that look came out of their sleep.",
            &[("_sum", &seconds(&self.late_ns)), ("_count", &get(&self.wakes))],
        );
        put("gauge", "look_lateness_max_seconds", "The latest of them.", &[("", &seconds(&self.latest_ns))]);
        put("gauge", "waiting_tasks", "Tasks that waited at the last look.", &[("", &get(&self.waiting))]);
        put(
            "counter",
            "starvations_total",
            "Waits that reached the threshold.",
            &[("", &get(&self.starvations))],
        );
        put(
            "counter",
            "boosts_total",
            "Boosts by the policy that they were made with.",
            &[
                ("{policy=\"SCHED_DEADLINE\"}", &get(&self.by_deadline)),
                ("{policy=\"SCHED_FIFO\"}", &get(&self.by_fifo)),
            ],
        );
        put("gauge", "boosted_tasks", "Tasks that are boosted now.", &[("", &boosted)]);
        put(
            "counter",
            "boosts_refused_total",
            "Boosts that could not be made.",
            &[("", &get(&self.refused))],
        );
        put("counter", "restores_total", "Tasks put back as they were.", &[("", &get(&self.restored))]);
        put(
            "counter",
            "restores_failed_total",
            "Tries to put a task back that failed.",
            &[("", &get(&self.not_restored))],
        );
        put(
            "counter",
            "adoptions_total",
            "Tasks born to boosted ones that were given their policy.",
            &[("", &get(&self.adopted))],
        );
        let by_cpu: Vec<_> = (self.by_cpu.iter().map(get).enumerate())
            .filter(|&(_, boosts)| boosts > 0)
            .map(|(cpu, boosts)| (format!("{{cpu=\"{}\"}}", Cpu(cpu as u32)), boosts))
            .collect();
        let samples: Vec<_> =
            by_cpu.iter().map(|(cpu, boosts)| (cpu.as_str(), boosts as &dyn Display)).collect();
        put("counter", "cpu_boosts_total", "Boosts by CPU, of CPUs that had any.", &samples);
        text
    }
}

/// As Prometheus wants lengths of time.
struct Seconds(Nanos);

impl Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}.{:09}", self.0.as_secs(), self.0.0 % 1_000_000_000)
    }
}

/// The file, kept up to date for as long as this lives, and gone with it.
pub struct Metrics {
    writer: Option<JoinHandle<()>>,
    ended: Arc<AtomicBool>,
}

impl Metrics {
    /// Writes the file once, so that one that can't be written is an error now.
    pub fn start(path: &Path, figures: Arc<Figures>, kind: Kind, log: &Logger) -> Result<Metrics> {
        let file = Exposition::at(path)?;
        file.write(&figures.text(kind)).context(format_args!("write {}", path.display()))?;
        let ended = Arc::new(AtomicBool::new(false));
        let (is_over, log) = (Arc::clone(&ended), log.clone());
        let life = move || {
            let mut told = false;
            while !is_over.load(Relaxed) {
                thread::park_timeout(PAUSE);
                if !figures.changed.swap(false, Relaxed) {
                    continue;
                }
                let written = file.write(&figures.text(kind));
                if let (Err(e), false) = (&written, told) {
                    let error = Error::io(format_args!("write {}", file.path.display()), e);
                    log.warning(format_args!("{error}: the metrics are out of date"));
                }
                told = written.is_err();
            }
            file.remove();
        };
        let writer = thread::Builder::new().name("stalld-metrics".to_string()).spawn(life);
        let writer = writer.context("start the thread that writes the metrics")?;
        Ok(Metrics { writer: Some(writer), ended })
    }
}

impl Drop for Metrics {
    fn drop(&mut self) {
        self.ended.store(true, Relaxed);
        if let Some(writer) = self.writer.take() {
            writer.thread().unpark();
            // It has not panicked, and if it has there is nobody to tell.
            let _ = writer.join();
        }
    }
}

/// A file that its readers find whole, whenever they look.
struct Exposition {
    path: PathBuf,
    /// In the same directory, for rename(2), and by its name nothing that node_exporter reads.
    draft: PathBuf,
}

impl Exposition {
    fn at(path: &Path) -> Result<Exposition> {
        let name = path.file_name().ok_or_else(|| {
            Error::new(format!("cannot write the metrics to {}: it is no file", path.display()))
        })?;
        let mut draft = std::ffi::OsString::from(".");
        draft.push(name);
        draft.push(".new");
        Ok(Exposition { path: path.to_path_buf(), draft: path.with_file_name(draft) })
    }

    fn write(&self, text: &str) -> io::Result<()> {
        // One that a killed stalld has left is no reason to stop; nothing that somebody put there is followed.
        let _ = fs::remove_file(&self.draft);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&self.draft)?;
        file.write_all(text.as_bytes())?;
        drop(file);
        fs::rename(&self.draft, &self.path)
    }

    fn remove(&self) {
        // Without it, those who read it see that stalld has ended.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::{Task, Tid};
    use rig::scratch::Scratch;

    fn boosted(cpu: u32, how: How) -> Event {
        Event::Boosted { task: Task { cpu: Cpu(cpu), ..Task::default() }, how }
    }

    #[test]
    fn what_happens_is_counted_where_it_belongs() {
        let figures = Figures::of(4);
        figures.looked(3);
        figures.lost_a_look();
        figures.woke_late(Nanos::from_millis(2));
        figures.woke_late(Nanos::from_micros(500));
        figures.starved();
        figures.happened(&boosted(1, How::Fifo));
        figures.happened(&boosted(3, How::Fifo));
        figures.happened(&boosted(9, How::Deadline { runtime: Nanos(1), period: Nanos(2) }));
        let over = |outcome| Event::Over {
            task: Task::default(),
            before: crate::boost::journal::Saved {
                policy: crate::task::Policy::OTHER,
                priority: 0,
                reset_on_fork: false,
                nice: 0,
                timer_slack: 0,
            },
            after: Nanos::ZERO,
            early: false,
            outcome,
        };
        figures.happened(&over(Undone::Restored(Tid(1))));
        figures.happened(&over(Undone::Gone));
        figures.boosted(Cpu(0), 2);
        figures.boosted(Cpu(3), 1);
        figures.boosted(Cpu(0), 0);
        let text = figures.text(Kind::TaskIter);
        for line in [
            "stalld_info{version=\"2.0.0\",backend=\"task_iter\"} 1",
            "stalld_looks_total 2",
            "stalld_looks_lost_total 1",
            "stalld_look_lateness_seconds_sum 0.002500000",
            "stalld_look_lateness_seconds_count 2",
            "stalld_look_lateness_max_seconds 0.002000000",
            "stalld_waiting_tasks 3",
            "stalld_starvations_total 1",
            "stalld_boosts_total{policy=\"SCHED_DEADLINE\"} 1",
            "stalld_boosts_total{policy=\"SCHED_FIFO\"} 2",
            "stalld_boosted_tasks 1",
            "stalld_restores_total 1",
            "stalld_cpu_boosts_total{cpu=\"1\"} 1",
            "stalld_cpu_boosts_total{cpu=\"3\"} 1",
        ] {
            assert!(text.lines().any(|it| it == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn the_file_is_replaced_in_one_go_and_nothing_else_is_touched() {
        let scratch = Scratch::new("metrics");
        let file = Exposition::at(&scratch.join("stalld.prom")).unwrap();
        scratch.file("precious", "as it was");
        std::os::unix::fs::symlink(scratch.join("precious"), scratch.join(".stalld.prom.new")).unwrap();
        file.write("first\n").unwrap();
        let reader = fs::File::open(scratch.join("stalld.prom")).unwrap();
        file.write("second\n").unwrap();
        assert_eq!(io::read_to_string(reader).unwrap(), "first\n");
        assert_eq!(fs::read_to_string(scratch.join("stalld.prom")).unwrap(), "second\n");
        assert_eq!(fs::read_to_string(scratch.join("precious")).unwrap(), "as it was");
        file.remove();
        let left: Vec<_> =
            fs::read_dir(scratch.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["precious"]);
    }
}
