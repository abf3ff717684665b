//go:build ignore

/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * A DNS query leaves a cgroup: a datagram to port 53, or a segment to it that begins with a whole message. The packet belongs
 * to the cgroup in which its socket was made; the process is the running one where that is of the same cgroup.
 */
#include "common.h"
#include <bpf/bpf_endian.h>

#define DNS_PORT 53
#define DNS_HEAD 12
#define QUESTION_LEN 260 /* a name of 255 bytes, type and class */
#define PROTO_TCP 6
#define PROTO_UDP 17
#define V4_DEST 16
#define V6_DEST 24
#define V6_HEAD 40
#define UDP_HEAD 8
#define TCP_DATA_OFFSET 12

struct dns_record {
	struct dns_event ev;
	u8 data[QUESTION_LEN];
};

struct place {
	u32 l4;
	u8 protocol;
	u8 addr[16];
};

static __always_inline bool find_transport(struct __sk_buff *skb, struct place *at)
{
	u8 first;

	if (bpf_skb_load_bytes(skb, 0, &first, 1))
		return false;
	if (first >> 4 == 4) {
		at->l4 = (first & 15) * 4;
		at->addr[10] = at->addr[11] = 0xff;
		return !bpf_skb_load_bytes(skb, 9, &at->protocol, 1) && !bpf_skb_load_bytes(skb, V4_DEST, at->addr + 12, 4);
	}
	at->l4 = V6_HEAD; /* extension headers are not followed */
	return !bpf_skb_load_bytes(skb, 6, &at->protocol, 1) && !bpf_skb_load_bytes(skb, V6_DEST, at->addr, 16);
}

/* find_message returns where the message begins, or 0. */
static __always_inline u32 find_message(struct __sk_buff *skb, struct place *at)
{
	u16 port;
	u8 words;

	if (at->protocol != PROTO_UDP && at->protocol != PROTO_TCP)
		return 0;
	if (bpf_skb_load_bytes(skb, at->l4 + 2, &port, 2) || bpf_ntohs(port) != DNS_PORT)
		return 0;
	if (at->protocol == PROTO_UDP)
		return at->l4 + UDP_HEAD;
	if (bpf_skb_load_bytes(skb, at->l4 + TCP_DATA_OFFSET, &words, 1))
		return 0;
	return at->l4 + (words >> 4) * 4 + 2; /* the message's length comes first */
}

static __always_inline bool describe_sender(struct dns_event *ev, u64 cgroup_id, struct config *cfg)
{
	struct task_struct *task = (void *)bpf_get_current_task();

	if (cgroup_of(task) == cgroup_id)
		return describe(&ev->h, KIND_DNS, cfg, task);
	__builtin_memset(&ev->h, 0, sizeof(ev->h));
	ev->h.kind = KIND_DNS;
	ev->h.time_ns = bpf_ktime_get_boot_ns();
	ev->h.cgroup_id = cgroup_id;
	return is_watched(cfg, cgroup_id, &ev->h.policy);
}

/* tell keeps the record on the stack: another task may take the CPU meanwhile and send a query too. */
static __always_inline bool tell(struct __sk_buff *skb, struct counter *c, struct config *cfg, u64 cgroup_id, struct place *at, u32 at_message)
{
	struct dns_record r = {};
	u16 head[3];
	u32 len;

	if (bpf_skb_load_bytes(skb, at_message, head, sizeof(head)))
		return false;
	r.ev.questions = bpf_ntohs(head[2]);
	if ((bpf_ntohs(head[1]) & 0x8000) || !r.ev.questions || !describe_sender(&r.ev, cgroup_id, cfg))
		return false;
	r.ev.id = bpf_ntohs(head[0]);
	r.ev.port = DNS_PORT;
	r.ev.protocol = at->protocol;
	__builtin_memcpy(r.ev.addr, at->addr, sizeof(r.ev.addr));
	r.ev.size = skb->len - at_message;
	if (r.ev.size <= DNS_HEAD)
		return false;
	len = r.ev.size - DNS_HEAD;
	if (len > QUESTION_LEN)
		len = QUESTION_LEN;
	barrier_var(len);
	if (len == 0 || len > QUESTION_LEN || bpf_skb_load_bytes(skb, at_message + DNS_HEAD, r.data, len))
		return false;
	r.ev.data_len = len;
	send_limited(c, cfg, &r, sizeof(r.ev) + len);
	return true;
}

static __always_inline void query(struct __sk_buff *skb)
{
	u64 cgroup_id = bpf_skb_cgroup_id(skb);
	struct config *cfg = the_config();
	struct place at = {};
	struct counter *c;
	u32 at_message, policy;

	if (!cfg || !is_watched(cfg, cgroup_id, &policy) || !find_transport(skb, &at))
		return;
	at_message = find_message(skb, &at);
	if (!at_message || at_message + DNS_HEAD > skb->len)
		return; /* an empty segment, say */
	c = counter_of(KIND_DNS);
	if (!c)
		return;
	count(&c->seen);
	if (!tell(skb, c, cfg, cgroup_id, &at, at_message))
		count(&c->filtered);
}

SEC("cgroup_skb/egress")
int on_egress(struct __sk_buff *skb)
{
	query(skb);
	return 1;
}
