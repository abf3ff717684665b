//go:build ignore

/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* A process reaches out: connect, or a datagram to an address. Seen in the cgroup hooks, so io_uring's are seen too. */
#include "common.h"
#include <bpf/bpf_endian.h>

#define AF_INET 2
#define AF_INET6 10

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 4096);
	__type(key, struct addr_key);
	__type(value, u32);
} addresses SEC(".maps");

struct flow_key {
	u64 cgroup_id;
	u8 addr[16];
	u32 tgid;
	u16 port;
	u16 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct flow_key);
	__type(value, u64);
} flows SEC(".maps");

/* told_lately keeps a stream of datagrams from being a stream of events. */
static __always_inline bool told_lately(struct connect_event *ev, u64 quiet_ns)
{
	struct flow_key key = {};
	u64 *last;

	key.cgroup_id = ev->h.cgroup_id;
	__builtin_memcpy(key.addr, ev->addr, sizeof(key.addr));
	key.tgid = ev->h.tgid;
	key.port = ev->port;
	last = bpf_map_lookup_elem(&flows, &key);
	if (last && ev->h.time_ns - *last < quiet_ns)
		return true;
	bpf_map_update_elem(&flows, &key, &ev->h.time_ns, BPF_ANY);
	return false;
}

static __always_inline void put32(u8 *out, u32 network_order)
{
	__builtin_memcpy(out, &network_order, sizeof(network_order));
}

static __always_inline void set_address(struct connect_event *ev, struct bpf_sock_addr *ctx, u8 family)
{
	ev->family = family;
	ev->protocol = ctx->protocol;
	ev->port = bpf_ntohs((u16)ctx->user_port);
	if (family == AF_INET) {
		ev->addr[10] = ev->addr[11] = 0xff;
		put32(ev->addr + 12, ctx->user_ip4);
		return;
	}
	put32(ev->addr, ctx->user_ip6[0]);
	put32(ev->addr + 4, ctx->user_ip6[1]);
	put32(ev->addr + 8, ctx->user_ip6[2]);
	put32(ev->addr + 12, ctx->user_ip6[3]);
}

static __always_inline void observe(struct bpf_sock_addr *ctx, u8 family, bool datagram)
{
	struct counter *c = counter_of(KIND_CONNECT);
	struct config *cfg = the_config();
	struct connect_event ev = {};
	struct addr_key key;
	u32 *bits;

	if (!c || !cfg)
		return;
	count(&c->seen);
	if (datagram && !(cfg->flags & CONFIG_SENDMSG))
		goto filtered;
	if (!describe(&ev.h, KIND_CONNECT, cfg, (void *)bpf_get_current_task()))
		goto filtered;
	set_address(&ev, ctx, family);
	__builtin_memcpy(key.addr, ev.addr, sizeof(key.addr));
	bits = bpf_map_lookup_elem(&addresses, &key);
	if (bits)
		ev.h.match = *bits;
	if (datagram) {
		ev.h.flags |= FLAG_SENDMSG;
		if (told_lately(&ev, cfg->quiet_ns))
			goto filtered;
	}
	if (bits)
		send(c, CLASS_CRITICAL, &ev, sizeof(ev));
	else
		send_limited(c, cfg, &ev, sizeof(ev));
	return;
filtered:
	count(&c->filtered);
}

SEC("cgroup/connect4")
int on_connect4(struct bpf_sock_addr *ctx)
{
	observe(ctx, AF_INET, false);
	return 1;
}

SEC("cgroup/connect6")
int on_connect6(struct bpf_sock_addr *ctx)
{
	observe(ctx, AF_INET6, false);
	return 1;
}

SEC("cgroup/sendmsg4")
int on_sendmsg4(struct bpf_sock_addr *ctx)
{
	observe(ctx, AF_INET, true);
	return 1;
}

SEC("cgroup/sendmsg6")
int on_sendmsg6(struct bpf_sock_addr *ctx)
{
	observe(ctx, AF_INET6, true);
	return 1;
}
