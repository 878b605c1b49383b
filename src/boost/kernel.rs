//! What the boosts ask of the kernel: the seam at which a test puts a simulated machine.

use crate::proc;
use crate::proc::births::{self, Birth, Walk};
use crate::sys::sched::{self, Attr};
use crate::sys::{clock, cpu};
use crate::task::{Comm, Cpu, Nanos, Owner, Policy, TaskId, Tid};
use std::io;

/// All that a boost, its end and the guardian do to tasks and learn of them. `Tid(0)` is the
/// calling thread.
pub trait Kernel {
    fn get_attr(&self, tid: Tid) -> io::Result<Attr>;
    /// The highest real-time priority that a task without privileges may set for itself.
    fn priority_limit(&self, tid: Tid) -> io::Result<u64>;
    fn set_scheduler(&self, tid: Tid, policy: Policy, priority: u32, reset_on_fork: bool) -> io::Result<()>;
    fn set_deadline(&self, tid: Tid, runtime: Nanos, period: Nanos, flags: u64) -> io::Result<()>;
    fn set_nice(&self, tid: Tid, nice: i32) -> io::Result<()>;

    /// None where it has ended, and an error where that can't be told.
    fn try_start(&self, tid: Tid) -> io::Result<Option<u64>>;

    fn start(&self, tid: Tid) -> Option<u64> {
        self.try_start(tid).ok().flatten()
    }

    /// Returns whether the task with this number is that task.
    fn is_itself(&self, id: TaskId) -> bool {
        self.start(id.tid) == Some(id.start)
    }

    fn tgid(&self, tid: Tid) -> Option<Tid>;
    fn owner(&self, tid: Tid) -> Owner;
    fn comm(&self, tid: Tid) -> Option<Comm>;
    fn state(&self, tid: Tid) -> Option<u8>;
    fn runs(&self, tid: Tid) -> Option<u64>;
    fn timer_slack(&self, tid: Tid) -> Option<u64>;
    fn set_timer_slack(&self, tid: Tid, slack: u64) -> Option<()>;

    /// The first threads of a process, at most so many, in the order in which they were started.
    fn threads(&self, tgid: Tid, most: usize) -> Vec<Tid>;

    /// The process that a newborn task is a thread of.
    fn process_of(&self, tid: Tid) -> Option<Tid>;

    /// Returns when and by which process a task was started.
    fn birth(&self, tid: Tid) -> Option<Birth>;

    /// Whether this thread of a process has started a child; `None` where the kernel does not show
    /// that.
    fn is_child(&self, tgid: Tid, tid: Tid, child: Tid) -> Option<bool>;

    /// Gives out the tasks that were started since `since` and were not given out in this walk
    /// before. Between them it gives out `None`, so that `each` can stop it at any time by
    /// returning false. Returns whether it got through.
    fn births(&self, walk: &mut Walk, since: u64, each: &mut dyn FnMut(Option<Birth>) -> bool) -> bool;

    /// The CPU of the calling thread.
    fn cpu(&self) -> Cpu;
    fn now(&self) -> Nanos;
    fn boot_ticks(&self) -> u64;
    fn sleep_until(&self, moment: Nanos);
    fn spin_until(&self, moment: Nanos);
}

/// The kernel that this program runs on.
#[derive(Clone, Copy)]
pub struct Host;

impl Kernel for Host {
    fn get_attr(&self, tid: Tid) -> io::Result<Attr> {
        sched::get_attr(tid)
    }

    fn priority_limit(&self, tid: Tid) -> io::Result<u64> {
        sched::priority_limit(tid)
    }

    fn set_scheduler(&self, tid: Tid, policy: Policy, priority: u32, reset_on_fork: bool) -> io::Result<()> {
        sched::set_scheduler(tid, policy, priority, reset_on_fork)
    }

    fn set_deadline(&self, tid: Tid, runtime: Nanos, period: Nanos, flags: u64) -> io::Result<()> {
        sched::set_deadline(tid, runtime, period, flags)
    }

    fn set_nice(&self, tid: Tid, nice: i32) -> io::Result<()> {
        sched::set_nice(tid, nice)
    }

    fn try_start(&self, tid: Tid) -> io::Result<Option<u64>> {
        proc::try_start(tid)
    }

    fn tgid(&self, tid: Tid) -> Option<Tid> {
        proc::tgid(tid)
    }

    fn owner(&self, tid: Tid) -> Owner {
        proc::owner(tid)
    }

    fn comm(&self, tid: Tid) -> Option<Comm> {
        proc::comm(tid)
    }

    fn state(&self, tid: Tid) -> Option<u8> {
        proc::state(tid)
    }

    fn runs(&self, tid: Tid) -> Option<u64> {
        proc::runs(tid)
    }

    fn timer_slack(&self, tid: Tid) -> Option<u64> {
        proc::timer_slack(tid)
    }

    fn set_timer_slack(&self, tid: Tid, slack: u64) -> Option<()> {
        proc::set_timer_slack(tid, slack)
    }

    fn threads(&self, tgid: Tid, most: usize) -> Vec<Tid> {
        proc::first_threads(tgid, most)
    }

    fn process_of(&self, tid: Tid) -> Option<Tid> {
        proc::tgid(tid)
    }

    fn birth(&self, tid: Tid) -> Option<Birth> {
        births::birth(tid)
    }

    fn is_child(&self, tgid: Tid, tid: Tid, child: Tid) -> Option<bool> {
        births::is_child(tgid, tid, child)
    }

    fn births(&self, walk: &mut Walk, since: u64, each: &mut dyn FnMut(Option<Birth>) -> bool) -> bool {
        births::births(walk, since, each)
    }

    fn cpu(&self) -> Cpu {
        cpu::current()
    }

    fn now(&self) -> Nanos {
        clock::monotonic()
    }

    fn boot_ticks(&self) -> u64 {
        clock::boot_ticks()
    }

    fn sleep_until(&self, moment: Nanos) {
        clock::sleep_until(moment);
    }

    fn spin_until(&self, moment: Nanos) {
        clock::spin_until(moment);
    }
}
