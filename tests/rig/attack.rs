//! The example program `attack`, run by a user without any privilege.

use crate::scratch::{self, Scratch};
use crate::{Event, Program, Rig, TIMEOUT, hogged_cpu, online, process};
use stalld::sys::sched;
use stalld::task::{Nanos, Tid};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The user of the attacks, which owns no file and no process of its own.
pub const USER: u32 = 65534;

/// Starts a command as that user. It has no group and no capability, and may choose no real-time
/// priority and no negative nice value.
pub const AS_USER: [&str; 10] = [
    "prlimit",
    "--rtprio=0:0",
    "--nice=0:0",
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
    "--inh-caps=-all",
    "--bounding-set=-all",
    "--no-new-privs",
];

/// A running attack. Killed when dropped, with all processes that it has started.
pub struct Attack {
    program: Program,
    group: Tid,
    // Dropped last, because the processes may execute what is in it.
    _copy: Scratch,
}

impl Attack {
    /// Starts an attack on the hogged CPU that ends by itself. `words` is its act, behind options
    /// of it.
    pub fn start(length: Nanos, words: &[&str]) -> Attack {
        Attack::start_by(&[], length, words)
    }

    /// The same, as SCHED_FIFO 1, which an administrator may give to a process of any user.
    pub fn start_fifo(length: Nanos, words: &[&str]) -> Attack {
        Attack::start_by(&["chrt", "-f", "1"], length, words)
    }

    fn start_by(starter: &[&str], length: Nanos, words: &[&str]) -> Attack {
        let seconds = format!("{}.{:03}", length.as_secs(), length.as_millis() % 1000);
        // In a session of its own it has a process group, by which the observer knows the children
        // of an attack. A crowd also has its own share of each CPU then, and does not slow the test
        // down.
        let mut all = ["setsid"].into_iter().chain(starter.iter().copied()).chain(AS_USER);
        let mut command = Command::new(all.next().expect("there is at least one word"));
        let (scratch, copy) = copy();
        command.args(all).arg(copy).args(["--cpu", &hogged_cpu().to_string(), "--for", &seconds]);
        command.args(words);
        let program = Program::start("attack", command);
        let group = program.pid();
        Attack { program, group, _copy: scratch }
    }

    /// The process group of the attack, and the number of its first process.
    pub fn group(&self) -> Tid {
        self.group
    }

    /// Waits until the attack is set up.
    pub fn await_ready(&mut self) {
        let is_ready = |line: &str| line == "ready" || line.starts_with("crowd ");
        let found = self.program.wait_for(is_ready, TIMEOUT);
        assert!(found.is_some(), "the attack was never ready");
    }

    /// Returns the next event of this kind: `victim`, `crowd`, `boosted`, `ready`, `end victim`.
    pub fn event(&mut self, kind: &str) -> Event {
        let found = self.find(kind, TIMEOUT);
        found.unwrap_or_else(|| panic!("the attack never said '{kind}'"))
    }

    /// Returns all events of this kind that have arrived and that no earlier wait has passed.
    pub fn events(&mut self, kind: &str) -> Vec<Event> {
        std::iter::from_fn(|| self.find(kind, Nanos::ZERO)).collect()
    }

    /// The threads that starve, by all lines so far.
    pub fn victims(&self) -> Vec<Tid> {
        let lines = self.program.lines().iter().filter(|(_, line)| line.starts_with("victim "));
        lines.map(|(at, line)| Event { at: *at, line: line.clone() }.tid()).collect()
    }

    fn find(&mut self, kind: &str, timeout: Nanos) -> Option<Event> {
        let is = |line: &str| {
            line.strip_prefix(kind).is_some_and(|rest| matches!(rest.as_bytes(), [] | [b' ', ..]))
        };
        self.program.wait_for(is, timeout).map(|(at, line)| Event { at, line })
    }
}

impl Drop for Attack {
    /// Only a task that runs can end, so all are moved away from the hog first.
    fn drop(&mut self) {
        let elsewhere = online().iter().filter(|&cpu| cpu != hogged_cpu()).collect();
        let members = process::all().filter(|&pid| process::group(pid) == Some(self.group));
        for pid in members.collect::<Vec<_>>() {
            let threads = process::threads(pid);
            // A crowd would take long to move. It ends by itself once the hog has ended.
            if threads.len() < 100 {
                threads.into_iter().for_each(|tid| drop(sched::set_affinity(tid, &elsewhere)));
            }
            process::kill(pid);
        }
    }
}

/// Copies the program to where any user can execute it, because the directory of the build may be
/// closed to other users.
fn copy() -> (Scratch, PathBuf) {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let scratch = Scratch::new(&format!("attack-{}", COUNT.fetch_add(1, Relaxed)));
    let (original, copy) = (Rig::path().with_file_name("attack"), scratch.join("attack"));
    assert!(original.exists(), "there is no {}; 'cargo build --examples' builds it", original.display());
    scratch::install(&original, &copy);
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).expect("cannot change a mode");
    (scratch, copy)
}

/// A directory that the user of the attacks owns.
pub fn directory_of_user(name: &str) -> Scratch {
    let scratch = Scratch::new(name);
    std::os::unix::fs::chown(scratch.path(), Some(USER), Some(USER)).expect("cannot give a directory away");
    scratch
}
