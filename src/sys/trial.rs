//! Tries, on children, which policies the kernel lets this process set for a pinned task, and
//! whether it ends a budget of SCHED_DEADLINE in time.

use super::process::Reaped;
use super::{clock, cpu, process, sched};
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

/// The budget and the period of a child that measures how the kernel ends a budget.
const MEASURED_BUDGET: Nanos = Nanos::from_micros(100);
const MEASURED_PERIOD: Nanos = Nanos::from_millis(2);

/// A child that has run for this long without a break has overrun its budget. Then it stops, so
/// that a measurement never takes more of a CPU at a stretch, even where only a tick ends a budget.
const OVERRUN_TIME: Nanos = Nanos::from_micros(250);

/// A break of this length is the end of a budget. The next budget comes 1.9 ms later.
const BREAK: Nanos = Nanos::from_millis(1);

/// The number of children that measure. A tick may end a budget in time by chance, and a hypervisor
/// may stop the CPU, so the majority counts.
const MEASUREMENTS: u32 = 9;

/// The time in which a child is made SCHED_DEADLINE before it begins to run.
const PREPARATION: Nanos = Nanos::from_micros(500);

/// The limit on the time of all measurements together. A task that outranks the children delays
/// them.
const MEASUREMENTS_TIMEOUT: Nanos = Nanos::from_millis(40);

/// The exit codes of a child that has measured.
const IN_TIME: u8 = 1;
const OVERRUN: u8 = 2;

/// Measures on the CPU of the calling thread whether the kernel ends a budget of SCHED_DEADLINE as
/// soon as it is used up, and not only at the next tick. Takes 5 to 25 ms. If it fails, it takes at
/// most 40 ms, and up to a second more until the last child has ended.
///
/// Each measurement needs a child of its own. A task that leaves SCHED_DEADLINE without budget
/// stays marked as throttled [6.18], and would not run if it were made SCHED_DEADLINE again.
pub(crate) fn ends_budgets_in_time() -> io::Result<bool> {
    let until = clock::monotonic() + MEASUREMENTS_TIMEOUT;
    let (mut in_time, mut overruns) = (0, 0);
    while in_time.max(overruns) <= MEASUREMENTS / 2 {
        match measure(until)? {
            Some(true) => in_time += 1,
            Some(false) => overruns += 1,
            None if clock::monotonic() >= until => return Err(io::ErrorKind::TimedOut.into()),
            None => {}
        }
    }
    Ok(in_time > overruns)
}

/// Returns whether a budget was ended in time once; `None` if that could not be measured. Waits
/// until `until` at most.
fn measure(until: Nanos) -> io::Result<Option<bool>> {
    let begins = clock::monotonic() + PREPARATION;
    let life = || process::exit_now(run_without_a_break(begins));
    // SAFETY: the child makes system calls only.
    let child = unsafe { process::child(c"stall-trial", &[], life) }?;
    // The budget is set while the child sleeps. A task that sets it for itself is not stopped
    // before it is queued once more, although HRTICK is on.
    let made = sched::set_affinity(child, &only(cpu::current()))
        .and_then(|()| sched::set_deadline(child, MEASURED_BUDGET, MEASURED_PERIOD, sched::RESET_ON_FORK));
    let is_ready = made.is_ok() && clock::monotonic() < begins;
    let reaped = if is_ready { process::reap(child, until - clock::monotonic()) } else { Reaped::Running };
    if let Reaped::Running = reaped {
        end(child);
    }
    made?;
    Ok(match reaped {
        Reaped::Exited(IN_TIME) => Some(true),
        Reaped::Exited(OVERRUN) => Some(false),
        Reaped::Exited(_) | Reaped::Killed | Reaped::Running => None,
    })
}

/// Runs in the child: no allocation, no lock, no unwinding. Returns its exit code.
fn run_without_a_break(begins: Nanos) -> u8 {
    clock::sleep_until(begins);
    let code = wait_for_a_break();
    // The end of a process takes time, too, which should not be that of a SCHED_DEADLINE task.
    let _ = sched::set_scheduler(Tid(0), Policy::OTHER, 0, false);
    code
}

/// Spins until the calling task was stopped, or has overrun its budget. It reads the time only: if
/// it read its CPU time, the kernel would check the budget each time.
fn wait_for_a_break() -> u8 {
    let begun = clock::monotonic();
    let mut last = begun;
    loop {
        let now = clock::monotonic();
        if now - last >= BREAK {
            return IN_TIME;
        }
        if now - begun >= OVERRUN_TIME {
            return OVERRUN;
        }
        last = now;
    }
}

/// Kills a child that this process has not waited for yet, and waits for its end.
pub(super) fn end(child: Tid) {
    // As SCHED_DEADLINE with a small budget, the child might take seconds to die. On another CPU it
    // might wait behind a hog. Here it runs as soon as the calling thread sleeps.
    let _ = sched::set_scheduler(child, Policy::OTHER, 0, false);
    let _ = sched::set_affinity(child, &only(cpu::current()));
    // SAFETY: this process has not waited for the child yet, so the number still belongs to the
    // child.
    unsafe { libc::kill(child.0, libc::SIGKILL) };
    process::reap(child, REAP_TIMEOUT);
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
        end(self.tid);
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

pub(super) fn only(cpu: Cpu) -> CpuSet {
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

    #[test]
    fn a_measurement_has_a_result_or_a_reason() {
        if let Err(e) = ends_budgets_in_time() {
            // Without privileges, with RT throttling, or on a busy host.
            let is_known = matches!(e.raw_os_error(), Some(libc::EPERM | libc::EBUSY));
            assert!(is_known || e.kind() == io::ErrorKind::TimedOut, "{e}");
        }
    }

    #[test]
    fn a_task_that_no_budget_stops_has_overrun_it() {
        // No budget is set here, so only a hypervisor or other load can stop this thread for 1 ms.
        let overruns = (0..100).filter(|_| wait_for_a_break() == OVERRUN).count();
        assert!(overruns > 50, "{overruns}");
    }

    fn last_cpu() -> Cpu {
        sched::get_affinity(Tid(0)).unwrap().iter().last().unwrap()
    }

    fn refusal(cpu: Cpu) -> io::Error {
        let too_much = (Nanos::from_secs(2), Nanos::from_secs(1));
        policies(cpu, Some(too_much)).unwrap().deadline.unwrap().unwrap_err()
    }
}
