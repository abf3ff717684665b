// Package node is the sensor at work: events of the kernel become processes, workloads, detections, and those, signed,
// entries of the spool; signed orders on a pod become holds in the kernel, and receipts. It owns the order of these steps
// and nothing else: what an event means rule says, who is behind it process, what a hold does hold. sensor's main runs it.
// It never opens a credential's file, never speaks to Temporal or a cloud, and never writes to the cluster.
package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/sys/spool"
	"tourniquet.dev/tourniquet/internal/trust"
	"tourniquet.dev/tourniquet/sensor/hold"
	"tourniquet.dev/tourniquet/sensor/probe"
	"tourniquet.dev/tourniquet/sensor/process"
	"tourniquet.dev/tourniquet/sensor/reflex"
	"tourniquet.dev/tourniquet/sensor/rule"
)

// Spool is the write side of the spool; spool.Spool has it. What it refuses with spool.ErrFull is lost and counted, or told
// later; any other error ends Run.
type Spool interface {
	Append(ctx context.Context, lane spool.Lane, payload []byte) (uint64, error)
}

// Pods says which pod a container belongs to; process.Pods does.
type Pods interface {
	Lookup(c process.Container) (process.Pod, bool)
	Await(ctx context.Context, c process.Container) (process.Pod, error)
}

// Holds is the kernel's table of holds; hold.Table is.
type Holds interface {
	Put(h hold.Hold) error
	Lift(cgroup uint64) (hold.Held, error)
	Get(cgroup uint64) (hold.Held, error)
	Expire() ([]hold.Held, error)
}

// Freezer stops and kills what a cgroup holds; hold.Freezer does.
type Freezer interface {
	Freeze(z hold.Frozen) error
	Thaw(cgroup uint64) error
	Until(cgroup uint64) (time.Duration, bool)
	KillAll(cgroup uint64, path string) error
}

// Options is what a Node is made of.
type Options struct {
	Cluster, Node string
	Account       string // the AWS account that access keys of this cluster belong to; "": not said
	Trust         *trust.File
	Signer        *authz.Signer // with the node's certificate
	BootID        string        // of the machine's boot
	// Instance makes detection ids unique over restarts: the boot's id and this process's start.
	Instance string

	Source  probe.Source
	Tree    *process.Tree
	Cgroups *process.Cgroups
	Rules   *rule.Set
	Pods    Pods    // nil: workloads are named by what the cgroup's path says
	Holds   Holds   // nil: orders are told of as refused
	Freezer Freezer // nil: orders to freeze or kill fail, and say so
	Spool   Spool
	// Profiles learn what each workload does; nil: none do.
	Profiles Profiles
	// SeesRings says that opens through an io_uring are seen: the open hook is of a tier above the system calls.
	SeesRings bool
	// Kill ends the one process with this number and start; nil: orders for it fail, and say so.
	Kill func(pid uint32, start time.Duration) error
	// Reflex does at once what playbooks pre-authorize; nil: nothing. Its owner runs it.
	Reflex *reflex.Reflex
	// Watch has the kernel tell of a cgroup; nil where the source tells of all.
	Watch func(cgroup uint64) error
	// Hints reads the environment of a process; nil where that is not granted.
	Hints func(pid uint32) (process.Hints, error)
	// State is the folder in which orders are remembered.
	State string
	Log   *slog.Logger
	// Queue is how many detections may be on their way to the spool; 0: 1024. The source waits when they are more.
	Queue int
	// Now is the wall clock and Boot the kernel's; the machine's if nil.
	Now  func() time.Time
	Boot func() time.Duration
}

const (
	eventQueue    = 4096                   // events on their way from the source
	foundQueue    = 1024                   // detections on their way to the spool
	awaitPod      = 5 * time.Second        // the kernel is ahead of the API server by less than this
	completeEvery = 250 * time.Millisecond // at most, is all of /proc read
	maxWaiting    = 256                    // detections that wait for their pod
)

// Stats are counters since the start.
type Stats struct {
	Events    uint64 // from the source
	Matched   uint64 // detections that rules made
	Coalesced uint64 // of these, told of together with an earlier one
	Spooled   uint64
	Lost      uint64 // of these, not spooled: each one is an error in the log
	Blind     uint64 // events that the kernel could not tell
	Uring     uint64 // io_uring set up in a watched container: opens through it are not seen
	RuleError uint64
	Orders    uint64 // obeyed
	Refused   uint64 // orders
	Waiting   int    // detections that wait for their pod now
	Nameless  uint64 // detections that went on without their pod's name

	// Losses are what is missing, by cause, since the start; Told are the detections that told of them, which the
	// figures above do not count.
	Losses []Loss
	Told   uint64
	// Unprofiled are events that no profile took, because it was not known in time whose they are.
	Unprofiled uint64
}

type counters struct {
	events, matched, coalesced, spooled, lost, blind, uring, ruleError, orders, refused, told, unprofiled, nameless atomic.Uint64
}

// Node is the sensor of one machine.
type Node struct {
	o       Options
	count   counters
	recent  *recent
	first   *firsts
	young   young
	losses  *losses
	opened  *opened
	drifts  *drifts
	orders  *orders
	found   chan found
	waiting chan struct{}
	seq     atomic.Uint64

	damaged   uint64        // records that the spool lost; tellLosses' own
	completed time.Duration // when the tree was last completed; observe's own
}

// New makes a Node and reads which orders it has seen.
func New(o Options) (*Node, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Boot == nil {
		o.Boot = hold.Now
	}
	if o.Queue == 0 {
		o.Queue = foundQueue
	}
	n := &Node{o: o, recent: newRecent(), found: make(chan found, o.Queue), waiting: make(chan struct{}, maxWaiting)}
	n.first, n.young.made = newFirsts(o.Tree, o.Hints, o.Boot), map[uint64]time.Duration{}
	n.losses, n.opened, n.drifts = newLosses(), newOpened(), newDrifts()
	var err error
	if n.orders, err = newOrders(n); err != nil {
		return nil, err
	}
	return n, nil
}

// PodChanged tells of a pod that was added or changed; process.PodOptions.OnChange calls it. It does not block.
func (n *Node) PodChanged(p process.Pod) { n.orders.podChanged(p) }

// Stats reads the counters.
func (n *Node) Stats() Stats {
	c := &n.count
	return Stats{Events: c.events.Load(), Matched: c.matched.Load(), Coalesced: c.coalesced.Load(), Spooled: c.spooled.Load(), Lost: c.lost.Load(),
		Blind: c.blind.Load(), Uring: c.uring.Load(), RuleError: c.ruleError.Load(), Orders: c.orders.Load(), Refused: c.refused.Load(),
		Waiting: len(n.waiting), Nameless: c.nameless.Load(), Losses: n.losses.all(), Told: c.told.Load(), Unprofiled: c.unprofiled.Load()}
}

// Run works until ctx is done or a recorded source has ended and everything of it is spooled, which are no errors. It may
// be called once. Holds stay on after it: they end by themselves.
func (n *Node) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if err := n.orders.adopt(ctx); err != nil { // before any other work
		return fmt.Errorf("adopt holds: %w", err)
	}
	events := make(chan probe.Event, eventQueue)
	var source, emit, obey, look, tell sync.WaitGroup
	ended := make(chan struct{})
	look.Go(func() { n.lookAtYoung(ctx) })
	tell.Go(func() {
		if err := n.tellLosses(ctx, ended); err != nil {
			cancel(err)
		}
	})
	tell.Go(func() { n.saveProfiles(ended) })
	source.Go(func() {
		defer close(events)
		if err := n.o.Source.Run(ctx, events); err != nil {
			cancel(fmt.Errorf("read kernel events: %w", err))
		}
	})
	emit.Go(func() {
		if err := n.emitAll(ctx); err != nil {
			cancel(err)
		}
	})
	obey.Go(func() {
		if err := n.orders.run(ctx); err != nil {
			cancel(err)
		}
	})
	for e := range events {
		n.observe(ctx, e)
	}
	n.drifts.flushAll(ctx, n)
	close(n.found)
	source.Wait()
	emit.Wait()
	close(ended) // and what was lost up to here is told of
	tell.Wait()
	if n.o.Holds == nil { // a recording has ended; a node that holds obeys on
		cancel(nil)
	}
	obey.Wait()
	cause := context.Cause(ctx)
	cancel(nil)
	look.Wait()
	if cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

// lookAtYoung reads what the first processes of new containers were started with, while that can be believed.
func (n *Node) lookAtYoung(ctx context.Context) {
	if n.o.Hints == nil {
		return
	}
	tick := time.NewTicker(lookAtYoung)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			for _, cgroup := range n.young.list(n.o.Boot()) {
				n.first.refresh(cgroup)
			}
		}
	}
}
