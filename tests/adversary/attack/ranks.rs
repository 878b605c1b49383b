//! Attempts to keep a rank that a boost gave, or to lend it to another task.

use crate::sys;
use crate::victim::{Play, Victim, is_boosted};
use stalld::error::{Context, Error, Result};
use stalld::sys::{clock, sched};
use stalld::task::{Nanos, Policy, Tid};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::thread;

/// A change of its scheduling that a task requests from the kernel.
#[derive(Clone, Copy)]
pub enum Demand {
    Fifo(u32),
    RoundRobin(u32),
    Fair(Policy),
    Deadline,
    Nice,
}

impl Demand {
    pub const ALL: [(&'static str, Demand); 8] = [
        ("keep-fifo", Demand::Fifo(97)),
        ("keep-rr", Demand::RoundRobin(97)),
        ("keep-equal", Demand::Fifo(98)),
        ("keep-lowest", Demand::Fifo(1)),
        ("keep-batch", Demand::Fair(Policy::BATCH)),
        ("keep-idle", Demand::Fair(Policy::IDLE)),
        ("keep-deadline", Demand::Deadline),
        ("keep-nice", Demand::Nice),
    ];

    /// Makes the demand with RESET_ON_FORK, because a task may not clear that flag without a
    /// privilege.
    pub fn make(self, tid: Tid) -> io::Result<()> {
        match self {
            Demand::Fifo(priority) => sched::set_scheduler(tid, Policy::FIFO, priority, true),
            Demand::RoundRobin(priority) => sched::set_scheduler(tid, Policy::RR, priority, true),
            Demand::Fair(policy) => sched::set_scheduler(tid, policy, 0, true),
            Demand::Deadline => {
                let (runtime, period) = (Nanos::from_millis(90), Nanos::from_millis(100));
                sched::set_deadline(tid, runtime, period, sched::RESET_ON_FORK)
            }
            Demand::Nice => sched::set_nice(tid, -20).or_else(|_| sched::set_nice(tid, -1)),
        }
    }
}

/// The victim repeats a demand all the time.
pub fn keep(play: &Play, demand: Demand) -> Result<Vec<Arc<Victim>>> {
    let victim = Victim::start(play, move |victim, _| {
        victim.tried(demand.make(Tid(0)));
        Ok(())
    })?;
    Ok(vec![victim])
}

/// A thread on another CPU makes the demand for the victim.
pub fn by_helper(play: &Play) -> Result<Vec<Arc<Victim>>> {
    let victim = Victim::start(play, |_, _| Ok(()))?;
    let (own, helped) = (play.clone(), victim.clone());
    let life = move || {
        let _ = sched::set_nice(Tid(0), 10);
        while !own.is_over() {
            helped.tried(Demand::Fifo(97).make(helped.tid()));
        }
    };
    thread::Builder::new().spawn(life).context("start a helper")?;
    Ok(vec![victim])
}

/// The number of children that one victim forks at most.
const MAX_CHILDREN: usize = 8;

/// The victim forks in its boost, and the child makes the demand for both.
pub fn by_child(play: &Play) -> Result<Vec<Arc<Victim>>> {
    let mut children = 0;
    let own = play.clone();
    let victim = Victim::start(play, move |victim, is_boosted| {
        if is_boosted && children < MAX_CHILDREN {
            children += 1;
            let (parent, life) = (victim.tid(), own.clone());
            victim.tried(
                sys::fork(|| {
                    while !life.is_over() {
                        let _ = Demand::Fifo(97).make(Tid(0));
                        let _ = Demand::Fifo(97).make(parent);
                    }
                })
                .map(drop),
            );
        }
        Ok(())
    })?;
    Ok(vec![victim])
}

/// The number of victims of `born`.
const PARENTS: usize = 12;

/// The number of children that a victim of `born` has at once, at most.
const MAX_ALIVE: usize = 16;

/// The victims fork as soon as they see a pulse. The pulse may end before the kernel copies the
/// policy of the parent, and the next one may begin before the kernel computes the rank of the
/// child from the rank of the parent. The child is SCHED_OTHER by its policy then, and real-time by
/// its rank. Such a child computes to the end.
pub fn born(play: &Play) -> Result<Vec<Arc<Victim>>> {
    let parent = |_| {
        let own = play.clone();
        let mut children = Vec::with_capacity(MAX_ALIVE);
        Victim::start(play, move |victim, is_boosted| {
            children.retain(|&child| !sys::reap(child));
            if is_boosted && children.len() < MAX_ALIVE {
                let life = own.clone();
                let child = sys::fork(|| {
                    let has_rank = sys::own_rank().is_some_and(|rank| rank < 0);
                    while has_rank && !life.is_over() {}
                });
                victim.tried(child.as_ref().map(drop).map_err(|e| io::Error::from(e.kind())));
                children.extend(child);
            }
            Ok(())
        })
    };
    (0..PARENTS).map(parent).collect()
}

extern "C" fn demand_in_handler(_: i32) {
    let _ = Demand::Fifo(97).make(Tid(0));
}

/// A signal handler makes the demand, before anything else that the victim does.
pub fn by_handler(play: &Play) -> Result<Vec<Arc<Victim>>> {
    sys::on_signal(libc::SIGUSR1, demand_in_handler);
    let victim = Victim::start(play, |_, _| Ok(()))?;
    let (own, helped) = (play.clone(), victim.clone());
    let life = move || {
        while !own.is_over() {
            sys::kill_thread(helped.tid(), libc::SIGUSR1);
            clock::nap(Nanos::from_micros(500));
        }
    };
    thread::Builder::new().spawn(life).context("start a helper")?;
    Ok(vec![victim])
}

/// The victim executes this program again in its boost, as the act `next`.
pub fn exec(play: &Play, next: &'static str) -> Result<Vec<Arc<Victim>>> {
    let own = play.clone();
    let program = std::env::current_exe().context("find this program")?;
    let victim = Victim::start(play, move |_, is_boosted| {
        let left = own.until - clock::monotonic();
        if is_boosted && left > Nanos::from_millis(200) {
            let seconds = format!("{}.{:03}", left.as_secs(), left.as_millis() % 1000);
            let error =
                Command::new(&program).args(["--cpu", &own.cpu.to_string(), "--for", &seconds, next]).exec();
            return Err(Error::io("execute this program again", &error));
        }
        Ok(())
    })?;
    Ok(vec![victim])
}

/// The place of the thread that spins with a rank that it was lent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// On the CPU of the victim.
    Same,
    /// On another CPU, for a bounded time.
    Other,
    /// On the CPU of the victim, behind a second mutex owner that is blocked.
    Chain,
}

/// The time for which an owner on another CPU spins without a break.
const MAX_SPIN_ELSEWHERE: Nanos = Nanos::from_millis(300);

/// The victim blocks in its boost on a PI mutex that another thread owns.
pub fn lend(play: &Play, place: Owner) -> Result<Vec<Arc<Victim>>> {
    let mutex = Arc::new(AtomicU32::new(0));
    let spins_on = match place {
        Owner::Chain => Arc::new(AtomicU32::new(0)),
        _ => mutex.clone(),
    };
    own(play, spins_on.clone(), place)?;
    if place == Owner::Chain {
        between(mutex.clone(), spins_on)?;
    }
    let victim = Victim::start(play, move |victim, is_boosted| {
        if is_boosted {
            victim.tried(sys::lock_pi(&mutex));
            let _ = sys::unlock_pi(&mutex);
        }
        Ok(())
    })?;
    Ok(vec![victim])
}

/// Starts the thread that owns the mutex and spins.
fn own(play: &Play, word: Arc<AtomicU32>, place: Owner) -> Result<()> {
    let (play, held) = (play.clone(), word.clone());
    let life = move || {
        let _ = sys::lock_pi(&word);
        if place != Owner::Other {
            let _ = sched::set_affinity(Tid(0), &[play.cpu].into_iter().collect());
            while !play.is_over() {}
            let _ = sys::unlock_pi(&word);
            return;
        }
        while !play.is_over() {
            if word.load(SeqCst) & sys::WAITERS == 0 {
                clock::nap(Nanos::from_millis(1));
                continue;
            }
            clock::spin_until(clock::monotonic() + MAX_SPIN_ELSEWHERE);
            let _ = sys::unlock_pi(&word);
            clock::nap(Nanos::from_millis(100));
            let _ = sys::lock_pi(&word);
        }
    };
    thread::Builder::new().spawn(life).context("start the owner of a mutex")?;
    until(|| held.load(SeqCst) != 0);
    Ok(())
}

/// Starts the thread that owns the first mutex and is blocked on the second one.
fn between(first: Arc<AtomicU32>, second: Arc<AtomicU32>) -> Result<()> {
    let (held, blocked) = (first.clone(), second.clone());
    let life = move || {
        let _ = sys::lock_pi(&first);
        let _ = sys::lock_pi(&second);
    };
    thread::Builder::new().spawn(life).context("start the owner of a mutex")?;
    until(|| held.load(SeqCst) != 0 && blocked.load(SeqCst) & sys::WAITERS != 0);
    Ok(())
}

fn until(is_so: impl Fn() -> bool) {
    while !is_so() {
        clock::nap(Nanos::from_millis(1));
    }
}

/// How a second process stops the victim.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    Signal,
    Trace,
}

/// The length of a stop.
const STOP_LENGTH: Nanos = Nanos::from_millis(300);

/// Another process of the user stops the victim in its boost.
pub fn stop(play: &Play, how: Stop) -> Result<Vec<Arc<Victim>>> {
    sys::allow_tracers();
    let victim = Victim::start(play, |_, _| Ok(()))?;
    let (tid, process, life) = (victim.tid(), Tid(std::process::id() as i32), play.clone());
    sys::fork(|| {
        let mut is_seized = false;
        while !life.is_over() {
            if !is_boosted(tid) {
                clock::nap(Nanos::from_micros(100));
                continue;
            }
            match how {
                Stop::Signal => {
                    sys::kill(process, libc::SIGSTOP);
                    clock::nap(STOP_LENGTH);
                    sys::kill(process, libc::SIGCONT);
                }
                Stop::Trace => {
                    is_seized = is_seized || sys::seize(tid).is_ok();
                    let is_stopped = sys::interrupt(tid).is_ok();
                    clock::nap(STOP_LENGTH);
                    if is_stopped {
                        let _ = sys::go_on(tid);
                    }
                }
            }
        }
    })
    .context("start a tracer")?;
    Ok(vec![victim])
}
