//! The system's log, by datagrams that never wait.
//!
//! libc's syslog() blocks when the log daemon does not read, which it does not while it is starved by
//! the task that stalld is about to report.

use super::{Level, Sink, frame};
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

pub const SYSLOG: &str = "/dev/log";

/// Finds the log daemon again when it was restarted, or started later than we.
pub struct Syslog {
    path: PathBuf,
    socket: Option<UnixDatagram>,
    line: String,
}

impl Syslog {
    pub fn new(path: &Path) -> Syslog {
        Syslog { path: path.to_path_buf(), socket: None, line: String::new() }
    }

    fn connect(&self) -> io::Result<UnixDatagram> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.connect(&self.path)?;
        Ok(socket)
    }
}

impl Sink for Syslog {
    fn write(&mut self, level: Level, text: &str) -> io::Result<()> {
        // No time stamp: the daemon knows the time, and only libc knows the time zone.
        frame(&mut self.line, level, text);
        if let Some(socket) = &self.socket {
            match socket.send(self.line.as_bytes()) {
                Ok(_) => return Ok(()),
                // It is there, and behind with its work.
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Err(e),
                // It has gone, and a new one may have its place.
                Err(_) => self.socket = None,
            }
        }
        let socket = self.connect()?;
        socket.send(self.line.as_bytes())?;
        self.socket = Some(socket);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::scratch::Scratch;
    use std::fs;

    fn received(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 2048];
        let len = socket.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..len]).into_owned()
    }

    #[test]
    fn a_datagram_has_priority_name_and_pid() {
        let scratch = Scratch::new("syslog");
        let path = scratch.join("log");
        let daemon = UnixDatagram::bind(&path).unwrap();
        let mut syslog = Syslog::new(&path);
        let pid = std::process::id();
        for (level, priority) in
            [(Level::Error, 27), (Level::Warning, 28), (Level::Info, 30), (Level::Debug, 31)]
        {
            syslog.write(level, "some text").unwrap();
            assert_eq!(received(&daemon), format!("<{priority}>stalld[{pid}]: some text"));
        }
    }

    #[test]
    fn a_log_daemon_that_does_not_read_costs_the_line_not_the_time() {
        let scratch = Scratch::new("syslog-full");
        let path = scratch.join("log");
        let daemon = UnixDatagram::bind(&path).unwrap();
        let mut syslog = Syslog::new(&path);
        let mut sent = 0;
        let error = loop {
            match syslog.write(Level::Info, "line") {
                Ok(()) => sent += 1,
                Err(e) => break e,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        for _ in 0..sent {
            received(&daemon);
        }
        syslog.write(Level::Info, "again").unwrap();
        assert!(received(&daemon).ends_with("again"));
    }

    #[test]
    fn a_restarted_log_daemon_is_found_again() {
        let scratch = Scratch::new("syslog-restart");
        let path = scratch.join("log");
        let mut syslog = Syslog::new(&path);
        // Not there yet.
        assert_eq!(syslog.write(Level::Info, "zero").unwrap_err().kind(), io::ErrorKind::NotFound);
        let daemon = UnixDatagram::bind(&path).unwrap();
        syslog.write(Level::Info, "one").unwrap();
        assert!(received(&daemon).ends_with("one"));
        // Gone, and its socket still in the file system.
        drop(daemon);
        assert_eq!(syslog.write(Level::Info, "two").unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        fs::remove_file(&path).unwrap();
        let daemon = UnixDatagram::bind(&path).unwrap();
        syslog.write(Level::Info, "three").unwrap();
        assert!(received(&daemon).ends_with("three"));
        // Restarted between two lines.
        drop(daemon);
        fs::remove_file(&path).unwrap();
        let daemon = UnixDatagram::bind(&path).unwrap();
        syslog.write(Level::Info, "four").unwrap();
        assert!(received(&daemon).ends_with("four"));
    }
}
