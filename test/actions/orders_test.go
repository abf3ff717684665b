package actions_test

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"tourniquet.dev/tourniquet/activities"
	"tourniquet.dev/tourniquet/activities/conformance"
	"tourniquet.dev/tourniquet/activities/kubernetes"
	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/plan"
)

// order is the order on a pod, opened as its node would.
func (w *town) order(t *testing.T, pod string) (authz.Order, bool) {
	t.Helper()
	p := w.pod(t, pod)
	for key, value := range p.Annotations {
		if !strings.HasPrefix(key, kubernetes.AnnotationOrder) {
			continue
		}
		e, err := authz.DecodeEnvelope([]byte(value))
		if err != nil {
			t.Fatal(err)
		}
		o, err := authz.OpenOrder(w.trust, e, clusterName, p.Namespace, string(p.UID), time.Now())
		if err != nil {
			t.Fatal("the node would refuse the order:", err)
		}
		return o, true
	}
	return authz.Order{}, false
}

func TestNodeReceiptVerifiesTheNetworkCut(t *testing.T) {
	t.Parallel()
	w := newTown(t)
	w.account(t, "shop")
	world := w.world(plan.NodeCutNetwork, w.podOf(t, "shop-1", "shop", "ReplicaSet"))
	in := conformance.Intend(t, world)
	r, err := world.Action.Apply(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	said := func(by, key string, phase plan.Phase, at time.Duration) plan.Receipt {
		return plan.Receipt{By: by, Key: key, Action: plan.NodeCutNetwork, Phase: phase, At: in.At.Add(at), Detail: map[string]string{"dropped_packets": "7"}}
	}
	for name, tc := range map[string]struct {
		node []plan.Receipt
		want plan.Finding
		says string
	}{
		"the node has not answered":     {nil, plan.Asserted, "has not answered"},
		"the node holds the pod":        {[]plan.Receipt{said("node/node-1", in.Key, plan.Applied, 1)}, plan.Verified, "dropped_packets=7"},
		"another node says so":          {[]plan.Receipt{said("node/node-2", in.Key, plan.Applied, 1)}, plan.Asserted, "has not answered"},
		"the node speaks of other hold": {[]plan.Receipt{said("node/node-1", "other", plan.Applied, 1)}, plan.Asserted, "has not answered"},
		"the hold broke since":          {[]plan.Receipt{said("node/node-1", in.Key, plan.Broken, 2), said("node/node-1", in.Key, plan.Applied, 1)}, plan.NotHolding, "broken"},
	} {
		t.Run(name, func(t *testing.T) {
			o, err := world.Reader.(activities.NodeVerifier).VerifyWithNode(t.Context(), in, r, tc.node)
			if err != nil {
				t.Fatal(err)
			}
			if o.Finding != tc.want || !strings.Contains(strings.Join(o.Witnesses, "\n"), tc.says) {
				t.Errorf("%s, %q", o.Finding, o.Witnesses)
			}
		})
	}
}

func TestOrderFollowsTheExtendedEndAndTheLift(t *testing.T) {
	t.Parallel()
	w := newTown(t)
	w.account(t, "shop")
	world := w.world(plan.NodeCutNetwork, w.podOf(t, "shop-1", "shop", "ReplicaSet"))
	in := conformance.Intend(t, world)
	r, err := world.Action.Apply(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	longer := in
	longer.Ends = in.Ends.Add(time.Hour)
	if _, err := world.Action.Apply(t.Context(), longer); err != nil {
		t.Fatal(err)
	}
	if o, _ := w.order(t, "shop-1"); !o.Until.Equal(longer.Ends) || o.Lift {
		t.Errorf("order until %s, want %s", o.Until, longer.Ends)
	}
	// Somebody takes the order away: the node remembers it, so the lift must still reach it.
	p := w.pod(t, "shop-1")
	p.Annotations = nil
	must(w.admin.CoreV1().Pods(w.namespace).Update(t.Context(), p, metav1.UpdateOptions{}))(t)
	if err := world.Action.Undo(t.Context(), in, r); err != nil {
		t.Fatal(err)
	}
	if o, ok := w.order(t, "shop-1"); !ok || !o.Lift || o.Key != in.Key {
		t.Errorf("no lift: %+v", o)
	}
}
