//! The daemon without -f: in the background, and known by its pidfile.

use crate::Stalld;
use crate::process;
use stalld::task::Tid;
use std::fs;
use std::path::Path;

/// Killed when dropped.
pub struct Daemon {
    pid: Tid,
}

impl Daemon {
    /// Starts it, and waits until the started process exits with 0 and without output.
    pub fn start(pidfile: &Path, args: &[&str]) -> Daemon {
        Daemon::start_by(&[], pidfile, args)
    }

    /// As [`Stalld::start_by`].
    pub fn start_by(starter: &[&str], pidfile: &Path, args: &[&str]) -> Daemon {
        let pidfile = pidfile.to_str().expect("the pidfile's path is UTF-8");
        let stalld = Stalld::start_by(starter, &[&["-P", pidfile], args].concat());
        let (code, said) = stalld.finish();
        let pid = fs::read_to_string(pidfile).ok().and_then(|text| text.trim().parse().ok());
        let daemon = Daemon { pid: pid.map(Tid).unwrap_or_else(|| panic!("no daemon is there: {said:?}")) };
        assert_eq!((code, said.messages()), (Some(0), vec![]));
        daemon
    }

    pub fn pid(&self) -> Tid {
        self.pid
    }

    /// Ends it by a signal, and waits for that.
    pub fn end(self, signal: &str) {
        process::signal(self.pid, signal);
        process::await_end(self.pid);
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // The number may belong to another process by now, unless the name is still the daemon's.
        if process::status(self.pid, "Name").as_deref() == Some("stalld") && !process::has_ended(self.pid) {
            process::signal(self.pid, "KILL");
        }
    }
}
