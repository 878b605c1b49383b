// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The BPF programs with which stallstat counts.
 *
 * Each task has an entry: the times of its current state, and a histogram for each requested kind.
 * `drain_tasks` and `drain_cpus` write out exactly the counts since the last drain, so that no
 * event is lost or counted twice, however long a drain takes. Programs that are not needed are not
 * loaded, and neither is code for a setting that is off. */
#include "count.h"
#include "drain.h"
#include "turns.h"

SEC("tp_btf/sched_wakeup")
int BPF_PROG(on_wakeup, struct task_struct *p)
{
	woken(p, false);
	return 0;
}

SEC("tp_btf/sched_wakeup_new")
int BPF_PROG(on_wakeup_new, struct task_struct *p)
{
	woken(p, true);
	return 0;
}

SEC("tp_btf/sched_waking")
int BPF_PROG(on_waking, struct task_struct *p)
{
	/* A task that is still on its CPU is not woken, but continues to run. */
	struct entry *entry = p->on_cpu ? 0 : entry_of(p);

	if (entry)
		entry->waking_since = bpf_ktime_get_ns();
	return 0;
}

SEC("tp_btf/sched_switch")
int BPF_PROG(on_switch, bool preempt, struct task_struct *prev, struct task_struct *next)
{
	struct switch_event event = {
		.now = bpf_ktime_get_ns(),
		.cpu = task_cpu(prev),
	};

	read_events(&event);
	switched_out(prev, preempt, &event);
	switched_in(next, &event);
	if (settings.turns)
		emit_turn(prev, next, &event);
	return 0;
}

SEC("tp_btf/sched_migrate_task")
int BPF_PROG(on_migrate, struct task_struct *p, int to)
{
	unsigned int from = task_cpu(p);

	if (WANTS(COUNT_MIGRATIONS))
		migrated(p, from, to);
	if (settings.turns)
		emit_part_of_wait(p, from);
	return 0;
}

/* Runs at each tick of a perf clock on each CPU: a long turn is reported in parts. */
SEC("perf_event")
int on_tick(void *context)
{
	emit_part_of_turn();
	return 0;
}

/* Marks the entry of a renamed task as stale. The task does not have its new name yet, so the entry
 * is refreshed at the next switch of the task. */
SEC("tp_btf/task_rename")
int BPF_PROG(on_rename, struct task_struct *p)
{
	struct entry *entry = known_entry_of(p);

	if (entry)
		entry->epoch = STALE;
	return 0;
}

SEC("iter/bpf_map_elem")
int drain_tasks(struct bpf_iter__bpf_map_elem *ctx)
{
	unsigned int *key = ctx->key;
	struct entry *entry;

	if (!key)
		return 0;
	entry = entry_at(*key);
	if (entry && (entry->touched || entry->ended == ENDED))
		drain_task(ctx->meta->seq, entry);
	return 0;
}

SEC("iter/bpf_map_elem")
int drain_cpus(struct bpf_iter__bpf_map_elem *ctx)
{
	struct entry *entry;
	unsigned int *key = ctx->key;
	unsigned int cpu;

	if (!key)
		return 0;
	cpu = *key;
	entry = bpf_map_lookup_elem(&cpus, &cpu);
	if (!entry || !entry->touched)
		return 0;
	entry->tid = cpu;
	drain_cpu(ctx->meta->seq, entry);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
