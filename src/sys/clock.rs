//! Clocks, sleeping, and the date.

use crate::task::Nanos;

/// Returns the time on CLOCK_MONOTONIC. It uses the vDSO, so it takes about 25 ns, and works even
/// if a seccomp filter forbids clock_gettime(2).
pub fn monotonic() -> Nanos {
    read(libc::CLOCK_MONOTONIC)
}

/// Returns the CPU time of the calling thread.
pub fn thread_cpu() -> Nanos {
    read(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// Returns the CPU time of all threads of this process.
pub(crate) fn process_cpu() -> Nanos {
    read(libc::CLOCK_PROCESS_CPUTIME_ID)
}

fn read(clock: libc::clockid_t) -> Nanos {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a timespec that outlives the call. These clocks exist on every kernel, so
    // the call can't fail; were it to, `now` still holds a valid value.
    unsafe { libc::clock_gettime(clock, &mut now) };
    Nanos::from_secs(now.tv_sec as u64) + Nanos(now.tv_nsec as u64)
}

/// Returns the time between two ticks of the kernel.
pub fn tick() -> Nanos {
    let mut tick = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `tick` is a timespec that outlives the call. The coarse clock moves with the tick,
    // and exists on every kernel.
    unsafe { libc::clock_getres(libc::CLOCK_MONOTONIC_COARSE, &mut tick) };
    Nanos::from_secs(tick.tv_sec as u64) + Nanos(tick.tv_nsec as u64)
}

/// Returns the time since boot in clock ticks, as in /proc/PID/stat. Time in suspend counts.
pub fn boot_ticks() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: as above.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut now) };
    now.tv_sec as u64 * 100 + now.tv_nsec as u64 / 10_000_000
}

/// Returns the date and time in UTC of a moment since 1970.
pub fn utc(moment: Nanos) -> libc::tm {
    let seconds = moment.as_secs() as libc::time_t;
    // SAFETY: a tm is plain data, for which zeros are a value.
    let mut date = unsafe { std::mem::zeroed() };
    // SAFETY: both outlive the call. It fails only if the year is too large for an int, which no
    // number of nanoseconds in 64 bits reaches; `date` is a valid value even then.
    unsafe { libc::gmtime_r(&seconds, &mut date) };
    date
}

/// Sleeps for `length`. A signal does not end the sleep.
pub fn nap(length: Nanos) {
    sleep_until(monotonic() + length);
}

/// Sleeps until `moment`. A signal does not end the sleep. It does not prolong it either, because
/// the time-out is absolute.
pub fn sleep_until(moment: Nanos) {
    let until = libc::timespec {
        tv_sec: libc::time_t::try_from(moment.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: (moment.0 % 1_000_000_000) as libc::c_long,
    };
    // SAFETY: `until` is a valid timespec that outlives the call, and with TIMER_ABSTIME nothing is
    // written through the last argument, which may be null.
    let sleep = || unsafe {
        libc::clock_nanosleep(libc::CLOCK_MONOTONIC, libc::TIMER_ABSTIME, &until, std::ptr::null_mut())
    };
    // clock_nanosleep(2) returns its error, and does not set errno.
    while sleep() == libc::EINTR {}
}

/// Sets the timer slack of the calling thread to the minimum, so that it wakes on time. By default,
/// the kernel may wake it up to 50 us later.
pub fn be_punctual() {
    // SAFETY: takes numbers only. It can't fail, and 1 ns is the least that there is.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1 as libc::c_ulong) };
}

/// Spins until `moment`. A sleep would end later, by the time that a wakeup takes.
pub fn spin_until(moment: Nanos) {
    while monotonic() < moment {
        std::hint::spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_never_runs_backwards() {
        let mut last = monotonic();
        for _ in 0..10_000 {
            let now = monotonic();
            assert!(now >= last);
            last = now;
        }
    }

    #[test]
    fn a_thread_uses_its_cpu_while_it_spins_and_not_while_it_sleeps() {
        let spin = || {
            let begun = thread_cpu();
            while thread_cpu() - begun < Nanos::from_millis(5) {
                std::hint::spin_loop();
            }
        };
        spin();
        let slept = thread_cpu();
        nap(Nanos::from_millis(500));
        assert!(thread_cpu() - slept < Nanos::from_millis(400));
        // All threads of the process count.
        let before = process_cpu();
        std::thread::spawn(spin).join().unwrap();
        assert!(process_cpu() >= before + Nanos::from_millis(5));
    }

    #[test]
    fn a_sleep_does_not_end_early() {
        let until = monotonic() + Nanos::from_millis(3);
        sleep_until(until);
        assert!(monotonic() >= until);

        let start = monotonic();
        nap(Nanos::from_micros(200));
        assert!(monotonic() - start >= Nanos::from_micros(200));
    }

    #[test]
    fn a_thread_is_as_punctual_as_it_asked_to_be() {
        be_punctual();
        // SAFETY: takes numbers only.
        assert_eq!(unsafe { libc::prctl(libc::PR_GET_TIMERSLACK) }, 1);
    }

    #[test]
    fn a_moment_that_has_passed_is_not_waited_for() {
        sleep_until(Nanos::ZERO);
        sleep_until(monotonic());
    }
}
