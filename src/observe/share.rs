//! One look for many: threads that watch a CPU each share what one of them has seen.

use super::{Backend, Effort, Kind, Snapshot, Watch, open_one};
use crate::cpus::CpuSet;
use crate::error::{Error, Result};
use crate::room::ROOM;
use crate::sys::clock;
use crate::task::{Cpu, Nanos, Tid};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};

/// Threads that wake within this time wake for the same look.
const SAME_MOMENT: Nanos = Nanos::from_millis(1);

/// A walk over very many tasks takes as long. A monitor that uses a scanner for longer waits behind
/// a hog, ...
const MAX_SCAN_TIME: Nanos = Nanos::from_millis(20);

/// ... and after this a look is lost.
const LOST: Nanos = Nanos::from_millis(200);

/// Between two tries to get a looker.
const PAUSE: Nanos = Nanos::from_micros(50);

/// What the threads share.
pub struct Shared {
    kind: Kind,
    helper: Option<Tid>,
    /// The first one serves all. The second one is for when a thread is held up in the middle of a
    /// look: that must not hold up the others.
    lookers: Vec<Mutex<Looker>>,
}

struct Looker {
    backend: Box<dyn Backend>,
    last: Snapshot,
}

impl Shared {
    /// `backend` looks at all CPUs of `watch`.
    pub fn new(backend: Box<dyn Backend>, watch: &Watch) -> Arc<Shared> {
        let (kind, helper) = (backend.kind(), backend.helper());
        // A second record of all events would cost the host as much again; the kernel's own serves
        // as well.
        let spare = if kind == Kind::QueueTrack { Kind::TaskIter } else { kind };
        let backends = [Some(backend), open_one(spare, watch).ok()];
        let looker = |backend| Mutex::new(Looker { backend, last: Snapshot::with_room(ROOM) });
        Arc::new(Shared { kind, helper, lookers: backends.into_iter().flatten().map(looker).collect() })
    }

    /// A backend that sees these CPUs only.
    pub fn view(self: &Arc<Shared>, cpus: CpuSet) -> Box<dyn Backend> {
        Box::new(View { shared: Arc::clone(self), cpus })
    }

    /// The first looker, as soon as it is free; the spare one if that takes too long.
    fn looker(&self) -> Result<MutexGuard<'_, Looker>> {
        let begun = clock::monotonic();
        loop {
            let waited = clock::monotonic() - begun;
            let willing = if waited < MAX_SCAN_TIME { 1 } else { self.lookers.len() };
            if let Some(looker) = self.lookers.iter().take(willing).find_map(take) {
                return Ok(looker);
            }
            if waited > LOST {
                return Err(Error::new("all threads that look are held up by others"));
            }
            clock::nap(PAUSE);
        }
    }
}

fn take(looker: &Mutex<Looker>) -> Option<MutexGuard<'_, Looker>> {
    match looker.try_lock() {
        Ok(looker) => Some(looker),
        Err(TryLockError::Poisoned(e)) => Some(e.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

impl Looker {
    /// Sees to it that `last` is of this moment, and tells of these CPUs what is asked for.
    fn see(&mut self, woke: Nanos, effort: Effort, cpus: &CpuSet) -> Result<()> {
        // Who has just done something has to see what came of it.
        let fresh = if effort == Effort::All { woke } else { woke - SAME_MOMENT };
        if self.last.at < fresh || self.last.at == Nanos::ZERO {
            self.look(woke, if effort == Effort::All { Effort::All } else { Effort::Ask })?;
        }
        let somebody = self.last.load.iter().any(|load| cpus.contains(load.cpu) && load.runnable > 1);
        if !self.last.complete && (effort == Effort::All || effort == Effort::Usual && somebody) {
            self.look(woke, Effort::All)?;
        }
        Ok(())
    }

    fn look(&mut self, woke: Nanos, effort: Effort) -> Result<()> {
        let outcome = self.backend.snapshot(woke, effort, &mut self.last);
        if outcome.is_err() {
            self.last.clear();
        }
        outcome
    }
}

/// What one thread sees of it.
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
        let mut looker = self.shared.looker()?;
        looker.see(woke, effort, &self.cpus)?;
        let Snapshot { at, complete, waiters, running, load } = &looker.last;
        let here = |cpu: Cpu| self.cpus.contains(cpu);
        (snapshot.at, snapshot.complete) = (*at, *complete);
        snapshot.waiters.extend(waiters.iter().filter(|waiter| here(waiter.task.cpu)));
        snapshot.running.extend(running.iter().filter(|task| here(task.cpu)));
        snapshot.load.extend(load.iter().filter(|load| here(load.cpu)));
        Ok(())
    }

    fn sees_loans(&self) -> bool {
        self.shared.kind != Kind::SchedDebug
    }

    fn lends_deadline(&mut self) -> bool {
        // A monitor that finds all of them busy asks again soon.
        self.shared.lookers.iter().find_map(take).is_some_and(|mut looker| looker.backend.lends_deadline())
    }

    fn helper(&self) -> Option<Tid> {
        self.shared.helper
    }

    fn shrink(&mut self) -> bool {
        let mut lookers = self.shared.lookers.iter().map(take);
        lookers.all(|looker| {
            looker.is_some_and(|mut looker| {
                looker.last.shrink();
                looker.backend.shrink()
            })
        })
    }

    fn has_spare_memory(&self) -> bool {
        self.shared.lookers.iter().filter_map(take).any(|looker| looker.backend.has_spare_memory())
    }

    /// Whoever asks first is told.
    fn remarks(&mut self) -> Vec<String> {
        let looker = self.shared.lookers.first().and_then(take);
        looker.map(|mut looker| looker.backend.remarks()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::{Load, Waiter};
    use crate::task::Task;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// A host with a waiter on each CPU that has two tasks; it counts the looks at it.
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
        fn new(runnable: [u32; 2], lookers: usize) -> Scene {
            let (asked, walked) = (Arc::default(), Arc::default());
            let host = || Host { runnable, asked: Arc::clone(&asked), walked: Arc::clone(&walked) };
            let looker = || Mutex::new(Looker { backend: Box::new(host()), last: Snapshot::default() });
            let lookers = (0..lookers).map(|_| looker()).collect();
            let shared = Arc::new(Shared { kind: Kind::TaskIter, helper: None, lookers });
            Scene { shared, asked, walked }
        }

        fn view(&self, cpu: u32) -> Box<dyn Backend> {
            self.shared.view([Cpu(cpu)].into_iter().collect())
        }

        fn looks(&self) -> (u32, u32) {
            (self.asked.load(Ordering::Relaxed), self.walked.load(Ordering::Relaxed))
        }
    }

    fn waiters(view: &mut dyn Backend, woke: Nanos, effort: Effort) -> Vec<i32> {
        let mut snapshot = Snapshot::default();
        view.snapshot(woke, effort, &mut snapshot).unwrap();
        snapshot.waiters.iter().map(|waiter| waiter.task.tid.0).collect()
    }

    #[test]
    fn threads_that_wake_together_look_once_and_see_their_own_cpu_only() {
        let scene = Scene::new([2, 2], 1);
        let (mut first, mut second) = (scene.view(0), scene.view(1));
        let woke = clock::monotonic();
        assert_eq!(waiters(first.as_mut(), woke, Effort::Usual), [10]);
        assert_eq!(waiters(second.as_mut(), woke, Effort::Usual), [11]);
        assert_eq!(scene.looks(), (1, 1));
        let later = clock::monotonic() + SAME_MOMENT + SAME_MOMENT;
        assert_eq!(waiters(second.as_mut(), later, Effort::Usual), [11]);
        assert_eq!(scene.looks(), (2, 2));
    }

    #[test]
    fn the_tasks_of_another_cpu_are_no_reason_to_walk() {
        let scene = Scene::new([1, 2], 1);
        assert_eq!(waiters(scene.view(0).as_mut(), clock::monotonic(), Effort::Usual), []);
        assert_eq!(waiters(scene.view(1).as_mut(), clock::monotonic(), Effort::Ask), []);
        assert_eq!(scene.looks(), (1, 0));
    }

    #[test]
    fn who_is_boosting_sees_what_came_of_it() {
        let scene = Scene::new([2, 2], 1);
        let mut view = scene.view(0);
        waiters(view.as_mut(), clock::monotonic(), Effort::All);
        waiters(view.as_mut(), clock::monotonic(), Effort::All);
        assert_eq!(scene.looks(), (0, 2));
    }

    #[test]
    fn a_thread_that_is_held_up_in_its_look_does_not_hold_up_the_others() {
        let scene = Scene::new([2, 2], 2);
        let held_up = scene.shared.lookers[0].lock().unwrap();
        assert_eq!(waiters(scene.view(1).as_mut(), clock::monotonic(), Effort::Usual), [11]);
        let another = scene.shared.lookers[1].lock().unwrap();
        let refused = scene.view(1).snapshot(clock::monotonic(), Effort::Usual, &mut Snapshot::default());
        assert!(refused.is_err());
        drop((held_up, another));
        assert_eq!(waiters(scene.view(1).as_mut(), clock::monotonic(), Effort::Usual), [11]);
    }
}
