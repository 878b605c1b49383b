//! The life of the daemon: its start, its properties while it runs, and its end.

#![cfg(feature = "bpf")]

use crate::{assert_words, refusal};
use rig::boosts::{await_own_policy, boosted_victim, guardian, is_boosted, policy, start};
use rig::daemon::Daemon;
use rig::scratch::Scratch;
use rig::throttling::set_limit;
use rig::{Rig, Stalld, hogged_cpu, live, process};
use stalld::sys::{clock, sched};
use stalld::task::{Cpu, Nanos, Policy, Tid};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;

const CAP_SYS_RESOURCE: u32 = 24;

#[test]
#[ignore = "needs root"]
fn a_daemon_keeps_nothing_of_the_process_that_started_it() {
    let _live = live();
    let scratch = Scratch::new("daemon");
    let pidfile = scratch.join("pid");
    let starter = ["sh", "-c", "exec 9</dev/zero; exec \"$@\"", "sh"];
    let daemon = Daemon::start_by(&starter, &pidfile, &["-l"]);
    let pid = daemon.pid();

    assert_eq!(fs::metadata(&pidfile).unwrap().mode() & 0o7777, 0o644);
    assert_eq!(fs::read_link(format!("/proc/{pid}/cwd")).unwrap(), Path::new("/"));
    let session = process::session(pid).unwrap();
    assert_ne!(Some(session), process::session(Tid(std::process::id() as i32)));
    assert_ne!(session, pid, "a session's leader gets a terminal when it opens one");
    for standard in 0..=2 {
        assert_eq!(process::descriptor(pid, standard).unwrap(), Path::new("/dev/null"));
    }
    assert!(!process::descriptors(pid).contains(&"/dev/zero".into()), "{:?}", process::descriptors(pid));

    daemon.end("TERM");
    assert!(!pidfile.exists());
}

#[test]
#[ignore = "needs root"]
fn the_process_that_was_started_reports_a_start_that_fails() {
    let _live = live();
    let powerless = ["setpriv", "--bounding-set", "-bpf,-sys_admin"];
    for foreground in [&[][..], &["-f"]] {
        let args = [&["-l", "-b", "task_iter"], foreground].concat();
        let line = refusal(Stalld::start_by(&powerless, &args));
        assert_words(&line, &["task_iter: ", "BPF programs", "Operation not permitted"]);
    }
}

#[test]
#[ignore = "needs root"]
fn a_runtime_directory_that_another_user_could_have_made_is_refused() {
    let _live = live();
    // Each stalld has a /run of its own.
    for (prepare, words) in [
        ("ln -s /tmp /run/stalld", &["/run/stalld", "no directory", "remove it"][..]),
        ("mkdir -m 777 /run/stalld", &["/run/stalld", "0777", "0755", "remove it"]),
        ("mkdir /run/stalld && chown 65534 /run/stalld", &["/run/stalld", "user 65534", "remove it"]),
        ("mount -o remount,ro /run", &["/run/stalld", "Read-only file system"]),
    ] {
        let script = format!("mount -t tmpfs -o mode=755 none /run && {prepare} && exec \"$@\"");
        let line = refusal(Stalld::start_by(&["unshare", "-m", "sh", "-c", &script, "sh"], &["-f"]));
        assert_words(&line, words);
    }
}

#[test]
#[ignore = "needs root"]
fn only_one_stalld_boosts_and_any_number_may_watch_beside_it() {
    let _live = live();
    let mut first = Stalld::start(&["-f", "-v"]);
    first.scan();
    for foreground in [&["-f"][..], &[]] {
        let line = refusal(Stalld::start(foreground));
        assert_words(&line, &[&format!("already running as pid {} ", first.pid()), "stop it", "-l"]);
    }
    let watchers = [Stalld::watch(&[]), Stalld::watch(&[])];

    // A killed stalld leaves its lock file behind, but not the lock.
    first.signal("KILL");
    assert_eq!(first.finish().0, None);
    let mut second = Stalld::start(&["-f", "-v"]);
    second.scan();
    for stalld in watchers.into_iter().chain([second]) {
        assert_eq!(stalld.terminate().0, Some(0));
    }
}

#[test]
#[ignore = "needs root"]
fn the_pidfile_of_a_killed_daemon_does_not_stop_the_next_one() {
    let _live = live();
    let scratch = Scratch::new("daemon-killed");
    let pidfile = scratch.join("pid");
    let path = pidfile.display().to_string();
    let first = Daemon::start(&pidfile, &["-l"]);
    let pid = first.pid();
    let mut other = Stalld::start(&["-f", "-l", "-v", "-P", &path]);
    assert_words(other.message("no pidfile").message(), &[&path, &format!("pid {pid} ")]);
    assert_eq!(other.terminate().0, Some(0));
    assert_eq!(fs::read_to_string(&pidfile).unwrap(), format!("{pid}\n"));
    first.end("KILL");
    assert!(pidfile.exists());
    let second = Daemon::start(&pidfile, &["-l"]);
    assert_ne!(second.pid(), pid);
    second.end("INT");
    assert!(!pidfile.exists());
}

#[test]
#[ignore = "needs root"]
fn sigint_and_sigterm_end_it_cleanly_and_sighup_does_not_end_it() {
    let _live = live();
    for signal in ["INT", "TERM"] {
        let mut stalld = Stalld::watch(&[]);
        stalld.signal("HUP");
        stalld.signal("USR1");
        // Stalld answers the later signal, so it has survived the earlier one.
        stalld.message(" backend: ");
        stalld.signal(signal);
        let (code, log) = stalld.finish();
        assert_eq!(code, Some(0), "{signal}");
        assert_eq!(log.last().unwrap().message(), "stalld shutting down");
    }
}

#[test]
#[ignore = "needs root"]
fn its_threads_are_real_time_on_the_cpus_of_option_a_with_memory_locked() {
    let _live = live();
    let stalld = Stalld::watch(&["-a", "0"]);
    let attr = sched::get_attr(stalld.pid()).unwrap();
    assert_eq!((attr.policy, attr.priority, attr.reset_on_fork()), (Policy::FIFO, 10, false));
    let threads = process::threads(stalld.pid());
    assert!(threads.len() >= 2, "there is no thread that writes the log");
    for thread in threads {
        assert_eq!(sched::get_affinity(thread).unwrap(), [Cpu(0)].into_iter().collect());
        assert!(sched::get_attr(thread).unwrap().policy.is_realtime());
    }
    assert_ne!(process::status(stalld.pid(), "VmLck").unwrap(), "0 kB");
    assert_eq!(stalld.terminate().0, Some(0));
}

#[test]
#[ignore = "needs root"]
fn a_real_time_priority_that_it_was_started_with_is_kept() {
    let _live = live();
    let mut stalld = Stalld::start_by(&["chrt", "-r", "30"], &["-f", "-l", "-v"]);
    stalld.scan();
    let attr = sched::get_attr(stalld.pid()).unwrap();
    assert_eq!((attr.policy, attr.priority, attr.reset_on_fork()), (Policy::RR, 30, false));
}

#[test]
#[ignore = "starves tasks, as root"]
fn with_a_reservation_no_victim_is_missed_while_throttling_is_on() {
    let _live = live();
    // The kernel leaves throttled tasks out of its count of runnable ones for 30 ms of each second,
    // and these scans are a second apart.
    let mut stalld = Stalld::watch(&["-R", "10", "-t", "1", "-d", "1", "-g", "2"]);
    set_limit("970000");
    let mut rig = Rig::start(&["--for", "8"]);
    let (hog, victim) = (rig.event("hog"), rig.event("victim"));
    assert!(stalld.event_of("starved", victim.tid()).at < hog.moment("until"));
    assert_eq!(stalld.terminate().0, Some(0));
}

#[test]
#[ignore = "starves tasks, as root"]
fn a_reservation_is_for_the_scanning_thread_alone() {
    let _live = live();
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
        assert!(!others.into_iter().any(is_boosted), "another thread has inherited the reservation");
    };
    is_alone();
    let (_rig, victim) = boosted_victim(&mut stalld, &["--for", "8"]);
    is_alone();
    let restored = stalld.event_of("restored", victim.tid());
    assert_eq!((restored.text("policy"), restored.number("rt_priority")), ("SCHED_FIFO", 1));
    await_own_policy(victim.tid());
    assert_eq!(stalld.terminate().0, Some(0));
    process::await_end(guardian);
}

#[test]
#[ignore = "needs root"]
fn the_oom_killer_spares_it_but_not_its_children() {
    let _live = live();
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
#[ignore = "needs root"]
fn its_guardian_is_as_safe_from_a_shortage_of_memory() {
    let _live = live();
    for args in [&["-O"][..], &["-R", "10"]] {
        let stalld = start(args);
        let guardian = guardian(&stalld);
        process::eventually("the guardian has locked its memory", || {
            (process::status(guardian, "VmLck")? != "0 kB").then_some(())
        });
        process::eventually("the guardian is as safe from the OOM killer as stalld", || {
            let adjustment = |pid| process::number(pid, "oom_score_adj");
            (adjustment(guardian) == adjustment(stalld.pid())).then_some(())
        });
        assert_eq!(stalld.terminate().0, Some(0));
    }
}

#[test]
#[ignore = "needs root"]
fn a_signal_that_reaches_the_guardian_at_once_does_not_end_it() {
    let _live = live();
    // The first call of the new process takes a second, so the test can't miss that second.
    let delay = "strace -D -f -qqq -o /dev/null -e trace=prctl -e inject=prctl:delay_enter=1000000:when=1";
    let starter: Vec<&str> = delay.split(' ').collect();
    let stalld = Stalld::start_by(&starter, &["-f", "-v"]);
    let newborn = process::eventually("the guardian is forked", || {
        process::children(stalld.pid())
            .into_iter()
            .find(|&child| process::status(child, "Name").as_deref() == Some("stalld"))
    });
    process::signal(newborn, "USR2");
    process::eventually("the guardian works", || {
        assert!(!process::has_ended(newborn), "a signal has ended the guardian");
        (process::status(newborn, "Name")? == "stall-guard").then_some(())
    });
    assert_eq!(stalld.terminate().0, Some(0));
}

#[test]
#[ignore = "starves tasks, as root"]
fn on_request_it_lists_the_waiters_and_its_counters() {
    let _live = live();
    let mut rig = Rig::start(&["--for", "10", "--scene", "names"]);
    let mut stalld = Stalld::watch(&["-t", "60"]);
    let hog = rig.event("hog");
    let victims = rig.events("victim", 5);
    stalld.signal("USR1");
    let counters = stalld.message(" backend: ");
    assert_words(
        counters.message(),
        &["task_iter", " 0 of them failed", " read all tasks", " 0 waits reached the threshold"],
    );
    let (_, log) = stalld.terminate();
    for victim in &victims {
        let waiting = log.of("waiting").find(|record| record.tid("tid") == Some(victim.tid()));
        let waiting = waiting.unwrap_or_else(|| panic!("{} is not listed in {log:?}", victim.line));
        // The kernel adds a newline to the name.
        let comm = fs::read(format!("/proc/{}/comm", victim.tid())).unwrap();
        assert_eq!(waiting.text("comm"), String::from_utf8_lossy(comm.strip_suffix(b"\n").unwrap()));
        assert_eq!(waiting.number("cpu"), hogged_cpu().0.into());
        assert_eq!((waiting.text("policy"), waiting.number("rt_priority")), ("SCHED_FIFO", 1));
        let waited = waiting.time("waited_ns");
        assert!(waited > Nanos::ZERO && waited <= waiting.at - victim.moment("since"), "{waiting:?}");
    }
    assert!(clock::monotonic() < hog.moment("until"), "the hog ended before this test");
}

#[test]
#[ignore = "starves tasks, as root"]
fn a_scan_on_request_reports_starving_tasks_like_any_other() {
    let _live = live();
    let mut rig = Rig::start(&["--for", "10"]);
    let mut stalld = Stalld::watch(&["-t", "3", "-g", "600"]);
    let victim = rig.event("victim").tid();
    let first = stalld.event_of("starved", victim);
    // Stalld repeats a report after a second at the earliest. Its own next scan is at 6 s.
    clock::sleep_until(first.at + Nanos::from_millis(1200));
    stalld.signal("USR1");
    // Only a scan on request lists the waiters.
    let listed = stalld.event_of("waiting", victim);
    assert_eq!(
        stalld.terminate().1.of("starved").last().unwrap().time("waited_ns"),
        listed.time("waited_ns")
    );
    assert!(listed.time("waited_ns") > first.time("waited_ns"));
}

#[test]
#[ignore = "needs root"]
fn after_sigstop_and_sigcont_it_reports_how_late_it_is_and_scans_on() {
    let _live = live();
    let mut stalld = Stalld::watch(&["-t", "10", "-g", "1"]);
    stalld.signal("STOP");
    process::eventually("stalld is stopped", || (process::state(stalld.pid()) == Some(b'T')).then_some(()));
    // The next scan was planned for at most 1 s from now.
    clock::nap(Nanos::from_millis(1500));
    stalld.signal("CONT");
    let late = stalld.event("late");
    assert!(late.time("late_ns") >= Nanos::from_millis(100), "{late:?}");
    for _ in 0..2 {
        stalld.scan();
    }
    assert_eq!(stalld.terminate().0, Some(0));
}

#[test]
#[ignore = "starves tasks, as root"]
fn after_a_standstill_waits_count_from_its_end() {
    let _live = live();
    // A stalld that was stopped is like one on a virtual machine that was paused, except that the
    // victim waits here.
    let mut stalld = Stalld::watch(&["-t", "1", "-g", "500ms"]);
    let mut rig = Rig::start(&["--for", "6"]);
    let victim = rig.event("victim");
    stalld.signal("STOP");
    process::eventually("stalld is stopped", || (process::state(stalld.pid()) == Some(b'T')).then_some(()));
    clock::sleep_until(victim.moment("since") + Nanos::from_secs(3));
    stalld.signal("CONT");
    stalld.message("stood still for");
    let starved = stalld.event_of("starved", victim.tid());
    let waited = starved.time("waited_ns");
    assert!((Nanos::from_secs(1)..Nanos::from_secs(2)).contains(&waited), "{starved:?}");
    assert_eq!(rig.finish().0, Some(0));
    assert_eq!(stalld.terminate().0, Some(0));
}

#[test]
#[ignore = "needs root"]
fn without_standard_descriptors_no_file_of_its_own_gets_the_log() {
    let _live = live();
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
#[ignore = "needs root"]
fn a_full_log_stops_neither_the_scans_nor_the_end() {
    let _live = live();
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
    // Stalld writes the pidfile before its first scan, and takes the signals after it.
    process::eventually("the pidfile is written", || {
        fs::read(&pidfile).ok().filter(|content| content.len() > 1)
    });
    process::signal(pid, "USR1");
    process::signal(pid, "TERM");
    let status = process::eventually("stalld ends", || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
    assert!(!pidfile.exists());
    // The socket had room for none of its lines.
    let mut lines = BufReader::new(reader).lines().map(Result::unwrap);
    assert_eq!(lines.find(|line| !line.is_empty()), None);
}
