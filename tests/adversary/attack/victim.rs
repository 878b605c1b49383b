//! A thread that computes on the hogged CPU, and attacks from there.

use stalld::error::{Context, Result};
use stalld::sys::{clock, sched};
use stalld::task::{Comm, Cpu, Nanos, Policy, Tid};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering::SeqCst};
use std::thread;

/// The interval in which the main thread reports what the attackers have seen.
const REPORT_INTERVAL: Nanos = Nanos::from_millis(10);

/// The parts of the command line that all attacks share.
#[derive(Clone)]
pub struct Play {
    pub cpu: Cpu,
    pub until: Nanos,
    /// The user to which root changes first.
    pub user: Option<u32>,
    pub name: Option<Comm>,
    /// The file of a control group to which the threads are written.
    pub group: Option<String>,
}

impl Play {
    pub fn is_over(&self) -> bool {
        clock::monotonic() >= self.until
    }
}

/// The record of one attacker.
#[derive(Default)]
pub struct Victim {
    tid: AtomicI32,
    boosts: AtomicU64,
    tries: AtomicU64,
    granted: AtomicU64,
}

impl Victim {
    /// Starts a thread on the hogged CPU that calls `act` again and again. Its argument is the
    /// record of the thread and whether the thread is boosted.
    pub fn start(
        play: &Play,
        mut act: impl FnMut(&Victim, bool) -> Result<()> + Send + 'static,
    ) -> Result<Arc<Victim>> {
        let victim = Arc::new(Victim::default());
        let (own, play) = (victim.clone(), play.clone());
        let life = move || {
            own.tid.store(sched::gettid().0, SeqCst);
            if let Err(error) = own.live(&play, &mut act) {
                eprintln!("attack: {error}");
            }
        };
        thread::Builder::new().spawn(life).context("start a thread")?;
        while victim.tid() == Tid(0) {
            clock::nap(Nanos::from_millis(1));
        }
        println!("victim tid={}", victim.tid());
        Ok(victim)
    }

    fn live(&self, play: &Play, act: &mut impl FnMut(&Victim, bool) -> Result<()>) -> Result<()> {
        if let Some(name) = &play.name {
            sched::set_name(name).context("name a thread")?;
        }
        sched::set_affinity(Tid(0), &[play.cpu].into_iter().collect()).context("move to the hog's CPU")?;
        let mut was_boosted = false;
        while !play.is_over() {
            let is_boosted = is_boosted(Tid(0));
            if is_boosted && !was_boosted {
                self.boosts.fetch_add(1, SeqCst);
            }
            was_boosted = is_boosted;
            act(self, is_boosted)?;
        }
        Ok(())
    }

    pub fn tid(&self) -> Tid {
        Tid(self.tid.load(SeqCst))
    }

    /// Counts an attempt, and whether the kernel granted it.
    pub fn tried(&self, result: std::io::Result<()>) {
        self.tries.fetch_add(1, SeqCst);
        self.granted.fetch_add(result.is_ok().into(), SeqCst);
    }
}

/// Returns whether a task has the policy of a boost. No task of this user has it otherwise.
pub fn is_boosted(tid: Tid) -> bool {
    sched::get_attr(tid)
        .is_ok_and(|attr| attr.policy == Policy::DEADLINE || attr.policy.is_realtime() && attr.priority > 1)
}

/// Prints the first boost of each attacker, and all counts at the end. The main thread does that
/// because a thread behind the hog would hold the lock of stdout.
pub fn report(play: &Play, victims: &[Arc<Victim>]) {
    let mut is_told = vec![false; victims.len()];
    loop {
        for (victim, is_told) in victims.iter().zip(&mut is_told) {
            if !*is_told && victim.boosts.load(SeqCst) > 0 {
                *is_told = true;
                println!("boosted tid={}", victim.tid());
            }
        }
        if play.is_over() {
            break;
        }
        clock::nap(REPORT_INTERVAL);
    }
    for victim in victims {
        let count = |counter: &AtomicU64| counter.load(SeqCst);
        let (boosts, tries, granted) = (count(&victim.boosts), count(&victim.tries), count(&victim.granted));
        println!("end victim tid={} boosts={boosts} tries={tries} granted={granted}", victim.tid());
    }
}
