// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The BPF programs with which stalld reads the run queues.
 *
 * `walk` is an iterator over all tasks: reading it returns a record for each task that waits or
 * runs. `runnable` makes the cheap check: it reads from each run queue how many tasks it has, so
 * that a scan goes on only if a task can be waiting. `tasks_of_queue` reads the tasks of one run
 * queue. None of them is attached to a scheduler event. The `on_` programs are attached; only the
 * backend queue_track loads them, to record when each task was queued. */
#include "task.h"
#include "wait.h"
#include "queue.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1); /* set to the number of CPUs before loading */
	__type(key, unsigned int);
	__type(value, struct queue);
} queues SEC(".maps");

/* Stores the address of the run queue on which a task is. It is cfs_rq->rq of the task, because the
 * symbol `runqueues` is not available on every kernel. */
static __always_inline void learn_queue(struct task_struct *p)
{
	struct rq *rq = task_rq(p);
	struct queue *queue;
	unsigned int cpu;

	if (!rq)
		return;
	cpu = rq->cpu;
	queue = bpf_map_lookup_elem(&queues, &cpu);
	if (queue && !queue->address)
		queue->address = (__u64)rq;
}

SEC("iter/task")
int walk(struct bpf_iter__task *ctx)
{
	struct task_struct *p = ctx->task;
	__u64 self = bpf_get_current_pid_tgid();
	struct record record = {};

	note_walk_bounds(ctx);
	if (!p)
		return 0;
	learn_queue(p);

	/* If the task gets a CPU during this, its record must not show the start of the wait that
	 * is over with the progress of the next wait. So the progress is read first. */
	record.progress = progress(p);
	barrier();
	if (p->pid == (int)self) {
		record.kind = RECORD_SELF;
		record.queued = on_cpu_since(p);
	} else if (waits(p)) {
		/* Skip the other threads of stalld. */
		if (!settings.own_threads && p->tgid == (int)(self >> 32))
			return 0;
		record.kind = RECORD_WAITS;
		record.queued = queued(p);
	} else if (p->on_cpu) {
		record.kind = RECORD_RUNS;
		track(p);
	} else {
		track(p);
		return 0;
	}
	describe(TYPED, p, &record);
	for (unsigned int i = 0; i < sizeof(record.comm); i++)
		record.comm[i] = p->comm[i];
	bpf_seq_write(ctx->meta->seq, &record, sizeof(record));
	return 0;
}

/* Reads the running task. It can't be freed meanwhile: a task is freed an RCU grace period after
 * its end at the earliest, and this program runs inside of an RCU read-side section. */
static __always_inline void note_running(struct queue *queue, struct rq *rq)
{
	struct task_struct *curr;

	queue->prio = 0;
	queue->policy = 0;
	if (bpf_core_read(&curr, sizeof(curr), &rq->curr) ||
	    bpf_core_read(&queue->policy, sizeof(queue->policy), &curr->policy) ||
	    bpf_core_read(&queue->prio, sizeof(queue->prio), &curr->prio))
		queue->prio = 0;
}

/* Run by BPF_PROG_TEST_RUN with the number of a CPU, for this one and the next CPUS_PER_RUN - 1.
 * Returns the CPU on which it ran. It needs bpf_probe_read, so a kernel in lockdown mode
 * confidentiality rejects it, and every scan is a walk. */
SEC("raw_tp")
int runnable(struct bpf_raw_tracepoint_args *ctx)
{
	unsigned int first = ctx->args[0];

	for (unsigned int i = 0; i < CPUS_PER_RUN && i < settings.cpus; i++) {
		unsigned int key = first + i;
		struct queue *queue = bpf_map_lookup_elem(&queues, &key);
		struct rq *rq;

		if (!queue)
			break;
		rq = (struct rq *)queue->address;
		if (!rq || bpf_core_read(&queue->runnable, sizeof(queue->runnable), &rq->nr_running) ||
		    bpf_core_read(&queue->realtime, sizeof(queue->realtime), &rq->rt.rt_nr_running))
			queue->runnable = RUNNABLE_UNKNOWN;
		else
			note_running(queue, rq);
	}
	return this_cpu();
}

/* Run by BPF_PROG_TEST_RUN with the number of a CPU. Reads the tasks that are queued there into
 * `queued_tasks`, and returns their number, or QUEUE_CHANGED. Its cost depends only on the length
 * of that queue. */
SEC("raw_tp")
int tasks_of_queue(struct bpf_raw_tracepoint_args *ctx)
{
	unsigned int cpu = ctx->args[0];
	struct queue *queue = bpf_map_lookup_elem(&queues, &cpu);

	if (!queue || !queue->address)
		return QUEUE_CHANGED;
	return read_queue((struct rq *)queue->address, cpu);
}

SEC("tp_btf/sched_wakeup")
int BPF_PROG(on_wakeup, struct task_struct *p)
{
	was_woken(p);
	return 0;
}

SEC("tp_btf/sched_wakeup_new")
int BPF_PROG(on_wakeup_new, struct task_struct *p)
{
	was_created(p);
	return 0;
}

SEC("tp_btf/sched_switch")
int BPF_PROG(on_switch, bool preempt, struct task_struct *prev, struct task_struct *next)
{
	/* A preempted task stays queued, whatever its state is: it may have been about to sleep. */
	if (preempt || task_state(prev) == TASK_RUNNING)
		was_switched_out(prev);
	if (next->tgid == own_tgid)
		was_switched_in(next);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(on_exit, struct task_struct *p)
{
	has_exited(p);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
