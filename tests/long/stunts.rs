//! Victims that are hard to restore: whatever a task does during its boost, it keeps no trace of
//! the boost, and no other task is touched.

#![cfg(feature = "bpf")]

use rig::boosts::{self, OWN, is_boosted, policy, start, start_by};
use rig::process::{self, eventually};
use rig::stunt::Stunt;
use rig::{Log, Record, Rig, Stalld, hogged_cpu, keep_away_from_the_hog, live};
use stalld::observe::Kind;
use stalld::proc;
use stalld::sys::{clock, sched};
use stalld::task::{Nanos, Policy, Tid};
use std::collections::HashMap;
use std::fs;
use std::process::{Child, Command};

/// Starts a hog with a victim that stalld ignores.
fn hog(seconds: &str) -> Rig {
    let mut rig = Rig::start(&["--for", seconds]);
    rig.event("hog");
    rig
}

/// Boosts of a second, with a budget that is enough for a fork or an exec.
const OPTIONS: [&str; 8] = ["-i", "^victim$", "-t", "1", "-r", "1ms", "-d", "1"];

/// Ends stalld and returns its log. Asserts that it reports no failure and no change of any task
/// but these.
fn terminate(stalld: Stalld, tasks: &[Tid]) -> Log {
    let (code, log) = stalld.terminate();
    assert_eq!(code, Some(0));
    for record in log.iter() {
        let changed = match record.event() {
            "boosted" | "restored" | "left_alone" => record.tid("tid"),
            "adopted" => record.tid("child_tid"),
            _ => continue,
        };
        assert!(changed.is_some_and(|tid| tasks.contains(&tid)), "another task was changed: {record:?}");
    }
    log.assert_no_failure();
    log
}

/// Returns the first record of this event of this task.
fn first<'a>(log: &'a Log, event: &str, tid: Tid) -> &'a Record {
    let found = log.iter().find(|record| record.is_of(event, tid));
    found.unwrap_or_else(|| panic!("stalld never reported '{event}' of task {tid}: {log:#?}"))
}

#[test]
#[ignore = "starves tasks, as root"]
fn a_boosted_task_may_end_stop_exec_or_change_its_policy() {
    let _live = live();
    for backend in Kind::ALL.map(Kind::name) {
        let stalld = start(&[&OPTIONS[..], &["-g", "1", "-b", backend]].concat());
        let _rig = hog("30");
        let act = |words: &[&str]| Stunt::start(30, words);
        let [ends, execs, threads, changes, stops] =
            [&["end"][..], &["exec"], &["thread", "exec"], &["policy"], &["spin"]].map(act);
        let all = [&ends, &execs, &threads, &changes, &stops].map(Stunt::victim);
        assert_ne!(threads.victim(), threads.pid());

        eventually("the task that will be stopped is boosted", || is_boosted(stops.victim()).then_some(()));
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
        let changed = (Policy::RR, 7);
        eventually("it has its new policy", || (policy(changes.victim()) == Some(changed)).then_some(()));
        let log = terminate(stalld, &all);
        // A task that has ended keeps the policy of its boost until its parent waits for it.
        assert!(log.has("ended", ends.victim()) || log.has("restored", ends.victim()));
        let restored = first(&log, "restored", execs.victim());
        assert_eq!((restored.number("cpu"), restored.tid("now_tid")), (hogged_cpu().0.into(), None));
        // On a busy host an earlier boost may have ended before the exec.
        let moved = log.of("restored").find(|record| record.tid("now_tid") == Some(threads.pid())).unwrap();
        assert_eq!((moved.tid("tid"), moved.number("cpu")), (Some(threads.victim()), hogged_cpu().0.into()));
        assert_eq!((moved.text("policy"), moved.number("rt_priority")), ("SCHED_FIFO", 1));
        assert_eq!(first(&log, "left_alone", changes.victim()).text("policy"), "SCHED_RR");
        for (stunt, wanted) in [(&execs, OWN), (&threads, OWN), (&changes, changed), (&stops, OWN)] {
            assert_eq!(policy(stunt.pid()), Some(wanted));
            assert!(!sched::get_attr(stunt.pid()).unwrap().reset_on_fork());
        }
    }
}

/// A process that sleeps and has a chosen pid. Killed when dropped.
struct Newcomer(Child);

impl Newcomer {
    const POLICY: (Policy, u32) = (Policy::FIFO, 7);

    /// Returns `None` if another process took the pid first.
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

/// Repeats an attempt that fails when a process of the host takes the pid that a newcomer needs.
fn retry<T>(attempt: impl FnMut() -> Option<T>) -> T {
    std::iter::repeat_with(attempt).take(5).find_map(|it| it).unwrap()
}

#[test]
#[ignore = "starves tasks, as root"]
fn a_task_that_gets_the_tid_during_the_boost_is_not_touched() {
    let _live = live();
    for backend in Kind::ALL.map(Kind::name) {
        let _rig = hog("30");
        retry(|| {
            // The period is short because only a task that has a budget can end.
            let options = ["-g", "1", "-p", "200ms", "-b", backend];
            let mut stalld = start(&[&OPTIONS[..], &options].concat());
            let stunt = Stunt::start(30, &["spin"]);
            let victim = stunt.victim();
            eventually("it is boosted", || is_boosted(victim).then_some(()));
            drop(stunt);
            let _newcomer = Newcomer::start(victim)?;
            let before = sched::get_attr(victim).unwrap();
            stalld.event_of("ended", victim);
            assert_eq!(sched::get_attr(victim).unwrap(), before);
            let log = terminate(stalld, &[victim]);
            assert_eq!(log.count("restored"), 0, "{log:?}");
            assert_eq!(sched::get_attr(victim).unwrap(), before);
            Some(())
        });
    }
}

#[test]
#[ignore = "starves tasks, as root"]
fn a_task_that_gets_the_tid_before_the_boost_is_not_touched() {
    let _live = live();
    let can_pause = cfg!(debug_assertions);
    assert!(
        can_pause,
        "a release build can't pause between record and boost: run the tests without --release"
    );
    let _rig = hog("60");
    // Before this boost would be overdue, the pause ends. Else the guardian would act.
    let options = [&OPTIONS[..], &["-t", "2", "-d", "2"]].concat();
    retry(|| {
        let stalld = start_by(&["env", "STALLD_TEST_BOOST_DELAY_US=2500000"], &options);
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
        let log = terminate(stalld, &[]);
        let of_victim = log.iter().filter(|record| record.tid("tid") == Some(victim));
        let events: Vec<&str> = of_victim.map(Record::event).collect();
        assert!(events.iter().all(|event| ["starved", "waiting"].contains(event)), "{log:?}");
        assert_eq!(sched::get_attr(victim).unwrap(), before);
        Some(())
    });
}

/// When a child was first seen, and when it first had its parent's policy.
struct Birth {
    seen: Nanos,
    settled: Option<Nanos>,
}

#[test]
#[ignore = "starves tasks, as root"]
fn a_boosted_task_can_fork_and_each_child_gets_its_policy_or_a_report() {
    let _live = live();
    keep_away_from_the_hog();
    // In the second act all older threads have the same policy, so it does not matter which of them
    // is the parent.
    for act in [&["fork"][..], &["thread", "fork"]] {
        let mut stalld = start(&[&OPTIONS[..], &["-p", "200ms"]].concat());
        let _rig = hog("60");
        let mut stunt = Stunt::start(40, act);
        let (pid, victim) = (stunt.pid(), stunt.victim());
        let mut births: HashMap<Tid, Birth> = HashMap::new();
        let mut restored = Vec::new();
        eventually("all children are born, and the task was restored twice since", || {
            let mut young = process::children_of_thread(pid, victim);
            young.extend(process::threads(pid).into_iter().filter(|&tid| tid != pid && tid != victim));
            for tid in young {
                let now = clock::monotonic();
                let birth = births.entry(tid).or_insert(Birth { seen: now, settled: None });
                if birth.settled.is_none() && policy(tid) == Some(OWN) {
                    birth.settled = Some(now);
                }
            }
            // Both kinds of moments are seen by this thread, so none overtakes another.
            while stalld.wait_for(|record| record.is_of("restored", victim), Nanos::ZERO).is_some() {
                restored.push(clock::monotonic());
            }
            let is_over = |birth: &Birth| restored.iter().filter(|&&at| at > birth.seen).count() >= 2;
            (births.len() == 40 && births.values().all(is_over)).then_some(())
        });
        let born = stunt.born();
        assert_eq!((born.number("forks"), born.number("threads"), born.number("refused")), (20, 20, 0));
        let (_, log) = stalld.terminate();
        for (&child, birth) in &births {
            // The kernel doesn't show which thread started a thread, so the reported parent may be
            // another one.
            let reports = log.of("orphan").filter(|record| record.tid("child_tid") == Some(child));
            let Some(at) = reports.map(|record| record.at).chain(birth.settled).min() else {
                panic!("{child} has {:?}, and no record names it: {log:#?}", policy(child))
            };
            let limit = restored.iter().filter(|&&at| at > birth.seen).nth(1).unwrap();
            assert!(at <= *limit, "{child} was settled after the second restoration since its birth");
        }
    }
}
