package node_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/authz/authztest"
	"tourniquet.dev/tourniquet/internal/plan"
	"tourniquet.dev/tourniquet/internal/trust"
	"tourniquet.dev/tourniquet/sensor/hold"
	"tourniquet.dev/tourniquet/sensor/node"
	"tourniquet.dev/tourniquet/sensor/probe"
)

// kernel is a table of holds that obeys the bubble's clock.
type kernel struct {
	mu   sync.Mutex
	boot func() time.Duration
	held map[uint64]hold.Held
	fail error
	did  []string
}

func (k *kernel) Put(h hold.Hold) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.fail != nil {
		return k.fail
	}
	k.did = append(k.did, fmt.Sprintf("put %d for %s", h.Cgroup, (h.Until-k.boot()).Round(time.Second)))
	k.held[h.Cgroup] = hold.Held{Hold: h, Drops: k.held[h.Cgroup].Drops}
	return nil
}

func (k *kernel) Lift(id uint64) (hold.Held, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	h, ok := k.held[id]
	if !ok {
		return h, hold.ErrNotHeld
	}
	k.did = append(k.did, fmt.Sprintf("lift %d", id))
	delete(k.held, id)
	return h, nil
}

func (k *kernel) Get(id uint64) (hold.Held, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	h, ok := k.held[id]
	if !ok {
		return h, hold.ErrNotHeld
	}
	h.Expired = h.Until <= k.boot()
	return h, nil
}

func (k *kernel) Expire() ([]hold.Held, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for id, h := range k.held {
		if h.Until <= k.boot() {
			delete(k.held, id)
		}
	}
	return nil, nil
}

func (k *kernel) drop(id uint64, packets uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	h := k.held[id]
	h.Drops.EgressPackets += packets
	k.held[id] = h
}

func (k *kernel) deeds() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]string(nil), k.did...)
}

// post is a node that runs in the bubble, with a pod on which orders can be put.
type post struct {
	*rig
	kernel *kernel
	node   *node.Node
	state  string
	stop   func() error
}

func newPost(t *testing.T, state string, k *kernel, changes ...func(*node.Options)) *post {
	t.Helper()
	p := &post{rig: newRig(time.Now()), kernel: k, state: state}
	began := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC) // of every bubble
	boot := func() time.Duration { return time.Hour + time.Since(began) }
	if k == nil {
		p.kernel = &kernel{held: map[uint64]hold.Held{}}
	}
	p.kernel.boot = boot
	p.source.stay, p.source.events = true, container()
	p.source.more = make(chan probe.Event)
	o := p.options(t)
	o.Holds, o.State, o.Now, o.Boot, o.BootID = p.kernel, state, time.Now, boot, "this boot"
	for _, change := range changes {
		change(&o)
	}
	var err error
	if p.node, err = node.New(o); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.node.Run(ctx) }()
	p.stop = func() error { cancel(); return <-ended }
	synctest.Wait()
	return p
}

// order is valid for a minute from now.
func (p *post) order(change func(*authz.Order)) string {
	now := time.Now().UTC().Truncate(time.Millisecond)
	digest := plan.DigestOf([]byte("plan"))
	o := authz.Order{V: 1, Key: plan.Key("i", digest, 0, 0), IncidentID: "iabcdefghijkl", PlanDigest: digest, Action: plan.NodeCutNetwork,
		Cluster: authztest.Cluster, Namespace: authztest.Namespace, Pod: "cart-7", PodUID: authztest.PodUID, IssuedAt: now, Until: now.Add(time.Minute)}
	if change != nil {
		change(&o)
	}
	return encode(p.world.Signers[trust.RoleContainKubernetes], o)
}

func encode(s *authz.Signer, o authz.Order) string {
	e, err := s.Sign(authz.TypeOrder, o)
	if err != nil {
		panic(err)
	}
	b, err := e.Encode()
	if err != nil {
		panic(err)
	}
	return string(b)
}

// carry has the informer tell of the pod with these orders.
func (p *post) carry(orders ...string) {
	pod := cart
	pod.Annotations = map[string]string{"tourniquet.dev/note": "x"}
	for i, o := range orders {
		pod.Annotations[fmt.Sprintf("%s%d", node.OrderPrefix, i)] = o
	}
	p.node.PodChanged(pod)
	synctest.Wait()
}

func (p *post) receipts(t *testing.T) []plan.Receipt {
	t.Helper()
	var out []plan.Receipt
	for _, e := range p.spool.envelopes() {
		r, err := authz.OpenReceipt(p.world.TrustFile, e)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, r)
	}
	return out
}

func phases(all []plan.Receipt) []string {
	var out []string
	for _, r := range all {
		out = append(out, string(r.Phase)+" by "+r.Authority)
	}
	return out
}

func lift(o *authz.Order) { o.Lift = true }

func TestOrderIsObeyedAndToldOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPost(t, t.TempDir(), nil)
		order := p.order(nil)
		p.carry(order)
		p.carry(order) // the informer tells of it again
		p.carry()      // and the annotation is deleted: that lifts nothing
		time.Sleep(10 * time.Second)
		p.kernel.drop(podCgroup, 7)
		time.Sleep(10 * time.Second)
		p.kernel.drop(podCgroup, 2)
		time.Sleep(time.Hour)
		if err := p.stop(); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"put 70 for 1m0s"}, p.kernel.deeds()); diff != "" {
			t.Error(diff)
		}
		all := p.receipts(t)
		if diff := cmp.Diff([]string{"applied by order", "applied by order", "undone by expiry"}, phases(all)); diff != "" {
			t.Fatal(diff)
		}
		var dropped, inForce []string
		for _, r := range all {
			dropped, inForce = append(dropped, r.Detail["dropped"]), append(inForce, r.Detail["in_force"])
		}
		if diff := cmp.Diff([][]string{{"0", "7", "9"}, {"1 of 1", "1 of 1", "0 of 1"}}, [][]string{dropped, inForce}); diff != "" {
			t.Error(diff)
		}
		r := all[0]
		if r.By != "node/"+authztest.NodeName || r.Key != plan.Key("i", r.PlanDigest, 0, 0) || r.Action != plan.NodeCutNetwork ||
			r.Effects[0].Target != p.world.Pod() || r.Effects[0].Object != "cgroup 70" || r.Witnesses[0] != plan.DigestOf([]byte(order)) {
			t.Errorf("%+v", r)
		}
		if len(p.kernel.held) != 0 {
			t.Error("the hold that is over was not removed")
		}
	})
}

func TestLiftEndsTheHoldForGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPost(t, t.TempDir(), nil)
		order := p.order(nil)
		p.carry(order)
		time.Sleep(time.Second)
		off := p.order(lift)
		p.carry(order, off)
		p.carry(order, off)
		p.carry(order) // replayed without the lift
		time.Sleep(time.Minute)
		if err := p.stop(); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"put 70 for 1m0s", "lift 70"}, p.kernel.deeds()); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]string{"applied by order", "undone by order"}, phases(p.receipts(t))); diff != "" {
			t.Error(diff)
		}
	})
}

func TestLastOrderOfTwoLiftsThePod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPost(t, t.TempDir(), nil)
		second := func(o *authz.Order) { o.Key = "second"; o.Until = o.IssuedAt.Add(2 * time.Minute) }
		a, b := p.order(nil), p.order(second)
		p.carry(a)
		p.carry(a, b)
		time.Sleep(30 * time.Second)
		offB := p.order(func(o *authz.Order) { second(o); o.Lift = true })
		p.carry(a, b, offB)
		offA := p.order(lift)
		p.carry(a, b, offB, offA)
		if err := p.stop(); err != nil {
			t.Fatal(err)
		}
		want := []string{"put 70 for 1m0s", "put 70 for 2m0s", "put 70 for 30s", "lift 70"}
		if diff := cmp.Diff(want, p.kernel.deeds()); diff != "" {
			t.Error(diff)
		}
	})
}

func TestNewerOrderMovesTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPost(t, t.TempDir(), nil)
		old := p.order(nil)
		p.carry(old)
		time.Sleep(30 * time.Second)
		longer := p.order(func(o *authz.Order) { o.Until = o.IssuedAt.Add(10 * time.Minute) })
		p.carry(longer)
		p.carry(old) // replayed: moves nothing back
		time.Sleep(time.Second)
		if err := p.stop(); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"put 70 for 1m0s", "put 70 for 10m0s"}, p.kernel.deeds()); diff != "" {
			t.Error(diff)
		}
	})
}

func TestOrderWithoutAuthorityDoesNothing(t *testing.T) {
	for name, change := range map[string]func(*post) string{
		"signed by decide":      func(p *post) string { return reSign(p, trust.RoleDecide) },
		"signed by contain-aws": func(p *post) string { return reSign(p, trust.RoleContainAWS) },
		"for another pod":       func(p *post) string { return p.order(func(o *authz.Order) { o.PodUID = "x" }) },
		"for another cluster":   func(p *post) string { return p.order(func(o *authz.Order) { o.Cluster = "west" }) },
		"for another namespace": func(p *post) string { return p.order(func(o *authz.Order) { o.Namespace = "payments" }) },
		"for another action":    func(p *post) string { return p.order(func(o *authz.Order) { o.Action = plan.KubernetesIsolatePod }) },
		"already over": func(p *post) string {
			return p.order(func(o *authz.Order) { o.IssuedAt = o.IssuedAt.Add(-time.Hour); o.Until = o.IssuedAt.Add(time.Minute) })
		},
		"issued in the future": func(p *post) string {
			return p.order(func(o *authz.Order) {
				o.IssuedAt = o.IssuedAt.Add(5 * time.Minute)
				o.Until = o.IssuedAt.Add(time.Minute)
			})
		},
		"longer than the ceiling": func(p *post) string {
			return p.order(func(o *authz.Order) { o.Until = o.IssuedAt.Add(200 * time.Hour) })
		},
		"one letter changed": func(p *post) string {
			b := []byte(p.order(nil))
			b[60] ^= 1
			return string(b)
		},
		"not an envelope": func(*post) string { return "cut it" },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPost(t, t.TempDir(), nil)
				value := change(p)
				p.carry(value)
				p.carry(value)
				time.Sleep(time.Minute)
				if err := p.stop(); err != nil {
					t.Fatal(err)
				}
				if len(p.kernel.deeds()) != 0 || len(p.spool.envelopes()) != 0 {
					t.Errorf("did %v", p.kernel.deeds())
				}
				if s := p.node.Stats(); s.Refused != 1 || s.Orders != 0 {
					t.Errorf("%+v", s)
				}
			})
		})
	}
}

func reSign(p *post, role trust.Role) string {
	e, err := authz.DecodeEnvelope([]byte(p.order(nil)))
	if err != nil {
		panic(err)
	}
	raw, err := e.Raw()
	if err != nil {
		panic(err)
	}
	var o authz.Order
	if err := json.Unmarshal(raw, &o); err != nil {
		panic(err)
	}
	return encode(p.world.Signers[role], o)
}

func TestOrderThatCannotBeObeyedIsToldOfAndTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPost(t, t.TempDir(), nil)
		p.kernel.fail = errors.New("no such device")
		p.carry(p.order(nil))
		time.Sleep(15 * time.Second)
		p.kernel.mu.Lock()
		p.kernel.fail = nil
		p.kernel.mu.Unlock()
		time.Sleep(15 * time.Second)
		if err := p.stop(); err != nil {
			t.Fatal(err)
		}
		all := p.receipts(t)
		if diff := cmp.Diff([]string{"failed by order", "applied by order"}, phases(all)); diff != "" {
			t.Error(diff)
		}
		if all[0].Detail["failed"] != "no such device" {
			t.Errorf("%v", all[0].Detail)
		}
	})
}

func TestHoldReachesAPodWhoseCgroupComesLater(t *testing.T) {
	t.Run("a moment later", func(t *testing.T) { comesLater(t, 20*time.Millisecond, []string{"applied by order"}) })
	t.Run("much later", func(t *testing.T) { comesLater(t, 5*time.Second, []string{"failed by order", "applied by order"}) })
}

func comesLater(t *testing.T, late time.Duration, want []string) {
	synctest.Test(t, func(t *testing.T) {
		p := newPost(t, t.TempDir(), nil)
		other := cart
		other.UID = "66666666-2222-3333-4444-555555555555"
		other.Annotations = map[string]string{node.OrderPrefix + "0": p.order(func(o *authz.Order) { o.PodUID = other.UID })}
		p.node.PodChanged(other)
		time.Sleep(late)
		p.source.more <- &probe.Cgroup{ID: 90, Path: "/kubepods/burstable/pod" + other.UID}
		time.Sleep(500 * time.Millisecond)
		if err := p.stop(); err != nil {
			t.Fatal(err)
		}
		if len(p.kernel.deeds()) != 1 || p.kernel.held[90].Bits != hold.All {
			t.Errorf("did %v", p.kernel.deeds())
		}
		if diff := cmp.Diff(want, phases(p.receipts(t))); diff != "" {
			t.Error(diff)
		}
	})
}

// A receipt that finds no room in the spool is told later.
func TestFullSpoolDelaysReceiptsOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPost(t, t.TempDir(), nil)
		p.spool.full = true
		p.carry(p.order(nil))
		time.Sleep(2 * time.Minute)
		p.spool.mu.Lock()
		p.spool.full = false
		p.spool.mu.Unlock()
		time.Sleep(time.Minute)
		if err := p.stop(); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"put 70 for 1m0s"}, p.kernel.deeds()); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]string{"undone by expiry"}, phases(p.receipts(t))); diff != "" {
			t.Error(diff)
		}
	})
}
