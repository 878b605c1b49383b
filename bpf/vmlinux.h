/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The few kernel types that the programs read. libbpf finds the offset of each field in the running
 * kernel, and fits the width of a load to it where both sides are unsigned integers: `on_rq` is an
 * int up to 7.1 and a byte from 7.2 on. So integers are declared unsigned unless their sign
 * matters. */
#ifndef STALLD_VMLINUX_H
#define STALLD_VMLINUX_H

typedef unsigned char __u8;
typedef short int __s16;
typedef short unsigned int __u16;
typedef int __s32;
typedef unsigned int __u32;
typedef long long int __s64;
typedef long long unsigned int __u64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u32 __wsum;
typedef _Bool bool;
enum { false = 0, true = 1 };

enum bpf_map_type {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PERF_EVENT_ARRAY = 4,
	BPF_MAP_TYPE_QUEUE = 22,
	BPF_MAP_TYPE_TASK_STORAGE = 29,
};

enum bpf_func_id { BPF_FUNC_get_current_task_btf = 158 };
enum { BPF_NOEXIST = 1 };
enum { BPF_F_NO_PREALLOC = 1, BPF_F_MMAPABLE = 1 << 10 };
enum { BPF_LOCAL_STORAGE_GET_F_CREATE = 1 };

struct task_struct;

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct list_head {
	struct list_head *next;
	struct list_head *prev;
};

struct rt_prio_array {
	struct list_head queue[100];
};

struct rt_rq {
	struct rt_prio_array active;
	unsigned int rt_nr_running;
	unsigned int rt_throttled;
};

struct scx_rq {
	struct list_head runnable_list;
	unsigned int nr_running;
};

struct cfs_rq {
	struct rq *rq;
	unsigned int h_nr_queued;
	unsigned int throttle_count;
};

/* Up to 6.13. */
struct cfs_rq___with_running {
	unsigned int h_nr_running;
};

struct rq {
	unsigned int nr_running;
	struct cfs_rq cfs;
	struct list_head cfs_tasks;
	struct task_struct *curr;
	struct rt_rq rt;
	struct scx_rq scx;
	struct task_struct *stop;
	__u64 clock;
	unsigned int cpu;
};

struct sched_entity {
	struct list_head group_node;
	unsigned int sched_delayed;
	unsigned int custom_slice;
	__u64 slice;
	struct cfs_rq *cfs_rq;
};

struct sched_rt_entity {
	struct list_head run_list;
	struct sched_rt_entity *parent;
	struct rt_rq *rt_rq;
	struct rt_rq *my_q;
};

struct sched_ext_entity {
	struct list_head runnable_node;
	unsigned int flags;
};

struct sched_info {
	unsigned long pcount;
	unsigned long long last_arrival;
	unsigned long long last_queued;
};

struct thread_info {
	unsigned int cpu;
};

struct kernfs_node {
	__u64 id;
};

struct cgroup {
	struct kernfs_node *kn;
};

struct css_set {
	struct cgroup *dfl_cgrp;
};

struct user_namespace {
	int level;
};

typedef struct {
	__u32 val;
} kuid_t;

typedef struct {
	__u64 val;
} kernel_cap_t;

struct cred {
	kuid_t uid;
	kernel_cap_t cap_permitted;
	struct user_namespace *user_ns;
};

struct task_struct {
	struct thread_info thread_info;
	unsigned int __state;
	unsigned int on_cpu;
	unsigned int on_rq;
	int prio;
	struct sched_entity se;
	struct sched_rt_entity rt;
	struct sched_ext_entity scx;
	unsigned int policy;
	unsigned int flags;
	unsigned int throttled;
	void *blocked_on;
	struct sched_info sched_info;
	int pid;
	int tgid;
	unsigned long nvcsw;
	unsigned long nivcsw;
	__u64 start_boottime;
	char comm[16];
	struct css_set *cgroups;
	struct cred *cred;
	struct task_struct *pi_top_task;
};

/* Up to 5.13, before 2f064a59a11f ("sched: Change task_struct::state"). */
struct task_struct___with_state {
	unsigned long state;
};

/* x86 up to 5.15, before bcf9033e5449 ("sched: move CPU field back into thread_info"). */
struct task_struct___with_cpu {
	unsigned int cpu;
};

/* Up to 6.2, before f122a08b197d ("capability: just use a 'u64' instead of a 'u32[2]' array"). */
struct kernel_cap_struct {
	__u32 cap[2];
};

struct cred___with_array {
	struct kernel_cap_struct cap_permitted;
};

struct bpf_raw_tracepoint_args {
	__u64 args[0];
};

struct bpf_iter_meta {
	struct seq_file *seq;
	__u64 seq_num;
};

struct bpf_iter__task {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
};

struct bpf_iter__bpf_map_elem {
	struct bpf_iter_meta *meta;
	void *key;
	void *value;
};

#pragma clang attribute pop

#endif
