//! The kernel as boosts and restores use it: traits that a test can simulate, and `Host`, which
//! implements them. This is the only file of the layer `rescue` that imports the layer `linux`.

pub use crate::host::settings::{Hrtick, UNTHROTTLED};
pub use crate::proc::Standing;
pub use crate::proc::births::{Birth, Walk};
pub use crate::sys::sched::{Attr, RESET_ON_FORK};
pub use crate::sys::shared::SharedWords;

use crate::error::{Error, Result};
use crate::host::{debugfs, settings};
use crate::proc::{self, births};
use crate::sys::{clock, cpu, sched};
use crate::task::{Comm, Cpu, Nanos, Owner, Policy, TaskId, Tid};
use std::io;
use std::path::Path;

/// Actions and queries on tasks, for boosts, restores and the guardian. `Tid(0)` is the calling
/// thread.
pub trait Kernel {
    fn get_attr(&self, tid: Tid) -> io::Result<Attr>;
    /// Returns the highest real-time priority that a task without privileges may set for itself.
    fn priority_limit(&self, tid: Tid) -> Option<u64>;
    fn set_scheduler(&self, tid: Tid, policy: Policy, priority: u32, reset_on_fork: bool) -> io::Result<()>;
    fn set_deadline(&self, tid: Tid, runtime: Nanos, period: Nanos, flags: u64) -> io::Result<()>;
    fn set_nice(&self, tid: Tid, nice: i32) -> io::Result<()>;

    /// Returns the start of a task, in clock ticks since boot; `None` if it has ended, and an error
    /// if that is not known.
    fn try_start(&self, tid: Tid) -> io::Result<Option<u64>>;

    /// Returns the start of a task; `None` if it has ended or that is not known.
    fn start(&self, tid: Tid) -> Option<u64> {
        self.try_start(tid).ok().flatten()
    }

    /// Returns whether the tid still belongs to the same task.
    fn is_itself(&self, id: TaskId) -> bool {
        self.start(id.tid) == Some(id.start)
    }

    fn tgid(&self, tid: Tid) -> Option<Tid>;
    fn owner(&self, tid: Tid) -> Owner;
    /// Returns whether no user may change the affinity of a task; `None` if that is not known.
    fn is_bound(&self, tid: Tid) -> Option<bool>;
    fn comm(&self, tid: Tid) -> Option<Comm>;
    /// Returns the state of a task, as the letter that ps shows: a zombie is Z.
    fn state(&self, tid: Tid) -> Option<u8>;
    /// Returns where a task is queued; `None` if it has ended.
    fn standing(&self, tid: Tid) -> Option<Standing>;
    /// Returns how often a task has been given a CPU; `None` if the kernel does not count that.
    fn runs(&self, tid: Tid) -> Option<u64>;
    /// Returns the CPU time that a task has used; `None` if the kernel does not count that.
    fn cpu_time(&self, tid: Tid) -> Option<Nanos>;
    fn timer_slack(&self, tid: Tid) -> Option<u64>;
    fn set_timer_slack(&self, tid: Tid, slack: u64) -> Option<()>;

    /// Returns the first threads of a process, at most `most`, in the order in which they were
    /// started.
    fn threads(&self, tgid: Tid, most: usize) -> Vec<Tid>;

    /// Returns the process that a new task is a thread of.
    fn process_of(&self, tid: Tid) -> Option<Tid>;

    /// Returns the start of a task and its parent process.
    fn birth(&self, tid: Tid) -> Option<Birth>;

    /// Returns whether this thread of a process has started a child; `None` if the kernel does not
    /// show that.
    fn is_child(&self, tgid: Tid, tid: Tid, child: Tid) -> Option<bool>;

    /// Calls `each` for the tasks that were started since `since` and that this walk has not met
    /// before. In between it calls `each` with `None`. Stops when `each` returns false. Returns
    /// whether the walk is complete.
    fn births(&self, walk: &mut Walk, since: u64, each: &mut dyn FnMut(Option<Birth>) -> bool) -> bool;

    /// Returns the CPU of the calling thread.
    fn cpu(&self) -> Cpu;
    fn now(&self) -> Nanos;
    fn boot_ticks(&self) -> u64;
    fn sleep_until(&self, moment: Nanos);
    fn spin_until(&self, moment: Nanos);
}

/// The settings of the machine that stalld changes while it boosts.
pub trait Settings {
    /// Returns how much of each period real-time tasks may have, in microseconds. A negative value
    /// means that there is no limit.
    fn rt_runtime_us(&self) -> Result<i64>;
    fn set_rt_runtime_us(&self, runtime_us: i64) -> Result<()>;
    fn turn_hrtick_off(&self, hrtick: Hrtick) -> Result<()>;
}

/// The kernel that this program runs on.
#[derive(Clone, Copy)]
pub struct Host;

impl Kernel for Host {
    fn get_attr(&self, tid: Tid) -> io::Result<Attr> {
        sched::get_attr(tid)
    }

    fn priority_limit(&self, tid: Tid) -> Option<u64> {
        proc::priority_limit(tid)
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

    fn is_bound(&self, tid: Tid) -> Option<bool> {
        proc::is_bound(tid)
    }

    fn comm(&self, tid: Tid) -> Option<Comm> {
        proc::comm(tid)
    }

    fn state(&self, tid: Tid) -> Option<u8> {
        proc::state(tid)
    }

    fn standing(&self, tid: Tid) -> Option<Standing> {
        proc::standing(tid)
    }

    fn cpu_time(&self, tid: Tid) -> Option<Nanos> {
        proc::cpu_time(tid)
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

impl Settings for Host {
    fn rt_runtime_us(&self) -> Result<i64> {
        settings::rt_runtime_us()
    }

    fn set_rt_runtime_us(&self, runtime_us: i64) -> Result<()> {
        settings::set_rt_runtime_us(runtime_us)
    }

    fn turn_hrtick_off(&self, hrtick: Hrtick) -> Result<()> {
        let found = debugfs::hrtick(Path::new("/"));
        let found =
            found.ok_or_else(|| Error::new("cannot find the scheduler's features to turn HRTICK off"))?;
        settings::set_hrtick(&found.path, hrtick, false)
    }
}
