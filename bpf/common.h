/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* What every probe shares: the two rings, the counters, the filter, and how a header is filled. */
#ifndef TOURNIQUET_COMMON_H
#define TOURNIQUET_COMMON_H

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "event.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define NAME_LEN 28

enum { NAME_FILE = 0, NAME_DIR = 1, NAME_EXEC = 2, NAME_SOCKET = 3 };

struct name_key {
	u32 what;
	u8 name[NAME_LEN]; /* cut, filled up with NUL */
};

struct inode_key {
	u64 ino; /* 0: every file of the device */
	u32 dev;
	u32 pad;
};

struct addr_key {
	u8 addr[16];
};

enum {
	CONFIG_WATCH_ALL = 1,
	CONFIG_FAILED_OPENS = 2,
	CONFIG_INODES = 4,
	CONFIG_SENDMSG = 8,
	CONFIG_DEVICES = 16,
};

struct config {
	u32 flags;
	u32 self_tgid; /* the sensor's own doings are filtered */
	u32 args_max;  /* bytes of arguments to take, 0: none */
	u32 pad;
	u64 quiet_ns;  /* datagrams to one address, and calls alike, are told once in this time */
	u64 interval_ns; /* telemetry of one kind and cgroup comes this far apart on average; 0: no limit */
	u64 burst_ns;    /* how far it may be ahead of that */
};

struct counter { /* seen == filtered + limited + submitted[] + dropped[], whenever no program is at work */
	u64 seen;
	u64 filtered;
	u64 submitted[2];
	u64 dropped[2];
	u64 limited; /* telemetry beyond its cgroup's rate */
};

/* User space gives all objects one instance of each of these; sizes of the rings are set there. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 * 1024);
	__type(value, union record); /* told to the layout test only */
} critical SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 2 * 1024 * 1024);
} telemetry SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, KIND_MAX);
	__type(key, u32);
	__type(value, struct counter);
} counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct config);
} config SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 16384);
	__type(key, u64);
	__type(value, u32);
} watched SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1024);
	__type(key, struct name_key);
	__type(value, u32);
} names SEC(".maps");

struct bucket_key {
	u64 cgroup_id;
	u64 kind;
};

/* When the next record of a kind and cgroup is due if they came evenly: ahead of now by as much as was used up. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct bucket_key);
	__type(value, u64);
} buckets SEC(".maps");

static __always_inline void count(u64 *n)
{
	/* Cgroup programs can be preempted by another task on the same CPU, so even a per-CPU counter needs this. */
	__sync_fetch_and_add(n, 1);
}

static __always_inline struct counter *counter_of(u32 kind)
{
	return bpf_map_lookup_elem(&counters, &kind);
}

static __always_inline struct config *the_config(void)
{
	u32 zero = 0;
	return bpf_map_lookup_elem(&config, &zero);
}

/* over_rate takes a record's share of its cgroup's rate. Two CPUs at once may take one share: the limit is not exact. */
static __always_inline bool over_rate(struct config *cfg, struct header *h)
{
	struct bucket_key key = {.cgroup_id = h->cgroup_id, .kind = h->kind};
	u64 *due, first;

	if (!cfg->interval_ns)
		return false;
	due = bpf_map_lookup_elem(&buckets, &key);
	if (!due) {
		first = h->time_ns + cfg->interval_ns;
		bpf_map_update_elem(&buckets, &key, &first, BPF_ANY);
		return false;
	}
	if (*due < h->time_ns)
		*due = h->time_ns;
	if (*due - h->time_ns > cfg->burst_ns)
		return true;
	*due += cfg->interval_ns;
	return false;
}

/* send puts one record into the ring of its class. Only critical records wake their reader; the other ring is polled. */
static __always_inline void send(struct counter *c, enum class class, void *record, u64 size)
{
	long err;

	if (class == CLASS_CRITICAL)
		err = bpf_ringbuf_output(&critical, record, size, BPF_RB_FORCE_WAKEUP);
	else
		err = bpf_ringbuf_output(&telemetry, record, size, BPF_RB_NO_WAKEUP);
	count(err ? &c->dropped[class] : &c->submitted[class]);
}

/* send_limited sends telemetry within its cgroup's rate; what is critical has none. */
static __always_inline void send_limited(struct counter *c, struct config *cfg, void *record, u64 size)
{
	if (over_rate(cfg, record))
		count(&c->limited);
	else
		send(c, CLASS_TELEMETRY, record, size);
}

/* is_watched says whether the cgroup is ours to watch, and under which policy. */
static __always_inline bool is_watched(struct config *cfg, u64 cgroup_id, u32 *policy)
{
	u32 *id = bpf_map_lookup_elem(&watched, &cgroup_id);

	*policy = id ? *id : 0;
	return id || (cfg->flags & CONFIG_WATCH_ALL);
}

static __always_inline u64 cgroup_of(struct task_struct *task)
{
	return BPF_CORE_READ(task, cgroups, dfl_cgrp, kn, id);
}

static __always_inline u64 caps_of(const struct cred *cred)
{
	u64 caps = 0;

	bpf_probe_read_kernel(&caps, sizeof(caps), (void *)cred + bpf_core_field_offset(struct cred, cap_effective));
	return caps;
}

/* describe fills everything of a header but match and flags; false when the process is not to be told of. */
static __always_inline bool describe(struct header *h, u16 kind, struct config *cfg, struct task_struct *task)
{
	struct task_struct *leader;
	const struct cred *cred;

	h->tgid = BPF_CORE_READ(task, tgid);
	if (h->tgid == cfg->self_tgid)
		return false;
	h->cgroup_id = cgroup_of(task);
	if (!is_watched(cfg, h->cgroup_id, &h->policy))
		return false;
	leader = BPF_CORE_READ(task, group_leader);
	cred = BPF_CORE_READ(task, real_cred);
	h->time_ns = bpf_ktime_get_boot_ns();
	h->start_ns = BPF_CORE_READ(leader, start_boottime);
	h->tid = BPF_CORE_READ(task, pid);
	h->ppid = BPF_CORE_READ(task, real_parent, tgid);
	h->uid = BPF_CORE_READ(cred, uid.val);
	h->euid = BPF_CORE_READ(cred, euid.val);
	h->match = 0;
	h->kind = kind;
	h->flags = 0;
	bpf_probe_read_kernel(h->comm, COMM_LEN, task->comm);
	return true;
}

#endif
