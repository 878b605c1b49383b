//! Timer jitter on a hogged CPU.

use rig::{Rig, hogged_cpu, keep_away_from_the_hog, live};
use stalld::stat::timer_probe;
use stalld::sys::clock;
use stalld::task::{Cpu, Nanos};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

const INTERVAL: Nanos = Nanos::from_millis(1);

/// Returns the latencies that the probe measures at FIFO 1 in `time` on the CPU that the rig hogs.
fn measured(time: Nanos) -> Vec<Nanos> {
    let all = Arc::new(Mutex::new(Vec::new()));
    let kept = all.clone();
    let sink = Arc::new(move |_: Cpu, late| {
        kept.lock().unwrap().push(late);
        ControlFlow::Continue(())
    });
    let cpus = [hogged_cpu()].into_iter().collect();
    timer_probe::run(&cpus, INTERVAL, time, Some(1), &sink).unwrap();
    let all = all.lock().unwrap();
    all.clone()
}

#[test]
#[ignore = "starves tasks, as root"]
fn a_thread_that_never_ran_is_late_and_does_not_delay_the_end() {
    let _live = live();
    keep_away_from_the_hog();
    let mut rig = Rig::start(&["--for", "20"]);
    let hog = rig.event("hog");
    let begin = clock::monotonic();
    let late = measured(Nanos::from_secs(1));
    assert!(clock::monotonic() < hog.moment("until"), "it waited for the hog");
    assert_eq!(late.len(), 1, "{late:?}");
    let most = clock::monotonic() - begin;
    assert!(late[0] >= Nanos::from_millis(990) && late[0] <= most, "{late:?} in {most:?}");
}

#[test]
#[ignore = "starves tasks, as root"]
fn a_long_wait_is_one_measure_and_the_next_ones_are_short_again() {
    let _live = live();
    keep_away_from_the_hog();
    let mut rig = Rig::start(&["--for", "2"]);
    let hog = rig.event("hog");
    let begin = clock::monotonic();
    let left = hog.moment("until") - begin;
    let late = measured(left + Nanos::from_secs(2));
    let long = late.iter().filter(|&&late| late > Nanos(left.0 / 2)).count();
    assert_eq!((long, late.len() > 2), (1, true), "{left:?} {late:?}");
}
