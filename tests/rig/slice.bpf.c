// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The slice of each fair task, for the tests: sched_getattr(2) returns its length, but not whether
 * a program has set it. */
#include "task.h"

struct slice {
	__u64 length;
	unsigned int tid;
	unsigned int is_custom;
};

SEC("iter/task")
int slices(struct bpf_iter__task *ctx)
{
	struct task_struct *p = ctx->task;
	struct slice slice = {};

	/* Since 6.12. */
	if (!p || !bpf_core_field_exists(p->se.custom_slice))
		return 0;
	slice.length = p->se.slice;
	slice.tid = p->pid;
	slice.is_custom = p->se.custom_slice;
	bpf_seq_write(ctx->meta->seq, &slice, sizeof(slice));
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
