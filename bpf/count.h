/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Where stallstat counts, and what each event adds. */
#ifndef STALLSTAT_COUNT_H
#define STALLSTAT_COUNT_H

#include "stallstat.h"
#include "task.h"

const volatile struct settings settings = {};
struct losses losses SEC(".data.losses") = {};
/* The number of the interval, which the program around counts up. */
unsigned int epoch SEC(".data.epoch") = 1;

/* A task has an entry, and by its tid the number of that, as if it had taken a seat. Both are arrays, made at the
 * start: there is no memory to be had under a run queue's lock, and to look into an array takes the program itself
 * some instructions, where it would have to ask a hash table for 45 ns. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1); /* sizes are set before loading */
	__type(key, unsigned int);
	__type(value, unsigned int);
} seats SEC(".maps");

/* From 1 on. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(unsigned int));
	__uint(value_size, sizeof(struct entry));
} tasks SEC(".maps");

/* Those that nobody has. Whoever reads puts them in, also those of tasks that have ended. */
struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, 1);
	__type(value, unsigned int);
} free_seats SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(unsigned int));
	__uint(value_size, sizeof(struct entry));
} cpus SEC(".maps");

#define MOST_WORDS ((sizeof(struct entry) + COUNT_KINDS * sizeof(struct histogram)) / sizeof(__u64))

/* To put together what is written out. */
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
	__type(value, struct place);
} places SEC(".maps");

/* Tasks and processes that were chosen by number, names and groups that were judged. */
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

/* Of each event a descriptor for each CPU. */
struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(int));
	__uint(value_size, sizeof(int));
} counters SEC(".maps");

/* What a switch of tasks, or a tick, tells its parts. */
struct outcome {
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

/* What is read of a task is taken away from another CPU, so each addition is a locked one. */
static __always_inline void count(struct entry *entry, unsigned char place, __u64 value)
{
	struct histogram *histogram = histograms_of(entry) + place;
	unsigned int slot = slot_of(value);

	if (slot >= SLOTS)
		return;
	__sync_fetch_and_add(&histogram->counts[slot], 1);
	__sync_fetch_and_add(&histogram->sums[slot], value);
	if (value > histogram->longest)
		histogram->longest = value;
	entry->touched = 1;
}

/* What a CPU counts of itself is never taken away: behind its histograms are as many of what was read. */
static __always_inline void count_own(struct entry *cpu, unsigned char place, __u64 value)
{
	struct histogram *histogram = histograms_of(cpu) + place;
	unsigned int slot = slot_of(value);

	if (slot >= SLOTS)
		return;
	histogram->counts[slot]++;
	histogram->sums[slot] += value;
	if (value > histogram->longest)
		histogram->longest = value;
	cpu->touched = 1;
}

/* What is not a time is counted in units that make use of the slots. */
static __always_inline void count_number(struct entry *entry, unsigned char place, __u64 number)
{
	count(entry, place, number << SLOT_SHIFT);
}

#define WANTS(kind) (settings.place[kind] != COUNT_NOT)
#define CPU_WANTS(kind) (settings.cpu_place[kind] != COUNT_NOT)

/* From one moment to a later one: the clocks of two run queues may differ a little. */
static __always_inline __u64 between(__u64 from, __u64 to)
{
	return to > from ? to - from : 0;
}

/* The run queue's own clock would cost less, but stands still from a wakeup to the switch that it asks for. It is
 * what the kernel's own records are in. */
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
	struct place *place;

	if (!settings.by_cpu)
		return true;
	place = bpf_map_lookup_elem(&places, &cpu);
	return place && place->watched;
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

/* Who it is may change: at a rename, which makes the entry stale, and when it is put into another group, which is
 * noticed once an interval. */
static __always_inline void refresh(struct entry *entry, struct task_struct *p)
{
	copy_name(entry->comm, p);
	entry->cgroup = group_of(p);
	entry->tgid = p->tgid;
	entry->tid = p->pid;
	entry->epoch = epoch;
	entry->verdict = judge(entry);
}

/* What was counted in an entry has been taken away from it, or is its last owner's, who had the same number. */
static __always_inline void begin_anew(struct entry *entry, struct task_struct *p)
{
	entry->queued = entry->arrived = entry->slept = entry->waking = 0;
	entry->sleeps = p->nvcsw;
	entry->second = entry->migrations = 0;
	entry->ended = 0;
	refresh(entry, p);
}

/* Whoever may be given one does not run, or runs here and is on its way out: nobody else can give it another one, as
 * a lock of the scheduler's is held. */
static __always_inline struct entry *make_entry(struct task_struct *p, unsigned int *seat)
{
	struct entry *entry;
	unsigned int number;

	if (bpf_map_pop_elem(&free_seats, &number)) {
		__sync_fetch_and_add(&losses.untracked, 1);
		return 0;
	}
	entry = bpf_map_lookup_elem(&tasks, &number);
	if (!entry)
		return 0;
	begin_anew(entry, p);
	*seat = entry->seat = number;
	return entry;
}

/* None for the idle task, whose tid is 0. */
static __always_inline unsigned int *seat_of(struct task_struct *p)
{
	unsigned int tid = p->pid, *seat;

	if (!tid)
		return 0;
	seat = bpf_map_lookup_elem(&seats, &tid);
	if (!seat)
		__sync_fetch_and_add(&losses.untracked, 1);
	return seat;
}

static __always_inline struct entry *entry_at(unsigned int seat)
{
	return seat ? bpf_map_lookup_elem(&tasks, &seat) : 0;
}

static __always_inline struct entry *known_entry_of(struct task_struct *p)
{
	unsigned int *seat = seat_of(p);

	return seat ? entry_at(*seat) : 0;
}

static __always_inline struct entry *entry_of(struct task_struct *p)
{
	unsigned int *seat = seat_of(p);

	if (!seat)
		return 0;
	return *seat ? entry_at(*seat) : make_entry(p, seat);
}

static __always_inline void woken(struct task_struct *p, bool is_new)
{
	struct entry *entry;
	__u64 now;

	/* A task that has not stopped running yet only goes on. */
	entry = p->on_cpu ? 0 : entry_of(p);
	if (!entry)
		return;
	if (is_new && entry->ended)
		begin_anew(entry, p);
	if (entry->verdict == VERDICT_UNWANTED)
		return;
	now = bpf_ktime_get_ns();
	if (!entry->queued) {
		entry->queued = now;
		entry->sleeps = p->nvcsw;
	}
	if (!is_watched(task_cpu(p)))
		return;
	if (WANTS(COUNT_SLEEP) && entry->slept)
		count(entry, settings.place[COUNT_SLEEP], between(entry->slept, now));
	entry->slept = 0;
	if (WANTS(COUNT_DEPTH) && task_rq(p))
		count_number(entry, settings.place[COUNT_DEPTH], task_rq(p)->nr_running);
}

/* What the counters of this CPU have counted since the last time is of the task that ran until now. */
static __always_inline void read_events(struct outcome *outcome)
{
	struct entry *cpu;

	if (!settings.events)
		return;
	/* A CPU's entry has what its counters said last. */
	cpu = bpf_map_lookup_elem(&cpus, &outcome->cpu);
	if (!cpu)
		return;
	for (unsigned int i = 0; i < EVENTS && i < settings.events; i++) {
		__u64 value = bpf_perf_event_read(&counters, i * settings.cpus + outcome->cpu);

		/* An error is a small negative number. */
		if ((__s64)value < 0 && (__s64)value > -4096)
			continue;
		if (cpu->events[i])
			outcome->events[i] = value - cpu->events[i];
		cpu->events[i] = value;
	}
}

/* Of a task that goes to sleep nothing is noted, unless its turns or its sleep are asked for. */
static __always_inline bool is_of_interest(struct task_struct *p, bool preempt)
{
	if (WANTS(COUNT_VOLUNTARY) || WANTS(COUNT_SLEEP) || settings.events || settings.turns || preempt)
		return true;
	return task_state(p) == TASK_RUNNING || task_state(p) & TASK_DEAD;
}

static __always_inline void switched_out(struct task_struct *p, bool preempt, struct outcome *outcome)
{
	struct entry *entry = is_of_interest(p, preempt) ? entry_of(p) : 0;
	bool stays;

	if (!entry)
		return;
	/* A wakeup by another CPU may already have changed its state, so the count of its sleeps tells; preempted
	 * while it was about to sleep, it stays whatever its state says. */
	stays = preempt || (entry->arrived ? entry->sleeps == p->nvcsw : task_state(p) == TASK_RUNNING);
	outcome->runnable = stays;
	if (task_state(p) & TASK_DEAD)
		entry->ended = ENDED;
	if (entry->epoch != epoch)
		refresh(entry, p);
	if (entry->verdict != VERDICT_UNWANTED && is_watched(outcome->cpu)) {
		/* Of a turn that began before all this, the kernel has a record. */
		__u64 length = entry->arrived ? between(entry->arrived, outcome->now) :
						between(last_arrival(p), queue_clock(p));

		if (WANTS(COUNT_VOLUNTARY)) {
			if (stays)
				count(entry, settings.place[COUNT_PREEMPTED], length);
			else
				count(entry, settings.place[COUNT_VOLUNTARY], length);
		}
		for (unsigned int i = 0; i < EVENTS && i < settings.events; i++) {
			__sync_fetch_and_add(&entry->events[i], outcome->events[i]);
			entry->touched = 1;
		}
	}
	entry->arrived = 0;
	entry->queued = stays ? outcome->now : 0;
	entry->slept = stays ? 0 : outcome->now;
}

static __always_inline void switched_in(struct task_struct *p, struct outcome *outcome)
{
	struct entry *cpu = 0, *entry = entry_of(p);
	if (CPU_WANTS(COUNT_LATENCY) || CPU_WANTS(COUNT_SLEEP))
		cpu = bpf_map_lookup_elem(&cpus, &outcome->cpu);
	if (CPU_WANTS(COUNT_SLEEP) && cpu) {
		if (!p->pid) {
			cpu->slept = outcome->now;
		} else if (cpu->slept) {
			if (is_watched(outcome->cpu))
				count_own(cpu, settings.cpu_place[COUNT_SLEEP], between(cpu->slept, outcome->now));
			cpu->slept = 0;
		}
	}
	if (!entry)
		return;
	if (entry->epoch != epoch)
		refresh(entry, p);
	/* Of a wait that began before all this, the kernel has a record. */
	if (entry->queued)
		outcome->waited = between(entry->queued, outcome->now);
	else if (last_queued(p))
		outcome->waited = between(last_queued(p), queue_clock(p));
	if (entry->verdict != VERDICT_UNWANTED && is_watched(outcome->cpu)) {
		if (WANTS(COUNT_LATENCY) && outcome->waited && outcome->waited >= settings.shortest) {
			count(entry, settings.place[COUNT_LATENCY], outcome->waited);
			if (cpu)
				count_own(cpu, settings.cpu_place[COUNT_LATENCY], outcome->waited);
		}
		if (WANTS(COUNT_WAKING) && entry->waking)
			count(entry, settings.place[COUNT_WAKING], between(entry->waking, outcome->now));
	}
	entry->waking = entry->queued = entry->slept = 0;
	entry->arrived = outcome->now;
	entry->sleeps = p->nvcsw;
}

/* A second's migrations are counted when it is over. */
static __always_inline void flush_migrations(struct entry *entry)
{
	unsigned int second;

	if (!WANTS(COUNT_MIGRATIONS))
		return;
	second = bpf_ktime_get_ns() / 1000000000;
	if (entry->second == second)
		return;
	if (entry->migrations)
		count_number(entry, settings.place[COUNT_MIGRATIONS], entry->migrations);
	entry->second = second;
	entry->migrations = 0;
}

static __always_inline void migrated(struct task_struct *p, unsigned int from, unsigned int to)
{
	struct entry *entry = entry_of(p);
	struct place *here, *there;

	if (!entry || entry->verdict == VERDICT_UNWANTED || !is_watched(to))
		return;
	flush_migrations(entry);
	entry->migrations++;
	entry->touched = 1;
	__sync_fetch_and_add(&entry->moves, 1);
	here = bpf_map_lookup_elem(&places, &from);
	there = bpf_map_lookup_elem(&places, &to);
	if (!here || !there)
		return;
	if (here->node != there->node)
		__sync_fetch_and_add(&entry->cross_node, 1);
	else if (here->cache != there->cache)
		__sync_fetch_and_add(&entry->cross_cache, 1);
}

#endif
