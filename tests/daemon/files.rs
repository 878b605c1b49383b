//! The pidfile, the metrics and the trace: whatever is wrong with a file or its disk, stalld does
//! its work.

#![cfg(feature = "bpf")]

use crate::assert_words;
use rig::boosts::{await_own_policy, boosted_victim, policy, start_by};
use rig::process::{self, eventually};
use rig::scratch::Scratch;
use rig::{Stalld, live};
use stalld::task::{Policy, Tid};
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

const OPTIONS: [&str; 3] = ["--pidfile", "--metrics", "--trace"];

fn options(directory: &Path, name: &str) -> Vec<String> {
    let with_file =
        |option: &str| format!("{option}={}", directory.join(format!("{name}{option}")).display());
    OPTIONS.iter().map(|option| with_file(option)).collect()
}

#[test]
#[ignore = "needs root"]
fn a_file_that_can_not_be_used_is_a_warning_with_a_cure() {
    let _live = live();
    let scratch = Scratch::new("files-refused");
    let precious = scratch.join("precious");
    fs::write(&precious, "as it was\n").unwrap();
    for option in OPTIONS {
        symlink(&precious, scratch.join(&format!("link{option}"))).unwrap();
        let fifo = scratch.join(&format!("fifo{option}"));
        assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        fs::copy(&precious, scratch.join(&format!("foreign{option}"))).unwrap();
    }
    for (directory, name, reason, cure) in [
        ("missing", "any", "No such file or directory", "make its directory"),
        ("", "link", "it is a symbolic link", "remove it"),
        ("", "fifo", "it is no regular file", "remove it"),
    ] {
        let directory = scratch.join(directory);
        let options = options(&directory, name);
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let mut stalld = Stalld::start(&[&["-f", "-l", "-v"], &options[..]].concat());
        stalld.scan();
        let (code, log) = stalld.terminate();
        assert_eq!(code, Some(0));
        for what in ["there is no pidfile", "the metrics are out of date", "there is no trace"] {
            let warnings: Vec<_> = log.iter().filter(|record| record.message().starts_with(what)).collect();
            assert_eq!(warnings.len(), 1, "{what}: {log:?}");
            assert_eq!(warnings[0].level(), "warning");
            assert_words(warnings[0].message(), &[&format!("{name}--"), reason, cure]);
        }
    }
    assert_eq!(fs::read_to_string(&precious).unwrap(), "as it was\n");
    let foreign = scratch.join("foreign--metrics");
    let mut stalld = Stalld::start(&["-f", "-l", "--metrics", foreign.to_str().unwrap(), "-v"]);
    assert_words(stalld.message("holds no metrics").message(), &["foreign", "remove it"]);
    assert_eq!(stalld.terminate().0, Some(0));
    assert_eq!(fs::read_to_string(&foreign).unwrap(), "as it was\n");
}

#[test]
#[ignore = "needs root"]
fn a_full_disk_and_one_that_can_only_be_read_are_warnings() {
    let _live = live();
    let scratch = Scratch::new("files-disk");
    let at = scratch.path().display();
    let full = format!("mount -t tmpfs -o size=4k none {at} && head -c 4096 /dev/zero >{at}/all");
    let read_only = format!("mount -t tmpfs -o ro none {at}");
    for (prepare, reason, cure) in
        [(full, "No space left", "make room"), (read_only, "Read-only file system", "BindPaths=")]
    {
        let script = format!("{prepare} && exec \"$@\"");
        let options = options(scratch.path(), "any");
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let args = [&["-f", "-l", "-v"], &options[..]].concat();
        let mut stalld = Stalld::start_by(&["unshare", "-m", "sh", "-c", &script, "sh"], &args);
        stalld.scan();
        let (code, log) = stalld.terminate();
        assert_eq!(code, Some(0));
        for what in ["the metrics are out of date", "there is no trace"] {
            let warning = log.iter().find(|record| record.message().starts_with(what));
            let warning = warning.unwrap_or_else(|| panic!("no word of '{what}' in {log:?}"));
            assert_words(warning.message(), &[reason, cure]);
        }
    }
}

#[test]
#[ignore = "needs root"]
fn the_starter_of_a_daemon_sees_which_file_it_can_not_write() {
    let _live = live();
    let scratch = Scratch::new("files-daemon");
    let (pidfile, metrics) = (scratch.join("pid"), scratch.join("missing/metrics"));
    let args = ["-l", "-P", pidfile.to_str().unwrap(), "--metrics", metrics.to_str().unwrap()];
    let (code, log) = Stalld::start(&args).finish();
    let daemon = Tid(fs::read_to_string(&pidfile).unwrap().trim().parse().unwrap());
    process::signal(daemon, "TERM");
    process::await_end(daemon);
    assert_eq!((code, log.len()), (Some(0), 1), "{log:?}");
    assert_words(log[0].message(), &[metrics.to_str().unwrap(), "make its directory"]);
    assert!(!pidfile.exists());
}

#[test]
#[ignore = "needs root"]
fn other_users_can_read_the_pidfile_and_the_metrics_whatever_the_umask() {
    let _live = live();
    let scratch = Scratch::new("files-umask");
    let files = ["pid", "metrics"].map(|name| scratch.join(name));
    let [pidfile, metrics] = files.each_ref().map(|path| path.to_str().unwrap());
    let starter = ["sh", "-c", "umask 077; exec \"$@\"", "sh"];
    let stalld = Stalld::start_by(&starter, &["-f", "-l", "-P", pidfile, "--metrics", metrics]);
    for file in &files {
        eventually("the file can be read", || {
            (fs::metadata(file).ok()?.mode() & 0o7777 == 0o644).then_some(())
        });
    }
    assert_eq!(stalld.terminate().0, Some(0));
    assert!(files.iter().all(|file| !file.exists()));
}

#[test]
#[ignore = "needs root"]
fn a_pidfile_of_the_c_program_is_replaced_without_capabilities_too() {
    let _live = live();
    let scratch = Scratch::new("files-c-pidfile");
    let pidfile = scratch.join("pid");
    for taken in ["", "-dac_override,-dac_read_search,-fowner"] {
        fs::write(&pidfile, "4194303\n").unwrap();
        fs::set_permissions(&pidfile, Permissions::from_mode(0o022)).unwrap();
        let starter = ["setpriv", "--bounding-set", taken];
        let starter = if taken.is_empty() { &[][..] } else { &starter };
        let args = ["-f", "-l", "-v", "-P", pidfile.to_str().unwrap()];
        let mut stalld = Stalld::start_by(starter, &args);
        assert_words(stalld.message("replaced").message(), &[pidfile.to_str().unwrap()]);
        assert_eq!(fs::read_to_string(&pidfile).unwrap(), format!("{}\n", stalld.pid()));
        assert_eq!(stalld.terminate().0, Some(0));
        assert!(!pidfile.exists());
    }
}

#[test]
#[ignore = "needs root"]
fn with_a_reservation_its_files_are_written_at_real_time_priority_too() {
    let _live = live();
    let scratch = Scratch::new("files-reservation");
    let options = options(scratch.path(), "any");
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let stalld = Stalld::watch(&[&["-R", "10", "-g", "1"], &options[..]].concat());
    let name = |thread| process::status(thread, "Name").unwrap_or_default();
    for file in ["stalld-pidfile", "stalld-metrics", "stalld-trace"] {
        eventually("the file's thread is real-time", || {
            let threads = process::threads(stalld.pid());
            let thread = threads.into_iter().find(|&thread| name(thread) == file)?;
            (policy(thread)? == (Policy::FIFO, 10)).then_some(())
        });
    }
    assert_eq!(stalld.terminate().0, Some(0));
}

/// Mounts a file system on its first argument whose server never answers, and executes the others.
/// The server lives for two minutes at most, in a process of its own.
const STUCK_DISK: &str = "
import ctypes, os, sys, time
fuse = os.open('/dev/fuse', os.O_RDWR)
options = 'fd=%d,rootmode=40000,user_id=0,group_id=0' % fuse
libc = ctypes.CDLL(None, use_errno=True)
if libc.mount(b'none', sys.argv[1].encode(), b'fuse', 0, options.encode()):
    sys.exit('cannot mount: ' + os.strerror(ctypes.get_errno()))
if os.fork() == 0:
    [os.close(fd) for fd in range(3)]
    time.sleep(120)
    os._exit(0)
os.close(fuse)
os.execvp(sys.argv[2], sys.argv[2:])
";

#[test]
#[ignore = "starves tasks, as root"]
fn a_disk_that_does_not_answer_delays_neither_start_nor_boosts_nor_end() {
    let _live = live();
    let scratch = Scratch::new("files-stuck");
    let starter = ["unshare", "-m", "python3", "-c", STUCK_DISK, scratch.path().to_str().unwrap()];
    let options = options(scratch.path(), "any");
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let mut stalld = start_by(&starter, &[&["-t", "1", "-d", "1"], &options[..]].concat());
    let (_rig, victim) = boosted_victim(&mut stalld, &["--for", "8"]);
    let (code, log) = stalld.terminate();
    await_own_policy(victim.tid());
    assert_eq!(code, Some(0), "{log:?}");
    for file in ["pidfile", "metrics", "trace"] {
        assert!(log.mentions(&format!("the {file} file is left as it is")), "{file}: {log:?}");
    }
}

#[test]
#[ignore = "needs root"]
fn a_disk_that_does_not_answer_does_not_keep_the_process_that_started_a_daemon() {
    let _live = live();
    let scratch = Scratch::new("files-stuck-daemon");
    let starter = ["unshare", "-m", "python3", "-c", STUCK_DISK, scratch.path().to_str().unwrap()];
    let path = scratch.join("metrics");
    let pidfile = Scratch::new("files-stuck-pid");
    let pidfile = pidfile.join("pid");
    let args = ["-l", "-P", pidfile.to_str().unwrap(), "--metrics", path.to_str().unwrap()];
    assert_eq!(Stalld::start_by(&starter, &args).finish().0, Some(0));
    let daemon = Tid(fs::read_to_string(&pidfile).unwrap().trim().parse().unwrap());
    process::signal(daemon, "TERM");
    process::await_end(daemon);
    assert!(!pidfile.exists());
}
