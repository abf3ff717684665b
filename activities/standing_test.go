package activities_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tourniquet.dev/tourniquet/activities"
	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/authz/authztest"
	"tourniquet.dev/tourniquet/internal/plan"
	"tourniquet.dev/tourniquet/internal/trust"
)

// outcome is how an action's Apply ends.
type outcome struct {
	applied bool  // the change was made before the error
	err     error // what Apply returns
}

// TestI14I17NothingStandsUnheld: whatever Apply says, a step that comes off by itself is off after its end, and what was
// never changed is never undone. The gate is the only one at work: no workflow asks.
func TestI14I17NothingStandsUnheld(t *testing.T) {
	for name, tc := range map[string]struct {
		outcome
		want []string
	}{
		"done":                           {outcome{true, nil}, []string{"apply node/cut-network", "undo node/cut-network"}},
		"refused before the change":      {outcome{false, activities.ErrRefused}, nil},
		"conflict after the change":      {outcome{true, activities.ErrConflict}, []string{"apply node/cut-network", "undo node/cut-network"}},
		"no answer after the change":     {outcome{true, activities.ErrUnknown}, []string{"apply node/cut-network", "undo node/cut-network"}},
		"no answer and no change":        {outcome{false, activities.ErrUnknown}, nil},
		"another error after the change": {outcome{true, errors.New("connection reset")}, []string{"apply node/cut-network", "undo node/cut-network"}},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := context.Background()
			b := newBench(t, t.TempDir())
			b.sys.outcome = &tc.outcome
			_, err := b.gate.ApplyStep(ctx, b.input(b.w.Plan(plan.Stop), 0))
			if (err == nil) != (tc.err == nil) {
				t.Fatalf("apply says %v", err)
			}
			if stands := err != nil && strings.Contains(err.Error(), activities.ErrStanding.Error()); stands != (tc.applied && errors.Is(tc.err, activities.ErrConflict)) {
				t.Errorf("says that something may stand: %v (%v)", stands, err)
			}
			for _, at := range []time.Duration{time.Minute, 11 * time.Minute, 12 * time.Minute} {
				b.now = start.Add(at)
				b.reopen(t)
				_ = b.gate.Tend(ctx) // what it cannot do now it does at the next look
			}
			if diff := cmp.Diff(tc.want, b.sys.effects()); diff != "" {
				t.Errorf("effects (-want +got):\n%s", diff)
			}
			if got := b.sys.read(authztest.PodUID); got != "free" {
				t.Errorf("after its end the pod is %s", got)
			}
		})
	}
}

// TestI14HalfAppliedReviewStepWaitsForAPerson: it stays as it is past every clock, and a signed release takes it off.
func TestI14HalfAppliedReviewStepWaitsForAPerson(t *testing.T) {
	ctx := context.Background()
	b := newBench(t, t.TempDir())
	p := b.w.Plan(plan.Full)
	b.sys.outcome = &outcome{true, activities.ErrConflict}
	if _, err := b.gate.ApplyStep(ctx, b.input(p, 2, b.w.Decide(authz.Approve, p, "ana", trust.Click))); err == nil {
		t.Fatal("the conflict was swallowed")
	}
	b.now = start.Add(25 * time.Hour)
	target := p.Steps[2].Target.UID
	if err := b.gate.Tend(ctx); err != nil || b.sys.read(target) != "locked" {
		t.Fatalf("tend: %v, target %s", err, b.sys.read(target))
	}
	b.w.Now = b.now
	if _, err := b.gate.UndoStep(ctx, b.input(p, 2, b.w.Decide(authz.Release, p, "ana", trust.OwnKey))); err != nil {
		t.Fatal(err)
	}
	if got := b.sys.read(target); got != "free" {
		t.Errorf("after the release the target is %s", got)
	}
}

// TestI11ResumeNeverAppliesAfterTheEnd: an intent that a crash left open is not begun a day later.
func TestI11ResumeNeverAppliesAfterTheEnd(t *testing.T) {
	for name, tc := range map[string]struct {
		applied bool
		after   time.Duration
		purpose plan.Purpose
		want    []string
	}{
		"begun, past its end":                    {true, 24 * time.Hour, plan.Stop, []string{"apply node/cut-network", "undo node/cut-network"}},
		"not begun, past its end":                {false, 24 * time.Hour, plan.Stop, nil},
		"begun, within its time":                 {true, time.Minute, plan.Stop, []string{"apply node/cut-network"}},
		"not begun, within its time":             {false, time.Minute, plan.Stop, []string{"apply node/cut-network"}},
		"under review, begun an hour ago":        {true, time.Hour, plan.Full, []string{"apply kubernetes/isolate-pod"}},
		"under review, not begun in an hour":     {false, time.Hour, plan.Full, nil},
		"under review, not begun within moments": {false, time.Minute, plan.Full, []string{"apply kubernetes/isolate-pod"}},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := context.Background()
			b := newBench(t, t.TempDir())
			p := b.w.Plan(tc.purpose)
			b.sys.outcome = &outcome{tc.applied, fmt.Errorf("gone: %w", activities.ErrUnknown)}
			if _, err := b.gate.ApplyStep(ctx, b.input(p, 0, b.w.Decide(authz.Approve, p, "ana", trust.Click))); err == nil {
				t.Fatal("the lost answer was swallowed")
			}
			b.sys.outcome, b.now = nil, start.Add(tc.after)
			b.reopen(t)
			_ = b.gate.Resume(ctx) // giving up is an error that a person sees in the log
			if diff := cmp.Diff(tc.want, b.sys.effects()); diff != "" {
				t.Errorf("effects (-want +got):\n%s", diff)
			}
		})
	}
}

// TestI18SecondHoldKeepsTheFirstState: a hold over a half-applied one keeps the state from before both.
func TestI18SecondHoldKeepsTheFirstState(t *testing.T) {
	ctx := context.Background()
	b := newBench(t, t.TempDir())
	one, two := b.w.Plan(plan.Stop), b.w.Plan(plan.Stop)
	two.Option = "again"
	b.sys.outcome = &outcome{true, activities.ErrUnknown}
	if _, err := b.gate.ApplyStep(ctx, b.input(one, 0)); err == nil {
		t.Fatal("the lost answer was swallowed")
	}
	b.sys.outcome = nil
	if _, err := b.gate.ApplyStep(ctx, b.input(two, 0)); err != nil {
		t.Fatal(err)
	}
	for _, p := range []*plan.Plan{one, two} {
		if _, err := b.gate.UndoStep(ctx, b.input(p, 0, b.w.Decide(authz.Release, p, "ana", trust.OwnKey))); err != nil {
			t.Fatal(err)
		}
	}
	if got := b.sys.read(authztest.PodUID); got != "free" {
		t.Errorf("after both releases the pod is %s", got)
	}
}
