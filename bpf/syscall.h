/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* What programs on the system call tracepoints share: which call it is, and its arguments, on either machine. */
#ifndef TOURNIQUET_SYSCALL_H
#define TOURNIQUET_SYSCALL_H

#define TS_COMPAT 2               /* x86: thread_info.status */
#define ARM64_TIF_32BIT (1 << 22) /* arm64: thread_info.flags */
#define TABLE_LEN 512

struct call_row {
	u8 native;
	u8 compat;
};

struct call_table {
	struct call_row rows[TABLE_LEN];
};

/* Filled by user space with the calls that something asks for: the rest ends at one look. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct call_table);
} call_table SEC(".maps");

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

/* call_of looks a number up. Read straight from the tracepoint's argument: every system call of the node passes here. */
static __always_inline u32 call_of(long nr, bool *compat)
{
	u32 zero = 0;
	struct call_table *table = bpf_map_lookup_elem(&call_table, &zero);
	struct call_row *row;

	*compat = false;
	if (!table || (u64)nr >= TABLE_LEN)
		return 0;
	row = &table->rows[nr];
	if (!row->native && !row->compat)
		return 0;
	*compat = is_compat((void *)bpf_get_current_task());
	return *compat ? row->compat : row->native;
}

static __always_inline long number_of(void *regs)
{
	if (on_x86())
		return ((struct pt_regs___x86 *)regs)->orig_ax;
	return ((struct pt_regs___arm64 *)regs)->syscallno;
}

struct arguments {
	u64 a[4];
};

static __always_inline void read_arguments(struct arguments *out, void *regs, bool compat)
{
	struct pt_regs___x86 *x86 = regs;
	struct pt_regs___arm64 *arm = regs;

	if (!on_x86()) {
		out->a[0] = BPF_CORE_READ(arm, orig_x0); /* x0 has the result by now */
		out->a[1] = BPF_CORE_READ(arm, regs[1]);
		out->a[2] = BPF_CORE_READ(arm, regs[2]);
		out->a[3] = BPF_CORE_READ(arm, regs[3]);
	} else if (compat) {
		out->a[0] = (u32)BPF_CORE_READ(x86, bx);
		out->a[1] = (u32)BPF_CORE_READ(x86, cx);
		out->a[2] = (u32)BPF_CORE_READ(x86, dx);
		out->a[3] = (u32)BPF_CORE_READ(x86, si);
	} else {
		out->a[0] = BPF_CORE_READ(x86, di);
		out->a[1] = BPF_CORE_READ(x86, si);
		out->a[2] = BPF_CORE_READ(x86, dx);
		out->a[3] = BPF_CORE_READ(x86, r10);
	}
}

#endif
