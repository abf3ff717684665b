package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/plan"
	"tourniquet.dev/tourniquet/sensor/process"
)

// OrderPrefix begins the names of the annotations that carry orders, each a signed envelope in JSON.
const OrderPrefix = "tourniquet.dev/order."

const (
	lookEvery  = 100 * time.Millisecond // at the holds that are on
	tryAgain   = 10 * time.Second       // orders that could not be obeyed, or not yet
	grace      = time.Second            // in which a pod's cgroup may still become known
	maxOrders  = 1024                   // of one node that are remembered
	maxRefused = 4096
)

// orders obeys signed orders. What is on a pod is never permission by itself: each order is opened with the node's own
// trust file and clock, and what was lifted once is not put on again by the same order. That an annotation goes away means
// nothing. One goroutine (run) works; the others only leave word.
type orders struct {
	n    *Node
	book *book

	mu       sync.Mutex
	carrying map[string]process.Pod // pods with orders, by UID
	word     chan struct{}

	refused map[string]bool // digests of annotations that were told of already
}

func newOrders(n *Node) (*orders, error) {
	b, err := openBook(n.o.State, n.o.BootID, n.o.Now())
	if err != nil {
		return nil, err
	}
	if b.damaged != nil {
		n.o.Log.Error("the orders' file was damaged and put aside: no order issued before now is obeyed", "err", b.damaged)
	}
	return &orders{n: n, book: b, carrying: map[string]process.Pod{}, word: make(chan struct{}, 1), refused: map[string]bool{}}, nil
}

func (o *orders) podChanged(p process.Pod) {
	carries := false
	for name := range p.Annotations {
		carries = carries || strings.HasPrefix(name, OrderPrefix)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case carries && p.Deleted.IsZero():
		o.carrying[p.UID] = p
		o.leaveWord()
	default:
		delete(o.carrying, p.UID)
	}
}

func (o *orders) cgroupMade(podUID string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if podUID != "" && len(o.carrying) > 0 {
		o.leaveWord()
	}
}

func (o *orders) leaveWord() {
	select {
	case o.word <- struct{}{}:
	default: // there is word already
	}
}

// run obeys until ctx is done. An error means that the spool or the disk failed.
func (o *orders) run(ctx context.Context) error {
	if o.n.o.Holds == nil && o.n.o.Freezer == nil {
		return o.tellOnly(ctx)
	}
	look, again := time.NewTicker(lookEvery), time.NewTicker(tryAgain)
	defer look.Stop()
	defer again.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case <-o.word:
			err = o.readAll(ctx)
		case <-again.C:
			err = o.readAll(ctx)
		case <-look.C:
			err = o.look(ctx)
		}
		if err != nil {
			return err
		}
	}
}

// tellOnly is for a node that can hold nothing.
func (o *orders) tellOnly(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-o.word:
		}
		for _, p := range o.pods() {
			for name, value := range p.Annotations {
				if strings.HasPrefix(name, OrderPrefix) {
					o.refuse(plan.DigestOf([]byte(value)), p, errors.New("this node cannot hold: see its first lines"))
				}
			}
		}
	}
}

func (o *orders) pods() []process.Pod {
	o.mu.Lock()
	defer o.mu.Unlock()
	var all []process.Pod
	for _, p := range o.carrying {
		all = append(all, p)
	}
	return all
}

// signedOrder is an order whose signature was checked, with the digest of what carried it.
type signedOrder struct {
	authz.Order
	digest string
}

// readAll obeys what the pods carry now. The newest come first: a lift makes the order that it lifts void.
func (o *orders) readAll(ctx context.Context) error {
	for _, p := range o.pods() {
		var all []signedOrder
		for name, value := range p.Annotations {
			if !strings.HasPrefix(name, OrderPrefix) {
				continue
			}
			order, err := o.open(value, p)
			if err != nil {
				o.refuse(plan.DigestOf([]byte(value)), p, err)
				continue
			}
			all = append(all, order)
		}
		slices.SortFunc(all, func(a, b signedOrder) int {
			return cmp.Or(b.IssuedAt.Compare(a.IssuedAt), cmp.Compare(b2i(b.Lift), b2i(a.Lift)), cmp.Compare(a.Key, b.Key))
		})
		for _, order := range all {
			if err := o.obey(ctx, order, p); err != nil {
				return err
			}
		}
	}
	return nil
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (o *orders) open(value string, p process.Pod) (signedOrder, error) {
	e, err := authz.DecodeEnvelope([]byte(value))
	if err != nil {
		return signedOrder{}, err
	}
	order, err := authz.OpenOrder(o.n.o.Trust, e, o.n.o.Cluster, p.Namespace, p.UID, o.n.o.Now())
	if err != nil {
		return signedOrder{}, err
	}
	return signedOrder{order, plan.DigestOf([]byte(value))}, nil
}

// refuse tells of an annotation once, and not of one that was obeyed and has ended.
func (o *orders) refuse(digest string, p process.Pod, why error) {
	if o.refused[digest] || o.book.obeyed(digest) {
		return
	}
	if len(o.refused) >= maxRefused {
		clear(o.refused)
	}
	o.refused[digest] = true
	o.n.count.refused.Add(1)
	o.n.o.Log.Warn("order refused", "resource", p.Namespace+"/"+p.Name, "digest", digest, "err", why)
}

// errStale says that a newer word on the same step was heard before.
var errStale = errors.New("order is older than what was heard of this step")

func (o *orders) obey(ctx context.Context, order signedOrder, p process.Pod) error {
	rec := o.book.of(order.Key)
	switch {
	case rec == nil && order.IssuedAt.Before(o.book.Floor):
		o.refuse(order.digest, p, errStale)
		return nil
	case rec == nil && len(o.book.Records) >= maxOrders:
		o.refuse(order.digest, p, fmt.Errorf("%d orders are remembered already", maxOrders))
		return nil
	case rec == nil:
		rec = o.book.begin(order)
	case rec.heard(order):
		if rec.active() {
			return o.cover(ctx, rec)
		}
		return nil
	case !order.IssuedAt.After(rec.last()):
		o.refuse(order.digest, p, errStale)
		return nil
	default:
		rec.renew(order)
	}
	rec.Heard = o.n.o.Now()
	o.n.count.orders.Add(1)
	if err := o.book.save(); err != nil { // what it means is on disk before it is done
		return err
	}
	if order.Lift {
		return o.lift(ctx, rec, byOrder)
	}
	return o.cover(ctx, rec)
}
