//! Wraps each call from C, so that it returns a number whatever happens.

use crate::abi::{self, stalld};
use crate::failure::{self, Failure, Result};
use crate::handle::{Handle, Watching};
use crate::input;
use libc::{EBUSY, ECHILD, c_char, c_int};
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Once, TryLockError};

/// Runs `action` for a call, and catches a panic in it. Returns a negative number on failure.
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

/// Does the same for a call that returns a text.
pub fn guarded_text(action: impl FnOnce() -> *const c_char) -> *const c_char {
    panic::catch_unwind(AssertUnwindSafe(action))
        .unwrap_or(c"a panic inside of the library was caught".as_ptr())
}

/// Does the same for a call that needs the lock of the handle. It does not wait for the lock: if
/// another thread has it, the call fails with EBUSY. After a panic in the call, all boosts are
/// restored, and each later call of this kind fails.
///
/// # Safety
/// `handle` is NULL, or stalld_open() returned it and it was not closed.
pub unsafe fn with_handle(
    handle: *const stalld,
    action: impl FnOnce(&Handle, &mut Watching) -> Result<c_int>,
) -> c_int {
    guarded(|| {
        // SAFETY: the caller guarantees it.
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
                // The unwinding releases the lock and poisons it.
                panic::resume_unwind(cause)
            }
        }
    })
}

/// Returns the handle; an error if it is NULL, or if another process opened it and then forked this
/// one.
///
/// # Safety
/// As for `with_handle`.
pub unsafe fn usable<'a>(handle: *const stalld) -> Result<&'a Handle> {
    input::not_null(handle, "handle")?;
    // SAFETY: stalld_open() returns pointers to a Handle.
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

/// Suppresses the messages of panics, because stderr belongs to the program. The panic hook is a
/// part of this library: other Rust code in the program has a hook of its own.
pub fn silence_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| panic::set_hook(Box::new(|_| {})));
}
