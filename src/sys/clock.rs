//! CLOCK_MONOTONIC, and sleeping by it.

use crate::task::Nanos;

/// Now.
pub fn monotonic() -> Nanos {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a timespec of our own; the clock exists on every kernel, so this can't fail.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    Nanos(now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64)
}

/// Sleeps for at least `length`.
pub fn nap(length: Nanos) {
    sleep_until(monotonic() + length);
}

/// Sleeps until `moment`, signals or not.
pub fn sleep_until(moment: Nanos) {
    let until = libc::timespec {
        tv_sec: moment.as_secs().min(i64::MAX as u64) as libc::time_t,
        tv_nsec: (moment.0 % 1_000_000_000) as libc::c_long,
    };
    loop {
        // SAFETY: `until` is a valid timespec and no remainder is asked for.
        let result = unsafe {
            libc::clock_nanosleep(libc::CLOCK_MONOTONIC, libc::TIMER_ABSTIME, &until, std::ptr::null_mut())
        };
        if result != libc::EINTR {
            return;
        }
    }
}
