//! A picture of who waits and who is boosted, for Perfetto: `--trace FILE`.
//!
//! It is drawn from what the log is told, by a thread of its own, which may wait for a disk. That
//! includes opening it.

use super::files::Reports;
use super::log::{Level, LogEvent, Logger, Looker, Outlet, Record, Sink, Writer};
use super::run::raise;
use crate::chrome_trace::{ChromeTrace, Event, Phase};
use crate::error::Result;
use crate::host::own_file;
use crate::json::{Object, Value};
use crate::task::{Comm, Cpu, Nanos, Task};
use std::io;
use std::path::PathBuf;

/// As large as the file gets.
const LIMIT: u64 = 64 << 20;

/// The process that stalld's own looks are shown as. A CPU is shown as the one with its number and
/// one more: viewers take process 0 for the idle task.
const LOOKS: u32 = 1_000_000;

/// After so many tracks their names are told again, rather than known for ever.
const NAMES: usize = 4096;

/// The file, and the thread that alone opens and writes it.
pub struct Trace {
    teller: Logger,
    writer: Writer,
}

impl Trace {
    /// Starts the thread, which begins the file with the first scan.
    pub fn start(path: PathBuf, reports: Reports) -> Result<Trace> {
        let outlets = vec![Outlet::new(TraceSink::new(path, reports), Level::Debug)];
        let (teller, writer) = Writer::start("stalld-trace", outlets, || raise().unwrap_or_default())?;
        Ok(Trace { teller, writer })
    }

    /// What takes all that is to be drawn, and never waits.
    pub fn teller(&self) -> Logger {
        self.teller.clone()
    }

    /// Ends the file. Returns false if that takes longer.
    pub fn close(self, within: Nanos) -> bool {
        self.writer.close(within)
    }
}

/// Turns what is told into tracks.
struct TraceSink {
    file: File,
    reports: Reports,
    /// Those who starve, and those who did so until they were boosted.
    waits: Vec<Wait>,
    boosted: Vec<Task>,
    named: Vec<(u32, i32, Comm)>,
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
    /// The CPU that it is shown at.
    shown_at: Cpu,
    /// It has not been drawn to its end.
    goes_on: bool,
    /// The look that is being told of has found it.
    seen: bool,
}

impl Sink for TraceSink {
    fn write(&mut self, record: &Record) -> io::Result<()> {
        self.begin();
        let drawn = record.told.map_or(Ok(()), |told| self.draw(told, record.at));
        if let Err(e) = drawn.and_then(|()| self.open().map_or(Ok(()), ChromeTrace::flush)) {
            self.reports.log.warning(format_args!("{e}: it ends there, and stalld goes on"));
            self.file = File::Over;
        }
        Ok(())
    }

    /// Each look tells of all who starve.
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
        TraceSink { file, reports, waits: Vec::new(), boosted: Vec::new(), named: Vec::new() }
    }

    fn begin(&mut self) {
        if let File::Planned(path) = &self.file {
            // The names and the habits of tasks are for no other user.
            let begun = own_file::begin(path).and_then(|file| ChromeTrace::begin(file, path, LIMIT));
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

    fn draw(&mut self, told: &LogEvent, at: Nanos) -> Result<()> {
        match *told {
            LogEvent::Starved { task, since, .. } => self.starves(&task, since, told),
            LogEvent::Boosted { task, how } => {
                self.ends_waiting(&task, at)?;
                if self.boosted.iter().any(|boosted| boosted.id() == task.id()) {
                    return self.put(Phase::Instant, "pulse", at, &task, told);
                }
                self.boosted.push(task);
                self.put(Phase::Begin, how.name(), at, &task, told)
            }
            LogEvent::Restored { task, .. }
            | LogEvent::RestoreFailed { task, .. }
            | LogEvent::LeftAlone { task, .. }
            | LogEvent::Lowered { task, .. }
            | LogEvent::Ended { task } => {
                if let Some(index) = self.boosted.iter().position(|boosted| boosted.id() == task.id()) {
                    // On the track where it began, wherever the task is by now.
                    let began = self.boosted.swap_remove(index);
                    self.put(Phase::End, "", at, &began, told)?;
                }
                self.put(Phase::Instant, told.event(), at, &task, told)
            }
            LogEvent::Refused { task, .. }
            | LogEvent::Adopted { parent: task, .. }
            | LogEvent::Orphan { parent: task, .. } => {
                self.put(Phase::Instant, told.event(), at, &task, told)
            }
            LogEvent::Looked { begun, looker, knows, .. } => {
                if knows {
                    self.ends_those_not_seen(begun, looker)?;
                }
                self.looked(begun, looker, at, told)
            }
            LogEvent::Dropped { .. } => {
                self.put_on(LOOKS, 1, Comm::new(b"looks"), (Phase::Instant, told.event(), at), told)
            }
            _ => Ok(()),
        }
    }

    fn starves(&mut self, task: &Task, since: Nanos, told: &LogEvent) -> Result<()> {
        let known = self.waits.iter_mut().find(|wait| wait.task.id() == task.id());
        if let Some(wait) = known {
            wait.seen = true;
            wait.task.cpu = task.cpu;
            if since <= wait.since {
                return Ok(());
            }
            // It has run since, and waits again.
            self.ends_waiting(task, since)?;
            self.waits.retain(|wait| wait.task.id() != task.id());
        }
        self.waits.push(Wait { task: *task, since, shown_at: task.cpu, goes_on: true, seen: true });
        self.put(Phase::AsyncBegin(task.tid.0.into()), "waits", since, task, told)
    }

    /// Ends what was drawn of a wait. That it has ended stays known until a look does not find it.
    fn ends_waiting(&mut self, task: &Task, at: Nanos) -> Result<()> {
        let goes_on = |wait: &&mut Wait| wait.task.id() == task.id() && wait.goes_on;
        let Some(wait) = self.waits.iter_mut().find(goes_on) else { return Ok(()) };
        wait.goes_on = false;
        let task = Task { cpu: wait.shown_at, ..*task };
        // There is no more to say of it than whose it was.
        self.put(Phase::AsyncEnd(task.tid.0.into()), "waits", at, &task, &LogEvent::Ended { task })
    }

    fn ends_those_not_seen(&mut self, begun: Nanos, looker: Looker) -> Result<()> {
        let is_theirs = |wait: &Wait| match looker {
            Looker::All => true,
            Looker::Of(cpu) => wait.task.cpu == cpu,
            Looker::Supervisor => false,
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

    fn looked(&mut self, begun: Nanos, looker: Looker, at: Nanos, told: &LogEvent) -> Result<()> {
        let (tid, whose) = match looker {
            Looker::Of(cpu) => (cpu.0 as i32 + 2, Comm::new(format!("monitor {cpu}").as_bytes())),
            _ => (1, Comm::new(b"looks")),
        };
        self.put_on(LOOKS, tid, whose, (Phase::Complete(at - begun), "look", begun), told)
    }

    fn put(&mut self, phase: Phase, name: &str, at: Nanos, task: &Task, told: &LogEvent) -> Result<()> {
        self.put_on(task.cpu.0 + 1, task.tid.0, task.comm, (phase, name, at), told)
    }

    fn put_on(
        &mut self,
        pid: u32,
        tid: i32,
        track: Comm,
        (phase, name, at): (Phase, &str, Nanos),
        told: &LogEvent,
    ) -> Result<()> {
        let File::Open(trace) = &mut self.file else { return Ok(()) };
        let category = "stalld";
        let mut names = |phase, name, args: &dyn Fn(&mut Object)| {
            trace.put(&Event { phase, name, category, at, pid, tid, args })
        };
        if !self.named.contains(&(pid, tid, track)) {
            if self.named.len() >= NAMES {
                self.named.clear();
            }
            if !self.named.iter().any(|&(known, ..)| known == pid) {
                let group = if pid == LOOKS { "stalld".to_string() } else { format!("CPU {}", pid - 1) };
                names(Phase::Metadata, "process_name", &|args| args.put("name", Value::Text(&group)))?;
            }
            self.named.retain(|&(of, thread, _)| (of, thread) != (pid, tid));
            self.named.push((pid, tid, track));
            names(Phase::Metadata, "thread_name", &|args| args.put("name", Value::Bytes(track.as_bytes())))?;
        }
        names(phase, name, &|args| told.fields(None, &mut |key, value| args.put(key, value)))
    }
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
    use crate::boost::journal::BoostPolicy;
    use crate::task::Tid;
    use rig::scratch::Scratch;
    use std::fs;

    /// The lines that come of all this, without their names' lines.
    fn drawn(name: &str, all: &[(u64, LogEvent)]) -> Vec<String> {
        let scratch = Scratch::new(name);
        let path = scratch.join("trace.json");
        let (log, writer) = Writer::start("stalld-log", Vec::new(), || {}).unwrap();
        let mut picture = TraceSink::new(path.clone(), Reports { log, starter: None });
        picture.begin();
        for (at, told) in all {
            picture.draw(told, Nanos::from_millis(*at)).unwrap();
        }
        drop(picture);
        assert!(writer.close(Nanos::from_secs(600)));
        let text = fs::read_to_string(path).unwrap();
        let lines = text.lines().filter(|line| line.starts_with('{') && !line.contains(r#""ph":"M""#));
        // The phase, the name and the time tell them apart.
        lines.map(|line| line.split(r#","pid""#).next().unwrap().replace(r#","cat":"stalld""#, "")).collect()
    }

    fn victim(cpu: u32) -> Task {
        Task { tid: Tid(7), cpu: Cpu(cpu), start: 1, comm: Comm::new(b"victim"), ..Task::default() }
    }

    fn starved(since: u64, cpu: u32) -> LogEvent {
        let since = Nanos::from_millis(since);
        LogEvent::Starved { task: victim(cpu), since, wait: Nanos::ZERO, exact: false }
    }

    fn looked(begun: u64, looker: Looker) -> LogEvent {
        LogEvent::Looked { begun: Nanos::from_millis(begun), waiting: 1, looker, knows: true }
    }

    fn line(phase: &str, name: &str, ms: u64) -> String {
        format!(r#"{{"ph":"{phase}","name":"{name}","ts":{ms}000.000"#)
    }

    #[test]
    fn a_wait_ends_with_the_boost_and_the_boost_with_the_restore() {
        let how = BoostPolicy::Fifo;
        let lines = drawn(
            "picture",
            &[
                (50, starved(10, 1)),
                (51, looked(50, Looker::All)),
                (52, LogEvent::Boosted { task: victim(1), how }),
                (60, starved(10, 1)),
                (61, LogEvent::Boosted { task: victim(1), how }),
                (62, looked(60, Looker::All)),
                (90, LogEvent::Ended { task: victim(1) }),
            ],
        );
        assert_eq!(
            lines,
            [
                line("b", "waits", 10),
                format!("{},\"dur\":1000.000", line("X", "look", 50)),
                line("e", "waits", 52),
                line("B", "SCHED_FIFO", 52),
                line("i", "pulse", 61),
                format!("{},\"dur\":2000.000", line("X", "look", 60)),
                line("E", "", 90),
                line("i", "ended", 90),
            ]
        );
    }

    #[test]
    fn a_wait_that_ends_by_itself_ends_with_the_look_that_does_not_find_it() {
        let lines = drawn(
            "picture-looks",
            &[
                (50, starved(10, 1)),
                (50, looked(50, Looker::Of(Cpu(1)))),
                // None of these knows of it.
                (60, looked(60, Looker::Of(Cpu(0)))),
                (60, looked(60, Looker::Supervisor)),
                (61, LogEvent::Looked { begun: Nanos(1), waiting: 1, looker: Looker::All, knows: false }),
                (70, starved(65, 1)),
                (70, looked(70, Looker::Of(Cpu(1)))),
                (80, looked(80, Looker::Of(Cpu(1)))),
            ],
        );
        let waits: Vec<_> = lines.into_iter().filter(|line| line.contains("waits")).collect();
        assert_eq!(
            waits,
            [line("b", "waits", 10), line("e", "waits", 65), line("b", "waits", 65), line("e", "waits", 80)]
        );
    }
}
