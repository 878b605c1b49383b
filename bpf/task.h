/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Reads the state of a task, by typed loads where the verifier knows that the pointer is a task, or
 * by bpf_probe_read. A kernel in lockdown mode confidentiality rejects programs that use
 * bpf_probe_read. */
#ifndef STALLD_TASK_H
#define STALLD_TASK_H

#include "vmlinux.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#define TASK_RUNNING 0
#define TASK_DEAD 0x80
#define SCHED_FIFO 1
#define SCHED_RR 2
#define SCHED_DEADLINE 6
#define SCX_TASK_QUEUED 1
#define MAX_RT_PRIO 100
#define PF_KTHREAD 0x00200000
#define CAP_SYS_NICE 23

/* How a function reads the kernel's memory. Each call passes a constant, so each program has only
 * the loads of one kind. */
enum access { TYPED, PROBED };

/* Reads a field that is an integer, in the width that it has in the running kernel. */
#define GET(how, p, field)                                                             \
	({                                                                             \
		typeof((p)->field) value_;                                             \
		if ((how) == PROBED)                                                   \
			value_ = (typeof(value_))BPF_CORE_READ_BITFIELD_PROBED(p, field); \
		else                                                                   \
			value_ = (p)->field;                                           \
		value_;                                                                \
	})

/* Reads a field that is a pointer. clang 14 can't do that by GET. */
#define GET_POINTER(how, p, field)                                                     \
	({                                                                             \
		typeof((p)->field) pointer_ = 0;                                       \
		if ((how) == PROBED)                                                   \
			bpf_core_read(&pointer_, sizeof(pointer_), &(p)->field);       \
		else                                                                   \
			pointer_ = (p)->field;                                         \
		pointer_;                                                              \
	})

static __always_inline unsigned long state_of(enum access how, struct task_struct *p)
{
	struct task_struct___with_state *old = (void *)p;

	if (bpf_core_field_exists(p->__state))
		return GET(how, p, __state);
	return GET(how, old, state);
}

static __always_inline unsigned long task_state(struct task_struct *p)
{
	return state_of(TYPED, p);
}

static __always_inline unsigned int cpu_of(enum access how, struct task_struct *p)
{
	struct task_struct___with_cpu *old = (void *)p;

	if (bpf_core_field_exists(p->thread_info.cpu))
		return GET(how, p, thread_info.cpu);
	return GET(how, old, cpu);
}

static __always_inline unsigned int task_cpu(struct task_struct *p)
{
	return cpu_of(TYPED, p);
}

/* Returns the CPU on which the program runs, from 5.11 on by the current task. On riscv64,
 * bpf_get_smp_processor_id() is 0 on every CPU of 6.12. */
static __always_inline unsigned int this_cpu(void)
{
	if (bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_get_current_task_btf))
		return task_cpu(bpf_get_current_task_btf());
	return bpf_get_smp_processor_id();
}

/* Returns the run queue of a task; NULL without CONFIG_FAIR_GROUP_SCHED, which every distribution
 * has. */
static __always_inline struct rq *rq_of(enum access how, struct task_struct *p)
{
	struct cfs_rq *cfs_rq;

	if (!bpf_core_field_exists(p->se.cfs_rq))
		return 0;
	cfs_rq = GET_POINTER(how, p, se.cfs_rq);
	return GET_POINTER(how, cfs_rq, rq);
}

static __always_inline struct rq *task_rq(struct task_struct *p)
{
	return rq_of(TYPED, p);
}

/* Returns whether the task may give itself a real-time policy. The capabilities of a task in
 * another user namespace do not count for this. */
static __always_inline bool may_raise_itself(enum access how, struct task_struct *p)
{
	struct cred *cred = GET_POINTER(how, p, cred);
	struct cred___with_array *old = (void *)cred;
	struct user_namespace *user_ns = GET_POINTER(how, cred, user_ns);
	__u64 permitted;

	if (GET(how, user_ns, level))
		return false;
	if (bpf_core_field_exists(cred->cap_permitted.val)) {
		permitted = GET(how, cred, cap_permitted.val);
	} else if (how == PROBED) {
		__u32 low = 0;

		bpf_core_read(&low, sizeof(low), &old->cap_permitted.cap[0]);
		permitted = low;
	} else {
		permitted = old->cap_permitted.cap[0];
	}
	return permitted & 1ULL << CAP_SYS_NICE;
}

/* Returns whether a fair task has a real-time rank that no other task lends it. This happens if its
 * parent got a real-time policy during the fork: the task was copied before, and got the rank of
 * its parent after. */
static __always_inline bool misranked(enum access how, struct task_struct *p)
{
	unsigned int policy = GET(how, p, policy);

	if (GET(how, p, prio) >= MAX_RT_PRIO || policy == SCHED_FIFO || policy == SCHED_RR || policy == SCHED_DEADLINE)
		return false;
	return bpf_core_field_exists(p->pi_top_task) && !GET_POINTER(how, p, pi_top_task);
}

static __always_inline __u64 switches(struct task_struct *p)
{
	return p->nvcsw + p->nivcsw;
}

/* Without CONFIG_SCHED_INFO, struct sched_info is empty. */
static __always_inline __u64 last_queued(struct task_struct *p)
{
	return bpf_core_field_exists(p->sched_info.last_queued) ? p->sched_info.last_queued : 0;
}

static __always_inline __u64 last_arrival(struct task_struct *p)
{
	return bpf_core_field_exists(p->sched_info.last_arrival) ? p->sched_info.last_arrival : 0;
}

/* Returns whether the quota of its cgroup, and not another task, keeps a task from running. */
static __always_inline bool throttled_by(enum access how, struct task_struct *p)
{
	struct cfs_rq *cfs_rq;

	if (GET(how, p, prio) < MAX_RT_PRIO) {
		struct rt_rq *rt_rq;

		if (!bpf_core_field_exists(p->rt.parent) || !GET_POINTER(how, p, rt.parent))
			return false;
		rt_rq = GET_POINTER(how, p, rt.rt_rq);
		return GET(how, rt_rq, rt_throttled);
	}
	/* From 6.18 on each task is throttled by itself, when it returns to user space. */
	if (bpf_core_field_exists(p->throttled))
		return GET(how, p, throttled);
	if (!bpf_core_field_exists(p->se.cfs_rq->throttle_count))
		return false;
	cfs_rq = GET_POINTER(how, p, se.cfs_rq);
	return GET(how, cfs_rq, throttle_count);
}

static __always_inline bool throttled(struct task_struct *p)
{
	return throttled_by(TYPED, p);
}

/* Returns whether a task is a waiter: it is queued, and only other tasks keep it from running. A
 * last_queued of 0 does not matter: a task that was preempted between set_current_state() and
 * schedule() stays queued with 0 there, and no later wakeup stamps it. */
static __always_inline bool waits_by(enum access how, struct task_struct *p)
{
	struct rq *rq;

	if (GET(how, p, on_rq) != 1 || GET(how, p, on_cpu))
		return false;
	/* A SCHED_DEADLINE task that waits is throttled by its own budget. */
	if (GET(how, p, prio) < 0 || GET(how, p, policy) == SCHED_DEADLINE)
		return false;
	/* From 6.12 on a task that went to sleep may be left in the queue for a while. */
	if (bpf_core_field_exists(p->se.sched_delayed) && GET(how, p, se.sched_delayed))
		return false;
	/* With proxy execution a task that sleeps on a mutex stays queued, to lend its CPU time to
	 * the owner. */
	if (bpf_core_field_exists(p->blocked_on) && GET_POINTER(how, p, blocked_on) && state_of(how, p) != TASK_RUNNING)
		return false;
	if (throttled_by(how, p))
		return false;
	rq = rq_of(how, p);
	return !rq || GET_POINTER(how, rq, stop) != p;
}

static __always_inline bool waits(struct task_struct *p)
{
	return waits_by(TYPED, p);
}

#endif
