// Package correlate takes what intake has spooled to Temporal: many detections become few Signals, one workflow for each
// correlation key, and a node's receipt a Signal to its containment. An item leaves the spool only when Temporal has taken
// it or when it lies in the dead letters with a reason. The package trusts what it reads from the spool, which the server
// verified, and decides nothing about it.
package correlate

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	"tourniquet.dev/tourniquet/internal/sys/fault"
	"tourniquet.dev/tourniquet/internal/sys/spool"
)

// Queue is the read side of the spool; spool.Spool has it. One goroutine calls it.
type Queue interface {
	Next(ctx context.Context) (spool.Record, error)
	Ack(ctx context.Context, records ...spool.Record) error
}

// Blobs is the content-addressed store; Put of what is there already changes nothing.
type Blobs interface {
	Put(ctx context.Context, data []byte) (digest string, err error)
}

// Temporal is what correlate asks of the Temporal client.
type Temporal interface {
	SignalWithStartWorkflow(ctx context.Context, workflowID, signalName string, signalArg any, options client.StartWorkflowOptions,
		workflow any, workflowArgs ...any) (client.WorkflowRun, error)
	SignalWorkflow(ctx context.Context, workflowID, runID, signalName string, arg any) error
}

// Options is what a Correlator needs. Zero durations and sizes have the defaults named below.
type Options struct {
	Queue    Queue
	Store    Blobs
	Temporal Temporal
	Dead     *DeadLetters
	Seen     *Seen
	Count    *Counters
	Log      *slog.Logger
	// Window is how long detections gather after a Signal; the first one after a quiet time waits for nothing. 20 ms.
	Window time.Duration
	// PerSignal bounds the detections of one Signal. 64.
	PerSignal int
	// Batch bounds what is taken from the spool before it is acknowledged. 4096.
	Batch int
	// Parallel bounds the calls under way. 8.
	Parallel int
	// Started is when this process began: what came into the spool before, an earlier one accepted.
	Started time.Time
}

// Correlator is the way from the spool to Temporal.
type Correlator struct {
	o     Options
	slots chan struct{}
	last  time.Time // when the last batch was complete
}

// idle ends a batch whose window is over: in a storm the spool has more at once, and a batch grows to its bound.
const idle = time.Millisecond

const (
	callTimeout = 10 * time.Second
	firstPause  = 100 * time.Millisecond
	longPause   = 10 * time.Second
)

// New returns a Correlator.
func New(o Options) *Correlator {
	def := func(p *int, v int) {
		if *p == 0 {
			*p = v
		}
	}
	if o.Window == 0 {
		o.Window = 20 * time.Millisecond
	}
	def(&o.PerSignal, 64)
	def(&o.Batch, 4096)
	def(&o.Parallel, 8)
	return &Correlator{o: o, slots: make(chan struct{}, o.Parallel)}
}

// Run works until ctx is done, which is no error. It returns an error when the spool or the disk fails: then the process
// should end, and a new one resume from the spool. It may be called once.
func (c *Correlator) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		batch, err := c.collect(ctx)
		if err == nil {
			err = c.flush(ctx, batch)
		}
		if err != nil && ctx.Err() == nil {
			return err
		}
	}
	return nil
}

// collect waits for a record and gathers what comes until the window since the last batch is over and no more is there.
func (c *Correlator) collect(ctx context.Context) ([]spool.Record, error) {
	first, err := c.o.Queue.Next(ctx)
	if err != nil {
		return nil, err
	}
	batch, over := []spool.Record{first}, c.last.Add(c.o.Window)
	for len(batch) < c.o.Batch {
		waiting, cancel := context.WithTimeout(ctx, max(time.Until(over), idle))
		r, err := c.o.Queue.Next(waiting)
		ended := waiting.Err() != nil && ctx.Err() == nil
		cancel()
		if err != nil && ended {
			break
		}
		if err != nil {
			return nil, err
		}
		batch = append(batch, r)
	}
	c.last = time.Now()
	return batch, nil
}

// flush brings a whole batch to where it belongs, and only then takes it from the spool.
func (c *Correlator) flush(ctx context.Context, batch []spool.Record) error {
	fault.Point("correlate.flush/before")
	work, keys, err := c.sort(ctx, batch)
	if err != nil {
		return err
	}
	if err := c.parallel(ctx, work); err != nil {
		return err
	}
	fault.Point("correlate.flush/during")
	if err := c.o.Seen.Commit(keys); err != nil {
		return err
	}
	if err := c.o.Queue.Ack(context.WithoutCancel(ctx), batch...); err != nil {
		return err
	}
	fault.Point("correlate.flush/after")
	return nil
}

// parallel runs all of work, a bounded number at a time, and returns the first error.
func (c *Correlator) parallel(ctx context.Context, work []func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var group sync.WaitGroup
	for _, do := range work {
		select {
		case c.slots <- struct{}{}:
		case <-ctx.Done():
			group.Wait()
			return context.Cause(ctx)
		}
		group.Go(func() {
			defer func() { <-c.slots }()
			if err := do(ctx); err != nil {
				cancel(err)
			}
		})
	}
	group.Wait()
	return context.Cause(ctx)
}

// until repeats do until it succeeds, or fails for good, or ctx is done.
func (c *Correlator) until(ctx context.Context, what string, do func(context.Context) error) error {
	pause := firstPause
	for {
		attempt, cancel := context.WithTimeout(ctx, callTimeout)
		err := do(attempt)
		cancel()
		if err == nil || permanent(err) {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		c.o.Log.Warn("kept in the spool, tried again", "what", what, "pause", pause, "err", err)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		pause = min(2*pause, longPause)
	}
}

// permanent reports whether Temporal will never take this.
func permanent(err error) bool {
	var invalid *serviceerror.InvalidArgument
	var gone *serviceerror.NotFound
	return errors.As(err, &invalid) || errors.As(err, &gone)
}
