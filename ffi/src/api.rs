//! The functions of the C interface.
//!
//! Each function checks its arguments. It returns 0 or more, a negative errno, or one of the
//! library's own numbers with a minus. No check can find a handle that was closed, or a pointer
//! that is neither NULL nor valid.

// The text above each function is that of the header, for readers of C.
#![allow(clippy::missing_safety_doc)]

use crate::abi::{stalld, stalld_event, stalld_options, stalld_stats, stalld_waiter};
use crate::entry::{self, guarded, guarded_text, usable, with_handle};
use crate::events;
use crate::failure;
use crate::handle::Handle;
use crate::input::{self, Places};
use crate::options::{self, Options};
use libc::{c_char, c_int};
use std::ptr;

// The sizes in the first version. No program passes a smaller one.
const EVENT: usize = 160;
const WAITER: usize = 104;
const STATS: usize = 96;

/// Opens a handle and stores it in `*handle`. If `options` is NULL, the defaults apply. The program
/// owns the handle, and has to close it by stalld_close(). On failure, `*handle` is NULL.
///
/// -EFAULT: `handle` is NULL. -EINVAL: an option is out of range, a flag is unknown, or `sz` is no
/// valid size. -E2BIG: the options are larger than this version knows, and the unknown part is not
/// all zeros; or `sz` is not set. -EPERM or another errno: no backend works or boosts can't be set
/// up, for this reason. -STALLD_EBACKEND: no backend works, and no errno gives the reason.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stalld_open(handle: *mut *mut stalld, options: *const stalld_options) -> c_int {
    entry::silence_panics();
    guarded(|| {
        input::not_null(handle, "handle")?;
        // SAFETY: it is not NULL, and the program guarantees that it is valid.
        unsafe { handle.write(ptr::null_mut()) };
        // SAFETY: the program guarantees that the options are valid.
        let options = unsafe { Options::read(options) }?;
        let opened = Box::new(Handle::open(&options)?);
        // SAFETY: as above.
        unsafe { handle.write(Box::into_raw(opened).cast()) };
        Ok(0)
    })
}

/// Ends all boosts, restores the settings of the machine, and frees the handle. NULL is allowed,
/// and does nothing. In a child that was forked after stalld_open(), it frees the child's copy and
/// returns -ECHILD. It restores nothing there, because the parent does.
///
/// -EBUSY: another call with this handle runs, such as the one that called the log function.
/// Nothing was done.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stalld_close(handle: *mut stalld) -> c_int {
    if handle.is_null() {
        return 0;
    }
    guarded(|| {
        // SAFETY: it came from stalld_open().
        if unsafe { &*handle.cast::<Handle>() }.is_busy() {
            return Err(entry::busy());
        }
        // SAFETY: stalld_open() made it by Box::into_raw, and the program gives it back.
        let handle = unsafe { Box::from_raw(handle.cast::<Handle>()) };
        handle.close().map(|()| 0)
    })
}

/// Returns the file descriptor to poll for input, by poll(2), select(2) or an epoll set. When it is
/// ready, the program has to call stalld_dispatch(). The descriptor belongs to the handle, and must
/// be neither read nor closed.
///
/// -EFAULT: `handle` is NULL. -ECHILD: the handle belongs to the parent.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stalld_fd(handle: *const stalld) -> c_int {
    // SAFETY: the program guarantees that the handle is valid.
    guarded(|| unsafe { usable(handle) }.map(|handle| handle.alarm.descriptor()))
}

/// Does the work that is due: scans, boosts and restores. It never waits for an event, and may be
/// called at any time. Returns the number of events for stalld_next_event().
///
/// -ECANCELED: stalld_stop() was called, and everything is restored. -EFAULT, -ECHILD, -EBUSY,
/// -STALLD_EPANIC. -STALLD_ESCAN or another errno: this one scan failed. The next one is due in
/// time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stalld_dispatch(handle: *mut stalld) -> c_int {
    // SAFETY: the program guarantees that the handle is valid.
    unsafe { with_handle(handle, |handle, watching| handle.dispatch(watching).map(counted)) }
}

/// Moves the oldest event to `*event`, which is `sz` bytes long. Returns 1, or 0 if there is no
/// event.
///
/// -EFAULT: a pointer is NULL. -EINVAL, -E2BIG: `sz` is not sizeof(struct stalld_event). -ECHILD,
/// -EBUSY, -STALLD_EPANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stalld_next_event(
    handle: *mut stalld,
    event: *mut stalld_event,
    sz: usize,
) -> c_int {
    let take = |_: &Handle, watching: &mut crate::handle::Watching| {
        // SAFETY: the program guarantees that the place is valid.
        let mut place = unsafe { Places::new(event, 1, sz, EVENT, "event") }?;
        let taken = watching.queue().take();
        Ok(taken.map_or(0, |taken| c_int::from(place.put(0, &taken))))
    };
    // SAFETY: the program guarantees that the handle is valid.
    unsafe { with_handle(handle, take) }
}

/// Makes the descriptor ready, and makes the next stalld_dispatch() restore everything and return
/// -ECANCELED. It may be called from any thread, and from a signal handler.
///
/// -EFAULT: `handle` is NULL. -ECHILD: the handle belongs to the parent.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stalld_stop(handle: *mut stalld) -> c_int {
    if handle.is_null() {
        return -libc::EFAULT;
    }
    // SAFETY: stalld_open() returns pointers to a Handle. Nothing here may take a lock or allocate,
    // not even to store an error text, and nothing panics.
    let handle = unsafe { &*handle.cast::<Handle>() };
    if !handle.is_ours() {
        return -libc::ECHILD;
    }
    handle.stop();
    0
}

/// Boosts a task, starving or not, by SCHED_DEADLINE with the budget of the options, or by pulses
/// of SCHED_FIFO. The boost ends after the duration of the options, or earlier by stalld_restore(),
/// stalld_stop() or stalld_close(). stalld_dispatch() restores the task, so it has to be called in
/// time. No flag is needed.
///
/// -EINVAL: `tid` is not positive, or the task is SCHED_DEADLINE. -ESRCH: there is no such task.
/// -EPERM: the kernel does not allow it. -EALREADY: this handle boosts the task already. -EAGAIN:
/// its CPU has the most boosts that it may have, or another process changes the task at this
/// moment. -ENOSPC: the journal is full. -ECANCELED: the handle is stopped. -EFAULT, -ECHILD,
/// -EBUSY, -STALLD_EPANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stalld_boost(handle: *mut stalld, tid: i32) -> c_int {
    // SAFETY: the program guarantees that the handle is valid.
    unsafe { with_handle(handle, |handle, watching| handle.request(watching, tid, true).map(|()| 0)) }
}

/// Ends the boost of a task, whether stalld_boost() or the library started it. An event reports the
/// result: STALLD_EVENT_RESTORED or another one.
///
/// -ENOENT: this handle does not boost the task. -EINVAL: `tid` is not positive. -ECANCELED: the
/// handle is stopped, and everything is restored. -EFAULT, -ECHILD, -EBUSY, -STALLD_EPANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stalld_restore(handle: *mut stalld, tid: i32) -> c_int {
    // SAFETY: the program guarantees that the handle is valid.
    unsafe { with_handle(handle, |handle, watching| handle.request(watching, tid, false).map(|()| 0)) }
}

/// Scans once, and copies all waiters to `waiters`, an array of `count` structs of `sz` bytes each,
/// in no particular order. Returns the number of waiters. If it is more than `count`, the rest is
/// dropped. `waiters` may be NULL if `count` is 0.
///
/// -EFAULT, -ECHILD, -EBUSY, -STALLD_EPANIC. -EINVAL, -E2BIG: `sz` is not sizeof(struct
/// stalld_waiter). -STALLD_ESCAN or another errno: the scan failed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stalld_snapshot(
    handle: *mut stalld,
    waiters: *mut stalld_waiter,
    count: usize,
    sz: usize,
) -> c_int {
    let scan = |_: &Handle, watching: &mut crate::handle::Watching| {
        // SAFETY: the program guarantees that the places are valid.
        let mut places = unsafe { Places::new(waiters, count, sz, WAITER, "waiters") }?;
        let mut index = 0;
        let seen = watching.snapshot(|waiter, wait, hog| {
            places.put(index, &events::waiting(waiter, wait, hog));
            index += 1;
        });
        seen.map(counted)
    };
    // SAFETY: the program guarantees that the handle is valid.
    unsafe { with_handle(handle, scan) }
}

/// Copies the counters to `*stats`, which is `sz` bytes long.
///
/// -EFAULT, -ECHILD, -EBUSY, -STALLD_EPANIC. -EINVAL, -E2BIG: `sz` is not sizeof(struct
/// stalld_stats).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stalld_get_stats(handle: *mut stalld, stats: *mut stalld_stats, sz: usize) -> c_int {
    let tell = |_: &Handle, watching: &mut crate::handle::Watching| {
        // SAFETY: the program guarantees that the place is valid.
        let mut place = unsafe { Places::new(stats, 1, sz, STATS, "stats") }?;
        place.put(0, &watching.stats());
        Ok(0)
    };
    // SAFETY: the program guarantees that the handle is valid.
    unsafe { with_handle(handle, tell) }
}

/// Returns the backend in use: STALLD_BACKEND_TASK_ITER or another.
///
/// -EFAULT, -ECHILD, -EBUSY, -STALLD_EPANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stalld_backend(handle: *mut stalld) -> c_int {
    // SAFETY: the program guarantees that the handle is valid.
    unsafe { with_handle(handle, |_, watching| Ok(options::number_of(watching.kind()))) }
}

/// Returns the name of a backend, such as "task_iter"; NULL if no backend has this number. The
/// string is valid for ever.
#[unsafe(no_mangle)]
pub extern "C" fn stalld_backend_name(backend: c_int) -> *const c_char {
    options::name_of_backend(backend)
}

/// Returns the meaning of a number that a function has returned, with its minus or without. The
/// text is valid until this thread calls stalld_strerror() again.
#[unsafe(no_mangle)]
pub extern "C" fn stalld_strerror(error: c_int) -> *const c_char {
    guarded_text(|| failure::describe(error))
}

/// Returns the error text of the last call that failed in this thread: one line without a newline;
/// "" if no call has failed. The text is valid until the next call fails in this thread.
/// stalld_stop() leaves no text.
#[unsafe(no_mangle)]
pub extern "C" fn stalld_last_error() -> *const c_char {
    guarded_text(failure::last)
}

/// Returns the version of the library, such as "0.1.0". The string is valid for ever.
#[unsafe(no_mangle)]
pub extern "C" fn stalld_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// Returns the version of the library as one number: 65536 times the major number, plus 256 times
/// the minor number, plus the patch number.
#[unsafe(no_mangle)]
pub extern "C" fn stalld_version_number() -> c_int {
    use crate::abi::{STALLD_VERSION_MAJOR, STALLD_VERSION_MINOR, STALLD_VERSION_PATCH};
    (STALLD_VERSION_MAJOR << 16 | STALLD_VERSION_MINOR << 8 | STALLD_VERSION_PATCH) as c_int
}

/// Converts a count; the largest c_int if it does not fit.
fn counted(count: usize) -> c_int {
    c_int::try_from(count).unwrap_or(c_int::MAX)
}
