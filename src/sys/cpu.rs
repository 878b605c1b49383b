//! What the C library knows of the machine's CPUs.

use super::check;

/// How many CPUs the machine is configured with, 1 at least.
pub fn configured() -> u32 {
    // SAFETY: sysconf takes a number and no pointer; a number it does not know is answered with -1.
    let count = check(unsafe { libc::sysconf(libc::_SC_NPROCESSORS_CONF) });
    count.ok().and_then(|count| u32::try_from(count).ok()).unwrap_or(1).max(1)
}
