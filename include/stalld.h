/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/* libstalld: finds tasks that starve behind real-time tasks, and lets them run for a bounded
 * moment.
 *
 * Made from ffi/src/abi.rs and ffi/src/api.rs by `make regen`; do not edit. libstalld(3) describes
 * how to use it.
 *
 * Numbers. A function that can fail returns a negative number: an errno, or one of the library's
 * own numbers, which start at 5000 and keep their meaning for ever. stalld_last_error() returns the
 * reason as text. These mean the same for all functions: -EFAULT: a pointer is NULL, and must not
 * be. -ECHILD: another process opened the handle, and this process was forked from it. -EBUSY: the
 * handle is in use. -STALLD_EPANIC: a bug in the library has stopped work with this handle.
 *
 * Structs that may grow are passed with their size, so that a program may be older or newer than
 * the library. Members that a program does not set must be zeros.
 *
 * Threads. A handle may move between threads, but only one thread may use it at a time: a second
 * one gets -EBUSY. Only stalld_stop() may be called at any time, and from a signal handler. A
 * program may open any number of handles.
 *
 * Ownership. The descriptor that a handle returns belongs to the handle. The arguments of a call
 * belong to the program, and the library does not use them after the call. The exceptions are the
 * log function and its argument, which the library uses until stalld_close().
 *
 * fork(2). A child can't use a handle of its parent, but may free its own copy by stalld_close().
 * The parent's handle continues to work.
 *
 * Panics. The library catches a panic in the call in which it happens, and restores all boosts.
 * After that, only stalld_close() may be called with the handle.
 *
 * The library does not change signals, standard input and output, the working directory, the umask
 * and affinities. It starts a process for STALLD_GUARDIAN and for the queue_track backend, and no
 * thread. A boost by SCHED_FIFO raises the thread that calls stalld_dispatch() or stalld_boost() to
 * priority 99, for less than a millisecond. */

#ifndef STALLD_H
#define STALLD_H

#include <stddef.h>
#include <stdint.h>

// The version of the header. `stalld_version_number()` returns the version of the library.
#define STALLD_VERSION_MAJOR 0

#define STALLD_VERSION_MINOR 1

#define STALLD_VERSION_PATCH 0

// Boost starving tasks, without a call for each.
#define STALLD_RESCUE 1

// Start the guardian: a process that restores boosted tasks if this process is killed.
#define STALLD_GUARDIAN 2

// Turn RT throttling (kernel.sched_rt_runtime_us) off while the handle is open. While it is on,
// the kernel rejects SCHED_DEADLINE for a task that is pinned to a CPU, so boosts are made by
// SCHED_FIFO.
#define STALLD_UNTHROTTLE 4

// Boost by SCHED_FIFO only.
#define STALLD_FORCE_FIFO 8

// The backends. STALLD_BACKEND_AUTO means the first one that works.
#define STALLD_BACKEND_AUTO 0

#define STALLD_BACKEND_TASK_ITER 1

#define STALLD_BACKEND_QUEUE_TRACK 2

#define STALLD_BACKEND_SCHED_DEBUG 3

// `task` has waited for `wait_ns`, which is the threshold or longer. `hog` holds its CPU.
#define STALLD_EVENT_STARVING 1

// `task` has been boosted by `policy`. A boost by SCHED_FIFO is one pulse in each period, with an
// event for each pulse. At the time of the event, the pulse is over.
#define STALLD_EVENT_BOOSTED 2

// The boost of `task` is over after `length_ns`, and the task has its own `policy` and `priority`
// again.
#define STALLD_EVENT_RESTORED 3

// `task` could not be boosted or, with STALLD_EVENT_RESTORE in `flags`, not be restored. `error`
// is the reason.
#define STALLD_EVENT_FAILED 4

// The boost of `task` is over after `length_ns` with nothing to restore. Either the task has ended
// (`policy` is -1), or another process has given it another `policy`, which it keeps.
#define STALLD_EVENT_ENDED 5

// `backend` is in use from this event on.
#define STALLD_EVENT_BACKEND 6

// A scan came `length_ns` later than planned: stalld_dispatch() was not called in time.
#define STALLD_EVENT_LATE 7

// In `flags` of an event: the same wait was already reported.
#define STALLD_EVENT_AGAIN 1

// In `flags` of an event: the boost ended early, because no task outranks the boosted one any
// more, or because another boost needs its place.
#define STALLD_EVENT_EARLY 2

// In `flags` of an event: the restore failed, not the boost.
#define STALLD_EVENT_RESTORE 4

// The levels of log messages, which are those of syslog(3).
#define STALLD_LOG_ERROR 3

#define STALLD_LOG_WARNING 4

#define STALLD_LOG_INFO 6

// A panic inside of the library was caught. The handle can only be closed.
#define STALLD_EPANIC 5000

// No backend works here.
#define STALLD_EBACKEND 5001

// A scan failed. The next one is due in time.
#define STALLD_ESCAN 5002

// A handle.
struct stalld;

// Receives a log message: one line without a newline, which is valid until the function returns.
// The function is called only while a function of the library runs, in the same thread. It must
// not call the library with the same handle, which returns -EBUSY.
typedef void (*stalld_log_fn)(void *userdata, int level, const char *message);

// The options of stalld_open(). All zeros but for `sz` are the defaults.
struct stalld_options {
  // sizeof(struct stalld_options).
  size_t sz;
  // STALLD_RESCUE and other flags. Without flags, the library only reports.
  uint64_t flags;
  // A task that waits for this long starves: 10 ms to 1 h; 0 means 60 s.
  uint64_t threshold_ns;
  // The longest time between two scans: 10 ms to 10 min; 0 means 5 s.
  uint64_t granularity_ns;
  // The time for which a boosted task may run in each period: 8 us to 1 ms; 0 means 20 us.
  uint64_t runtime_ns;
  // The period of a boost: 200 ms to 4 s; 0 means 1 s, or the duration if that is shorter.
  uint64_t period_ns;
  // The length of a boost: one period to 1 min; 0 means 3 s, or the threshold if that is
  // shorter, but at least 200 ms.
  uint64_t duration_ns;
  // The CPUs to monitor, such as "0,2-4"; NULL means all.
  const char *cpus;
  // Ignore threads whose names match one of these regular expressions, which are separated by
  // commas; NULL means none.
  const char *ignore_threads;
  // Ignore threads whose processes have a name that matches, in the same form.
  const char *ignore_processes;
  // The journal: a file that records how to restore each boost, so that the record outlives both
  // this process and the guardian; NULL keeps it in memory.
  const char *journal;
  // Receives log messages; NULL for none.
  stalld_log_fn log;
  // The first argument of `log`.
  void *userdata;
  // STALLD_BACKEND_AUTO or another backend.
  int32_t backend;
  // The number of events that are stored for stalld_next_event(), at most 65536; 0 means 1024.
  uint32_t events;
  // The most that boosts together may take of a CPU in any second, in millionths: 10 to 100000,
  // and enough for one boost; 0 means no such bound. With it all boosts are by SCHED_FIFO, and
  // follow each other as fast as the bound allows. Each is charged the CPU time of its task and
  // 10 us for the switches to the task and back.
  uint64_t max_loss_ppm;
};

// A task at one moment. `tid` is 0 if there is no task.
struct stalld_task {
  int32_t tid;
  // Its process; 0 if the backend does not know it.
  int32_t tgid;
  uint32_t cpu;
  // Its policy, such as SCHED_OTHER; -1 if the backend does not know it.
  int32_t policy;
  // Its priority on the kernel's scale, with priority inheritance: below 0 SCHED_DEADLINE, 0 to
  // 98 real-time, 100 to 139 fair.
  int32_t prio;
  // Its real-time priority as in sched(7): 1 to 99; 0 for other tasks.
  int32_t rt_priority;
  // Its start, in clock ticks since boot as in /proc/PID/stat; 0 if the backend does not know
  // it.
  uint64_t start;
  // Its name: any bytes, with a NUL at the end.
  char comm[16];
};

// An event.
struct stalld_event {
  // STALLD_EVENT_STARVING or another kind. A program has to skip kinds that it does not know.
  uint32_t kind;
  // The reason of a failure: a negative errno.
  int32_t error;
  // The time of the event on CLOCK_MONOTONIC.
  uint64_t time_ns;
  // How long the task has waited; 0 if it is unknown.
  uint64_t wait_ns;
  // The length of the boost, or the delay of the scan.
  uint64_t length_ns;
  struct stalld_task task;
  // The task that held the CPU of `task` at the last scan.
  struct stalld_task hog;
  // For how long scans had seen `hog` there.
  uint64_t hog_seen_ns;
  // The policy that the event reports, such as SCHED_OTHER; -1 for none.
  int32_t policy;
  // The real-time priority of that policy; 0 if it has none.
  int32_t priority;
  // The backend in use: STALLD_BACKEND_TASK_ITER or another.
  int32_t backend;
  // The current tid of a restored task. A thread that calls execve(2) gets the tid of its
  // process.
  int32_t now_tid;
  // STALLD_EVENT_AGAIN and other flags.
  uint32_t flags;
  // The number of events that were dropped just before this one, because the queue was full.
  uint32_t lost;
};

// A task that is queued on a CPU and not running.
struct stalld_waiter {
  struct stalld_task task;
  // How long it has waited, as far as the library knows.
  uint64_t wait_ns;
  // The task that runs on its CPU.
  struct stalld_task hog;
};

// Counters of a handle since it was opened.
struct stalld_stats {
  uint64_t scans;
  // Scans that failed.
  uint64_t failed_scans;
  // Scans that were late enough for STALLD_EVENT_LATE.
  uint64_t late_scans;
  // The longest delay of a scan.
  uint64_t longest_late_ns;
  // Waits that reached the threshold.
  uint64_t starved;
  // The longest of these waits, as far as scans saw it.
  uint64_t longest_wait_ns;
  uint64_t boosts;
  // Boosts that could not be made.
  uint64_t refused_boosts;
  // Boosts that could not be restored.
  uint64_t failed_restores;
  // Tasks that are boosted now.
  uint64_t boosted_now;
  // Starving tasks that wait for their boost.
  uint64_t waiting_for_boost;
  // Events that were dropped, because the queue was full.
  uint64_t lost_events;
};

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// Opens a handle and stores it in `*handle`. If `options` is NULL, the defaults apply. The program
// owns the handle, and has to close it by stalld_close(). On failure, `*handle` is NULL.
//
// -EFAULT: `handle` is NULL. -EINVAL: an option is out of range, a flag is unknown, or `sz` is no
// valid size. -E2BIG: the options are larger than this version knows, and the unknown part is not
// all zeros; or `sz` is not set. -EPERM or another errno: no backend works or boosts can't be set
// up, for this reason. -STALLD_EBACKEND: no backend works, and no errno gives the reason.
int stalld_open(struct stalld **handle, const struct stalld_options *options);

// Ends all boosts, restores the settings of the machine, and frees the handle. NULL is allowed,
// and does nothing. In a child that was forked after stalld_open(), it frees the child's copy and
// returns -ECHILD. It restores nothing there, because the parent does.
//
// -EBUSY: another call with this handle runs, such as the one that called the log function.
// Nothing was done.
int stalld_close(struct stalld *handle);

// Returns the file descriptor to poll for input, by poll(2), select(2) or an epoll set. When it is
// ready, the program has to call stalld_dispatch(). The descriptor belongs to the handle, and must
// be neither read nor closed.
//
// -EFAULT: `handle` is NULL. -ECHILD: the handle belongs to the parent.
int stalld_fd(const struct stalld *handle);

// Does the work that is due: scans, boosts and restores. It never waits for an event, and may be
// called at any time. Returns the number of events for stalld_next_event().
//
// -ECANCELED: stalld_stop() was called, and everything is restored. -EFAULT, -ECHILD, -EBUSY,
// -STALLD_EPANIC. -STALLD_ESCAN or another errno: this one scan failed. The next one is due in
// time.
int stalld_dispatch(struct stalld *handle);

// Moves the oldest event to `*event`, which is `sz` bytes long. Returns 1, or 0 if there is no
// event.
//
// -EFAULT: a pointer is NULL. -EINVAL, -E2BIG: `sz` is not sizeof(struct stalld_event). -ECHILD,
// -EBUSY, -STALLD_EPANIC.
int stalld_next_event(struct stalld *handle, struct stalld_event *event, size_t sz);

// Makes the descriptor ready, and makes the next stalld_dispatch() restore everything and return
// -ECANCELED. It may be called from any thread, and from a signal handler.
//
// -EFAULT: `handle` is NULL. -ECHILD: the handle belongs to the parent.
int stalld_stop(struct stalld *handle);

// Boosts a task, starving or not, by SCHED_DEADLINE with the budget of the options, or by pulses
// of SCHED_FIFO. The boost ends after the duration of the options, or earlier by stalld_restore(),
// stalld_stop() or stalld_close(). stalld_dispatch() restores the task, so it has to be called in
// time. No flag is needed.
//
// -EINVAL: `tid` is not positive, or the task is SCHED_DEADLINE. -ESRCH: there is no such task.
// -EPERM: the kernel does not allow it. -EALREADY: this handle boosts the task already. -EAGAIN:
// its CPU has the most boosts that it may have, or another process changes the task at this
// moment. -ENOSPC: the journal is full. -ECANCELED: the handle is stopped. -EFAULT, -ECHILD,
// -EBUSY, -STALLD_EPANIC.
int stalld_boost(struct stalld *handle, int32_t tid);

// Ends the boost of a task, whether stalld_boost() or the library started it. An event reports the
// result: STALLD_EVENT_RESTORED or another one.
//
// -ENOENT: this handle does not boost the task. -EINVAL: `tid` is not positive. -ECANCELED: the
// handle is stopped, and everything is restored. -EFAULT, -ECHILD, -EBUSY, -STALLD_EPANIC.
int stalld_restore(struct stalld *handle, int32_t tid);

// Scans once, and copies all waiters to `waiters`, an array of `count` structs of `sz` bytes each,
// in no particular order. Returns the number of waiters. If it is more than `count`, the rest is
// dropped. `waiters` may be NULL if `count` is 0.
//
// -EFAULT, -ECHILD, -EBUSY, -STALLD_EPANIC. -EINVAL, -E2BIG: `sz` is not sizeof(struct
// stalld_waiter). -STALLD_ESCAN or another errno: the scan failed.
int stalld_snapshot(struct stalld *handle, struct stalld_waiter *waiters, size_t count, size_t sz);

// Copies the counters to `*stats`, which is `sz` bytes long.
//
// -EFAULT, -ECHILD, -EBUSY, -STALLD_EPANIC. -EINVAL, -E2BIG: `sz` is not sizeof(struct
// stalld_stats).
int stalld_get_stats(struct stalld *handle, struct stalld_stats *stats, size_t sz);

// Returns the backend in use: STALLD_BACKEND_TASK_ITER or another.
//
// -EFAULT, -ECHILD, -EBUSY, -STALLD_EPANIC.
int stalld_backend(struct stalld *handle);

// Returns the name of a backend, such as "task_iter"; NULL if no backend has this number. The
// string is valid for ever.
const char *stalld_backend_name(int backend);

// Returns the meaning of a number that a function has returned, with its minus or without. The
// text is valid until this thread calls stalld_strerror() again.
const char *stalld_strerror(int error);

// Returns the error text of the last call that failed in this thread: one line without a newline;
// "" if no call has failed. The text is valid until the next call fails in this thread.
// stalld_stop() leaves no text.
const char *stalld_last_error(void);

// Returns the version of the library, such as "0.1.0". The string is valid for ever.
const char *stalld_version(void);

// Returns the version of the library as one number: 65536 times the major number, plus 256 times
// the minor number, plus the patch number.
int stalld_version_number(void);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* STALLD_H */
