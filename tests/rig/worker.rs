//! A thread that works on command, and sleeps before and after, so that the kernel's own account of
//! its work can be read.

use crate::process;
use stalld::sys::{clock, sched};
use stalld::task::{Comm, Cpu, Nanos, Tid};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};

pub struct Worker<T> {
    tid: Tid,
    /// The first message starts the work. The second one, or closing the channel, ends the thread.
    go: Option<Sender<()>>,
    outcome: Receiver<T>,
    thread: Option<JoinHandle<()>>,
}

/// The kernel's account of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    /// The number of times it was given a CPU.
    pub turns: u64,
    /// The number of times it left a CPU to sleep.
    pub voluntary: u64,
    /// The number of times it left a CPU while runnable.
    pub preempted: u64,
    pub faults: u64,
}

impl<T: Send + 'static> Worker<T> {
    /// Starts a SCHED_FIFO thread, so that only the test's own threads can make it wait. With
    /// priority 0 it is an ordinary thread. It sleeps until `go`.
    pub fn start(
        name: &[u8],
        cpu: Cpu,
        priority: u32,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Worker<T> {
        let (go, orders) = mpsc::channel();
        let (result, outcome) = mpsc::channel();
        let (started, tid) = mpsc::channel();
        let name = Comm::new(name);
        let thread = thread::spawn(move || {
            sched::set_name(&name).expect("cannot name a thread");
            sched::set_affinity(Tid(0), &[cpu].into_iter().collect()).expect("cannot move a thread");
            if priority > 0 {
                sched::set_fifo(Tid(0), priority).expect("cannot make a thread SCHED_FIFO");
            }
            started.send(sched::gettid()).expect("nobody listens");
            if orders.recv().is_ok() {
                let _ = result.send(work());
                let _ = orders.recv();
            }
        });
        let tid = tid.recv().expect("a thread did not start");
        let worker = Worker { tid, go: Some(go), outcome, thread: Some(thread) };
        worker.account();
        worker
    }

    pub fn tid(&self) -> Tid {
        self.tid
    }

    /// Starts its work.
    pub fn go(&self) {
        self.go.as_ref().and_then(|go| go.send(()).ok()).expect("a worker has ended");
    }

    /// Waits for the result of its work. The thread sleeps when this returns.
    pub fn outcome(&self) -> T {
        let outcome = self.outcome.recv().expect("a worker has panicked");
        self.account();
        outcome
    }

    /// Returns its account at a moment at which it sleeps.
    pub fn account(&self) -> Account {
        process::eventually("a worker sleeps", || {
            let before = read(self.tid)?;
            clock::nap(Nanos::from_millis(2));
            (process::is_off_its_queue(self.tid) && read(self.tid) == Some(before)).then_some(before)
        })
    }
}

impl<T> Drop for Worker<T> {
    fn drop(&mut self) {
        self.go.take();
        self.thread.take().map(JoinHandle::join);
    }
}

impl std::ops::Sub for Account {
    type Output = Account;
    fn sub(self, before: Account) -> Account {
        Account {
            turns: self.turns - before.turns,
            voluntary: self.voluntary - before.voluntary,
            preempted: self.preempted - before.preempted,
            faults: self.faults - before.faults,
        }
    }
}

fn read(tid: Tid) -> Option<Account> {
    let schedstat = std::fs::read_to_string(format!("/proc/{tid}/schedstat")).ok()?;
    let switches = |kind: &str| process::status(tid, &format!("{kind}_ctxt_switches"))?.parse().ok();
    Some(Account {
        turns: schedstat.split_whitespace().nth(2)?.parse().ok()?,
        voluntary: switches("voluntary")?,
        preempted: switches("nonvoluntary")?,
        faults: process::faults(tid)?,
    })
}
