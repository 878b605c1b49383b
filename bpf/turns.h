/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Turns one by one, through a ring buffer. */
#ifndef STALLSTAT_TURNS_H
#define STALLSTAT_TURNS_H

#include "count.h"

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} turns SEC(".maps");

static __always_inline struct turn *begin_turn(struct outcome *outcome)
{
	struct entry *cpu = bpf_map_lookup_elem(&cpus, &outcome->cpu);
	struct turn *turn;
	__u64 since;

	if (!cpu)
		return 0;
	since = cpu->arrived;
	cpu->arrived = outcome->now;
	turn = bpf_ringbuf_reserve(&turns, sizeof(*turn), 0);
	if (!turn) {
		__sync_fetch_and_add(&losses.dropped, 1);
		return 0;
	}
	__builtin_memset(turn, 0, sizeof(*turn));
	turn->end = outcome->now;
	turn->length = since ? outcome->now - since : 0;
	turn->cpu = outcome->cpu;
	turn->runnable = outcome->runnable;
	for (unsigned int i = 0; i < EVENTS; i++)
		turn->events[i] = outcome->events[i];
	return turn;
}

static __always_inline void tell_turn(struct task_struct *prev, struct task_struct *next, struct outcome *outcome)
{
	struct turn *turn = begin_turn(outcome);

	if (!turn)
		return;
	turn->tid = prev->pid;
	turn->tgid = prev->tgid;
	turn->cgroup = group_of(prev);
	turn->next_tid = next->pid;
	turn->next_tgid = next->tgid;
	turn->next_cgroup = group_of(next);
	turn->waited = outcome->waited;
	for (unsigned int i = 0; i < sizeof(turn->comm); i++) {
		turn->comm[i] = prev->comm[i];
		turn->next_comm[i] = next->comm[i];
	}
	/* Whoever reads comes by often enough: no wakeup from under a run queue's lock. */
	bpf_ringbuf_submit(turn, BPF_RB_NO_WAKEUP);
}

static __always_inline void tell_part_of_turn(void)
{
	struct outcome outcome = {
		.now = bpf_ktime_get_ns(),
		.cpu = bpf_get_smp_processor_id(),
		.runnable = true,
	};
	__u64 self = bpf_get_current_pid_tgid();
	struct turn *turn;

	read_events(&outcome);
	turn = begin_turn(&outcome);
	if (!turn)
		return;
	turn->tid = turn->next_tid = (int)self;
	turn->tgid = turn->next_tgid = (int)(self >> 32);
	turn->cgroup = turn->next_cgroup = bpf_get_current_cgroup_id();
	bpf_get_current_comm(turn->comm, sizeof(turn->comm));
	__builtin_memcpy(turn->next_comm, turn->comm, sizeof(turn->comm));
	bpf_ringbuf_submit(turn, BPF_RB_NO_WAKEUP);
}

#endif
