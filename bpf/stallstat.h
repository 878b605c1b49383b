/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the BPF programs of stallstat and the program around them tell each other. `make regen` turns this into
 * src/stat/records.rs. */
#ifndef STALLSTAT_H
#define STALLSTAT_H

/* What is counted of a task or of a CPU. Each has a histogram where it was asked for. */
#define COUNT_LATENCY 0	   /* from being queued to running */
#define COUNT_DEPTH 1	   /* tasks on the run queue at a wakeup, itself included */
#define COUNT_VOLUNTARY 2  /* turns that ended in sleep */
#define COUNT_PREEMPTED 3  /* turns that ended while it still wanted to run */
#define COUNT_SLEEP 4	   /* from going to sleep to being woken; of a CPU, idle time */
#define COUNT_WAKING 5	   /* from the attempt to wake it to running */
#define COUNT_MIGRATIONS 6 /* a second, of the seconds in which there were any */
#define COUNT_KINDS 7
/* In settings.place: not asked for. */
#define COUNT_NOT 255

/* Slot 0 is for what is less than 1024; then there are four to each power of two. The last is from 2^38 on: in
 * nanoseconds, over four minutes. */
#define SLOTS 114
#define SLOT_SHIFT 10

/* With the sum of each slot beside its count, waits of one length have that very length. */
struct histogram {
	unsigned long long sums[SLOTS];
	unsigned int counts[SLOTS];
	unsigned long long longest;
};

#define EVENTS 8

/* What filters say of a task. */
#define VERDICT_OPEN 0 /* counted for now; the program around has to look at its name or group */
#define VERDICT_WANTED 1
#define VERDICT_UNWANTED 2

/* What the program around has found a name to be: wanted in the groups that are, or wherever it is. */
#define NAME_IN_GROUP 1
#define NAME_ANYWHERE 2

/* In entry.ended. */
#define ENDED 1
#define ENDED_AND_READ 2

/* No interval's number. */
#define STALE 0

/* All that is known of a task, or of a CPU. Behind it follow as many histograms as were asked for. */
struct entry {
	/* Of what it does now, in CLOCK_MONOTONIC; 0 where that isn't so. */
	unsigned long long queued;
	unsigned long long arrived;
	unsigned long long slept;
	unsigned long long waking;
	/* How often it had gone to sleep when it was last given a CPU. */
	unsigned long long sleeps;
	unsigned long long cgroup;
	unsigned char comm[16];
	int tid;
	int tgid;
	/* The interval in which its name and group were last looked at. */
	unsigned int epoch;
	unsigned char verdict;
	/* Something was counted since it was last read. */
	unsigned char touched;
	unsigned char ended;
	unsigned char spare;
	/* The number of the entry itself. */
	unsigned int seat;
	unsigned int spares;
	/* The second that migrations are counted of, and how many there were. */
	unsigned int second;
	unsigned int migrations;
	/* Of all migrations, those that left the last-level cache, and those that left the memory node. */
	unsigned long long moves;
	unsigned long long cross_cache;
	unsigned long long cross_node;
	/* What the performance counters counted while it ran. */
	unsigned long long events[EVENTS];
};

/* Where a CPU is, and whether it is looked at. */
struct place {
	unsigned int cache;
	unsigned int node;
	unsigned int watched;
	unsigned int spare;
};

/* One turn of a task on a CPU, at its end; or a part of a turn, where it goes on. Or a part of a wait, that of the
 * next task for this CPU, before it was moved to another one; there is no turn then. */
struct turn {
	unsigned long long end;	   /* CLOCK_MONOTONIC */
	unsigned long long length; /* 0 where its start was not seen */
	/* Who runs next, and how long that one has waited; all 0 where the turn goes on. */
	unsigned long long waited;
	unsigned long long cgroup;
	unsigned long long next_cgroup;
	unsigned long long events[EVENTS];
	unsigned int cpu;
	int tid;
	int tgid;
	int next_tid;
	int next_tgid;
	/* Whether it still wants to run. */
	unsigned short runnable;
	unsigned short moved;
	unsigned char comm[16];
	unsigned char next_comm[16];
};

/* Set once, before the programs are loaded. */
struct settings {
	unsigned int cpus;
	unsigned int events;
	/* Of a task's entry, and of a CPU's, in bytes. */
	unsigned int task_size;
	unsigned int cpu_size;
	/* Shorter latencies are not counted. */
	unsigned long long shortest;
	/* Which histogram of a task is for what. */
	unsigned char place[COUNT_KINDS];
	/* Which of a CPU. */
	unsigned char cpu_place[COUNT_KINDS];
	unsigned char task_histograms;
	unsigned char cpu_histograms;
	/* Whether tasks are chosen by number, by name, by group. */
	unsigned char by_number;
	unsigned char by_name;
	unsigned char by_group;
	unsigned char by_cpu;
	/* Turns are wanted one by one. */
	unsigned char turns;
	unsigned char spare[3];
};

/* What the programs lose. */
struct losses {
	/* Events of tasks without an entry, because there are too many. */
	unsigned long long untracked;
	/* Turns that nobody read in time. */
	unsigned long long dropped;
};

#endif
