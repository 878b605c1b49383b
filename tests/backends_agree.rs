//! The three backends look at the same starvation at the same time, and see the same.

// stalld as it is meant to be: with its BPF backends.
#![cfg(feature = "bpf")]
#![allow(clippy::unwrap_used, clippy::panic)]

mod rig;

use rig::throttling::Throttling;
use rig::{Event, Rig, hogged_cpu, live, process};
use stalld::cpus::{self, CpuSet};
use stalld::denylist::Ignore;
use stalld::detect::Limits;
use stalld::engine::Engine;
use stalld::observe::{self, Kind, Waiter, Watch};
use stalld::sys::clock;
use stalld::task::{Cpu, Nanos, Policy, Tid};
use std::collections::BTreeMap;
use std::fs;

/// How far two accounts of the same wait may be apart.
const TOLERANCE: Nanos = Nanos::from_millis(20);

/// A backend at work, as the daemon has it.
struct Look {
    kind: Kind,
    engine: Engine,
}

impl Look {
    fn open(kind: Kind) -> Look {
        let watch =
            Watch { cpus: CpuSet::first(cpus::configured()), idle_detection: true, own_threads: false };
        let (mut backend, _) = observe::open(Some(kind), &watch).unwrap();
        if kind == Kind::QueueTrack {
            process::eventually("queue_track is attached", || {
                backend.remarks().into_iter().find(|remark| remark.ends_with("are being recorded"))
            });
        }
        // Below a second, no look is put off.
        let threshold = Nanos::from_millis(999);
        Look {
            kind,
            engine: Engine::new(
                backend,
                Limits { threshold, granularity: Nanos::from_secs(60) },
                Ignore::default(),
            ),
        }
    }

    fn open_all() -> Vec<Look> {
        Kind::ALL.map(Look::open).into_iter().collect()
    }

    /// Looks, and returns who waits on a CPU and for how long by now.
    fn at(&mut self, cpu: Cpu) -> BTreeMap<Tid, (Waiter, Nanos)> {
        self.engine.look(Nanos::ZERO, clock::monotonic()).unwrap();
        let here = self.engine.waiters().filter(|(waiter, _)| waiter.task.cpu == cpu);
        here.map(|(waiter, wait)| (waiter.task.tid, (*waiter, wait))).collect()
    }

    fn now(&self) -> Nanos {
        self.engine.snapshot().at
    }
}

/// Whether this backend can see that the task waits. One that was preempted on its way to sleep, as in
/// waitpid(2) where the kernel is preemptible, is shown as sleeping by the text.
fn can_see(kind: Kind, tid: Tid) -> bool {
    kind != Kind::SchedDebug || process::state(tid) == Some(b'R')
}

fn assert_near(what: &str, left: Nanos, right: Nanos) {
    let apart = (left - right) + (right - left);
    assert!(apart <= TOLERANCE, "{what}: {} us against {} us", left.0 / 1000, right.0 / 1000);
}

/// The name as each backend can know it: the text pads names with blanks on the left.
fn name_of(kind: Kind, waiter: &Waiter) -> String {
    let name = waiter.task.comm.to_string();
    if kind == Kind::SchedDebug { name.trim_start_matches(' ').to_string() } else { name }
}

#[test]
fn they_see_the_same_victims_for_the_same_time_behind_the_same_hog() {
    let Some(_live) = live() else { return };
    rig::keep_away_from_the_hog();
    let cpu = hogged_cpu();
    let mut looks = Look::open_all();
    let mut rig = Rig::start(&[
        "--for",
        "3",
        "--after",
        "20",
        "--victim",
        "waitpid:2:in-waitpid",
        "--victim",
        "spin:1:cpu#3,",
        "--victim",
        "spin:9:a%0Ab",
        "--victim",
        "rr:1:%20R%20x",
        "--victim",
        "rr:30:fifteen-letters",
        "--victim",
        "spin:1:",
    ]);
    let hog = rig.event("hog");
    let victims = rig.events("victim", 6);

    let mut first_looks = BTreeMap::new();
    for _ in 0..4 {
        for look in &mut looks {
            let seen = look.at(cpu);
            let now = look.now();
            assert!(now < hog.moment("until"), "this test was held up for longer than the hog lives");
            let first = *first_looks.entry(look.kind.name()).or_insert(now);
            for victim in victims.iter().filter(|victim| can_see(look.kind, victim.tid())) {
                let what = format!("{} about {}", look.kind.name(), victim.line);
                let (waiter, wait) = seen.get(&victim.tid()).unwrap_or_else(|| panic!("{what}: unseen"));
                assert_same_task(look.kind, &what, &rig, victim, waiter);
                assert_same_wait(look.kind, &what, victim, waiter, *wait, now, first);
            }
            let names = seen.values().map(|(waiter, _)| waiter.task.comm.to_string());
            let asleep = names.filter(|name| name == "sleep" || name == "starve").count();
            assert_eq!(asleep, 0, "{}: what sleeps does not wait", look.kind.name());

            let seen_hog = look.engine.hog(cpu).unwrap().task;
            assert_eq!((seen_hog.tid, seen_hog.sched.prio), (hog.tid(), 49), "{}", look.kind.name());
            assert_eq!(seen_hog.comm.to_string(), "hog");
            let load = look.engine.snapshot().load.iter().find(|load| load.cpu == cpu).unwrap();
            assert!(load.realtime >= 7 && load.runnable >= load.realtime, "{load:?}");
        }
        clock::nap(Nanos::from_millis(300));
    }

    rig.events("end victim", 6);
    for look in &mut looks {
        let seen = look.at(cpu);
        assert!(victims.iter().all(|victim| !seen.contains_key(&victim.tid())), "{}", look.kind.name());
    }
    assert_eq!(rig.finish().0, Some(0));
}

fn assert_same_task(kind: Kind, what: &str, rig: &Rig, victim: &Event, waiter: &Waiter) {
    let (prio, policy) = match victim.text("name") {
        "in-waitpid" => (97, Policy::FIFO),
        "a\\x0ab" => (90, Policy::FIFO),
        "fifteen-letters" => (69, Policy::RR),
        " R x" => (98, Policy::RR),
        _ => (98, Policy::FIFO),
    };
    assert_eq!(waiter.task.sched.prio, prio, "{what}");
    let expected =
        if kind == Kind::SchedDebug { victim.text("name").trim_start() } else { victim.text("name") };
    assert_eq!(name_of(kind, waiter), expected, "{what}");
    if kind != Kind::SchedDebug {
        assert_eq!(waiter.task.sched.policy, Some(policy), "{what}");
        assert_eq!(waiter.task.tgid, Some(rig.pid()), "{what}");
    }
}

fn assert_same_wait(
    kind: Kind,
    what: &str,
    victim: &Event,
    waiter: &Waiter,
    wait: Nanos,
    now: Nanos,
    first: Nanos,
) {
    match kind {
        // The kernel has no record of the wait of a task that was preempted on its way to sleep.
        Kind::TaskIter if waiter.since.is_none() => assert_near(what, wait, now - first),
        Kind::TaskIter | Kind::QueueTrack => assert_near(what, wait, now - victim.moment("since")),
        Kind::SchedDebug => assert_near(what, wait, now - first),
    }
}

#[test]
fn victims_of_a_hog_that_the_kernel_throttles_are_seen_all_the_time() {
    let Some(_live) = live() else { return };
    rig::keep_away_from_the_hog();
    let _throttling = Throttling::on();
    let cpu = hogged_cpu();
    // The text's cheap question, /proc/loadavg, can't tell a throttled CPU from an idle one.
    let mut looks = [Kind::TaskIter, Kind::QueueTrack].map(Look::open);
    let mut rig = Rig::start(&["--for", "2.2"]);
    let (hog, victim) = (rig.event("hog"), rig.event("victim"));
    let last = hog.moment("until") - Nanos::from_millis(50);
    while clock::monotonic() < last {
        for look in &mut looks {
            let seen = look.at(cpu);
            if look.now() < last {
                let at = look.now() - hog.moment("at");
                assert!(seen.contains_key(&victim.tid()), "{} at {} ms", look.kind.name(), at.as_millis());
            }
        }
        clock::nap(Nanos::from_millis(10));
    }
    assert_eq!(rig.finish().0, Some(0));
}

/// Threads of the rig by their name.
fn named(rig: &Rig, name: &str) -> Option<Tid> {
    process::threads(rig.pid())
        .into_iter()
        .find(|tid| fs::read_to_string(format!("/proc/{tid}/comm")).is_ok_and(|comm| comm.trim_end() == name))
}

#[test]
fn a_task_that_its_quota_holds_back_waits_for_none_of_them() {
    let Some(_live) = live() else { return };
    rig::keep_away_from_the_hog();
    let cpu = hogged_cpu();
    let mut looks = Look::open_all();
    // Before the hog comes, the victim is alone on its CPU: nothing but its quota keeps it from running.
    let mut rig = Rig::start(&["--for", "0.1", "--after", "2500", "--victim", "throttled::thirsty"]);
    let first = rig.first_of(&["ready", "skipped"]);
    if first.line.starts_with("skipped") {
        eprintln!("{}", first.line);
        return;
    }
    let until = clock::monotonic() + Nanos::from_secs(2);
    let tid = named(&rig, "thirsty").unwrap();
    let mut runnable = 0;
    while clock::monotonic() < until {
        runnable += u32::from(process::state(tid) == Some(b'R'));
        for look in &mut looks {
            let wait = look.at(cpu).get(&tid).map_or(Nanos::ZERO, |(_, wait)| *wait);
            // It does wait for a moment in each second, until it gets the CPU for what it may use.
            assert!(wait < Nanos::from_millis(300), "{}: {} ms", look.kind.name(), wait.as_millis());
        }
        clock::nap(Nanos::from_millis(20));
    }
    assert!(runnable > 20, "the task was not held back in its queue but asleep");
    assert_eq!(rig.finish().0, Some(0));
}
