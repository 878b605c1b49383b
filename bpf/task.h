/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What a task is doing. Only typed loads: a kernel locked down to confidentiality refuses programs that
 * use bpf_probe_read. */
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
#define MAX_RT_PRIO 100
#define PF_KTHREAD 0x00200000
#define CAP_SYS_NICE 23

static __always_inline unsigned long task_state(struct task_struct *p)
{
	struct task_struct___with_state *old = (void *)p;

	if (bpf_core_field_exists(p->__state))
		return p->__state;
	return old->state;
}

static __always_inline unsigned int task_cpu(struct task_struct *p)
{
	struct task_struct___with_cpu *old = (void *)p;

	if (bpf_core_field_exists(p->thread_info.cpu))
		return p->thread_info.cpu;
	return old->cpu;
}

/* The current task tells from 5.11 on. On riscv64, bpf_get_smp_processor_id() is 0 on every CPU of 6.12. */
static __always_inline unsigned int this_cpu(void)
{
	if (bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_get_current_task_btf))
		return task_cpu(bpf_get_current_task_btf());
	return bpf_get_smp_processor_id();
}

/* Needs CONFIG_FAIR_GROUP_SCHED, as every distribution has it; NULL without. */
static __always_inline struct rq *task_rq(struct task_struct *p)
{
	if (!bpf_core_field_exists(p->se.cfs_rq))
		return 0;
	return p->se.cfs_rq->rq;
}

/* Returns whether the task may give itself a real-time policy. In a user namespace of its own a task
 * has all capabilities, but none that counts for this. */
static __always_inline bool may_raise_itself(struct task_struct *p)
{
	struct cred___with_array *old = (void *)p->cred;
	__u64 permitted;

	if (p->cred->user_ns->level)
		return false;
	if (bpf_core_field_exists(p->cred->cap_permitted.val))
		permitted = p->cred->cap_permitted.val;
	else
		permitted = old->cap_permitted.cap[0];
	return permitted & 1ULL << CAP_SYS_NICE;
}

/* Returns whether a fair task has a real-time rank that no other task lends it. It was forked while its
 * parent got a real-time policy: copied before, and given the rank of its parent after. */
static __always_inline bool misranked(struct task_struct *p)
{
	if (p->prio >= MAX_RT_PRIO || p->policy == SCHED_FIFO || p->policy == SCHED_RR || p->policy == SCHED_DEADLINE)
		return false;
	return bpf_core_field_exists(p->pi_top_task) && !p->pi_top_task;
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

/* Held back by the quota of its cgroup, and not by who runs. */
static __always_inline bool throttled(struct task_struct *p)
{
	if (p->prio < MAX_RT_PRIO)
		return bpf_core_field_exists(p->rt.parent) && p->rt.parent && p->rt.rt_rq->rt_throttled;
	/* From 6.18 on each task is throttled by itself, on its way out of the kernel. */
	if (bpf_core_field_exists(p->throttled))
		return p->throttled;
	if (bpf_core_field_exists(p->se.cfs_rq->throttle_count))
		return p->se.cfs_rq->throttle_count;
	return false;
}

/* Queued, and kept from running only by who runs: what starves if it lasts. Whether last_queued is set
 * does not matter: a task preempted between set_current_state() and schedule() stays queued with 0
 * there, and no later wakeup stamps it. */
static __always_inline bool waits(struct task_struct *p)
{
	if (p->on_rq != 1 || p->on_cpu)
		return false;
	/* Throttled by its own budget, not starved. */
	if (p->prio < 0 || p->policy == SCHED_DEADLINE)
		return false;
	/* From 6.12 on a task that went to sleep may be left in the queue for a while. */
	if (bpf_core_field_exists(p->se.sched_delayed) && p->se.sched_delayed)
		return false;
	/* With proxy execution a task that sleeps on a mutex stays queued, to lend its turn to the owner. */
	if (bpf_core_field_exists(p->blocked_on) && p->blocked_on && task_state(p) != TASK_RUNNING)
		return false;
	if (throttled(p))
		return false;
	return !task_rq(p) || task_rq(p)->stop != p;
}

#endif
