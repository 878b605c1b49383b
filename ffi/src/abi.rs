//! The types and numbers of the C interface, as include/stalld.h has them.
//!
//! All values are plain numbers and never a Rust enum, because C may pass any value. A struct that
//! may grow is passed with its size. `stalld_task` never grows, because other structs contain it.

use libc::{c_char, c_int, c_void};

/// The version of the header. `stalld_version_number()` returns the version of the library.
pub const STALLD_VERSION_MAJOR: u32 = 0;
pub const STALLD_VERSION_MINOR: u32 = 1;
pub const STALLD_VERSION_PATCH: u32 = 0;

/// Boost starving tasks, without a call for each.
pub const STALLD_RESCUE: u64 = 1;
/// Start the guardian: a process that restores boosted tasks if this process is killed.
pub const STALLD_GUARDIAN: u64 = 2;
/// Turn RT throttling (kernel.sched_rt_runtime_us) off while the handle is open. While it is on,
/// the kernel rejects SCHED_DEADLINE for a task that is pinned to a CPU, so boosts are made by
/// SCHED_FIFO.
pub const STALLD_UNTHROTTLE: u64 = 4;
/// Boost by SCHED_FIFO only.
pub const STALLD_FORCE_FIFO: u64 = 8;

/// The backends. STALLD_BACKEND_AUTO means the first one that works.
pub const STALLD_BACKEND_AUTO: i32 = 0;
pub const STALLD_BACKEND_TASK_ITER: i32 = 1;
pub const STALLD_BACKEND_QUEUE_TRACK: i32 = 2;
pub const STALLD_BACKEND_SCHED_DEBUG: i32 = 3;

/// `task` has waited for `wait_ns`, which is the threshold or longer. `hog` holds its CPU.
pub const STALLD_EVENT_STARVING: u32 = 1;
/// `task` has been boosted by `policy`. A boost by SCHED_FIFO is one pulse in each period, with an
/// event for each pulse. At the time of the event, the pulse is over.
pub const STALLD_EVENT_BOOSTED: u32 = 2;
/// The boost of `task` is over after `length_ns`, and the task has its own `policy` and `priority`
/// again.
pub const STALLD_EVENT_RESTORED: u32 = 3;
/// `task` could not be boosted or, with STALLD_EVENT_RESTORE in `flags`, not be restored. `error`
/// is the reason.
pub const STALLD_EVENT_FAILED: u32 = 4;
/// The boost of `task` is over after `length_ns` with nothing to restore. Either the task has ended
/// (`policy` is -1), or another process has given it another `policy`, which it keeps.
pub const STALLD_EVENT_ENDED: u32 = 5;
/// `backend` is in use from this event on.
pub const STALLD_EVENT_BACKEND: u32 = 6;
/// A scan came `length_ns` later than planned: stalld_dispatch() was not called in time.
pub const STALLD_EVENT_LATE: u32 = 7;

/// In `flags` of an event: the same wait was already reported.
pub const STALLD_EVENT_AGAIN: u32 = 1;
/// In `flags` of an event: the boost ended early, because no task outranks the boosted one any
/// more, or because another boost needs its place.
pub const STALLD_EVENT_EARLY: u32 = 2;
/// In `flags` of an event: the restore failed, not the boost.
pub const STALLD_EVENT_RESTORE: u32 = 4;

/// The levels of log messages, which are those of syslog(3).
pub const STALLD_LOG_ERROR: i32 = 3;
pub const STALLD_LOG_WARNING: i32 = 4;
pub const STALLD_LOG_INFO: i32 = 6;

/// A panic inside of the library was caught. The handle can only be closed.
pub const STALLD_EPANIC: i32 = 5000;
/// No backend works here.
pub const STALLD_EBACKEND: i32 = 5001;
/// A scan failed. The next one is due in time.
pub const STALLD_ESCAN: i32 = 5002;
/// A handle.
#[allow(non_camel_case_types)]
pub struct stalld {
    _opaque: [u8; 0],
}

/// Receives a log message: one line without a newline, which is valid until the function returns.
/// The function is called only while a function of the library runs, in the same thread. It must
/// not call the library with the same handle, which returns -EBUSY.
#[allow(non_camel_case_types)]
pub type stalld_log_fn =
    Option<unsafe extern "C" fn(userdata: *mut c_void, level: c_int, message: *const c_char)>;

/// The options of stalld_open(). All zeros but for `sz` are the defaults.
#[allow(non_camel_case_types)]
#[repr(C)]
#[derive(Clone, Copy)]
pub struct stalld_options {
    /// sizeof(struct stalld_options).
    pub sz: usize,
    /// STALLD_RESCUE and other flags. Without flags, the library only reports.
    pub flags: u64,
    /// A task that waits for this long starves: 10 ms to 1 h; 0 means 60 s.
    pub threshold_ns: u64,
    /// The longest time between two scans: 10 ms to 10 min; 0 means 5 s.
    pub granularity_ns: u64,
    /// The time for which a boosted task may run in each period: 8 us to 1 ms; 0 means 20 us.
    pub runtime_ns: u64,
    /// The period of a boost: 200 ms to 4 s; 0 means 1 s, or the duration if that is shorter.
    pub period_ns: u64,
    /// The length of a boost: one period to 1 min; 0 means 3 s, or the threshold if that is
    /// shorter, but at least 200 ms.
    pub duration_ns: u64,
    /// The CPUs to monitor, such as "0,2-4"; NULL means all.
    pub cpus: *const c_char,
    /// Ignore threads whose names match one of these regular expressions, which are separated by
    /// commas; NULL means none.
    pub ignore_threads: *const c_char,
    /// Ignore threads whose processes have a name that matches, in the same form.
    pub ignore_processes: *const c_char,
    /// The journal: a file that records how to restore each boost, so that the record outlives both
    /// this process and the guardian; NULL keeps it in memory.
    pub journal: *const c_char,
    /// Receives log messages; NULL for none.
    pub log: stalld_log_fn,
    /// The first argument of `log`.
    pub userdata: *mut c_void,
    /// STALLD_BACKEND_AUTO or another backend.
    pub backend: i32,
    /// The number of events that are stored for stalld_next_event(), at most 65536; 0 means 1024.
    pub events: u32,
    /// The most that boosts together may take of a CPU in any second, in millionths: 10 to 100000,
    /// and enough for one boost; 0 means no such bound. With it all boosts are by SCHED_FIFO, and
    /// follow each other as fast as the bound allows. Each is charged the CPU time of its task and
    /// 10 us for the switches to the task and back.
    pub max_loss_ppm: u64,
}

/// A task at one moment. `tid` is 0 if there is no task.
#[allow(non_camel_case_types)]
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct stalld_task {
    pub tid: i32,
    /// Its process; 0 if the backend does not know it.
    pub tgid: i32,
    pub cpu: u32,
    /// Its policy, such as SCHED_OTHER; -1 if the backend does not know it.
    pub policy: i32,
    /// Its priority on the kernel's scale, with priority inheritance: below 0 SCHED_DEADLINE, 0 to
    /// 98 real-time, 100 to 139 fair.
    pub prio: i32,
    /// Its real-time priority as in sched(7): 1 to 99; 0 for other tasks.
    pub rt_priority: i32,
    /// Its start, in clock ticks since boot as in /proc/PID/stat; 0 if the backend does not know
    /// it.
    pub start: u64,
    /// Its name: any bytes, with a NUL at the end.
    pub comm: [c_char; 16],
}

/// An event.
#[allow(non_camel_case_types)]
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct stalld_event {
    /// STALLD_EVENT_STARVING or another kind. A program has to skip kinds that it does not know.
    pub kind: u32,
    /// The reason of a failure: a negative errno.
    pub error: i32,
    /// The time of the event on CLOCK_MONOTONIC.
    pub time_ns: u64,
    /// How long the task has waited; 0 if it is unknown.
    pub wait_ns: u64,
    /// The length of the boost, or the delay of the scan.
    pub length_ns: u64,
    pub task: stalld_task,
    /// The task that held the CPU of `task` at the last scan.
    pub hog: stalld_task,
    /// For how long scans had seen `hog` there.
    pub hog_seen_ns: u64,
    /// The policy that the event reports, such as SCHED_OTHER; -1 for none.
    pub policy: i32,
    /// The real-time priority of that policy; 0 if it has none.
    pub priority: i32,
    /// The backend in use: STALLD_BACKEND_TASK_ITER or another.
    pub backend: i32,
    /// The current tid of a restored task. A thread that calls execve(2) gets the tid of its
    /// process.
    pub now_tid: i32,
    /// STALLD_EVENT_AGAIN and other flags.
    pub flags: u32,
    /// The number of events that were dropped just before this one, because the queue was full.
    pub lost: u32,
}

/// A task that is queued on a CPU and not running.
#[allow(non_camel_case_types)]
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct stalld_waiter {
    pub task: stalld_task,
    /// How long it has waited, as far as the library knows.
    pub wait_ns: u64,
    /// The task that runs on its CPU.
    pub hog: stalld_task,
}

/// Counters of a handle since it was opened.
#[allow(non_camel_case_types)]
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct stalld_stats {
    pub scans: u64,
    /// Scans that failed.
    pub failed_scans: u64,
    /// Scans that were late enough for STALLD_EVENT_LATE.
    pub late_scans: u64,
    /// The longest delay of a scan.
    pub longest_late_ns: u64,
    /// Waits that reached the threshold.
    pub starved: u64,
    /// The longest of these waits, as far as scans saw it.
    pub longest_wait_ns: u64,
    pub boosts: u64,
    /// Boosts that could not be made.
    pub refused_boosts: u64,
    /// Boosts that could not be restored.
    pub failed_restores: u64,
    /// Tasks that are boosted now.
    pub boosted_now: u64,
    /// Starving tasks that wait for their boost.
    pub waiting_for_boost: u64,
    /// Events that were dropped, because the queue was full.
    pub lost_events: u64,
}

// The sizes in the first version, for which programs have room.
const _: () = assert!(size_of::<stalld_task>() == 48);
const _: () = assert!(size_of::<stalld_event>() == 160);
const _: () = assert!(size_of::<stalld_waiter>() == 104);
const _: () = assert!(size_of::<stalld_stats>() == 96);
