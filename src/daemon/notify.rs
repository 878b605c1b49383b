//! Tells the service manager how stalld is doing, in datagrams as sd_notify(3) describes them.

use crate::engine::Tally;
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

/// The status is not told more often than this, whatever happens.
const TOLD: Nanos = Nanos::from_secs(1);
/// And this often when nothing does.
const RETOLD: Nanos = Nanos::from_secs(10);

/// The socket of the manager that has started stalld; without one, nothing is told to anybody.
pub struct Manager {
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// Without a word for this long stalld is taken for dead.
    watchdog: Option<Nanos>,
    ready: bool,
    told_at: Nanos,
    told: Tally,
    message: String,
}

impl Manager {
    /// Takes what the environment says. An error is a socket that can't be used: a manager waits at
    /// the other end.
    pub fn from_environment() -> Result<Manager> {
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
        // A manager that does not read must not hold up a look.
        socket.set_nonblocking(true).context(what())?;
        Ok(Manager::new(Some((socket, address.context(what())?)), watchdog))
    }

    fn new(socket: Option<(UnixDatagram, SocketAddr)>, watchdog: Option<Nanos>) -> Manager {
        Manager {
            socket,
            watchdog,
            ready: false,
            told_at: Nanos::ZERO,
            told: Tally::default(),
            message: String::with_capacity(512),
        }
    }

    /// The longest time between two looks that leaves the watchdog calm.
    pub fn within(&self, granularity: Nanos) -> Nanos {
        self.watchdog.map_or(granularity, |limit| granularity.min(Nanos(limit.0 / 2)))
    }

    /// A look was carried out at this moment: stalld works, and has a status to tell. The watchdog
    /// hears of it if all that look have done so since `all_since`, which is not too long ago.
    pub fn looked(&mut self, kind: Kind, tally: Tally, all_since: Nanos, now: Nanos) {
        if self.socket.is_none() || !self.is_due(tally, now) {
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
        let _ = write!(self.message, "STATUS={}", Status(kind, tally));
        // What finds no room is told after the next look.
        if self.send().is_ok() {
            self.ready = true;
            self.told_at = now;
            self.told = tally;
        }
    }

    /// The end has begun.
    pub fn stopping(&mut self) {
        self.message.clear();
        self.message.push_str("STOPPING=1");
        // Nobody is left to care if it fails.
        let _ = self.send();
    }

    fn is_due(&self, tally: Tally, now: Nanos) -> bool {
        // Looks alone are no news.
        let news = Tally { looks: self.told.looks, ..tally };
        let pause = now - self.told_at;
        let at_rest = self.watchdog.map_or(RETOLD, |limit| RETOLD.min(Nanos(limit.0 / 4)));
        !self.ready || pause >= at_rest || (news != self.told && pause >= TOLD)
    }

    fn send(&self) -> io::Result<()> {
        match &self.socket {
            Some((socket, address)) => socket.send_to_addr(self.message.as_bytes(), address).map(drop),
            None => Ok(()),
        }
    }
}

/// The watchdog's time, if it watches this process.
fn watchdog(micros: Option<OsString>, pid: Option<OsString>) -> Option<Nanos> {
    let number = |text: OsString| text.to_str()?.parse::<u64>().ok();
    let ours = pid.is_none_or(|pid| number(pid) == Some(std::process::id().into()));
    let micros = micros.and_then(number).filter(|&micros| ours && micros > 0)?;
    Some(Nanos::from_micros(micros.min(u64::MAX / 1000)))
}

struct Status(Kind, Tally);

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Status(kind, Tally { looks, failed_looks, starved, boosts, active }) = self;
        write!(
            f,
            "{} backend: {looks} looks, {failed_looks} lost; {starved} waits reached the threshold; \
             {boosts} boosts, {active} now",
            kind.name()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rig::scratch::Scratch;

    const ONE_LOOK: Tally = Tally { looks: 1, failed_looks: 0, starved: 0, boosts: 0, active: 0 };

    fn received(socket: &UnixDatagram) -> Option<String> {
        socket.set_nonblocking(true).unwrap();
        let mut bytes = [0; 1024];
        let len = socket.recv(&mut bytes).ok()?;
        Some(String::from_utf8(bytes[..len].to_vec()).unwrap())
    }

    fn looked(manager: &mut Manager, second: u64) {
        let now = Nanos::from_secs(second);
        manager.looked(Kind::TaskIter, ONE_LOOK, now, now);
    }

    const STATUS: &str =
        "STATUS=task_iter backend: 1 looks, 0 lost; 0 waits reached the threshold; 0 boosts, 0 now";

    #[test]
    fn the_first_look_makes_it_ready_and_each_further_one_calms_the_watchdog() {
        let scratch = Scratch::new("notify");
        let path = scratch.join("socket");
        let socket = UnixDatagram::bind(&path).unwrap();
        let mut manager = Manager::at(path.as_os_str(), Some(Nanos::from_secs(8))).unwrap();
        assert_eq!(received(&socket), None);
        looked(&mut manager, 1);
        assert_eq!(received(&socket).unwrap(), format!("READY=1\nWATCHDOG=1\n{STATUS}"));
        // A look a moment later has nothing new to tell.
        looked(&mut manager, 2);
        assert_eq!(received(&socket), None);
        looked(&mut manager, 3);
        assert_eq!(received(&socket).unwrap(), format!("WATCHDOG=1\n{STATUS}"));
        // A monitor has not looked for the watchdog's time.
        manager.looked(Kind::TaskIter, ONE_LOOK, Nanos::from_secs(3), Nanos::from_secs(11));
        assert_eq!(received(&socket).unwrap(), STATUS);
        manager.stopping();
        assert_eq!(received(&socket).unwrap(), "STOPPING=1");
    }

    #[test]
    fn an_abstract_socket_is_one_too() {
        let name = format!("stalld-test-{}", std::process::id());
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let mut manager = Manager::at(OsStr::new(&format!("@{name}")), None).unwrap();
        looked(&mut manager, 1);
        assert_eq!(received(&socket).unwrap(), format!("READY=1\n{STATUS}"));
    }

    #[test]
    fn what_the_manager_has_no_room_for_is_told_later() {
        let scratch = Scratch::new("notify-full");
        let path = scratch.join("socket");
        let mut manager = Manager::at(path.as_os_str(), None).unwrap();
        looked(&mut manager, 1);
        let socket = UnixDatagram::bind(&path).unwrap();
        looked(&mut manager, 1);
        assert!(received(&socket).unwrap().starts_with("READY=1\n"));
    }

    #[test]
    fn what_happens_is_told_within_a_second_and_no_more_often() {
        let scratch = Scratch::new("notify-happened");
        let path = scratch.join("socket");
        let _socket = UnixDatagram::bind(&path).unwrap();
        let mut manager = Manager::at(path.as_os_str(), None).unwrap();
        let quiet = Tally::default();
        assert!(manager.is_due(quiet, Nanos::ZERO));
        looked(&mut manager, 1);
        let boosting = Tally { boosts: 1, ..quiet };
        assert!(!manager.is_due(boosting, Nanos::from_millis(1999)));
        assert!(manager.is_due(boosting, Nanos::from_millis(2000)));
        assert!(!manager.is_due(quiet, Nanos::from_millis(10_999)));
        assert!(manager.is_due(quiet, Nanos::from_millis(11_000)));
    }

    #[test]
    fn looks_come_twice_in_the_watchdogs_time() {
        let manager = Manager::new(None, Some(Nanos::from_secs(30)));
        assert_eq!(manager.within(Nanos::from_secs(600)), Nanos::from_secs(15));
        assert_eq!(manager.within(Nanos::from_secs(5)), Nanos::from_secs(5));
        assert_eq!(Manager::new(None, None).within(Nanos::from_secs(600)), Nanos::from_secs(600));
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
