//! Writes to the system's log by datagrams that never block: in journald's format if it listens,
//! else in syslog's.
//!
//! libc's syslog() blocks while the log daemon does not read. The daemon does not read if it
//! starves behind the hog that stalld is about to report.

use super::{Record, Sink, frame};
use crate::json::Value;
use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

const JOURNALD: &str = "/run/systemd/journal/socket";
const SYSLOG: &str = "/dev/log";

/// The sockets of journald and of /dev/log. The latter is used if there is no journald.
pub struct Syslog {
    journald: Datagrams,
    syslog: Datagrams,
    fields: Vec<u8>,
    line: String,
}

impl Syslog {
    pub(crate) fn of_this_host() -> Syslog {
        Syslog::at(Path::new(JOURNALD), Path::new(SYSLOG))
    }

    fn at(journald: &Path, syslog: &Path) -> Syslog {
        let (journald, syslog) = (Datagrams::to(journald), Datagrams::to(syslog));
        Syslog { journald, syslog, fields: Vec::new(), line: String::new() }
    }
}

impl Sink for Syslog {
    fn write(&mut self, record: &Record) -> io::Result<()> {
        native(&mut self.fields, record);
        match self.journald.send(&self.fields) {
            // WouldBlock: journald is there, but does not read. Then /dev/log is no help, because
            // journald reads that too.
            Err(e) if e.kind() != io::ErrorKind::WouldBlock => {}
            sent => return sent,
        }
        // Without a time stamp: the daemon adds it, and only libc knows the time zone.
        frame(&mut self.line, record);
        self.syslog.send(self.line.as_bytes())
    }
}

/// Sets `fields` to the message in journald's format.
fn native(fields: &mut Vec<u8>, record: &Record) {
    fields.clear();
    put(fields, "", "MESSAGE", Value::Text(record.text));
    put(fields, "", "PRIORITY", Value::Number(record.level.syslog_priority().into()));
    put(fields, "", "SYSLOG_IDENTIFIER", Value::Text("stalld"));
    put(fields, "", "SYSLOG_FACILITY", Value::Number((libc::LOG_DAEMON >> 3).into()));
    put(fields, "STALLD_", "EVENT", Value::Text(record.name()));
    record.fields(&mut |name, value| put(fields, "STALLD_", name, value));
}

/// Appends `NAME=VALUE`. For a value with newlines, the name, the length and the value.
fn put(fields: &mut Vec<u8>, prefix: &str, name: &str, value: Value) {
    fields.extend_from_slice(prefix.as_bytes());
    fields.extend(name.bytes().map(|byte| byte.to_ascii_uppercase()));
    match value.as_bytes() {
        Some(bytes) if bytes.contains(&b'\n') => {
            fields.push(b'\n');
            fields.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            fields.extend_from_slice(bytes);
        }
        Some(bytes) => {
            fields.push(b'=');
            fields.extend_from_slice(bytes);
        }
        // Writing to a Vec does not fail.
        None => drop(write!(fields, "={value}")),
    }
    fields.push(b'\n');
}

/// A socket to the log daemon. It reconnects after a restart of the daemon.
struct Datagrams {
    path: PathBuf,
    socket: Option<UnixDatagram>,
}

impl Datagrams {
    fn to(path: &Path) -> Datagrams {
        Datagrams { path: path.to_path_buf(), socket: None }
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(socket) = &self.socket {
            match socket.send(bytes) {
                Ok(_) => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Err(e),
                // The daemon has ended. Connect to its successor, if there is one.
                Err(_) => self.socket = None,
            }
        }
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.connect(&self.path)?;
        socket.send(bytes)?;
        self.socket = Some(socket);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::log::{Level, LogEvent, Message};
    use crate::task::{Comm, Cpu, Nanos, Task, Tid};
    use rig::scratch::Scratch;
    use std::fs;

    fn received(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 2048];
        let len = socket.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..len]).into_owned()
    }

    /// Returns a log that finds no journald.
    fn syslog_at(path: &Path) -> Syslog {
        Syslog::at(Path::new("/nonexistent/socket"), path)
    }

    #[test]
    fn journald_gets_the_fields_each_by_itself() {
        let scratch = Scratch::new("journald");
        let daemon = UnixDatagram::bind(scratch.join("socket")).unwrap();
        let other = UnixDatagram::bind(scratch.join("log")).unwrap();
        other.set_nonblocking(true).unwrap();
        let mut syslog = Syslog::at(&scratch.join("socket"), &scratch.join("log"));
        let task = Task { tid: Tid(77), cpu: Cpu(3), comm: Comm::new(b"a\nb=\"c"), ..Task::default() };
        let event = LogEvent::Starved { task, since: Nanos::ZERO, wait: Nanos::from_secs(2), exact: false };
        Record::with(Nanos::ZERO, Message::LogEvent(&event), |record| syslog.write(record)).unwrap();
        assert_eq!(
            received(&daemon),
            "MESSAGE=a\\x0ab=\"c-77 starved on CPU 3 for 2 seconds\nPRIORITY=4\nSYSLOG_IDENTIFIER=stalld\n\
             SYSLOG_FACILITY=3\nSTALLD_EVENT=starved\nSTALLD_TID=77\n\
             STALLD_COMM\n\u{6}\0\0\0\0\0\0\0a\nb=\"c\nSTALLD_CPU=3\nSTALLD_POLICY=real-time\nSTALLD_RT_PRIORITY=99\n\
             STALLD_WAITED_NS=2000000000\n"
        );
        syslog.write(&Record::now(Level::Error, "text")).unwrap();
        assert_eq!(
            received(&daemon),
            "MESSAGE=text\nPRIORITY=3\nSYSLOG_IDENTIFIER=stalld\nSYSLOG_FACILITY=3\nSTALLD_EVENT=log\n"
        );
        assert_eq!(other.recv(&mut [0; 16]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        // Without journald, lines go to the socket of syslog.
        drop(daemon);
        syslog.write(&Record::now(Level::Info, "without")).unwrap();
        assert!(received(&other).ends_with("]: without"));
        fs::remove_file(scratch.join("socket")).unwrap();
        let daemon = UnixDatagram::bind(scratch.join("socket")).unwrap();
        syslog.write(&Record::now(Level::Info, "with")).unwrap();
        assert!(received(&daemon).starts_with("MESSAGE=with\n"));
    }

    #[test]
    fn a_journald_that_does_not_read_costs_the_line_not_the_time() {
        let scratch = Scratch::new("journald-full");
        let _daemon = UnixDatagram::bind(scratch.join("socket")).unwrap();
        let mut syslog = Syslog::at(&scratch.join("socket"), &scratch.join("log"));
        let error = loop {
            if let Err(e) = syslog.write(&Record::now(Level::Info, "line")) {
                break e;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_datagram_has_priority_name_and_pid() {
        let scratch = Scratch::new("syslog");
        let path = scratch.join("log");
        let daemon = UnixDatagram::bind(&path).unwrap();
        let mut syslog = syslog_at(&path);
        let pid = std::process::id();
        for (level, priority) in
            [(Level::Error, 27), (Level::Warning, 28), (Level::Info, 30), (Level::Debug, 31)]
        {
            syslog.write(&Record::now(level, "some text")).unwrap();
            assert_eq!(received(&daemon), format!("<{priority}>stalld[{pid}]: some text"));
        }
    }

    #[test]
    fn a_log_daemon_that_does_not_read_costs_the_line_not_the_time() {
        let scratch = Scratch::new("syslog-full");
        let path = scratch.join("log");
        let daemon = UnixDatagram::bind(&path).unwrap();
        let mut syslog = syslog_at(&path);
        let mut sent = 0;
        let error = loop {
            match syslog.write(&Record::now(Level::Info, "line")) {
                Ok(()) => sent += 1,
                Err(e) => break e,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        for _ in 0..sent {
            received(&daemon);
        }
        syslog.write(&Record::now(Level::Info, "again")).unwrap();
        assert!(received(&daemon).ends_with("again"));
    }

    #[test]
    fn a_restarted_log_daemon_is_found_again() {
        let scratch = Scratch::new("syslog-restart");
        let path = scratch.join("log");
        let mut syslog = syslog_at(&path);
        // The daemon does not run yet.
        assert_eq!(
            syslog.write(&Record::now(Level::Info, "zero")).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
        let daemon = UnixDatagram::bind(&path).unwrap();
        syslog.write(&Record::now(Level::Info, "one")).unwrap();
        assert!(received(&daemon).ends_with("one"));
        // The daemon has ended, and its socket is still in the file system.
        drop(daemon);
        assert_eq!(
            syslog.write(&Record::now(Level::Info, "two")).unwrap_err().kind(),
            io::ErrorKind::ConnectionRefused
        );
        fs::remove_file(&path).unwrap();
        let daemon = UnixDatagram::bind(&path).unwrap();
        syslog.write(&Record::now(Level::Info, "three")).unwrap();
        assert!(received(&daemon).ends_with("three"));
        // The daemon restarts between two lines.
        drop(daemon);
        fs::remove_file(&path).unwrap();
        let daemon = UnixDatagram::bind(&path).unwrap();
        syslog.write(&Record::now(Level::Info, "four")).unwrap();
        assert!(received(&daemon).ends_with("four"));
    }
}
