//! The three backends scan the same starving tasks at the same time, and report the same.

#![cfg(feature = "bpf")]

use rig::throttling::Throttling;
use rig::{Event, Rig, hogged_cpu, live, process};
use stalld::cpus::CpuSet;
use stalld::denylist::Ignore;
use stalld::detect::Limits;
use stalld::engine::Engine;
use stalld::observe::{self, Kind, Waiter, Watch};
use stalld::sys::{clock, cpu};
use stalld::task::{Cpu, Nanos, Policy, Tid};
use std::collections::BTreeMap;
use std::fs;

/// How far the clock of the scheduler may be from that of this test.
const TOLERANCE: Nanos = Nanos::from_millis(20);

/// A backend with the engine around it, as in the daemon.
struct Scanner {
    kind: Kind,
    engine: Engine,
}

impl Scanner {
    fn open(kind: Kind) -> Scanner {
        let watch =
            Watch { cpus: CpuSet::first(cpu::configured()), idle_detection: true, own_threads: false };
        let (mut backend, _) = observe::open(Some(kind), &watch).unwrap();
        if kind == Kind::QueueTrack {
            process::eventually("queue_track is attached", || {
                backend.remarks().into_iter().find(|remark| remark.ends_with("are being recorded"))
            });
        }
        // With a threshold below a second, no scan is postponed.
        let threshold = Nanos::from_millis(999);
        Scanner {
            kind,
            engine: Engine::new(
                backend,
                Limits { threshold, granularity: Nanos::from_secs(60) },
                Ignore::default(),
            ),
        }
    }

    fn open_all() -> Vec<Scanner> {
        Kind::ALL.map(Scanner::open).into_iter().collect()
    }

    /// Scans once. Returns the waiters of a CPU and their waits so far.
    fn scan(&mut self, cpu: Cpu) -> BTreeMap<Tid, (Waiter, Nanos)> {
        self.engine.scan(Nanos::ZERO, clock::monotonic()).unwrap();
        let here = self.engine.waiters().filter(|(waiter, _)| waiter.task.cpu == cpu);
        here.map(|(waiter, wait)| (waiter.task.tid, (*waiter, wait))).collect()
    }

    fn now(&self) -> Nanos {
        self.engine.snapshot().at
    }
}

/// Whether this backend can see that the task waits. The text of sched_debug shows a task as
/// sleeping that was preempted on its way to sleep, as in waitpid(2) on a preemptible kernel.
fn can_see(kind: Kind, tid: Tid) -> bool {
    kind != Kind::SchedDebug || process::state(tid) == Some(b'R')
}

/// Asserts that a wait until `now` began at `from` at the earliest and at `until` at the latest.
fn assert_began(what: &str, wait: Nanos, now: Nanos, from: Nanos, until: Nanos) {
    let range = now - until - TOLERANCE..=now - from + TOLERANCE;
    assert!(range.contains(&wait), "{what}: {} us is not in {range:?}", wait.0 / 1000);
}

/// Returns the name as this backend can know it: the text pads names with blanks on the left.
fn name_of(kind: Kind, waiter: &Waiter) -> String {
    let name = waiter.task.comm.to_string();
    if kind == Kind::SchedDebug { name.trim_start_matches(' ').to_string() } else { name }
}

#[test]
#[ignore = "starves tasks, as root"]
fn they_report_the_same_victims_and_waits_behind_the_same_hog() {
    let _live = live();
    rig::keep_away_from_the_hog();
    let cpu = hogged_cpu();
    let mut scanners = Scanner::open_all();
    let victims = [
        "waitpid:2:in-waitpid",
        "spin:1:cpu#3,",
        "spin:9:a%0Ab",
        "rr:1:%20R%20x",
        "rr:30:fifteen-letters",
        "spin:1:",
    ];
    let options = ["--for", "6", "--after", "20"].into_iter();
    let args: Vec<&str> =
        options.chain(victims.into_iter().flat_map(|victim| ["--victim", victim])).collect();
    let mut rig = Rig::start(&args);
    let hog = rig.event("hog");
    let victims = rig.events("victim", 6);

    let mut first_scans = BTreeMap::new();
    for _ in 0..4 {
        for scanner in &mut scanners {
            let seen = scanner.scan(cpu);
            let now = scanner.now();
            assert!(now < hog.moment("until"), "this test was held up for longer than the hog lives");
            let first = *first_scans.entry(scanner.kind.name()).or_insert(now);
            for victim in victims.iter().filter(|victim| can_see(scanner.kind, victim.tid())) {
                let what = format!("{} about {}", scanner.kind.name(), victim.line);
                let (waiter, wait) = seen.get(&victim.tid()).unwrap_or_else(|| panic!("{what}: unseen"));
                assert_same_task(scanner.kind, &what, &rig, victim, waiter);
                assert_same_wait(scanner.kind, &what, victim, waiter, *wait, now, first);
            }
            let names = seen.values().map(|(waiter, _)| waiter.task.comm.to_string());
            let asleep = names.filter(|name| name == "sleep" || name == "starve").count();
            assert_eq!(asleep, 0, "{}: a sleeping task does not wait", scanner.kind.name());

            let seen_hog = scanner.engine.hog(cpu).unwrap().task;
            assert_eq!((seen_hog.tid, seen_hog.sched.prio), (hog.tid(), 49), "{}", scanner.kind.name());
            assert_eq!(seen_hog.comm.to_string(), "hog");
            let load = scanner.engine.snapshot().load.iter().find(|load| load.cpu == cpu).unwrap();
            assert!(load.realtime >= 7 && load.runnable >= load.realtime, "{load:?}");
        }
        clock::nap(Nanos::from_millis(300));
    }

    rig.events("end victim", 6);
    for scanner in &mut scanners {
        let seen = scanner.scan(cpu);
        assert!(victims.iter().all(|victim| !seen.contains_key(&victim.tid())), "{}", scanner.kind.name());
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
        Kind::TaskIter if waiter.since.is_none() => assert_began(what, wait, now, first, first),
        // The victim last ran, or was woken, at `since`, and was queued when the rig printed its
        // line.
        Kind::TaskIter | Kind::QueueTrack => {
            assert_began(what, wait, now, victim.moment("since"), victim.at);
        }
        Kind::SchedDebug => assert_began(what, wait, now, first, first),
    }
}

#[test]
#[ignore = "starves tasks, as root"]
fn victims_of_a_throttled_hog_are_reported_all_the_time() {
    let _live = live();
    rig::keep_away_from_the_hog();
    let _throttling = Throttling::on();
    let cpu = hogged_cpu();
    // sched_debug is left out: its idle test, /proc/loadavg, can't distinguish a throttled CPU from
    // an idle one.
    let mut scanners = [Kind::TaskIter, Kind::QueueTrack].map(Scanner::open);
    let mut rig = Rig::start(&["--for", "2.2"]);
    let (hog, victim) = (rig.event("hog"), rig.event("victim"));
    let last = hog.moment("until") - Nanos::from_millis(50);
    while clock::monotonic() < last {
        for scanner in &mut scanners {
            let seen = scanner.scan(cpu);
            if scanner.now() < last {
                let at = scanner.now() - hog.moment("at");
                let is_seen = seen.contains_key(&victim.tid());
                assert!(is_seen, "{} at {} ms", scanner.kind.name(), at.as_millis());
            }
        }
        clock::nap(Nanos::from_millis(10));
    }
    assert_eq!(rig.finish().0, Some(0));
}

/// Returns the thread of the rig that has this name.
fn named(rig: &Rig, name: &str) -> Option<Tid> {
    process::threads(rig.pid())
        .into_iter()
        .find(|tid| fs::read_to_string(format!("/proc/{tid}/comm")).is_ok_and(|comm| comm.trim_end() == name))
}

#[test]
#[ignore = "starves tasks, as root"]
fn a_task_that_its_quota_throttles_waits_in_none_of_them() {
    let _live = live();
    rig::keep_away_from_the_hog();
    let cpu = hogged_cpu();
    let mut scanners = Scanner::open_all();
    // Before the hog comes, the victim is alone on its CPU, so only its quota keeps it from
    // running.
    let mut rig = Rig::start(&["--for", "0.1", "--after", "2500", "--victim", "throttled::thirsty"]);
    let first = rig.first_of(&["ready", "skipped"]);
    assert!(!first.line.starts_with("skipped"), "the rig has no cgroup with a quota: {}", first.line);
    let until = clock::monotonic() + Nanos::from_secs(2);
    let tid = named(&rig, "thirsty").unwrap();
    let (mut rounds, mut runnable, mut waits) = (0, 0, [0; Kind::ALL.len()]);
    while clock::monotonic() < until {
        rounds += 1;
        runnable += u32::from(process::state(tid) == Some(b'R'));
        for (scanner, waits) in scanners.iter_mut().zip(&mut waits) {
            let wait = scanner.scan(cpu).get(&tid).map_or(Nanos::ZERO, |(_, wait)| *wait);
            *waits += u32::from(wait >= Nanos::from_millis(300));
        }
        clock::nap(Nanos::from_millis(20));
    }
    assert!(runnable * 2 > rounds, "the task was not throttled in its queue but asleep");
    // Once a second the task waits until it gets the CPU, and other tasks can extend that.
    for (scanner, waits) in scanners.iter().zip(waits) {
        assert!(waits * 10 <= rounds, "{}: {waits} long waits in {rounds} scans", scanner.kind.name());
    }
    assert_eq!(rig.finish().0, Some(0));
}
