//! The clock that every moment in stalld is read from.

use crate::task::Nanos;

/// Now, on CLOCK_MONOTONIC.
pub fn monotonic() -> Nanos {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid timespec for the kernel to fill. With this clock and a valid pointer the call
    // can't fail.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    Nanos::from_secs(now.tv_sec as u64) + Nanos(now.tv_nsec as u64)
}
