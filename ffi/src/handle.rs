//! What a handle stands for: an engine, what it has to tell, and when it is to be called again.

use crate::abi::{self, stalld_stats};
use crate::boosts::Boosts;
use crate::entry;
use crate::events::Queue;
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
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, TryLockError};

/// What the program holds. What is outside of the lock is for signal handlers and other threads
/// too.
pub struct Handle {
    /// The process that it was opened in.
    process: u32,
    pub alarm: Alarm,
    stopped: AtomicBool,
    pub watching: Mutex<Watching>,
}

/// What one thread at a time may use.
pub struct Watching {
    engine: Engine,
    queue: Queue,
    log: Log,
    /// Of stalld_snapshot(): what the engine has seen stays its own.
    snapshot: Snapshot,
    planned: Nanos,
    /// The CPU time of the calls since the last scan.
    used: Nanos,
    boosts: Boosts,
    failures_in_a_row: u64,
    late_looks: u64,
    longest_late: Nanos,
    /// All was put back after stalld_stop().
    ended: bool,
}

/// It goes from thread to thread, and is stopped from any.
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
        let mut queue = Queue::new(options.events, backend.kind());
        let (boosts, booster, actuator) = Boosts::prepare(options)?;
        let mut ignore = options.ignore();
        [backend.helper(), boosts.guardian()].into_iter().flatten().for_each(|process| ignore.own(process));
        let mut engine = Engine::new(backend, options.limits, ignore);
        match options.has(abi::STALLD_RESCUE) {
            true => engine.boost(booster, actuator),
            false => engine.boost_on_request(booster, actuator),
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
                late_looks: 0,
                longest_late: Nanos::ZERO,
                ended: false,
            }),
        })
    }

    /// Whether it was opened in this process, and not in one that this was forked from.
    pub fn is_ours(&self) -> bool {
        self.process == std::process::id()
    }

    /// Somebody is in the middle of a call. What a lock was when a child was forked says nothing.
    pub fn is_busy(&self) -> bool {
        self.is_ours() && matches!(self.watching.try_lock(), Err(TryLockError::WouldBlock))
    }

    /// Puts everything back, unless that is for the parent to do.
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

    /// Does what is due, and says how many events there are.
    pub fn dispatch(&self, watching: &mut Watching) -> Result<usize> {
        if self.stopped.load(Ordering::Acquire) {
            if !watching.ended {
                watching.end();
            }
            return Err(stopped());
        }
        let looked = watching.advance();
        self.wait(watching)?;
        looked.map(|()| watching.queue.len())
    }

    /// Boosts a task or, if not `raised`, ends its boost.
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

    /// Has the descriptor ready when the next call is due.
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
            self.late_looks += 1;
        }
        self.longest_late = self.longest_late.max(late);
        let mut looked = Ok(());
        if self.engine.advance(begun) {
            looked = self.look();
            self.boosts.watch(&self.log);
            let now = clock::thread_cpu();
            self.engine.rest(clock::monotonic(), self.used + (now - counted));
            (self.used, counted) = (Nanos::ZERO, now);
        }
        self.tell_boosts();
        self.engine.shrink();
        self.used = self.used + (clock::thread_cpu() - counted);
        self.planned = self.engine.next();
        looked
    }

    fn look(&mut self) -> Result<()> {
        // What the program has done since it was woken is not known: this may be no sleep's end.
        match self.engine.look(Nanos::ZERO, clock::monotonic()) {
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
                    self.log.warning(format_args!("this look is lost: {e}"));
                }
                Err(Failure::of(&e, abi::STALLD_ELOOK))
            }
        }
    }

    fn tell_boosts(&mut self) {
        self.queue.boosts(&mut self.engine, clock::monotonic(), &self.log);
    }

    /// Puts everything back, for good.
    pub fn end(&mut self) {
        self.ended = true;
        self.engine.end_boosts(clock::monotonic());
        self.tell_boosts();
        self.boosts.end(&self.log);
    }

    /// Boosts a task, and tells of it as of any boost.
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
            Refusal::Taken | Refusal::ChangedByOthers(_) => Failure::new(
                EAGAIN,
                format!("somebody else has changed how task {tid} is scheduled just now"),
            ),
            Refusal::Kernel(e) => {
                let error = Error::io(format_args!("boost task {tid}"), &e);
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

    pub fn queue(&mut self) -> &mut Queue {
        &mut self.queue
    }

    pub fn kind(&mut self) -> observe::Kind {
        self.engine.backend().kind()
    }

    /// Looks once, beside what the engine sees, and tells of each waiter how long it has waited,
    /// and who has its CPU.
    pub fn snapshot(
        &mut self,
        mut tell: impl FnMut(&observe::Waiter, Nanos, Option<&Task>),
    ) -> Result<usize> {
        let Watching { engine, snapshot, .. } = self;
        engine
            .backend()
            .snapshot(Nanos::ZERO, Effort::All, snapshot)
            .map_err(|e| Failure::of(&e, abi::STALLD_ELOOK))?;
        for waiter in &snapshot.waiters {
            let hog = snapshot.running.iter().find(|task| task.cpu == waiter.task.cpu);
            tell(waiter, engine.wait_of(waiter, snapshot.at), hog);
        }
        Ok(snapshot.waiters.len())
    }

    pub fn stats(&self) -> stalld_stats {
        let counters = self.engine.counters();
        let boosts = self.engine.booster().map(|booster| booster.counters()).unwrap_or_default();
        let (boosted_now, waiting) = self.engine.booster().map(|booster| booster.load()).unwrap_or_default();
        stalld_stats {
            looks: counters.looks,
            failed_looks: counters.failed_looks,
            late_looks: self.late_looks,
            longest_late_ns: self.longest_late.0,
            starved: counters.starved,
            longest_wait_ns: counters.longest_wait.0,
            boosts: boosts.boosts,
            refused_boosts: boosts.refused,
            failed_restores: boosts.failed_restores,
            boosted_now: boosted_now as u64,
            waiting_for_boost: waiting as u64,
            lost_events: self.queue.lost(),
        }
    }
}
