//! Files that a user prepares, and file systems that a user fills.

use rig::attack::{AS_USER, directory_of_user};
use rig::scratch::Scratch;
use rig::{Record, Rig, Stalld, TIMEOUT, as_root, live, shorter_of_two};
use stalld::task::Nanos;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;

/// The traps that a user puts in place of a file.
const TRAPS: [&str; 5] = ["link to a file", "link to nothing", "fifo", "second name of a file", "directory"];

fn set(trap: &str, place: &Path, precious: &Path) {
    match trap {
        "link to a file" => symlink(precious, place).unwrap(),
        "link to nothing" => symlink(precious.with_file_name("missing"), place).unwrap(),
        "fifo" => {
            let status = Command::new("mkfifo").arg(place).status().unwrap();
            assert!(status.success());
        }
        "second name of a file" => fs::hard_link(precious, place).unwrap(),
        _ => {
            fs::create_dir(place).unwrap();
            fs::write(place.join("file"), "").unwrap();
        }
    }
}

/// A file of root that no attack may change, beside a directory of the user.
struct Precious {
    scratch: Scratch,
    before: (String, u32, u32),
}

impl Precious {
    fn new(name: &str) -> Precious {
        let scratch = Scratch::new(name);
        fs::create_dir(scratch.join("user")).unwrap();
        scratch.file("precious", "as it was");
        fs::set_permissions(scratch.join("precious"), fs::Permissions::from_mode(0o600)).unwrap();
        let user = Some(rig::attack::USER);
        chown(scratch.join("user"), user, user).unwrap();
        let before = Precious::state(&scratch);
        Precious { scratch, before }
    }

    fn state(scratch: &Scratch) -> (String, u32, u32) {
        let path = scratch.join("precious");
        let seen = fs::metadata(&path).unwrap();
        (fs::read_to_string(&path).unwrap(), seen.mode(), seen.uid())
    }

    fn assert_untouched(&self, what: &str) {
        assert_eq!(Precious::state(&self.scratch), self.before, "the attack succeeded: {what}");
        let made = self.scratch.join("missing").exists();
        assert!(!made, "the attack succeeded: {what}: a file was made through a link");
    }
}

/// Starts a stalld that writes the file of `option`, with each trap in place of `name`. It must
/// refuse the file by its path, or work without following it, and end when it is asked to.
fn no_trap_works(option: &str, file: &str, name: &str) {
    as_root();
    for trap in TRAPS {
        let what = format!("{option}, {trap} in place of {name}");
        let precious = Precious::new("adversary-traps");
        let user = precious.scratch.join("user");
        set(trap, &user.join(name), &precious.scratch.join("precious"));
        let path = user.join(file);
        let mut stalld = Stalld::start(&["-f", "-l", "-v", "-t", "1", option, path.to_str().unwrap()]);
        let is_answer = |record: &Record| {
            record.is(Record::PLAIN) || record.level() == "error" || record.message().contains("checking cpu")
        };
        let answer = stalld.wait_for(is_answer, TIMEOUT);
        let answer = answer.unwrap_or_else(|| panic!("the attack succeeded: {what}: stalld does not start"));
        let works = answer.message().contains("checking cpu");
        let (code, log) = if works { stalld.terminate() } else { stalld.finish() };
        println!("{what}: {code:?}, {}", if works { "works" } else { answer.message() });
        precious.assert_untouched(&what);
        assert_eq!(code, Some(i32::from(!works)), "the attack succeeded: {what}: {log:#?}");
        assert!(works || answer.message().contains(user.to_str().unwrap()), "{what}: {answer:?}");
    }
}

#[test]
#[ignore = "needs root"]
fn nothing_in_place_of_the_trace_is_followed_or_blocks() {
    no_trap_works("--trace", "trace.json", "trace.json");
}

#[test]
#[ignore = "needs root"]
fn nothing_in_place_of_the_pidfile_is_followed_or_blocks() {
    no_trap_works("--pidfile", "stalld.pid", "stalld.pid");
}

#[test]
#[ignore = "needs root"]
fn nothing_in_place_of_the_metrics_is_followed_or_blocks() {
    no_trap_works("--metrics", "stalld.prom", "stalld.prom");
}

#[test]
#[ignore = "needs root"]
fn nothing_in_place_of_the_draft_of_the_metrics_is_followed_or_blocks() {
    no_trap_works("--metrics", "stalld.prom", ".stalld.prom.new");
}

#[test]
#[ignore = "needs root"]
fn links_that_change_all_the_time_are_not_followed() {
    as_root();
    let precious = Precious::new("adversary-swaps");
    let user = precious.scratch.join("user");
    let file = user.join("stalld.prom");
    let mut stalld =
        Stalld::start(&["-f", "-l", "-v", "-t", "1", "-g", "100ms", "--metrics", file.to_str().unwrap()]);
    stalld.scan();
    let script = "cd \"$1\" || exit; while :; do for file in stalld.prom .stalld.prom.new; do \
         ln -sf ../precious $file; rm -f $file; ln -sf ../missing $file; rm -f $file; mkfifo $file; rm -f $file; \
         done; done 2>/dev/null";
    let [first, rest @ ..] = AS_USER;
    let words = ["timeout", "5", "nice", "sh", "-c", script, "sh", user.to_str().unwrap()];
    let status = Command::new(first).args(rest).args(words).status().unwrap();
    assert_eq!(status.code(), Some(124), "the user's program ended early");
    stalld.scan();
    assert_eq!(stalld.terminate().0, Some(0));
    precious.assert_untouched("links that change");
}

/// Waits until the hog of a rig has ended. Returns the longest wait of the victim of root.
fn wait_of_witness(length: &str) -> Nanos {
    let mut rig = Rig::start(&["--for", length, "--victim", "spin:1:witness"]);
    rig.event("end hog");
    rig.event("end victim").moment("longest_gap_ns")
}

/// The threshold of these tests, the time that a boost may come late, and the time that the
/// kernel's DL server may run fair tasks before it.
const MAX_WAIT: Nanos = Nanos::from_millis(650);

const OPTIONS: [&str; 8] = ["-f", "-v", "-t", "500ms", "-d", "500ms", "-p", "500ms"];

#[test]
#[ignore = "starves tasks, as root"]
fn full_file_systems_delay_no_boost_and_no_end() {
    let _live = live();
    let disk = directory_of_user("adversary-full");
    let path = disk.path().to_str().unwrap();
    let script = "for place in /run \"$0\"; do mount -t tmpfs -o size=128k,mode=1777 none $place || exit 90; done; \
         exec \"$@\"";
    let [pidfile, metrics, trace] =
        ["stalld.pid", "stalld.prom", "trace.json"].map(|name| format!("{path}/{name}"));
    let files = ["-P", &pidfile, "--metrics", &metrics, "--trace", &trace];
    let starter = ["unshare", "-m", "sh", "-c", script, path];
    let mut stalld = Stalld::start_by(&starter, &[&OPTIONS[..], &Stalld::RIG_ONLY, &files].concat());
    stalld.scan();
    let fill = format!("! cat /dev/zero >/run/full && ! cat /dev/zero >{path}/full");
    let status = Command::new("nsenter")
        .args(["-m", "-t", &stalld.pid().to_string()])
        .args(AS_USER)
        .args(["sh", "-c", &fill])
        .status()
        .unwrap();
    assert!(status.success(), "the user could not fill the file systems");
    let waited = shorter_of_two(MAX_WAIT, || wait_of_witness("4"));
    let (code, log) = stalld.terminate();
    println!("the witness waited {} ms", waited.as_millis());
    assert!(
        waited <= MAX_WAIT,
        "the attack succeeded: a task of root waited {} ms: {log:#?}",
        waited.as_millis()
    );
    assert_eq!(code, Some(0), "the attack succeeded: {log:#?}");
    assert!(log.count("restored") > 0, "{log:#?}");
}

#[test]
#[ignore = "starves tasks, as root"]
fn a_system_log_that_is_not_read_delays_no_boost() {
    let _live = live();
    let scratch = Scratch::new("adversary-syslog");
    let path = scratch.join("log");
    let _unread = UnixDatagram::bind(&path).unwrap();
    let sender = UnixDatagram::unbound().unwrap();
    sender.set_nonblocking(true).unwrap();
    while sender.send_to(&[b'x'; 512], &path).is_ok() {}
    let script =
        "mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && ln -s \"$0\" /dev/log || exit 90
         [ ! -d /run/systemd/journal ] || mount -t tmpfs none /run/systemd/journal || exit 90
         exec \"$@\"";
    let starter = ["unshare", "-m", "sh", "-c", script, path.to_str().unwrap()];
    let mut stalld = Stalld::start_by(&starter, &[&OPTIONS[..], &Stalld::RIG_ONLY, &["-s"]].concat());
    stalld.scan();
    let waited = shorter_of_two(MAX_WAIT, || wait_of_witness("4"));
    let (code, log) = stalld.terminate();
    println!("the witness waited {} ms", waited.as_millis());
    assert!(
        waited <= MAX_WAIT,
        "the attack succeeded: a task of root waited {} ms: {log:#?}",
        waited.as_millis()
    );
    assert_eq!(code, Some(0), "the attack succeeded: {log:#?}");
    assert!(log.count("restored") > 0, "{log:#?}");
}
