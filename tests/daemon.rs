//! The life of the daemon: how it starts, what it is while it runs, and how it ends.

// stalld as it is meant to be: with its BPF backends.
#![cfg(feature = "bpf")]
#![allow(clippy::unwrap_used, clippy::panic)]

mod rig;

use rig::boosts::{OWN, boosted_victim, guardian, is_boosted, policy, start};
use rig::daemon::Daemon;
use rig::scratch::Scratch;
use rig::{Rig, Stalld, hogged_cpu, live, process};
use stalld::sys::{clock, sched};
use stalld::task::{Cpu, Nanos, Policy, Tid};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;

const CAP_SYS_RESOURCE: u32 = 24;

/// A start that is refused: one line on stderr, and exit code 1.
fn refusal(starter: &[&str], args: &[&str]) -> String {
    let (code, said) = Stalld::start_by(starter, args).finish();
    assert_eq!((code, said.len()), (Some(1), 1), "{args:?}: {said:?}");
    said[0].1.clone()
}

#[test]
fn a_daemon_is_on_its_own_and_holds_nothing_of_its_starter() {
    let Some(_live) = live() else { return };
    let scratch = Scratch::new("daemon");
    let pidfile = scratch.join("pid");
    let starter = ["sh", "-c", "exec 9</dev/zero; exec \"$@\"", "sh"];
    let daemon = Daemon::start_by(&starter, &pidfile, &["-l"]);
    let pid = daemon.pid();

    assert_eq!(fs::metadata(&pidfile).unwrap().mode() & 0o7777, 0o644);
    assert_eq!(fs::read_link(format!("/proc/{pid}/cwd")).unwrap(), Path::new("/"));
    let session = process::session(pid).unwrap();
    assert_ne!(Some(session), process::session(Tid(std::process::id() as i32)));
    assert_ne!(session, pid, "a session's leader gets a terminal by opening one");
    for standard in 0..=2 {
        assert_eq!(process::descriptor(pid, standard).unwrap(), Path::new("/dev/null"));
    }
    assert!(!process::descriptors(pid).contains(&"/dev/zero".into()), "{:?}", process::descriptors(pid));

    daemon.end("TERM");
    assert!(!pidfile.exists());
}

#[test]
fn a_start_that_fails_is_told_by_the_process_that_was_started() {
    let Some(_live) = live() else { return };
    let scratch = Scratch::new("daemon-refused");
    let missing = scratch.join("missing/pid");
    assert_eq!(
        refusal(&[], &["-l", "-P", missing.to_str().unwrap()]),
        format!("stalld: cannot open {}: No such file or directory", missing.display())
    );

    let link = scratch.join("link");
    symlink(scratch.join("target"), &link).unwrap();
    for foreground in [&[][..], &["-f"]] {
        assert_eq!(
            refusal(&[], &[&["-l", "-P", link.to_str().unwrap()], foreground].concat()),
            format!("stalld: cannot use {}: it is a symbolic link; remove it", link.display())
        );
    }
    assert!(!scratch.join("target").exists());

    let powerless = ["setpriv", "--bounding-set", "-bpf,-sys_admin"];
    let line = refusal(&powerless, &["-l", "-b", "task_iter"]);
    assert!(
        line.starts_with("stalld: task_iter: cannot load the BPF programs: Operation not permitted"),
        "{line}"
    );
}

#[test]
fn a_runtime_directory_that_others_could_have_prepared_is_refused() {
    let Some(_live) = live() else { return };
    // /run as this one process sees it.
    for (prepared, line) in [
        (
            "ln -s /tmp /run/stalld",
            "cannot use /run/stalld: it is no directory; remove it, stalld makes a new one",
        ),
        (
            "mkdir -m 777 /run/stalld",
            "cannot use /run/stalld: its mode is 0777, which allows more than 0755; remove it, stalld makes a new one",
        ),
        (
            "mkdir /run/stalld && chown 65534 /run/stalld",
            "cannot use /run/stalld: it belongs to the user 65534, not to 0; remove it, stalld makes a new one",
        ),
        (
            "mount -o remount,ro /run",
            "cannot create the runtime directory /run/stalld: Read-only file system",
        ),
    ] {
        let script = format!("mount -t tmpfs -o mode=755 none /run && {prepared} && exec \"$@\"");
        assert_eq!(
            refusal(&["unshare", "-m", "sh", "-c", &script, "sh"], &["-f"]),
            format!("stalld: {line}")
        );
    }
}

#[test]
fn one_boosts_and_any_number_may_watch_beside_it() {
    let Some(_live) = live() else { return };
    let mut first = Stalld::start(&["-f", "-v"]);
    first.look();
    let line = refusal(&[], &["-f"]);
    assert!(
        line.starts_with(&format!("stalld: stalld is already running as pid {} ", first.pid())),
        "{line}"
    );
    let line = refusal(&[], &[]);
    assert!(line.ends_with("; stop it first, or use -l to watch beside it"), "{line}");
    let watchers = [Stalld::watch(&[]), Stalld::watch(&[])];

    // Killed, it leaves its lock file behind, but not the lock.
    first.signal("KILL");
    assert_eq!(first.finish().0, None);
    let mut second = Stalld::start(&["-f", "-v"]);
    second.look();
    for stalld in watchers.into_iter().chain([second]) {
        assert_eq!(stalld.terminate().0, Some(0));
    }
}

#[test]
fn a_daemon_that_was_killed_does_not_keep_the_next_one_from_its_pidfile() {
    let Some(_live) = live() else { return };
    let scratch = Scratch::new("daemon-killed");
    let pidfile = scratch.join("pid");
    let first = Daemon::start(&pidfile, &["-l"]);
    let line = refusal(&[], &["-l", "-P", pidfile.to_str().unwrap()]);
    assert!(line.contains(&format!("the process that runs as pid {} holds it", first.pid())), "{line}");
    let pid = first.pid();
    first.end("KILL");
    assert!(pidfile.exists());
    let second = Daemon::start(&pidfile, &["-l"]);
    assert_ne!(second.pid(), pid);
    second.end("INT");
    assert!(!pidfile.exists());
}

#[test]
fn a_signal_to_end_is_a_clean_end_and_a_hangup_is_none() {
    let Some(_live) = live() else { return };
    for signal in ["INT", "TERM"] {
        let mut stalld = Stalld::watch(&[]);
        stalld.signal("HUP");
        stalld.signal("USR1");
        stalld.line_with(" backend: ");
        stalld.signal(signal);
        let (code, said) = stalld.finish();
        assert_eq!(code, Some(0), "{signal}");
        assert_eq!(said.last().unwrap().1, "stalld: stalld shutting down");
    }
}

#[test]
fn it_runs_above_ordinary_tasks_with_its_memory_locked_where_it_was_told_to() {
    let Some(_live) = live() else { return };
    let stalld = Stalld::watch(&["-a", "0"]);
    let attr = sched::get_attr(stalld.pid()).unwrap();
    assert_eq!((attr.policy, attr.priority, attr.reset_on_fork()), (Policy::FIFO, 10, false));
    let threads = process::threads(stalld.pid());
    assert!(threads.len() >= 2, "there is one that writes the log");
    for thread in threads {
        assert_eq!(sched::get_affinity(thread).unwrap(), [Cpu(0)].into_iter().collect());
        assert!(sched::get_attr(thread).unwrap().policy.is_realtime());
    }
    assert_ne!(process::status(stalld.pid(), "VmLck").unwrap(), "0 kB");
    assert_eq!(stalld.terminate().0, Some(0));
}

#[test]
fn a_priority_that_somebody_gave_it_is_left_alone() {
    let Some(_live) = live() else { return };
    let mut stalld = Stalld::start_by(&["chrt", "-r", "30"], &["-f", "-l", "-v"]);
    stalld.look();
    let attr = sched::get_attr(stalld.pid()).unwrap();
    assert_eq!((attr.policy, attr.priority, attr.reset_on_fork()), (Policy::RR, 30, false));
}

#[test]
fn a_reservation_is_for_the_thread_that_looks_and_for_nobody_else() {
    let Some(_live) = live() else { return };
    let backend = ["-b", "queue_track"];
    let mut stalld = start(&[&["-R", "10", "-t", "1", "-d", "1", "-g", "2"], &backend[..]].concat());
    let attr = sched::get_attr(stalld.pid()).unwrap();
    assert_eq!((attr.policy, attr.reset_on_fork()), (Policy::DEADLINE, true));
    assert_eq!((attr.runtime, attr.period), (Nanos::from_millis(200), Nanos::from_secs(2)));
    let guardian = guardian(&stalld);
    let pid = stalld.pid();
    let is_alone = || {
        assert_eq!(policy(guardian), Some((Policy::FIFO, 99)));
        let others =
            process::threads(pid).into_iter().chain(process::children(pid)).filter(|&tid| tid != pid);
        assert!(!others.into_iter().any(is_boosted), "somebody has inherited it");
    };
    is_alone();
    let (_rig, victim) = boosted_victim(&mut stalld, &["--for", "4"]);
    is_alone();
    stalld.line_with(&format!("restored pid {} (victim)", victim.tid()));
    assert_eq!(policy(victim.tid()), Some(OWN));
    let (code, said) = stalld.terminate();
    assert_eq!(code, Some(0));
    let reserved = "successfully set 10% SCHED_DEADLINE reservation runtime/period = 200000000/2000000000";
    assert!(said.iter().any(|(_, line)| line.contains(reserved)), "{said:?}");
    process::await_end(guardian);
}

#[test]
fn it_is_the_last_to_be_ended_when_memory_runs_out() {
    let Some(_live) = live() else { return };
    let own = Tid(std::process::id() as i32);
    let before = process::number(own, "oom_score_adj");
    let stalld = Stalld::watch(&["-b", "queue_track"]);
    let expected = if process::has_capability(own, CAP_SYS_RESOURCE) { -1000 } else { before };
    assert_eq!(process::number(stalld.pid(), "oom_score_adj"), expected);
    for child in process::children(stalld.pid()) {
        assert_eq!(process::number(child, "oom_score_adj"), before);
    }
}

#[test]
fn on_request_it_tells_who_waits_and_what_has_happened_so_far() {
    let Some(_live) = live() else { return };
    let mut rig = Rig::start(&["--for", "4", "--scene", "names"]);
    let mut stalld = Stalld::watch(&["-t", "60"]);
    let hog = rig.event("hog");
    let victims = rig.events("victim", 5);
    stalld.signal("USR1");
    let (_, counters) = stalld.line_with(" backend: ");
    assert!(counters.contains(" looks, 0 of them lost; 0 waits reached the threshold"), "{counters}");
    let (_, said) = stalld.terminate();
    for victim in &victims {
        let waiting = format!("stalld: waiting: {}-{} (", victim.text("name"), victim.tid());
        let line = said.iter().find(|(_, line)| line.starts_with(&waiting));
        let (at, line) = line.unwrap_or_else(|| panic!("no '{waiting}' in {said:?}"));
        let (place, wait) = line.strip_suffix(" ms").unwrap().rsplit_once(" for ").unwrap();
        assert!(place.ends_with(&format!("(SCHED_FIFO 1) on CPU {}", hogged_cpu())), "{line}");
        let wait: f64 = wait.parse().unwrap();
        let since = *at - victim.moment("since");
        assert!(wait > 0.0 && wait <= since.0 as f64 / 1e6, "{line}: {since:?}");
    }
    assert!(clock::monotonic() < hog.moment("until"), "this test was held up for longer than the hog lives");
}

#[test]
fn a_look_on_request_names_who_starves_like_any_other() {
    let Some(_live) = live() else { return };
    let mut rig = Rig::start(&["--for", "5"]);
    let mut stalld = Stalld::watch(&["-t", "2", "-g", "600"]);
    let starved = format!("victim-{} starved on CPU {} for ", rig.event("victim").tid(), hogged_cpu());
    let (first, _) = stalld.line_with(&starved);
    // Its own next look comes at 4 s.
    clock::sleep_until(first + Nanos::from_millis(1200));
    stalld.signal("USR1");
    let (_, line) = stalld.line_with(&starved);
    assert!(line.ends_with(" for 3 seconds"), "{line}");
}

#[test]
fn stopped_and_continued_it_tells_how_late_it_looks_and_goes_on() {
    let Some(_live) = live() else { return };
    let mut stalld = Stalld::watch(&["-t", "10", "-g", "1"]);
    stalld.signal("STOP");
    process::eventually("stalld is stopped", || (process::state(stalld.pid()) == Some(b'T')).then_some(()));
    // Past the look that was planned, by more than what is not worth a word.
    clock::nap(Nanos::from_millis(1500));
    stalld.signal("CONT");
    let (_, line) = stalld.line_with(" later than planned");
    let late = line.strip_prefix("stalld: looked ").and_then(|line| line.split_once(" ms")).unwrap().0;
    assert!(late.parse::<u64>().unwrap() >= 100, "{line}");
    for _ in 0..2 {
        stalld.look();
    }
    assert_eq!(stalld.terminate().0, Some(0));
}

#[test]
fn without_standard_descriptors_it_writes_its_log_into_none_of_its_files() {
    let Some(_live) = live() else { return };
    let scratch = Scratch::new("daemon-closed");
    let pidfile = scratch.join("pid");
    let starter = ["sh", "-c", "exec \"$@\" <&- >&- 2>&-", "sh"];
    let stalld = Stalld::start_by(&starter, &["-f", "-l", "-v", "-g", "1", "-P", pidfile.to_str().unwrap()]);
    let content = process::eventually("the pidfile is written", || {
        fs::read_to_string(&pidfile).ok().filter(|content| content.ends_with('\n'))
    });
    assert_eq!(content, format!("{}\n", stalld.pid()));
    for standard in 0..=2 {
        assert_eq!(process::descriptor(stalld.pid(), standard).unwrap(), Path::new("/dev/null"));
    }
    stalld.signal("USR1");
    assert_eq!(fs::read_to_string(&pidfile).unwrap(), content);
    assert_eq!(stalld.terminate().0, Some(0));
    let daemon = Daemon::start_by(&starter, &pidfile, &["-l"]);
    daemon.end("TERM");
}

#[test]
fn a_reader_that_does_not_read_stops_neither_the_looks_nor_the_end() {
    let Some(_live) = live() else { return };
    let scratch = Scratch::new("daemon-unread");
    let pidfile = scratch.join("pid");
    let (reader, mut writer) = UnixStream::pair().unwrap();
    writer.set_nonblocking(true).unwrap();
    while writer.write(&[b'\n'; 4096]).is_ok() {}
    writer.set_nonblocking(false).unwrap();
    let mut command = Stalld::command(&[], &["-f", "-l", "-v", "-g", "1", "-P", pidfile.to_str().unwrap()]);
    let mut child = command.stdout(Stdio::null()).stderr(OwnedFd::from(writer)).spawn().unwrap();
    drop(command);
    let pid = Tid(child.id() as i32);
    // It has the pidfile before its first look, and takes the signal after it.
    process::eventually("the pidfile is written", || {
        fs::read(&pidfile).ok().filter(|content| content.len() > 1)
    });
    process::signal(pid, "USR1");
    process::signal(pid, "TERM");
    let status = process::eventually("stalld ends", || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
    assert!(!pidfile.exists());
    // Nothing of it had room.
    let mut lines = BufReader::new(reader).lines().map(Result::unwrap);
    assert_eq!(lines.find(|line| !line.is_empty()), None);
}
