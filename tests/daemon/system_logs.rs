//! The kernel's log and the system's log.

#![cfg(feature = "bpf")]

use rig::daemon::Daemon;
use rig::scratch::Scratch;
use rig::{Rig, Stalld, TIMEOUT, hogged_cpu, live, process};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

#[test]
#[ignore = "starves tasks, as root"]
fn option_k_writes_to_the_kernels_log_and_nothing_to_stderr() {
    let _live = live();
    let mut kmsg = File::options().read(true).custom_flags(libc::O_NONBLOCK).open("/dev/kmsg").unwrap();
    kmsg.seek(SeekFrom::End(0)).unwrap();
    // Without -v, only the kernel's log takes warnings.
    let stalld = Stalld::start(&[&["-f", "-l", "-k", "-t", "1"], &Stalld::RIG_ONLY[..]].concat());
    let mut rig = Rig::start(&["--for", "8"]);
    let victim = rig.event("victim").tid();
    // 28 is the facility of daemons (24) and the level of a warning (4).
    let expected = format!(";stalld[{}]: victim-{victim} starved on CPU {} for ", stalld.pid(), hogged_cpu());
    let mut record = [0; 8192];
    process::eventually("the kernel's log has the report", || {
        let length = kmsg.read(&mut record).ok()?;
        let text = String::from_utf8_lossy(&record[..length]).into_owned();
        (text.starts_with("28,") && text.contains(&expected)).then_some(())
    });
    let (code, log) = stalld.terminate();
    assert_eq!((code, log.messages()), (Some(0), vec![]));
}

/// A stand-in for the daemon that keeps the system's log.
struct SystemLog {
    socket: UnixDatagram,
    starter: String,
}

impl SystemLog {
    fn start(directory: &Path) -> SystemLog {
        let path = directory.join("log");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_nanos(TIMEOUT.0))).unwrap();
        // A /dev in which this is the only log, whether this host has a log daemon or not.
        let starter = format!(
            "mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && ln -s {} /dev/log || exit 90
            [ ! -d /run/systemd/journal ] || mount -t tmpfs none /run/systemd/journal || exit 90
            exec \"$@\"",
            path.display()
        );
        SystemLog { socket, starter }
    }

    /// Returns the arguments that start a program to which this is the system's log.
    fn starter(&self) -> [&str; 6] {
        ["unshare", "-m", "sh", "-c", &self.starter, "sh"]
    }

    /// Returns the next line that begins with `start`.
    fn line_with(&self, start: &str) -> String {
        let mut bytes = [0; 2048];
        loop {
            let length = self.socket.recv(&mut bytes).unwrap_or_else(|e| panic!("no line '{start}': {e}"));
            let line = String::from_utf8_lossy(&bytes[..length]).into_owned();
            if line.starts_with(start) {
                return line;
            }
        }
    }
}

#[test]
#[ignore = "starves tasks, as root"]
fn a_daemon_writes_to_the_systems_log() {
    let _live = live();
    let scratch = Scratch::new("logs-syslog");
    let log = SystemLog::start(scratch.path());
    let args = [&["-l", "-t", "1"], &Stalld::RIG_ONLY[..]].concat();
    let daemon = Daemon::start_by(&log.starter(), &scratch.join("pid"), &args);
    let mut rig = Rig::start(&["--for", "8"]);
    let victim = rig.event("victim").tid();
    let (pid, cpu) = (daemon.pid(), hogged_cpu());
    // 28 is the facility of daemons (24) and the level of a warning (4). In 30 the level is
    // information (6).
    let line = log.line_with(&format!("<28>stalld[{pid}]: victim-{victim} starved on CPU {cpu} for "));
    assert!(line.ends_with(" seconds"), "{line}");
    log.line_with(&format!("<28>stalld[{pid}]: CPU {cpu} is held by hog-"));
    daemon.end("TERM");
    log.line_with(&format!("<30>stalld[{pid}]: stalld shutting down"));
}
