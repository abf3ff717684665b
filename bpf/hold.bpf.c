//go:build ignore

/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Cuts a cgroup, and all below it, from the network until a moment that stands in the map. Every packet and every
 * connect compares that moment with the kernel's own clock, so a hold ends with nobody alive to end it.
 *
 * A packet belongs to the cgroup in which its socket was made. Not cut: packet sockets (AF_PACKET), and what the kernel
 * itself answers without a socket of the cgroup (ICMP echo, resets).
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define MAX_LEVEL 16

enum { HOLD_EGRESS = 1, HOLD_INGRESS = 2, HOLD_CONNECT = 4 };

struct hold {
	u64 until_ns; /* CLOCK_BOOTTIME */
	u32 bits;
	u32 pad;
};

struct hold_drops {
	u64 egress_packets;
	u64 egress_bytes;
	u64 ingress_packets;
	u64 ingress_bytes;
	u64 connects;
	u64 last_ns; /* CLOCK_BOOTTIME */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, u64);
	__type(value, struct hold);
} holds SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, u64);
	__type(value, struct hold_drops);
} hold_drops SEC(".maps");

/* No hold ends later than this: in peace a packet costs one look. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u64);
} hold_latest SEC(".maps");

static __always_inline bool peace(u64 now)
{
	u32 zero = 0;
	u64 *latest = bpf_map_lookup_elem(&hold_latest, &zero);

	return !latest || now >= *latest;
}

static __always_inline bool held(u64 id, u32 bit, u64 now)
{
	struct hold *h = bpf_map_lookup_elem(&holds, &id);

	return h && (h->bits & bit) && now < h->until_ns;
}

static __always_inline void note_packet(u64 id, u32 bit, u32 len, u64 now)
{
	struct hold_drops *d = bpf_map_lookup_elem(&hold_drops, &id);

	if (!d)
		return;
	if (bit == HOLD_EGRESS) {
		__sync_fetch_and_add(&d->egress_packets, 1);
		__sync_fetch_and_add(&d->egress_bytes, len);
	} else {
		__sync_fetch_and_add(&d->ingress_packets, 1);
		__sync_fetch_and_add(&d->ingress_bytes, len);
	}
	d->last_ns = now;
}

static __always_inline int packet(struct __sk_buff *skb, u32 bit)
{
	u64 now = bpf_ktime_get_boot_ns();

	if (peace(now))
		return 1;
	for (int level = 0; level < MAX_LEVEL; level++) {
		u64 id = bpf_skb_ancestor_cgroup_id(skb, level);

		if (!id)
			return 1;
		if (held(id, bit, now)) {
			note_packet(id, bit, skb->len, now);
			return 0;
		}
	}
	return 1;
}

static __always_inline int address(void)
{
	u64 now = bpf_ktime_get_boot_ns();
	struct hold_drops *d;

	if (peace(now))
		return 1;
	for (int level = 0; level < MAX_LEVEL; level++) {
		u64 id = bpf_get_current_ancestor_cgroup_id(level);

		if (!id)
			return 1;
		if (!held(id, HOLD_CONNECT, now))
			continue;
		d = bpf_map_lookup_elem(&hold_drops, &id);
		if (d) {
			__sync_fetch_and_add(&d->connects, 1);
			d->last_ns = now;
		}
		return 0;
	}
	return 1;
}

SEC("cgroup_skb/egress")
int hold_egress(struct __sk_buff *skb)
{
	return packet(skb, HOLD_EGRESS);
}

SEC("cgroup_skb/ingress")
int hold_ingress(struct __sk_buff *skb)
{
	return packet(skb, HOLD_INGRESS);
}

SEC("cgroup/connect4")
int hold_connect4(struct bpf_sock_addr *ctx)
{
	return address();
}

SEC("cgroup/connect6")
int hold_connect6(struct bpf_sock_addr *ctx)
{
	return address();
}

SEC("cgroup/sendmsg4")
int hold_sendmsg4(struct bpf_sock_addr *ctx)
{
	return address();
}

SEC("cgroup/sendmsg6")
int hold_sendmsg6(struct bpf_sock_addr *ctx)
{
	return address();
}
