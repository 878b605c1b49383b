//! The metrics file for Prometheus (`--metrics FILE`), which node_exporter's textfile collector
//! reads.
//!
//! Scanning threads only count. Another thread writes the file, because a disk may block it.

use crate::boost::event::Event;
use crate::boost::journal::BoostPolicy;
use crate::boost::restore::RestoreOutcome;
use crate::error::{Context, Error, Result};
use crate::host::own_file;
use crate::observe::{Kind, Snapshot};
use crate::sys::cpu;
use crate::sys::process;
use crate::task::{Cpu, Nanos};
use std::fmt::{self, Display, Write as _};
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// The counters of all scanning threads. Unlike `Counters`, they count each pulse as a boost.
#[derive(Default)]
pub(super) struct Figures {
    scans: AtomicU64,
    walks: AtomicU64,
    failed_scans: AtomicU64,
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
    pub(super) fn new() -> Figures {
        Figures::of(cpu::configured())
    }

    fn of(cpus: u32) -> Figures {
        let of_each = || (0..cpus).map(|_| AtomicU64::new(0)).collect();
        Figures { by_cpu: of_each(), boosted: of_each(), ..Figures::default() }
    }

    /// Counts a scan, and sets the number of waiters that it found.
    pub(super) fn scanned(&self, snapshot: &Snapshot) {
        self.waiting.store(snapshot.waiters.len() as u64, Relaxed);
        self.walks.fetch_add(snapshot.walked.into(), Relaxed);
        self.count(&self.scans);
    }

    pub(super) fn scan_failed(&self) {
        self.count(&self.scans);
        self.count(&self.failed_scans);
    }

    pub(super) fn woke_late(&self, late: Nanos) {
        self.wakes.fetch_add(1, Relaxed);
        self.late_ns.fetch_add(late.0, Relaxed);
        self.latest_ns.fetch_max(late.0, Relaxed);
    }

    pub(super) fn starved(&self) {
        self.count(&self.starvations);
    }

    pub(super) fn happened(&self, event: &Event) {
        match event {
            Event::Boosted { task, how } => {
                self.count(if *how == BoostPolicy::Fifo { &self.by_fifo } else { &self.by_deadline });
                self.by_cpu.get(task.cpu.0 as usize).inspect(|boosts| self.count(boosts));
            }
            Event::Refused { .. } => self.count(&self.refused),
            Event::Over { outcome, .. } => match outcome {
                RestoreOutcome::Restored(_) | RestoreOutcome::Lowered { .. } => self.count(&self.restored),
                RestoreOutcome::Failed(_) => self.count(&self.not_restored),
                _ => {}
            },
            Event::Adopted { .. } => self.count(&self.adopted),
            Event::Lowered { .. } | Event::Orphan { .. } => {}
        }
    }

    /// Returns the number of refused boosts.
    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    /// Sets the number of tasks that a monitor boosts now. Without monitors, `monitor` is CPU 0.
    pub(super) fn boosted(&self, monitor: Cpu, tasks: usize) {
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

    /// Returns whether a counter has changed since the last call.
    pub(super) fn take_changed(&self) -> bool {
        self.changed.swap(false, Relaxed)
    }

    /// Returns the text of the file.
    pub(super) fn text(&self, kind: Kind) -> String {
        let mut text = Text(String::with_capacity(4096));
        let info = format!("{{version=\"{}\",backend=\"{}\"}}", env!("CARGO_PKG_VERSION"), kind.name());
        text.put(
            "gauge",
            "info",
            "Always 1; its labels say which stalld uses which backend.",
            &[(&info, &1)],
        );
        self.put_scans(&mut text);
        self.put_boosts(&mut text);
        text.0
    }

    fn put_scans(&self, text: &mut Text) {
        let seconds = |of: &AtomicU64| Seconds(Nanos(load(of)));
        text.put("counter", "scans_total", "Scans of the run queues.", &[("", &load(&self.scans))]);
        text.put(
            "counter",
            "scans_of_all_tasks_total",
            "Scans that read all tasks, and not only the run queues.",
            &[("", &load(&self.walks))],
        );
        text.put("counter", "scans_failed_total", "Scans that failed.", &[("", &load(&self.failed_scans))]);
        text.put(
            "summary",
            "scan_lateness_seconds",
            "How much later than planned the threads that scan came out of their sleep.",
            &[("_sum", &seconds(&self.late_ns)), ("_count", &load(&self.wakes))],
        );
        text.put(
            "gauge",
            "scan_lateness_max_seconds",
            "The latest of them.",
            &[("", &seconds(&self.latest_ns))],
        );
        text.put(
            "gauge",
            "waiting_tasks",
            "Tasks that waited at the last scan.",
            &[("", &load(&self.waiting))],
        );
        text.put(
            "counter",
            "starvations_total",
            "Waits that reached the threshold.",
            &[("", &load(&self.starvations))],
        );
    }

    fn put_boosts(&self, text: &mut Text) {
        let boosted: u64 = self.boosted.iter().map(load).sum();
        text.put(
            "counter",
            "boosts_total",
            "Boosts by the policy that they were made with.",
            &[
                ("{policy=\"SCHED_DEADLINE\"}", &load(&self.by_deadline)),
                ("{policy=\"SCHED_FIFO\"}", &load(&self.by_fifo)),
            ],
        );
        text.put("gauge", "boosted_tasks", "Tasks that are boosted now.", &[("", &boosted)]);
        text.put(
            "counter",
            "boosts_refused_total",
            "Boosts that could not be made.",
            &[("", &load(&self.refused))],
        );
        text.put("counter", "restores_total", "Tasks put back as they were.", &[("", &load(&self.restored))]);
        text.put(
            "counter",
            "restores_failed_total",
            "Tries to put a task back that failed.",
            &[("", &load(&self.not_restored))],
        );
        text.put(
            "counter",
            "adoptions_total",
            "Tasks born to boosted ones that were given their policy.",
            &[("", &load(&self.adopted))],
        );
        let by_cpu: Vec<_> = (self.by_cpu.iter().map(load).enumerate())
            .filter(|&(_, boosts)| boosts > 0)
            .map(|(cpu, boosts)| (format!("{{cpu=\"{}\"}}", Cpu(cpu as u32)), boosts))
            .collect();
        let samples: Vec<_> =
            by_cpu.iter().map(|(cpu, boosts)| (cpu.as_str(), boosts as &dyn Display)).collect();
        text.put("counter", "cpu_boosts_total", "Boosts by CPU, of CPUs that had any.", &samples);
    }
}

fn load(figure: &AtomicU64) -> u64 {
    figure.load(Relaxed)
}

/// The text written so far.
struct Text(String);

impl Text {
    /// Adds a metric, with a line for each of its samples.
    fn put(&mut self, kind: &str, name: &str, help: &str, samples: &[(&str, &dyn Display)]) {
        // Writing to a String can't fail.
        let _ = writeln!(self.0, "# HELP stalld_{name} {help}\n# TYPE stalld_{name} {kind}");
        for (suffix, value) in samples {
            let _ = writeln!(self.0, "stalld_{name}{suffix} {value}");
        }
    }
}

/// Displays a duration in seconds, as Prometheus expects it.
struct Seconds(Nanos);

impl Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}.{:09}", self.0.as_secs(), self.0.0 % 1_000_000_000)
    }
}

/// A file that is replaced by rename(2), so that readers never see an incomplete text.
pub(super) struct AtomicFile {
    path: PathBuf,
    /// The path of the next text, until it is renamed. It is in the same directory, for rename(2).
    /// node_exporter ignores files of such names.
    draft: PathBuf,
}

/// The start of each text. A file that starts with it is from an earlier stalld.
const BEGINNING: &[u8] = b"# HELP stalld_";

impl AtomicFile {
    pub(super) fn at(path: &Path) -> Result<AtomicFile> {
        let name = path.file_name().ok_or_else(|| {
            Error::new(format!("cannot write the metrics to {}: it is no file", path.display()))
        })?;
        let mut draft = std::ffi::OsString::from(".");
        draft.push(name);
        draft.push(".new");
        Ok(AtomicFile { path: path.to_path_buf(), draft: path.with_file_name(draft) })
    }

    /// Replaces the file. Fails if the path holds anything but metrics of stalld.
    pub(super) fn write(&self, text: &str) -> Result<()> {
        self.judge()?;
        let written = self.write_draft(text).and_then(|()| fs::rename(&self.draft, &self.path));
        if written.is_err() {
            // An incomplete draft takes space, and the disk may be full.
            let _ = fs::remove_file(&self.draft);
        }
        written.context(format_args!("write {}", self.path.display()))
    }

    fn write_draft(&self, text: &str) -> io::Result<()> {
        // Remove the draft of a killed stalld. `create_new` follows no link that another user puts
        // there.
        let _ = fs::remove_file(&self.draft);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.draft)?;
        // Independent of the umask, because node_exporter runs as another user.
        file.set_permissions(Permissions::from_mode(0o644))?;
        file.write_all(text.as_bytes())
    }

    /// Removes the file, so that its readers see that stalld has ended.
    pub(super) fn remove(&self) {
        if self.judge() == Ok(true) {
            let _ = fs::remove_file(&self.path);
        }
    }

    /// Returns whether the file exists. Fails if it is anything but metrics of stalld.
    fn judge(&self) -> Result<bool> {
        let what = || format!("look at {}", self.path.display());
        let seen = match fs::symlink_metadata(&self.path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            seen => seen.context(what())?,
        };
        let us = process::effective_uid();
        let reason = if seen.is_symlink() {
            "it is a symbolic link".to_string()
        } else if !seen.is_file() {
            "it is no regular file".to_string()
        } else if ![us, 0].contains(&seen.uid()) {
            format!("it belongs to the user {}, not to {us}", seen.uid())
        } else if !self.is_recognised().context(what())? {
            "it holds no metrics of stalld".to_string()
        } else {
            return Ok(true);
        };
        Err(own_file::refusal(&self.path, reason).with_cure("remove it, or name another file"))
    }

    /// Returns whether the file may be from stalld. An empty file counts: replacing it loses
    /// nothing.
    fn is_recognised(&self) -> io::Result<bool> {
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(&self.path)?;
        let mut beginning = Vec::new();
        file.take(BEGINNING.len() as u64).read_to_end(&mut beginning)?;
        Ok(beginning.is_empty() || beginning == BEGINNING)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boost::journal::Saved;
    use crate::observe::Waiter;
    use crate::task::{Task, Tid};
    use rig::scratch::Scratch;

    fn boosted(cpu: u32, how: BoostPolicy) -> Event {
        Event::Boosted { task: Task { cpu: Cpu(cpu), ..Task::default() }, how }
    }

    #[test]
    fn events_are_counted_in_their_own_metrics() {
        let figures = Figures::of(4);
        let waiters = vec![Waiter::default(); 3];
        figures.scanned(&Snapshot { waiters, walked: true, ..Snapshot::default() });
        figures.scan_failed();
        figures.woke_late(Nanos::from_millis(2));
        figures.woke_late(Nanos::from_micros(500));
        figures.starved();
        figures.happened(&boosted(1, BoostPolicy::Fifo));
        figures.happened(&boosted(3, BoostPolicy::Fifo));
        figures.happened(&boosted(9, BoostPolicy::Deadline { runtime: Nanos(1), period: Nanos(2) }));
        let over = |outcome| Event::Over {
            task: Task::default(),
            before: Saved::default(),
            after: Nanos::ZERO,
            early: false,
            outcome,
        };
        figures.happened(&over(RestoreOutcome::Restored(Tid(1))));
        figures.happened(&over(RestoreOutcome::Gone));
        figures.boosted(Cpu(0), 2);
        figures.boosted(Cpu(3), 1);
        figures.boosted(Cpu(0), 0);
        let text = figures.text(Kind::TaskIter);
        for line in [
            "stalld_info{version=\"2.0.0\",backend=\"task_iter\"} 1",
            "stalld_scans_total 2",
            "stalld_scans_of_all_tasks_total 1",
            "stalld_scans_failed_total 1",
            "stalld_scan_lateness_seconds_sum 0.002500000",
            "stalld_scan_lateness_seconds_count 2",
            "stalld_scan_lateness_max_seconds 0.002000000",
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

    fn text(second: bool) -> String {
        format!("# HELP stalld_info {second}\n")
    }

    #[test]
    fn the_file_is_replaced_at_once_and_no_other_is_touched() {
        let scratch = Scratch::new("metrics");
        let file = AtomicFile::at(&scratch.join("stalld.prom")).unwrap();
        scratch.file("precious", "as it was");
        std::os::unix::fs::symlink(scratch.join("precious"), scratch.join(".stalld.prom.new")).unwrap();
        file.write(&text(false)).unwrap();
        let reader = fs::File::open(scratch.join("stalld.prom")).unwrap();
        file.write(&text(true)).unwrap();
        assert_eq!(io::read_to_string(reader).unwrap(), text(false));
        assert_eq!(fs::read_to_string(scratch.join("stalld.prom")).unwrap(), text(true));
        assert_eq!(fs::read_to_string(scratch.join("precious")).unwrap(), "as it was");
        file.remove();
        let left: Vec<_> =
            fs::read_dir(scratch.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["precious"]);
    }

    #[test]
    fn a_file_without_metrics_of_stalld_is_not_replaced_or_removed() {
        let scratch = Scratch::new("metrics-foreign");
        let path = scratch.join("stalld.prom");
        let file = AtomicFile::at(&path).unwrap();
        let refused = || file.write(&text(false)).unwrap_err().to_string();
        scratch.file("precious", "root:x:0:0\n");
        std::os::unix::fs::symlink(scratch.join("precious"), &path).unwrap();
        assert!(
            refused().ends_with("it is a symbolic link; remove it, or name another file"),
            "{}",
            refused()
        );
        file.remove();
        assert_eq!(fs::read_link(&path).unwrap(), scratch.join("precious"));
        fs::rename(scratch.join("precious"), &path).unwrap();
        assert!(refused().contains("it holds no metrics of stalld"), "{}", refused());
        file.remove();
        assert_eq!(fs::read_to_string(&path).unwrap(), "root:x:0:0\n");
        // A file of an earlier stalld is replaced, and so is an empty file.
        for before in ["", &text(true)] {
            fs::write(&path, before).unwrap();
            file.write(&text(false)).unwrap();
        }
        file.remove();
        fs::create_dir(&path).unwrap();
        assert!(refused().contains("it is no regular file"), "{}", refused());
        file.remove();
        assert!(path.is_dir());
    }

    #[test]
    fn a_text_begins_as_it_is_recognised() {
        assert!(Figures::of(1).text(Kind::TaskIter).as_bytes().starts_with(BEGINNING));
    }
}
