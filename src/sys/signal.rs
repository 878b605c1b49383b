//! Signals as results of a wait, one at a time: no signal handler runs.

use super::check;
use super::clock;
use crate::task::Nanos;
use std::{io, mem, ptr};

/// A signal that the daemon handles. SIGHUP and SIGPIPE are ignored. All other signals keep their
/// defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// SIGTERM or SIGINT: end cleanly.
    End,
    /// SIGUSR1: log a report.
    Report,
}

/// The set of SIGTERM, SIGINT and SIGUSR1, blocked in the calling thread and in all threads that it
/// starts later.
pub(crate) struct Signals {
    set: libc::sigset_t,
}

impl Signals {
    /// Blocks the set, and ignores SIGHUP and SIGPIPE. Must be called before other threads are
    /// started.
    pub(crate) fn hold() -> io::Result<Signals> {
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

    /// Sleeps until a signal arrives, or until `moment`; `None` if no signal has arrived. It makes
    /// one system call, which a high-resolution timer ends.
    pub(crate) fn wait_until(&self, moment: Nanos) -> Option<Signal> {
        let pause = moment - clock::monotonic();
        let timeout = libc::timespec {
            tv_sec: pause.as_secs().min(i32::MAX as u64) as libc::time_t,
            tv_nsec: (pause.0 % 1_000_000_000) as libc::c_long,
        };
        // SAFETY: the set and the timeout are ours; no details of the signal are asked for.
        match check(unsafe { libc::sigtimedwait(&self.set, ptr::null_mut(), &timeout) }) {
            Ok(libc::SIGUSR1) => Some(Signal::Report),
            Ok(_) => Some(Signal::End),
            // Either the time is over, or the process was stopped and continued (EINTR). Both call
            // for a scan.
            Err(_) => None,
        }
    }
}
