/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Types that the BPF programs of stallstat share with user space. A turn is the time from when a
 * task gets a CPU until it leaves the CPU. `make regen` turns this into src/stat/bpf_abi.rs. */
#ifndef STALLSTAT_H
#define STALLSTAT_H

/* The kinds of counts of a task or of a CPU. Each kind that was requested has a histogram. */
#define COUNT_LATENCY 0	   /* from being queued to running */
#define COUNT_DEPTH 1	   /* tasks on the run queue at a wakeup, itself included */
#define COUNT_VOLUNTARY 2  /* turns that ended in sleep */
#define COUNT_PREEMPTED 3  /* turns that ended while it still wanted to run */
#define COUNT_SLEEP 4	   /* from going to sleep to being woken; of a CPU, idle time */
#define COUNT_WAKING 5	   /* from the attempt to wake it to running */
#define COUNT_MIGRATIONS 6 /* a second, of the seconds in which there were any */
#define COUNT_KINDS 7
/* In settings.histogram_index: not requested. */
#define COUNT_NOT 255

/* Slot 0 is for values below 1024. Above that, each power of two has four slots. The last slot
 * begins at 2^38, which is over four minutes in nanoseconds. */
#define SLOTS 114
#define SLOT_SHIFT 10

/* The sum of a slot, divided by its count, gives the exact value if all values of the slot are
 * equal. */
struct histogram {
	unsigned long long sums[SLOTS];
	unsigned int counts[SLOTS];
	unsigned long long longest;
};

#define EVENTS 8

/* The verdict of the filters on a task. */
#define VERDICT_OPEN 0 /* counted for now; user space still has to check its name or group */
#define VERDICT_WANTED 1
#define VERDICT_UNWANTED 2

/* The verdict of user space on a name: tasks with that name are wanted in the wanted groups, or in
 * all groups. */
#define NAME_IN_GROUP 1
#define NAME_ANYWHERE 2

/* In entry.ended. */
#define ENDED 1
#define ENDED_AND_READ 2

/* In entry.epoch: the number of no interval, so the entry has to be refreshed. */
#define STALE 0

/* The data of a task or of a CPU. The requested histograms follow it in memory. */
struct entry {
	/* The start of the current state, on CLOCK_MONOTONIC; 0 for each other state. */
	unsigned long long queued_since;
	unsigned long long on_cpu_since;
	unsigned long long asleep_since;
	unsigned long long waking_since;
	/* How often the task had gone to sleep when it last got a CPU. */
	unsigned long long sleeps;
	unsigned long long cgroup;
	unsigned char comm[16];
	int tid;
	int tgid;
	/* The interval in which its name and group were last checked. */
	unsigned int epoch;
	unsigned char verdict;
	/* Whether something was counted since the last drain. */
	unsigned char touched;
	unsigned char ended;
	unsigned char spare;
	/* The index of this entry in the map `tasks`. */
	unsigned int index;
	unsigned int spares;
	/* The second in which migrations are now counted, and their number. */
	unsigned int second;
	unsigned int migrations;
	/* The number of all migrations, of those to another last-level cache in the same memory
	 * node, and of those to another memory node. */
	unsigned long long moves;
	unsigned long long cross_cache;
	unsigned long long cross_node;
	/* The counts of the performance counters while the task ran. */
	unsigned long long events[EVENTS];
};

/* The location of a CPU, and whether its events are counted. */
struct cpu_info {
	unsigned int cache;
	unsigned int node;
	unsigned int watched;
	unsigned int spare;
};

/* One turn of a task on a CPU, or a part of a turn that goes on. If `moved` is set, it is a part of
 * a wait, without a turn: the time for which the next task waited for this CPU before it moved to
 * another one. */
struct turn {
	unsigned long long end;	   /* CLOCK_MONOTONIC */
	unsigned long long length; /* 0 where its start was not seen */
	/* The next task, and how long it has waited. If the turn goes on, it is the same task, and
	 * `waited` is 0. */
	unsigned long long waited;
	unsigned long long cgroup;
	unsigned long long next_cgroup;
	unsigned long long events[EVENTS];
	unsigned int cpu;
	int tid;
	int tgid;
	int next_tid;
	int next_tgid;
	/* Whether the task is still runnable. */
	unsigned short runnable;
	unsigned short moved;
	unsigned char comm[16];
	unsigned char next_comm[16];
};

/* Set once, before the programs are loaded. */
struct settings {
	unsigned int cpus;
	unsigned int events;
	/* The size of a task's entry, and of a CPU's, in bytes. */
	unsigned int task_size;
	unsigned int cpu_size;
	/* Shorter latencies are not counted. */
	unsigned long long shortest;
	/* The index of a task's histogram for each kind. */
	unsigned char histogram_index[COUNT_KINDS];
	/* The index of a CPU's histogram for each kind. */
	unsigned char cpu_histogram_index[COUNT_KINDS];
	unsigned char task_histograms;
	unsigned char cpu_histograms;
	/* Whether tasks are selected by number, by name, by group, by CPU. */
	unsigned char by_number;
	unsigned char by_name;
	unsigned char by_group;
	unsigned char by_cpu;
	/* Whether each turn is reported. */
	unsigned char turns;
	unsigned char spare[3];
};

/* The events that the programs lose. */
struct losses {
	/* Events of tasks without an entry, because there are too many tasks. */
	unsigned long long untracked;
	/* Turns that user space did not read in time. */
	unsigned long long dropped;
};

#endif
