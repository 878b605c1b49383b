/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Reads the lists of one run queue: which tasks are queued on a CPU, without a walk over all tasks.
 *
 * The lists change under the reader. So each node must point back to the node before it, and each
 * task must be queued on this CPU. A task that waits may be moved to the front of its list, behind
 * the reader. So at the end, the lists must have held as many tasks as the queue counts, before and
 * after. Otherwise the result is QUEUE_CHANGED. A task is freed an RCU grace period after its end
 * at the earliest, and the program runs inside of an RCU read-side section. */
#ifndef STALLD_QUEUE_H
#define STALLD_QUEUE_H

#include "wait.h"

#define RT_PRIORITIES 100

/* Each task takes a step, and so does each list. */
#define MAX_STEPS (MAX_QUEUED + RT_PRIORITIES + 4)

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, MAX_QUEUED);
	__type(key, unsigned int);
	__type(value, struct record);
} queued_tasks SEC(".maps");

/* Lists 0 to 99 are of the real-time priorities. */
#define LIST_FAIR RT_PRIORITIES
#define LIST_SCX (RT_PRIORITIES + 1)
#define LIST_END (RT_PRIORITIES + 2)

struct reading {
	struct rq *rq;
	struct list_head *head;
	struct list_head *before;
	struct list_head *node;
	unsigned int list;
	unsigned int cpu;
	int own_tgid;
	/* The tasks met so far, and the records written so far. */
	unsigned int fair;
	unsigned int realtime;
	unsigned int records;
};

/* The reading in progress. It is not on the stack, because only so the verifier checks `step` once,
 * and not once for each step. */
struct reading reading = {};

/* The counts of a queue with which its lists must agree. nr_running does not serve, because some
 * kernels count the DL server in it, and others do not. */
struct counts {
	unsigned int fair;
	unsigned int realtime;
};

static __always_inline struct counts counts_of(struct rq *rq, struct task_struct *curr)
{
	struct cfs_rq *cfs = &rq->cfs;
	struct cfs_rq___with_running *old = (void *)cfs;
	struct counts counts = { .realtime = GET(PROBED, rq, rt.rt_nr_running) };

	if (bpf_core_field_exists(cfs->h_nr_queued))
		counts.fair = GET(PROBED, cfs, h_nr_queued);
	else
		counts.fair = GET(PROBED, old, h_nr_running);
	if (bpf_core_field_exists(rq->scx.runnable_list)) {
		counts.fair += GET(PROBED, rq, scx.nr_running);
		/* The running task is counted, but not in the list. Its policy does not show
		 * whether it belongs to sched_ext, which may take all fair tasks, or none. */
		if (GET(PROBED, curr, scx.flags) & SCX_TASK_QUEUED)
			counts.fair--;
	}
	return counts;
}

/* Fills a record of a task, but for its wait and progress. */
static __always_inline void describe(enum access how, struct task_struct *p, struct record *record)
{
	struct cred *cred = GET_POINTER(how, p, cred);

	record->start = GET(how, p, start_boottime);
	record->tid = GET(how, p, pid);
	record->tgid = GET(how, p, tgid);
	record->cpu = cpu_of(how, p);
	record->prio = GET(how, p, prio);
	record->policy = GET(how, p, policy);
	record->owner = 0;
	if (GET(how, p, flags) & PF_KTHREAD)
		record->owner = OWNER_KERNEL;
	else if (may_raise_itself(how, p))
		record->owner = OWNER_PRIVILEGED;
	record->uid = GET(how, cred, uid.val);
	record->misranked = misranked(how, p);
}

/* Adds a record of a task. `progress` was read before anything else of its wait, as in `walk`. */
static __always_inline void put(struct task_struct *p, unsigned int kind, __u64 progress)
{
	unsigned int key = reading.records;
	struct record *record = bpf_map_lookup_elem(&queued_tasks, &key);

	if (!record)
		return;
	record->kind = kind;
	record->progress = progress;
	if (kind == RECORD_SELF)
		record->queued = GET(PROBED, p, sched_info.last_arrival);
	else
		record->queued = GET(PROBED, p, sched_info.last_queued);
	describe(PROBED, p, record);
	bpf_core_read(record->comm, sizeof(record->comm), &p->comm);
	reading.records++;
}

/* Begins the next list that has nodes. Returns false if there is none. */
static __always_inline bool begin_list(struct list_head *head)
{
	struct list_head *first = 0;

	reading.head = head;
	reading.before = head;
	if (bpf_core_read(&first, sizeof(first), &head->next) || !first)
		return false;
	reading.node = first;
	return true;
}

static __always_inline bool next_list(void)
{
	struct rq *rq = reading.rq;
	struct list_head *queues = &rq->rt.active.queue[0];

	reading.list++;
	if (reading.list < RT_PRIORITIES)
		return begin_list(queues + reading.list);
	if (reading.list == LIST_FAIR)
		return begin_list(&rq->cfs_tasks);
	if (reading.list == LIST_SCX && bpf_core_field_exists(rq->scx.runnable_list))
		return begin_list(&rq->scx.runnable_list);
	reading.list = LIST_END;
	return true;
}

/* Returns the task to which a node of the current list belongs; NULL for a group of tasks. */
static __always_inline struct task_struct *task_of(void)
{
	void *node = reading.node;

	if (reading.list < RT_PRIORITIES) {
		struct sched_rt_entity *entity = node - bpf_core_field_offset(struct sched_rt_entity, run_list);

		if (bpf_core_field_exists(entity->my_q) && GET_POINTER(PROBED, entity, my_q))
			return 0;
		return node - bpf_core_field_offset(struct task_struct, rt.run_list);
	}
	if (reading.list == LIST_SCX && bpf_core_field_exists(struct task_struct, scx.runnable_node))
		return node - bpf_core_field_offset(struct task_struct, scx.runnable_node);
	return node - bpf_core_field_offset(struct task_struct, se.group_node);
}

/* Takes one step. Returns 0 at the end, and if the lists have changed. */
__noinline int step(void)
{
	struct list_head links;
	struct task_struct *p;
	__u64 progress;

	if (reading.node == reading.head)
		return next_list() && reading.list != LIST_END;
	if (bpf_probe_read_kernel(&links, sizeof(links), reading.node) || links.prev != reading.before)
		return 0;
	p = task_of();
	if (!p || GET(PROBED, p, on_rq) != 1 || cpu_of(PROBED, p) != reading.cpu)
		return 0;
	if (reading.list < RT_PRIORITIES) {
		reading.realtime++;
	} else if (!throttled_by(PROBED, p)) {
		reading.fair++;
	}
	progress = GET(PROBED, p, sched_info.pcount);
	if (waits_by(PROBED, p) && (settings.own_threads || GET(PROBED, p, tgid) != reading.own_tgid))
		put(p, RECORD_WAITS, progress);
	reading.before = reading.node;
	reading.node = links.next;
	return 1;
}

/* Reads the queue of a CPU into `queued_tasks`. Returns the number of records, or QUEUE_CHANGED. */
static __always_inline unsigned int read_queue(struct rq *rq, unsigned int cpu)
{
	struct task_struct *self = (void *)bpf_get_current_task();
	struct task_struct *curr = GET_POINTER(PROBED, rq, curr);
	struct counts before = counts_of(rq, curr), after;

	reading = (struct reading){
		.rq = rq,
		.cpu = cpu,
		.own_tgid = GET(PROBED, self, tgid),
		/* The first step goes on to the next list. */
		.list = before.realtime ? -1 : RT_PRIORITIES - 1,
	};
	put(self, RECORD_SELF, 0);
	if (GET(PROBED, curr, pid) && curr != self)
		put(curr, RECORD_RUNS, GET(PROBED, curr, sched_info.pcount));
	for (int i = 0; i < MAX_STEPS; i++) {
		if (!step())
			break;
	}
	after = counts_of(rq, GET_POINTER(PROBED, rq, curr));
	if (reading.list != LIST_END || reading.records == MAX_QUEUED || reading.realtime != before.realtime)
		return QUEUE_CHANGED;
	if (before.fair != after.fair || before.realtime != after.realtime || reading.fair < before.fair)
		return QUEUE_CHANGED;
	return reading.records;
}

#endif
