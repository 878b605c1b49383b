//! The daemon in the foreground.

use crate::{Log, Program, Record, TIMEOUT, build_directory, process};
use stalld::task::{Nanos, Tid};
use std::process::Command;
use std::sync::LazyLock;

/// A running stalld whose log is read as JSON. Killed when dropped.
pub struct Stalld(Program);

impl Stalld {
    pub fn start(args: &[&str]) -> Stalld {
        Stalld::start_by(&[], args)
    }

    /// Starts it through a program that executes its arguments, such as `setpriv` or
    /// `sh -c '... exec "$@"'`.
    pub fn start_by(starter: &[&str], args: &[&str]) -> Stalld {
        let args = [&["--log-format=json"], args].concat();
        Stalld(Program::start("stalld", Stalld::command(starter, &args)))
    }

    /// Starts it with the log that people read: for tests of lines that are promised letter for
    /// letter.
    pub fn start_with_text_log(args: &[&str]) -> Stalld {
        Stalld::start_with_text_log_by(&[], args)
    }

    /// The same through a program that executes its arguments.
    pub fn start_with_text_log_by(starter: &[&str], args: &[&str]) -> Stalld {
        Stalld(Program::start("stalld", Stalld::command(starter, args)))
    }

    pub fn command(starter: &[&str], args: &[&str]) -> Command {
        let mut words = starter.iter().copied().chain([Stalld::path()]).chain(args.iter().copied());
        let mut command = Command::new(words.next().expect("there is at least one word"));
        command.args(words);
        command
    }

    /// Options that exclude all processes but the rig: the kernel's own threads starve behind its
    /// hog too.
    pub const RIG_ONLY: [&str; 2] = ["-I", "^[^s],^s[^t]"];

    /// The program under test.
    pub fn path() -> &'static str {
        static PATH: LazyLock<String> =
            LazyLock::new(|| build_directory().join("stalld").display().to_string());
        &PATH
    }

    /// Starts a stalld that logs everything about the rig and boosts nothing, and waits for its
    /// first scan.
    pub fn watch(args: &[&str]) -> Stalld {
        let mut stalld = Stalld::start(&[&["-f", "-l", "-v"], &Stalld::RIG_ONLY[..], args].concat());
        stalld.scan();
        stalld
    }

    /// Waits for the next line that reports a scan, which takes -v. Returns when it arrived.
    pub fn scan(&mut self) -> Nanos {
        let reports_scan = |record: &Record| {
            ["checking cpu", "waiting tasks", "skipping"].iter().any(|it| record.message().contains(it))
        };
        self.wait_for(reports_scan, TIMEOUT).expect("stalld reports no scan").at
    }

    /// Returns the next report of this event.
    pub fn event(&mut self, event: &str) -> Record {
        let found = self.wait_for(|record| record.is(event), TIMEOUT);
        found.unwrap_or_else(|| panic!("stalld never reported '{event}'"))
    }

    /// Returns the next report of this event of this task.
    pub fn event_of(&mut self, event: &str, tid: Tid) -> Record {
        let found = self.wait_for(|record| record.is_of(event, tid), TIMEOUT);
        found.unwrap_or_else(|| panic!("stalld never reported '{event}' of task {tid}"))
    }

    /// Returns the next line that contains this text: for lines that report no event.
    pub fn message(&mut self, text: &str) -> Record {
        let found = self.wait_for(|record| record.message().contains(text), TIMEOUT);
        found.unwrap_or_else(|| panic!("stalld never logged '{text}'"))
    }

    /// Returns the next record that `wanted` accepts, and passes those before it. Returns `None`,
    /// and passes none, if there is none before `timeout`.
    pub fn wait_for(&mut self, wanted: impl Fn(&Record) -> bool, timeout: Nanos) -> Option<Record> {
        let found = self.0.wait_for(|line| wanted(&Record::read(Nanos::ZERO, line)), timeout);
        found.map(|(at, line)| Record::read(at, &line))
    }

    pub fn pid(&self) -> Tid {
        self.0.pid()
    }

    /// Sends SIGTERM and waits for the end. Returns the exit code, `None` after a kill, and the
    /// whole log.
    pub fn terminate(self) -> (Option<i32>, Log) {
        self.signal("TERM");
        self.finish()
    }

    /// Waits until it ends by itself.
    pub fn finish(mut self) -> (Option<i32>, Log) {
        let code = self.0.finish(TIMEOUT);
        (code, Log(self.0.lines().iter().map(|(at, line)| Record::read(*at, line)).collect()))
    }

    /// As `finish`, with the lines as they were printed: for a stalld with the log that people
    /// read.
    pub fn finish_with_text(mut self) -> (Option<i32>, Vec<String>) {
        let code = self.0.finish(TIMEOUT);
        (code, self.0.lines().iter().map(|(_, line)| line.clone()).collect())
    }

    pub fn signal(&self, name: &str) {
        process::signal(self.pid(), name);
    }

    /// Sends SIGKILL at once.
    pub fn kill(&mut self) {
        self.0.kill();
    }
}
