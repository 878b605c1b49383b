//! Tries, on a child that sleeps, which policies the kernel lets this process set for a pinned
//! task.

use super::{cpu, process, sched};
use crate::cpus::CpuSet;
use crate::task::{Cpu, Nanos, Policy, Tid};
use std::io;

/// The priority of a boost by SCHED_FIFO.
const FIFO_PRIORITY: u32 = 98;

/// The time limit for the end of a killed child, which a hog on its CPU can delay.
const REAP_TIMEOUT: Nanos = Nanos::from_secs(1);

/// The results that a boost would get from the kernel.
#[derive(Debug)]
pub(crate) struct Trial {
    /// `None` if the caller gave no runtime and period.
    pub deadline: Option<io::Result<()>>,
    pub fifo: io::Result<()>,
}

/// Pins a child to `cpu` and sets the policies of a boost for it. If the kernel rejects that CPU,
/// the child is pinned to the CPU of the calling thread. The child sleeps, and so takes next to no
/// time of that CPU. An error means that the trial itself failed.
///
/// SCHED_DEADLINE is tried only if `deadline` gives its runtime and period, and only on the CPU of
/// the calling thread, where the child stays until its end. The kernel counts the admitted
/// bandwidth for about another second, and then subtracts it from the account of the CPU on which
/// the task is by then. Isolated CPUs and the others have separate accounts. If the child moved
/// between them, both accounts would stay wrong, and the kernel would reject each later setting of
/// RT throttling.
pub(crate) fn policies(cpu: Cpu, deadline: Option<(Nanos, Nanos)>) -> io::Result<Trial> {
    let child = Sleeper::start()?;
    // A cpuset may forbid the monitored CPU to stalld. Any other CPU serves as well.
    sched::set_affinity(child.tid, &only(cpu))
        .or_else(|_| sched::set_affinity(child.tid, &only(cpu::current())))?;
    let fifo = sched::set_scheduler(child.tid, Policy::FIFO, FIFO_PRIORITY, true);
    child.come_here();
    let deadline = deadline
        .map(|(runtime, period)| sched::set_deadline(child.tid, runtime, period, sched::RESET_ON_FORK));
    Ok(Trial { deadline, fifo })
}

/// A child that sleeps until this is dropped or its parent ends.
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

    /// Moves the child to the CPU of the calling thread. It has to run once more to die, and on its
    /// former CPU it might wait behind a hog. Here it runs as soon as the calling thread sleeps.
    fn come_here(&self) {
        let _ = sched::set_scheduler(self.tid, Policy::OTHER, 0, false);
        let _ = sched::set_affinity(self.tid, &only(cpu::current()));
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        // As SCHED_DEADLINE with a small budget, the child might take seconds to die.
        let _ = sched::set_scheduler(self.tid, Policy::OTHER, 0, false);
        // SAFETY: this process has not waited for the child yet, so the number still belongs to the
        // child.
        unsafe { libc::kill(self.tid.0, libc::SIGKILL) };
        process::reap(self.tid, REAP_TIMEOUT);
    }
}

/// Runs in the child: no allocation, no lock, no unwinding.
fn sleep_for_good(parent: libc::pid_t) {
    // SAFETY: system calls on plain numbers. If the parent died before prctl(2), the child has
    // another parent by now, and ends.
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
    fn another_cpu_serves_if_the_first_one_is_forbidden() {
        let reached = |cpu| refusal(cpu).raw_os_error();
        assert_eq!(reached(Cpu(8191)), reached(last_cpu()));
    }

    #[test]
    fn a_budget_larger_than_its_period_is_refused() {
        assert_eq!(refusal(last_cpu()).raw_os_error(), Some(libc::EINVAL));
    }

    #[test]
    fn deadline_is_tried_only_on_request() {
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
