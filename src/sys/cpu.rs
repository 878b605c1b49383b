//! The CPUs of this machine.

use super::check;
use crate::task::Cpu;
use std::fs;

/// Returns the number of CPUs that the kernel can ever have, which is one more than the highest CPU
/// number. It includes those that are offline now.
pub fn configured() -> u32 {
    let possible = fs::read_to_string("/sys/devices/system/cpu/possible");
    possible.ok().and_then(|list| count(&list)).unwrap_or_else(configured_by_libc)
}

/// Returns the same from the kernel's own list, which ascends: `0-7`, or `0,2-3`.
fn count(possible: &str) -> Option<u32> {
    let last = possible.trim().rsplit([',', '-']).next()?;
    last.parse::<u32>().ok()?.checked_add(1)
}

/// Returns the number of CPUs that the C library reports, 1 at least.
fn configured_by_libc() -> u32 {
    // SAFETY: sysconf takes a number and no pointer; it returns -1 for a number that it does not
    // know.
    let count = check(unsafe { libc::sysconf(libc::_SC_NPROCESSORS_CONF) });
    count.ok().and_then(|count| u32::try_from(count).ok()).unwrap_or(1).max(1)
}

/// Returns the CPU of the calling thread, which may have changed when this returns.
pub(crate) fn current() -> Cpu {
    // SAFETY: takes nothing, and fails on no supported kernel.
    Cpu(unsafe { libc::sched_getcpu() }.max(0) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_cpu_of_the_kernels_list_gives_the_number_of_cpus() {
        for (list, expected) in [
            ("0\n", Some(1)),
            ("0-7\n", Some(8)),
            ("0,2-3\n", Some(4)),
            ("0-1,5\n", Some(6)),
            ("", None),
            ("0-\n", None),
            ("4294967295", None),
        ] {
            assert_eq!(count(list), expected, "{list:?}");
        }
    }

    #[test]
    fn this_machine_has_the_cpu_it_runs_on() {
        assert!(configured() >= 1 && configured_by_libc() >= 1);
        assert!(configured() as usize >= std::thread::available_parallelism().unwrap().get());
    }
}
