package node_test

import (
	"fmt"
	"slices"
	"strings"
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
)

// ice is a freezer that writes down what it is told.
type ice struct {
	k      *kernel
	frozen map[uint64]hold.Frozen
	fail   error
}

func (i *ice) Freeze(z hold.Frozen) error {
	i.k.mu.Lock()
	defer i.k.mu.Unlock()
	i.k.did = append(i.k.did, fmt.Sprintf("freeze %s for %s", z.Path, (z.Until-i.k.boot()).Round(time.Second)))
	i.frozen[z.Cgroup] = z
	return i.fail
}

func (i *ice) Thaw(id uint64) error {
	i.k.mu.Lock()
	defer i.k.mu.Unlock()
	if _, ok := i.frozen[id]; !ok {
		return hold.ErrNotHeld
	}
	i.k.did = append(i.k.did, fmt.Sprintf("thaw %d", id))
	delete(i.frozen, id)
	return nil
}

func (i *ice) Until(id uint64) (time.Duration, bool) {
	i.k.mu.Lock()
	defer i.k.mu.Unlock()
	z, ok := i.frozen[id]
	return z.Until, ok
}

func (i *ice) KillAll(id uint64, path string) error {
	i.k.mu.Lock()
	defer i.k.mu.Unlock()
	i.k.did = append(i.k.did, "kill all of "+path)
	return i.fail
}

// icy adds a freezer to a node.
func icy(k *kernel, fail error) func(*node.Options) {
	return func(o *node.Options) { o.Freezer = &ice{k: k, frozen: map[uint64]hold.Frozen{}, fail: fail} }
}

func newKernel() *kernel { return &kernel{held: map[uint64]hold.Held{}} }

// doing changes an order into one of another action.
func doing(a plan.Action, changes ...func(*authz.Order)) func(*authz.Order) {
	return func(o *authz.Order) {
		o.Action = a
		if a == plan.NodeKillProcess {
			o.PID, o.StartNS = 4194305, 1 // no machine has such a process
		}
		for _, change := range changes {
			change(o)
		}
	}
}

var actions = []plan.Action{plan.NodeCutNetwork, plan.NodeFreeze, plan.NodeKillPod, plan.NodeKillProcess}

func TestFreezeIsPutOnMovedAndLifted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel()
		p := newPost(t, t.TempDir(), k, icy(k, nil))
		first := p.order(doing(plan.NodeFreeze))
		p.carry(first)
		p.carry() // an annotation that goes away thaws nothing
		time.Sleep(10 * time.Second)
		second := p.order(doing(plan.NodeFreeze, func(o *authz.Order) { o.Until = o.Until.Add(time.Hour) }))
		p.carry(second)
		time.Sleep(10 * time.Minute)
		p.carry(p.order(doing(plan.NodeFreeze, lift)))
		p.carry(first, second) // replayed
		time.Sleep(time.Minute)
		if err := p.stop(); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"freeze " + podPath + " for 1m0s", "freeze " + podPath + " for 1h1m0s", "thaw 70"}, k.deeds()); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]string{"applied by order", "applied by order", "undone by order"}, phases(p.receipts(t))); diff != "" {
			t.Error(diff)
		}
	})
}

func TestFreezeIsThawedByOurClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel()
		p := newPost(t, t.TempDir(), k, icy(k, nil))
		p.carry(p.order(doing(plan.NodeFreeze)))
		time.Sleep(59 * time.Second)
		synctest.Wait()
		if slices.Contains(k.deeds(), "thaw 70") {
			t.Error("thawed early")
		}
		time.Sleep(2 * time.Second)
		if err := p.stop(); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"applied by order", "undone by expiry"}, phases(p.receipts(t))); diff != "" || !slices.Contains(k.deeds(), "thaw 70") {
			t.Error(diff, k.deeds())
		}
	})
}

func TestAKillHappensOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, state := newKernel(), t.TempDir()
		p := newPost(t, state, k, icy(k, nil))
		order := p.order(doing(plan.NodeKillPod))
		p.carry(order)
		p.carry(order)
		time.Sleep(20 * time.Second)
		if err := p.stop(); err != nil {
			t.Fatal(err)
		}
		again := newPost(t, state, k, icy(k, nil)) // after a restart
		again.carry(order)
		time.Sleep(20 * time.Second)
		if err := again.stop(); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"kill all of " + podPath}, k.deeds()); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]string{"applied by order"}, phases(append(p.receipts(t), again.receipts(t)...))); diff != "" {
			t.Error(diff)
		}
	})
}

func TestAKillIsToldOfWhenTheSpoolHasRoomAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel()
		p := newPost(t, t.TempDir(), k, icy(k, nil))
		p.spool.mu.Lock()
		p.spool.full = true
		p.spool.mu.Unlock()
		p.carry(p.order(doing(plan.NodeKillPod)))
		time.Sleep(time.Second)
		p.spool.mu.Lock()
		p.spool.full = false
		p.spool.mu.Unlock()
		time.Sleep(time.Second)
		if err := p.stop(); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"applied by order"}, phases(p.receipts(t))); diff != "" || len(k.deeds()) != 1 {
			t.Error(diff, k.deeds())
		}
	})
}

func TestAKillThatFailsIsToldOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for want, tc := range map[string]struct {
			action  plan.Action
			freezer bool
		}{
			"no such control":  {plan.NodeKillPod, true},
			"neither freeze":   {plan.NodeKillPod, false},
			"process is gone":  {plan.NodeKillProcess, true},
			"nor kill: see it": {plan.NodeFreeze, false},
		} {
			k := newKernel()
			p := newPost(t, t.TempDir(), k, func(o *node.Options) {
				o.Kill = func(uint32, time.Duration) error { t.Error("killed"); return nil }
				if tc.freezer {
					icy(k, fmt.Errorf("no such control"))(o)
				}
			})
			p.carry(p.order(doing(tc.action)))
			time.Sleep(time.Second)
			if err := p.stop(); err != nil {
				t.Fatal(err)
			}
			all := p.receipts(t)
			if len(all) != 1 || all[0].Phase != plan.Failed || !strings.Contains(all[0].Detail["failed"], strings.TrimSuffix(want, " it")) {
				t.Errorf("%s: %+v", want, all)
			}
		}
	})
}

func TestAnOrderThatDoesNotApplyDoesNothing(t *testing.T) {
	for _, action := range actions {
		for name, change := range map[string]func(*authz.Order){
			"of another pod":      func(o *authz.Order) { o.PodUID = "99999999-2222-3333-4444-555555555555" },
			"of another cluster":  func(o *authz.Order) { o.Cluster = "other" },
			"past its time":       func(o *authz.Order) { o.IssuedAt, o.Until = o.IssuedAt.Add(-time.Hour), o.IssuedAt.Add(-time.Second) },
			"of the future":       func(o *authz.Order) { o.IssuedAt, o.Until = o.IssuedAt.Add(time.Hour), o.Until.Add(time.Hour) },
			"for too long":        func(o *authz.Order) { o.Until = o.Until.Add(1000 * time.Hour) },
			"a lift of nothing":   lift,
			"an unknown action":   func(o *authz.Order) { o.Action = "node/burn" },
			"another's namespace": func(o *authz.Order) { o.Namespace = "payments" },
		} {
			t.Run(string(action)+" "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					k := newKernel()
					p := newPost(t, t.TempDir(), k, icy(k, nil), func(o *node.Options) {
						o.Kill = func(uint32, time.Duration) error { t.Error("killed"); return nil }
					})
					p.carry(p.order(doing(action, change)))
					time.Sleep(time.Second)
					if err := p.stop(); err != nil {
						t.Fatal(err)
					}
					told := phases(p.receipts(t))
					if did := k.deeds(); len(did) != 0 || (len(told) != 0 && name != "a lift of nothing") {
						t.Errorf("did %q, told %q", did, told)
					}
				})
			})
		}
	}
}

func TestAForgedOrderDoesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel()
		p := newPost(t, t.TempDir(), k, icy(k, nil))
		for _, action := range actions {
			for _, role := range []trust.Role{trust.RoleContainAWS, trust.RoleDecide, trust.RolePlaybookSigner} {
				o := authz.Order{V: 1, Key: "k", IncidentID: "iabcdefghijkl", PlanDigest: plan.DigestOf(nil), Cluster: authztest.Cluster, Namespace: authztest.Namespace,
					Pod: "cart-7", PodUID: authztest.PodUID, IssuedAt: time.Now().UTC(), Until: time.Now().Add(time.Minute).UTC()}
				doing(action)(&o)
				p.carry(encode(p.world.Signers[role], o))
			}
		}
		time.Sleep(time.Second)
		if err := p.stop(); err != nil {
			t.Fatal(err)
		}
		if did := k.deeds(); len(did) != 0 || len(p.receipts(t)) != 0 {
			t.Errorf("did %q", did)
		}
	})
}

func TestAnOrderTakesOverWhatAReflexHasPut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel()
		p := newPost(t, t.TempDir(), k, icy(k, nil))
		reflexed := hold.Hold{Cgroup: podCgroup, Until: k.boot() + 30*time.Second, Bits: hold.Egress | hold.Connect}
		k.held[podCgroup] = hold.Held{Hold: reflexed}
		p.carry(p.order(nil))
		held, err := k.Get(podCgroup)
		if err != nil || held.Bits != hold.All || held.Until != reflexed.Until+30*time.Second {
			t.Errorf("stands %+v, %v", held, err)
		}
		p.carry(p.order(func(o *authz.Order) { lift(o); o.IssuedAt = o.IssuedAt.Add(time.Millisecond) }))
		if _, err := k.Get(podCgroup); err == nil {
			t.Error("a release left the hold of the reflex on")
		}
		if err := p.stop(); err != nil {
			t.Fatal(err)
		}
	})
}
