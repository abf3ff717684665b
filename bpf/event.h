/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * The records that go up to user space. bpf/event.go mirrors them; layout_test.go compares the two through the BTF of
 * the objects. No implicit padding: every byte of a record is written, so that nothing of the kernel's memory leaks.
 */
#ifndef TOURNIQUET_EVENT_H
#define TOURNIQUET_EVENT_H

enum kind {
	KIND_EXEC = 1,
	KIND_FORK = 2,
	KIND_EXIT = 3,
	KIND_OPEN = 4,
	KIND_CONNECT = 5,
	KIND_CGROUP = 6,
	KIND_URING = 7,
	KIND_MAX = 16,
};

enum class {
	CLASS_CRITICAL = 0,
	CLASS_TELEMETRY = 1,
};

/* header.flags */
enum {
	FLAG_UPPER = 1,        /* the file lies in an overlay's upper layer: it did not come with the image */
	FLAG_UNLINKED = 2,     /* the file has no name any more: deleted, or a memfd */
	FLAG_PATH_CUT = 4,     /* the path has more components, or a longer one, than a record holds */
	FLAG_ARGS_CUT = 8,     /* the arguments are longer than asked for */
	FLAG_UNRESOLVED = 16,  /* the path is the caller's own string: a hint, not a fact */
	FLAG_SENDMSG = 32,     /* a datagram to an address, not a connect */
	FLAG_ARGS_LOST = 64,   /* the arguments could not be read */
	FLAG_DETACHED = 128,   /* the walk ended below the root of a mount that hangs nowhere */
	FLAG_COMPAT = 256,     /* a 32-bit system call on a 64-bit kernel */
};

#define COMM_LEN 16

struct header {
	u64 time_ns;   /* CLOCK_BOOTTIME */
	u64 start_ns;  /* when the process (its first thread) began, CLOCK_BOOTTIME */
	u64 cgroup_id; /* in the v2 hierarchy */
	u32 tgid;      /* ids as the first pid namespace sees them */
	u32 tid;
	u32 ppid;
	u32 uid;
	u32 policy;    /* of the cgroup, as user space gave it; 0 without one */
	u32 match;     /* bits of what was matched by name, inode or address, as user space gave them */
	u32 euid;
	u16 kind;
	u16 flags;
	u8 comm[COMM_LEN];
};

struct fork_event { /* its header describes the child */
	struct header h;
	u64 parent_start_ns;
};

struct exit_event {
	struct header h;
	u32 code; /* as wait(2) gives it */
	u32 pad;
};

/* Type of a file descriptor: the S_IFMT bits of its mode, shifted down by 12, or 0 when closed; and two hints. */
enum { FD_PTY = 0x10, FD_INET = 0x20 };

struct exec_event { /* followed by path_len + file_len + args_len bytes */
	struct header h;
	u64 parent_start_ns;
	u64 ino;
	u32 dev; /* the kernel's own form: major << 20 | minor */
	u32 nlink;
	u32 argc;
	u16 path_len; /* components of the resolved path, the last one first, each ended by a NUL */
	u16 file_len; /* as the caller named it, ended by a NUL */
	u16 args_len; /* each ended by a NUL, the last one perhaps not when cut */
	u8 fd[3];
	u8 pad[3];
};

struct open_event { /* followed by path_len bytes */
	struct header h;
	u64 ino;
	u32 dev;
	u32 nlink;
	u32 open_flags;
	s32 result; /* file descriptor, or a negative errno */
	u16 path_len;
	u16 mode;
	u32 pad;
};

struct connect_event {
	struct header h;
	u8 addr[16]; /* v4 as ::ffff:a.b.c.d */
	u16 port;
	u8 family;   /* of the socket: AF_INET or AF_INET6 */
	u8 protocol; /* IPPROTO_TCP, IPPROTO_UDP, … */
	u32 pad;
};

enum { CGROUP_MADE = 1, CGROUP_REMOVED = 2 };

struct cgroup_event { /* followed by path_len bytes, ended by a NUL */
	struct header h;
	u64 id;
	u32 level;
	u16 op;
	u16 path_len;
};

struct uring_event {
	struct header h;
	s32 fd;
	u32 entries;
};

union record {
	struct fork_event fork;
	struct exit_event exit;
	struct exec_event exec;
	struct open_event open;
	struct connect_event connect;
	struct cgroup_event cgroup;
	struct uring_event uring;
};

#endif
