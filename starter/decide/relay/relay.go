// Package relay brings decisions that stand in decide's ledger to the workflows they are for, in order, and again until
// Temporal has taken them. It holds no authority: a decision's signature does. It never drops one because Temporal is
// down; what a restart finds unsettled in the ledger is given to it again. Called by starter/decide.
package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/workflows"
)

// ErrClosed is what a Sender says when the workflow does not run, or not any more.
var ErrClosed = errors.New("workflow is closed")

// A Sender signals a workflow. Any error but ErrClosed means "try again".
type Sender interface {
	Send(ctx context.Context, workflowID string, d workflows.DecisionMade) error
}

// Outcome is what became of a decision.
type Outcome string

const (
	// Signalled: at least one of its workflows has it.
	Signalled Outcome = "signalled"
	// Closed: none of its workflows runs any more.
	Closed Outcome = "closed"
)

// Item is a decision on its way.
type Item struct {
	// Digest is that of the decision's envelope.
	Digest    string
	Decision  authz.Envelope
	Workflows []string
}

// Options are what a Relay needs.
type Options struct {
	Sender Sender
	// Settled is told what became of each item, to write it into the ledger. An item whose Settled fails may be signalled
	// again after a restart: the workflow counts it once.
	Settled func(Item, Outcome) error
	// Timeout bounds one attempt; Pause is how long to wait when Temporal cannot be reached.
	Timeout, Pause time.Duration
	Log            *slog.Logger
}

// A Relay is safe for concurrent use. Run must run for anything to move.
type Relay struct {
	o    Options
	mu   sync.Mutex
	all  []*parcel
	wake chan struct{}
}

type parcel struct {
	Item
	sent int // how many of Workflows are done with
	live bool
	done chan Outcome
}

// New returns a relay with what the ledger had unsettled.
func New(o Options, unsettled []Item) *Relay {
	r := &Relay{o: o, wake: make(chan struct{}, 1)}
	for _, item := range unsettled {
		r.Add(item)
	}
	return r
}

// Add takes a decision that stands in the ledger. The channel gives its outcome once it is settled.
func (r *Relay) Add(item Item) <-chan Outcome {
	p := &parcel{Item: item, done: make(chan Outcome, 1)}
	r.mu.Lock()
	r.all = append(r.all, p)
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default: // it is awake
	}
	return p.done
}

// Waiting is how many decisions are not settled.
func (r *Relay) Waiting() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.all)
}

// Run brings decisions to their workflows until ctx ends.
func (r *Relay) Run(ctx context.Context) error {
	for {
		var again <-chan time.Time
		if !r.pass(ctx) {
			again = time.After(r.o.Pause)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-again:
		case <-r.wake:
		}
	}
}

// pass tries everything once, oldest first, and reports whether nothing is left.
func (r *Relay) pass(ctx context.Context) bool {
	r.mu.Lock()
	batch := append([]*parcel(nil), r.all...)
	r.mu.Unlock()
	empty := true
	for _, p := range batch {
		if err := r.send(ctx, p); err != nil {
			r.o.Log.Warn("decision waits for Temporal", "decision", p.Digest, "err", err)
			empty = false
			continue
		}
		r.settle(p)
	}
	return empty
}

// send signals those workflows that do not have the decision yet.
func (r *Relay) send(ctx context.Context, p *parcel) error {
	for p.sent < len(p.Workflows) {
		attempt, cancel := context.WithTimeout(ctx, r.o.Timeout)
		err := r.o.Sender.Send(attempt, p.Workflows[p.sent], workflows.DecisionMade{Decision: p.Decision})
		cancel()
		if err != nil && !errors.Is(err, ErrClosed) {
			return fmt.Errorf("signal %s: %w", p.Workflows[p.sent], err)
		}
		p.live = p.live || err == nil
		p.sent++
	}
	return nil
}

func (r *Relay) settle(p *parcel) {
	outcome := Closed
	if p.live {
		outcome = Signalled
	}
	if err := r.o.Settled(p.Item, outcome); err != nil {
		r.o.Log.Error("settled decision could not be recorded; it will be signalled again after a restart", "decision", p.Digest, "err", err)
	}
	r.mu.Lock()
	for i, o := range r.all {
		if o == p {
			r.all = append(r.all[:i:i], r.all[i+1:]...)
			break
		}
	}
	r.mu.Unlock()
	p.done <- outcome
}
