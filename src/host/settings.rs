//! The settings of the machine that stalld changes for as long as it boosts.

use crate::error::{Context, Error, Result};
use crate::sys::clock;
use crate::task::Nanos;
use std::fs;
use std::path::Path;

const RT_RUNTIME: &str = "/proc/sys/kernel/sched_rt_runtime_us";

/// No limit.
pub const UNTHROTTLED: i64 = -1;

/// How much of each period real-time tasks may have, in microseconds; below 0 there is no limit.
pub fn rt_runtime_us() -> Result<i64> {
    let text = fs::read_to_string(RT_RUNTIME).context(format_args!("read {RT_RUNTIME}"))?;
    text.trim().parse().map_err(|_| Error::new(format!("{RT_RUNTIME} holds no number")))
}

/// As often as a change is tried, 10 ms apart.
const TRIES: usize = 10;

/// Sets it, and makes sure that it is set.
pub fn set_rt_runtime_us(runtime_us: i64) -> Result<()> {
    let mut tries = 0;
    let written = loop {
        tries += 1;
        match fs::write(RT_RUNTIME, runtime_us.to_string()) {
            // After a change while a DEADLINE task is on its way out, the kernel miscounts what is reserved, and
            // sets that right when it has refused the next change [6.18].
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) && tries < TRIES => {
                clock::nap(Nanos::from_millis(10));
            }
            written => break written,
        }
    };
    written.context(format_args!("write {runtime_us} to {RT_RUNTIME}"))?;
    match rt_runtime_us()? {
        now if now == runtime_us => Ok(()),
        now => Err(Error::new(format!("{RT_RUNTIME} is {now}, though {runtime_us} was written to it"))),
    }
}

/// What has budgets enforced when they are used up, and not at the next tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hrtick {
    /// Up to 5.11, for all classes.
    Hrtick,
    HrtickDl,
}

/// Turns it on or off, in the file that lists the scheduler's features.
pub fn set_hrtick(features: &Path, hrtick: Hrtick, on: bool) -> Result<()> {
    let name = match hrtick {
        Hrtick::Hrtick => "HRTICK",
        Hrtick::HrtickDl => "HRTICK_DL",
    };
    let word = if on { name.to_string() } else { format!("NO_{name}") };
    fs::write(features, &word).context(format_args!("write {word} to {}", features.display()))
}
