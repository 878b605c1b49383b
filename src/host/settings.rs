//! The settings of the machine that stalld changes and restores: RT throttling and HRTICK.

use crate::error::{Context, Error, Result};
use crate::proc;
use crate::sys::clock;
use crate::task::Nanos;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

const RT_RUNTIME: &str = "/proc/sys/kernel/sched_rt_runtime_us";

/// The runtime that turns RT throttling off.
pub const UNTHROTTLED: i64 = -1;

/// Returns the runtime of RT throttling in microseconds; below 0 there is no limit. It allocates
/// nothing, not even for an error, because the guardian of a program with threads must not wait for
/// the allocator.
pub fn rt_runtime_us() -> Result<i64> {
    let mut text = [0; 32];
    let read = File::open(RT_RUNTIME).and_then(|mut file| file.read(&mut text));
    let len = read.map_err(|e| Error::unallocated("cannot read /proc/sys/kernel/sched_rt_runtime_us", &e))?;
    let number = std::str::from_utf8(text.get(..len).unwrap_or_default()).ok();
    let number = number.and_then(|text| text.trim().parse().ok());
    number.ok_or_else(|| Error::new("/proc/sys/kernel/sched_rt_runtime_us holds no number"))
}

/// The most attempts to set the runtime, which are 10 ms apart.
const TRIES: usize = 10;

/// Sets the runtime of RT throttling, and checks that it is set. It allocates nothing, and may
/// sleep for 90 ms.
pub fn set_rt_runtime_us(runtime_us: i64) -> Result<()> {
    let mut tries = 0;
    let written = loop {
        tries += 1;
        match write_rt_runtime_us(runtime_us) {
            // A change at the moment when a DEADLINE task ends makes the kernel's sum of reserved
            // bandwidth wrong. The kernel corrects the sum after it has rejected the next change
            // [6.18].
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) && tries < TRIES => {
                clock::nap(Nanos::from_millis(10));
            }
            written => break written,
        }
    };
    written.map_err(|e| {
        let what = match runtime_us {
            UNTHROTTLED => "cannot write -1 to /proc/sys/kernel/sched_rt_runtime_us",
            _ => "cannot write to /proc/sys/kernel/sched_rt_runtime_us",
        };
        Error::unallocated(what, &e)
    })?;
    if rt_runtime_us()? == runtime_us {
        return Ok(());
    }
    Err(Error::new("/proc/sys/kernel/sched_rt_runtime_us does not keep what is written to it"))
}

/// Uses a single write(2), because each one sets the runtime.
fn write_rt_runtime_us(runtime_us: i64) -> io::Result<()> {
    let write = |text: &str| {
        Some(
            File::options().write(true).open(RT_RUNTIME).and_then(|mut file| file.write_all(text.as_bytes())),
        )
    };
    proc::with_stack_str(format_args!("{runtime_us}"), write)
        .unwrap_or(Err(io::ErrorKind::InvalidInput.into()))
}

/// The scheduler feature that ends a budget when it is used up, and not at the next tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hrtick {
    /// Up to 5.11, for all classes.
    Hrtick,
    HrtickDl,
}

/// Turns HRTICK on or off in `features`, the file that lists the scheduler's features.
pub(crate) fn set_hrtick(features: &Path, hrtick: Hrtick, on: bool) -> Result<()> {
    let name = match hrtick {
        Hrtick::Hrtick => "HRTICK",
        Hrtick::HrtickDl => "HRTICK_DL",
    };
    let word = if on { name.to_string() } else { format!("NO_{name}") };
    fs::write(features, &word).context(format_args!("write {word} to {}", features.display()))
}
