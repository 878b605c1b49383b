/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the BPF programs and the program around them tell each other. `make regen` turns this into
 * src/observe/bpf/records.rs. */
#ifndef STALLD_RECORDS_H
#define STALLD_RECORDS_H

#define RECORD_RUNS 0  /* running on its CPU */
#define RECORD_WAITS 1 /* queued on its CPU and not running */
#define RECORD_SELF 2  /* the thread that looks */

/* In record.owner; 0 is any other task. */
#define OWNER_KERNEL 1	   /* a kernel thread */
#define OWNER_PRIVILEGED 2 /* a task that may give itself a real-time policy */

/* One task, as the iterator found it. */
struct record {
	/* In the run queue's clock: since when it waits, 0 where the kernel has no record of that; for
	 * RECORD_SELF when it was last given a CPU, which is "now" if it has just come out of a sleep. */
	unsigned long long queued;
	/* Grows whenever the task is given a CPU. */
	unsigned long long progress;
	/* When it started, in ns since boot. */
	unsigned long long start;
	int tid;
	int tgid;
	unsigned int cpu;
	int prio;
	unsigned int policy;
	unsigned int kind;
	unsigned char owner;
	/* It has a real-time rank that is not its own. */
	unsigned char misranked;
	unsigned short spare;
	unsigned int uid;
	unsigned char comm[16];
};

/* A CPU's run queue: its address, learnt by the iterator, and what the program `runnable` read there.
 * An address of 0 is not known yet, a `runnable` of RUNNABLE_UNKNOWN could not be read. */
#define RUNNABLE_UNKNOWN 0xffffffff
struct queue {
	unsigned long long address;
	unsigned int runnable;
	unsigned int realtime;
	/* Of the task that runs; a prio of 0 and a policy of 0 if they could not be read. */
	int prio;
	unsigned int policy;
};

/* When a task was last queued, in the run queue's clock, and how often it had been switched out by
 * then: it has run since if that number has changed. */
struct wait {
	unsigned long long queued;
	unsigned long long switches;
	/* When it was last given a CPU; kept for the threads of this process only. */
	unsigned long long arrived;
};

/* Set once, before the programs are loaded. */
struct settings {
	unsigned int cpus;
	/* The event programs are loaded, and keep a `struct wait` for each task ... */
	unsigned char tracking;
	/* ... by its tid, where the kernel has no task storage for tracing programs (before 5.12). */
	unsigned char by_tid;
	/* The other threads of this process wait like any. As long as it takes to leave no byte undefined. */
	unsigned short own_threads;
};

/* What could not be tracked because the map by tid was full. */
struct losses {
	unsigned long long untracked;
};

#endif
