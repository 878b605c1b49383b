/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Types that the BPF programs share with user space. `make regen` turns this into
 * src/observe/bpf/records.rs. */
#ifndef STALLD_RECORDS_H
#define STALLD_RECORDS_H

#define RECORD_RUNS 0  /* running on its CPU */
#define RECORD_WAITS 1 /* queued on its CPU and not running */
#define RECORD_SELF 2  /* the thread that scans */

/* In record.owner; 0 is any other task. */
#define OWNER_KERNEL 1	   /* a kernel thread */
#define OWNER_PRIVILEGED 2 /* a task that may give itself a real-time policy */

/* One task, as the iterator found it. */
struct record {
	/* A time in the clock of the run queue: the start of the wait, 0 if the kernel has no
	 * record of it. For RECORD_SELF, when the thread last got a CPU; right after a sleep, this
	 * is the present time. */
	unsigned long long queued;
	/* A count that grows whenever the task gets a CPU. */
	unsigned long long progress;
	/* The start of the task, in ns since boot. */
	unsigned long long start;
	int tid;
	int tgid;
	unsigned int cpu;
	int prio;
	unsigned int policy;
	unsigned int kind;
	unsigned char owner;
	/* Whether the task has a real-time rank that comes neither from its policy nor from
	 * priority inheritance. */
	unsigned char misranked;
	unsigned short spare;
	unsigned int uid;
	unsigned char comm[16];
};

/* The run queue of a CPU: its address, which the program `walk` finds, and the values that the
 * program `runnable` reads there. `address` is 0 until it is known, and `runnable` is
 * RUNNABLE_UNKNOWN if it could not be read. */
#define RUNNABLE_UNKNOWN 0xffffffff
struct queue {
	unsigned long long address;
	unsigned int runnable;
	unsigned int realtime;
	/* Priority and policy of the running task. `prio` is 0 if one of the two could not be
	 * read. */
	int prio;
	unsigned int policy;
};

/* The most records of one reading of a queue, and its result if the queue changed meanwhile or is
 * longer. */
#define MAX_QUEUED 128
#define QUEUE_CHANGED 0xffffffff

/* The most CPUs whose queues are counted in one run. The verifier takes 8,192 jumps, and the count
 * of a queue has four. */
#define CPUS_PER_RUN 512

/* When a task was last queued, in the clock of the run queue, and how often it had been switched
 * out until then. If that number has changed, the task has run since. */
struct wait {
	unsigned long long queued;
	unsigned long long switches;
	/* When the task last got a CPU. Recorded only for the threads of this process. */
	unsigned long long on_cpu_since;
};

/* Set once, before the programs are loaded. */
struct settings {
	unsigned int cpus;
	/* Whether the event programs are loaded, which keep a `struct wait` for each task. */
	unsigned char tracking;
	/* Whether `struct wait` is kept by tid: before 5.12, tracing programs have no task
	 * storage. */
	unsigned char by_tid;
	/* Whether the other threads of this process are reported, too. It is a short, so that the
	 * struct has no padding. */
	unsigned short own_threads;
};

/* Tasks that could not be tracked, because the map by tid was full. */
struct losses {
	unsigned long long untracked;
};

#endif
