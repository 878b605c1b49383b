//! The kernel's own limit on real-time tasks.

use stalld::error::Result;
use stalld::host::settings;
use std::fs;

const LIMIT: &str = "/proc/sys/kernel/sched_rt_runtime_us";

/// Returns the present limit: us of each second, or -1 for none.
pub fn limit() -> String {
    fs::read_to_string(LIMIT).expect("cannot read the limit on real-time tasks").trim().to_string()
}

pub fn set_limit(limit: &str) {
    try_to_set(limit).expect("cannot set the limit on real-time tasks");
}

fn try_to_set(limit: &str) -> Result<()> {
    settings::set_rt_runtime_us(limit.parse().expect("the limit is a number"))
}

/// A limit for the time of a test. Drop restores the former one.
pub struct Throttling(String);

impl Throttling {
    /// Turns throttling off, so that the hog keeps its CPU until it ends.
    pub fn off() -> Throttling {
        Throttling::set("-1")
    }

    /// Turns throttling on: on kernels that have it, no real-time task runs for 50 ms of each
    /// second.
    pub fn on() -> Throttling {
        Throttling::set("950000")
    }

    fn set(to: &str) -> Throttling {
        let before = limit();
        set_limit(to);
        Throttling(before)
    }
}

impl Drop for Throttling {
    fn drop(&mut self) {
        if let Err(e) = try_to_set(&self.0) {
            eprintln!("{e}");
        }
    }
}
