package node

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/plan"
	"tourniquet.dev/tourniquet/internal/sys/spool"
	"tourniquet.dev/tourniquet/sensor/hold"
)

// adopt takes up the orders of before: what is in force is put on where it is missing, what ended meanwhile is told of.
func (o *orders) adopt(ctx context.Context) error {
	if o.n.o.Holds == nil && o.n.o.Freezer == nil {
		return nil
	}
	for _, rec := range o.book.Records {
		var err error
		switch {
		case rec.Closed:
		case !rec.active() || !rec.Order.Until.After(o.n.o.Now()):
			err = o.lift(ctx, rec, rec.why())
		default:
			err = o.cover(ctx, rec)
		}
		if err != nil {
			return err
		}
	}
	if o.book.prune(o.n.o.Now()) {
		return o.book.save()
	}
	return nil
}

// look reads the holds that are on: the first packets that one has stopped are told of, and its end.
func (o *orders) look(ctx context.Context) error {
	ended := false
	for _, rec := range o.book.Records {
		if !rec.active() && !rec.Closed { // it is off, or should be, and that was not told
			if err := o.lift(ctx, rec, rec.why()); err != nil {
				return err
			}
			continue
		}
		if !rec.active() {
			continue
		}
		if len(rec.Cgroups) == 0 && rec.Order.Until.After(o.n.o.Now()) {
			if rec.Failed == "" {
				if err := o.cover(ctx, rec); err != nil {
					return err
				}
			}
			continue
		}
		over, err := o.lookAt(ctx, rec)
		if err != nil {
			return err
		}
		ended = ended || over
	}
	if !ended || o.n.o.Holds == nil {
		return nil
	}
	_, err := o.n.o.Holds.Expire()
	return err
}

func (o *orders) lookAt(ctx context.Context, rec *record) (over bool, err error) {
	rec.count(o.drops(rec))
	missing, expired := 0, 0
	for _, id := range rec.Cgroups {
		until, stands, err := o.stands(rec.Order.Action, id)
		switch {
		case err != nil:
			return false, fmt.Errorf("look at hold: %w", err)
		case !stands:
			missing++
		case until <= o.n.o.Boot():
			expired++
		}
	}
	ended := !rec.Order.Until.After(o.n.o.Now())
	switch {
	case expired > 0 && rec.Order.Action == plan.NodeFreeze: // by our own clock: the kernel has none for it
		return false, o.lift(ctx, rec, expiry)
	case expired+missing == len(rec.Cgroups) && (expired > 0 || ended): // by the kernel's own clock
		rec.Done = true
		return true, o.tell(ctx, rec, plan.Undone, expiry)
	case missing > 0 && !ended:
		return false, o.cover(ctx, rec)
	case !rec.Dropped && stopped(rec.Drops) > 0:
		return false, o.tell(ctx, rec, plan.Applied, byOrder)
	}
	return false, nil
}

// On whose word a hold went on or off.
const (
	byOrder = "order"
	expiry  = "expiry"
)

func (r *record) why() string {
	if r.Lifted {
		return byOrder
	}
	return expiry
}

// drops adds up what the holds of a record have stopped.
func (o *orders) drops(rec *record) hold.Drops {
	var sum hold.Drops
	if rec.Order.Action != plan.NodeCutNetwork || o.n.o.Holds == nil {
		return sum
	}
	for _, id := range rec.Cgroups {
		held, err := o.n.o.Holds.Get(id)
		if err != nil {
			continue // not held any more: the last reading stands
		}
		d := held.Drops
		sum.EgressPackets += d.EgressPackets
		sum.EgressBytes += d.EgressBytes
		sum.IngressPackets += d.IngressPackets
		sum.IngressBytes += d.IngressBytes
		sum.Connects += d.Connects
		sum.Last = max(sum.Last, d.Last)
	}
	return sum
}

// fail tells once that an order cannot be obeyed. It is tried again.
func (o *orders) fail(ctx context.Context, rec *record, why error) error {
	if rec.Failed == why.Error() {
		return nil
	}
	rec.Failed = why.Error()
	o.n.o.Log.Error("order not obeyed", "incident_id", rec.Order.IncidentID, "resource", rec.Order.Namespace+"/"+rec.Order.Pod, "err", why)
	return o.tell(ctx, rec, plan.Failed, byOrder)
}

// tell has a signed receipt in the spool, then remembers that it was told. A crash in between tells it twice. Where the
// spool is full it is told later: look comes by again.
func (o *orders) tell(ctx context.Context, rec *record, phase plan.Phase, authority string) error {
	err := o.send(ctx, rec, phase, authority)
	switch {
	case errors.Is(err, spool.ErrFull):
		o.n.o.Log.Error("a receipt waits: the spool is full", "incident_id", rec.Order.IncidentID, "phase", phase)
		return o.book.save()
	case err != nil:
		return err
	}
	switch phase {
	case plan.Applied:
		rec.Told, rec.Failed, rec.Dropped = true, "", stopped(rec.Drops) > 0
	case plan.Undone:
		rec.Done, rec.Closed = true, true
	}
	rec.Closed = rec.Closed || (rec.Done && rec.Order.Action.Once())
	return o.book.save()
}

func (o *orders) send(ctx context.Context, rec *record, phase plan.Phase, authority string) error {
	order := rec.Order
	r := plan.Receipt{
		V: 1, By: "node/" + o.n.o.Node, Key: order.Key, IncidentID: order.IncidentID, PlanDigest: order.PlanDigest, Step: order.Step,
		Action: order.Action, Phase: phase, Authority: authority, At: stamp(o.n.o.Now()), Ends: order.Until,
		Detail: o.detail(rec), Witnesses: rec.Digests[len(rec.Digests)-1:],
	}
	target := plan.Target{Kind: plan.Pod, Scope: order.Cluster, Namespace: order.Namespace, Name: order.Pod, UID: order.PodUID}
	did := didText(order.Action, phase)
	for _, id := range rec.Cgroups {
		r.Effects = append(r.Effects, plan.Effect{Target: target, Did: did, Object: "cgroup " + strconv.FormatUint(id, 10)})
	}
	if err := o.n.put(ctx, authz.TypeReceipt, spool.Critical, r); err != nil {
		return fmt.Errorf("spool receipt: %w", err)
	}
	o.n.o.Log.Info("order", "incident_id", order.IncidentID, "plan_digest", order.PlanDigest, "step", order.Step, "phase", phase,
		"resource", order.Namespace+"/"+order.Pod, "dropped", stopped(rec.Drops), "authority", authority)
	return nil
}

func stamp(t time.Time) time.Time { return t.UTC().Truncate(time.Millisecond) }

// detail is what the kernel says of the hold: whether it reads back as it was put, and what it has stopped.
func (o *orders) detail(rec *record) map[string]string {
	d := map[string]string{}
	if rec.Order.Action == plan.NodeCutNetwork {
		d = map[string]string{
			"egress_packets": strconv.FormatUint(rec.Drops.EgressPackets, 10), "egress_bytes": strconv.FormatUint(rec.Drops.EgressBytes, 10),
			"ingress_packets": strconv.FormatUint(rec.Drops.IngressPackets, 10), "ingress_bytes": strconv.FormatUint(rec.Drops.IngressBytes, 10),
			"refused_connects": strconv.FormatUint(rec.Drops.Connects, 10), "dropped": strconv.FormatUint(stopped(rec.Drops), 10),
		}
	}
	if !rec.Order.Action.Once() {
		d["in_force"] = fmt.Sprintf("%d of %d", o.inForce(rec), len(rec.Cgroups))
	}
	if rec.Failed != "" {
		d["failed"] = rec.Failed
	}
	return d
}

// inForce counts the cgroups on which the effect reads back as it was put.
func (o *orders) inForce(rec *record) int {
	n := 0
	for _, id := range rec.Cgroups {
		if rec.Order.Action == plan.NodeFreeze {
			if until, stands, err := o.stands(plan.NodeFreeze, id); err == nil && stands && until > o.n.o.Boot() {
				n++
			}
			continue
		}
		if o.n.o.Holds == nil {
			continue
		}
		if held, err := o.n.o.Holds.Get(id); err == nil && !held.Expired && held.Bits == hold.All {
			n++
		}
	}
	return n
}

// didText says in plain words what an order's phase means for the pod.
func didText(a plan.Action, phase plan.Phase) string {
	words := map[plan.Action]map[plan.Phase]string{
		plan.NodeCutNetwork:  {plan.Applied: "every packet is dropped in the kernel", plan.Undone: "packets pass again"},
		plan.NodeFreeze:      {plan.Applied: "every process stands still", plan.Undone: "the processes go on"},
		plan.NodeKillPod:     {plan.Applied: "every process was killed", plan.Undone: "nothing was killed"},
		plan.NodeKillProcess: {plan.Applied: "the process was killed", plan.Undone: "nothing was killed"},
	}
	if phase == plan.Failed {
		return "nothing"
	}
	return words[a][phase]
}
