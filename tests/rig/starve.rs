//! The example program `starve`, which starves its victims behind a hog for a bounded time.

use crate::{Program, TIMEOUT, build_directory};
use stalld::task::{Nanos, Tid};
use std::path::PathBuf;
use std::process::Command;

/// The running example program `starve`.
pub struct Rig(Program);

impl Rig {
    pub fn start(args: &[&str]) -> Rig {
        let mut command = Command::new(Rig::path());
        command.args(args);
        Rig(Program::start("starve", command))
    }

    pub fn path() -> PathBuf {
        build_directory().join("examples/starve")
    }

    /// Waits for the next event of this kind: `ready`, `hog`, `victim`, `end hog`, `end victim`,
    /// `skipped`.
    pub fn event(&mut self, kind: &str) -> Event {
        self.first_of(&[kind])
    }

    /// Waits for the next event of one of these kinds.
    pub fn first_of(&mut self, kinds: &[&str]) -> Event {
        let is = |line: &str, kind: &&str| {
            line.strip_prefix(*kind).is_some_and(|rest| matches!(rest.as_bytes(), [] | [b' ', ..]))
        };
        let found = self.0.wait_for(|line| kinds.iter().any(|kind| is(line, kind)), TIMEOUT);
        let (at, line) = found.unwrap_or_else(|| panic!("the rig never said {kinds:?}"));
        Event { at, line }
    }

    pub fn events(&mut self, kind: &str, count: usize) -> Vec<Event> {
        (0..count).map(|_| self.event(kind)).collect()
    }

    /// Waits until it ends by itself. Returns its exit code and its output.
    pub fn finish(mut self) -> (Option<i32>, String) {
        let code = self.0.finish(TIMEOUT);
        let lines: Vec<&str> = self.0.lines().iter().map(|(_, line)| line.as_str()).collect();
        (code, lines.join("\n"))
    }

    pub fn pid(&self) -> Tid {
        self.0.pid()
    }
}

/// One line of the rig: `kind key=value... name=all the rest`.
#[derive(Clone, Debug)]
pub struct Event {
    /// The time at which it arrived here.
    pub at: Nanos,
    pub line: String,
}

impl Event {
    pub fn text(&self, key: &str) -> &str {
        let (rest, name) = self.line.split_once(" name=").unwrap_or((&self.line, ""));
        let field = || rest.split(' ').find_map(|word| word.split_once('=').filter(|(k, _)| *k == key));
        match key {
            "name" => name,
            _ => field().unwrap_or_else(|| panic!("no {key} in '{}'", self.line)).1,
        }
    }

    pub fn number(&self, key: &str) -> u64 {
        self.text(key).parse().unwrap_or_else(|_| panic!("{key} is no number in '{}'", self.line))
    }

    pub fn moment(&self, key: &str) -> Nanos {
        Nanos(self.number(key))
    }

    pub fn tid(&self) -> Tid {
        Tid(self.number("tid") as i32)
    }
}
