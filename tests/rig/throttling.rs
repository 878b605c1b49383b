//! Takes the kernel's own limit on real-time tasks away for the time of a test.

use std::fs;

const LIMIT: &str = "/proc/sys/kernel/sched_rt_runtime_us";

/// While this lives, nothing but its end takes a CPU from the hog. Without it that happens for 50 ms in
/// each second. Puts back what was there.
pub struct Unthrottled(String);

impl Unthrottled {
    pub fn new() -> Unthrottled {
        let before = fs::read_to_string(LIMIT).expect("cannot read the limit on real-time tasks");
        fs::write(LIMIT, "-1").expect("cannot lift the limit on real-time tasks");
        Unthrottled(before)
    }
}

impl Drop for Unthrottled {
    fn drop(&mut self) {
        if let Err(e) = fs::write(LIMIT, self.0.trim()) {
            eprintln!("cannot write {} back to {LIMIT}: {e}", self.0.trim());
        }
    }
}
