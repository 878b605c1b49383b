//! A running stallstat, from which a test requests reports one by one.

use crate::json::Json;
use crate::{Program, TIMEOUT, build_directory, process};
use stalld::task::{Nanos, Tid};
use std::process::Command;

pub struct Stallstat(Program);

/// Returns the path of the program under test.
pub fn path() -> std::path::PathBuf {
    build_directory().join("stallstat")
}

/// SIGUSR1, in the mask that /proc shows.
const ASKS_FOR_A_REPORT: u64 = 1 << 9;

impl Stallstat {
    /// Starts a stallstat that writes JSON. It counts from here on until a test requests a report.
    pub fn start(args: &[&str]) -> Stallstat {
        let mut stallstat = Stallstat::start_as(&[&["--json"], args].concat());
        stallstat.report();
        stallstat
    }

    /// Starts a stallstat, and returns when it accepts requests for reports. It ends by itself,
    /// even if the test does not end it.
    pub fn start_as(args: &[&str]) -> Stallstat {
        let mut command = Command::new(path());
        command.args(["-i", "3600", "-r", "300"]).args(args);
        let stallstat = Stallstat(Program::start("stallstat", command));
        process::eventually("stallstat holds signals back", || {
            let mask = process::status(stallstat.pid(), "SigBlk")?;
            (u64::from_str_radix(&mask, 16).ok()? & ASKS_FOR_A_REPORT != 0).then_some(())
        });
        stallstat
    }

    pub fn pid(&self) -> Tid {
        self.0.pid()
    }

    /// Requests a report of all counts since the last one.
    pub fn report(&mut self) -> Report {
        process::signal(self.pid(), "USR1");
        self.next_report()
    }

    /// Returns the next report, without a request.
    pub fn next_report(&mut self) -> Report {
        let (_, line) = self.0.line_with("{\"time\":");
        Report(Json::parse(&line))
    }

    /// Returns the next line that contains `text`.
    pub fn line_with(&mut self, text: &str) -> String {
        self.0.line_with(text).1
    }

    /// Sends a signal and waits for the end. Returns the exit code and all output lines in their
    /// order.
    pub fn end_by(mut self, signal: &str) -> (Option<i32>, Vec<String>) {
        process::signal(self.pid(), signal);
        let code = self.0.finish(TIMEOUT);
        (code, self.0.lines().iter().map(|(_, line)| line.clone()).collect())
    }

    pub fn finish(mut self) -> (Option<i32>, Vec<String>) {
        let code = self.0.finish(TIMEOUT);
        (code, self.0.lines().iter().map(|(_, line)| line.clone()).collect())
    }
}

#[derive(Debug)]
pub struct Report(pub Json);

impl Report {
    pub fn rows(&self, table: &str) -> &[Json] {
        self.0.get(table).unwrap_or_else(|| panic!("there is no table {table}: {self:?}")).list()
    }

    /// Returns the names in a table.
    pub fn names(&self, table: &str) -> Vec<&str> {
        self.rows(table).iter().filter(|row| row.get("comm").is_some()).map(|row| row.text("comm")).collect()
    }

    /// Returns the row of a table for all tasks of this name.
    pub fn of(&self, table: &str, name: &str) -> Row<'_> {
        self.find(table, "comm", |value| matches!(value, Json::Text(text) if text == name))
    }

    /// Returns the row of a table for one task, if tasks are not collapsed.
    pub fn of_task(&self, table: &str, tid: Tid) -> Row<'_> {
        self.find(table, "tid", |value| *value == Json::Number(tid.0.into()))
    }

    pub fn not_counted(&self) -> u64 {
        Row(&self.0).count("not_counted")
    }

    fn find(&self, table: &str, key: &str, is_it: impl Fn(&Json) -> bool) -> Row<'_> {
        let mut found = self.rows(table).iter().filter(|row| row.get(key).is_some_and(&is_it));
        let row = found.next().unwrap_or_else(|| panic!("it is not in {table}: {:?}", self.rows(table)));
        assert!(found.next().is_none(), "it is in {table} twice: {:?}", self.rows(table));
        Row(row)
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Row<'a>(pub &'a Json);

impl Row<'_> {
    /// Returns a number, rounded down.
    pub fn count(&self, key: &str) -> u64 {
        self.0.number(key).unwrap_or_else(|| panic!("there is no {key}: {self:?}")) as u64
    }

    pub fn time(&self, key: &str) -> Nanos {
        Nanos(self.count(key))
    }
}
