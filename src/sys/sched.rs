//! How a thread is scheduled: policy, priority, deadline, affinity, and the name it goes by.
//!
//! `Tid(0)` is the calling thread in all of these calls. They are made by number, without the C library:
//! musl answers sched_setscheduler(2) with ENOSYS on principle, and no C library of the kernels'
//! time wraps sched_setattr(2).

use super::check;
use crate::cpus::CpuSet;
use crate::task::{Comm, Cpu, Nanos, Policy, Tid};
use libc::{c_int, c_long, c_ulong};
use std::io;

/// SCHED_FLAG_RESET_ON_FORK: children start as SCHED_OTHER. Without it a DEADLINE task can't fork.
pub const RESET_ON_FORK: u64 = 0x01;

/// What sched_getattr(2) tells of a thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attr {
    pub policy: Policy,
    /// 1 to 99 for FIFO and RR, else 0.
    pub priority: u32,
    /// Of a fair task; 0 for others, which keep theirs out of sight.
    pub nice: i32,
    pub flags: u64,
    /// Of a DEADLINE task. Kernels from 6.12 on put the slice of a fair task here, whether or not
    /// it was ever set: writing it back would make it a custom one.
    pub runtime: Nanos,
    pub deadline: Nanos,
    pub period: Nanos,
}

impl Attr {
    pub fn reset_on_fork(&self) -> bool {
        self.flags & RESET_ON_FORK != 0
    }
}

/// The kernel's struct sched_attr in its first version, which all kernels take and give.
#[repr(C)]
#[derive(Default)]
struct RawAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

const RAW_ATTR_SIZE: u32 = 48;
const _: () = assert!(size_of::<RawAttr>() == RAW_ATTR_SIZE as usize);

pub fn get_attr(tid: Tid) -> io::Result<Attr> {
    let mut raw = RawAttr::default();
    // SAFETY: the kernel writes at most RAW_ATTR_SIZE bytes, which `raw` has, and any bytes are
    // valid for its integers.
    check(unsafe { libc::syscall(libc::SYS_sched_getattr, tid.0, &mut raw, RAW_ATTR_SIZE, 0) })?;
    Ok(Attr {
        policy: Policy(raw.policy),
        priority: raw.priority,
        nice: raw.nice,
        flags: raw.flags,
        runtime: Nanos(raw.runtime),
        deadline: Nanos(raw.deadline),
        period: Nanos(raw.period),
    })
}

/// Returns the highest real-time priority that a task without privileges may set for itself.
pub fn priority_limit(tid: Tid) -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: no new limit is set, and `limit` is an rlimit that outlives the call.
    check(unsafe { libc::prlimit(tid.0, libc::RLIMIT_RTPRIO, std::ptr::null(), &mut limit) })?;
    Ok(limit.rlim_max)
}

/// Sets policy and real-time priority (0 for the others) by sched_setscheduler(2), which leaves
/// nice value, utilization clamps and slice as they are.
pub fn set_scheduler(tid: Tid, policy: Policy, priority: u32, reset_on_fork: bool) -> io::Result<()> {
    let policy = policy.0 as c_int | if reset_on_fork { libc::SCHED_RESET_ON_FORK } else { 0 };
    // The kernel's struct sched_param is this one number; what the C library adds to it differs.
    let param = priority as c_int;
    // SAFETY: the kernel reads one int through the pointer, which `param` is.
    check(unsafe { libc::syscall(libc::SYS_sched_setscheduler, tid.0, policy, &param) })?;
    Ok(())
}

pub fn set_fifo(tid: Tid, priority: u32) -> io::Result<()> {
    set_scheduler(tid, Policy::FIFO, priority, false)
}

pub fn set_nice(tid: Tid, nice: i32) -> io::Result<()> {
    // SAFETY: takes numbers only. PRIO_PROCESS with a tid means that thread.
    check(unsafe { libc::syscall(libc::SYS_setpriority, libc::PRIO_PROCESS, tid.0, nice) })?;
    Ok(())
}

/// Makes the thread SCHED_DEADLINE: `runtime` in each `period`, at whose end its deadline is.
pub fn set_deadline(tid: Tid, runtime: Nanos, period: Nanos, flags: u64) -> io::Result<()> {
    let policy = Policy::DEADLINE;
    set_attr(tid, &Attr { policy, flags, runtime, deadline: period, period, ..Attr::default() })
}

/// Sets all that there is to set, by sched_setattr(2). For a fair task that is its nice value, too,
/// and from 6.12 on a runtime other than 0 becomes its slice.
pub fn set_attr(tid: Tid, attr: &Attr) -> io::Result<()> {
    let raw = RawAttr {
        size: RAW_ATTR_SIZE,
        policy: attr.policy.0,
        flags: attr.flags,
        nice: attr.nice,
        priority: attr.priority,
        runtime: attr.runtime.0,
        deadline: attr.deadline.0,
        period: attr.period.0,
    };
    // SAFETY: the kernel reads as many bytes as `raw.size` says, and `raw` has them. It writes that
    // field back only where it knows a shorter struct, and there is none.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, tid.0, &raw, 0) })?;
    Ok(())
}

/// The kernel's CPU mask, as large as any kernel is configured for: a shorter one gets EINVAL.
struct Mask([c_ulong; Mask::CPUS / Mask::BITS]);

impl Mask {
    const CPUS: usize = 8192;
    const BITS: usize = c_ulong::BITS as usize;
}

pub fn get_affinity(tid: Tid) -> io::Result<CpuSet> {
    let mut mask = Mask([0; Mask::CPUS / Mask::BITS]);
    // SAFETY: the kernel writes at most the length it is given, which is that of the array; any
    // bytes are valid for its integers.
    check(unsafe {
        libc::syscall(libc::SYS_sched_getaffinity, tid.0, size_of_val(&mask.0), mask.0.as_mut_ptr())
    })?;
    let has = |cpu: &Cpu| {
        let cpu = cpu.0 as usize;
        mask.0.get(cpu / Mask::BITS).is_some_and(|word| word >> (cpu % Mask::BITS) & 1 == 1)
    };
    Ok((0..Mask::CPUS as u32).map(Cpu).filter(has).collect())
}

pub fn set_affinity(tid: Tid, cpus: &CpuSet) -> io::Result<()> {
    let mut mask = Mask([0; Mask::CPUS / Mask::BITS]);
    for cpu in cpus.iter() {
        let cpu = cpu.0 as usize;
        match mask.0.get_mut(cpu / Mask::BITS) {
            Some(word) => *word |= 1 << (cpu % Mask::BITS),
            None => return Err(io::Error::from_raw_os_error(libc::EINVAL)),
        }
    }
    // SAFETY: the kernel reads at most the length it is given, which is that of the array.
    check(unsafe {
        libc::syscall(libc::SYS_sched_setaffinity, tid.0, size_of_val(&mask.0), mask.0.as_ptr())
    })?;
    Ok(())
}

/// The number of the calling thread.
pub fn gettid() -> Tid {
    // SAFETY: takes nothing and can't fail. By number because glibc has it only from 2.30 on.
    let tid: c_long = unsafe { libc::syscall(libc::SYS_gettid) };
    Tid(tid as i32)
}

/// Names the calling thread. The kernel takes any bytes.
pub fn set_name(name: &Comm) -> io::Result<()> {
    let mut bytes = [0u8; 16];
    for (to, from) in bytes.iter_mut().zip(name.as_bytes()) {
        *to = *from;
    }
    // SAFETY: the kernel reads up to a NUL, 16 bytes at most, and `bytes` has 16.
    check(unsafe { libc::prctl(libc::PR_SET_NAME, bytes.as_ptr()) })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errno<T: std::fmt::Debug>(result: io::Result<T>) -> i32 {
        result.unwrap_err().raw_os_error().unwrap()
    }

    #[test]
    fn a_policy_that_was_set_reads_back() {
        for (policy, reset_on_fork) in [(Policy::BATCH, false), (Policy::OTHER, false), (Policy::BATCH, true)]
        {
            set_scheduler(Tid(0), policy, 0, reset_on_fork).unwrap();
            let attr = get_attr(gettid()).unwrap();
            assert_eq!((attr.policy, attr.priority), (policy, 0));
            assert_eq!(attr.reset_on_fork(), reset_on_fork);
        }
    }

    #[test]
    fn a_change_of_policy_leaves_the_nice_value() {
        let nice = get_attr(Tid(0)).unwrap().nice;
        set_scheduler(Tid(0), Policy::BATCH, 0, false).unwrap();
        assert_eq!(get_attr(Tid(0)).unwrap().nice, nice);
    }

    #[test]
    fn what_the_kernel_refuses_is_an_error_with_its_number() {
        let nobody = Tid(i32::MAX);
        let second = Nanos::from_secs(1);
        assert_eq!(errno(get_attr(nobody)), libc::ESRCH);
        assert_eq!(errno(get_affinity(nobody)), libc::ESRCH);
        assert_eq!(errno(set_fifo(nobody, 1)), libc::ESRCH);
        assert_eq!(errno(set_fifo(Tid(0), 100)), libc::EINVAL);
        assert_eq!(errno(set_scheduler(Tid(0), Policy::OTHER, 1, false)), libc::EINVAL);
        assert_eq!(errno(set_deadline(Tid(0), second + second, second, 0)), libc::EINVAL);
        assert_eq!(errno(set_affinity(Tid(0), &CpuSet::new())), libc::EINVAL);
        assert_eq!(errno(set_affinity(Tid(0), &[Cpu(8192)].into_iter().collect())), libc::EINVAL);
    }

    #[test]
    fn a_thread_can_be_pinned_to_each_of_its_cpus_and_let_go_again() {
        let all = get_affinity(Tid(0)).unwrap();
        assert!(!all.is_empty());
        for cpu in all.iter() {
            let one: CpuSet = [cpu].into_iter().collect();
            set_affinity(gettid(), &one).unwrap();
            assert_eq!(get_affinity(Tid(0)).unwrap(), one);
        }
        set_affinity(Tid(0), &all).unwrap();
        assert_eq!(get_affinity(Tid(0)).unwrap(), all);
    }

    #[test]
    fn the_kernel_keeps_any_name() {
        for name in [&b"a\nb"[..], b"", b"\x1b[2J", b"\xff", b"cpu#3,", b"123456789012345"] {
            set_name(&Comm::new(name)).unwrap();
            let kept = std::fs::read("/proc/thread-self/comm").unwrap();
            assert_eq!(kept.strip_suffix(b"\n").unwrap(), name);
        }
    }
}
