//! Compares readings of the run queues with walks over all tasks.

use super::*;
use crate::cpus::CpuSet;
use crate::proc;
use crate::sys::cpu;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;

/// A wait of a task, which ends only when the task gets a CPU. The kernel does not count the run
/// that ends a wait without a stamp, so such waits are left out.
type Wait = (Tid, u64, u64);

fn waits(snapshot: &Snapshot) -> HashSet<Wait> {
    let wait = |waiter: &Waiter| (waiter.task.tid, waiter.task.start, waiter.task.progress);
    snapshot.waiters.iter().filter(|waiter| waiter.since.is_some()).map(wait).collect()
}

fn places(snapshot: &Snapshot) -> HashMap<Tid, Cpu> {
    snapshot.waiters.iter().map(|waiter| (waiter.task.tid, waiter.task.cpu)).collect()
}

/// Starts threads that sleep, compute, change their CPUs and nice values, and start others.
fn churn(is_over: &Arc<AtomicBool>) -> Vec<thread::JoinHandle<()>> {
    let life = |seed: u64, is_over: Arc<AtomicBool>| {
        move || {
            let cpus: Vec<Cpu> = CpuSet::first(cpu::configured()).iter().collect();
            let mut random = seed * 2 + 1;
            let mut below = |limit: u64| {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
                (random >> 33) % limit
            };
            let _ = sched::set_nice(Tid(0), 19);
            while !is_over.load(SeqCst) {
                match below(8) {
                    0 => {
                        let cpu = cpus[below(cpus.len() as u64) as usize];
                        let _ = sched::set_affinity(Tid(0), &[cpu].into_iter().collect());
                    }
                    1 => drop(thread::spawn(|| {}).join()),
                    2 => thread::yield_now(),
                    3 => clock::nap(Nanos::from_micros(below(300))),
                    _ => clock::spin_until(clock::monotonic() + Nanos::from_micros(below(400))),
                }
            }
        }
    };
    (0..24).map(|seed| thread::spawn(life(seed, Arc::clone(is_over)))).collect()
}

#[test]
#[ignore = "loads BPF programs, as root"]
fn the_kernel_accepts_the_programs_for_any_number_of_cpus() {
    for kind in [Kind::TaskIter, Kind::QueueTrack] {
        for cpus in [1, 2, 64, 256, 2048, 8192] {
            let (_, reads, refusal) = load_best(kind, &settings { cpus, ..settings_for(kind) }).unwrap();
            assert_eq!(Some(&reads), Reads::of(kind).first(), "{kind:?} for {cpus} CPUs: {refusal:?}");
        }
    }
}

#[test]
#[ignore = "loads BPF programs, as root"]
fn a_reading_of_the_queues_misses_no_wait_between_two_walks() {
    let rounds = std::env::var("STALLD_ROUNDS").map_or(10_000, |text| text.parse().unwrap());
    let watch = Watch { cpus: CpuSet::first(cpu::configured()), idle_detection: true, own_threads: true };
    let mut backend = BpfBackend::open(Kind::TaskIter, watch).unwrap();
    let refusal = load_best(Kind::TaskIter, &settings_for(Kind::TaskIter)).map(|(.., refusal)| refusal);
    assert!(backend.reader.is_some(), "{refusal:?}");
    let is_over = Arc::new(AtomicBool::new(false));
    let threads = churn(&is_over);
    let (mut found, mut failed, mut migrating) = (0, 0, 0);
    let (mut before, mut read, mut after) = (Snapshot::default(), Snapshot::default(), Snapshot::default());
    for round in 0..rounds {
        before.clear();
        backend.walk(&mut before).unwrap();
        read.clear();
        let may_wait = backend.ask(&mut read.load);
        if may_wait.is_none() || !backend.read_queues(backend.fresh_moment(Nanos::ZERO), 2, &mut read) {
            failed += 1;
            continue;
        }
        after.clear();
        backend.walk(&mut after).unwrap();
        // A task that the kernel moves to another queue may be in neither while that is read.
        let places = [&before, &after].map(places);
        let all: HashSet<Tid> = read.waiters.iter().map(|waiter| waiter.task.tid).collect();
        let [before, read, after] = [&before, &read, &after].map(waits);
        let has_moved = |tid: &Tid| places[0].get(tid) != places[1].get(tid);
        // A task that is alone in its queue waits for no other task: its CPU is about to wake up.
        let is_alone = |tid: &Tid| {
            let queue = places[0].get(tid).and_then(|cpu| backend.queues.get(cpu.0 as usize));
            queue.is_some_and(|queue| queue.runnable < 2)
        };
        let missed = before.intersection(&after).filter(|wait| !all.contains(&wait.0) && !is_alone(&wait.0));
        let (moved, missed): (Vec<&Wait>, Vec<&Wait>) = missed.partition(|(tid, ..)| has_moved(tid));
        migrating += moved.len();
        assert!(missed.is_empty(), "round {round}: {missed:?} of {before:?}, read {read:?}");
        found += read.len();
        // A wait ends only when the task gets a CPU, so a task that has not run since still waits.
        let is_phantom = |wait: &&Wait| {
            let (tid, start, progress) = **wait;
            !before.contains(*wait)
                && !after.contains(*wait)
                && proc::start(tid) == Some(start)
                && proc::state(tid) != Some(b'R')
                && proc::runs(tid) == Some(progress)
        };
        let phantoms: Vec<&Wait> = read.iter().filter(is_phantom).collect();
        assert!(phantoms.is_empty(), "round {round}: {phantoms:?} of {read:?}");
    }
    is_over.store(true, SeqCst);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    println!("{rounds} readings, {found} waits, {migrating} of tasks on the move, {failed} failed readings");
    assert!(found > rounds && failed * 20 < rounds && migrating * 1000 < found);
}
