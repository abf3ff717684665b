//go:build ignore

/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * A watched file is opened. Decided on the file that the kernel opened (inode, names of its dentries), never on the
 * string that the caller passed: relative paths, .., symbolic links and a racing thread change the string only. The
 * string is looked at when the open failed, since then there is no file; such an event is marked as a hint.
 *
 * Not seen here: opens by io_uring, so its set-up is told of as a loss of sight; descriptors received from another
 * process; a thread that replaces the new descriptor before the system call has returned.
 */
#include "common.h"
#include "path.h"
#include "open.h"

#define TAIL_LEN 64
#define HINT_LEN 256

enum call { CALL_OTHER = 0, CALL_OPEN, CALL_OPENAT, CALL_HANDLE, CALL_URING };

/* Read straight from the tracepoint's argument, without a helper: every system call of the node passes here. */
static __always_inline long call_number(void *regs)
{
	if (on_x86())
		return ((struct pt_regs___x86 *)regs)->orig_ax;
	return ((struct pt_regs___arm64 *)regs)->syscallno;
}

/* The numbers that no two of the tables give another meaning of ours come first; the rest needs to know which table. */
static __always_inline enum call which_call(long nr, struct task_struct *task, bool *compat)
{
	*compat = false;
	if (nr == 437)
		return CALL_OPENAT; /* openat2, everywhere */
	if (nr == 425)
		return CALL_URING; /* io_uring_setup, everywhere */
	if (on_x86()) {
		if (nr != 2 && nr != 257 && nr != 85 && nr != 304 && nr != 5 && nr != 295 && nr != 8 && nr != 342)
			return CALL_OTHER;
		*compat = is_compat(task);
		if (*compat)
			return nr == 5 || nr == 8 ? CALL_OPEN : nr == 295 ? CALL_OPENAT : nr == 342 ? CALL_HANDLE : CALL_OTHER;
		return nr == 2 || nr == 85 ? CALL_OPEN : nr == 257 ? CALL_OPENAT : nr == 304 ? CALL_HANDLE : CALL_OTHER;
	}
	if (nr != 56 && nr != 265 && nr != 5 && nr != 322 && nr != 8 && nr != 371)
		return CALL_OTHER;
	*compat = is_compat(task);
	if (*compat)
		return nr == 5 || nr == 8 ? CALL_OPEN : nr == 322 ? CALL_OPENAT : nr == 371 ? CALL_HANDLE : CALL_OTHER;
	return nr == 56 ? CALL_OPENAT : nr == 265 ? CALL_HANDLE : CALL_OTHER;
}

/* path_argument returns the caller's pointer; 32-bit callers pass theirs in other registers, and get no hint. */
static __always_inline const void *path_argument(void *regs, enum call call, bool compat)
{
	if (compat || call == CALL_HANDLE)
		return NULL;
	if (on_x86()) {
		struct pt_regs___x86 *x86 = regs;

		return (void *)(call == CALL_OPEN ? BPF_CORE_READ(x86, di) : BPF_CORE_READ(x86, si));
	}
	return (void *)BPF_CORE_READ((struct pt_regs___arm64 *)regs, regs[1]);
}

/* hint looks at the caller's string: its last name and the one before it. */
static __always_inline bool hint(struct open_record *r, const void *user_path)
{
	struct open_event *ev = &r->ev;
	long n = bpf_probe_read_user_str(r->data, HINT_LEN, user_path);
	volatile u32 *last_at = &ev->dev, *before_at = &ev->nlink; /* as in write_path: all rounds look alike to the verifier */
	u32 last, before, end;

	if (n <= 1 || n > HINT_LEN)
		return false;
	end = n - 1; /* the NUL */
	*last_at = *before_at = 0;
	for (u32 i = 1; i <= TAIL_LEN && i <= end; i++) {
		u32 at = end - i;

		if (at >= HINT_LEN)
			break;
		if (r->data[at] != '/')
			continue;
		if (*last_at) {
			*before_at = at + 1;
			break;
		}
		*last_at = at + 1;
	}
	last = *last_at;
	before = *before_at;
	barrier_var(last);
	barrier_var(before);
	if (last >= HINT_LEN || before >= HINT_LEN)
		return false;
	ev->h.match = match_name(NAME_FILE, r->data + last);
	if (last > 1) {
		struct name_key key = {.what = NAME_DIR};
		u32 len = last - 1 - before;
		u32 *bits;

		if (len < NAME_LEN) {
			bpf_probe_read_kernel(key.name, len, r->data + before);
			bits = bpf_map_lookup_elem(&names, &key);
			if (bits)
				ev->h.match |= *bits;
		}
	}
	if (!ev->h.match)
		return false;
	ev->h.flags |= FLAG_UNRESOLVED;
	ev->path_len = n;
	ev->ino = 0;
	ev->dev = ev->nlink = ev->open_flags = 0;
	ev->mode = 0;
	return true;
}

static __always_inline void opened(void *regs, long ret, enum call call, bool compat, struct task_struct *task, struct config *cfg)
{
	struct counter *c = counter_of(KIND_OPEN);
	u32 zero = 0;
	struct open_record *r = bpf_map_lookup_elem(&open_scratch, &zero);
	struct open_event *ev;
	const void *user_path;
	struct file *file;
	bool hit = false;

	if (!c || !r)
		return;
	ev = &r->ev;
	count(&c->seen);
	ev->h.flags = 0;
	if (!may_tell(cfg, task))
		goto filtered;
	if (ret >= 0) {
		file = file_at(task, ret);
		ev->h.match = file ? match_file(cfg, file) : 0;
		hit = ev->h.match;
		if (hit)
			fill_file(r, file);
	} else if (cfg->flags & CONFIG_FAILED_OPENS) {
		user_path = path_argument(regs, call, compat);
		hit = user_path && hint(r, user_path);
	}
	if (hit && tell_open(c, r, cfg, task, ret, compat))
		return;
filtered:
	count(&c->filtered);
}

static __always_inline void uring(void *regs, long ret, struct task_struct *task, struct config *cfg)
{
	struct counter *c = counter_of(KIND_URING);
	struct uring_event ev = {};

	if (!c)
		return;
	count(&c->seen);
	if (ret < 0 || !describe(&ev.h, KIND_URING, cfg, task)) {
		count(&c->filtered);
		return;
	}
	ev.fd = ret;
	ev.entries = on_x86() ? BPF_CORE_READ((struct pt_regs___x86 *)regs, di) : 0;
	send(c, CLASS_CRITICAL, &ev, sizeof(ev));
}

SEC("tp_btf/sys_exit")
int on_sys_exit(u64 *ctx)
{
	void *regs = (void *)ctx[0];
	long ret = ctx[1];
	struct task_struct *task = (void *)bpf_get_current_task();
	struct config *cfg;
	bool compat;
	enum call call = which_call(call_number(regs), task, &compat);

	if (call == CALL_OTHER)
		return 0;
	cfg = the_config();
	if (!cfg)
		return 0;
	if (call == CALL_URING)
		uring(regs, ret, task, cfg);
	else
		opened(regs, ret, call, compat, task, cfg);
	return 0;
}
