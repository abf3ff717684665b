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
	KIND_CALL = 8,
	KIND_CRED = 9,
	KIND_UNIX = 10,
	KIND_DNS = 11,
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
	FLAG_SECURE = 512,     /* the program runs with more rights than its caller had: set-uid, set-gid, file capabilities */
	FLAG_ABSTRACT = 1024,  /* a unix socket's name that lies in no file system */
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
	u64 cap_effective;
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

/* The rare system calls, as user space numbers them; which number the machine gives them it puts into the table. */
enum call_id {
	CALL_PTRACE = 1,
	CALL_VM_READ = 2,
	CALL_VM_WRITE = 3,
	CALL_SETNS = 4,
	CALL_UNSHARE = 5,
	CALL_MOUNT = 6,
	CALL_MOVE_MOUNT = 7,
	CALL_FSMOUNT = 8,
	CALL_OPEN_TREE = 9,
	CALL_PIVOT_ROOT = 10,
	CALL_CHROOT = 11,
	CALL_INIT_MODULE = 12,
	CALL_FINIT_MODULE = 13,
	CALL_BPF = 14,
	CALL_MEMFD = 15,
	CALL_DUP = 16,
	CALL_DUP_TO = 17,
	CALL_FCNTL = 18,
	CALL_USERFAULTFD = 19,
	CALL_SOCKET = 20,
	CALL_PIDFD_GETFD = 21,
	CALL_CONNECT = 22, /* told of as KIND_UNIX */
	CALL_SETID = 23,   /* told of as KIND_CRED */
	CALL_CAPSET = 24,  /* told of as KIND_CRED */
	CALL_MAX = 32,
};

struct call_event {
	struct header h;
	u64 number;          /* the argument that says what was asked for: a request, a command, or flags */
	u64 target_start_ns; /* of the process that it was done to */
	u64 target_cgroup;
	u32 target_tgid;     /* 0: none, or not found */
	u32 target_vpid;     /* as the caller named it, in its own pid namespace */
	u32 ns_inum;         /* inode of the namespace that was entered */
	u32 ns_type;         /* CLONE_NEW… of it; 0 where the kernel does not tell */
	s32 result;          /* cut to 31 bits; a negative errno */
	s32 fd;              /* the descriptor that it was about, or that it made; -1: none */
	u16 call;
	u16 family;          /* of a socket */
	u16 sock_type;
	u8 fd_type;
	u8 pad;
};

struct cred_event {
	struct header h;
	u64 cap_before; /* effective */
	u64 cap_after;
	u32 uid_before;
	u32 euid_before;
	u16 call;
	u16 pad[3];
};

struct unix_event { /* followed by path_len bytes: components, or the abstract name */
	struct header h;
	u64 ino;
	u32 dev;
	s32 result;
	u32 peer_tgid; /* who listens; 0: not told */
	u16 path_len;
	u16 sock_type;
};

struct dns_event { /* followed by data_len bytes: the message from its first question on */
	struct header h;
	u8 addr[16]; /* of the server */
	u32 size;    /* of the whole message */
	u16 port;
	u16 data_len;
	u16 id;
	u16 questions;
	u8 protocol;
	u8 pad[3];
};

union record {
	struct fork_event fork;
	struct exit_event exit;
	struct exec_event exec;
	struct open_event open;
	struct connect_event connect;
	struct cgroup_event cgroup;
	struct uring_event uring;
	struct call_event call;
	struct cred_event cred;
	struct unix_event unix_connect;
	struct dns_event dns;
};

#endif
