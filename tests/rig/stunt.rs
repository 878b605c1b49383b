//! The example program `stunt`: a victim that does something difficult in the middle of its boost.

use crate::{Event, Program, Rig, TIMEOUT, hogged_cpu, online, process};
use stalld::sys::sched;
use stalld::task::Tid;
use std::process::Command;

/// A process on the hogged CPU. Drop kills it and waits for its end, so that another process may
/// get its number from then on.
pub struct Stunt {
    program: Program,
    victim: Tid,
}

impl Stunt {
    /// Starts a victim, which starves from then on, so start the hog first. `stunt --help` lists
    /// the values of `act`.
    pub fn start(seconds: u32, act: &[&str]) -> Stunt {
        let mut command = Command::new(Rig::path().with_file_name("stunt"));
        command.args([hogged_cpu().to_string(), seconds.to_string()]).args(act);
        let mut program = Program::start("stunt", command);
        let victim = line(&mut program, "victim ").tid();
        Stunt { program, victim }
    }

    /// Returns the thread that starves.
    pub fn victim(&self) -> Tid {
        self.victim
    }

    pub fn pid(&self) -> Tid {
        self.program.pid()
    }

    /// Waits for the report of its forks.
    pub fn born(&mut self) -> Event {
        line(&mut self.program, "born ")
    }
}

impl Drop for Stunt {
    /// Only a task that runs can end, so this moves all threads to other CPUs.
    fn drop(&mut self) {
        let elsewhere = online().iter().filter(|&cpu| cpu != hogged_cpu()).collect();
        for thread in process::threads(self.pid()) {
            let _ = sched::set_affinity(thread, &elsewhere);
        }
    }
}

fn line(program: &mut Program, kind: &str) -> Event {
    let found = program.wait_for(|line| line.starts_with(kind), TIMEOUT);
    let (at, line) = found.unwrap_or_else(|| panic!("the stunt never said '{kind}'"));
    Event { at, line }
}
