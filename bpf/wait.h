/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A record of each task's wait: the kernel's own (sched_info), or one kept by the `on_` programs.
 *
 * An event costs one look-up at most, whatever the length of a queue: nothing is noted when a task
 * starts to run or goes to sleep, because the number of its switches tells that its record is of an
 * earlier wait. Nothing is noted on migration either: the record goes with the task. */
#ifndef STALLD_WAIT_H
#define STALLD_WAIT_H

#include "records.h"
#include "task.h"

const volatile struct settings settings = {};
struct losses losses SEC(".data.losses") = {};
int own_tgid = 0;
/* In ns since boot: whoever was started before this was met by a whole walk, and has a record. */
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

/* Called by the iterator only: making a record may allocate, which is no good under a run queue's lock. */
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

/* The clock that sched_info uses too. It costs a load, where bpf_ktime_get_ns() costs as much as a whole
 * empty program; the scheduler has just updated it where the `on_` programs run. */
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

/* A new task has no record yet; by tid there may be one left by an earlier task of that number. */
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
		wait->arrived = clock_of(p);
}

static __always_inline void has_gone(struct task_struct *p)
{
	if (settings.by_tid) {
		int tid = p->pid;

		bpf_map_delete_elem(&waits_by_tid, &tid);
	}
}

/* A task is listed some time after its start is set. */
#define LISTED_WITHIN 1000000000

/* Called for each task and then, without one, at the end of a walk. */
static __always_inline void note_progress(struct bpf_iter__task *ctx)
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
	/* To look for a record takes a cache miss or two; the start is beside what was read of the task already. */
	if (settings.tracking && p->start_boottime >= tracked_before)
		find_or_make(p);
}

/* The compiler must not make one load of a load from a record and one from a task: the verifier refuses
 * an instruction that is used with both. */
static __always_inline __u64 apart(__u64 value)
{
	barrier_var(value);
	return value;
}

/* Since when a task waits: by its own record, else by the kernel's, else 0. */
static __always_inline __u64 queued(struct task_struct *p)
{
	if (settings.tracking) {
		struct wait *wait = find_or_make(p);

		if (wait && wait->queued && wait->switches == switches(p))
			return apart(wait->queued);
	}
	return last_queued(p);
}

/* When the thread that looks was last given a CPU. */
static __always_inline __u64 arrived(struct task_struct *p)
{
	if (settings.tracking) {
		struct wait *wait = find_or_make(p);

		own_tgid = p->tgid;
		if (!last_arrival(p))
			return wait ? apart(wait->arrived) : 0;
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
