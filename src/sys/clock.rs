//! CLOCK_MONOTONIC: what time it is, and sleeping until it is later.

use crate::task::Nanos;

/// Now. It goes through the vDSO, so it costs some 25 ns and works even where clock_gettime(2) is
/// filtered.
pub fn monotonic() -> Nanos {
    read(libc::CLOCK_MONOTONIC)
}

/// Returns how long the calling thread has had a CPU since it started.
pub fn thread_cpu() -> Nanos {
    read(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// Returns how long the threads of this process have had a CPU since it started.
pub fn process_cpu() -> Nanos {
    read(libc::CLOCK_PROCESS_CPUTIME_ID)
}

fn read(clock: libc::clockid_t) -> Nanos {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a timespec that outlives the call. These clocks exist on every kernel, so
    // the call can't fail; were it to, `now` still holds a valid value.
    unsafe { libc::clock_gettime(clock, &mut now) };
    Nanos::from_secs(now.tv_sec as u64) + Nanos(now.tv_nsec as u64)
}

/// How far apart the kernel's ticks are.
pub fn tick() -> Nanos {
    let mut tick = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `tick` is a timespec that outlives the call. The coarse clock moves with the tick,
    // and exists on every kernel.
    unsafe { libc::clock_getres(libc::CLOCK_MONOTONIC_COARSE, &mut tick) };
    Nanos::from_secs(tick.tv_sec as u64) + Nanos(tick.tv_nsec as u64)
}

/// Now, as /proc/PID/stat counts: in clock ticks since boot, suspended or not.
pub fn boot_ticks() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: as above.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut now) };
    now.tv_sec as u64 * 100 + now.tv_nsec as u64 / 10_000_000
}

/// Sleeps for `length`, signals or not.
pub fn nap(length: Nanos) {
    sleep_until(monotonic() + length);
}

/// Sleeps until `moment`, signals or not. An absolute time-out doesn't grow by what each signal
/// takes.
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
    // It returns the error itself, and leaves errno alone.
    while sleep() == libc::EINTR {}
}

/// Has the kernel wake the calling thread when it asked to be, not up to 50 us later together with
/// others.
pub fn be_punctual() {
    // SAFETY: takes numbers only. It can't fail, and 1 ns is the least that there is.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1 as libc::c_ulong) };
}

/// Keeps the CPU busy until `moment`: a sleep would be too long by what it takes to wake up.
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
