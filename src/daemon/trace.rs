//! Draws waits and boosts as a Perfetto trace (`--trace FILE`).
//!
//! The input is the events of the log. A thread of its own opens and writes the file, because a
//! disk may block it.

use super::files::Reports;
use super::log::{Level, LogEvent, Logger, Outlet, Record, Scanner, Sink, Writer, of_task};
use super::run::raise;
use crate::boost::event::Event;
use crate::chrome_trace::{self, ChromeTrace, Phase};
use crate::error::Result;
use crate::host::own_file;
use crate::json::{Object, Value};
use crate::task::{Comm, Cpu, Nanos, Task};
use std::io;
use std::path::PathBuf;

/// The maximum size of the file.
const LIMIT: u64 = 64 << 20;

/// The process id under which Perfetto shows stalld's scans. CPU n has the id n + 1, because
/// viewers take process 0 for the idle task.
const SCANS: u32 = 1_000_000;

/// The maximum number of tracks in `named`. When it is full, it is cleared, and names are written
/// again.
const NAMES: usize = 4096;

/// The thread that opens and writes the file.
pub(super) struct Trace {
    logger: Logger,
    writer: Writer,
}

impl Trace {
    /// Starts the thread. It opens the file when the first event arrives.
    pub(super) fn start(path: PathBuf, reports: Reports) -> Result<Trace> {
        let outlets = vec![Outlet::new(TraceSink::new(path, reports), Level::Debug)];
        let (logger, writer) = Writer::start("stalld-trace", outlets, || raise().unwrap_or_default())?;
        Ok(Trace { logger, writer })
    }

    /// Returns the logger that feeds the trace. It never blocks.
    pub(super) fn logger(&self) -> Logger {
        self.logger.clone()
    }

    /// Ends the file. Returns false if that takes longer than `within`.
    pub(super) fn close(self, within: Nanos) -> bool {
        self.writer.close(within)
    }
}

/// Turns log events into tracks.
struct TraceSink {
    file: File,
    reports: Reports,
    /// Waits of tasks that starve, or that starved until they were boosted.
    waits: Vec<Wait>,
    boosted: Vec<Task>,
    named_threads: Vec<(u32, i32, Comm)>,
}

enum File {
    Planned(PathBuf),
    Open(ChromeTrace),
    /// Refused, or full.
    Over,
}

struct Wait {
    task: Task,
    since: Nanos,
    /// The CPU whose track shows the wait.
    shown_at: Cpu,
    /// The end of the wait is not drawn yet.
    goes_on: bool,
    /// The current scan has reported the wait.
    seen: bool,
}

impl Sink for TraceSink {
    fn write(&mut self, record: &Record) -> io::Result<()> {
        self.begin();
        let drawn = record.event.map_or(Ok(()), |event| self.draw(event, record.at));
        if let Err(e) = drawn.and_then(|()| self.open().map_or(Ok(()), ChromeTrace::flush)) {
            self.reports.log.warning(format_args!("{e}: it ends there, and stalld goes on"));
            self.file = File::Over;
        }
        Ok(())
    }

    /// Unlimited, because each scan reports all starving tasks.
    fn lines_per_second_of_cpu(&self) -> u32 {
        u32::MAX
    }

    fn lines_per_second(&self) -> u32 {
        100_000
    }
}

impl TraceSink {
    fn new(path: PathBuf, reports: Reports) -> TraceSink {
        let file = File::Planned(path);
        TraceSink { file, reports, waits: Vec::new(), boosted: Vec::new(), named_threads: Vec::new() }
    }

    fn begin(&mut self) {
        if let File::Planned(path) = &self.file {
            // Private, because the file shows names of tasks and when they ran.
            let begun = own_file::create_private(path).and_then(|file| ChromeTrace::begin(file, path, LIMIT));
            self.file = match begun {
                Ok(trace) => File::Open(trace),
                Err(e) => {
                    self.reports.warn("there is no trace", e);
                    File::Over
                }
            };
        }
    }

    fn open(&mut self) -> Option<&mut ChromeTrace> {
        if let File::Open(trace) = &mut self.file { Some(trace) } else { None }
    }

    fn draw(&mut self, event: &LogEvent, at: Nanos) -> Result<()> {
        match *event {
            LogEvent::Starved { task, since, .. } => self.starves(&task, since, event),
            LogEvent::Task(Event::Boosted { task, how }) => {
                self.ends_waiting(&task, at)?;
                if self.boosted.iter().any(|boosted| boosted.id() == task.id()) {
                    return self.put(Phase::Instant, "pulse", at, &task, event);
                }
                self.boosted.push(task);
                self.put(Phase::Begin, how.name(), at, &task, event)
            }
            LogEvent::Task(Event::Over { task, .. } | Event::Lowered { task, .. }) => {
                if let Some(index) = self.boosted.iter().position(|boosted| boosted.id() == task.id()) {
                    // End the boost on the track where it began: the task may have migrated.
                    let began = self.boosted.swap_remove(index);
                    self.put(Phase::End, "", at, &began, event)?;
                }
                self.put(Phase::Instant, event.name(), at, &task, event)
            }
            LogEvent::Task(ref of_task) => self.put(Phase::Instant, event.name(), at, of_task.task(), event),
            LogEvent::Scanned { begun, scanner, knows, .. } => {
                if knows {
                    self.ends_those_not_seen(begun, scanner)?;
                }
                self.scanned(begun, scanner, at, event)
            }
            LogEvent::Dropped { .. } => self.put_on(
                SCANS,
                1,
                Comm::new(b"scans"),
                (Phase::Instant, event.name(), at),
                &args_of(event),
            ),
            _ => Ok(()),
        }
    }

    fn starves(&mut self, task: &Task, since: Nanos, event: &LogEvent) -> Result<()> {
        let known = self.waits.iter_mut().find(|wait| wait.task.id() == task.id());
        if let Some(wait) = known {
            wait.seen = true;
            wait.task.cpu = task.cpu;
            if since <= wait.since {
                return Ok(());
            }
            // The task has run since, and waits again.
            self.ends_waiting(task, since)?;
            self.waits.retain(|wait| wait.task.id() != task.id());
        }
        self.waits.push(Wait { task: *task, since, shown_at: task.cpu, goes_on: true, seen: true });
        self.put(Phase::AsyncBegin(task.tid.0.into()), "waits", since, task, event)
    }

    /// Draws the end of a wait. The wait stays in the list until a scan no longer reports it.
    fn ends_waiting(&mut self, task: &Task, at: Nanos) -> Result<()> {
        let goes_on = |wait: &&mut Wait| wait.task.id() == task.id() && wait.goes_on;
        let Some(wait) = self.waits.iter_mut().find(goes_on) else { return Ok(()) };
        wait.goes_on = false;
        let task = Task { cpu: wait.shown_at, ..*task };
        let end = (Phase::AsyncEnd(task.tid.0.into()), "waits", at);
        self.put_on(task.cpu.0 + 1, task.tid.0, task.comm, end, &|args| {
            of_task(&task, &mut |key, value| args.put(key, value));
        })
    }

    fn ends_those_not_seen(&mut self, begun: Nanos, scanner: Scanner) -> Result<()> {
        let is_theirs = |wait: &Wait| match scanner {
            Scanner::All => true,
            Scanner::Of(cpu) => wait.task.cpu == cpu,
            Scanner::Supervisor => false,
        };
        let missing = |wait: &&Wait| is_theirs(wait) && !wait.seen;
        let gone: Vec<Task> = self.waits.iter().filter(missing).map(|wait| wait.task).collect();
        for task in &gone {
            self.ends_waiting(task, begun)?;
        }
        self.waits.retain(|wait| !is_theirs(wait) || wait.seen);
        self.waits.iter_mut().filter(|wait| is_theirs(wait)).for_each(|wait| wait.seen = false);
        Ok(())
    }

    fn scanned(&mut self, begun: Nanos, scanner: Scanner, at: Nanos, event: &LogEvent) -> Result<()> {
        let (tid, whose) = match scanner {
            Scanner::Of(cpu) => (cpu.0 as i32 + 2, Comm::new(format!("monitor {cpu}").as_bytes())),
            _ => (1, Comm::new(b"scans")),
        };
        self.put_on(SCANS, tid, whose, (Phase::Complete(at - begun), "scan", begun), &args_of(event))
    }

    fn put(&mut self, phase: Phase, name: &str, at: Nanos, task: &Task, event: &LogEvent) -> Result<()> {
        self.put_on(task.cpu.0 + 1, task.tid.0, task.comm, (phase, name, at), &args_of(event))
    }

    fn put_on(
        &mut self,
        pid: u32,
        tid: i32,
        track: Comm,
        (phase, name, at): (Phase, &str, Nanos),
        args: &dyn Fn(&mut Object),
    ) -> Result<()> {
        let File::Open(trace) = &mut self.file else { return Ok(()) };
        let category = "stalld";
        let mut names = |phase, name, args: &dyn Fn(&mut Object)| {
            trace.put(&chrome_trace::TraceEvent { phase, name, category, at, pid, tid, args })
        };
        if !self.named_threads.contains(&(pid, tid, track)) {
            if self.named_threads.len() >= NAMES {
                self.named_threads.clear();
            }
            if !self.named_threads.iter().any(|&(known, ..)| known == pid) {
                let group = if pid == SCANS { "stalld".to_string() } else { format!("CPU {}", pid - 1) };
                names(Phase::Metadata, "process_name", &|args| args.put("name", Value::Text(&group)))?;
            }
            self.named_threads.retain(|&(of, thread, _)| (of, thread) != (pid, tid));
            self.named_threads.push((pid, tid, track));
            names(Phase::Metadata, "thread_name", &|args| args.put("name", Value::Bytes(track.as_bytes())))?;
        }
        names(phase, name, args)
    }
}

fn args_of(event: &LogEvent) -> impl Fn(&mut Object) {
    move |args| event.fields(None, &mut |key, value| args.put(key, value))
}

impl Drop for TraceSink {
    fn drop(&mut self) {
        if let Some(Err(e)) = self.open().map(ChromeTrace::end) {
            self.reports.log.warning(format_args!("{e}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boost::journal::{BoostPolicy, Saved};
    use crate::boost::restore::RestoreOutcome;
    use crate::task::Tid;
    use rig::scratch::Scratch;
    use std::fs;

    /// Returns the lines of the trace for these events, without the lines that name tracks.
    fn drawn(name: &str, all: &[(u64, LogEvent)]) -> Vec<String> {
        let scratch = Scratch::new(name);
        let path = scratch.join("trace.json");
        let (log, writer) = Writer::start("stalld-log", Vec::new(), || {}).unwrap();
        let mut picture = TraceSink::new(path.clone(), Reports { log, starter: None });
        picture.begin();
        for (at, event) in all {
            picture.draw(event, Nanos::from_millis(*at)).unwrap();
        }
        drop(picture);
        assert!(writer.close(Nanos::from_secs(600)));
        let text = fs::read_to_string(path).unwrap();
        let lines = text.lines().filter(|line| line.starts_with('{') && !line.contains(r#""ph":"M""#));
        // The phase, the name and the time identify an event.
        lines.map(|line| line.split(r#","pid""#).next().unwrap().replace(r#","cat":"stalld""#, "")).collect()
    }

    fn victim(cpu: u32) -> Task {
        Task { tid: Tid(7), cpu: Cpu(cpu), start: 1, comm: Comm::new(b"victim"), ..Task::default() }
    }

    fn starved(since: u64, cpu: u32) -> LogEvent {
        let since = Nanos::from_millis(since);
        LogEvent::Starved { task: victim(cpu), since, wait: Nanos::ZERO, exact: false }
    }

    fn scanned(begun: u64, scanner: Scanner) -> LogEvent {
        LogEvent::Scanned { begun: Nanos::from_millis(begun), waiting: 1, scanner, knows: true }
    }

    fn line(phase: &str, name: &str, ms: u64) -> String {
        format!(r#"{{"ph":"{phase}","name":"{name}","ts":{ms}000.000"#)
    }

    #[test]
    fn a_wait_ends_with_the_boost_and_the_boost_with_the_restore() {
        let how = BoostPolicy::Fifo;
        let over = Event::Over {
            task: victim(1),
            before: Saved::default(),
            after: Nanos::ZERO,
            early: false,
            outcome: RestoreOutcome::Gone,
        };
        let lines = drawn(
            "picture",
            &[
                (50, starved(10, 1)),
                (51, scanned(50, Scanner::All)),
                (52, LogEvent::Task(Event::Boosted { task: victim(1), how })),
                (60, starved(10, 1)),
                (61, LogEvent::Task(Event::Boosted { task: victim(1), how })),
                (62, scanned(60, Scanner::All)),
                (90, LogEvent::Task(over)),
            ],
        );
        assert_eq!(
            lines,
            [
                line("b", "waits", 10),
                format!("{},\"dur\":1000.000", line("X", "scan", 50)),
                line("e", "waits", 52),
                line("B", "SCHED_FIFO", 52),
                line("i", "pulse", 61),
                format!("{},\"dur\":2000.000", line("X", "scan", 60)),
                line("E", "", 90),
                line("i", "ended", 90),
            ]
        );
    }

    #[test]
    fn a_wait_that_ends_by_itself_ends_with_the_scan_that_does_not_find_it() {
        let lines = drawn(
            "picture-scans",
            &[
                (50, starved(10, 1)),
                (50, scanned(50, Scanner::Of(Cpu(1)))),
                // These scans show nothing about the wait.
                (60, scanned(60, Scanner::Of(Cpu(0)))),
                (60, scanned(60, Scanner::Supervisor)),
                (61, LogEvent::Scanned { begun: Nanos(1), waiting: 1, scanner: Scanner::All, knows: false }),
                (70, starved(65, 1)),
                (70, scanned(70, Scanner::Of(Cpu(1)))),
                (80, scanned(80, Scanner::Of(Cpu(1)))),
            ],
        );
        let waits: Vec<_> = lines.into_iter().filter(|line| line.contains("waits")).collect();
        assert_eq!(
            waits,
            [line("b", "waits", 10), line("e", "waits", 65), line("b", "waits", 65), line("e", "waits", 80)]
        );
    }
}
