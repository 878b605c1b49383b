//! Reports the state of stalld to the service manager, in datagrams as in sd_notify(3).

use crate::boost::counters::Counters;
use crate::error::{Context, Error, Result};
use crate::observe::Kind;
use crate::task::Nanos;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt::{self, Write};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The shortest time between two status messages.
const NEWS_INTERVAL: Nanos = Nanos::from_secs(1);
/// The longest time between two status messages, if nothing changes.
const QUIET_INTERVAL: Nanos = Nanos::from_secs(10);

/// The socket of the service manager that started stalld. Without one, nothing is sent.
pub(super) struct Manager {
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// The watchdog time: without WATCHDOG=1 for so long, the manager assumes that stalld hangs.
    watchdog: Option<Nanos>,
    ready: bool,
    /// When the last status was sent.
    told_at: Nanos,
    /// The counters of the last status.
    reported: Counters,
    message: String,
}

impl Manager {
    /// Reads NOTIFY_SOCKET and the watchdog's variables. An unusable socket is an error, because a
    /// manager waits for messages.
    pub(super) fn from_environment() -> Result<Manager> {
        let watchdog = watchdog(env::var_os("WATCHDOG_USEC"), env::var_os("WATCHDOG_PID"));
        match env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) {
            Some(name) => Manager::at(&name, watchdog),
            None => Ok(Manager::new(None, None)),
        }
    }

    fn at(name: &OsStr, watchdog: Option<Nanos>) -> Result<Manager> {
        let what = || format!("use NOTIFY_SOCKET '{}'", name.to_string_lossy());
        let address = match name.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
            [b'/', ..] => SocketAddr::from_pathname(name),
            _ => {
                return Err(Error::new(format!("cannot {}: it is neither a path nor begins with @", what())));
            }
        };
        let socket = UnixDatagram::unbound().context(what())?;
        // A manager that does not read must not block a scan.
        socket.set_nonblocking(true).context(what())?;
        Ok(Manager::new(Some((socket, address.context(what())?)), watchdog))
    }

    fn new(socket: Option<(UnixDatagram, SocketAddr)>, watchdog: Option<Nanos>) -> Manager {
        Manager {
            socket,
            watchdog,
            ready: false,
            told_at: Nanos::ZERO,
            reported: Counters::default(),
            message: String::with_capacity(512),
        }
    }

    /// Returns the longest time between two scans that keeps the watchdog from firing.
    pub(super) fn cap_to_watchdog(&self, granularity: Nanos) -> Nanos {
        self.watchdog.map_or(granularity, |limit| granularity.min(Nanos(limit.0 / 2)))
    }

    /// Reports the scan at `now`: sends READY=1 once, and the status when it is due. Sends
    /// WATCHDOG=1 only if all scanning threads have scanned within the watchdog time; `all_since`
    /// is the oldest of their last scans.
    pub(super) fn scanned(&mut self, kind: Kind, counters: Counters, all_since: Nanos, now: Nanos) {
        if self.socket.is_none() || !self.is_due(counters, now) {
            return;
        }
        self.message.clear();
        if !self.ready {
            self.message.push_str("READY=1\n");
        }
        if self.watchdog.is_some_and(|limit| now < all_since + limit) {
            self.message.push_str("WATCHDOG=1\n");
        }
        // Writing to a String can't fail.
        let _ = write!(self.message, "STATUS={}", Status(kind, counters));
        // A message that finds no room is sent after the next scan.
        if self.send().is_ok() {
            self.ready = true;
            self.told_at = now;
            self.reported = counters;
        }
    }

    /// Reports that stalld is shutting down.
    pub(super) fn stopping(&mut self) {
        self.message.clear();
        self.message.push_str("STOPPING=1");
        // The shutdown goes on if this fails.
        let _ = self.send();
    }

    fn is_due(&self, counters: Counters, now: Nanos) -> bool {
        // Compare only counters that the status shows, without the scans, which always change.
        let shown = |it: Counters| (it.failed_scans, it.starved, it.boosts, it.active);
        let has_news = shown(counters) != shown(self.reported);
        let pause = now - self.told_at;
        let at_rest = self.watchdog.map_or(QUIET_INTERVAL, |limit| QUIET_INTERVAL.min(Nanos(limit.0 / 4)));
        !self.ready || pause >= at_rest || (has_news && pause >= NEWS_INTERVAL)
    }

    fn send(&self) -> io::Result<()> {
        match &self.socket {
            Some((socket, address)) => socket.send_to_addr(self.message.as_bytes(), address).map(drop),
            None => Ok(()),
        }
    }
}

/// Returns the watchdog time; `None` if no watchdog watches this process.
fn watchdog(micros: Option<OsString>, pid: Option<OsString>) -> Option<Nanos> {
    let number = |text: OsString| text.to_str()?.parse::<u64>().ok();
    let ours = pid.is_none_or(|pid| number(pid) == Some(std::process::id().into()));
    let micros = micros.and_then(number).filter(|&micros| ours && micros > 0)?;
    Some(Nanos::from_micros(micros.min(u64::MAX / 1000)))
}

struct Status(Kind, Counters);

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Status(kind, Counters { scans, failed_scans, starved, boosts, active, .. }) = self;
        write!(
            f,
            "{} backend: {scans} scans, {failed_scans} failed; {starved} waits reached the threshold; \
             {boosts} boosts, {active} now",
            kind.name()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rig::scratch::Scratch;

    fn received(socket: &UnixDatagram) -> Option<String> {
        socket.set_nonblocking(true).unwrap();
        let mut bytes = [0; 1024];
        let len = socket.recv(&mut bytes).ok()?;
        Some(String::from_utf8(bytes[..len].to_vec()).unwrap())
    }

    fn one_scan() -> Counters {
        Counters { scans: 1, ..Counters::default() }
    }

    fn scanned(manager: &mut Manager, second: u64) {
        let now = Nanos::from_secs(second);
        manager.scanned(Kind::TaskIter, one_scan(), now, now);
    }

    const STATUS: &str =
        "STATUS=task_iter backend: 1 scans, 0 failed; 0 waits reached the threshold; 0 boosts, 0 now";

    #[test]
    fn the_first_scan_makes_it_ready_and_each_further_one_calms_the_watchdog() {
        let scratch = Scratch::new("notify");
        let path = scratch.join("socket");
        let socket = UnixDatagram::bind(&path).unwrap();
        let mut manager = Manager::at(path.as_os_str(), Some(Nanos::from_secs(8))).unwrap();
        assert_eq!(received(&socket), None);
        scanned(&mut manager, 1);
        assert_eq!(received(&socket).unwrap(), format!("READY=1\nWATCHDOG=1\n{STATUS}"));
        // A scan a moment later sends nothing, because nothing has changed.
        scanned(&mut manager, 2);
        assert_eq!(received(&socket), None);
        scanned(&mut manager, 3);
        assert_eq!(received(&socket).unwrap(), format!("WATCHDOG=1\n{STATUS}"));
        // A monitor has not scanned for the watchdog's time.
        manager.scanned(Kind::TaskIter, one_scan(), Nanos::from_secs(3), Nanos::from_secs(11));
        assert_eq!(received(&socket).unwrap(), STATUS);
        manager.stopping();
        assert_eq!(received(&socket).unwrap(), "STOPPING=1");
    }

    #[test]
    fn an_abstract_socket_is_one_too() {
        let name = format!("stalld-test-{}", std::process::id());
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let mut manager = Manager::at(OsStr::new(&format!("@{name}")), None).unwrap();
        scanned(&mut manager, 1);
        assert_eq!(received(&socket).unwrap(), format!("READY=1\n{STATUS}"));
    }

    #[test]
    fn a_message_for_which_the_manager_has_no_room_is_sent_later() {
        let scratch = Scratch::new("notify-full");
        let path = scratch.join("socket");
        let mut manager = Manager::at(path.as_os_str(), None).unwrap();
        scanned(&mut manager, 1);
        let socket = UnixDatagram::bind(&path).unwrap();
        scanned(&mut manager, 1);
        assert!(received(&socket).unwrap().starts_with("READY=1\n"));
    }

    #[test]
    fn changes_are_sent_within_a_second_and_no_more_often() {
        let scratch = Scratch::new("notify-happened");
        let path = scratch.join("socket");
        let _socket = UnixDatagram::bind(&path).unwrap();
        let mut manager = Manager::at(path.as_os_str(), None).unwrap();
        let quiet = Counters::default();
        assert!(manager.is_due(quiet, Nanos::ZERO));
        scanned(&mut manager, 1);
        let boosting = Counters { boosts: 1, ..quiet };
        assert!(!manager.is_due(boosting, Nanos::from_millis(1999)));
        assert!(manager.is_due(boosting, Nanos::from_millis(2000)));
        assert!(!manager.is_due(quiet, Nanos::from_millis(10_999)));
        assert!(manager.is_due(quiet, Nanos::from_millis(11_000)));
    }

    #[test]
    fn scans_come_twice_in_the_watchdogs_time() {
        let manager = Manager::new(None, Some(Nanos::from_secs(30)));
        assert_eq!(manager.cap_to_watchdog(Nanos::from_secs(600)), Nanos::from_secs(15));
        assert_eq!(manager.cap_to_watchdog(Nanos::from_secs(5)), Nanos::from_secs(5));
        assert_eq!(Manager::new(None, None).cap_to_watchdog(Nanos::from_secs(600)), Nanos::from_secs(600));
    }

    #[test]
    fn a_watchdog_of_another_process_is_not_ours() {
        let time = || Some(OsString::from("2000000"));
        let own = OsString::from(std::process::id().to_string());
        assert_eq!(watchdog(time(), None), Some(Nanos::from_secs(2)));
        assert_eq!(watchdog(time(), Some(own)), Some(Nanos::from_secs(2)));
        assert_eq!(watchdog(time(), Some(OsString::from("1"))), None);
        assert_eq!(watchdog(Some(OsString::from("soon")), None), None);
        assert_eq!(watchdog(Some(OsString::from("0")), None), None);
    }

    #[test]
    fn a_socket_that_is_none_is_named() {
        let refused = |name: &str| Manager::at(OsStr::new(name), None).err().unwrap().to_string();
        assert_eq!(
            refused("vsock:2:1"),
            "cannot use NOTIFY_SOCKET 'vsock:2:1': it is neither a path nor begins with @"
        );
        assert!(refused(&"/x".repeat(60)).starts_with("cannot use NOTIFY_SOCKET '/x/x"));
    }
}
