//! The types and numbers of the C interface, as include/stalld.h has them.
//!
//! What comes in or goes out is plain numbers and never a Rust enum: C may pass any value. A struct
//! that may grow comes with its size. `stalld_task` never grows, because others have it inside.

use libc::{c_char, c_int, c_void};

/// The version of the header. `stalld_version_number()` tells that of the library in the same form.
pub const STALLD_VERSION_MAJOR: u32 = 0;
pub const STALLD_VERSION_MINOR: u32 = 1;
pub const STALLD_VERSION_PATCH: u32 = 0;

/// Boost who starves, without being asked for each.
pub const STALLD_RESCUE: u64 = 1;
/// Start a process that restores what is boosted should this one be killed.
pub const STALLD_GUARDIAN: u64 = 2;
/// Turn RT throttling (kernel.sched_rt_runtime_us) off for as long as the handle is open. While it
/// is on, the kernel lets no task that is pinned to a CPU be SCHED_DEADLINE, and boosts are made by
/// SCHED_FIFO.
pub const STALLD_UNTHROTTLE: u64 = 4;
/// Boost by SCHED_FIFO only.
pub const STALLD_FORCE_FIFO: u64 = 8;

/// The backends: the first that works, or one of them.
pub const STALLD_BACKEND_AUTO: i32 = 0;
pub const STALLD_BACKEND_TASK_ITER: i32 = 1;
pub const STALLD_BACKEND_QUEUE_TRACK: i32 = 2;
pub const STALLD_BACKEND_SCHED_DEBUG: i32 = 3;

/// A task has waited for the threshold or longer: `task`, `wait_ns`, and in `hog` who holds its
/// CPU.
pub const STALLD_EVENT_STARVING: u32 = 1;
/// A task has been boosted, by `policy`. By SCHED_FIFO it has been lowered again already: such a
/// boost is a pulse in each period, with an event for each.
pub const STALLD_EVENT_BOOSTED: u32 = 2;
/// A boost is over after `length_ns`, and the task has its own `policy` and `priority` again.
pub const STALLD_EVENT_RESTORED: u32 = 3;
/// A task could not be boosted or, with STALLD_EVENT_RESTORE, not be restored; `error` is why.
pub const STALLD_EVENT_FAILED: u32 = 4;
/// A boost is over after `length_ns` with nothing to restore: the task has ended (`policy` is -1),
/// or somebody else has given it another `policy`, which it keeps.
pub const STALLD_EVENT_ENDED: u32 = 5;
/// `backend` is in use from here on.
pub const STALLD_EVENT_BACKEND: u32 = 6;
/// A look came `length_ns` later than planned: stalld_dispatch() was not called in time.
pub const STALLD_EVENT_LATE: u32 = 7;

/// In `flags` of an event: starving, and told before, in the same wait.
pub const STALLD_EVENT_AGAIN: u32 = 1;
/// Restored before its time, because nothing outranks the task any more, or another needs the
/// place.
pub const STALLD_EVENT_EARLY: u32 = 2;
/// What failed was to restore the task.
pub const STALLD_EVENT_RESTORE: u32 = 4;

/// The levels of messages to the log, which are those of syslog(3).
pub const STALLD_LOG_ERROR: i32 = 3;
pub const STALLD_LOG_WARNING: i32 = 4;
pub const STALLD_LOG_INFO: i32 = 6;

/// A panic inside of the library was caught. The handle is good for stalld_close() only.
pub const STALLD_EPANIC: i32 = 5000;
/// No backend works here.
pub const STALLD_EBACKEND: i32 = 5001;
/// A look could not be carried out. The next one is due in time.
pub const STALLD_ELOOK: i32 = 5002;
/// A handle.
#[allow(non_camel_case_types)]
pub struct stalld {
    _opaque: [u8; 0],
}

/// Takes a message: one line, without a newline, good until it returns. It is called only while a
/// function of the library runs, in the same thread, and must not call the library with that
/// handle: -EBUSY.
#[allow(non_camel_case_types)]
pub type stalld_log_fn =
    Option<unsafe extern "C" fn(userdata: *mut c_void, level: c_int, message: *const c_char)>;

/// What is asked for. All zeros but for `sz` is a good set of options.
#[allow(non_camel_case_types)]
#[repr(C)]
#[derive(Clone, Copy)]
pub struct stalld_options {
    /// sizeof(struct stalld_options).
    pub sz: usize,
    /// STALLD_RESCUE and others; 0 only watches.
    pub flags: u64,
    /// How long a task has to wait to starve, 10 ms to 1 h; 0 is 60 s.
    pub threshold_ns: u64,
    /// The longest time between two looks, 10 ms to 10 min; 0 is 5 s.
    pub granularity_ns: u64,
    /// A boosted task may run for this long, 8 us to 1 ms; 0 is 20 us ...
    pub runtime_ns: u64,
    /// ... in each period, 200 ms to 4 s; 0 is 1 s, or the duration where that is shorter.
    pub period_ns: u64,
    /// How long a boost lasts: one period to 1 min; 0 is 3 s, or the threshold where that is
    /// shorter.
    pub duration_ns: u64,
    /// The CPUs to watch, such as "0,2-4"; NULL is all.
    pub cpus: *const c_char,
    /// Let threads alone whose names match one of these regular expressions, separated by commas;
    /// NULL is none.
    pub ignore_threads: *const c_char,
    /// The same by the name of the process.
    pub ignore_processes: *const c_char,
    /// A file for the record of what is to be restored, so that it outlives both this process and
    /// the guardian; NULL keeps it in memory.
    pub journal: *const c_char,
    /// Takes messages; NULL for none.
    pub log: stalld_log_fn,
    /// What `log` gets as its first argument.
    pub userdata: *mut c_void,
    /// STALLD_BACKEND_AUTO or one of the others.
    pub backend: i32,
    /// How many events are kept for stalld_next_event(), 65536 at most; 0 is 1024.
    pub events: u32,
}

/// A task at one moment. `tid` is 0 where there is none to tell of.
#[allow(non_camel_case_types)]
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct stalld_task {
    pub tid: i32,
    /// Its process; 0 where the backend can't tell.
    pub tgid: i32,
    pub cpu: u32,
    /// SCHED_OTHER and others; -1 where the backend can't tell.
    pub policy: i32,
    /// On the kernel's scale, inheritance included: below 0 SCHED_DEADLINE, 0 to 98 real-time, 100
    /// to 139 fair.
    pub prio: i32,
    /// The same on the users' scale: 1 to 99 where it is real-time, else 0.
    pub rt_priority: i32,
    /// When it started, in clock ticks since boot as in /proc/PID/stat; 0 where the backend can't
    /// tell.
    pub start: u64,
    /// Its name, as any bytes, with a NUL at the end.
    pub comm: [c_char; 16],
}

/// Something that has happened.
#[allow(non_camel_case_types)]
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct stalld_event {
    /// STALLD_EVENT_STARVING and others. A program skips those that it does not know.
    pub kind: u32,
    /// Of a failure: a negative errno, or one of the library's own numbers.
    pub error: i32,
    /// When, on CLOCK_MONOTONIC.
    pub time_ns: u64,
    /// How long the task has waited, where that is known.
    pub wait_ns: u64,
    /// How long the boost was, or how late the look.
    pub length_ns: u64,
    pub task: stalld_task,
    /// Who held the CPU of `task` at the last look.
    pub hog: stalld_task,
    /// For how long it had been seen there.
    pub hog_seen_ns: u64,
    /// What the event is about, as SCHED_OTHER and others; -1 where it is about none.
    pub policy: i32,
    /// Its real-time priority; 0 where it has none.
    pub priority: i32,
    /// STALLD_BACKEND_TASK_ITER and others: what was in use.
    pub backend: i32,
    /// The number that a restored task goes by now: a thread takes that of its process by
    /// execve(2).
    pub now_tid: i32,
    /// STALLD_EVENT_AGAIN and others.
    pub flags: u32,
    /// So many events before this one have been dropped, because nobody took them.
    pub lost: u32,
}

/// A task that is queued on a CPU and not running.
#[allow(non_camel_case_types)]
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct stalld_waiter {
    pub task: stalld_task,
    /// How long it has waited, as far as that is known.
    pub wait_ns: u64,
    /// Who runs on its CPU.
    pub hog: stalld_task,
}

/// What has happened so far.
#[allow(non_camel_case_types)]
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct stalld_stats {
    pub looks: u64,
    /// Looks that could not be carried out.
    pub failed_looks: u64,
    /// Looks that came late enough for an event.
    pub late_looks: u64,
    /// How much later than planned the latest look was.
    pub longest_late_ns: u64,
    /// Waits that reached the threshold.
    pub starved: u64,
    /// The longest of them, as far as a look saw it.
    pub longest_wait_ns: u64,
    pub boosts: u64,
    /// Boosts that were not made.
    pub refused_boosts: u64,
    /// Boosts that could not be undone.
    pub failed_restores: u64,
    /// Tasks that are boosted now.
    pub boosted_now: u64,
    /// Starving tasks that wait for their boost.
    pub waiting_for_boost: u64,
    /// Events that were dropped, because nobody took them.
    pub lost_events: u64,
}

// What a program of the first version has room for.
const _: () = assert!(size_of::<stalld_task>() == 48);
const _: () = assert!(size_of::<stalld_event>() == 160);
const _: () = assert!(size_of::<stalld_waiter>() == 104);
const _: () = assert!(size_of::<stalld_stats>() == 96);
