//! The example program `stunt`: a victim that does something difficult in the middle of its boost.

use crate::{Event, Program, Rig, TIMEOUT, hogged_cpu, online, process};
use stalld::sys::sched;
use stalld::task::Tid;
use std::process::Command;

/// At work on the hogged CPU. Killed when dropped, and waited for: from then on its number is
/// anybody's.
pub struct Stunt {
    program: Program,
    victim: Tid,
}

impl Stunt {
    /// To be started once the hog is there; it starves from then on. `act` is what `stunt --help`
    /// lists.
    pub fn start(seconds: u32, act: &[&str]) -> Stunt {
        let mut command = Command::new(Rig::path().with_file_name("stunt"));
        command.args([hogged_cpu().to_string(), seconds.to_string()]).args(act);
        let mut program = Program::start("stunt", command);
        let victim = line(&mut program, "victim ").tid();
        Stunt { program, victim }
    }

    /// The thread that starves.
    pub fn victim(&self) -> Tid {
        self.victim
    }

    pub fn pid(&self) -> Tid {
        self.program.pid()
    }

    /// What became of its forks.
    pub fn born(&mut self) -> Event {
        line(&mut self.program, "born ")
    }
}

impl Drop for Stunt {
    /// Only a task that runs can end, so it is taken to where it does.
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
