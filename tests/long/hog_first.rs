//! A hog that is older than stalld delays neither its start nor the rescue, and is never touched.

#![cfg(feature = "bpf")]

use rig::boosts::{is_boosted, policy};
use rig::{Event, Rig, Stalld, hogged_cpu, keep_away_from_the_hog, live};
use stalld::observe::Kind;
use stalld::sys::{clock, sched};
use stalld::task::{Nanos, Policy, Tid};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;

/// The age of the hog at the last starts.
const OLD: Nanos = Nanos::from_secs(60);

const STARTS: usize = 10;

/// With a threshold and a granularity of a second, a boost in time comes after about four scans.
const MAX_SCANS: usize = 8;

/// Compares the scheduling of a task with its first state until `stop` is set. Returns whether it
/// never changed.
fn never_changes(task: Tid, stop: &AtomicBool) -> bool {
    let before = sched::get_attr(task).unwrap();
    while !stop.load(SeqCst) {
        if sched::get_attr(task).unwrap() != before {
            return false;
        }
        clock::nap(Nanos::from_millis(1));
    }
    true
}

/// Starts a stalld that ignores tasks with these names, and waits for the rescue of the victim.
fn rescue(backend: &str, ignored: &str, victim: Tid, hog: &Event) {
    let options = ["-f", "-v", "-t", "1", "-g", "1", "-b", backend, "-i", ignored];
    let mut stalld = Stalld::start(&[&options[..], &Stalld::RIG_ONLY].concat());
    let boosted = stalld.event_of("boosted", victim);
    assert!(boosted.at < hog.moment("until"), "{backend}: the hog had ended before the boost");
    let (code, log) = stalld.terminate();
    assert_eq!(code, Some(0));
    assert!(!is_boosted(victim));
    let scan = format!("checking cpu {} ", hogged_cpu());
    let before = log.iter().take_while(|record| !record.is_of("boosted", victim));
    let scans = before.filter(|record| record.message().starts_with(&scan)).count();
    assert!(scans <= MAX_SCANS, "{backend}: the boost came after {scans} scans: {log:#?}");
    assert!(log.iter().all(|record| record.tid("tid") != Some(hog.tid())), "{log:#?}");
}

#[test]
#[ignore = "starves tasks, as root"]
fn the_victims_of_a_hog_older_than_stalld_are_rescued_at_once() {
    let _live = live();
    keep_away_from_the_hog();
    let backends = Kind::ALL.map(Kind::name);
    // One victim is for all starts. One more for each backend waits for as long as the hog runs.
    let aged = backends.map(|backend| format!("spin:1:{backend}"));
    let victims = aged.iter().flat_map(|spec| ["--victim", spec]);
    let rig = ["--for", "240", "--victim", "spin:1:any"];
    let mut rig = Rig::start(&rig.into_iter().chain(victims).collect::<Vec<_>>());
    let hog = rig.event("hog");
    let any = rig.event("victim").tid();
    let aged = backends.map(|backend| (backend, rig.event("victim").tid()));

    let stop = Arc::new(AtomicBool::new(false));
    let (hog_tid, stopped) = (hog.tid(), stop.clone());
    let watch = thread::spawn(move || never_changes(hog_tid, &stopped));
    for backend in backends {
        for _ in 0..STARTS {
            rescue(backend, &backends.join(","), any, &hog);
        }
    }
    clock::sleep_until(hog.moment("at") + OLD);
    for (backend, victim) in aged {
        rescue(backend, "^any$", victim, &hog);
    }
    stop.store(true, SeqCst);
    assert!(watch.join().unwrap(), "the hog was touched");
    assert_eq!(policy(hog.tid()), Some((Policy::FIFO, 50)));
}
