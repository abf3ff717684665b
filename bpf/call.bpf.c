//go:build ignore

/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * A rare system call is made, and a watched unix socket is connected to. One program looks every number up in a table, and
 * reads only numbers that the caller passed and the kernel's own objects, never the caller's memory: there is nothing that
 * another thread could change meanwhile.
 */
#include "common.h"
#include "path.h"
#include "syscall.h"

#define AF_UNIX 1
#define AF_INET 2
#define AF_INET6 10
#define AF_PACKET 17
#define SOCK_RAW 3
#define S_IFMT_SHIFT 12
#define S_IFSOCK_BITS 12
#define F_DUPFD 0
#define F_DUPFD_CLOEXEC 1030
#define NSFS_MAGIC 0x6e736673
#define SUN_PATH_LEN 108
#define XA_NODE_MASK 3
#define XA_NODE_BITS 2
#define XA_CHUNK_MASK 63
#define PID_LEVELS 5

enum { BPF_PROG_LOAD = 5, BPF_PROG_ATTACH = 8, BPF_RAW_TRACEPOINT_OPEN = 17, BPF_LINK_CREATE = 28 };

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, CALL_MAX);
	__type(key, u32);
	__type(value, u32);
} call_bits SEC(".maps");

struct call_key {
	u64 number;
	u32 tgid;
	u32 target;
	u32 call;
	s32 result;
};

/* What a debugger or an agent does again and again is told once in a while. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct call_key);
	__type(value, u64);
} calls_told SEC(".maps");

struct unix_record {
	struct unix_event ev;
	u8 data[PATH_ROOM];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct unix_record);
} unix_scratch SEC(".maps");

/* task_of finds the process that the caller means by an id of its own pid namespace. */
static __always_inline struct task_struct *task_of(struct task_struct *caller, u32 vpid)
{
	struct pid *own = BPF_CORE_READ(caller, thread_pid), *found;
	u64 step = bpf_core_type_size(struct upid);
	struct upid *upid = (void *)own + bpf_core_field_offset(struct pid, numbers) + BPF_CORE_READ(own, level) * step;
	struct pid_namespace *space = BPF_CORE_READ(upid, ns);
	void *entry = BPF_CORE_READ(space, idr.idr_rt.xa_head);
	struct hlist_node *first = NULL;

	for (int i = 0; i < PID_LEVELS && ((u64)entry & XA_NODE_MASK) == XA_NODE_BITS; i++) {
		struct xa_node *node = entry - XA_NODE_BITS;
		u32 slot = (vpid >> BPF_CORE_READ(node, shift)) & XA_CHUNK_MASK;
		void **slots = (void *)node + bpf_core_field_offset(struct xa_node, slots);

		entry = NULL;
		bpf_probe_read_kernel(&entry, sizeof(entry), slots + slot);
	}
	if (!entry || ((u64)entry & XA_NODE_MASK))
		return NULL;
	found = entry;
	bpf_probe_read_kernel(&first, sizeof(first), (void *)found + bpf_core_field_offset(struct pid, tasks)); /* of PIDTYPE_PID */
	if (!first)
		return NULL;
	return (void *)first - bpf_core_field_offset(struct task_struct, pid_links);
}

static __always_inline void set_target(struct call_event *ev, struct task_struct *task, u32 vpid)
{
	struct task_struct *target;

	ev->target_vpid = vpid;
	if (!vpid)
		return;
	target = task_of(task, vpid);
	if (!target)
		return;
	ev->target_tgid = BPF_CORE_READ(target, tgid);
	ev->target_start_ns = BPF_CORE_READ(target, group_leader, start_boottime);
	ev->target_cgroup = cgroup_of(target);
}

static __always_inline void set_namespace(struct call_event *ev, struct file *file)
{
	struct ns_common *ns;

	if (!file || BPF_CORE_READ(file, f_inode, i_sb, s_magic) != NSFS_MAGIC)
		return;
	ns = BPF_CORE_READ(file, f_inode, i_private);
	ev->ns_inum = BPF_CORE_READ(ns, inum);
	if (bpf_core_field_exists(struct ns_common, ns_type))
		ev->ns_type = BPF_CORE_READ(ns, ns_type);
	else if (bpf_core_field_exists(struct proc_ns_operations, type))
		ev->ns_type = BPF_CORE_READ((struct ns_common___old *)ns, ops, type);
}

/* set_descriptor says what lies behind a descriptor of the caller. */
static __always_inline void set_descriptor(struct call_event *ev, struct file *file, s32 fd)
{
	struct socket *socket;

	ev->fd = fd;
	if (!file)
		return;
	ev->fd_type = BPF_CORE_READ(file, f_inode, i_mode) >> S_IFMT_SHIFT;
	if (ev->fd_type != S_IFSOCK_BITS)
		return;
	socket = BPF_CORE_READ(file, private_data);
	ev->family = BPF_CORE_READ(socket, sk, __sk_common.skc_family);
	ev->sock_type = BPF_CORE_READ(socket, type);
	if (ev->family == AF_INET || ev->family == AF_INET6)
		ev->fd_type |= FD_INET;
}

static __always_inline bool on_stdio(struct call_event *ev)
{
	return (ev->fd_type & FD_INET) && ev->fd >= 0 && ev->fd <= 2;
}

/* fill reads what a call was about; false when this one is of no interest. */
static __always_inline bool fill(struct call_event *ev, u32 call, struct arguments *in, long ret, struct task_struct *task)
{
	struct file *file = ret >= 0 ? file_at(task, ret) : NULL;

	switch (call) {
	case CALL_PTRACE:
		ev->number = in->a[0];
		set_target(ev, task, in->a[1]);
		return true;
	case CALL_VM_READ:
	case CALL_VM_WRITE:
		set_target(ev, task, in->a[0]);
		return true;
	case CALL_SETNS:
		ev->number = in->a[1];
		set_namespace(ev, file_at(task, in->a[0]));
		return true;
	case CALL_MOUNT:
		ev->number = in->a[3];
		return true;
	case CALL_UNSHARE:
		ev->number = in->a[0];
		return true;
	case CALL_OPEN_TREE:
	case CALL_PIDFD_GETFD:
		ev->number = in->a[2];
		if (file)
			set_descriptor(ev, file, ret);
		return true;
	case CALL_MEMFD:
		ev->number = in->a[1];
		if (file)
			set_descriptor(ev, file, ret);
		return true;
	case CALL_BPF:
		ev->number = in->a[0];
		return ev->number == BPF_PROG_LOAD || ev->number == BPF_PROG_ATTACH || ev->number == BPF_RAW_TRACEPOINT_OPEN ||
			ev->number == BPF_LINK_CREATE;
	case CALL_FCNTL:
		ev->number = in->a[1];
		if (ev->number != F_DUPFD && ev->number != F_DUPFD_CLOEXEC)
			return false;
		/* fall through */
	case CALL_DUP:
	case CALL_DUP_TO:
		if (ret < 0 || ret > 2)
			return false;
		set_descriptor(ev, file, ret);
		return on_stdio(ev);
	case CALL_SOCKET:
		if (!file)
			return false;
		set_descriptor(ev, file, ret);
		return ev->family == AF_PACKET || ev->sock_type == SOCK_RAW || on_stdio(ev);
	}
	return true;
}

static __always_inline bool told_lately(struct call_event *ev, u64 quiet_ns)
{
	struct call_key key = {.number = ev->number, .tgid = ev->h.tgid, .call = ev->call};
	u64 *last;

	key.target = ev->target_tgid ? ev->target_tgid : ev->ns_inum;
	key.result = ev->result < 0 ? ev->result : ev->fd;
	last = bpf_map_lookup_elem(&calls_told, &key);
	if (last && ev->h.time_ns - *last < quiet_ns)
		return true;
	bpf_map_update_elem(&calls_told, &key, &ev->h.time_ns, BPF_ANY);
	return false;
}

static __always_inline void called(u32 call, void *regs, long ret, bool compat, struct task_struct *task, struct config *cfg)
{
	struct counter *c = counter_of(KIND_CALL);
	u32 *bits = bpf_map_lookup_elem(&call_bits, &call);
	struct call_event ev = {};
	struct arguments in;

	if (!c)
		return;
	count(&c->seen);
	if (!bits || !describe(&ev.h, KIND_CALL, cfg, task))
		goto filtered;
	ev.h.match = *bits;
	if (compat)
		ev.h.flags |= FLAG_COMPAT;
	ev.call = call;
	ev.fd = -1;
	ev.result = ret > 0x7fffffff ? 0x7fffffff : ret;
	read_arguments(&in, regs, compat);
	if (!fill(&ev, call, &in, ret, task) || told_lately(&ev, cfg->quiet_ns))
		goto filtered;
	send(c, CLASS_CRITICAL, &ev, sizeof(ev));
	return;
filtered:
	count(&c->filtered);
}

/* abstract_name copies the name of an abstract socket, which begins with a NUL; false when it is none. */
static __always_inline bool abstract_name(struct unix_record *r, struct unix_sock *peer)
{
	struct unix_address *addr = BPF_CORE_READ(peer, addr);
	struct sockaddr_un *name = (void *)addr + bpf_core_field_offset(struct unix_address, name);
	struct name_key key = {.what = NAME_SOCKET};
	u32 off = bpf_core_field_offset(struct sockaddr_un, sun_path) + 1, n, cut;
	u32 *bits;

	if (!addr)
		return false;
	n = BPF_CORE_READ(addr, len) - off; /* no NUL ends it */
	barrier_var(n);
	if (n == 0 || n > SUN_PATH_LEN || bpf_probe_read_kernel(r->data, n, (void *)name + off))
		return false;
	cut = n < NAME_LEN ? n : NAME_LEN - 1;
	barrier_var(cut);
	if (cut >= NAME_LEN || bpf_probe_read_kernel(key.name, cut, r->data))
		return false;
	r->ev.path_len = n;
	r->ev.h.flags |= FLAG_ABSTRACT;
	bits = bpf_map_lookup_elem(&names, &key);
	r->ev.h.match = bits ? *bits : 0;
	return r->ev.h.match;
}

static __always_inline bool socket_file(struct unix_record *r, struct unix_sock *peer, struct dentry *dentry)
{
	struct inode *inode = BPF_CORE_READ(dentry, d_inode);

	r->ev.h.match = match_name(NAME_SOCKET, BPF_CORE_READ(dentry, d_name.name));
	if (!r->ev.h.match)
		return false;
	r->ev.ino = BPF_CORE_READ(inode, i_ino);
	r->ev.dev = BPF_CORE_READ(inode, i_sb, s_dev);
	write_path_of(r->data, &r->ev.path_len, dentry, BPF_CORE_READ(peer, path.mnt), &r->ev.h.flags);
	return true;
}

static __always_inline bool reach(struct unix_record *r, struct sock *sk)
{
	struct unix_sock *peer = (void *)BPF_CORE_READ((struct unix_sock *)sk, peer);
	struct dentry *dentry;

	if (!peer)
		return false;
	r->ev.ino = 0;
	r->ev.dev = 0;
	r->ev.path_len = 0;
	r->ev.h.flags = 0;
	r->ev.peer_tgid = BPF_CORE_READ(sk, sk_peer_pid, numbers[0].nr);
	dentry = BPF_CORE_READ(peer, path.dentry);
	return dentry ? socket_file(r, peer, dentry) : abstract_name(r, peer);
}

static __always_inline void connected(void *regs, long ret, bool compat, struct task_struct *task, struct config *cfg)
{
	struct counter *c = counter_of(KIND_UNIX);
	u32 zero = 0, match, size;
	struct unix_record *r = bpf_map_lookup_elem(&unix_scratch, &zero);
	struct arguments in;
	struct socket *socket;
	struct file *file;
	struct sock *sk;
	u16 flags;

	if (!c || !r)
		return;
	count(&c->seen);
	if (ret < 0)
		goto filtered;
	read_arguments(&in, regs, compat);
	file = file_at(task, in.a[0]);
	if (!file || BPF_CORE_READ(file, f_inode, i_mode) >> S_IFMT_SHIFT != S_IFSOCK_BITS)
		goto filtered;
	socket = BPF_CORE_READ(file, private_data);
	sk = BPF_CORE_READ(socket, sk);
	if (BPF_CORE_READ(sk, __sk_common.skc_family) != AF_UNIX || !reach(r, sk))
		goto filtered;
	match = r->ev.h.match;
	flags = r->ev.h.flags | (compat ? FLAG_COMPAT : 0);
	if (!describe(&r->ev.h, KIND_UNIX, cfg, task))
		goto filtered;
	r->ev.h.match = match;
	r->ev.h.flags = flags;
	r->ev.result = 0;
	r->ev.sock_type = BPF_CORE_READ(socket, type);
	size = sizeof(r->ev) + r->ev.path_len;
	barrier_var(size); /* the verifier must see the bound on what is sent */
	if (size > sizeof(*r))
		size = sizeof(r->ev);
	send(c, CLASS_CRITICAL, r, size);
	return;
filtered:
	count(&c->filtered);
}

SEC("tp_btf/sys_exit")
int on_rare_call(u64 *ctx)
{
	void *regs = (void *)ctx[0];
	struct config *cfg;
	bool compat;
	u32 call = call_of(number_of(regs), &compat);

	if (!call)
		return 0;
	cfg = the_config();
	if (!cfg)
		return 0;
	if (call == CALL_CONNECT)
		connected(regs, ctx[1], compat, (void *)bpf_get_current_task(), cfg);
	else
		called(call, regs, ctx[1], compat, (void *)bpf_get_current_task(), cfg);
	return 0;
}
