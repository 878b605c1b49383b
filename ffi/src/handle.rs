//! The state behind a handle: an engine, its queue of events, and the timer for the next call.

use crate::abi::{self, stalld_stats};
use crate::boosts::Boosts;
use crate::entry;
use crate::events::EventQueue;
use crate::failure::{Failure, Result};
use crate::options::{Log, Options};
use libc::{EAGAIN, EALREADY, ECANCELED, EINVAL, EIO, ENOENT, ENOSPC, ESRCH};
use stalld::boost::event::Refusal;
use stalld::boost::plan::request::Denial;
use stalld::engine::{Engine, LATE};
use stalld::error::{Context, Error};
use stalld::observe::{self, Backend, Effort, Snapshot, Watch};
use stalld::proc;
use stalld::sys::alarm::Alarm;
use stalld::sys::clock;
use stalld::task::{Nanos, Task, Tid};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, TryLockError};

/// A handle of the program. Signal handlers and other threads may use the fields outside of the
/// lock.
pub struct Handle {
    /// The process that opened the handle.
    process: u32,
    pub alarm: Alarm,
    stopped: AtomicBool,
    pub watching: Mutex<Watching>,
}

/// The fields that one thread at a time may use.
pub struct Watching {
    engine: Engine,
    queue: EventQueue,
    log: Log,
    /// The buffer of stalld_snapshot(), separate from the engine's own snapshot.
    snapshot: Snapshot,
    planned: Nanos,
    /// The CPU time of the calls since the last scan.
    used: Nanos,
    boosts: Boosts,
    failures_in_a_row: u64,
    late_scans: u64,
    longest_late: Nanos,
    /// Whether everything has been restored after stalld_stop().
    ended: bool,
}

/// A handle may move between threads, and any thread may stop it.
const _: fn() = || {
    fn is_shared<T: Send + Sync>() {}
    is_shared::<Handle>();
};

impl Handle {
    pub fn open(options: &Options) -> Result<Handle> {
        let watch = Watch { cpus: options.cpus.clone(), idle_detection: true, own_threads: true };
        let (backend, refusals) =
            observe::open(options.backend, &watch).map_err(|e| Failure::of(&e, abi::STALLD_EBACKEND))?;
        for refusal in refusals {
            options.log.info(format_args!("cannot use the backend {refusal}"));
        }
        Handle::with(backend, options)
    }

    pub fn with(backend: Box<dyn Backend>, options: &Options) -> Result<Handle> {
        let alarm = Alarm::new().context("make a timer").map_err(|e| Failure::of(&e, EIO))?;
        let mut queue = EventQueue::new(options.events, backend.kind());
        let (boosts, booster) = Boosts::prepare(options)?;
        let mut ignore = options.ignore();
        [backend.helper(), boosts.guardian()].into_iter().flatten().for_each(|process| ignore.own(process));
        let mut engine = Engine::new(backend, options.limits, ignore);
        match options.has(abi::STALLD_RESCUE) {
            true => engine.boost(booster),
            false => engine.boost_on_request(booster),
        }
        let now = clock::monotonic();
        queue.backend_chosen(now);
        Ok(Handle {
            process: std::process::id(),
            alarm,
            stopped: AtomicBool::new(false),
            watching: Mutex::new(Watching {
                engine,
                queue,
                log: options.log,
                snapshot: Snapshot::default(),
                planned: now,
                used: Nanos::ZERO,
                boosts,
                failures_in_a_row: 0,
                late_scans: 0,
                longest_late: Nanos::ZERO,
                ended: false,
            }),
        })
    }

    /// Returns whether this process opened the handle, and not one from which this process was
    /// forked.
    pub fn is_ours(&self) -> bool {
        self.process == std::process::id()
    }

    /// Returns whether a call is running. In a forked child it is false, because the state of a
    /// lock at the fork has no meaning there.
    pub fn is_busy(&self) -> bool {
        self.is_ours() && matches!(self.watching.try_lock(), Err(TryLockError::WouldBlock))
    }

    /// Restores everything. Fails in a forked child, because the parent restores.
    pub fn close(self) -> Result<()> {
        if !self.is_ours() {
            return Err(entry::forked());
        }
        self.watching.into_inner().unwrap_or_else(PoisonError::into_inner).end();
        Ok(())
    }

    /// Async-signal-safe: an atomic store and a system call.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.alarm.ring();
    }

    /// Does the work that is due, and returns the number of stored events.
    pub fn dispatch(&self, watching: &mut Watching) -> Result<usize> {
        if self.stopped.load(Ordering::Acquire) {
            if !watching.ended {
                watching.end();
            }
            return Err(stopped());
        }
        let scanned = watching.advance();
        self.wait(watching)?;
        scanned.map(|()| watching.queue.len())
    }

    /// Boosts a task; ends its boost if `raised` is false.
    pub fn request(&self, watching: &mut Watching, tid: i32, raised: bool) -> Result<()> {
        if tid <= 0 {
            return Err(Failure::new(EINVAL, format!("{tid} is not the number of a task")));
        }
        if watching.ended || raised && self.stopped.load(Ordering::Acquire) {
            return Err(stopped());
        }
        let outcome = if raised { watching.boost(Tid(tid)) } else { watching.restore(Tid(tid)) };
        self.wait(watching)?;
        outcome
    }

    /// Sets the timer, which makes the descriptor ready when the next call is due.
    fn wait(&self, watching: &Watching) -> Result<()> {
        self.alarm.set(watching.planned).context("set the timer").map_err(|e| Failure::of(&e, EIO))
    }
}

fn stopped() -> Failure {
    Failure::new(ECANCELED, "it has been stopped")
}

impl Watching {
    fn advance(&mut self) -> Result<()> {
        let (begun, mut counted) = (clock::monotonic(), clock::thread_cpu());
        if begun < self.planned {
            return Ok(());
        }
        let late = begun - self.planned;
        if late >= LATE {
            self.queue.late(begun, late);
            self.late_scans += 1;
        }
        self.longest_late = self.longest_late.max(late);
        let mut scanned = Ok(());
        if self.engine.advance(begun) {
            scanned = self.scan();
            self.boosts.watch(&self.log);
            let now = clock::thread_cpu();
            self.engine.rest(clock::monotonic(), self.used + (now - counted));
            (self.used, counted) = (Nanos::ZERO, now);
        }
        self.tell_boosts();
        self.engine.shrink();
        self.used = self.used + (clock::thread_cpu() - counted);
        self.planned = self.engine.next();
        scanned
    }

    fn scan(&mut self) -> Result<()> {
        // The time of the wakeup is unknown: the program may have done other work since then.
        match self.engine.scan(Nanos::ZERO, clock::monotonic()) {
            Ok(()) => {
                self.failures_in_a_row = 0;
                for remark in self.engine.backend().remarks() {
                    self.log.info(remark);
                }
                self.engine.newly_ignored();
                self.queue.starving(&self.engine);
                Ok(())
            }
            Err(e) => {
                self.failures_in_a_row += 1;
                if self.failures_in_a_row == 1 {
                    self.log.warning(format_args!("this scan is lost: {e}"));
                }
                Err(Failure::of(&e, abi::STALLD_ESCAN))
            }
        }
    }

    fn tell_boosts(&mut self) {
        self.queue.boosts(&mut self.engine, clock::monotonic(), &self.log);
    }

    /// Restores everything. No boost follows.
    pub fn end(&mut self) {
        self.ended = true;
        self.engine.end_boosts(clock::monotonic());
        self.tell_boosts();
        self.boosts.end(&self.log);
    }

    /// Boosts a task. Stores the same events as for any other boost.
    pub fn boost(&mut self, tid: Tid) -> Result<()> {
        let no_task = || Failure::new(ESRCH, format!("there is no task {tid}"));
        let task = proc::task(tid).ok_or_else(no_task)?;
        let waits = proc::state(tid) == Some(b'R');
        let outcome = self.engine.boost_task(&task, waits, clock::monotonic());
        self.tell_boosts();
        self.planned = self.engine.next();
        let refusal = match outcome {
            Some(Ok(())) => return Ok(()),
            None => return Err(stopped()),
            Some(Err(Denial::Boosted)) => {
                return Err(Failure::new(EALREADY, format!("task {tid} is boosted by this handle as it is")));
            }
            Some(Err(Denial::NoPlace)) => {
                let text = format!("CPU {} has as many boosts as it can bear", task.cpu);
                return Err(Failure::new(EAGAIN, text));
            }
            Some(Err(Denial::Refused(refusal))) => refusal,
        };
        Err(match refusal {
            Refusal::Gone => no_task(),
            Refusal::IsDeadline => {
                Failure::new(EINVAL, format!("task {tid} is SCHED_DEADLINE, and needs no boost"))
            }
            Refusal::JournalFull => Failure::new(ENOSPC, "the journal is full"),
            Refusal::Taken | Refusal::ChangedByOthers(_) => {
                Failure::new(EAGAIN, format!("another process has just changed how task {tid} is scheduled"))
            }
            Refusal::Kernel(errno) => {
                let reason = io::Error::from_raw_os_error(errno);
                let error = Error::io(format_args!("boost task {tid}"), &reason);
                Failure::of(&error.with_cure("it needs CAP_SYS_NICE"), EIO)
            }
        })
    }

    /// Ends the boost of a task.
    pub fn restore(&mut self, tid: Tid) -> Result<()> {
        let found = self.engine.restore_task(tid, clock::monotonic());
        self.tell_boosts();
        self.planned = self.engine.next();
        match found {
            true => Ok(()),
            false => Err(Failure::new(ENOENT, format!("task {tid} is not boosted by this handle"))),
        }
    }

    pub fn queue(&mut self) -> &mut EventQueue {
        &mut self.queue
    }

    pub fn kind(&mut self) -> observe::Kind {
        self.engine.backend().kind()
    }

    /// Scans once, separately from the engine's scans. Calls `tell` for each waiter, with the
    /// length of its wait and the task that runs on its CPU.
    pub fn snapshot(
        &mut self,
        mut tell: impl FnMut(&observe::Waiter, Nanos, Option<&Task>),
    ) -> Result<usize> {
        let Watching { engine, snapshot, .. } = self;
        engine
            .backend()
            .snapshot(Nanos::ZERO, Effort::All, snapshot)
            .map_err(|e| Failure::of(&e, abi::STALLD_ESCAN))?;
        for waiter in &snapshot.waiters {
            let hog = snapshot.running.iter().find(|task| task.cpu == waiter.task.cpu);
            tell(waiter, engine.wait_of(waiter, snapshot.at), hog);
        }
        Ok(snapshot.waiters.len())
    }

    pub fn stats(&self) -> stalld_stats {
        let counters = self.engine.counters();
        stalld_stats {
            scans: counters.scans,
            failed_scans: counters.failed_scans,
            late_scans: self.late_scans,
            longest_late_ns: self.longest_late.0,
            starved: counters.starved,
            longest_wait_ns: counters.longest_wait.0,
            boosts: counters.boosts,
            refused_boosts: counters.refused,
            failed_restores: counters.failed_restores,
            boosted_now: counters.active,
            waiting_for_boost: counters.waiting,
            lost_events: self.queue.lost(),
        }
    }
}
