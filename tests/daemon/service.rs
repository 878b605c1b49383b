//! stalld under a service manager: its notifications, and its work inside the unit's sandbox.

#![cfg(feature = "bpf")]

use crate::{assert_words, refusal};
use rig::boosts::{await_own_policy, boosted_victim};
use rig::process::eventually;
use rig::scratch::Scratch;
use rig::{Stalld, TIMEOUT, live};
use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::LazyLock;
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
        assert_words(&first, &[" 0 failed"]);
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

/// Does what the unit's ProtectSystem=, TemporaryFileSystem=, BindPaths= and ProtectKernelTunables=
/// do, and leaves only the capabilities in $1.
const SANDBOX: &str = r#"
    mount --make-rprivate / && mkdir -p /run/stalld && mount -t tmpfs tmpfs /mnt &&
        mkdir /mnt/stalld && mount --bind /run/stalld /mnt/stalld && mount -n --move /mnt /run || exit 90
    for path in / /run /proc/sys /sys; do
        case $path in /proc/sys | /sys) mount -n --rbind $path $path || exit 90 ;; esac
        mount -n -o remount,bind,ro $path || exit 90
    done
    capabilities=$1
    shift
    exec setpriv --no-new-privs --inh-caps=-all --bounding-set="$capabilities" "$@""#;

static UNIT: LazyLock<String> =
    LazyLock::new(|| fs::read_to_string(rig::packaged("systemd/stalld.service")).unwrap());

const PIDFILE: &str = "/run/stalld/test.pid";

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

/// Returns the words of all lines of the unit that set this.
fn words_of(setting: &str) -> BTreeSet<&'static str> {
    let values = UNIT.lines().filter_map(|line| line.strip_prefix(setting)?.strip_prefix('='));
    values.flat_map(str::split_whitespace).collect()
}

#[test]
fn the_unit_hides_the_sockets_and_directories_of_run() {
    assert_eq!(words_of("TemporaryFileSystem"), BTreeSet::from(["/run:ro"]));
    assert_eq!(words_of("BindPaths"), BTreeSet::from(["/run/stalld"]));
    let sockets = ["notify", "journal/socket", "journal/stdout", "journal/dev-log"];
    let sockets = sockets.map(|name| format!("-/run/systemd/{name}"));
    let sockets = sockets.iter().map(String::as_str).collect();
    assert_eq!(words_of("BindReadOnlyPaths"), sockets);
    // systemd can't set these for paths below a TemporaryFileSystem=.
    for setting in ["ReadWritePaths", "ReadOnlyPaths"] {
        assert_eq!(words_of(setting), BTreeSet::new(), "{setting}");
    }
    for hidden in ["-/var/lib/lxd", "-/var/lib/incus", "-/var/snap", "-/var/lib/libvirt", "-/var/lib/kubelet"]
    {
        assert!(words_of("InaccessiblePaths").contains(hidden), "{hidden}");
    }
    let address_families = words_of("RestrictAddressFamilies");
    assert_eq!(address_families, BTreeSet::from(["AF_UNIX"]), "sockets of other hosts are out of reach");
}

#[test]
fn the_unit_writes_the_pidfile_outside_of_its_sandbox() {
    let command = |prefix: &str| UNIT.lines().find_map(|line| line.strip_prefix(prefix)).expect(prefix);
    // Both commands read -P from the same variables, because the last one counts.
    let variables = "$CLIST $AGGR $BP $BR $BD $IT $IP $THRESH $LOGGING $FG $PF $BE";
    let start = command("ExecStart=/usr/bin/stalld --systemd ");
    assert_eq!(start.strip_suffix(" --no-pidfile"), Some(variables));
    assert_eq!(
        command(
            "ExecStartPost=-+/usr/bin/nsenter --target=1 --mount -- /usr/bin/stalld --write-pidfile=${MAINPID} "
        ),
        variables
    );
    // systemd mounts an empty /run even for a command with a plus.
    assert_eq!(
        command("ExecStopPost=-+/usr/bin/nsenter "),
        "--target=1 --mount -- /usr/bin/stalld --recover"
    );
}

#[test]
fn the_unit_restarts_for_ever_and_ever_more_slowly() {
    let seconds = |setting: &str| -> u32 {
        let values = words_of(setting);
        let [value] = values.iter().copied().collect::<Vec<_>>()[..] else { panic!("{setting}: {values:?}") };
        value.trim_end_matches('s').parse().unwrap()
    };
    assert_eq!(seconds("StartLimitIntervalSec"), 0);
    assert_eq!(words_of("Restart"), BTreeSet::from(["always"]));
    assert!(seconds("RestartSteps") > 0);
    // The host is protected again before a task that waits meanwhile has starved for 20 s.
    assert!(seconds("RestartSec") < seconds("RestartMaxDelaySec"));
    assert!(seconds("RestartMaxDelaySec") < 20);
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
    let options = ["--systemd", "-k", "-f", "-v", "--boost", "deadline", "-t", "1", "-d", "1", "-P", PIDFILE];
    for end in ["TERM", "KILL"] {
        let args = [&options, &Stalld::RIG_ONLY[..]].concat();
        let mut stalld = Stalld::start_by(&starter, &args);
        stalld.message("using task_iter backend");
        stalld.message("using SCHED_DEADLINE for boosting");
        stalld.scan();
        let (_rig, victim) = boosted_victim(&mut stalld, &["--for", "10"]);
        let victim = victim.tid();
        eventually("the boost is in the kernel's log", || {
            kernel_log().contains(&format!(": boosted pid {victim} (victim)")).then_some(())
        });
        stalld.event_of("restored", victim);
        await_own_policy(victim);
        stalld.event_of("boosted", victim);
        stalld.signal(end);
        let (code, log) = stalld.finish();
        assert_eq!(code, (end == "TERM").then_some(0));
        assert!(!log.mentions("CAP_") && !log.mentions("only logs"), "{log:?}");
        await_own_policy(victim);
        assert_eq!(fs::remove_file(PIDFILE).is_ok(), end == "KILL");
    }
}
