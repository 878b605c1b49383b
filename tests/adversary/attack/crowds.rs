//! Crowds of tasks.

use crate::sys;
use crate::victim::{Play, Victim};
use stalld::cpus::CpuSet;
use stalld::error::{Context, Result};
use stalld::sys::{clock, sched};
use stalld::task::{Nanos, Tid};
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;

/// The size of the stacks. A crowd must not fill the memory.
const STACK: usize = 32 * 1024;

/// Starts threads that sleep on another CPU until all exist. They are moved to the hog's CPU in
/// their sleep, and then run `life`. So no thread has to run behind the hog to begin. `life` gets
/// the number of the thread.
fn crowd(play: &Play, count: usize, life: impl Fn(&Play, usize) + Send + Sync + 'static) -> Result<()> {
    let life = Arc::new(life);
    let (begin, asleep) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicI32::new(0)));
    let tids = Arc::new(Mutex::new(Vec::with_capacity(count)));
    for index in 0..count {
        let (play, life, begin) = (play.clone(), life.clone(), begin.clone());
        let (asleep, tids) = (asleep.clone(), tids.clone());
        let body = move || {
            if let Ok(mut tids) = tids.lock() {
                tids.push(sched::gettid());
            }
            asleep.fetch_add(1, SeqCst);
            while begin.load(SeqCst) == 0 {
                sys::wait(&begin);
            }
            life(&play, index);
        };
        thread::Builder::new().stack_size(STACK).spawn(body).context("start a thread of a crowd")?;
    }
    while asleep.load(SeqCst) < count as i32 {
        clock::nap(Nanos::from_millis(1));
    }
    let hogged: CpuSet = [play.cpu].into_iter().collect();
    for &tid in tids.lock().iter().flat_map(|tids| tids.iter()) {
        sched::set_affinity(tid, &hogged).context("move a thread to the hog's CPU")?;
    }
    // Print before the others start, because this thread may get little of its CPU once they
    // compute.
    println!("crowd count={count}");
    begin.store(1, SeqCst);
    sys::wake_all(&begin);
    Ok(())
}

/// A crowd of threads that compute to the end.
pub fn threads(play: &Play, count: usize) -> Result<Vec<Arc<Victim>>> {
    crowd(play, count, |play, _| while !play.is_over() {})?;
    Ok(Vec::new())
}

/// The time between the wakeups of two threads.
const TURN: Nanos = Nanos::from_millis(5);

/// A crowd of threads that sleep, wake one after the other, compute for a moment, and sleep again.
pub fn turns(play: &Play, count: usize) -> Result<Vec<Arc<Victim>>> {
    let begin = clock::monotonic() + Nanos::from_millis(100);
    crowd(play, count, move |play, index| {
        let mut wake = begin + Nanos(TURN.0 * index as u64);
        while wake < play.until {
            clock::sleep_until(wake);
            clock::spin_until((clock::monotonic() + Nanos::from_micros(100)).min(play.until));
            wake = wake.max(clock::monotonic()) + Nanos(TURN.0 * count as u64);
        }
    })?;
    Ok(Vec::new())
}

/// A crowd of threads that sleep, except one victim, which starves.
pub fn sleepers(play: &Play, count: usize) -> Result<Vec<Arc<Victim>>> {
    for _ in 0..count {
        let until = play.until;
        let life = move || clock::sleep_until(until);
        thread::Builder::new().stack_size(STACK).spawn(life).context("start a thread that sleeps")?;
    }
    Ok(vec![Victim::start(play, |_, _| Ok(()))?])
}

/// The main thread forks a child each millisecond, which ends at once. A thread starves meanwhile.
pub fn forks(play: &Play) -> Result<Vec<Arc<Victim>>> {
    let victim = Victim::start(play, |_, _| Ok(()))?;
    sys::ignore_children();
    let (own, counted) = (play.clone(), victim.clone());
    let life = move || {
        let mut next = clock::monotonic();
        while !own.is_over() {
            counted.tried(sys::fork(|| {}).map(drop));
            next = (next + Nanos::from_millis(1)).max(clock::monotonic());
            clock::sleep_until(next);
        }
    };
    thread::Builder::new().spawn(life).context("start a thread that forks")?;
    Ok(vec![victim])
}

/// The number of children of a brood.
const BROOD: usize = 1000;

/// The victim goes to another CPU in its boost and forks there as fast as it can. The children
/// sleep.
pub fn brood(play: &Play) -> Result<Vec<Arc<Victim>>> {
    let elsewhere = sched::get_affinity(Tid(0)).context("read the CPUs of this process")?;
    let hogged: CpuSet = [play.cpu].into_iter().collect();
    sys::ignore_children();
    let until = play.until;
    let mut is_over = false;
    let victim = Victim::start(play, move |victim, is_boosted| {
        if is_boosted && !is_over {
            is_over = true;
            sched::set_affinity(Tid(0), &elsewhere).context("leave the hog's CPU")?;
            for _ in 0..BROOD {
                victim.tried(sys::fork(|| clock::sleep_until(until)).map(drop));
            }
            sched::set_affinity(Tid(0), &hogged).context("go back to the hog's CPU")?;
        }
        Ok(())
    })?;
    Ok(vec![victim])
}
