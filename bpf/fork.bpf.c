//go:build ignore

/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* A process begins. New threads are filtered. */
#include "common.h"

SEC("tp_btf/sched_process_fork")
int on_fork(u64 *ctx)
{
	struct task_struct *child = (void *)ctx[1];
	struct counter *c = counter_of(KIND_FORK);
	struct config *cfg = the_config();
	struct fork_event ev = {};

	if (!c || !cfg)
		return 0;
	count(&c->seen);
	if (child->pid != child->tgid || !describe(&ev.h, KIND_FORK, cfg, child)) {
		count(&c->filtered);
		return 0;
	}
	ev.parent_start_ns = BPF_CORE_READ(child, real_parent, group_leader, start_boottime);
	send(c, CLASS_TELEMETRY, &ev, sizeof(ev));
	return 0;
}
