package node_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/sensor/node"
)

func TestWhatWasLiftedIsNotPutOnByARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		state := t.TempDir()
		p := newPost(t, state, nil)
		order := p.order(nil)
		p.carry(order)
		time.Sleep(time.Second)
		p.carry(order, p.order(lift))
		if err := p.stop(); err != nil {
			t.Fatal(err)
		}
		again := newPost(t, state, nil)
		again.carry(order)
		time.Sleep(20 * time.Second)
		if err := again.stop(); err != nil {
			t.Fatal(err)
		}
		if len(again.kernel.deeds()) != 0 || len(again.spool.envelopes()) != 0 {
			t.Errorf("%v, %v", again.kernel.deeds(), phases(again.receipts(t)))
		}
	})
}

func TestRestartTakesUpWhatIsInForce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		state := t.TempDir()
		p := newPost(t, state, nil)
		p.carry(p.order(nil))
		if err := p.stop(); err != nil {
			t.Fatal(err)
		}
		kernel := p.kernel // pinned: it stands on
		kernel.did = nil
		time.Sleep(10 * time.Second)
		again := newPost(t, state, kernel)
		kernel.drop(podCgroup, 3)
		time.Sleep(time.Hour)
		if err := again.stop(); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"applied by order", "undone by expiry"}, phases(again.receipts(t))); diff != "" {
			t.Error(diff)
		}
	})
}

func TestDamagedBookObeysNothingOfBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		state := t.TempDir()
		p := newPost(t, state, nil)
		order := p.order(nil)
		p.carry(order)
		time.Sleep(time.Second)
		p.carry(order, p.order(lift))
		if err := p.stop(); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(state, "orders.json"), []byte(`{"floor"`), 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		again := newPost(t, state, nil)
		again.carry(order)
		if n := again.node.Stats().Refused; n != 1 || len(again.kernel.deeds()) != 0 {
			t.Errorf("%d refused, did %v", n, again.kernel.deeds())
		}
		time.Sleep(time.Second)
		again.carry(order, again.order(func(o *authz.Order) { o.Key = "another" }))
		if err := again.stop(); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"put 70 for 1m0s"}, again.kernel.deeds()); diff != "" {
			t.Error(diff)
		}
	})
}

func TestOlderOrderThanALiftIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPost(t, t.TempDir(), nil)
		older := p.order(nil) // signed first, seen last
		time.Sleep(time.Second)
		off := p.order(lift)
		p.carry(off)
		p.carry(off, older)
		p.carry(older)
		time.Sleep(20 * time.Second)
		if err := p.stop(); err != nil {
			t.Fatal(err)
		}
		if len(p.kernel.deeds()) != 0 {
			t.Errorf("did %v", p.kernel.deeds())
		}
		if diff := cmp.Diff([]string{"undone by order"}, phases(p.receipts(t))); diff != "" {
			t.Error(diff)
		}
		if s := p.node.Stats(); s.Refused != 1 || s.Orders != 1 {
			t.Errorf("%+v", s)
		}
	})
}

func TestOlderOrderThanTheOneInForceIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPost(t, t.TempDir(), nil)
		older := p.order(func(o *authz.Order) { o.Until = o.IssuedAt.Add(time.Hour) })
		time.Sleep(time.Second)
		p.carry(p.order(nil))
		p.carry(older)
		p.carry(p.order(func(o *authz.Order) { o.IssuedAt = o.IssuedAt.Add(-time.Second / 2); o.Lift = true }))
		if err := p.stop(); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"put 70 for 1m0s"}, p.kernel.deeds()); diff != "" {
			t.Error(diff)
		}
	})
}

func TestOrderIssuedBeforeTheLiftStaysOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPost(t, t.TempDir(), nil)
		p.carry(p.order(nil))
		time.Sleep(time.Second)
		between := p.order(func(o *authz.Order) { o.Until = o.IssuedAt.Add(time.Hour) }) // an extension that came too late
		time.Sleep(time.Second)
		p.carry(p.order(lift))
		p.carry(between)
		if err := p.stop(); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"put 70 for 1m0s", "lift 70"}, p.kernel.deeds()); diff != "" {
			t.Error(diff)
		}
	})
}

func TestNodeThatForgotEverythingDoesNotPutOnWhatWasLifted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPost(t, t.TempDir(), nil)
		order := p.order(nil)
		time.Sleep(time.Second)
		p.carry(order, p.order(lift)) // both stand on the pod, and this node has seen neither
		if err := p.stop(); err != nil {
			t.Fatal(err)
		}
		if len(p.kernel.deeds()) != 0 {
			t.Errorf("did %v", p.kernel.deeds())
		}
	})
}

func TestCgroupsOfAnotherBootAreNotHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		state := t.TempDir()
		p := newPost(t, state, nil)
		p.carry(p.order(nil))
		if err := p.stop(); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(state, "orders.json") // the machine was started anew: the ids are others' now
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, bytes.Replace(data, []byte(`"boot":"this boot"`), []byte(`"boot":"another"`), 1), 0o600); err != nil {
			t.Fatal(err)
		}
		again := newPost(t, state, nil, func(o *node.Options) { o.Source = &script{boot: time.Now(), stay: true} })
		time.Sleep(30 * time.Second)
		if err := again.stop(); err != nil {
			t.Fatal(err)
		}
		if len(again.kernel.deeds()) != 0 {
			t.Errorf("did %v", again.kernel.deeds())
		}
	})
}
