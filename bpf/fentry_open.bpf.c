//go:build ignore

/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * A watched file is opened, seen at the end of the function that asks the security modules: as the lsm tier sees it, on
 * kernels where bpf is not among the modules; and what they refused is known to be refused.
 */
#include "common.h"
#include "path.h"
#include "open.h"

SEC("fexit/security_file_open")
int on_file_open_checked(u64 *ctx)
{
	tell_checked((void *)ctx[0], ctx[1]);
	return 0;
}
