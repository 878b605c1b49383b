//! Victims that make it hard to put them back: whatever they do during their boost, nothing stays boosted, and
//! no other task is touched.

#![cfg(feature = "bpf")]
#![allow(clippy::unwrap_used, clippy::panic)]

mod rig;

use rig::boosts::{self, OWN, is_boosted, policy, start, start_by};
use rig::process::{self, eventually};
use rig::stunt::Stunt;
use rig::{Rig, Stalld, hogged_cpu, keep_away_from_the_hog, live};
use stalld::observe::Kind;
use stalld::proc;
use stalld::sys::{clock, sched};
use stalld::task::{Nanos, Policy, Tid};
use std::collections::HashMap;
use std::fs;
use std::process::{Child, Command};

/// A hog, whose own victim stalld leaves alone.
fn hog(seconds: &str) -> Rig {
    let mut rig = Rig::start(&["--for", seconds]);
    rig.event("hog");
    rig
}

/// Boosts of a second, with room for a fork or an exec.
const OPTIONS: [&str; 8] = ["-i", "^victim$", "-t", "1", "-r", "1ms", "-d", "1"];

/// Ends stalld: what it has said, of which no line is about a task that is not one of these, or sounds like
/// trouble.
fn said_only_of(stalld: Stalld, tasks: &[Tid]) -> Vec<String> {
    let (code, said) = stalld.terminate();
    assert_eq!(code, Some(0));
    let said: Vec<String> = said.into_iter().map(|(_, line)| line).collect();
    for deed in ["boosted pid ", "restored pid ", "gave pid ", "left pid "] {
        for (_, rest) in said.iter().filter_map(|line| line.split_once(deed)) {
            let tid = Tid(rest.split(' ').next().unwrap().parse().unwrap());
            assert!(tasks.contains(&tid), "{deed}{rest}");
        }
    }
    let boosting = said.iter().skip_while(|line| !line.contains("boosted pid"));
    for line in boosting {
        assert!(!["fail", "error", "cannot", "panic"].iter().any(|word| line.contains(word)), "{line}");
    }
    said
}

fn has(said: &[String], text: &str) {
    assert!(said.iter().any(|line| line.contains(text)), "no '{text}' in {said:#?}");
}

#[test]
fn who_ends_stops_execs_or_changes_its_policy_during_its_boost_is_left_as_it_would_be_without() {
    let Some(_live) = live() else { return };
    for backend in Kind::ALL.map(Kind::name) {
        let stalld = start(&[&OPTIONS[..], &["-g", "1", "-b", backend]].concat());
        let _rig = hog("30");
        let act = |words: &[&str]| Stunt::start(30, words);
        let [ends, execs, threads, changes, stops] =
            [&["end"][..], &["exec"], &["thread", "exec"], &["policy"], &["spin"]].map(act);
        let all = [&ends, &execs, &threads, &changes, &stops].map(Stunt::victim);
        assert_ne!(threads.victim(), threads.pid());

        eventually("the one that will be stopped is boosted", || is_boosted(stops.victim()).then_some(()));
        process::signal(stops.pid(), "STOP");
        let is_sleep = |pid| proc::comm(pid).is_some_and(|comm| comm.as_bytes() == b"sleep");
        let own = |tid| (policy(tid) == Some(OWN)).then_some(());
        eventually("it has ended", || process::has_ended(ends.victim()).then_some(()));
        for exec in [&execs, &threads] {
            eventually("it has become a sleep", || is_sleep(exec.pid()).then(|| own(exec.pid())).flatten());
        }
        eventually("it has stopped", || {
            (process::state(stops.victim()) == Some(b'T')).then(|| own(stops.victim())).flatten()
        });
        eventually("it is what it has made itself", || {
            (policy(changes.victim()) == Some((Policy::RR, 7))).then_some(())
        });
        let said = said_only_of(stalld, &all);
        has(&said, &format!("pid {} (stunt) has ended during its boost", ends.victim()));
        has(&said, &format!("restored pid {} (stunt) (cpu {})", execs.victim(), hogged_cpu()));
        let moved = format!("(cpu {}, now {}) to SCHED_FIFO 1", hogged_cpu(), threads.pid());
        has(&said, &format!("restored pid {} (stunt) {moved}", threads.victim()));
        has(&said, &format!("left pid {} (stunt) as it is: somebody has made it SCHED_RR", changes.victim()));
        let changed = (Policy::RR, 7);
        for (stunt, wanted) in [(&execs, OWN), (&threads, OWN), (&changes, changed), (&stops, OWN)] {
            assert_eq!(policy(stunt.pid()), Some(wanted));
            assert!(!sched::get_attr(stunt.pid()).unwrap().reset_on_fork());
        }
    }
}

/// A process that sleeps, with a number of our choice. Killed when dropped.
struct Newcomer(Child);

impl Newcomer {
    const POLICY: (Policy, u32) = (Policy::FIFO, 7);

    /// None if somebody else was faster.
    fn start(number: Tid) -> Option<Newcomer> {
        fs::write("/proc/sys/kernel/ns_last_pid", (number.0 - 1).to_string()).unwrap();
        let newcomer = Newcomer(Command::new("sleep").arg("60").spawn().unwrap());
        if newcomer.0.id() != number.0 as u32 {
            return None;
        }
        let (policy, priority) = Newcomer::POLICY;
        sched::set_scheduler(number, policy, priority, false).unwrap();
        Some(newcomer)
    }
}

impl Drop for Newcomer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Tries this until no stranger takes the number that is to be used again.
fn at_last<T>(attempt: impl FnMut() -> Option<T>) -> T {
    std::iter::repeat_with(attempt).take(5).find_map(|it| it).unwrap()
}

#[test]
fn who_gets_the_number_of_a_task_that_ended_during_its_boost_is_not_touched() {
    let Some(_live) = live() else { return };
    for backend in Kind::ALL.map(Kind::name) {
        let _rig = hog("30");
        at_last(|| {
            // With a short period, because only a task that has a budget can end.
            let options = ["-g", "1", "-p", "200ms", "-b", backend];
            let mut stalld = start(&[&OPTIONS[..], &options].concat());
            let stunt = Stunt::start(30, &["spin"]);
            let victim = stunt.victim();
            eventually("it is boosted", || is_boosted(victim).then_some(()));
            drop(stunt);
            let _newcomer = Newcomer::start(victim)?;
            let before = sched::get_attr(victim).unwrap();
            stalld.line_with(&format!("pid {victim} (stunt) has ended during its boost"));
            assert_eq!(sched::get_attr(victim).unwrap(), before);
            let said = said_only_of(stalld, &[victim]);
            assert!(!said.iter().any(|line| line.contains("restored pid")), "{said:?}");
            assert_eq!(sched::get_attr(victim).unwrap(), before);
            Some(())
        });
    }
}

#[test]
fn who_gets_the_number_of_a_task_that_ended_just_before_its_boost_stays_as_it_is() {
    let Some(_live) = live() else { return };
    if !cfg!(debug_assertions) {
        eprintln!("skipped: a build without checks can't be held between record and boost");
        return;
    }
    let _rig = hog("60");
    at_last(|| {
        let stalld = start_by(&["env", "STALLD_TEST_BOOST_DELAY_US=1500000"], &OPTIONS);
        let journal = boosts::journal();
        let recorded = |tid| boosts::live_boosts(&journal).any(|boosted| boosted.tid == tid);
        let stunt = Stunt::start(30, &["spin"]);
        let victim = stunt.victim();
        eventually("its boost is on record", || recorded(victim).then_some(()));
        drop(stunt);
        let _newcomer = Newcomer::start(victim)?;
        let before = sched::get_attr(victim).unwrap();
        assert!(recorded(victim), "the boost was not held for long enough");
        eventually("the record is cleared", || (!recorded(victim)).then_some(()));
        assert_eq!(sched::get_attr(victim).unwrap(), before);
        let said = said_only_of(stalld, &[]);
        assert!(!said.iter().any(|line| line.contains(&format!("pid {victim} "))), "{said:?}");
        assert_eq!(sched::get_attr(victim).unwrap(), before);
        Some(())
    });
}

/// When a task was first seen, and when with its parent's policy.
struct Birth {
    seen: Nanos,
    settled: Option<Nanos>,
}

#[test]
fn who_forks_during_its_boost_succeeds_and_each_child_gets_its_policy_or_a_line_of_its_own() {
    let Some(_live) = live() else { return };
    keep_away_from_the_hog();
    // In the second one all older threads are scheduled alike, so it does not matter whose children the new ones are.
    for act in [&["fork"][..], &["thread", "fork"]] {
        let stalld = start(&[&OPTIONS[..], &["-p", "200ms"]].concat());
        let _rig = hog("60");
        let mut stunt = Stunt::start(30, act);
        let (pid, victim) = (stunt.pid(), stunt.victim());
        let mut births: HashMap<Tid, Birth> = HashMap::new();
        eventually("all have been born, and a policy been given or not", || {
            let now = clock::monotonic();
            let mut young = proc::children(pid, victim, 0).tids;
            young.extend(process::threads(pid).into_iter().filter(|&tid| tid != pid && tid != victim));
            for tid in young {
                let birth = births.entry(tid).or_insert(Birth { seen: now, settled: None });
                if birth.settled.is_none() && policy(tid) == Some(OWN) {
                    birth.settled = Some(now);
                }
            }
            let grown = births.values().all(|birth| now - birth.seen > Nanos::from_millis(1500));
            (births.len() == 40 && grown).then_some(())
        });
        let born = stunt.born();
        assert_eq!((born.number("forks"), born.number("threads"), born.number("refused")), (20, 20, 0));
        let (_, said) = stalld.terminate();
        for (child, birth) in &births {
            // Of which thread's boost it is told does not matter: nobody knows whose child a thread is.
            let text = format!("pid {child} was started during the boost of pid ");
            let line = said.iter().find(|(_, line)| line.contains(&text)).map(|&(at, _)| at);
            let told = line.into_iter().chain(birth.settled).min();
            let after = told.unwrap_or_else(|| {
                panic!("{child}, seen at {}, is {:?}, and no line names it", birth.seen.0, policy(*child))
            });
            assert!(after - birth.seen <= Nanos::from_secs(1), "{child}");
        }
    }
}
