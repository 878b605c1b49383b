//! Sets the kernel's own limit on real-time tasks for the time of a test.

use std::fs;

const LIMIT: &str = "/proc/sys/kernel/sched_rt_runtime_us";

/// The limit, in us of each second. Puts back what was there when dropped.
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

    fn set(limit: &str) -> Throttling {
        let before = fs::read_to_string(LIMIT).expect("cannot read the limit on real-time tasks");
        fs::write(LIMIT, limit).expect("cannot set the limit on real-time tasks");
        Throttling(before)
    }
}

impl Drop for Throttling {
    fn drop(&mut self) {
        if let Err(e) = fs::write(LIMIT, self.0.trim()) {
            eprintln!("cannot write {} back to {LIMIT}: {e}", self.0.trim());
        }
    }
}
