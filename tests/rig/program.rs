//! A program that a test has started, and the lines that it prints.

use crate::{TIMEOUT, keep_away_from_the_hog};
use stalld::sys::clock;
use stalld::task::{Nanos, Tid};
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

/// A running program and the lines that it has printed so far. Killed when dropped.
pub struct Program {
    name: &'static str,
    child: Child,
    arriving: Receiver<(Nanos, String)>,
    lines: Vec<(Nanos, String)>,
    /// How many of the lines an earlier wait has passed.
    seen: usize,
}

impl Program {
    pub fn start(name: &'static str, mut command: Command) -> Program {
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|e| {
            panic!("cannot start {command:?}: {e}; 'cargo build --bins --examples' builds stalld and the rig")
        });
        let (sender, arriving) = mpsc::channel();
        read_lines(child.stdout.take().expect("stdout is piped"), sender.clone());
        read_lines(child.stderr.take().expect("stderr is piped"), sender);
        Program { name, child, arriving, lines: Vec::new(), seen: 0 }
    }

    pub fn pid(&self) -> Tid {
        Tid(self.child.id() as i32)
    }

    /// Returns the next line that contains `text`.
    pub fn line_with(&mut self, text: &str) -> (Nanos, String) {
        let found = self.wait_for(|line| line.contains(text), TIMEOUT);
        found.unwrap_or_else(|| panic!("{} never printed '{text}'", self.name))
    }

    /// Returns the next line that `wanted` accepts, and passes all lines before it. Returns `None`,
    /// and passes no line, if there is none before `timeout`.
    pub fn wait_for(&mut self, wanted: impl Fn(&str) -> bool, timeout: Nanos) -> Option<(Nanos, String)> {
        let until = clock::monotonic() + timeout;
        let first = self.seen;
        loop {
            while let Some(line) = self.lines.get(self.seen) {
                self.seen += 1;
                if wanted(&line.1) {
                    return Some(line.clone());
                }
            }
            let left = until - clock::monotonic();
            match self.arriving.recv_timeout(Duration::from_nanos(left.0)) {
                Ok(line) => self.lines.push(line),
                Err(_) => {
                    self.seen = first;
                    return None;
                }
            }
        }
    }

    /// Waits until the program ends, and kills it after `timeout`. Returns its exit code; `None` if
    /// a signal ended it.
    pub fn finish(&mut self, timeout: Nanos) -> Option<i32> {
        let until = clock::monotonic() + timeout;
        // No line is accepted, so this reads until both pipes are closed.
        self.wait_for(|_| false, timeout);
        loop {
            if let Some(status) = self.child.try_wait().expect("cannot wait for a child") {
                return status.code();
            }
            if clock::monotonic() >= until {
                eprintln!("{} does not end and is killed", self.name);
                let _ = self.child.kill();
                return self.child.wait().expect("cannot wait for a child").code();
            }
            clock::nap(Nanos::from_millis(1));
        }
    }

    /// Sends SIGKILL without the time that a shell takes to start.
    pub fn kill(&mut self) {
        self.child.kill().expect("cannot kill a child");
    }

    /// All lines so far, each with the time at which it arrived.
    pub fn lines(&self) -> &[(Nanos, String)] {
        &self.lines
    }

    fn transcript(&self) -> String {
        self.lines.iter().map(|(at, text)| format!("{:>10} us {text}\n", at.0 / 1000)).collect()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            self.lines.extend(self.arriving.try_iter());
            eprintln!("{} printed:\n{}", self.name, self.transcript());
        }
    }
}

/// Sends each line with the moment it arrived.
fn read_lines(pipe: impl Read + Send + 'static, sender: Sender<(Nanos, String)>) {
    thread::spawn(move || {
        keep_away_from_the_hog();
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        while pipe.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            let at = clock::monotonic();
            let text = String::from_utf8_lossy(&line).trim_end_matches('\n').to_string();
            if sender.send((at, text)).is_err() {
                return;
            }
            line.clear();
        }
    });
}
