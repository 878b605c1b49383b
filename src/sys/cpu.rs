//! What the C library knows of the machine's CPUs.

use super::check;
use crate::task::Cpu;

/// How many CPUs the machine is configured with, 1 at least.
pub fn configured() -> u32 {
    // SAFETY: sysconf takes a number and no pointer; a number it does not know is answered with -1.
    let count = check(unsafe { libc::sysconf(libc::_SC_NPROCESSORS_CONF) });
    count.ok().and_then(|count| u32::try_from(count).ok()).unwrap_or(1).max(1)
}

/// The one that the calling thread runs on; it may be another by the time this returns.
pub fn current() -> Cpu {
    // SAFETY: takes nothing, and fails on no kernel of ours.
    Cpu(unsafe { libc::sched_getcpu() }.max(0) as u32)
}
