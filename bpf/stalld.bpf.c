// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* How stalld sees the run queues.
 *
 * `look` walks all tasks when it is read, and writes out those that wait and those that run. `runnable`
 * answers, at the cost of a read per CPU, whether a walk is worth while. Neither is attached to any
 * scheduler event. The `on_` programs are, for the backend that is asked to keep its own record of
 * when each task was queued. */
#include "task.h"
#include "wait.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1); /* as many as there are CPUs */
	__type(key, unsigned int);
	__type(value, struct queue);
} queues SEC(".maps");

/* cfs_rq->rq of any task on a CPU is that CPU's run queue; the symbol `runqueues` is not to be had on
 * every kernel. */
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
int look(struct bpf_iter__task *ctx)
{
	struct task_struct *p = ctx->task;
	__u64 self = bpf_get_current_pid_tgid();
	struct record record = {};

	note_progress(ctx);
	if (!p)
		return 0;
	learn_queue(p);

	if (p->pid == (int)self) {
		record.kind = RECORD_SELF;
		record.queued = arrived(p);
	} else if (waits(p)) {
		/* The other threads of stalld are not its business. */
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
	record.progress = progress(p);
	record.start = p->start_boottime;
	record.tid = p->pid;
	record.tgid = p->tgid;
	record.cpu = task_cpu(p);
	record.prio = p->prio;
	record.policy = p->policy;
	if (p->flags & PF_KTHREAD)
		record.owner = OWNER_KERNEL;
	else if (may_raise_itself(p))
		record.owner = OWNER_PRIVILEGED;
	record.uid = p->cred->uid.val;
	record.misranked = misranked(p);
	for (unsigned int i = 0; i < sizeof(record.comm); i++)
		record.comm[i] = p->comm[i];
	bpf_seq_write(ctx->meta->seq, &record, sizeof(record));
	return 0;
}

/* A task that ends is freed an RCU grace period later at the earliest, and this program runs in one. */
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

/* Run by BPF_PROG_TEST_RUN; returns the CPU it ran on. Needs bpf_probe_read, so a kernel locked down to
 * confidentiality refuses it and every look is a walk. */
SEC("raw_tp")
int runnable(void *ctx)
{
	for (unsigned int cpu = 0; cpu < settings.cpus; cpu++) {
		unsigned int key = cpu;
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
	/* Preempted, a task stays queued whatever its state says: it may have been about to sleep. */
	if (preempt || task_state(prev) == TASK_RUNNING)
		was_switched_out(prev);
	if (next->tgid == own_tgid)
		was_switched_in(next);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(on_exit, struct task_struct *p)
{
	has_gone(p);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
