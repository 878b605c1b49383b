//! Scheduling of a thread: policy, priority, deadline and affinity; also its name.
//!
//! In all these calls, `Tid(0)` is the calling thread. They use the numbers of the system calls,
//! not the functions of the C library: musl returns ENOSYS for sched_setscheduler(2), and older C
//! libraries have no sched_setattr(2).

use super::check;
use crate::cpus::CpuSet;
use crate::task::{Comm, Cpu, Nanos, Policy, Tid};
use libc::{c_int, c_long, c_ulong};
use std::io;

/// SCHED_FLAG_RESET_ON_FORK: children start as SCHED_OTHER. Without it a DEADLINE task can't fork.
pub const RESET_ON_FORK: u64 = 0x01;

/// The scheduling attributes of a thread, as in sched_getattr(2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attr {
    pub policy: Policy,
    /// 1 to 99 for FIFO and RR, else 0.
    pub priority: u32,
    /// The nice value of a fair task. The kernel returns 0 for other tasks, which have one, too.
    pub nice: i32,
    pub flags: u64,
    /// The runtime of a DEADLINE task. From 6.12 on, the kernel returns the slice of a fair task
    /// here, even if it was never set. Writing it back would make it a custom slice.
    pub runtime: Nanos,
    pub deadline: Nanos,
    pub period: Nanos,
}

impl Attr {
    pub fn reset_on_fork(&self) -> bool {
        self.flags & RESET_ON_FORK != 0
    }
}

/// The kernel's struct sched_attr in its first version, which all kernels accept and return.
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

/// Sets the policy, and the real-time priority (0 for other policies). sched_setscheduler(2) does
/// not change nice value, utilization clamps and slice.
pub fn set_scheduler(tid: Tid, policy: Policy, priority: u32, reset_on_fork: bool) -> io::Result<()> {
    let policy = policy.0 as c_int | if reset_on_fork { libc::SCHED_RESET_ON_FORK } else { 0 };
    // The kernel's struct sched_param is this one number. C libraries add different fields.
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

/// Makes the thread SCHED_DEADLINE with `runtime` in each `period`. The deadline is the end of the
/// period.
pub fn set_deadline(tid: Tid, runtime: Nanos, period: Nanos, flags: u64) -> io::Result<()> {
    let policy = Policy::DEADLINE;
    set_attr(tid, &Attr { policy, flags, runtime, deadline: period, period, ..Attr::default() })
}

/// Sets all attributes by sched_setattr(2). For a fair task this includes the nice value. From 6.12
/// on, a runtime other than 0 becomes its slice.
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
    // SAFETY: the kernel reads `raw.size` bytes, which `raw` has. It writes that field only if its
    // own struct is shorter, which is so on no kernel.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, tid.0, &raw, 0) })?;
    Ok(())
}

/// A CPU mask of the largest size that a kernel can be configured for. The kernel returns EINVAL
/// for one that is too short.
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

/// Returns the tid of the calling thread.
pub fn gettid() -> Tid {
    // SAFETY: takes nothing and can't fail. Called by number, because glibc has it only from 2.30
    // on.
    let tid: c_long = unsafe { libc::syscall(libc::SYS_gettid) };
    Tid(tid as i32)
}

/// Names the calling thread. The kernel accepts any bytes.
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
    fn a_refused_call_is_an_error_with_its_errno() {
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
