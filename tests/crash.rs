//! Whatever becomes of stalld in the middle of a boost, the task is soon what it was, and so is the machine.

// stalld as it is meant to be: with its BPF backends.
#![cfg(feature = "bpf")]
#![allow(clippy::unwrap_used, clippy::panic)]

mod rig;

use rig::boosts::{self, OWN, boosted_victim, guardian, is_boosted, journal, live_boosts, policy, start};
use rig::process::{self, eventually};
use rig::throttling::{limit, set_limit};
use rig::{PATIENCE, Rig, Stalld, hogged_cpu, keep_away_from_the_hog, live};
use stalld::boost::undo::FIFO_PRIORITY;
use stalld::sys::{clock, file, sched};
use stalld::task::{Nanos, Policy, Tid};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::thread::{self, JoinHandle};

/// Kills one stalld after another, and measures how long each leaves something behind.
struct Killer {
    victims: Vec<Tid>,
    /// With a boost on record.
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

    /// Starts a stalld, kills it as soon as `moment` returns, and waits until all is what it was.
    fn kill(&mut self, starter: &[&str], args: &[&str], moment: impl FnOnce()) {
        let mut stalld = Stalld::start_by(starter, &[&["-f"], &Stalld::RIG_ONLY[..], args].concat());
        moment();
        let journal = journal();
        let in_boost = live_boosts(&journal).next().is_some();
        stalld.kill();
        let killed = clock::monotonic();
        eventually("all is what it was", || {
            (process::has_ended(stalld.pid()) && self.is_all_back()).then_some(())
        });
        let took = clock::monotonic() - killed;
        // It has ended when its guardian has, too.
        let (code, said) = stalld.finish();
        assert_eq!(code, None, "it ended by itself: {said:?}");
        assert!(self.is_all_back() && live_boosts(&journal).next().is_none());
        self.in_boosts += usize::from(in_boost);
        self.kills += 1;
        self.worst = self.worst.max(took);
    }

    fn is_all_back(&self) -> bool {
        limit() == "950000" && self.victims.iter().all(|&victim| policy(victim) == Some(OWN))
    }

    /// Says what it came to. The bound is for a machine with other things to do.
    fn verdict(&self) {
        println!(
            "{} kills, {} of them with a boost on record: all was back within {:.1} ms",
            self.kills,
            self.in_boosts,
            self.worst.0 as f64 / 1e6
        );
        assert!(self.worst < Nanos::from_secs(1), "{:?}", self.worst);
    }
}

/// As in a rig of 3 victims for each kill, because one that was put back with its budget used up may not be
/// DEADLINE again for a while.
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

    /// What makes a stalld boost one group at its first look, for longer than it is to live.
    fn options(&self, group: usize) -> Vec<String> {
        let (first, second) = self.names[group].split_at(1);
        let others = format!("^[^{first}],^{first}[^{second}]");
        ["-t", "100ms", "-d", "2s", "-p", "1s", "-i", &others].map(str::to_string).to_vec()
    }
}

/// Waits until a boost is on record.
fn await_boost() {
    let journal = journal();
    eventually("a boost is on record", || live_boosts(&journal).next().map(drop));
}

#[test]
fn killed_at_any_moment_it_leaves_nothing_behind() {
    let Some(_live) = live() else { return };
    let crowd = Crowd::start(160, "100");
    let mut killer = Killer::new(crowd.victims.clone());
    for group in 0..160 {
        let options = crowd.options(group);
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        // All over the start, and all over the first boosts: 37 and 53 have no common divisor with the spans.
        killer.kill(&[], &options, || match group {
            ..100 => {
                await_boost();
                clock::nap(Nanos::from_micros(group as u64 * 37_000 % 100_000));
            }
            _ => clock::nap(Nanos::from_micros(group as u64 * 5300 % 80_000)),
        });
    }
    killer.verdict();
    assert!(killer.in_boosts >= 80, "{}", killer.in_boosts);
    drop(crowd.rig);
}

#[test]
fn killed_between_the_record_of_a_boost_and_the_boost_it_leaves_nothing_behind() {
    let Some(_live) = live() else { return };
    let crowd = Crowd::start(1, "60");
    let mut killer = Killer::new(crowd.victims.clone());
    let options = crowd.options(0);
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    // Longer than any test waits.
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
    killer.verdict();
    assert_eq!(killer.in_boosts, 20);
}

#[test]
fn killed_in_a_pulse_it_leaves_no_task_at_its_priority() {
    let Some(_live) = live() else { return };
    // On the same CPU it sleeps through its pulses, so that there is a CPU for this test.
    let mut rig = Rig::start(&["--for", "60", "--hog", "5", "--victim", "spin*3"]);
    let victims: Vec<Tid> = rig.events("victim", 3).iter().map(|victim| victim.tid()).collect();
    let mut killer = Killer::new(victims.clone());
    let cpu = hogged_cpu().to_string();
    let options = ["-F", "-a", &cpu, "-r", "1ms", "-p", "200ms", "-t", "100ms", "-d", "2s"];
    let is_raised = |&victim: &Tid| policy(victim) == Some((Policy::FIFO, FIFO_PRIORITY));
    // All over a pulse, and past the end of it: that it was still on record is what counts.
    for moment in 0..80 {
        killer.kill(&[], &options, || {
            let until = clock::monotonic() + PATIENCE;
            while !victims.iter().any(is_raised) {
                assert!(clock::monotonic() < until, "there are no pulses");
                clock::nap(Nanos::from_micros(20));
            }
            clock::nap(Nanos::from_micros(moment % 8 * 130));
        });
        if killer.in_boosts == 20 {
            break;
        }
    }
    killer.verdict();
    assert_eq!(killer.in_boosts, 20);
}

#[test]
fn what_both_have_left_is_undone_on_request_and_by_the_next_start() {
    let Some(_live) = live() else { return };
    for by_start in [false, true] {
        let mut stalld = start(&["-t", "1"]);
        let (_rig, victim) = boosted_victim(&mut stalld, &["--for", "5"]);
        let guardian = guardian(&stalld);
        // Stopped first, so that neither acts on the other's end.
        process::signal(guardian, "STOP");
        stalld.kill();
        process::signal(guardian, "KILL");
        if by_start {
            let at = clock::monotonic();
            let mut next = start(&["-t", "60"]);
            next.wait_for(|line| line.contains("left by a former stalld"), Nanos::ZERO);
            // Far less than it would wait for a guardian that is at work.
            assert!(clock::monotonic() - at < Nanos::from_secs(3));
            assert_eq!(policy(victim.tid()), Some(OWN));
            assert_eq!(next.terminate().0, Some(0));
        } else {
            process::await_end(guardian);
            assert!(is_boosted(victim.tid()));
            let output = Command::new(Stalld::PATH).arg("--recover").output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(said.contains(&format!("task {}: restored to SCHED_FIFO 1", victim.tid())), "{said}");
            assert_eq!(output.status.code(), Some(0));
            assert_eq!(policy(victim.tid()), Some(OWN));
        }
    }
}

/// Asserts that it is the guardian that ends a boost, in time. When it has.
fn restored_by_the_guardian(victim: Tid, end: Nanos) -> Nanos {
    boosts::await_own_policy(victim);
    let at = clock::monotonic();
    assert!(at >= end + Nanos::from_millis(900), "only a stalld that is stuck needs the guardian");
    assert!(at <= end + Nanos::from_millis(1500), "{} ms after its end", (at - end).as_millis());
    at
}

#[test]
fn the_guardian_restores_what_a_stopped_stalld_can_not() {
    let Some(_live) = live() else { return };
    keep_away_from_the_hog();
    let mut stalld = start(&["-t", "1", "-d", "1"]);
    let (_rig, victim) = boosted_victim(&mut stalld, &["--for", "6"]);
    let end = boosts::end_of_boost(victim.tid());
    stalld.signal("STOP");
    restored_by_the_guardian(victim.tid(), end);
    stalld.signal("CONT");
    assert_eq!(stalld.terminate().0, Some(0));
    assert_eq!(policy(victim.tid()), Some(OWN));
}

/// Takes the hogged CPU away from everybody at once, for this long.
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
fn the_guardian_restores_what_a_stalld_that_gets_no_cpu_can_not() {
    let Some(_live) = live() else { return };
    keep_away_from_the_hog();
    let mut stalld = start(&["-a", &hogged_cpu().to_string(), "-t", "1", "-d", "1"]);
    let (_rig, victim) = boosted_victim(&mut stalld, &["--for", "6", "--hog", "5"]);
    let end = boosts::end_of_boost(victim.tid());
    let until = clock::monotonic() + Nanos::from_secs(4);
    let hog = shut_out(Nanos::from_secs(4));
    let at = restored_by_the_guardian(victim.tid(), end);
    assert!(at < until, "by then stalld had its CPU back");
    hog.join().unwrap();
    stalld.line_with("later than planned");
    assert_eq!(stalld.terminate().0, Some(0));
    assert_eq!(policy(victim.tid()), Some(OWN));
}

#[test]
fn a_reader_that_does_not_read_holds_up_neither_stalld_nor_its_guardian() {
    let Some(_live) = live() else { return };
    keep_away_from_the_hog();
    let (_reader, mut writer) = stalld::sys::process::pipe().unwrap();
    file::never_wait(&writer).unwrap();
    while writer.write(&[b'\n'; 4096]).is_ok() {}
    let script = format!("exec \"$@\" 2>/proc/{}/fd/{}", std::process::id(), writer.as_raw_fd());
    for signal in ["TERM", "KILL"] {
        let mut rig = Rig::start(&["--for", "10"]);
        let victim = rig.event("victim").tid();
        let args = [&["-f", "-v"], &Stalld::RIG_ONLY[..], &["-t", "1", "-d", "1"]].concat();
        let stalld = Stalld::start_by(&["sh", "-c", &script, "sh"], &args);
        await_boost();
        let end = boosts::end_of_boost(victim);
        if signal == "TERM" {
            boosts::await_own_policy(victim);
            assert!(clock::monotonic() < end + Nanos::from_millis(900), "it was left to the guardian");
        }
        stalld.signal(signal);
        boosts::await_own_policy(victim);
        assert_eq!(stalld.finish().0, (signal == "TERM").then_some(0));
        boosts::await_own_policy(victim);
    }
}
