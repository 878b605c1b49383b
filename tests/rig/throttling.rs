//! The kernel's own limit on real-time tasks.

use stalld::error::Result;
use stalld::host::settings;
use std::fs;

const LIMIT: &str = "/proc/sys/kernel/sched_rt_runtime_us";

/// The limit now: us of each second, or -1 for none.
pub fn limit() -> String {
    fs::read_to_string(LIMIT).expect("cannot read the limit on real-time tasks").trim().to_string()
}

pub fn set_limit(limit: &str) {
    try_to_set(limit).expect("cannot set the limit on real-time tasks");
}

fn try_to_set(limit: &str) -> Result<()> {
    settings::set_rt_runtime_us(limit.parse().expect("the limit is a number"))
}

/// Sets the limit for the time of a test, and puts back what was there when dropped.
pub struct Throttling(String);

impl Throttling {
    /// Nothing but its end takes a CPU from the hog.
    pub fn off() -> Throttling {
        Throttling::set("-1")
    }

    /// Where the kernel still has this, nobody real-time runs for 50 ms in each second.
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
