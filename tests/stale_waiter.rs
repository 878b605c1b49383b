//! A wait that is over is forgotten, also where nobody looks at the CPU any more.

#![cfg(feature = "bpf")]
#![allow(clippy::unwrap_used, clippy::panic)]

mod rig;

use rig::boosts::start;
use rig::process::{self, eventually};
use rig::stunt::Stunt;
use rig::{Rig, hogged_cpu, live};
use stalld::observe::Kind;
use stalld::sys::{clock, sched};
use stalld::task::{Cpu, Nanos, Tid};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;

/// Ordinary threads that compute on one CPU until this is dropped.
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
fn who_has_waited_half_the_threshold_then_ran_and_left_its_cpu_idle_is_never_boosted() {
    let Some(_live) = live() else { return };
    let threshold = Nanos::from_secs(2);
    for backend in Kind::ALL.map(Kind::name) {
        let mut stalld = start(&["-t", "2", "-g", "250ms", "-d", "1", "-b", backend]);
        let mut rig = Rig::start(&["--for", "20"]);
        rig.event("hog");
        let stunt = Stunt::start(20, &["sleep"]);
        let since = clock::monotonic();
        stalld.line_with(&format!("checking cpu {} - rt: 3 - starving: ", hogged_cpu()));
        // So that there is always a reason to look at all.
        let _busy = Busy::keep(Cpu(0), 2);
        clock::sleep_until(since + Nanos(threshold.0 / 2));
        drop(rig);
        let slept = eventually("it has run, and sleeps", || {
            (process::state(stunt.victim()) == Some(b'S')).then(clock::monotonic)
        });
        assert!(slept - since < threshold, "it has waited for too long");
        while stalld.look() < since + threshold + threshold {}
        let (code, said) = stalld.terminate();
        assert_eq!(code, Some(0));
        for (_, line) in &said {
            assert!(!line.contains("starved on CPU") && !line.contains("boosted pid"), "{backend}: {line}");
        }
    }
}
