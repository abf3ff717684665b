//go:build ignore

/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* A process ends: told once, by its last thread. */
#include "common.h"

SEC("tp_btf/sched_process_exit")
int on_exit(u64 *ctx)
{
	struct task_struct *task = (void *)ctx[0];
	struct counter *c = counter_of(KIND_EXIT);
	struct config *cfg = the_config();
	struct exit_event ev = {};

	if (!c || !cfg)
		return 0;
	count(&c->seen);
	if (BPF_CORE_READ(task, signal, live.counter) != 0 || !describe(&ev.h, KIND_EXIT, cfg, task)) {
		count(&c->filtered);
		return 0;
	}
	ev.code = BPF_CORE_READ(task, signal, group_exit_code);
	if (ev.code == 0)
		ev.code = task->exit_code;
	send(c, CLASS_TELEMETRY, &ev, sizeof(ev));
	return 0;
}
