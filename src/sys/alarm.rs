//! A descriptor that a program can poll together with its own ones. It becomes ready at a set time,
//! or when the bell is rung.

use super::check;
use crate::task::Nanos;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

/// A timer (timerfd) and a bell (eventfd) in one epoll set.
pub struct Alarm {
    epoll: OwnedFd,
    timer: OwnedFd,
    bell: OwnedFd,
}

impl Alarm {
    /// Makes an alarm that is ready at once.
    pub fn new() -> io::Result<Alarm> {
        // SAFETY: these three take numbers only, and each makes a descriptor that is ours.
        let (epoll, timer, bell) = unsafe {
            (
                owned(libc::epoll_create1(libc::EPOLL_CLOEXEC))?,
                owned(libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_CLOEXEC | libc::TFD_NONBLOCK))?,
                owned(libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK))?,
            )
        };
        for source in [&timer, &bell] {
            let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 0 };
            let (epoll, source) = (epoll.as_raw_fd(), source.as_raw_fd());
            // SAFETY: the kernel reads `event`, which outlives the call.
            check(unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, source, &mut event) })?;
        }
        let alarm = Alarm { epoll, timer, bell };
        alarm.set(Nanos::ZERO)?;
        Ok(alarm)
    }

    /// Returns the descriptor to poll for input. It must not be read.
    pub fn descriptor(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }

    /// Makes the alarm ready from `moment` on, and not before, unless the bell has been rung.
    pub fn set(&self, moment: Nanos) -> io::Result<()> {
        // A moment of 0 would stop the timer.
        let moment = moment.max(Nanos(1));
        let at = libc::timespec {
            tv_sec: libc::time_t::try_from(moment.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: (moment.0 % 1_000_000_000) as libc::c_long,
        };
        let once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let timer = libc::itimerspec { it_interval: once, it_value: at };
        let absolute = libc::TFD_TIMER_ABSTIME;
        // SAFETY: the kernel reads `timer`, which outlives the call, and is asked for no former
        // value.
        check(unsafe { libc::timerfd_settime(self.timer.as_raw_fd(), absolute, &timer, ptr::null_mut()) })?;
        Ok(())
    }

    /// Rings the bell: makes the alarm ready for ever. It makes one system call, and is
    /// async-signal-safe.
    pub fn ring(&self) {
        let one = 1u64;
        // SAFETY: the kernel reads the 8 bytes of `one`. It fails only if the counter is full, and
        // then the bell has been rung before.
        unsafe { libc::write(self.bell.as_raw_fd(), ptr::from_ref(&one).cast(), size_of::<u64>()) };
    }
}

fn owned(fd: libc::c_int) -> io::Result<OwnedFd> {
    let fd = check(fd)?;
    // SAFETY: the kernel has just returned this descriptor to the caller.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{clock, file};
    use std::os::fd::{AsFd, BorrowedFd};

    impl AsFd for Alarm {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.epoll.as_fd()
        }
    }

    fn is_ready_within(alarm: &Alarm, within: Nanos) -> bool {
        file::readable_within(alarm, within).unwrap()
    }

    #[test]
    fn it_is_ready_at_first_and_again_when_its_moment_has_come() {
        let alarm = Alarm::new().unwrap();
        assert!(is_ready_within(&alarm, Nanos::ZERO));
        let moment = clock::monotonic() + Nanos::from_millis(20);
        alarm.set(moment).unwrap();
        assert!(is_ready_within(&alarm, Nanos::from_secs(60)) && clock::monotonic() >= moment);
        alarm.set(Nanos::MAX).unwrap();
        assert!(!is_ready_within(&alarm, Nanos::ZERO));
    }

    #[test]
    fn a_bell_that_was_rung_is_heard_whatever_is_set() {
        let alarm = Alarm::new().unwrap();
        alarm.set(Nanos::MAX).unwrap();
        alarm.ring();
        alarm.ring();
        assert!(is_ready_within(&alarm, Nanos::ZERO));
        alarm.set(Nanos::MAX).unwrap();
        assert!(is_ready_within(&alarm, Nanos::ZERO));
    }
}
