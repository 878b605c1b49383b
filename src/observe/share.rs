//! Shares scans: the threads that monitor one CPU each use the result of one scan.

use super::{Backend, Effort, Kind, Snapshot, Watch, open_one};
use crate::cpus::CpuSet;
use crate::error::{Error, Result};
use crate::room::ROOM;
use crate::sys::clock;
use crate::task::{Cpu, Nanos, Tid};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};

/// Threads that wake within this time use the same scan.
const SAME_MOMENT: Nanos = Nanos::from_millis(1);

/// The longest time of a scan of very many tasks. A thread that uses a scanner for longer is itself
/// kept off the CPU by a hog.
const MAX_SCAN_TIME: Nanos = Nanos::from_millis(20);

/// A scan fails if no scanner is free within this time.
const SCAN_TIMEOUT: Nanos = Nanos::from_millis(200);

/// The time between two attempts to get a scanner.
const POLL_INTERVAL: Nanos = Nanos::from_micros(50);

/// The scanners that the threads share.
pub struct Shared {
    kind: Kind,
    helper: Option<Tid>,
    /// All threads use the first one. The second one is a spare: if a thread is preempted in the
    /// middle of its scan, that must not delay the others.
    scanners: Vec<Mutex<SharedScanner>>,
}

struct SharedScanner {
    backend: Box<dyn Backend>,
    last: Snapshot,
}

impl Shared {
    /// `backend` scans all CPUs of `watch`.
    pub(crate) fn new(backend: Box<dyn Backend>, watch: &Watch) -> Arc<Shared> {
        let (kind, helper) = (backend.kind(), backend.helper());
        // A second queue_track would cost the host as much again. task_iter reads the kernel's own
        // record, which serves as well.
        let spare = if kind == Kind::QueueTrack { Kind::TaskIter } else { kind };
        let backends = [Some(backend), open_one(spare, watch).ok()];
        let scanner = |backend| Mutex::new(SharedScanner { backend, last: Snapshot::with_room(ROOM) });
        Arc::new(Shared { kind, helper, scanners: backends.into_iter().flatten().map(scanner).collect() })
    }

    /// Returns a backend that reports these CPUs only.
    pub(crate) fn view(self: &Arc<Shared>, cpus: CpuSet) -> Box<dyn Backend> {
        Box::new(View { shared: Arc::clone(self), cpus })
    }

    /// Waits for the first scanner; takes the spare one if that lasts too long. Fails after
    /// `SCAN_TIMEOUT`.
    fn scanner(&self) -> Result<MutexGuard<'_, SharedScanner>> {
        let begun = clock::monotonic();
        loop {
            let waited = clock::monotonic() - begun;
            let willing = if waited < MAX_SCAN_TIME { 1 } else { self.scanners.len() };
            if let Some(scanner) = self.scanners.iter().take(willing).find_map(take) {
                return Ok(scanner);
            }
            if waited > SCAN_TIMEOUT {
                return Err(Error::new(
                    "every scanner is stalled: its thread has been off the CPU for over 200 ms",
                ));
            }
            clock::nap(POLL_INTERVAL);
        }
    }
}

fn take(scanner: &Mutex<SharedScanner>) -> Option<MutexGuard<'_, SharedScanner>> {
    match scanner.try_lock() {
        Ok(scanner) => Some(scanner),
        Err(TryLockError::Poisoned(e)) => Some(e.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

impl SharedScanner {
    /// Scans, unless `last` is recent and has what `effort` requires for `cpus`.
    fn see(&mut self, woke: Nanos, effort: Effort, cpus: &CpuSet) -> Result<()> {
        // A thread that requires a whole scan has just boosted a task, and has to see the result.
        let fresh = if effort == Effort::All { woke } else { woke - SAME_MOMENT };
        if self.last.at < fresh || self.last.at == Nanos::ZERO {
            self.scan(woke, if effort == Effort::All { Effort::All } else { Effort::Ask })?;
        }
        let may_wait = self.last.load.iter().any(|load| cpus.contains(load.cpu) && load.runnable > 1);
        if !self.last.complete && (effort == Effort::All || effort == Effort::Usual && may_wait) {
            self.scan(woke, Effort::All)?;
        }
        Ok(())
    }

    fn scan(&mut self, woke: Nanos, effort: Effort) -> Result<()> {
        let outcome = self.backend.snapshot(woke, effort, &mut self.last);
        if outcome.is_err() {
            self.last.clear();
        }
        outcome
    }
}

/// The backend of one thread, which reports only its CPUs.
struct View {
    shared: Arc<Shared>,
    cpus: CpuSet,
}

impl Backend for View {
    fn kind(&self) -> Kind {
        self.shared.kind
    }

    fn snapshot(&mut self, woke: Nanos, effort: Effort, snapshot: &mut Snapshot) -> Result<()> {
        snapshot.clear();
        let mut scanner = self.shared.scanner()?;
        scanner.see(woke, effort, &self.cpus)?;
        let Snapshot { at, complete, walked, counts_runs, waiters, running, load } = &scanner.last;
        let here = |cpu: Cpu| self.cpus.contains(cpu);
        (snapshot.at, snapshot.complete) = (*at, *complete);
        (snapshot.walked, snapshot.counts_runs) = (*walked, *counts_runs);
        snapshot.waiters.extend(waiters.iter().filter(|waiter| here(waiter.task.cpu)));
        snapshot.running.extend(running.iter().filter(|task| here(task.cpu)));
        snapshot.load.extend(load.iter().filter(|load| here(load.cpu)));
        Ok(())
    }

    fn sees_loans(&self) -> bool {
        self.shared.kind != Kind::SchedDebug
    }

    fn lends_deadline(&mut self) -> bool {
        // If all scanners are busy, the monitor asks again soon.
        self.shared.scanners.iter().find_map(take).is_some_and(|mut scanner| scanner.backend.lends_deadline())
    }

    fn helper(&self) -> Option<Tid> {
        self.shared.helper
    }

    fn shrink(&mut self) -> bool {
        let mut scanners = self.shared.scanners.iter().map(take);
        scanners.all(|scanner| {
            scanner.is_some_and(|mut scanner| {
                scanner.last.shrink();
                scanner.backend.shrink()
            })
        })
    }

    fn has_spare_memory(&self) -> bool {
        self.shared.scanners.iter().filter_map(take).any(|scanner| scanner.backend.has_spare_memory())
    }

    /// The first thread that asks gets the messages.
    fn remarks(&mut self) -> Vec<String> {
        let scanner = self.shared.scanners.first().and_then(take);
        scanner.map(|mut scanner| scanner.backend.remarks()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::{Load, Waiter};
    use crate::task::Task;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// A host with a waiter on each CPU that has two tasks; it counts its scans.
    struct Host {
        runnable: [u32; 2],
        asked: Arc<AtomicU32>,
        walked: Arc<AtomicU32>,
    }

    impl Backend for Host {
        fn kind(&self) -> Kind {
            Kind::TaskIter
        }

        fn snapshot(&mut self, _woke: Nanos, effort: Effort, snapshot: &mut Snapshot) -> Result<()> {
            snapshot.clear();
            snapshot.at = clock::monotonic();
            let loads = self.runnable.iter().zip(0..);
            snapshot.load.extend(loads.map(|(&runnable, cpu)| Load { cpu: Cpu(cpu), runnable, realtime: 0 }));
            if effort != Effort::All {
                self.asked.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            }
            self.walked.fetch_add(1, Ordering::Relaxed);
            snapshot.complete = true;
            for load in snapshot.load.iter().filter(|load| load.runnable > 1) {
                let task = Task { tid: Tid(10 + load.cpu.0 as i32), cpu: load.cpu, ..Task::default() };
                snapshot.waiters.push(Waiter { task, since: None });
            }
            Ok(())
        }
    }

    struct Scene {
        shared: Arc<Shared>,
        asked: Arc<AtomicU32>,
        walked: Arc<AtomicU32>,
    }

    impl Scene {
        fn new(runnable: [u32; 2], scanners: usize) -> Scene {
            let (asked, walked) = (Arc::default(), Arc::default());
            let host = || Host { runnable, asked: Arc::clone(&asked), walked: Arc::clone(&walked) };
            let scanner =
                || Mutex::new(SharedScanner { backend: Box::new(host()), last: Snapshot::default() });
            let scanners = (0..scanners).map(|_| scanner()).collect();
            let shared = Arc::new(Shared { kind: Kind::TaskIter, helper: None, scanners });
            Scene { shared, asked, walked }
        }

        fn view(&self, cpu: u32) -> Box<dyn Backend> {
            self.shared.view([Cpu(cpu)].into_iter().collect())
        }

        fn scans(&self) -> (u32, u32) {
            (self.asked.load(Ordering::Relaxed), self.walked.load(Ordering::Relaxed))
        }
    }

    fn waiters(view: &mut dyn Backend, woke: Nanos, effort: Effort) -> Vec<i32> {
        let mut snapshot = Snapshot::default();
        view.snapshot(woke, effort, &mut snapshot).unwrap();
        snapshot.waiters.iter().map(|waiter| waiter.task.tid.0).collect()
    }

    #[test]
    fn threads_that_wake_together_scan_once_and_see_their_own_cpu_only() {
        let scene = Scene::new([2, 2], 1);
        let (mut first, mut second) = (scene.view(0), scene.view(1));
        let woke = clock::monotonic();
        assert_eq!(waiters(first.as_mut(), woke, Effort::Usual), [10]);
        assert_eq!(waiters(second.as_mut(), woke, Effort::Usual), [11]);
        assert_eq!(scene.scans(), (1, 1));
        let later = clock::monotonic() + SAME_MOMENT + SAME_MOMENT;
        assert_eq!(waiters(second.as_mut(), later, Effort::Usual), [11]);
        assert_eq!(scene.scans(), (2, 2));
    }

    #[test]
    fn the_tasks_of_another_cpu_are_no_reason_to_walk() {
        let scene = Scene::new([1, 2], 1);
        assert_eq!(waiters(scene.view(0).as_mut(), clock::monotonic(), Effort::Usual), []);
        assert_eq!(waiters(scene.view(1).as_mut(), clock::monotonic(), Effort::Ask), []);
        assert_eq!(scene.scans(), (1, 0));
    }

    #[test]
    fn a_thread_that_has_boosted_sees_the_result() {
        let scene = Scene::new([2, 2], 1);
        let mut view = scene.view(0);
        waiters(view.as_mut(), clock::monotonic(), Effort::All);
        waiters(view.as_mut(), clock::monotonic(), Effort::All);
        assert_eq!(scene.scans(), (0, 2));
    }

    #[test]
    fn a_thread_that_stalls_in_its_scan_does_not_stall_the_others() {
        let scene = Scene::new([2, 2], 2);
        let stalled = scene.shared.scanners[0].lock().unwrap();
        assert_eq!(waiters(scene.view(1).as_mut(), clock::monotonic(), Effort::Usual), [11]);
        let another = scene.shared.scanners[1].lock().unwrap();
        let refused = scene.view(1).snapshot(clock::monotonic(), Effort::Usual, &mut Snapshot::default());
        assert!(refused.is_err());
        drop((stalled, another));
        assert_eq!(waiters(scene.view(1).as_mut(), clock::monotonic(), Effort::Usual), [11]);
    }
}
