//! Signals, taken one at a time by the thread that waits for them: no handler ever runs.

use super::check;
use super::clock;
use crate::task::Nanos;
use std::{io, mem, ptr};

/// What the daemon listens to. All other signals keep their defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM or SIGINT: end cleanly.
    End,
    /// SIGUSR1: tell what is going on.
    Report,
}

/// SIGTERM, SIGINT and SIGUSR1, held back from all threads that are started after this.
pub struct Signals {
    set: libc::sigset_t,
}

impl Signals {
    /// Call it before other threads are started. SIGHUP and SIGPIPE are ignored from here on.
    pub fn hold() -> io::Result<Signals> {
        // SAFETY: `set` is initialised by sigemptyset before it is used; the numbers are signals.
        unsafe {
            let mut set = mem::zeroed();
            libc::sigemptyset(&mut set);
            for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGUSR1] {
                libc::sigaddset(&mut set, signal);
            }
            for signal in [libc::SIGHUP, libc::SIGPIPE] {
                libc::signal(signal, libc::SIG_IGN);
            }
            match libc::pthread_sigmask(libc::SIG_BLOCK, &set, ptr::null_mut()) {
                0 => Ok(Signals { set }),
                error => Err(io::Error::from_raw_os_error(error)),
            }
        }
    }

    /// Sleeps until a signal comes, or until `moment`. One system call, woken by a high-resolution
    /// timer.
    pub fn wait_until(&self, moment: Nanos) -> Option<Signal> {
        let pause = moment - clock::monotonic();
        let timeout = libc::timespec {
            tv_sec: pause.as_secs().min(i32::MAX as u64) as libc::time_t,
            tv_nsec: (pause.0 % 1_000_000_000) as libc::c_long,
        };
        // SAFETY: the set and the timeout are ours; no details of the signal are asked for.
        match check(unsafe { libc::sigtimedwait(&self.set, ptr::null_mut(), &timeout) }) {
            Ok(libc::SIGUSR1) => Some(Signal::Report),
            Ok(_) => Some(Signal::End),
            // Time is up; or stopped and continued (EINTR), which is worth a look too.
            Err(_) => None,
        }
    }
}
