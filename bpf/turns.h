/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Reports each turn to user space, through a queue. A turn is the time from when a task gets a CPU
 * until it leaves the CPU. */
#ifndef STALLSTAT_TURNS_H
#define STALLSTAT_TURNS_H

#include "count.h"

/* This is no ring buffer. Before 6.13 the lock of a ring buffer sleeps on real-time kernels, and
 * taking it under the lock of a run queue would hang the machine. The lock of a queue is a raw one
 * on every kernel. */
struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, 1);
	__type(value, struct turn);
} turns SEC(".maps");

static __always_inline void push(struct turn *turn)
{
	if (bpf_map_push_elem(&turns, turn, 0))
		__sync_fetch_and_add(&losses.dropped, 1);
}

/* Completes a turn, which began at the end of the last turn of this CPU, and pushes it. */
static __always_inline void emit(struct turn *turn, struct switch_event *event)
{
	struct entry *cpu = bpf_map_lookup_elem(&cpus, &event->cpu);

	if (!cpu)
		return;
	turn->length = cpu->on_cpu_since ? event->now - cpu->on_cpu_since : 0;
	cpu->on_cpu_since = event->now;
	turn->end = event->now;
	turn->cpu = event->cpu;
	turn->runnable = event->runnable;
	for (unsigned int i = 0; i < EVENTS; i++)
		turn->events[i] = event->events[i];
	push(turn);
}

static __always_inline void set_next(struct turn *turn, struct task_struct *p)
{
	turn->next_tid = p->pid;
	turn->next_tgid = p->tgid;
	turn->next_cgroup = group_of(p);
	copy_name(turn->next_comm, p);
}

static __always_inline void emit_turn(struct task_struct *prev, struct task_struct *next, struct switch_event *event)
{
	struct turn turn = {
		.tid = prev->pid,
		.tgid = prev->tgid,
		.cgroup = group_of(prev),
		.waited = event->waited,
	};

	copy_name(turn.comm, prev);
	set_next(&turn, next);
	emit(&turn, event);
}

/* Reports a part of a wait: the waiting task moves to another CPU, which did not cause this
 * part. */
static __always_inline void emit_part_of_wait(struct task_struct *p, unsigned int from)
{
	struct turn turn = { .cpu = from, .moved = true };
	struct entry *entry = known_entry_of(p);

	if (!entry || !entry->queued_since || p->on_cpu)
		return;
	turn.end = bpf_ktime_get_ns();
	turn.waited = between(entry->queued_since, turn.end);
	entry->queued_since = turn.end;
	set_next(&turn, p);
	push(&turn);
}

static __always_inline void emit_part_of_turn(void)
{
	struct switch_event event = {
		.now = bpf_ktime_get_ns(),
		.cpu = this_cpu(),
		.runnable = true,
	};
	__u64 self = bpf_get_current_pid_tgid(), group = bpf_get_current_cgroup_id();
	struct turn turn = {
		.tid = (int)self,
		.tgid = (int)(self >> 32),
		.cgroup = group,
		.next_tid = (int)self,
		.next_tgid = (int)(self >> 32),
		.next_cgroup = group,
	};

	read_events(&event);
	bpf_get_current_comm(turn.comm, sizeof(turn.comm));
	__builtin_memcpy(turn.next_comm, turn.comm, sizeof(turn.comm));
	emit(&turn, &event);
}

#endif
