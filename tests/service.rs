//! stalld under a service manager: what it tells it, and what it can do in the unit's sandbox.

// stalld as it is meant to be: with its BPF backends.
#![cfg(feature = "bpf")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod rig;

use rig::process::eventually;
use rig::scratch::Scratch;
use rig::{PATIENCE, Rig, Stalld, live};
use stalld::sys::sched;
use stalld::task::{Policy, Tid};
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::OpenOptionsExt;
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
    for (mode, socket, manager) in [
        ("-O", path.to_str().unwrap().to_string(), UnixDatagram::bind(&path).unwrap()),
        ("-A", format!("@{name}"), UnixDatagram::bind_addr(&abstract_one).unwrap()),
    ] {
        let manager = Manager(manager);
        let socket = format!("NOTIFY_SOCKET={socket}");
        // No -f: where a manager waits for a word, it would take the end of its child for the end of stalld.
        let starter = ["env", &socket, "WATCHDOG_USEC=1000000"];
        let stalld = Stalld::start_by(&starter, &[mode, "-l", "-g", "600", "-t", "600", "-b", "task_iter"]);
        let status = "STATUS=task_iter backend: ";
        let first = manager.hears();
        assert!(first.starts_with(&format!("READY=1\nWATCHDOG=1\n{status}1 looks, 0 lost; ")), "{first}");
        for _ in 0..3 {
            let next = manager.hears();
            assert!(next.starts_with(&format!("WATCHDOG=1\n{status}")), "{next}");
        }
        stalld.signal("TERM");
        eventually("the manager hears of the end", || (manager.hears() == "STOPPING=1").then_some(()));
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

/// What the unit's ProtectSystem=, ReadWritePaths=, ProtectKernelTunables= and PrivateNetwork= come to, and then the
/// capabilities in $1 alone.
const SANDBOX: &str = r#"
    mount --make-rprivate / && mount --bind /run /run || exit 90
    for path in / /proc/sys /sys; do
        { [ $path = / ] || mount --rbind $path $path; } && mount -o remount,bind,ro $path || exit 90
    done
    capabilities=$1
    shift
    exec setpriv --no-new-privs --inh-caps=-all --bounding-set="$capabilities" "$@""#;

const UNIT: &str = include_str!("../packaging/systemd/stalld.service");

const PIDFILE: &str = "/run/stalld-test.pid";

/// As setpriv wants them.
fn capabilities_of_the_unit() -> String {
    let names = UNIT.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).unwrap();
    let plus =
        names.split(' ').map(|name| format!(",+{}", name.strip_prefix("CAP_").unwrap().to_lowercase()));
    format!("-all{}", plus.collect::<String>())
}

#[test]
fn the_unit_undoes_what_a_killed_stalld_has_left_before_throttling_is_on_again_and_keeps_the_record_of_it() {
    let place = |line: &str| UNIT.lines().position(|other| other == line).expect(line);
    assert!(
        place("ExecStopPost=-+/usr/bin/stalld --recover") < place("ExecStopPost=+/usr/bin/throttlectl on")
    );
    place("RuntimeDirectoryPreserve=yes");
    // stalld raises itself: this would raise throttlectl, and what systemd starts before stalld.
    assert!(!UNIT.contains("\nCPUSchedulingPolicy="));
}

/// All that is in the kernel's log.
fn kernel_log() -> String {
    let mut kmsg = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open("/dev/kmsg").unwrap();
    let mut text = String::new();
    let mut record = [0; 8192];
    loop {
        match kmsg.read(&mut record) {
            Ok(len) => text.push_str(&String::from_utf8_lossy(&record[..len])),
            // Overwritten while we were reading.
            Err(e) if e.kind() == ErrorKind::BrokenPipe => {}
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::WouldBlock);
                return text;
            }
        }
    }
}

fn is_deadline(tid: Tid) -> bool {
    sched::get_attr(tid).unwrap().policy == Policy::DEADLINE
}

#[test]
fn with_the_rights_that_the_unit_leaves_it_boosts_restores_and_logs_to_the_kernel() {
    let Some(_live) = live() else { return };
    let capabilities = capabilities_of_the_unit();
    let starter = ["unshare", "-m", "-n", "sh", "-c", SANDBOX, "sh", &capabilities];
    let options = ["--systemd", "-k", "-f", "-v", "-t", "1", "-d", "1", "-P", PIDFILE];
    for end in ["TERM", "KILL"] {
        let args = [&options, &Stalld::RIG_ONLY[..]].concat();
        let mut stalld = Stalld::start_by(&starter, &args);
        stalld.line_with("using task_iter backend");
        stalld.line_with("using SCHED_DEADLINE for boosting");
        stalld.look();
        let mut rig = Rig::start(&["--for", "5"]);
        let victim = rig.event("victim").tid();
        stalld.line_with(&format!("boosted pid {victim} (victim)"));
        assert!(is_deadline(victim));
        eventually("the boost is in the kernel's log", || {
            kernel_log().contains(&format!(": boosted pid {victim} (victim)")).then_some(())
        });
        stalld.line_with(&format!("restored pid {victim} (victim)"));
        assert!(!is_deadline(victim));
        stalld.line_with(&format!("boosted pid {victim} (victim)"));
        stalld.signal(end);
        let (code, said) = stalld.finish();
        assert_eq!(code, (end == "TERM").then_some(0));
        for (_, line) in said {
            assert!(!line.contains("CAP_") && !line.contains("only logs"), "{line}");
        }
        eventually("the boost is over", || (!is_deadline(victim)).then_some(()));
        assert_eq!(fs::remove_file(PIDFILE).is_ok(), end == "KILL");
    }
}
