/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Writes the counts to user space. */
#ifndef STALLSTAT_DRAIN_H
#define STALLSTAT_DRAIN_H

#include "count.h"

static __always_inline struct entry *copy_of(struct entry *entry, unsigned int size)
{
	unsigned int index = 0;
	struct entry *copy = bpf_map_lookup_elem(&copies, &index);
	__u64 *from = (__u64 *)entry, *to = (__u64 *)copy;

	entry->touched = 0;
	for (unsigned int i = 0; copy && i < MAX_WORDS && i < size / sizeof(__u64); i++)
		to[i] = from[i];
	return copy;
}

/* Returns whether the copy was written. If the reader's buffer is full, nothing counts as written,
 * and the kernel calls the program again. */
static __always_inline bool write_out(struct seq_file *seq, struct entry *copy, struct entry *entry, unsigned int size)
{
	if (!bpf_seq_write(seq, copy, size))
		return true;
	entry->touched = 1;
	return false;
}

/* Writes the entry of a task, and subtracts the counts that were written. Counts that are added
 * meanwhile stay for the next drain. */
static __always_inline void drain_task(struct seq_file *seq, struct entry *entry)
{
	struct entry *copy;

	flush_migrations(entry);
	copy = copy_of(entry, settings.task_size);
	if (!copy || !write_out(seq, copy, entry, settings.task_size))
		return;
	if (copy->ended)
		entry->ended = ENDED_AND_READ;
	for (unsigned int i = 0; i < COUNT_KINDS && i < settings.task_histograms; i++) {
		struct histogram *written = histograms_of(copy) + i, *live = histograms_of(entry) + i;

		for (unsigned int slot = 0; slot < SLOTS; slot++) {
			if (!written->counts[slot])
				continue;
			__sync_fetch_and_add(&live->counts[slot], -written->counts[slot]);
			__sync_fetch_and_add(&live->sums[slot], -written->sums[slot]);
		}
		if (live->longest == written->longest)
			live->longest = 0;
	}
	for (unsigned int i = 0; i < EVENTS && i < settings.events; i++)
		__sync_fetch_and_add(&entry->events[i], -copy->events[i]);
	__sync_fetch_and_add(&entry->moves, -copy->moves);
	__sync_fetch_and_add(&entry->cross_cache, -copy->cross_cache);
	__sync_fetch_and_add(&entry->cross_node, -copy->cross_node);
}

/* Writes the counts of a CPU since the last drain. */
static __always_inline void drain_cpu(struct seq_file *seq, struct entry *cpu)
{
	struct entry *copy = copy_of(cpu, settings.cpu_size);
	unsigned int histograms = settings.cpu_histograms;

	if (!copy)
		return;
	for (unsigned int i = 0; i < COUNT_KINDS && i < histograms; i++) {
		struct histogram *more = histograms_of(copy) + i, *written = more + histograms;

		for (unsigned int slot = 0; slot < SLOTS; slot++) {
			more->counts[slot] -= written->counts[slot];
			more->sums[slot] -= written->sums[slot];
		}
	}
	if (!write_out(seq, copy, cpu, settings.cpu_size))
		return;
	for (unsigned int i = 0; i < COUNT_KINDS && i < histograms; i++) {
		struct histogram *more = histograms_of(copy) + i, *live = histograms_of(cpu) + i;
		struct histogram *written = live + histograms;

		for (unsigned int slot = 0; slot < SLOTS; slot++) {
			written->counts[slot] += more->counts[slot];
			written->sums[slot] += more->sums[slot];
		}
		if (live->longest == more->longest)
			live->longest = 0;
	}
}

#endif
