//! Measures timer jitter: how much later than planned a thread wakes up, on each CPU.
//!
//! A thread per CPU sleeps until one planned time after the other, an interval apart. Planned times
//! that have passed before the thread runs are skipped, so that a delay of a second counts once,
//! and not for each interval in it. A thread that never runs blocks no other thread. At the end,
//! its delay up to then is counted.

use crate::cpus::CpuSet;
use crate::error::{Context, Error, Result};
use crate::sys::{clock, sched};
use crate::task::{Cpu, Nanos, Tid};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread;

/// The shortest interval that leaves time to sleep.
pub(super) const LEAST_INTERVAL: Nanos = Nanos::from_micros(10);

/// The stack size, enough for a loop that calls the clock and a sink.
const STACK: usize = 64 << 10;

/// The interval between two checks whether the sink has returned `Break`.
const LOOK: Nanos = Nanos::from_millis(50);

/// Measures on all of `cpus` for `time`, once per `interval`, at FIFO `priority` if it is set.
///
/// Each delayed thread calls `sink` with its delay. Threads may do so at the same time, so `sink`
/// should neither block nor allocate. If it returns `Break`, the measurement ends. Fails if one of
/// the threads can't be started on its CPU with this priority.
pub fn run<S>(cpus: &CpuSet, interval: Nanos, time: Nanos, priority: Option<u32>, sink: &Arc<S>) -> Result<()>
where
    S: Fn(Cpu, Nanos) -> ControlFlow<()> + Send + Sync + 'static,
{
    if interval < LEAST_INTERVAL {
        let least = LEAST_INTERVAL.0 / 1000;
        return Err(Error::new(format!(
            "an interval of {} ns is too short: {least} us are the least",
            interval.0
        )));
    }
    let enough = Arc::new(AtomicBool::new(false));
    let mut threads = Vec::new();
    for cpu in cpus.iter() {
        let (start, started) = mpsc::channel();
        let due = Arc::new(Due::default());
        let measuring =
            Measuring { cpu, interval, due: due.clone(), sink: sink.clone(), enough: enough.clone() };
        start_thread(measuring, priority, started)?;
        threads.push((cpu, start, due));
    }
    let begin = clock::monotonic();
    for (nth, (_, start, due)) in threads.iter().enumerate() {
        // Spread the wakeups, because wakeups on all CPUs at once would delay each other.
        let first = begin + interval + Nanos(interval.0 / threads.len() as u64 * nth as u64);
        due.set(first);
        // The receiver exists: the thread waits for this message.
        let _ = start.send(first);
    }
    let end = begin + time;
    while !enough.load(Ordering::Relaxed) && clock::monotonic() < end {
        clock::sleep_until(end.min(clock::monotonic() + LOOK));
    }
    for (cpu, _, due) in threads {
        if let Some(late) = due.end(clock::monotonic()) {
            let _ = sink(cpu, late);
        }
    }
    Ok(())
}

/// Starts a thread that waits for its first planned time, and moves it to its CPU. The thread does
/// not move itself, because behind a hog it could not return to report an error.
fn start_thread<S>(measuring: Measuring<S>, priority: Option<u32>, started: Receiver<Nanos>) -> Result<()>
where
    S: Fn(Cpu, Nanos) -> ControlFlow<()> + Send + Sync + 'static,
{
    let cpu = measuring.cpu;
    let (sender, receiver) = mpsc::channel();
    let body = move || {
        clock::be_punctual();
        let _ = sender.send(sched::gettid());
        // The sender is dropped if another thread could not be started.
        if let Ok(first) = started.recv() {
            measuring.run(first);
        }
    };
    let thread = thread::Builder::new().name(format!("jitter/{cpu}")).stack_size(STACK);
    thread.spawn(body).context(format_args!("start a thread for CPU {cpu}"))?;
    let tid: Tid = receiver.recv().map_err(|_| Error::new(format!("the thread for CPU {cpu} has ended")))?;
    let only = [cpu].into_iter().collect();
    sched::set_affinity(tid, &only).context(format_args!("put a thread on CPU {cpu}"))?;
    match priority {
        Some(priority) => sched::set_fifo(tid, priority)
            .context(format_args!("give the thread on CPU {cpu} FIFO priority {priority}")),
        None => Ok(()),
    }
}

/// The data of a measuring thread.
struct Measuring<S> {
    cpu: Cpu,
    interval: Nanos,
    due: Arc<Due>,
    sink: Arc<S>,
    enough: Arc<AtomicBool>,
}

impl<S: Fn(Cpu, Nanos) -> ControlFlow<()>> Measuring<S> {
    fn run(&self, first: Nanos) {
        let mut planned = first;
        loop {
            clock::sleep_until(planned);
            let now = clock::monotonic();
            if !self.due.take(planned) {
                return;
            }
            if (self.sink)(self.cpu, now - planned).is_break() {
                self.enough.store(true, Ordering::Relaxed);
                return;
            }
            planned = next(planned, clock::monotonic(), self.interval);
            if !self.due.set(planned) {
                return;
            }
        }
    }
}

/// Returns the first time after `now` that is a multiple of `interval` after `planned`.
fn next(planned: Nanos, now: Nanos, interval: Nanos) -> Nanos {
    let passed = (now - planned).0 / interval.0;
    planned + Nanos(interval.0.saturating_mul(passed + 1))
}

/// The planned time until which a thread sleeps. Either the thread or the end of the measurement
/// takes it, and reports the delay.
#[derive(Default)]
struct Due(AtomicU64);

impl Due {
    /// The value while the thread is awake.
    const NONE: u64 = 0;
    /// The value after the end of the measurement.
    const OVER: u64 = u64::MAX;

    /// Sets the next planned time. Returns false if the measurement has ended.
    fn set(&self, planned: Nanos) -> bool {
        self.0.compare_exchange(Due::NONE, planned.0, Ordering::Release, Ordering::Relaxed).is_ok()
    }

    /// Takes the planned time. Returns false if the measurement has ended.
    fn take(&self, planned: Nanos) -> bool {
        self.0.compare_exchange(planned.0, Due::NONE, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Ends the measurement. Returns the delay of a thread that should have woken up before `now`.
    fn end(&self, now: Nanos) -> Option<Nanos> {
        let planned = self.0.swap(Due::OVER, Ordering::AcqRel);
        (planned != Due::NONE && planned < now.0).then(|| now - Nanos(planned))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::cpu;
    use std::sync::atomic::AtomicUsize;

    const MILLI: Nanos = Nanos::from_millis(1);

    fn sink(_: Cpu, _: Nanos) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    #[test]
    fn each_cpu_is_measured_on_itself() {
        let cpus = sched::get_affinity(Tid(0)).unwrap();
        let last = cpus.iter().last().unwrap();
        let seen: Arc<Vec<AtomicUsize>> = Arc::new((0..=last.0).map(|_| AtomicUsize::new(0)).collect());
        let (counts, main) = (seen.clone(), sched::gettid());
        let sink = Arc::new(move |cpu: Cpu, _| {
            // The main thread reports how late a CPU is at the end.
            if cpu == cpu::current() || main == sched::gettid() {
                counts[cpu.0 as usize].fetch_add(1, Ordering::Relaxed);
                return ControlFlow::Continue(());
            }
            ControlFlow::Break(())
        });
        run(&cpus, MILLI, Nanos::from_millis(200), None, &sink).unwrap();
        for cpu in cpus.iter() {
            assert_ne!(seen[cpu.0 as usize].load(Ordering::Relaxed), 0, "{cpu}");
        }
    }

    #[test]
    fn a_sink_that_breaks_ends_the_measurement() {
        let cpus = sched::get_affinity(Tid(0)).unwrap();
        let begin = clock::monotonic();
        run(&cpus, MILLI, Nanos::from_secs(60), None, &Arc::new(|_, _| ControlFlow::Break(()))).unwrap();
        assert!(clock::monotonic() - begin < Nanos::from_secs(30));
    }

    #[test]
    fn an_impossible_measurement_fails_at_once() {
        let all = sched::get_affinity(Tid(0)).unwrap();
        let refused = |cpus: &CpuSet, interval, priority| {
            let error = run(cpus, interval, Nanos::from_secs(60), priority, &Arc::new(sink)).unwrap_err();
            error.to_string()
        };
        assert_eq!(
            refused(&all, Nanos(9999), None),
            "an interval of 9999 ns is too short: 10 us are the least"
        );
        let nowhere = [Cpu(8191)].into_iter().collect();
        assert_eq!(refused(&nowhere, MILLI, None), "cannot put a thread on CPU 8191: Invalid argument");
        let error = refused(&all, MILLI, Some(100));
        assert!(error.starts_with("cannot give the thread on CPU "), "{error}");
        assert!(error.contains(" FIFO priority 100: "), "{error}");
    }

    #[test]
    fn moments_that_have_passed_are_left_out() {
        for (now, expected) in [(100, 110), (109, 110), (110, 120), (1234, 1240), (5, 110)] {
            assert_eq!(next(Nanos(100), Nanos(now), Nanos(10)), Nanos(expected), "{now}");
        }
    }

    #[test]
    fn either_the_thread_or_the_end_reports_how_late_it_was() {
        let due = Due::default();
        assert!(due.set(Nanos(100)) && due.take(Nanos(100)) && due.set(Nanos(200)));
        assert_eq!(due.end(Nanos(250)), Some(Nanos(50)));
        assert!(!due.take(Nanos(200)) && !due.set(Nanos(300)));

        let awake = Due::default();
        assert!(awake.set(Nanos(100)) && awake.take(Nanos(100)));
        assert_eq!(awake.end(Nanos(250)), None);
        assert!(!awake.set(Nanos(300)));

        let early = Due::default();
        assert!(early.set(Nanos(300)));
        assert_eq!(early.end(Nanos(250)), None);
    }
}
