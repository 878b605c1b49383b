//! stalld under a service manager: its notifications, and its work inside the unit's sandbox.

#![cfg(feature = "bpf")]

use crate::{assert_words, refusal};
use rig::boosts::{OWN, await_own_policy, is_boosted, policy};
use rig::process::eventually;
use rig::scratch::Scratch;
use rig::{Rig, Stalld, TIMEOUT, live};
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The service manager's end of the socket.
struct Manager(UnixDatagram);

impl Manager {
    /// Returns the next notification.
    fn receive(&self) -> String {
        self.0.set_read_timeout(Some(Duration::from_nanos(TIMEOUT.0))).unwrap();
        let mut bytes = [0; 1024];
        let len = self.0.recv(&mut bytes).expect("stalld sends no notification");
        String::from_utf8(bytes[..len].to_vec()).unwrap()
    }
}

#[test]
#[ignore = "needs root"]
fn it_notifies_its_manager_of_the_start_of_further_scans_and_of_the_end() {
    let _live = live();
    let scratch = Scratch::new("service-path");
    let path = scratch.join("notify");
    let name = format!("stalld-test-{}", std::process::id());
    let abstract_one = SocketAddr::from_abstract_name(&name).unwrap();
    for (mode, socket, manager) in [
        ("-O", path.to_str().unwrap().to_string(), UnixDatagram::bind(&path).unwrap()),
        ("-A", format!("@{name}"), UnixDatagram::bind_addr(&abstract_one).unwrap()),
    ] {
        let manager = Manager(manager);
        let socket = format!("NOTIFY_SOCKET={socket}");
        // Without -f stalld stays in the foreground, because a manager expects notifications.
        let starter = ["env", &socket, "WATCHDOG_USEC=1000000"];
        let stalld = Stalld::start_by(&starter, &[mode, "-l", "-g", "600", "-t", "600", "-b", "task_iter"]);
        let status = "STATUS=task_iter backend: ";
        let first = manager.receive();
        assert!(first.starts_with(&format!("READY=1\nWATCHDOG=1\n{status}1 ")), "{first}");
        assert_words(&first, &[" 0 lost"]);
        // The watchdog's period is shorter than the granularity.
        for _ in 0..3 {
            let next = manager.receive();
            assert!(next.starts_with(&format!("WATCHDOG=1\n{status}")), "{next}");
        }
        stalld.signal("TERM");
        eventually("stalld announces its end", || (manager.receive() == "STOPPING=1").then_some(()));
        assert_eq!(stalld.finish().0, Some(0));
    }
}

#[test]
#[ignore = "needs root"]
fn a_notification_socket_that_can_not_be_used_is_an_error_at_the_start() {
    let _live = live();
    let line = refusal(Stalld::start_by(&["env", "NOTIFY_SOCKET=vsock:2:1"], &["-l"]));
    assert_words(&line, &["NOTIFY_SOCKET", "'vsock:2:1'", "neither a path", "@"]);
}

/// Does what the unit's ProtectSystem=, ReadWritePaths= and ProtectKernelTunables= do, and leaves
/// only the capabilities in $1.
const SANDBOX: &str = r#"
    mount --make-rprivate / && mount --bind /run /run || exit 90
    for path in / /proc/sys /sys; do
        { [ $path = / ] || mount --rbind $path $path; } && mount -o remount,bind,ro $path || exit 90
    done
    capabilities=$1
    shift
    exec setpriv --no-new-privs --inh-caps=-all --bounding-set="$capabilities" "$@""#;

const UNIT: &str = include_str!("../../packaging/systemd/stalld.service");

const PIDFILE: &str = "/run/stalld-test.pid";

/// Returns the unit's capabilities in the form that setpriv takes.
fn capabilities_of_the_unit() -> String {
    let names = UNIT.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).unwrap();
    let plus =
        names.split(' ').map(|name| format!(",+{}", name.strip_prefix("CAP_").unwrap().to_lowercase()));
    format!("-all{}", plus.collect::<String>())
}

#[test]
fn the_unit_recovers_a_killed_stalld_before_throttling_is_on_again() {
    let place = |line: &str| UNIT.lines().position(|other| other == line).expect(line);
    assert!(
        place("ExecStopPost=-+/usr/bin/stalld --recover") < place("ExecStopPost=+/usr/bin/throttlectl on")
    );
    // The journal survives until the recovery.
    place("RuntimeDirectoryPreserve=yes");
    // Stalld raises itself. This setting would raise the programs before and after it too.
    assert!(!UNIT.contains("\nCPUSchedulingPolicy="));
}

/// Returns all that is in the kernel's log.
fn kernel_log() -> String {
    let mut kmsg = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open("/dev/kmsg").unwrap();
    let mut text = String::new();
    let mut record = [0; 8192];
    loop {
        match kmsg.read(&mut record) {
            Ok(len) => text.push_str(&String::from_utf8_lossy(&record[..len])),
            // The kernel has overwritten the record meanwhile.
            Err(e) if e.kind() == ErrorKind::BrokenPipe => {}
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::WouldBlock);
                return text;
            }
        }
    }
}

#[test]
#[ignore = "starves tasks, as root"]
fn inside_the_units_sandbox_it_boosts_restores_and_logs_to_the_kernel() {
    let _live = live();
    let capabilities = capabilities_of_the_unit();
    let starter = ["unshare", "-m", "-n", "sh", "-c", SANDBOX, "sh", &capabilities];
    let options = ["--systemd", "-k", "-f", "-v", "-t", "1", "-d", "1", "-P", PIDFILE];
    for end in ["TERM", "KILL"] {
        let args = [&options, &Stalld::RIG_ONLY[..]].concat();
        let mut stalld = Stalld::start_by(&starter, &args);
        stalld.message("using task_iter backend");
        stalld.message("using SCHED_DEADLINE for boosting");
        stalld.scan();
        let mut rig = Rig::start(&["--for", "10"]);
        let victim = rig.event("victim").tid();
        assert_eq!(stalld.event_of("boosted", victim).text("comm"), "victim");
        assert!(is_boosted(victim));
        eventually("the boost is in the kernel's log", || {
            kernel_log().contains(&format!(": boosted pid {victim} (victim)")).then_some(())
        });
        stalld.event_of("restored", victim);
        assert_eq!(policy(victim), Some(OWN));
        stalld.event_of("boosted", victim);
        stalld.signal(end);
        let (code, log) = stalld.finish();
        assert_eq!(code, (end == "TERM").then_some(0));
        assert!(!log.mentions("CAP_") && !log.mentions("only logs"), "{log:?}");
        await_own_policy(victim);
        assert_eq!(fs::remove_file(PIDFILE).is_ok(), end == "KILL");
    }
}
