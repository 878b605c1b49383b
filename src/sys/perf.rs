//! perf_event_open(2): counters of a CPU, which BPF programs read, and periodic ticks, which run a
//! BPF program.

use super::check;
use crate::task::{Cpu, Nanos};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

/// An event to count. `kind` is PERF_TYPE_HARDWARE, _SOFTWARE, _HW_CACHE or _RAW, and `config`
/// selects the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PerfEvent {
    pub kind: u32,
    pub config: u64,
}

pub const HARDWARE: u32 = 0;
pub(crate) const SOFTWARE: u32 = 1;
pub(crate) const CACHE: u32 = 3;
pub(crate) const RAW: u32 = 4;

/// The first version of struct perf_event_attr, which every kernel accepts.
#[repr(C)]
#[derive(Default)]
struct PerfEventAttr {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    bp_type: u32,
    bp_addr: u64,
}

/// PERF_COUNT_SW_CPU_CLOCK
const CPU_CLOCK: u64 = 0;
/// PERF_FLAG_FD_CLOEXEC
const CLOSE_ON_EXEC: libc::c_ulong = 8;
/// PERF_EVENT_IOC_ENABLE and _SET_BPF, which have the same numbers on all supported architectures
/// but ppc64le.
#[cfg(not(target_arch = "powerpc64"))]
const REQUESTS: (libc::Ioctl, libc::Ioctl) = (0x2400, 0x4004_2408);
#[cfg(target_arch = "powerpc64")]
const REQUESTS: (libc::Ioctl, libc::Ioctl) = (0x2000_2400, 0x8004_2408);

/// Opens a counter of an event on a CPU, which counts the events of all tasks there.
pub fn count(cpu: Cpu, event: PerfEvent) -> io::Result<OwnedFd> {
    open(cpu, &PerfEventAttr { kind: event.kind, config: event.config, ..PerfEventAttr::default() })
}

/// Runs a BPF program on a CPU once per `period`, until the returned descriptor is dropped.
pub(crate) fn tick(cpu: Cpu, period: Nanos, program: BorrowedFd) -> io::Result<OwnedFd> {
    let clock = PerfEventAttr {
        kind: SOFTWARE,
        config: CPU_CLOCK,
        sample_period: period.0,
        ..PerfEventAttr::default()
    };
    let event = open(cpu, &clock)?;
    let (enable, set_program) = REQUESTS;
    // SAFETY: both requests take a number.
    check(unsafe { libc::ioctl(event.as_raw_fd(), set_program, program.as_raw_fd()) })?;
    // SAFETY: as above.
    check(unsafe { libc::ioctl(event.as_raw_fd(), enable, 0) })?;
    Ok(event)
}

fn open(cpu: Cpu, attr: &PerfEventAttr) -> io::Result<OwnedFd> {
    let attr = PerfEventAttr { size: size_of::<PerfEventAttr>() as u32, ..*attr };
    // SAFETY: `attr` is as long as its `size`. The event is of all tasks of one CPU, in no group.
    let fd = check(unsafe {
        libc::syscall(libc::SYS_perf_event_open, ptr::from_ref(&attr), -1, cpu.0 as i32, -1, CLOSE_ON_EXEC)
    })?;
    // SAFETY: the call made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}
