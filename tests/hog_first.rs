//! A hog that was there before stalld holds up neither its start nor the rescue, and is never touched.

#![cfg(feature = "bpf")]
#![allow(clippy::unwrap_used, clippy::panic)]

mod rig;

use rig::boosts::{is_boosted, policy};
use rig::{Rig, Stalld, keep_away_from_the_hog, live};
use stalld::observe::Kind;
use stalld::sys::{clock, sched};
use stalld::task::{Nanos, Policy, Tid};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;

/// How old the hog is at the last starts.
const OLD: Nanos = Nanos::from_secs(60);

const STARTS: usize = 10;

const THRESHOLD: &str = "1";

/// From the start of stalld to the victim's boost: the threshold and a second.
const BOUND: Nanos = Nanos::from_secs(2);

/// Looks at a task again and again until told to stop. True if it has always been scheduled as it was at first.
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

/// Starts stalld, which is to leave those of these names alone, and waits for the victim's rescue.
fn rescue(backend: &str, ignored: &str, victim: Tid, hog: Tid) {
    let started = clock::monotonic();
    let options = ["-f", "-v", "-t", THRESHOLD, "-g", "1", "-b", backend, "-i", ignored];
    let mut stalld = Stalld::start(&[&options[..], &Stalld::RIG_ONLY].concat());
    let (at, _) = stalld.line_with(&format!("boosted pid {victim} "));
    assert!(at - started <= BOUND, "{backend}: {} ms", (at - started).as_millis());
    let (code, said) = stalld.terminate();
    assert_eq!(code, Some(0));
    assert!(!is_boosted(victim));
    for (_, line) in &said {
        assert!(!line.contains(&format!("pid {hog} ")), "{line}");
    }
}

#[test]
fn a_hog_that_is_there_before_stalld_is_left_alone_and_its_victims_are_rescued_in_time() {
    let Some(_live) = live() else { return };
    keep_away_from_the_hog();
    let backends = Kind::ALL.map(Kind::name);
    // Besides a victim for all starts there is one for each backend that has waited for as long as the hog has run.
    let aged = backends.map(|backend| format!("spin:1:{backend}"));
    let victims = aged.iter().flat_map(|spec| ["--victim", spec]);
    let rig = ["--for", "120", "--victim", "spin:1:any"];
    let mut rig = Rig::start(&rig.into_iter().chain(victims).collect::<Vec<_>>());
    let hog = rig.event("hog");
    let any = rig.event("victim").tid();
    let aged = backends.map(|backend| (backend, rig.event("victim").tid()));

    let stop = Arc::new(AtomicBool::new(false));
    let (hog_tid, stopped) = (hog.tid(), stop.clone());
    let watch = thread::spawn(move || never_changes(hog_tid, &stopped));
    for backend in backends {
        for _ in 0..STARTS {
            rescue(backend, &backends.join(","), any, hog.tid());
        }
    }
    clock::sleep_until(hog.moment("at") + OLD);
    for (backend, victim) in aged {
        rescue(backend, "^any$", victim, hog.tid());
    }
    stop.store(true, SeqCst);
    assert!(watch.join().unwrap(), "the hog was touched");
    assert_eq!(policy(hog.tid()), Some((Policy::FIFO, 50)));
}
