//! stalld is killed, stopped or blocked during a boost: the guardian or the next stalld restores
//! everything.

#![cfg(feature = "bpf")]

use rig::boosts::{self, OWN, boosted_victim, guardian, is_boosted, journal, live_boosts, policy, start};
use rig::process::{self, eventually};
use rig::throttling::{limit, set_limit};
use rig::{Record, Rig, Stalld, TIMEOUT, hogged_cpu, keep_away_from_the_hog, live};
use stalld::boost::journal::BoostPolicy;
use stalld::boost::restore::FIFO_PRIORITY;
use stalld::sys::{clock, file, sched};
use stalld::task::{Nanos, Policy, Tid};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::thread::{self, JoinHandle};

/// Kills one stalld after another and measures how long the guardian takes to restore everything.
struct Killer {
    victims: Vec<Tid>,
    /// How many of the kills met a boost on record.
    in_boosts: usize,
    kills: usize,
    worst: Nanos,
}

impl Killer {
    fn new(victims: Vec<Tid>) -> Killer {
        keep_away_from_the_hog();
        set_limit("950000");
        Killer { victims, in_boosts: 0, kills: 0, worst: Nanos::ZERO }
    }

    /// Starts a stalld, kills it as soon as `moment` returns, and waits until everything is
    /// restored.
    fn kill(&mut self, starter: &[&str], args: &[&str], moment: impl FnOnce()) {
        let mut stalld = Stalld::start_by(
            starter,
            &[&["-f", "--boost", "deadline"], &Stalld::RIG_ONLY[..], args].concat(),
        );
        moment();
        let journal = journal();
        let boosts = live_boosts(&journal).map(|boost| match boost.how {
            BoostPolicy::Deadline { .. } => boost.end,
            // A pulse is too short to end after its restoration.
            BoostPolicy::Fifo => Nanos::MAX,
        });
        let end = boosts.min();
        stalld.kill();
        let killed = clock::monotonic();
        eventually("everything is restored", || {
            (process::has_ended(stalld.pid()) && self.is_all_back()).then_some(())
        });
        let restored = clock::monotonic();
        // The pipes close, and so this returns, only after the guardian has ended too.
        let (code, log) = stalld.finish();
        assert_eq!(code, None, "it ended by itself: {log:?}");
        assert!(self.is_all_back() && live_boosts(&journal).next().is_none());
        assert!(end.is_none_or(|end| restored < end), "the guardian waited for the end of the boost");
        self.in_boosts += usize::from(end.is_some());
        self.kills += 1;
        self.worst = self.worst.max(restored - killed);
    }

    fn is_all_back(&self) -> bool {
        limit() == "950000" && self.victims.iter().all(|&victim| policy(victim) == Some(OWN))
    }

    fn print_result(&self) {
        println!(
            "{} kills, {} of them with a boost on record: everything was restored within {:.1} ms",
            self.kills,
            self.in_boosts,
            self.worst.0 as f64 / 1e6
        );
    }
}

/// A rig with 3 victims for each kill: a victim that was restored after it had used up its budget
/// may not be DEADLINE again for a while.
struct Crowd {
    rig: Rig,
    names: Vec<String>,
    victims: Vec<Tid>,
}

impl Crowd {
    /// Waits until all starve.
    fn start(groups: u8, seconds: &str) -> Crowd {
        let names: Vec<String> = (0..groups)
            .map(|group| [b'a' + group / 26, b'a' + group % 26].map(char::from).iter().collect())
            .collect();
        let specs: Vec<String> = names.iter().map(|name| format!("spin:1:{name}*3")).collect();
        let mut args = vec!["--for", seconds];
        args.extend(specs.iter().flat_map(|spec| ["--victim", spec]));
        let mut rig = Rig::start(&args);
        let last = rig.events("victim", names.len() * 3);
        let victims = last.iter().map(|victim| victim.tid()).collect();
        clock::sleep_until(last.last().unwrap().moment("since") + Nanos::from_millis(100));
        Crowd { rig, names, victims }
    }

    /// The options with which a stalld boosts one group at its first scan, for far longer than a
    /// test needs.
    fn options(&self, group: usize) -> Vec<String> {
        let (first, second) = self.names[group].split_at(1);
        let others = format!("^[^{first}],^{first}[^{second}]");
        ["-t", "100ms", "-d", "60s", "-p", "1s", "-i", &others].map(str::to_string).to_vec()
    }
}

/// Waits until a boost is on record.
fn await_boost() {
    let journal = journal();
    eventually("a boost is on record", || live_boosts(&journal).next().map(drop));
}

#[test]
#[ignore = "starves tasks, as root"]
fn killed_at_any_moment_it_leaves_nothing_behind() {
    let _live = live();
    let crowd = Crowd::start(160, "200");
    let mut killer = Killer::new(crowd.victims.clone());
    for group in 0..160 {
        let options = crowd.options(group);
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        // The kills are spread evenly over the first boosts and over the start: 37 and 53 have no
        // common divisor with these spans.
        killer.kill(&[], &options, || match group {
            ..100 => {
                await_boost();
                clock::nap(Nanos::from_micros(group as u64 * 37_000 % 100_000));
            }
            _ => clock::nap(Nanos::from_micros(group as u64 * 5300 % 80_000)),
        });
    }
    killer.print_result();
    assert!(killer.in_boosts >= 80, "{}", killer.in_boosts);
    drop(crowd.rig);
}

#[test]
#[ignore = "starves tasks, as root"]
fn killed_between_record_and_boost_it_leaves_nothing_behind() {
    let _live = live();
    let crowd = Crowd::start(1, "60");
    let mut killer = Killer::new(crowd.victims.clone());
    let options = crowd.options(0);
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    // The delay is longer than any test waits.
    let starter = ["env", "STALLD_TEST_BOOST_DELAY_US=60000000"];
    for moment in 0..20 {
        killer.kill(&starter, &options, || {
            await_boost();
            clock::nap(Nanos::from_micros(moment * 500));
            assert!(
                crowd.victims.iter().all(|&victim| policy(victim) == Some(OWN)),
                "no boost was held back"
            );
        });
    }
    killer.print_result();
    assert_eq!(killer.in_boosts, 20);
}

#[test]
#[ignore = "starves tasks, as root"]
fn killed_in_a_pulse_it_leaves_no_task_at_its_priority() {
    let _live = live();
    // On the CPU of the hog, stalld sleeps through its pulses, so this test keeps the other CPU.
    let mut rig = Rig::start(&["--for", "100", "--hog", "5", "--victim", "spin*3"]);
    let hog = rig.event("hog");
    let victims: Vec<Tid> = rig.events("victim", 3).iter().map(|victim| victim.tid()).collect();
    let mut killer = Killer::new(victims.clone());
    let cpu = hogged_cpu().to_string();
    let options = ["-F", "-a", &cpu, "-r", "1ms", "-p", "200ms", "-t", "100ms", "-d", "2s"];
    let is_raised = |&victim: &Tid| policy(victim) == Some((Policy::FIFO, FIFO_PRIORITY));
    // Some of these moments are past the end of the pulse. A kill counts if the pulse was still on
    // record.
    for moment in 0.. {
        killer.kill(&[], &options, || {
            let until = clock::monotonic() + TIMEOUT;
            while !victims.iter().any(is_raised) {
                assert!(clock::monotonic() < until.min(hog.moment("until")), "there are no pulses");
                clock::nap(Nanos::from_micros(20));
            }
            clock::nap(Nanos::from_micros(moment % 8 * 130));
        });
        if killer.in_boosts == 20 {
            break;
        }
    }
    killer.print_result();
    assert_eq!(killer.in_boosts, 20);
}

#[test]
#[ignore = "starves tasks, as root"]
fn leftovers_are_undone_on_request_and_by_the_next_start() {
    let _live = live();
    for by_start in [false, true] {
        let mut stalld = start(&["-t", "1"]);
        let (_rig, victim) = boosted_victim(&mut stalld, &["--for", "30"]);
        let guardian = guardian(&stalld);
        // The guardian is stopped first, so that it can't react to the end of stalld.
        process::signal(guardian, "STOP");
        stalld.kill();
        process::signal(guardian, "KILL");
        let restored = format!("task {}: restored to SCHED_FIFO 1", victim.tid());
        if by_start {
            // While the guardian of a former stalld lives, a new stalld waits for it and then
            // refuses to start.
            let next = start(&["-t", "60"]);
            assert_eq!(policy(victim.tid()), Some(OWN));
            let (code, log) = next.terminate();
            assert_eq!((code, log.count_text(&restored)), (Some(0), 1), "{log:?}");
        } else {
            process::await_end(guardian);
            assert!(is_boosted(victim.tid()));
            let output = Command::new(Stalld::path()).arg("--recover").output().unwrap();
            let printed = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(printed.contains(&restored), "{printed}");
            assert_eq!(output.status.code(), Some(0));
            assert_eq!(policy(victim.tid()), Some(OWN));
        }
    }
}

/// Waits until the victim is restored, and asserts that stalld had its chance to do so. Returns
/// when it was.
fn restored_by_the_guardian(victim: Tid, end: Nanos) -> Nanos {
    boosts::await_own_policy(victim);
    let at = clock::monotonic();
    assert!(at >= end + Nanos::from_millis(900), "the guardian may act only if stalld is stuck");
    at
}

#[test]
#[ignore = "starves tasks, as root"]
fn the_guardian_restores_a_boost_of_a_stopped_stalld() {
    let _live = live();
    keep_away_from_the_hog();
    let mut stalld = start(&["-t", "3", "-d", "3"]);
    let (rig, victim) = boosted_victim(&mut stalld, &["--for", "30"]);
    let end = boosts::end_of_boost(victim.tid());
    stalld.signal("STOP");
    restored_by_the_guardian(victim.tid(), end);
    assert_eq!(process::state(stalld.pid()), Some(b'T'));
    // In the format of stalld's log.
    let report = stalld.message(&format!("stalld is stuck: task {}: restored to ", victim.tid()));
    assert_eq!((report.event(), report.level()), ("log", "warning"));
    assert!(!process::has_ended(rig.pid()), "the hog had ended before the guardian acted");
    stalld.signal("CONT");
    assert_eq!(stalld.terminate().0, Some(0));
    assert_eq!(policy(victim.tid()), Some(OWN));
}

/// Keeps every other task off the hogged CPU for this long, from now on.
fn shut_out(span: Nanos) -> JoinHandle<()> {
    thread::spawn(move || {
        sched::set_fifo(Tid(0), 99).unwrap();
        sched::set_affinity(Tid(0), &[hogged_cpu()].into_iter().collect()).unwrap();
        let until = clock::monotonic() + span;
        while clock::monotonic() < until {
            std::hint::spin_loop();
        }
    })
}

#[test]
#[ignore = "starves tasks, as root"]
fn the_guardian_restores_a_boost_of_a_stalld_that_gets_no_cpu() {
    let _live = live();
    keep_away_from_the_hog();
    let mut stalld = start(&["-a", &hogged_cpu().to_string(), "-t", "2", "-d", "2"]);
    let (_rig, victim) = boosted_victim(&mut stalld, &["--for", "30", "--hog", "5"]);
    let end = boosts::end_of_boost(victim.tid());
    let span = Nanos::from_secs(8);
    let until = clock::monotonic() + span;
    let hog = shut_out(span);
    let at = restored_by_the_guardian(victim.tid(), end);
    assert!(at < until, "by then stalld had its CPU back");
    hog.join().unwrap();
    // A scan was due at the end of the boost.
    let is_late = |record: &Record| record.is("late") && record.time("late_ns") > Nanos::from_secs(1);
    stalld.wait_for(is_late, TIMEOUT).expect("stalld reported no late scan");
    assert_eq!(stalld.terminate().0, Some(0));
    assert_eq!(policy(victim.tid()), Some(OWN));
}

#[test]
#[ignore = "starves tasks, as root"]
fn a_full_pipe_for_the_log_blocks_neither_stalld_nor_its_guardian() {
    let _live = live();
    keep_away_from_the_hog();
    let (_reader, mut writer) = stalld::sys::process::pipe().unwrap();
    file::never_wait(&writer).unwrap();
    while writer.write(&[b'\n'; 4096]).is_ok() {}
    let script = format!("exec \"$@\" 2>/proc/{}/fd/{}", std::process::id(), writer.as_raw_fd());
    for signal in ["TERM", "KILL"] {
        let mut rig = Rig::start(&["--for", "30"]);
        let victim = rig.event("victim").tid();
        let args =
            [&["-f", "--boost", "deadline"], &Stalld::RIG_ONLY[..], &["-v", "-t", "2", "-d", "2"]].concat();
        let stalld = Stalld::start_by(&["sh", "-c", &script, "sh"], &args);
        await_boost();
        if signal == "TERM" {
            // A stopped guardian proves that stalld itself ends the boost.
            let guardian = guardian(&stalld);
            process::signal(guardian, "STOP");
            eventually("the victim is boosted", || is_boosted(victim).then_some(()));
            boosts::await_own_policy(victim);
            process::signal(guardian, "CONT");
        }
        stalld.signal(signal);
        boosts::await_own_policy(victim);
        assert_eq!(stalld.finish().0, (signal == "TERM").then_some(0));
        boosts::await_own_policy(victim);
    }
}
