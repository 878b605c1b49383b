//! Takes CPU 0 away from stalld now and then, as a hypervisor does.

use stalld::sys::{clock, sched};
use stalld::task::{Cpu, Nanos, Tid};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::{self, JoinHandle};

/// The longest time for which it takes the CPU. The guardian ends a pulse after 2 ms.
const MAX_STOLEN: u64 = 14_000;

/// The longest time between two thefts, in microseconds.
const MAX_PAUSE: u64 = 40_000;

/// A SCHED_DEADLINE thread on CPU 0, because no SCHED_FIFO thread could stop stalld in a pulse.
pub struct Thief {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Thief {
    /// Starts the thread. The kernel admits a SCHED_DEADLINE task of one CPU only while stalld has
    /// turned RT throttling off.
    pub fn start() -> Thief {
        let stop = Arc::new(AtomicBool::new(false));
        let is_over = stop.clone();
        let thread = thread::spawn(move || {
            sched::set_affinity(Tid(0), &[Cpu(0)].into_iter().collect()).unwrap();
            let (budget, period) = (Nanos::from_micros(2 * MAX_STOLEN), Nanos::from_micros(4 * MAX_STOLEN));
            sched::set_deadline(Tid(0), budget, period, 0).unwrap();
            let mut seed = clock::monotonic().0;
            let mut below = |limit: u64| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                Nanos::from_micros((seed >> 33) % limit)
            };
            while !is_over.load(SeqCst) {
                clock::nap(below(MAX_PAUSE));
                clock::spin_until(clock::monotonic() + below(MAX_STOLEN));
            }
        });
        Thief { stop, thread: Some(thread) }
    }
}

impl Drop for Thief {
    fn drop(&mut self) {
        self.stop.store(true, SeqCst);
        let ended = self.thread.take().is_none_or(|thread| thread.join().is_ok());
        assert!(ended || thread::panicking(), "the CPU could not be taken from stalld");
    }
}
