/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The record of each task's wait: the kernel's own (sched_info), or one that the `on_` programs
 * keep.
 *
 * An event costs at most one map lookup, whatever the length of a queue. Nothing is recorded when a
 * task starts to run or goes to sleep: the number of its switches has changed by the next wait,
 * which shows that the record is of an earlier one. Nothing is recorded on migration either,
 * because the record belongs to the task. */
#ifndef STALLD_WAIT_H
#define STALLD_WAIT_H

#include "records.h"
#include "task.h"

const volatile struct settings settings = {};
struct losses losses SEC(".data.losses") = {};
int own_tgid = 0;
/* In ns since boot. Each task that was started before this has a record, because a whole walk has
 * met it. */
__u64 tracked_before = 0;
__u64 walk_began = 0;

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct wait);
} waits_by_task SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1); /* set before loading */
	__type(key, int);
	__type(value, struct wait);
} waits_by_tid SEC(".maps");

static __always_inline struct wait *find(struct task_struct *p)
{
	if (settings.by_tid) {
		int tid = p->pid;

		return bpf_map_lookup_elem(&waits_by_tid, &tid);
	}
	return bpf_task_storage_get(&waits_by_task, p, 0, 0);
}

/* Returns the record of a task, and makes it if there is none. Only the iterator calls this,
 * because it may allocate, which is not allowed under the lock of a run queue. */
static __always_inline struct wait *find_or_make(struct task_struct *p)
{
	if (settings.by_tid) {
		struct wait empty = {};
		int tid = p->pid;
		struct wait *wait = bpf_map_lookup_elem(&waits_by_tid, &tid);

		if (wait)
			return wait;
		if (bpf_map_update_elem(&waits_by_tid, &tid, &empty, BPF_NOEXIST))
			__sync_fetch_and_add(&losses.untracked, 1);
		return bpf_map_lookup_elem(&waits_by_tid, &tid);
	}
	return bpf_task_storage_get(&waits_by_task, p, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
}

/* Returns the clock of the run queue, which sched_info uses, too. It costs one load;
 * bpf_ktime_get_ns() costs as much as a whole empty program. The scheduler has just updated it when
 * the `on_` programs run. */
static __always_inline __u64 clock_of(struct task_struct *p)
{
	struct rq *rq = task_rq(p);

	return rq ? rq->clock : bpf_ktime_get_ns();
}

static __always_inline void stamp(struct task_struct *p, struct wait *wait)
{
	wait->switches = switches(p);
	wait->queued = clock_of(p);
}

static __always_inline void was_woken(struct task_struct *p)
{
	struct wait *wait = find(p);

	/* A wakeup of a task that has not left the queue is no new wait. */
	if (wait && (!wait->queued || wait->switches != switches(p)))
		stamp(p, wait);
}

/* A new task has no record yet. By tid, there may be the record of an earlier task with the same
 * tid. */
static __always_inline void was_created(struct task_struct *p)
{
	struct wait *wait = settings.by_tid ? find(p) : 0;

	if (wait)
		stamp(p, wait);
}

static __always_inline void was_switched_out(struct task_struct *p)
{
	struct wait *wait = find(p);

	if (wait)
		stamp(p, wait);
}

static __always_inline void was_switched_in(struct task_struct *p)
{
	struct wait *wait = find(p);

	if (wait)
		wait->on_cpu_since = clock_of(p);
}

static __always_inline void has_exited(struct task_struct *p)
{
	if (settings.by_tid) {
		int tid = p->pid;

		bpf_map_delete_elem(&waits_by_tid, &tid);
	}
}

/* In ns: the iterator lists a new task within this time after the start of the task is set. */
#define LISTED_WITHIN 1000000000

/* Called for each task of a walk, and at its end without a task. */
static __always_inline void note_walk_bounds(struct bpf_iter__task *ctx)
{
	if (!settings.tracking)
		return;
	if (!ctx->meta->seq_num)
		walk_began = bpf_ktime_get_boot_ns();
	if (!ctx->task && walk_began > LISTED_WITHIN)
		tracked_before = walk_began - LISTED_WITHIN;
}

static __always_inline void track(struct task_struct *p)
{
	/* Finding a record takes one or two cache misses. The start is beside data that was already
	 * read. */
	if (settings.tracking && p->start_boottime >= tracked_before)
		find_or_make(p);
}

/* Keeps the compiler from merging a load from a record and a load from a task into one instruction,
 * which the verifier would reject. */
static __always_inline __u64 keep_loads_separate(__u64 value)
{
	barrier_var(value);
	return value;
}

/* Returns the start of a task's wait: from its record here, else from the kernel's, else 0. */
static __always_inline __u64 queued(struct task_struct *p)
{
	if (settings.tracking) {
		struct wait *wait = find_or_make(p);

		if (wait && wait->queued && wait->switches == switches(p))
			return keep_loads_separate(wait->queued);
	}
	return last_queued(p);
}

/* Returns when the scanning thread last got a CPU. */
static __always_inline __u64 on_cpu_since(struct task_struct *p)
{
	if (settings.tracking) {
		struct wait *wait = find_or_make(p);

		own_tgid = p->tgid;
		if (!last_arrival(p))
			return wait ? keep_loads_separate(wait->on_cpu_since) : 0;
	}
	return last_arrival(p);
}

static __always_inline __u64 progress(struct task_struct *p)
{
	if (!settings.tracking && bpf_core_field_exists(p->sched_info.pcount))
		return p->sched_info.pcount;
	return switches(p);
}

#endif
