/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* What all tiers of the open hook share, so that an event does not show which of them saw it. */
#ifndef TOURNIQUET_OPEN_H
#define TOURNIQUET_OPEN_H

#define TS_COMPAT 2             /* x86: thread_info.status */
#define ARM64_TIF_32BIT (1 << 22) /* arm64: thread_info.flags */

struct open_record {
	struct open_event ev;
	u8 data[PATH_ROOM];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct open_record);
} open_scratch SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct inode_key);
	__type(value, u32);
} inodes SEC(".maps");

static __always_inline bool on_x86(void)
{
	return bpf_core_field_exists(struct pt_regs___x86, orig_ax);
}

static __always_inline bool is_compat(struct task_struct *task)
{
	if (on_x86()) {
		struct thread_info___x86 *info = (void *)task; /* the first member of a task */

		return BPF_CORE_READ(info, status) & TS_COMPAT;
	}
	return BPF_CORE_READ(task, thread_info.flags) & ARM64_TIF_32BIT;
}

/* may_tell is the cheap part of describe, for the many opens of cgroups that are not watched. */
static __always_inline bool may_tell(struct config *cfg, struct task_struct *task)
{
	u32 policy;

	return (cfg->flags & CONFIG_WATCH_ALL) || is_watched(cfg, cgroup_of(task), &policy);
}

static __always_inline u32 match_inode(struct config *cfg, struct inode *inode)
{
	struct inode_key key = {};
	u32 *bits;

	if (!(cfg->flags & (CONFIG_INODES | CONFIG_DEVICES)))
		return 0;
	key.ino = BPF_CORE_READ(inode, i_ino);
	key.dev = BPF_CORE_READ(inode, i_sb, s_dev);
	if (cfg->flags & CONFIG_INODES) {
		bits = bpf_map_lookup_elem(&inodes, &key);
		if (bits)
			return *bits;
	}
	if (cfg->flags & CONFIG_DEVICES) {
		key.ino = 0;
		bits = bpf_map_lookup_elem(&inodes, &key);
		if (bits)
			return *bits;
	}
	return 0;
}

static __always_inline u32 match_file(struct config *cfg, struct file *file)
{
	struct dentry *dentry = BPF_CORE_READ(file, f_path.dentry);

	return match_inode(cfg, BPF_CORE_READ(file, f_inode)) |
		match_name(NAME_FILE, BPF_CORE_READ(dentry, d_name.name)) |
		match_name(NAME_DIR, BPF_CORE_READ(dentry, d_parent, d_name.name));
}

/* fill_file fills what there is to say of the file, and adds to the header's flags. */
static __always_inline void fill_file(struct open_record *r, struct file *file)
{
	struct open_event *ev = &r->ev;
	struct inode *inode = BPF_CORE_READ(file, f_inode);

	ev->ino = BPF_CORE_READ(inode, i_ino);
	ev->dev = BPF_CORE_READ(inode, i_sb, s_dev);
	ev->nlink = BPF_CORE_READ(inode, i_nlink);
	ev->mode = BPF_CORE_READ(inode, i_mode);
	ev->open_flags = BPF_CORE_READ(file, f_flags);
	write_path(r->data, &ev->path_len, file, &ev->h.flags);
	if (ev->nlink == 0)
		ev->h.flags |= FLAG_UNLINKED;
	if (in_upper_layer(inode))
		ev->h.flags |= FLAG_UPPER;
}

/* tell_open sends what was found; false when it is not to be told. */
static __always_inline bool tell_open(struct counter *c, struct open_record *r, struct config *cfg,
				      struct task_struct *task, s32 result, bool compat)
{
	struct open_event *ev = &r->ev;
	u32 match = ev->h.match, size = sizeof(*ev) + ev->path_len;
	u16 flags = ev->h.flags | (compat ? FLAG_COMPAT : 0);

	if (!describe(&ev->h, KIND_OPEN, cfg, task))
		return false;
	ev->h.match = match;
	ev->h.flags = flags;
	ev->result = result;
	ev->pad = 0;
	barrier_var(size); /* the verifier must see the bound on what is sent */
	if (size > sizeof(*r))
		size = sizeof(*ev);
	send(c, CLASS_CRITICAL, r, size);
	return true;
}

#define FMODE_EXEC 0x20            /* in f_flags: opened to be executed, which the exec hook tells of */
#define FMODE_NOACCOUNT 0x20000000 /* in f_mode: an overlay opens the file behind its own, which was told of already */

/* By thread: another task may run the program on the same CPU before it has ended, so memory of the CPU is not ours. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__type(key, u32);
	__type(value, struct open_record);
} open_work SEC(".maps");

/* tell_checked tells of an open where the kernel asks its security modules: of any system call, and of io_uring. */
static __always_inline void tell_checked(struct file *file, s32 result)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct counter *c = counter_of(KIND_OPEN);
	struct config *cfg = the_config();
	u32 zero = 0, tid = bpf_get_current_pid_tgid(), match;
	struct open_record *r, *empty;

	if (!c || !cfg)
		return;
	if ((BPF_CORE_READ(file, f_flags) & FMODE_EXEC) || (BPF_CORE_READ(file, f_mode) & FMODE_NOACCOUNT))
		return;
	count(&c->seen);
	if (!may_tell(cfg, task) || (result < 0 && !(cfg->flags & CONFIG_FAILED_OPENS)))
		goto filtered;
	match = match_file(cfg, file);
	empty = bpf_map_lookup_elem(&open_scratch, &zero); /* never written by this tier */
	if (!match || !empty)
		goto filtered;
	r = bpf_map_update_elem(&open_work, &tid, empty, BPF_ANY) ? NULL : bpf_map_lookup_elem(&open_work, &tid);
	if (!r) {
		count(&c->dropped[CLASS_CRITICAL]);
		return;
	}
	r->ev.h.match = match;
	fill_file(r, file);
	if (!tell_open(c, r, cfg, task, result, is_compat(task)))
		count(&c->filtered);
	bpf_map_delete_elem(&open_work, &tid);
	return;
filtered:
	count(&c->filtered);
}

#endif
