//! The way in: whatever C does, a call comes back with a number.

use crate::abi::{self, stalld};
use crate::failure::{self, Failure, Result};
use crate::handle::{Handle, Watching};
use crate::input;
use libc::{EBUSY, ECHILD, c_char, c_int};
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Once, TryLockError};

/// Runs what a call is for. A panic in it ends here.
pub fn guarded(action: impl FnOnce() -> Result<c_int>) -> c_int {
    let outcome = panic::catch_unwind(AssertUnwindSafe(action));
    let failure = match outcome {
        Ok(Ok(number)) => return number,
        Ok(Err(failure)) => failure,
        Err(_) => panicked(),
    };
    failure::remember(&failure.text);
    -failure.code
}

/// The same for a call that comes back with a text.
pub fn guarded_text(action: impl FnOnce() -> *const c_char) -> *const c_char {
    panic::catch_unwind(AssertUnwindSafe(action))
        .unwrap_or(c"a panic inside of the library was caught".as_ptr())
}

/// The same for a call that one thread at a time may make. After a panic in it, all boosts are
/// restored, and no such call goes through any more.
///
/// # Safety
/// `handle` is NULL or what stalld_open() gave out, and was not closed.
pub unsafe fn with_handle(
    handle: *const stalld,
    action: impl FnOnce(&Handle, &mut Watching) -> Result<c_int>,
) -> c_int {
    guarded(|| {
        // SAFETY: as the caller answers for.
        let handle = unsafe { usable(handle) }?;
        let mut watching = match handle.watching.try_lock() {
            Ok(watching) => watching,
            Err(TryLockError::Poisoned(_)) => return Err(panicked()),
            Err(TryLockError::WouldBlock) => return Err(busy()),
        };
        match panic::catch_unwind(AssertUnwindSafe(|| action(handle, &mut watching))) {
            Ok(outcome) => outcome,
            Err(cause) => {
                drop(panic::catch_unwind(AssertUnwindSafe(|| watching.end())));
                // The lock is given back by the unwinding, and remembers it.
                panic::resume_unwind(cause)
            }
        }
    })
}

/// A handle that is there, and not one of a process that this was forked from.
///
/// # Safety
/// As for `with_handle`.
pub unsafe fn usable<'a>(handle: *const stalld) -> Result<&'a Handle> {
    input::not_null(handle, "handle")?;
    // SAFETY: stalld_open() gives out pointers to a Handle.
    let handle = unsafe { &*handle.cast::<Handle>() };
    match handle.is_ours() {
        true => Ok(handle),
        false => Err(forked()),
    }
}

pub fn busy() -> Failure {
    Failure::new(EBUSY, "the handle is in use, by another thread or around the log function")
}

pub fn forked() -> Failure {
    Failure::new(ECHILD, "the handle belongs to the process that opened it, and this is a child of that")
}

fn panicked() -> Failure {
    Failure::new(
        abi::STALLD_EPANIC,
        "a panic inside of the library was caught: all boosts are restored, and the handle can only be closed",
    )
}

/// Has panics make no noise: stderr is the program's. What handles them is a part of this library,
/// and no other Rust in the program knows of it.
pub fn silence_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| panic::set_hook(Box::new(|_| {})));
}
