//go:build ignore

/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * A watched file is opened, as the security modules are asked about it: by any system call and by io_uring, before a
 * byte of it can be read. What another module refused before is not seen. Nor is a file opened with O_PATH, which gives
 * no access to what is in it.
 */
#include "common.h"
#include "path.h"
#include "open.h"

SEC("lsm/file_open")
int on_lsm_file_open(u64 *ctx)
{
	tell_checked((void *)ctx[0], 0);
	return 0;
}
