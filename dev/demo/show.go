package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	"tourniquet.dev/tourniquet/workflows"
)

const lookEvery = 200 * time.Millisecond

// show follows an incident by its Query and prints what is new.
type show struct {
	out      io.Writer
	temporal client.Client
	id       string // of the workflow
	begin    time.Time

	mu     sync.Mutex
	view   workflows.StateView
	lines  int
	steps  map[string]string
	change chan struct{} // closed and replaced at each look
}

func newShow(out io.Writer, c client.Client, key string) *show {
	return &show{out: out, temporal: c, id: workflows.IncidentWorkflowID(key), begin: time.Now(), steps: map[string]string{}, change: make(chan struct{})}
}

// line prints one line with the time since the attack.
func (s *show) line(at time.Time, format string, args ...any) {
	fmt.Fprintf(s.out, "  %+8.3fs  %s\n", at.Sub(s.begin).Seconds(), fmt.Sprintf(format, args...))
}

// run looks until ctx ends.
func (s *show) run(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		s.look(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// look asks once. A workflow that is not there yet, or a worker that is busy, is asked again.
func (s *show) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	answer, err := s.temporal.QueryWorkflow(ctx, s.id, "", workflows.QueryState)
	var view workflows.StateView
	if err == nil {
		err = answer.Get(&view)
	}
	if err != nil {
		var none *serviceerror.NotFound
		if !errors.As(err, &none) && ctx.Err() == nil {
			s.line(time.Now(), "(the incident cannot be asked: %v)", err)
		}
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.print(view)
	s.view = view
	close(s.change)
	s.change = make(chan struct{})
}

func (s *show) print(v workflows.StateView) {
	for _, t := range v.Timeline[min(s.lines, len(v.Timeline)):] {
		s.line(t.At, "%s", t.Text)
	}
	s.lines = len(v.Timeline)
	for _, c := range v.Containments {
		for _, step := range c.Steps {
			key := fmt.Sprint(c.Plan, step.Index)
			if s.steps[key] == step.State {
				continue
			}
			s.steps[key] = step.State
			witness := ""
			if len(step.Witnesses) > 0 {
				witness = "  (" + step.Witnesses[len(step.Witnesses)-1] + ")"
			}
			s.line(time.Now(), "%-24s %-9s %s%s", step.Action, strings.ToUpper(step.State), c.Purpose, witness)
		}
	}
}

// state is the incident as it was seen last.
func (s *show) state() (workflows.StateView, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.view, s.change
}

// until waits for the incident to be as asked, at most for so long.
func (s *show) until(ctx context.Context, what string, within time.Duration, ok func(workflows.StateView) bool) (workflows.StateView, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, within, fmt.Errorf("not within %s", within))
	defer cancel()
	for {
		v, changed := s.state()
		if ok(v) {
			return v, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return v, fmt.Errorf("wait until %s: %w; it is %s", what, context.Cause(ctx), describe(v))
		}
	}
}

func describe(v workflows.StateView) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%q, playbook %q, %d options", v.State, v.Playbook, len(v.Options))
	for _, c := range v.Containments {
		for _, s := range c.Steps {
			fmt.Fprintf(&b, "; %s %s: %s %s", c.Purpose, s.Action, s.State, s.Note)
		}
	}
	return b.String()
}
