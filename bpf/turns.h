/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Turns one by one, through a queue. */
#ifndef STALLSTAT_TURNS_H
#define STALLSTAT_TURNS_H

#include "count.h"

/* Not a ring buffer: before 6.13 its lock is one that sleeps on real-time kernels, and asked for under a run queue's
 * lock that brings the machine to a stop. A queue's lock is a raw one on every kernel. */
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

/* How long it has run is told from what this CPU told last. */
static __always_inline void tell(struct turn *turn, struct outcome *outcome)
{
	struct entry *cpu = bpf_map_lookup_elem(&cpus, &outcome->cpu);

	if (!cpu)
		return;
	turn->length = cpu->arrived ? outcome->now - cpu->arrived : 0;
	cpu->arrived = outcome->now;
	turn->end = outcome->now;
	turn->cpu = outcome->cpu;
	turn->runnable = outcome->runnable;
	for (unsigned int i = 0; i < EVENTS; i++)
		turn->events[i] = outcome->events[i];
	push(turn);
}

static __always_inline void say_who_is_next(struct turn *turn, struct task_struct *p)
{
	turn->next_tid = p->pid;
	turn->next_tgid = p->tgid;
	turn->next_cgroup = group_of(p);
	copy_name(turn->next_comm, p);
}

static __always_inline void tell_turn(struct task_struct *prev, struct task_struct *next, struct outcome *outcome)
{
	struct turn turn = {
		.tid = prev->pid,
		.tgid = prev->tgid,
		.cgroup = group_of(prev),
		.waited = outcome->waited,
	};

	copy_name(turn.comm, prev);
	say_who_is_next(&turn, next);
	tell(&turn, outcome);
}

/* A task goes to another CPU while it waits: what it has waited for here is not that one's fault. */
static __always_inline void tell_part_of_wait(struct task_struct *p, unsigned int from)
{
	struct turn turn = { .cpu = from, .moved = true };
	struct entry *entry = known_entry_of(p);

	if (!entry || !entry->queued || p->on_cpu)
		return;
	turn.end = bpf_ktime_get_ns();
	turn.waited = between(entry->queued, turn.end);
	entry->queued = turn.end;
	say_who_is_next(&turn, p);
	push(&turn);
}

static __always_inline void tell_part_of_turn(void)
{
	struct outcome outcome = {
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

	read_events(&outcome);
	bpf_get_current_comm(turn.comm, sizeof(turn.comm));
	__builtin_memcpy(turn.next_comm, turn.comm, sizeof(turn.comm));
	tell(&turn, &outcome);
}

#endif
