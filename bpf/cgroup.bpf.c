//go:build ignore

/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* A cgroup of the v2 hierarchy comes or goes: how an id gets its path before the first process in it does anything. */
#include "common.h"

#define CGROUP_PATH_LEN 512

struct cgroup_record {
	struct cgroup_event ev;
	u8 data[CGROUP_PATH_LEN];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2); /* one for each program: making may be interrupted by removing */
	__type(key, u32);
	__type(value, struct cgroup_record);
} cgroup_scratch SEC(".maps");

static __always_inline void changed(struct cgroup *cgroup, const char *path, u16 op, u32 slot)
{
	struct counter *c = counter_of(KIND_CGROUP);
	struct config *cfg = the_config();
	struct cgroup_record *r = bpf_map_lookup_elem(&cgroup_scratch, &slot);
	struct cgroup_event *ev;
	u64 own;
	long n;

	if (!c || !cfg || !r)
		return;
	ev = &r->ev;
	count(&c->seen);
	/* Ids of the v1 hierarchies are another number space and collide with those of v2. */
	if (BPF_CORE_READ(cgroup, root, hierarchy_id) != 0) {
		count(&c->filtered);
		return;
	}
	/* Whoever made it is of no interest for the filter: the runtime is never a watched process. */
	__builtin_memset(ev, 0, sizeof(*ev));
	ev->h.kind = KIND_CGROUP;
	ev->h.time_ns = bpf_ktime_get_boot_ns();
	own = bpf_get_current_pid_tgid();
	ev->h.tgid = own >> 32;
	ev->h.tid = own;
	ev->h.cgroup_id = cgroup_of((void *)bpf_get_current_task());
	bpf_get_current_comm(ev->h.comm, COMM_LEN);
	ev->id = BPF_CORE_READ(cgroup, kn, id);
	ev->level = BPF_CORE_READ(cgroup, level);
	ev->op = op;
	n = bpf_probe_read_kernel_str(r->data, CGROUP_PATH_LEN, path);
	if (n < 0 || n > CGROUP_PATH_LEN)
		n = 0;
	if (n == CGROUP_PATH_LEN)
		ev->h.flags |= FLAG_PATH_CUT;
	ev->path_len = n;
	send(c, CLASS_TELEMETRY, r, sizeof(*ev) + n);
}

SEC("tp_btf/cgroup_mkdir")
int on_cgroup_mkdir(u64 *ctx)
{
	changed((void *)ctx[0], (void *)ctx[1], CGROUP_MADE, 0);
	return 0;
}

SEC("tp_btf/cgroup_rmdir")
int on_cgroup_rmdir(u64 *ctx)
{
	changed((void *)ctx[0], (void *)ctx[1], CGROUP_REMOVED, 1);
	return 0;
}
