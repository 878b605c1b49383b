//! System calls, and all `unsafe` code.

pub mod alarm;
#[cfg(feature = "bpf")]
pub mod bpf;
pub mod clock;
pub mod cpu;
pub mod file;
pub mod lock;
#[cfg(feature = "bpf")]
pub mod map;
pub mod memory;
#[cfg(feature = "bpf")]
pub mod perf;
pub mod process;
pub mod sched;
pub mod shared;
pub mod signal;
pub mod switching;
pub mod trial;
pub mod wait;

use std::io;

/// Turns the -1 of a system call into the error that errno names.
fn check<T: PartialEq + From<i8>>(result: T) -> io::Result<T> {
    if result == T::from(-1) { Err(io::Error::last_os_error()) } else { Ok(result) }
}
