//! stalld under a service manager: what it tells it, and what it can do in the unit's sandbox.

// stalld as it is meant to be: with its BPF backends.
#![cfg(feature = "bpf")]
#![allow(clippy::unwrap_used, clippy::panic)]

mod rig;

use rig::scratch::Scratch;
use rig::{PATIENCE, Stalld, live, process};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The service manager's end of the socket.
struct Manager(UnixDatagram);

impl Manager {
    fn hears(&self) -> String {
        self.0.set_read_timeout(Some(Duration::from_nanos(PATIENCE.0))).unwrap();
        let mut bytes = [0; 1024];
        let len = self.0.recv(&mut bytes).expect("stalld tells its manager nothing");
        String::from_utf8(bytes[..len].to_vec()).unwrap()
    }
}

#[test]
fn its_manager_hears_of_the_first_look_of_further_ones_in_the_watchdogs_time_and_of_the_end() {
    let Some(_live) = live() else { return };
    let scratch = Scratch::new("service-path");
    let path = scratch.join("notify");
    let name = format!("stalld-test-{}", std::process::id());
    let abstract_one = SocketAddr::from_abstract_name(&name).unwrap();
    for (socket, manager) in [
        (path.to_str().unwrap().to_string(), UnixDatagram::bind(&path).unwrap()),
        (format!("@{name}"), UnixDatagram::bind_addr(&abstract_one).unwrap()),
    ] {
        let manager = Manager(manager);
        let socket = format!("NOTIFY_SOCKET={socket}");
        // No -f: where a manager waits for a word, it would take the end of its child for the end of stalld.
        let starter = ["env", &socket, "WATCHDOG_USEC=1000000"];
        let stalld = Stalld::start_by(&starter, &["-l", "-g", "600", "-t", "600", "-b", "task_iter"]);
        let status = "STATUS=task_iter backend: ";
        let first = manager.hears();
        assert!(first.starts_with(&format!("READY=1\nWATCHDOG=1\n{status}1 looks, 0 lost; ")), "{first}");
        for _ in 0..3 {
            let next = manager.hears();
            assert!(next.starts_with(&format!("WATCHDOG=1\n{status}")), "{next}");
        }
        stalld.signal("TERM");
        process::eventually("the manager hears of the end", || {
            (manager.hears() == "STOPPING=1").then_some(())
        });
        assert_eq!(stalld.finish().0, Some(0));
    }
}

#[test]
fn a_manager_that_can_not_be_told_is_a_start_that_fails() {
    let Some(_live) = live() else { return };
    let stalld = Stalld::start_by(&["env", "NOTIFY_SOCKET=vsock:2:1"], &["-l"]);
    let (code, said) = stalld.finish();
    let said: Vec<&str> = said.iter().map(|(_, line)| line.as_str()).collect();
    assert_eq!(code, Some(1));
    assert_eq!(
        said,
        ["stalld: cannot use NOTIFY_SOCKET 'vsock:2:1': it is neither a path nor begins with @"]
    );
}
