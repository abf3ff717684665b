package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"tourniquet.dev/tourniquet/activities"
	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/canonical"
	"tourniquet.dev/tourniquet/internal/plan"
	"tourniquet.dev/tourniquet/internal/sys/fault"
	"tourniquet.dev/tourniquet/internal/trust"
)

// liftFor is how long a lift order stays valid when the hold's own end is nearer: the node must still get to read it.
const liftFor = 10 * time.Minute

// orderedState is a pod as the pre-image of a node's order records it. What an order changes is in the node's kernel, and
// an annotation that someone takes away lifts nothing, so there is nothing here to compare with.
type orderedState struct {
	UID string `json:"uid"`
}

// orderReader observes the node/* actions: a signed order on the pod, carried out by its node.
type orderReader struct{ *System }

// Expand returns the pod as it is now.
func (n orderReader) Expand(ctx context.Context, step plan.Step) ([]plan.Target, error) {
	return n.expandPod(ctx, step)
}

// Capture records which pod it is.
func (n orderReader) Capture(ctx context.Context, _ plan.Step, t plan.Target) (plan.PreImage, error) {
	p, err := n.pod(ctx, t)
	if err != nil {
		return plan.PreImage{}, err
	}
	return imageOf(t, orderedState{UID: string(p.UID)})
}

// Verify sees the order only, without any word of the node.
func (n orderReader) Verify(ctx context.Context, in plan.Intent, r plan.Receipt) (plan.Observation, error) {
	return n.VerifyWithNode(ctx, in, r, nil)
}

// VerifyWithNode weighs the node's receipts, whose signatures the caller has checked. The effect is verified when the
// node that runs the pod says under this intent's key that it is there.
func (n orderReader) VerifyWithNode(ctx context.Context, in plan.Intent, _ plan.Receipt, node []plan.Receipt) (plan.Observation, error) {
	out := n.observation(in)
	for _, t := range in.Targets {
		p, err := n.pod(ctx, t)
		if errors.Is(err, activities.ErrConflict) {
			out.Witnesses = append(out.Witnesses, err.Error())
			continue
		}
		if err != nil {
			return n.observation(in), fmt.Errorf("verify %s: %w", t, err)
		}
		ordered := n.standingOrder(p.ObjectMeta, in)
		out.Witnesses = append(out.Witnesses, fmt.Sprintf("%s bears the order %s: %t", t, orderKey(in), ordered))
		if ordered {
			out.Finding = plan.Asserted
		}
		if finding, witness := lastWord(in, p.Spec.NodeName, node); witness != "" {
			out.Finding, out.Witnesses = finding, append(out.Witnesses, witness)
		} else {
			out.Witnesses = append(out.Witnesses, fmt.Sprintf("node %.253s has not answered yet", p.Spec.NodeName))
		}
	}
	return out, nil
}

// lastWord is what the pod's node said last under the intent's key.
func lastWord(in plan.Intent, nodeName string, receipts []plan.Receipt) (plan.Finding, string) {
	var last *plan.Receipt
	for i, r := range receipts {
		if r.Key == in.Key && r.Action == in.Step.Action && r.By == "node/"+nodeName && (last == nil || r.At.After(last.At)) {
			last = &receipts[i]
		}
	}
	if last == nil {
		return "", ""
	}
	var detail []string
	for _, k := range slices.Sorted(maps.Keys(last.Detail)) {
		detail = append(detail, k+"="+last.Detail[k])
	}
	witness := fmt.Sprintf("%s said at %s: %s (%s)", last.By, last.At.UTC().Format(time.RFC3339Nano), last.Phase, strings.Join(detail, ", "))
	if last.Phase == plan.Applied {
		return plan.Verified, witness
	}
	return plan.NotHolding, witness
}

func orderKey(in plan.Intent) string { return AnnotationOrder + in.Short() }

// standingOrder reports whether the pod bears this intent's order, signed by us where that can be checked here.
func (s *System) standingOrder(m metav1.ObjectMeta, in plan.Intent) bool {
	o, ok := s.readOrder(m.Annotations[orderKey(in)])
	return ok && o.Key == in.Key && o.PodUID == string(m.UID) && !o.Lift
}

func (s *System) readOrder(annotation string) (o authz.Order, ok bool) {
	e, err := authz.DecodeEnvelope([]byte(annotation))
	if err != nil || e.PayloadType != authz.TypeOrder {
		return o, false
	}
	raw, err := e.Raw()
	if s.options.Trust != nil && err == nil {
		raw, _, err = authz.Verify(e, authz.TypeOrder, s.options.Trust().KeysOf(trust.RoleContainKubernetes))
	}
	return o, err == nil && canonical.Unmarshal(raw, &o, authz.MaxEnvelope) == nil
}

// nodeOrder has a node do something to a pod. A kill has no way back: its lift only makes an order void that was not read yet.
type nodeOrder struct{ orderReader }

// Apply writes the order on the pod. Called again with another end, it replaces the order by one with that end.
func (c nodeOrder) Apply(ctx context.Context, in plan.Intent) (plan.Receipt, error) {
	r := c.receipt(in)
	for _, image := range in.PreImages {
		order, err := c.sign(authz.TypeOrder, c.order(in, image.Target, false, in.At, in.Ends))
		if err != nil {
			return r, err
		}
		if err := c.post(ctx, in, image.Target, order); err != nil {
			return r, fmt.Errorf("order %s of %s: %w", in.Step.Action, image.Target, err)
		}
		fault.Point("apply.call/during")
		effect, err := effectOf(image.Target, "order given to the node", orderKey(in), orderedState{UID: image.Target.UID})
		if err != nil {
			return r, err
		}
		r.Effects = append(r.Effects, effect)
	}
	r.Phase, r.At = plan.Applied, c.now()
	return r, nil
}

// Undo replaces the order by a lift. A pod that is gone has nothing to lift; so has one that never got the order.
func (c nodeOrder) Undo(ctx context.Context, in plan.Intent, r plan.Receipt) error {
	var errs []error
	for _, image := range slices.Backward(in.PreImages) {
		if err := c.lift(ctx, in, r, image.Target); err != nil && !c.gone(ctx, image.Target) {
			errs = append(errs, fmt.Errorf("lift %s of %s: %w", in.Step.Action, image.Target, err))
		}
	}
	return errors.Join(errs...)
}

func (c nodeOrder) lift(ctx context.Context, in plan.Intent, r plan.Receipt, t plan.Target) error {
	p, err := c.pod(ctx, t)
	if err != nil {
		return err
	}
	standing := p.Annotations[orderKey(in)]
	if standing == "" && !slices.ContainsFunc(r.Effects, func(e plan.Effect) bool { return e.Target == t }) {
		return nil
	}
	now := c.now()
	if o, ok := c.readOrder(standing); ok && o.Lift && o.Key == in.Key && o.Until.After(now) {
		return nil
	}
	until := in.Ends
	if soonest := now.Add(liftFor); until.Before(soonest) {
		until = soonest
	}
	order, err := c.sign(authz.TypeOrder, c.order(in, t, true, now, until))
	if err != nil {
		return err
	}
	return c.post(ctx, in, t, order)
}

func (s *System) order(in plan.Intent, t plan.Target, lift bool, at, until time.Time) authz.Order {
	return authz.Order{V: 1, Key: in.Key, IncidentID: in.IncidentID, PlanDigest: in.PlanDigest, Step: in.Step.Index, Action: in.Step.Action,
		Cluster: t.Scope, Namespace: t.Namespace, Pod: t.Name, PodUID: t.UID, Lift: lift, IssuedAt: at, Until: until}
}

// post puts an order under the intent's own annotation key. Whatever else stands there is nobody's word: it is replaced.
func (s *System) post(ctx context.Context, in plan.Intent, t plan.Target, order string) error {
	return persist(ctx, func(ctx context.Context) error {
		p, err := s.pod(ctx, t)
		if err != nil || p.Annotations[orderKey(in)] == order {
			return err
		}
		return s.patchPod(ctx, t, newPatch(p.ObjectMeta).annotate(p.ObjectMeta, map[string]string{orderKey(in): order}))
	})
}
