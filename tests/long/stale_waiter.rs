//! A wait that has ended is dropped, even if no later scan reads the queue of that CPU.

#![cfg(feature = "bpf")]

use rig::boosts::start;
use rig::process::{self, eventually};
use rig::stunt::Stunt;
use rig::{Rig, hogged_cpu, keep_away_from_the_hog, live};
use stalld::observe::Kind;
use stalld::sys::{clock, sched};
use stalld::task::{Cpu, Nanos, Tid};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;

/// Ordinary threads that keep one CPU busy. They end when this is dropped.
struct Busy(Arc<AtomicBool>);

impl Busy {
    fn keep(cpu: Cpu, threads: usize) -> Busy {
        let end = Arc::new(AtomicBool::new(false));
        for _ in 0..threads {
            let end = end.clone();
            thread::spawn(move || {
                sched::set_affinity(Tid(0), &[cpu].into_iter().collect()).unwrap();
                while !end.load(SeqCst) {}
            });
        }
        Busy(end)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

#[test]
#[ignore = "starves tasks, as root"]
fn a_task_that_waited_half_the_threshold_and_then_slept_is_never_boosted() {
    let _live = live();
    keep_away_from_the_hog();
    let threshold = Nanos::from_secs(3);
    for backend in Kind::ALL.map(Kind::name) {
        let mut stalld = start(&["-t", "3", "-g", "250ms", "-d", "1", "-b", backend]);
        let mut rig = Rig::start(&["--for", "20"]);
        rig.event("hog");
        let stunt = Stunt::start(20, &["sleep"]);
        let since = clock::monotonic();
        stalld.message(&format!("checking cpu {} - rt: 3 - starving: ", hogged_cpu()));
        // A busy CPU keeps the idle detection from skipping all scans.
        let _busy = Busy::keep(Cpu(0), 2);
        clock::sleep_until(since + Nanos(threshold.0 / 2));
        drop(rig);
        let slept = eventually("the task has run and sleeps", || {
            (process::state(stunt.victim()) == Some(b'S')).then(clock::monotonic)
        });
        assert!(slept - since < threshold, "this test was held up, so the task has starved");
        while stalld.scan() < since + threshold + threshold {}
        let (code, log) = stalld.terminate();
        assert_eq!((code, log.count("starved"), log.count("boosted")), (Some(0), 0, 0), "{backend}: {log:?}");
    }
}
