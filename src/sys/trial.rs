//! Tries out, on a child that sleeps, what the kernel lets this process make of a pinned task.

use super::{cpu, process, sched};
use crate::cpus::CpuSet;
use crate::task::{Cpu, Nanos, Policy, Tid};
use std::io;

/// As much as a boost by FIFO uses.
const FIFO_PRIORITY: u32 = 98;

/// A killed child ends within this time unless a hog holds its CPU.
const REAP_TIMEOUT: Nanos = Nanos::from_secs(1);

/// What a boost would meet with. An error is the kernel's refusal.
#[derive(Debug)]
pub struct Trial {
    /// None where it was not asked for.
    pub deadline: Option<io::Result<()>>,
    pub fifo: io::Result<()>,
}

/// Pins a child to `cpu`, or to this thread's CPU where it can't go there, and has it scheduled as
/// a boost would. The child sleeps, and so takes next to no time of that CPU. An error means that
/// there was nothing to try it on.
///
/// By `deadline` of this runtime and period only if they are given, and on this thread's CPU, where
/// the child stays until it is gone: for a second the kernel goes on counting what it has admitted,
/// and takes that off where the task is by then. Between an isolated CPU and others that is another
/// account, which would be wrong for good: no setting of RT throttling is accepted any more.
pub fn policies(cpu: Cpu, deadline: Option<(Nanos, Nanos)>) -> io::Result<Trial> {
    let child = Sleeper::start()?;
    // A cpuset may keep stalld away from the CPUs that it watches. Any other one does.
    sched::set_affinity(child.tid, &only(cpu))
        .or_else(|_| sched::set_affinity(child.tid, &only(cpu::current())))?;
    let fifo = sched::set_scheduler(child.tid, Policy::FIFO, FIFO_PRIORITY, true);
    child.come_here();
    let deadline = deadline
        .map(|(runtime, period)| sched::set_deadline(child.tid, runtime, period, sched::RESET_ON_FORK));
    Ok(Trial { deadline, fifo })
}

/// A process that does nothing, and ends with this or with its parent.
struct Sleeper {
    tid: Tid,
}

impl Sleeper {
    fn start() -> io::Result<Sleeper> {
        let parent = std::process::id() as libc::pid_t;
        // SAFETY: the child makes system calls only.
        let tid = unsafe { process::child(c"stall-trial", &[], || sleep_for_good(parent)) }?;
        Ok(Sleeper { tid })
    }

    /// It has to run once more to die. Where it was pinned it might wait for that behind a hog; on
    /// the CPU that we have, it needs no more than our sleep.
    fn come_here(&self) {
        let _ = sched::set_scheduler(self.tid, Policy::OTHER, 0, false);
        let _ = sched::set_affinity(self.tid, &only(cpu::current()));
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        // On a boost's budget it might take seconds to die.
        let _ = sched::set_scheduler(self.tid, Policy::OTHER, 0, false);
        // SAFETY: a child of ours that nobody has waited for, so the number is still its own.
        unsafe { libc::kill(self.tid.0, libc::SIGKILL) };
        process::reap(self.tid, REAP_TIMEOUT);
    }
}

/// The life of the child: no allocation, no lock, no unwinding.
fn sleep_for_good(parent: libc::pid_t) {
    // SAFETY: system calls on plain numbers. If the parent died before the child asked to follow
    // it, the child has another one by now.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        while libc::getppid() == parent {
            libc::pause();
        }
    }
}

fn only(cpu: Cpu) -> CpuSet {
    [cpu].into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_leaves_no_child_and_the_caller_as_it_was() {
        let before = (sched::get_attr(Tid(0)).unwrap(), sched::get_affinity(Tid(0)).unwrap());
        let sleeper = Sleeper::start().unwrap();
        let tid = sleeper.tid;
        drop(sleeper);
        assert_eq!(sched::get_attr(tid).unwrap_err().raw_os_error(), Some(libc::ESRCH));
        let cpu = before.1.iter().last().unwrap();
        policies(cpu, Some((Nanos::from_micros(20), Nanos::from_secs(1)))).unwrap();
        assert_eq!((sched::get_attr(Tid(0)).unwrap(), sched::get_affinity(Tid(0)).unwrap()), before);
    }

    #[test]
    fn where_the_cpu_is_out_of_reach_another_one_serves() {
        let reached = |cpu| refusal(cpu).raw_os_error();
        assert_eq!(reached(Cpu(8191)), reached(last_cpu()));
    }

    #[test]
    fn a_budget_larger_than_its_period_is_refused() {
        assert_eq!(refusal(last_cpu()).raw_os_error(), Some(libc::EINVAL));
    }

    #[test]
    fn deadline_is_tried_only_where_it_is_asked_for() {
        assert!(policies(last_cpu(), None).unwrap().deadline.is_none());
    }

    fn last_cpu() -> Cpu {
        sched::get_affinity(Tid(0)).unwrap().iter().last().unwrap()
    }

    fn refusal(cpu: Cpu) -> io::Error {
        let too_much = (Nanos::from_secs(2), Nanos::from_secs(1));
        policies(cpu, Some(too_much)).unwrap().deadline.unwrap().unwrap_err()
    }
}
