package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"tourniquet.dev/tourniquet/deploy/kubernetes"
	"tourniquet.dev/tourniquet/dev/aws"
	"tourniquet.dev/tourniquet/dev/stack"
	"tourniquet.dev/tourniquet/dev/workload"
)

// A snapshot is what stands in every system, read with an administrator's rights and the stand-in's own word, by what it
// is of.
type snapshot map[string]string

func (d *demo) snapshot(ctx context.Context) (snapshot, error) {
	out := snapshot{}
	put := func(name string, v any) {
		text, err := json.Marshal(v)
		if err != nil {
			text = []byte(err.Error())
		}
		out[name] = string(text)
	}
	pod, err := d.shop.api.CoreV1().Pods(namespace).Get(ctx, podName, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	put("labels of the pod", pod.Labels)
	put("annotations of the pod", withoutLifts(pod.Annotations))
	policies, err := d.shop.api.NetworkingV1().NetworkPolicies(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	put("number of network policies", len(policies.Items))
	binding, err := d.shop.api.RbacV1().RoleBindings(namespace).Get(ctx, account, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	put("subjects of the role binding", binding.Subjects)
	put("annotations of the role binding", binding.Annotations)
	blocked, err := d.shop.api.CoreV1().ConfigMaps(kubernetes.Namespace).Get(ctx, "tourniquet-blocked-pods", metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	put("list of blocked pods", blocked.Data)
	put("annotations of the list of blocked pods", blocked.Annotations)
	account, err := d.stack.AWSState(ctx)
	if err != nil {
		return nil, err
	}
	user, role := account.Entities["user/"+awsUser], account.Entities["role/"+awsRole]
	put("access keys of the IAM user", user.Keys)
	put("policies attached to the IAM user", orNone(user.Attached))
	put("policies attached to the IAM role", orNone(role.Attached))
	return out, nil
}

// withoutLifts leaves out signed orders that lift a cut: they stay on the pod until it goes, so that the node can see them.
// An order that still cuts is none of those.
func withoutLifts(all map[string]string) map[string]string {
	out := maps.Clone(all)
	maps.DeleteFunc(out, func(name, value string) bool {
		var envelope struct {
			Payload []byte `json:"payload"`
		}
		var order struct {
			Lift bool `json:"lift"`
		}
		return strings.HasPrefix(name, "tourniquet.dev/order.") && json.Unmarshal([]byte(value), &envelope) == nil &&
			json.Unmarshal(envelope.Payload, &order) == nil && order.Lift
	})
	return out
}

func orNone(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

// checkHeld looks at every system while the cuts are on.
func (d *demo) checkHeld(ctx context.Context) {
	account, err := d.stack.AWSState(ctx)
	if err != nil {
		d.fail("ask the AWS stand-in: %v", err)
		return
	}
	user, role := account.Entities["user/"+awsUser], account.Entities["role/"+awsRole]
	d.expect(user.Keys[d.shop.keyID] == "Inactive", "AWS stand-in: key %s is %s", d.shop.keyID, user.Keys[d.shop.keyID])
	d.expect(slices.Contains(user.Attached, stack.QuarantinePolicy), "AWS stand-in: the deny is attached to user %s: %v", awsUser, user.Attached)
	d.expect(slices.Contains(role.Attached, stack.QuarantinePolicy), "AWS stand-in: the deny is attached to role %s: %v", awsRole, role.Attached)
	d.checkCluster(ctx)
	if d.machine.whole() {
		d.checkWireCut(ctx)
	}
	d.checkAttacker(ctx)
	d.checkRecords(ctx)
}

// checkRecords reads the AWS stand-in's own record of calls: the last ones with the stolen key, and with the session that
// was minted with it, are refused.
func (d *demo) checkRecords(ctx context.Context) {
	records, err := d.stack.AWSRecords(ctx)
	if err != nil {
		d.fail("ask the AWS stand-in: %v", err)
		return
	}
	names, last := map[string]string{d.shop.keyID: "the stolen key"}, map[string]aws.Record{}
	for _, r := range records {
		if r.AccessKeyID == d.shop.keyID && r.Minted != "" {
			names[r.Minted] = "the session minted with it"
		}
		if names[r.AccessKeyID] != "" && r.Action != "GetCallerIdentity" {
			last[r.AccessKeyID] = r
		}
	}
	d.expect(len(names) == 2, "AWS stand-in: its records name %d of the attacker's credentials", len(names))
	for _, id := range slices.Sorted(maps.Keys(last)) {
		d.expect(last[id].Code != "", "AWS stand-in: its last record of %s (%s): %s %d %s", names[id], id, last[id].Action, last[id].Status, last[id].Code)
	}
}

func (d *demo) checkCluster(ctx context.Context) {
	pod, err := d.shop.api.CoreV1().Pods(namespace).Get(ctx, podName, metav1.GetOptions{})
	if err != nil {
		d.fail("read the pod: %v", err)
		return
	}
	_, bound := pod.Labels["app"]
	d.expect(!bound, "API server: the pod's labels are %v", pod.Labels)
	policies, err := d.shop.api.NetworkingV1().NetworkPolicies(namespace).List(ctx, metav1.ListOptions{})
	d.expect(err == nil && len(policies.Items) == 1, "API server: one network policy denies everything to the pod%s", because(err))
	binding, err := d.shop.api.RbacV1().RoleBindings(namespace).Get(ctx, account, metav1.GetOptions{})
	d.expect(err == nil && len(binding.Subjects) == 0, "API server: the service account stands in its role binding no more%s", because(err))
	blocked, err := d.shop.api.CoreV1().ConfigMaps(kubernetes.Namespace).Get(ctx, "tourniquet-blocked-pods", metav1.GetOptions{})
	d.expect(err == nil && strings.Contains(blocked.Data["pods"], string(d.shop.podUID)), "API server: the pod's UID is in the list of blocked writers%s", because(err))
}

func because(err error) string {
	if err == nil {
		return ""
	}
	return ": " + err.Error()
}

// flowing is how many messages the peer must have got for the connection to count as open.
const flowing = 100

// awaitFlow waits until data flows from the pod to the peer.
func (d *demo) awaitFlow(ctx context.Context) error {
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		wire, err := d.outside.Wire(ctx)
		if err != nil || (wire["stream"].Count >= flowing && wire["beacon"].Count >= flowing) {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the pod's data does not reach the peer: %+v", wire)
		}
	}
}

// checkWireCut asks the peer: since the cut it must have got nothing, of the long connection and of the datagrams.
func (d *demo) checkWireCut(ctx context.Context) {
	wire, err := d.outside.Wire(ctx)
	if err != nil {
		d.fail("ask the peer: %v", err)
		return
	}
	for _, name := range []string{"stream", "beacon"} {
		a := wire[name]
		quiet := time.Since(a.Last)
		d.expect(a.Count >= flowing && quiet > 2*time.Second, "wire: %s: %d messages, the last one %.3f s after the attack, none since (%.1f s)", name, a.Count,
			a.Last.Sub(d.show.begin).Seconds(), quiet.Seconds())
	}
}

// denials are the attacker's calls whose effect must have stopped. GetCallerIdentity is none: AWS always answers it.
var denials = []struct{ who, call string }{{"key", "ListBuckets"}, {"session", "ListBuckets"}, {"token", "read secrets"}, {"token", "write"}}

// checkAttacker reads the attacker's own log: each kind of call went through before, and each of the last ones did not. The
// block of writes is on so soon that the attacker may never have written anything.
func (d *demo) checkAttacker(ctx context.Context) {
	const last = 3
	deadline := time.Now().Add(15 * time.Second)
	for _, kind := range denials {
		for {
			calls := d.calls(kind.who, kind.call)
			through := slices.IndexFunc(calls, func(c workload.Call) bool { return c.OK }) >= 0 || kind.call == "write"
			denied := len(calls) >= last && !slices.ContainsFunc(calls[max(0, len(calls)-last):], func(c workload.Call) bool { return c.OK })
			if (through && denied) || time.Now().After(deadline) || ctx.Err() != nil {
				d.expect(through && denied, "attacker: %s: %s", kind.who, story(calls, d.show.begin))
				break
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
}

// story tells what became of the attacker's calls of one kind.
func story(calls []workload.Call, begin time.Time) string {
	ok, lastOK, first := 0, time.Time{}, workload.Call{}
	for _, c := range calls {
		if c.OK {
			ok, lastOK, first = ok+1, c.At, workload.Call{}
		} else if first.At.IsZero() {
			first = c
		}
	}
	if len(calls) == 0 {
		return "made no call"
	}
	text := fmt.Sprintf("%s: %d calls went through", calls[0].Call, ok)
	if ok > 0 {
		text += fmt.Sprintf(", the last one %.2f s after the attack", lastOK.Sub(begin).Seconds())
	}
	if !first.At.IsZero() {
		text += fmt.Sprintf("; then %d denied: %.90s", len(calls)-ok, first.Code)
	}
	return text
}

func (d *demo) calls(who, call string) []workload.Call {
	f, err := os.Open(d.outside.Calls())
	if err != nil {
		return nil
	}
	defer f.Close() // read only
	var out []workload.Call
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var c workload.Call
		if json.Unmarshal(lines.Bytes(), &c) == nil && c.Who == who && c.Call == call {
			out = append(out, c)
		}
	}
	return out
}

// checkReleased compares everything with what stood before the attack.
func (d *demo) checkReleased(ctx context.Context, before snapshot) {
	after, err := d.snapshot(ctx)
	if err != nil {
		d.fail("look at what stands now: %v", err)
		return
	}
	for _, name := range slices.Sorted(maps.Keys(before)) {
		if before[name] == after[name] {
			d.pass("as before: %s", name)
		} else {
			d.fail("%s: was %s, is %s", name, before[name], after[name])
		}
	}
	if d.machine.whole() {
		d.checkWireBack(ctx)
	}
}

// checkWireBack waits for packets to flow again.
func (d *demo) checkWireBack(ctx context.Context) {
	// TCP probes a cut connection ever more seldom: it may wait as long again as it was cut.
	deadline := time.Now().Add(time.Since(d.show.begin) + 10*time.Second)
	for _, name := range []string{"beacon", "stream"} {
		for {
			wire, err := d.outside.Wire(ctx)
			a := wire[name]
			flows := err == nil && time.Since(a.Last) < time.Second
			if flows || time.Now().After(deadline) || ctx.Err() != nil {
				d.expect(flows, "wire: %s flows again: %s", name, silences(a, d.show.begin))
				break
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
}

func silences(a workload.Arrivals, begin time.Time) string {
	var all []string
	for _, g := range a.Gaps {
		all = append(all, fmt.Sprintf("silent from %.3f s to %.3f s", g.From.Sub(begin).Seconds(), g.To.Sub(begin).Seconds()))
	}
	return strings.Join(all, ", ")
}
