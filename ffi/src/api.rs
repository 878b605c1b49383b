//! The functions of the C interface.
//!
//! Each checks what it is given, and returns 0 or more, or a negative errno, or one of the
//! library's own numbers with a minus. What no check can find out is in the header's own words: a
//! handle that was closed, and pointers that are neither NULL nor good for what they point to.

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

// The sizes of the first version, which no program falls short of.
const EVENT: usize = 160;
const WAITER: usize = 104;
const STATS: usize = 96;

/// Opens a handle, by options or, where `options` is NULL, by defaults, and puts it into `*handle`.
/// The program owns it, and gives it back to stalld_close(). Where this fails, `*handle` is NULL.
///
/// -EFAULT: `handle` is NULL. -EINVAL: an option is out of range, or a flag unknown. -E2BIG: the options are larger
/// than this version knows, and ask for something there; or `sz` is not set. -EPERM and others:
/// what no backend could do without, where one errno is behind it; else -STALLD_EBACKEND.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stalld_open(handle: *mut *mut stalld, options: *const stalld_options) -> c_int {
    entry::silence_panics();
    guarded(|| {
        input::not_null(handle, "handle")?;
        // SAFETY: it is not NULL, and the program answers for the rest.
        unsafe { handle.write(ptr::null_mut()) };
        // SAFETY: the program answers for the options.
        let options = unsafe { Options::read(options) }?;
        let opened = Box::new(Handle::open(&options)?);
        // SAFETY: as above.
        unsafe { handle.write(Box::into_raw(opened).cast()) };
        Ok(0)
    })
}

/// Restores every boost that is in flight, puts back all else that was changed, and frees the
/// handle. NULL is allowed, and does nothing. In a child that was forked since, it frees the
/// child's copy and restores nothing, which is for the parent to do: -ECHILD.
///
/// -EBUSY: it is called by the log function, and nothing was done.
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

/// The file descriptor to wait on, with poll(2), select(2) or in an epoll set, for input: then
/// stalld_dispatch() is to be called. It belongs to the handle: it must be neither read nor closed.
///
/// -EFAULT: `handle` is NULL. -ECHILD: it is the parent's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stalld_fd(handle: *const stalld) -> c_int {
    // SAFETY: the program answers for the handle.
    guarded(|| unsafe { usable(handle) }.map(|handle| handle.alarm.descriptor()))
}

/// Does what is due: looks, boosts, restores. It never waits for something to happen, and may be
/// called at any time. Returns how many events there are to be taken by stalld_next_event().
///
/// -ECANCELED: stalld_stop() was called, and everything has been put back. -EFAULT, -ECHILD, -EBUSY,
/// -STALLD_EPANIC. Other errors are of this one look, and the next one is due in time: -STALLD_ELOOK, or an errno.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stalld_dispatch(handle: *mut stalld) -> c_int {
    // SAFETY: the program answers for the handle.
    unsafe { with_handle(handle, |handle, watching| handle.dispatch(watching).map(counted)) }
}

/// Takes the oldest event into `*event`, which is `sz` bytes long. Returns 1, or 0 where there is
/// none.
///
/// -EFAULT: a pointer is NULL. -EINVAL, -E2BIG: `sz` is not sizeof(struct stalld_event). -ECHILD, -EBUSY,
/// -STALLD_EPANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stalld_next_event(
    handle: *mut stalld,
    event: *mut stalld_event,
    sz: usize,
) -> c_int {
    let take = |_: &Handle, watching: &mut crate::handle::Watching| {
        // SAFETY: the program answers for the place.
        let mut place = unsafe { Places::new(event, 1, sz, EVENT, "event") }?;
        let taken = watching.queue().take();
        Ok(taken.map_or(0, |taken| c_int::from(place.put(0, &taken))))
    };
    // SAFETY: the program answers for the handle.
    unsafe { with_handle(handle, take) }
}

/// Has the next stalld_dispatch() put everything back and return -ECANCELED, and the descriptor
/// ready for that. It may be called from any thread, and from a signal handler.
///
/// -EFAULT: `handle` is NULL. -ECHILD: it is the parent's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stalld_stop(handle: *mut stalld) -> c_int {
    if handle.is_null() {
        return -libc::EFAULT;
    }
    // SAFETY: stalld_open() gives out pointers to a Handle. Nothing here may take a lock or memory,
    // not even to remember a text, and nothing panics.
    let handle = unsafe { &*handle.cast::<Handle>() };
    if !handle.is_ours() {
        return -libc::ECHILD;
    }
    handle.stop();
    0
}

/// Boosts a task, starving or not: SCHED_DEADLINE with the options' budget, or in pulses of
/// SCHED_FIFO, until stalld_restore(), stalld_stop() or stalld_close(), but no longer than the
/// options' duration. It is lowered again by stalld_dispatch(), which has to be called in time. No
/// flag is needed.
///
/// -EINVAL: no number of a task, or the task is SCHED_DEADLINE. -ESRCH: there is no such task. -EPERM: the kernel does not
/// allow it. -EALREADY: it is boosted by this handle. -EAGAIN: its CPU has as many boosts as it can
/// bear, or somebody else is about to change the task. -ENOSPC: the journal is full. -ECANCELED:
/// stopped. -EFAULT, -ECHILD, -EBUSY, -STALLD_EPANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stalld_boost(handle: *mut stalld, tid: i32) -> c_int {
    // SAFETY: the program answers for the handle.
    unsafe { with_handle(handle, |handle, watching| handle.request(watching, tid, true).map(|()| 0)) }
}

/// Ends the boost of a task, whether it was asked for or not. How it went is an event:
/// STALLD_EVENT_RESTORED or another.
///
/// -ENOENT: this handle does not boost it. -EINVAL: no number of a task. -ECANCELED: stopped, and all is restored. -EFAULT,
/// -ECHILD, -EBUSY, -STALLD_EPANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stalld_restore(handle: *mut stalld, tid: i32) -> c_int {
    // SAFETY: the program answers for the handle.
    unsafe { with_handle(handle, |handle, watching| handle.request(watching, tid, false).map(|()| 0)) }
}

/// Looks once, and puts all tasks that wait into `waiters`, `count` places of `sz` bytes each, in
/// no particular order. Returns how many wait; where that is more than `count`, the rest is left
/// out. `waiters` may be NULL if `count` is 0.
///
/// -EFAULT, -ECHILD, -EBUSY, -STALLD_EPANIC. -EINVAL, -E2BIG: `sz` is not sizeof(struct stalld_waiter). -STALLD_ELOOK or
/// an errno: the look failed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stalld_snapshot(
    handle: *mut stalld,
    waiters: *mut stalld_waiter,
    count: usize,
    sz: usize,
) -> c_int {
    let look = |_: &Handle, watching: &mut crate::handle::Watching| {
        // SAFETY: the program answers for the places.
        let mut places = unsafe { Places::new(waiters, count, sz, WAITER, "waiters") }?;
        let mut index = 0;
        let seen = watching.snapshot(|waiter, wait, hog| {
            places.put(index, &events::waiting(waiter, wait, hog));
            index += 1;
        });
        seen.map(counted)
    };
    // SAFETY: the program answers for the handle.
    unsafe { with_handle(handle, look) }
}

/// Puts what has happened so far into `*stats`, which is `sz` bytes long.
///
/// -EFAULT, -ECHILD, -EBUSY, -STALLD_EPANIC. -EINVAL, -E2BIG: `sz` is not sizeof(struct stalld_stats).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stalld_get_stats(handle: *mut stalld, stats: *mut stalld_stats, sz: usize) -> c_int {
    let tell = |_: &Handle, watching: &mut crate::handle::Watching| {
        // SAFETY: the program answers for the place.
        let mut place = unsafe { Places::new(stats, 1, sz, STATS, "stats") }?;
        place.put(0, &watching.stats());
        Ok(0)
    };
    // SAFETY: the program answers for the handle.
    unsafe { with_handle(handle, tell) }
}

/// The backend in use: STALLD_BACKEND_TASK_ITER or another.
///
/// -EFAULT, -ECHILD, -EBUSY, -STALLD_EPANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stalld_backend(handle: *mut stalld) -> c_int {
    // SAFETY: the program answers for the handle.
    unsafe { with_handle(handle, |_, watching| Ok(options::number_of(watching.kind()))) }
}

/// The name of a backend, such as "task_iter"; NULL where there is none of this number. It lives
/// forever.
#[unsafe(no_mangle)]
pub extern "C" fn stalld_backend_name(backend: c_int) -> *const c_char {
    options::name_of_backend(backend)
}

/// What a number means that a function has returned, with its minus or without. The text is good
/// until this thread calls it again.
#[unsafe(no_mangle)]
pub extern "C" fn stalld_strerror(error: c_int) -> *const c_char {
    guarded_text(|| failure::describe(error))
}

/// What the last call that failed in this thread has to say about it: one line, without a newline;
/// "" where none has. The text is good until the next call fails in this thread. stalld_stop()
/// leaves none.
#[unsafe(no_mangle)]
pub extern "C" fn stalld_last_error() -> *const c_char {
    guarded_text(failure::last)
}

/// The version of the library, such as "0.1.0". It lives forever.
#[unsafe(no_mangle)]
pub extern "C" fn stalld_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// The version of the library as one number: 65536 times the major one, 256 times the minor one,
/// and the patch.
#[unsafe(no_mangle)]
pub extern "C" fn stalld_version_number() -> c_int {
    use crate::abi::{STALLD_VERSION_MAJOR, STALLD_VERSION_MINOR, STALLD_VERSION_PATCH};
    (STALLD_VERSION_MAJOR << 16 | STALLD_VERSION_MINOR << 8 | STALLD_VERSION_PATCH) as c_int
}

/// Of more than anybody can have.
fn counted(count: usize) -> c_int {
    c_int::try_from(count).unwrap_or(c_int::MAX)
}
