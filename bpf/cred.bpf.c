//go:build ignore

/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * A system call gives its caller user id 0 or capabilities. What it had is noted when the call begins, and compared with
 * what it has when the call ends. What an exec gives, the exec's own record tells.
 */
#include "common.h"
#include "path.h"
#include "syscall.h"

struct before {
	u64 caps;
	u32 uid;
	u32 euid;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, u64);
	__type(value, struct before);
} creds_before SEC(".maps");

SEC("tp_btf/sys_enter")
int on_cred_call(u64 *ctx)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	u64 id = bpf_get_current_pid_tgid();
	const struct cred *cred;
	struct before b;
	bool compat;

	if (!call_of(ctx[1], &compat))
		return 0;
	cred = BPF_CORE_READ(task, real_cred);
	b.caps = caps_of(cred);
	b.uid = BPF_CORE_READ(cred, uid.val);
	b.euid = BPF_CORE_READ(cred, euid.val);
	bpf_map_update_elem(&creds_before, &id, &b, BPF_ANY);
	return 0;
}

SEC("tp_btf/sys_exit")
int on_cred_called(u64 *ctx)
{
	struct task_struct *task;
	u64 id = bpf_get_current_pid_tgid();
	struct cred_event ev = {};
	struct counter *c;
	struct config *cfg;
	struct before *b;
	bool compat;
	u32 call = call_of(number_of((void *)ctx[0]), &compat);

	if (!call)
		return 0;
	c = counter_of(KIND_CRED);
	cfg = the_config();
	if (!c || !cfg)
		return 0;
	count(&c->seen);
	task = (void *)bpf_get_current_task();
	b = bpf_map_lookup_elem(&creds_before, &id);
	if (!b)
		goto filtered; /* the call had begun before we were attached */
	ev.cap_before = b->caps;
	ev.uid_before = b->uid;
	ev.euid_before = b->euid;
	bpf_map_delete_elem(&creds_before, &id);
	ev.cap_after = caps_of(BPF_CORE_READ(task, real_cred));
	ev.call = call;
	if ((long)ctx[1] < 0 || !describe(&ev.h, KIND_CRED, cfg, task))
		goto filtered;
	if (!(ev.cap_after & ~ev.cap_before) && (ev.h.euid != 0 || ev.euid_before == 0))
		goto filtered;
	if (compat)
		ev.h.flags |= FLAG_COMPAT;
	send(c, CLASS_CRITICAL, &ev, sizeof(ev));
	return 0;
filtered:
	count(&c->filtered);
	return 0;
}
