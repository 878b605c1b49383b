/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The maps of stallstat, and the counting at each event. */
#ifndef STALLSTAT_COUNT_H
#define STALLSTAT_COUNT_H

#include "stallstat.h"
#include "task.h"

const volatile struct settings settings = {};
struct losses losses SEC(".data.losses") = {};
/* The number of the current interval, which user space increments. */
unsigned int epoch SEC(".data.epoch") = 1;

/* The index of each task's entry, by tid; 0 for none. This map and `tasks` are arrays, allocated at
 * the start, because no memory can be allocated under the lock of a run queue. A program reads an
 * array with a few instructions; a hash table takes 45 ns. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1); /* sizes are set before loading */
	__type(key, unsigned int);
	__type(value, unsigned int);
} entry_of_tid SEC(".maps");

/* The entries, from index 1 on. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(unsigned int));
	__uint(value_size, sizeof(struct entry));
} tasks SEC(".maps");

/* The indices of unused entries. The reader fills this queue, also with the entries of tasks that
 * have ended. */
struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, 1);
	__type(value, unsigned int);
} free_entries SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(unsigned int));
	__uint(value_size, sizeof(struct entry));
} cpus SEC(".maps");

#define MAX_WORDS ((sizeof(struct entry) + COUNT_KINDS * sizeof(struct histogram)) / sizeof(__u64))

/* The buffer in which a drain puts an entry together. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(unsigned int));
	__uint(value_size, sizeof(struct entry));
} copies SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, unsigned int);
	__type(value, struct cpu_info);
} cpu_infos SEC(".maps");

/* The filters. `numbers` has the selected tasks and processes. `names` and `groups` have the
 * verdicts of user space. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, int);
	__type(value, unsigned char);
} numbers SEC(".maps");

struct name {
	__u64 halves[2];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, struct name);
	__type(value, unsigned char);
} names SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, unsigned char);
} groups SEC(".maps");

/* The performance counters: for each event, a descriptor for each CPU. */
struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(int));
	__uint(value_size, sizeof(int));
} counters SEC(".maps");

/* Data that the handlers of one task switch, or of one tick, share. */
struct switch_event {
	__u64 now;
	__u64 waited;
	__u64 events[EVENTS];
	unsigned int cpu;
	bool runnable;
};

static __always_inline unsigned int slot_of(__u64 value)
{
	unsigned int octave = 0;
	__u64 rest = value >> SLOT_SHIFT;

	if (!rest)
		return 0;
	if (rest >> 16) { octave += 16; rest >>= 16; }
	if (rest >> 8) { octave += 8; rest >>= 8; }
	if (rest >> 4) { octave += 4; rest >>= 4; }
	if (rest >> 2) { octave += 2; rest >>= 2; }
	if (rest >> 1) octave += 1;
	octave = 1 + octave * 4 + ((value >> (octave + SLOT_SHIFT - 2)) & 3);
	return octave < SLOTS ? octave : SLOTS - 1;
}

static __always_inline struct histogram *histograms_of(struct entry *entry)
{
	return (struct histogram *)(entry + 1);
}

/* Adds a value to a histogram of a task. A drain subtracts on another CPU, so each addition is
 * atomic. */
static __always_inline void count(struct entry *entry, unsigned char index, __u64 value)
{
	struct histogram *histogram = histograms_of(entry) + index;
	unsigned int slot = slot_of(value);

	if (slot >= SLOTS)
		return;
	__sync_fetch_and_add(&histogram->counts[slot], 1);
	__sync_fetch_and_add(&histogram->sums[slot], value);
	if (value > histogram->longest)
		histogram->longest = value;
	entry->touched = 1;
}

/* Adds a value to a histogram of this CPU. It needs no atomic addition, because a drain does not
 * subtract here: it keeps the written counts in a second set of histograms behind the first. */
static __always_inline void count_own(struct entry *cpu, unsigned char index, __u64 value)
{
	struct histogram *histogram = histograms_of(cpu) + index;
	unsigned int slot = slot_of(value);

	if (slot >= SLOTS)
		return;
	histogram->counts[slot]++;
	histogram->sums[slot] += value;
	if (value > histogram->longest)
		histogram->longest = value;
	cpu->touched = 1;
}

/* Adds a number that is no time. It is shifted, so that small numbers get slots of their own. */
static __always_inline void count_number(struct entry *entry, unsigned char index, __u64 number)
{
	count(entry, index, number << SLOT_SHIFT);
}

#define WANTS(kind) (settings.histogram_index[kind] != COUNT_NOT)
#define CPU_WANTS(kind) (settings.cpu_histogram_index[kind] != COUNT_NOT)

/* Returns the time between two moments; 0 if they are in the wrong order, because the clocks of two
 * run queues may differ a little. */
static __always_inline __u64 between(__u64 from, __u64 to)
{
	return to > from ? to - from : 0;
}

/* Returns the clock of the run queue, to compare with the kernel's own records. Other times do not
 * use this clock, though it costs less, because it stops between a wakeup and the next switch. */
static __always_inline __u64 queue_clock(struct task_struct *p)
{
	struct rq *rq = task_rq(p);

	return rq ? rq->clock : 0;
}

static __always_inline __u64 group_of(struct task_struct *p)
{
	return p->cgroups->dfl_cgrp->kn->id;
}

static __always_inline bool is_watched(unsigned int cpu)
{
	struct cpu_info *info;

	if (!settings.by_cpu)
		return true;
	info = bpf_map_lookup_elem(&cpu_infos, &cpu);
	return info && info->watched;
}

static __always_inline unsigned char judge(struct entry *entry)
{
	unsigned char *found;

	if (settings.by_number) {
		found = bpf_map_lookup_elem(&numbers, &entry->tgid);
		if (!found)
			found = bpf_map_lookup_elem(&numbers, &entry->tid);
		if (!found)
			return VERDICT_UNWANTED;
	}
	if (settings.by_name) {
		found = bpf_map_lookup_elem(&names, entry->comm);
		if (!found)
			return VERDICT_OPEN;
		if (*found & NAME_ANYWHERE)
			return VERDICT_WANTED;
		if (!(*found & NAME_IN_GROUP))
			return VERDICT_UNWANTED;
	}
	if (settings.by_group) {
		found = bpf_map_lookup_elem(&groups, &entry->cgroup);
		return found ? *found : VERDICT_OPEN;
	}
	return VERDICT_WANTED;
}

static __always_inline void copy_name(unsigned char *to, struct task_struct *p)
{
	for (unsigned int i = 0; i < sizeof(p->comm); i++)
		to[i] = p->comm[i];
}

/* Reads the identity of the task and its group again. A rename makes the entry stale at once; a
 * move to another group is noticed once per interval. */
static __always_inline void refresh(struct entry *entry, struct task_struct *p)
{
	copy_name(entry->comm, p);
	entry->cgroup = group_of(p);
	entry->tgid = p->tgid;
	entry->tid = p->pid;
	entry->epoch = epoch;
	entry->verdict = judge(entry);
}

/* Starts the entry of a new task. Counts that are left in the entry stay: they are of its last
 * task, which had the same tid. */
static __always_inline void reset_entry(struct entry *entry, struct task_struct *p)
{
	entry->queued_since = entry->on_cpu_since = entry->asleep_since = entry->waking_since = 0;
	entry->sleeps = p->nvcsw;
	entry->second = entry->migrations = 0;
	entry->ended = 0;
	refresh(entry, p);
}

/* Gives a task a new entry. The task does not run, or runs on this CPU and is about to leave it. No
 * other CPU can give it another entry meanwhile, because a lock of the scheduler is held. */
static __always_inline struct entry *make_entry(struct task_struct *p, unsigned int *index)
{
	struct entry *entry;
	unsigned int number;

	if (bpf_map_pop_elem(&free_entries, &number)) {
		__sync_fetch_and_add(&losses.untracked, 1);
		return 0;
	}
	entry = bpf_map_lookup_elem(&tasks, &number);
	if (!entry)
		return 0;
	reset_entry(entry, p);
	*index = entry->index = number;
	return entry;
}

/* Returns the address of a task's index in `entry_of_tid`; NULL for the idle task, whose tid is
 * 0. */
static __always_inline unsigned int *index_of(struct task_struct *p)
{
	unsigned int tid = p->pid, *index;

	if (!tid)
		return 0;
	index = bpf_map_lookup_elem(&entry_of_tid, &tid);
	if (!index)
		__sync_fetch_and_add(&losses.untracked, 1);
	return index;
}

static __always_inline struct entry *entry_at(unsigned int index)
{
	return index ? bpf_map_lookup_elem(&tasks, &index) : 0;
}

static __always_inline struct entry *known_entry_of(struct task_struct *p)
{
	unsigned int *index = index_of(p);

	return index ? entry_at(*index) : 0;
}

static __always_inline struct entry *entry_of(struct task_struct *p)
{
	unsigned int *index = index_of(p);

	if (!index)
		return 0;
	return *index ? entry_at(*index) : make_entry(p, index);
}

static __always_inline void woken(struct task_struct *p, bool is_new)
{
	struct entry *entry;
	__u64 now;

	/* A task that is still on its CPU is not woken, but continues to run. */
	entry = p->on_cpu ? 0 : entry_of(p);
	if (!entry)
		return;
	if (is_new && entry->ended)
		reset_entry(entry, p);
	if (entry->verdict == VERDICT_UNWANTED)
		return;
	now = bpf_ktime_get_ns();
	if (!entry->queued_since) {
		entry->queued_since = now;
		entry->sleeps = p->nvcsw;
	}
	if (!is_watched(task_cpu(p)))
		return;
	if (WANTS(COUNT_SLEEP) && entry->asleep_since)
		count(entry, settings.histogram_index[COUNT_SLEEP], between(entry->asleep_since, now));
	entry->asleep_since = 0;
	if (WANTS(COUNT_DEPTH) && task_rq(p))
		count_number(entry, settings.histogram_index[COUNT_DEPTH], task_rq(p)->nr_running);
}

/* Reads the performance counters of this CPU. Their counts since the last read belong to the task
 * that ran until now. */
static __always_inline void read_events(struct switch_event *event)
{
	struct entry *cpu;

	if (!settings.events)
		return;
	/* A CPU's entry has the last values of its counters. */
	cpu = bpf_map_lookup_elem(&cpus, &event->cpu);
	if (!cpu)
		return;
	for (unsigned int i = 0; i < EVENTS && i < settings.events; i++) {
		__u64 value = bpf_perf_event_read(&counters, i * settings.cpus + event->cpu);

		/* An error is a small negative number. */
		if ((__s64)value < 0 && (__s64)value > -4096)
			continue;
		if (cpu->events[i])
			event->events[i] = value - cpu->events[i];
		cpu->events[i] = value;
	}
}

/* Returns whether the end of a turn has to be recorded. If the task goes to sleep, it is recorded
 * only if turns, sleeps or performance counters are requested. */
static __always_inline bool is_of_interest(struct task_struct *p, bool preempt)
{
	if (WANTS(COUNT_VOLUNTARY) || WANTS(COUNT_SLEEP) || settings.events || settings.turns || preempt)
		return true;
	return task_state(p) == TASK_RUNNING || task_state(p) & TASK_DEAD;
}

static __always_inline void switched_out(struct task_struct *p, bool preempt, struct switch_event *event)
{
	struct entry *entry = is_of_interest(p, preempt) ? entry_of(p) : 0;
	bool still_runnable;

	if (!entry)
		return;
	/* A wakeup by another CPU may already have changed its state, so the count of its sleeps
	 * decides. A task that was preempted while it was about to sleep is still runnable,
	 * whatever its state is. */
	still_runnable = preempt || (entry->on_cpu_since ? entry->sleeps == p->nvcsw : task_state(p) == TASK_RUNNING);
	event->runnable = still_runnable;
	if (task_state(p) & TASK_DEAD)
		entry->ended = ENDED;
	if (entry->epoch != epoch)
		refresh(entry, p);
	if (entry->verdict != VERDICT_UNWANTED && is_watched(event->cpu)) {
		/* If the turn began before the programs were attached, the kernel's record has its
		 * begin. */
		__u64 length = entry->on_cpu_since ? between(entry->on_cpu_since, event->now) :
						between(last_arrival(p), queue_clock(p));

		if (WANTS(COUNT_VOLUNTARY)) {
			if (still_runnable)
				count(entry, settings.histogram_index[COUNT_PREEMPTED], length);
			else
				count(entry, settings.histogram_index[COUNT_VOLUNTARY], length);
		}
		for (unsigned int i = 0; i < EVENTS && i < settings.events; i++) {
			__sync_fetch_and_add(&entry->events[i], event->events[i]);
			entry->touched = 1;
		}
	}
	entry->on_cpu_since = 0;
	entry->queued_since = still_runnable ? event->now : 0;
	entry->asleep_since = still_runnable ? 0 : event->now;
}

static __always_inline void switched_in(struct task_struct *p, struct switch_event *event)
{
	struct entry *cpu = 0, *entry = entry_of(p);
	if (CPU_WANTS(COUNT_LATENCY) || CPU_WANTS(COUNT_SLEEP))
		cpu = bpf_map_lookup_elem(&cpus, &event->cpu);
	if (CPU_WANTS(COUNT_SLEEP) && cpu) {
		if (!p->pid) {
			cpu->asleep_since = event->now;
		} else if (cpu->asleep_since) {
			if (is_watched(event->cpu))
				count_own(cpu, settings.cpu_histogram_index[COUNT_SLEEP], between(cpu->asleep_since, event->now));
			cpu->asleep_since = 0;
		}
	}
	if (!entry)
		return;
	if (entry->epoch != epoch)
		refresh(entry, p);
	/* If the wait began before the programs were attached, the kernel's record has its
	 * begin. */
	if (entry->queued_since)
		event->waited = between(entry->queued_since, event->now);
	else if (last_queued(p))
		event->waited = between(last_queued(p), queue_clock(p));
	if (entry->verdict != VERDICT_UNWANTED && is_watched(event->cpu)) {
		if (WANTS(COUNT_LATENCY) && event->waited && event->waited >= settings.shortest) {
			count(entry, settings.histogram_index[COUNT_LATENCY], event->waited);
			if (cpu)
				count_own(cpu, settings.cpu_histogram_index[COUNT_LATENCY], event->waited);
		}
		if (WANTS(COUNT_WAKING) && entry->waking_since)
			count(entry, settings.histogram_index[COUNT_WAKING], between(entry->waking_since, event->now));
	}
	entry->waking_since = entry->queued_since = entry->asleep_since = 0;
	entry->on_cpu_since = event->now;
	entry->sleeps = p->nvcsw;
}

/* Adds the migrations of a second to their histogram when the second is over. */
static __always_inline void flush_migrations(struct entry *entry)
{
	unsigned int second;

	if (!WANTS(COUNT_MIGRATIONS))
		return;
	second = bpf_ktime_get_ns() / 1000000000;
	if (entry->second == second)
		return;
	if (entry->migrations)
		count_number(entry, settings.histogram_index[COUNT_MIGRATIONS], entry->migrations);
	entry->second = second;
	entry->migrations = 0;
}

static __always_inline void migrated(struct task_struct *p, unsigned int from, unsigned int to)
{
	struct entry *entry = entry_of(p);
	struct cpu_info *here, *there;

	if (!entry || entry->verdict == VERDICT_UNWANTED || !is_watched(to))
		return;
	flush_migrations(entry);
	entry->migrations++;
	entry->touched = 1;
	__sync_fetch_and_add(&entry->moves, 1);
	here = bpf_map_lookup_elem(&cpu_infos, &from);
	there = bpf_map_lookup_elem(&cpu_infos, &to);
	if (!here || !there)
		return;
	if (here->node != there->node)
		__sync_fetch_and_add(&entry->cross_node, 1);
	else if (here->cache != there->cache)
		__sync_fetch_and_add(&entry->cross_cache, 1);
}

#endif
