//! The time of each call of a boost, for the simulation of hosts with many CPUs.

use crate::figures::{Effort, Line, Row, quantile};
use rig::costs::ASSUMED;
use stalld::boost::kernel::{Host, Kernel};
use stalld::error::{Error, Result};
use stalld::sys::{clock, sched};
use stalld::task::{Nanos, Policy, Tid};
use std::sync::mpsc;
use std::thread;

const ROW: &str = "a call of a boost";

/// A call for a task, in the given round.
type Call = fn(Tid, usize);

const CALLS: [(&str, Nanos, Call); 7] = [
    ("sched_getattr", ASSUMED.get_attr, |tid, _| drop(Host.get_attr(tid))),
    ("sched_setscheduler", ASSUMED.set_attr, set_scheduler),
    ("sched_setattr", ASSUMED.set_attr, |tid, round| {
        // The kernel does nothing if the policy is the same as before.
        drop(Host.set_deadline(tid, Nanos::from_micros(20 + round as u64 % 2), Nanos::from_secs(1), 0));
    }),
    ("stat", ASSUMED.stat, |tid, _| drop(Host.try_start(tid))),
    ("schedstat", ASSUMED.schedstat, |tid, _| _ = Host.runs(tid)),
    ("status", ASSUMED.status, |tid, _| _ = Host.owner(tid)),
    ("timerslack_ns", ASSUMED.slack, |tid, _| _ = Host.timer_slack(tid)),
];

pub fn rows() -> Vec<Row> {
    vec![Row::new(ROW, measure)]
}

fn set_scheduler(tid: Tid, round: usize) {
    let (policy, priority) = if round % 2 == 0 { (Policy::FIFO, 98) } else { (Policy::OTHER, 0) };
    drop(Host.set_scheduler(tid, policy, priority, true));
}

fn measure(effort: &Effort) -> Result<Vec<Line>> {
    let (told, tid) = mpsc::channel();
    let sleeper = thread::spawn(move || {
        let _ = told.send(sched::gettid());
        thread::park();
    });
    // The number 0 would be this thread, which the calls must not raise.
    let tid = tid.recv().map_err(|_| Error::new("the thread to measure by has not started"))?;
    let rounds = effort.choose(500, 5000);
    let mut lines = Vec::new();
    for (name, assumed, call) in CALLS {
        let time = |round| {
            let begun = clock::monotonic();
            call(tid, round);
            (clock::monotonic() - begun).0 as f64 / 1e3
        };
        let times: Vec<f64> = (0..rounds).map(time).collect();
        let (p50, p90) = (quantile(&times, 0.5), quantile(&times, 0.9));
        let assumed = assumed.0 as f64 / 1e3;
        lines.push(Line::new(
            format!("{ROW}: {name}"),
            format!("p50 {p50:.1}, p90 {p90:.1} us"),
            format!("p90 {assumed:.0} us, as simulated"),
            p90 <= assumed,
        ));
    }
    sleeper.thread().unpark();
    let _ = sleeper.join();
    Ok(lines)
}
