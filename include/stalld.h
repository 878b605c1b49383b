/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/* libstalld: finds tasks that starve behind real-time tasks, and lets them run for a bounded moment.
 *
 * Made from ffi/src/abi.rs and ffi/src/api.rs by `make regen`; do not edit. libstalld(3) tells how to use it.
 *
 * Numbers. A function that can fail returns a negative number: an errno, or one of the library's own, which start at
 * 5000 and keep their meaning for ever. stalld_last_error() says in words what was wrong. Of all functions: -EFAULT is
 * a pointer that is NULL where that is not allowed, -ECHILD a handle that belongs to the process which this one was
 * forked from, -EBUSY a handle that is in use, and -STALLD_EPANIC one in which a bug of the library has shown.
 *
 * Structs that may grow are passed with their size, by which a program may be older or newer than the library. What it
 * does not set has to be zeros.
 *
 * Threads. A handle may go from thread to thread, but is used by one at a time: a second one gets -EBUSY. Only
 * stalld_stop() may be called at any time, and from a signal handler. Any number of handles may be open.
 *
 * Ownership. What a handle gives out (its descriptor) is its own. What a program passes in stays the program's, and is
 * not used after the call, but for the log function and its argument, which are used until stalld_close().
 *
 * fork(2). A handle is of no use in a child, but the child's copy can be freed by stalld_close(). The parent's goes on.
 *
 * Panics. One in the library is caught where it was entered, all boosts are restored, and from then on all that the
 * handle is good for is stalld_close().
 *
 * The library leaves signals, standard input and output, the working directory, the umask and affinities alone. It
 * starts a process where STALLD_GUARDIAN asks for one, and for the queue_track backend, and no thread. A boost by
 * SCHED_FIFO raises the thread that calls stalld_dispatch() or stalld_boost() to priority 99, for less than a
 * millisecond. */

#ifndef STALLD_H
#define STALLD_H

#include <stddef.h>
#include <stdint.h>

// The version of the header. `stalld_version_number()` tells that of the library in the same form.
#define STALLD_VERSION_MAJOR 0

#define STALLD_VERSION_MINOR 1

#define STALLD_VERSION_PATCH 0

// Boost who starves, without being asked for each.
#define STALLD_RESCUE 1

// Start a process that restores what is boosted should this one be killed.
#define STALLD_GUARDIAN 2

// Turn RT throttling (kernel.sched_rt_runtime_us) off for as long as the handle is open. While it
// is on, the kernel lets no task that is pinned to a CPU be SCHED_DEADLINE, and boosts are made by
// SCHED_FIFO.
#define STALLD_UNTHROTTLE 4

// Boost by SCHED_FIFO only.
#define STALLD_FORCE_FIFO 8

// The backends: the first that works, or one of them.
#define STALLD_BACKEND_AUTO 0

#define STALLD_BACKEND_TASK_ITER 1

#define STALLD_BACKEND_QUEUE_TRACK 2

#define STALLD_BACKEND_SCHED_DEBUG 3

// A task has waited for the threshold or longer: `task`, `wait_ns`, and in `hog` who holds its
// CPU.
#define STALLD_EVENT_STARVING 1

// A task has been boosted, by `policy`. By SCHED_FIFO it has been lowered again already: such a
// boost is a pulse in each period, with an event for each.
#define STALLD_EVENT_BOOSTED 2

// A boost is over after `length_ns`, and the task has its own `policy` and `priority` again.
#define STALLD_EVENT_RESTORED 3

// A task could not be boosted or, with STALLD_EVENT_RESTORE, not be restored; `error` is why.
#define STALLD_EVENT_FAILED 4

// A boost is over after `length_ns` with nothing to restore: the task has ended (`policy` is -1),
// or somebody else has given it another `policy`, which it keeps.
#define STALLD_EVENT_ENDED 5

// `backend` is in use from here on.
#define STALLD_EVENT_BACKEND 6

// A look came `length_ns` later than planned: stalld_dispatch() was not called in time.
#define STALLD_EVENT_LATE 7

// In `flags` of an event: starving, and told before, in the same wait.
#define STALLD_EVENT_AGAIN 1

// Restored before its time, because nothing outranks the task any more, or another needs the
// place.
#define STALLD_EVENT_EARLY 2

// What failed was to restore the task.
#define STALLD_EVENT_RESTORE 4

// The levels of messages to the log, which are those of syslog(3).
#define STALLD_LOG_ERROR 3

#define STALLD_LOG_WARNING 4

#define STALLD_LOG_INFO 6

// A panic inside of the library was caught. The handle is good for stalld_close() only.
#define STALLD_EPANIC 5000

// No backend works here.
#define STALLD_EBACKEND 5001

// A look could not be carried out. The next one is due in time.
#define STALLD_ELOOK 5002

// A handle.
struct stalld;

// Takes a message: one line, without a newline, good until it returns. It is called only while a
// function of the library runs, in the same thread, and must not call the library with that
// handle: -EBUSY.
typedef void (*stalld_log_fn)(void *userdata, int level, const char *message);

// What is asked for. All zeros but for `sz` is a good set of options.
struct stalld_options {
  // sizeof(struct stalld_options).
  size_t sz;
  // STALLD_RESCUE and others; 0 only watches.
  uint64_t flags;
  // How long a task has to wait to starve, 10 ms to 1 h; 0 is 60 s.
  uint64_t threshold_ns;
  // The longest time between two looks, 10 ms to 10 min; 0 is 5 s.
  uint64_t granularity_ns;
  // A boosted task may run for this long, 8 us to 1 ms; 0 is 20 us ...
  uint64_t runtime_ns;
  // ... in each period, 200 ms to 4 s; 0 is 1 s, or the duration where that is shorter.
  uint64_t period_ns;
  // How long a boost lasts: one period to 1 min; 0 is 3 s, or the threshold where that is
  // shorter.
  uint64_t duration_ns;
  // The CPUs to watch, such as "0,2-4"; NULL is all.
  const char *cpus;
  // Let threads alone whose names match one of these regular expressions, separated by commas;
  // NULL is none.
  const char *ignore_threads;
  // The same by the name of the process.
  const char *ignore_processes;
  // A file for the record of what is to be restored, so that it outlives both this process and
  // the guardian; NULL keeps it in memory.
  const char *journal;
  // Takes messages; NULL for none.
  stalld_log_fn log;
  // What `log` gets as its first argument.
  void *userdata;
  // STALLD_BACKEND_AUTO or one of the others.
  int32_t backend;
  // How many events are kept for stalld_next_event(), 65536 at most; 0 is 1024.
  uint32_t events;
};

// A task at one moment. `tid` is 0 where there is none to tell of.
struct stalld_task {
  int32_t tid;
  // Its process; 0 where the backend can't tell.
  int32_t tgid;
  uint32_t cpu;
  // SCHED_OTHER and others; -1 where the backend can't tell.
  int32_t policy;
  // On the kernel's scale, inheritance included: below 0 SCHED_DEADLINE, 0 to 98 real-time, 100
  // to 139 fair.
  int32_t prio;
  // The same on the users' scale: 1 to 99 where it is real-time, else 0.
  int32_t rt_priority;
  // When it started, in clock ticks since boot as in /proc/PID/stat; 0 where the backend can't
  // tell.
  uint64_t start;
  // Its name, as any bytes, with a NUL at the end.
  char comm[16];
};

// Something that has happened.
struct stalld_event {
  // STALLD_EVENT_STARVING and others. A program skips those that it does not know.
  uint32_t kind;
  // Of a failure: a negative errno, or one of the library's own numbers.
  int32_t error;
  // When, on CLOCK_MONOTONIC.
  uint64_t time_ns;
  // How long the task has waited, where that is known.
  uint64_t wait_ns;
  // How long the boost was, or how late the look.
  uint64_t length_ns;
  struct stalld_task task;
  // Who held the CPU of `task` at the last look.
  struct stalld_task hog;
  // For how long it had been seen there.
  uint64_t hog_seen_ns;
  // What the event is about, as SCHED_OTHER and others; -1 where it is about none.
  int32_t policy;
  // Its real-time priority; 0 where it has none.
  int32_t priority;
  // STALLD_BACKEND_TASK_ITER and others: what was in use.
  int32_t backend;
  // The number that a restored task goes by now: a thread takes that of its process by
  // execve(2).
  int32_t now_tid;
  // STALLD_EVENT_AGAIN and others.
  uint32_t flags;
  // So many events before this one have been dropped, because nobody took them.
  uint32_t lost;
};

// A task that is queued on a CPU and not running.
struct stalld_waiter {
  struct stalld_task task;
  // How long it has waited, as far as that is known.
  uint64_t wait_ns;
  // Who runs on its CPU.
  struct stalld_task hog;
};

// What has happened so far.
struct stalld_stats {
  uint64_t looks;
  // Looks that could not be carried out.
  uint64_t failed_looks;
  // Looks that came late enough for an event.
  uint64_t late_looks;
  // How much later than planned the latest look was.
  uint64_t longest_late_ns;
  // Waits that reached the threshold.
  uint64_t starved;
  // The longest of them, as far as a look saw it.
  uint64_t longest_wait_ns;
  uint64_t boosts;
  // Boosts that were not made.
  uint64_t refused_boosts;
  // Boosts that could not be undone.
  uint64_t failed_restores;
  // Tasks that are boosted now.
  uint64_t boosted_now;
  // Starving tasks that wait for their boost.
  uint64_t waiting_for_boost;
  // Events that were dropped, because nobody took them.
  uint64_t lost_events;
};

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// Opens a handle, by options or, where `options` is NULL, by defaults, and puts it into `*handle`.
// The program owns it, and gives it back to stalld_close(). Where this fails, `*handle` is NULL.
//
// -EFAULT: `handle` is NULL. -EINVAL: an option is out of range, or a flag unknown. -E2BIG: the options are larger
// than this version knows, and ask for something there; or `sz` is not set. -EPERM and others:
// what no backend could do without, where one errno is behind it; else -STALLD_EBACKEND.
int stalld_open(struct stalld **handle,
                const struct stalld_options *options);

// Restores every boost that is in flight, puts back all else that was changed, and frees the
// handle. NULL is allowed, and does nothing. In a child that was forked since, it frees the
// child's copy and restores nothing, which is for the parent to do: -ECHILD.
//
// -EBUSY: it is called by the log function, and nothing was done.
int stalld_close(struct stalld *handle);

// The file descriptor to wait on, with poll(2), select(2) or in an epoll set, for input: then
// stalld_dispatch() is to be called. It belongs to the handle: it must be neither read nor closed.
//
// -EFAULT: `handle` is NULL. -ECHILD: it is the parent's.
int stalld_fd(const struct stalld *handle);

// Does what is due: looks, boosts, restores. It never waits for something to happen, and may be
// called at any time. Returns how many events there are to be taken by stalld_next_event().
//
// -ECANCELED: stalld_stop() was called, and everything has been put back. -EFAULT, -ECHILD, -EBUSY,
// -STALLD_EPANIC. Other errors are of this one look, and the next one is due in time: -STALLD_ELOOK, or an errno.
int stalld_dispatch(struct stalld *handle);

// Takes the oldest event into `*event`, which is `sz` bytes long. Returns 1, or 0 where there is
// none.
//
// -EFAULT: a pointer is NULL. -EINVAL, -E2BIG: `sz` is not sizeof(struct stalld_event). -ECHILD, -EBUSY,
// -STALLD_EPANIC.
int stalld_next_event(struct stalld *handle, struct stalld_event *event, size_t sz);

// Has the next stalld_dispatch() put everything back and return -ECANCELED, and the descriptor
// ready for that. It may be called from any thread, and from a signal handler.
//
// -EFAULT: `handle` is NULL. -ECHILD: it is the parent's.
int stalld_stop(struct stalld *handle);

// Boosts a task, starving or not: SCHED_DEADLINE with the options' budget, or in pulses of
// SCHED_FIFO, until stalld_restore(), stalld_stop() or stalld_close(), but no longer than the
// options' duration. It is lowered again by stalld_dispatch(), which has to be called in time. No
// flag is needed.
//
// -EINVAL: no number of a task, or the task is SCHED_DEADLINE. -ESRCH: there is no such task. -EPERM: the kernel does not
// allow it. -EALREADY: it is boosted by this handle. -EAGAIN: its CPU has as many boosts as it can
// bear, or somebody else is about to change the task. -ENOSPC: the journal is full. -ECANCELED:
// stopped. -EFAULT, -ECHILD, -EBUSY, -STALLD_EPANIC.
int stalld_boost(struct stalld *handle,
                 int32_t tid);

// Ends the boost of a task, whether it was asked for or not. How it went is an event:
// STALLD_EVENT_RESTORED or another.
//
// -ENOENT: this handle does not boost it. -EINVAL: no number of a task. -ECANCELED: stopped, and all is restored. -EFAULT,
// -ECHILD, -EBUSY, -STALLD_EPANIC.
int stalld_restore(struct stalld *handle,
                   int32_t tid);

// Looks once, and puts all tasks that wait into `waiters`, `count` places of `sz` bytes each, in
// no particular order. Returns how many wait; where that is more than `count`, the rest is left
// out. `waiters` may be NULL if `count` is 0.
//
// -EFAULT, -ECHILD, -EBUSY, -STALLD_EPANIC. -EINVAL, -E2BIG: `sz` is not sizeof(struct stalld_waiter). -STALLD_ELOOK or
// an errno: the look failed.
int stalld_snapshot(struct stalld *handle,
                    struct stalld_waiter *waiters,
                    size_t count,
                    size_t sz);

// Puts what has happened so far into `*stats`, which is `sz` bytes long.
//
// -EFAULT, -ECHILD, -EBUSY, -STALLD_EPANIC. -EINVAL, -E2BIG: `sz` is not sizeof(struct stalld_stats).
int stalld_get_stats(struct stalld *handle, struct stalld_stats *stats, size_t sz);

// The backend in use: STALLD_BACKEND_TASK_ITER or another.
//
// -EFAULT, -ECHILD, -EBUSY, -STALLD_EPANIC.
int stalld_backend(struct stalld *handle);

// The name of a backend, such as "task_iter"; NULL where there is none of this number. It lives
// forever.
const char *stalld_backend_name(int backend);

// What a number means that a function has returned, with its minus or without. The text is good
// until this thread calls it again.
const char *stalld_strerror(int error);

// What the last call that failed in this thread has to say about it: one line, without a newline;
// "" where none has. The text is good until the next call fails in this thread. stalld_stop()
// leaves none.
const char *stalld_last_error(void);

// The version of the library, such as "0.1.0". It lives forever.
const char *stalld_version(void);

// The version of the library as one number: 65536 times the major one, 256 times the minor one,
// and the patch.
int stalld_version_number(void);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* STALLD_H */
