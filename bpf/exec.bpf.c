//go:build ignore

/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* A process becomes another program: what file, with which arguments, and what its first three descriptors are. */
#include "common.h"
#include "path.h"

#define FILE_LEN 256
#define ARGS_LEN 4096
#define DATA_LEN (PATH_ROOM + FILE_LEN + ARGS_LEN)

#define S_IFMT_SHIFT 12
#define S_IFCHR_BITS 2
#define S_IFSOCK_BITS 12
#define PTY_MAJOR_FIRST 136
#define PTY_MAJOR_LAST 143
#define AF_INET 2
#define AF_INET6 10

struct exec_record {
	struct exec_event ev;
	u8 data[DATA_LEN];
};

/* Too large for the stack. A program that runs again on its CPU before it ended is skipped by the kernel. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct exec_record);
} exec_scratch SEC(".maps");

static __always_inline u8 descriptor_type(struct task_struct *task, u32 fd)
{
	struct file *file = file_at(task, fd);
	struct socket *socket;
	u16 family;
	u32 major;
	u8 type;

	if (!file)
		return 0;
	type = BPF_CORE_READ(file, f_inode, i_mode) >> S_IFMT_SHIFT;
	if (type == S_IFCHR_BITS) {
		major = BPF_CORE_READ(file, f_inode, i_rdev) >> 20;
		if (major >= PTY_MAJOR_FIRST && major <= PTY_MAJOR_LAST)
			type |= FD_PTY;
	} else if (type == S_IFSOCK_BITS) {
		socket = BPF_CORE_READ(file, private_data);
		family = BPF_CORE_READ(socket, sk, __sk_common.skc_family);
		if (family == AF_INET || family == AF_INET6)
			type |= FD_INET;
	}
	return type;
}

/* write_args copies the argument block as it lies in the new image, and returns its length. */
static __always_inline u32 write_args(u8 *out, struct task_struct *task, u32 max, u16 *flags)
{
	struct mm_struct *mm = BPF_CORE_READ(task, mm);
	unsigned long start = BPF_CORE_READ(mm, arg_start);
	unsigned long end = BPF_CORE_READ(mm, arg_end);
	u64 len = end - start;

	if (max > ARGS_LEN)
		max = ARGS_LEN;
	if (end <= start || max == 0)
		return 0;
	if (len > max) {
		len = max;
		*flags |= FLAG_ARGS_CUT;
	}
	barrier_var(len);
	if (len > ARGS_LEN)
		return 0;
	if (bpf_probe_read_user(out, len, (void *)start)) {
		*flags |= FLAG_ARGS_LOST;
		return 0;
	}
	return len;
}

static __always_inline bool on_network(struct exec_event *ev)
{
	return (ev->fd[0] | ev->fd[1] | ev->fd[2]) & FD_INET;
}

static __always_inline const unsigned char *leaf_of(struct file *file)
{
	return BPF_CORE_READ(file, f_path.dentry, d_name.name);
}

static __always_inline u32 write_data(struct exec_record *r, struct task_struct *task, struct linux_binprm *bprm, u32 args_max)
{
	struct exec_event *ev = &r->ev;
	u32 off;
	long n;

	write_path(r->data, &ev->path_len, BPF_CORE_READ(bprm, file), &ev->h.flags);
	off = ev->path_len;
	barrier_var(off);
	if (off > PATH_ROOM)
		return 0;
	n = bpf_probe_read_kernel_str(r->data + off, FILE_LEN, BPF_CORE_READ(bprm, filename));
	if (n < 0 || n > FILE_LEN)
		n = 0;
	ev->file_len = n;
	off += n;
	barrier_var(off);
	if (off > PATH_ROOM + FILE_LEN)
		return 0;
	n = write_args(r->data + off, task, args_max, &ev->h.flags);
	ev->args_len = n;
	return off + n;
}

SEC("tp_btf/sched_process_exec")
int on_exec(u64 *ctx)
{
	struct task_struct *task = (void *)ctx[0];
	struct linux_binprm *bprm = (void *)ctx[2];
	struct counter *c = counter_of(KIND_EXEC);
	struct config *cfg = the_config();
	u32 zero = 0, len;
	struct exec_record *r = bpf_map_lookup_elem(&exec_scratch, &zero);
	struct exec_event *ev;
	struct inode *inode;
	bool urgent;

	if (!c || !cfg || !r)
		return 0;
	ev = &r->ev;
	count(&c->seen);
	if (!describe(&ev->h, KIND_EXEC, cfg, task)) {
		count(&c->filtered);
		return 0;
	}
	inode = BPF_CORE_READ(bprm, file, f_inode);
	ev->parent_start_ns = BPF_CORE_READ(task, real_parent, group_leader, start_boottime);
	ev->ino = BPF_CORE_READ(inode, i_ino);
	ev->dev = BPF_CORE_READ(inode, i_sb, s_dev);
	ev->nlink = BPF_CORE_READ(inode, i_nlink);
	ev->argc = BPF_CORE_READ(bprm, argc);
	ev->fd[0] = descriptor_type(task, 0);
	ev->fd[1] = descriptor_type(task, 1);
	ev->fd[2] = descriptor_type(task, 2);
	ev->cap_effective = caps_of(BPF_CORE_READ(task, real_cred));
	if (BPF_CORE_READ_BITFIELD_PROBED(bprm, secureexec))
		ev->h.flags |= FLAG_SECURE;
	ev->pad[0] = ev->pad[1] = ev->pad[2] = 0;
	if (ev->nlink == 0)
		ev->h.flags |= FLAG_UNLINKED;
	if (in_upper_layer(inode))
		ev->h.flags |= FLAG_UPPER;
	ev->h.match = match_name(NAME_EXEC, leaf_of(BPF_CORE_READ(bprm, file)));
	ev->path_len = ev->file_len = ev->args_len = 0;
	len = write_data(r, task, bprm, cfg->args_max);
	barrier_var(len); /* the verifier must see the bound on what is sent */
	if (len > DATA_LEN)
		len = 0;
	urgent = ev->h.match || ev->nlink == 0 || on_network(ev) || (ev->h.flags & FLAG_SECURE);
	send(c, urgent ? CLASS_CRITICAL : CLASS_TELEMETRY, r, sizeof(*ev) + len);
	return 0;
}
