package conformance

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tourniquet.dev/tourniquet/activities"
	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/plan"
	"tourniquet.dev/tourniquet/internal/trust"
)

func roundTrip(t *testing.T, s Subject) {
	w := s.Make(t)
	before, in := w.Snapshot(t), Intend(t, w)
	undo(t, w, in, apply(t, w, in))
	WantSame(t, w, before)
}

func applyTwice(t *testing.T, s Subject) {
	w := s.Make(t)
	before, in := w.Snapshot(t), Intend(t, w)
	first := apply(t, w, in)
	after, writes := w.Snapshot(t), w.Link.Writes()
	second := apply(t, w, in)
	WantSame(t, w, after)
	if diff := cmp.Diff(posts(first), posts(second)); diff != "" {
		t.Error("post states (-first +second):\n" + diff)
	}
	if extra := w.Link.Writes() - writes; extra > len(in.Targets) {
		t.Errorf("the second apply asked for %d changes", extra)
	}
	undo(t, w, in, second)
	WantSame(t, w, before)
}

func undoTwice(t *testing.T, s Subject) {
	w := s.Make(t)
	before, in := w.Snapshot(t), Intend(t, w)
	r := apply(t, w, in)
	undo(t, w, in, r)
	undo(t, w, in, r)
	WantSame(t, w, before)
}

func undoFirst(t *testing.T, s Subject) {
	w := s.Make(t)
	before, in := w.Snapshot(t), Intend(t, w)
	undo(t, w, in, plan.Receipt{})
	WantSame(t, w, before)
}

func (w World) patience(t *testing.T) (context.Context, context.CancelFunc) {
	if w.Patience == 0 {
		return context.WithCancel(t.Context())
	}
	return context.WithTimeout(t.Context(), w.Patience)
}

// changes counts how many changes an apply and an undo ask for.
func changes(t *testing.T, s Subject) (applying, undoing int) {
	t.Helper()
	w := s.Make(t)
	in, start := Intend(t, w), w.Link.Writes()
	r := apply(t, w, in)
	middle := w.Link.Writes()
	undo(t, w, in, r)
	return middle - start, w.Link.Writes() - middle
}

// eachCut runs try with the link cut at every change of n, before and after it takes effect.
func eachCut(t *testing.T, s Subject, n int, try func(t *testing.T, w World, cut func())) {
	if n == 0 {
		t.Fatal("no change was asked for: there is nothing to test")
	}
	for i := 1; i <= n; i++ {
		for _, applied := range []bool{false, true} {
			t.Run(fmt.Sprintf("change %d, applied %t", i, applied), func(t *testing.T) {
				w := s.Make(t)
				try(t, w, func() { w.Link.Cut(i, applied) })
			})
		}
	}
}

func resumed(t *testing.T, s Subject) {
	n, _ := changes(t, s)
	eachCut(t, s, n, func(t *testing.T, w World, cut func()) {
		before, in := w.Snapshot(t), Intend(t, w)
		cut()
		ctx, cancel := w.patience(t)
		defer cancel()
		if _, err := w.Action.Apply(ctx, in); err == nil {
			t.Fatal("apply over a cut link reports success")
		} else if errors.Is(err, activities.ErrRefused) || errors.Is(err, activities.ErrConflict) {
			t.Fatal("apply over a cut link gives up for good:", err)
		}
		w.Link.Heal()
		undo(t, w, in, apply(t, w, in))
		WantSame(t, w, before)
	})
}

func undoneHalfway(t *testing.T, s Subject) {
	n, _ := changes(t, s)
	eachCut(t, s, n, func(t *testing.T, w World, cut func()) {
		before, in := w.Snapshot(t), Intend(t, w)
		cut()
		ctx, cancel := w.patience(t)
		defer cancel()
		r, err := w.Action.Apply(ctx, in)
		if err == nil {
			t.Fatal("apply over a cut link reports success")
		}
		w.Link.Heal()
		undo(t, w, in, r)
		WantSame(t, w, before)
	})
}

func undoResumed(t *testing.T, s Subject) {
	_, n := changes(t, s)
	eachCut(t, s, n, func(t *testing.T, w World, cut func()) {
		before, in := w.Snapshot(t), Intend(t, w)
		r := apply(t, w, in)
		cut()
		ctx, cancel := w.patience(t)
		defer cancel()
		if err := w.Action.Undo(ctx, in, r); err == nil {
			t.Fatal("undo over a cut link reports success")
		} else if errors.Is(err, activities.ErrRefused) || errors.Is(err, activities.ErrConflict) {
			t.Fatal("undo over a cut link gives up for good:", err)
		}
		w.Link.Heal()
		undo(t, w, in, r)
		WantSame(t, w, before)
	})
}

// lostAnswer loses one answer only: the action reads back by itself, and says that it does not know, or that it is
// done; never that it is done when it is not.
func lostAnswer(t *testing.T, s Subject) {
	n, _ := changes(t, s)
	for i := 1; i <= n; i++ {
		for _, applied := range []bool{false, true} {
			t.Run(fmt.Sprintf("change %d, applied %t", i, applied), func(t *testing.T) {
				w := s.Make(t)
				before, in := w.Snapshot(t), Intend(t, w)
				w.Link.Lose(i, applied)
				r, err := w.Action.Apply(t.Context(), in)
				switch {
				case err == nil:
					wantHeld(t, w, true)
				case !errors.Is(err, activities.ErrUnknown):
					t.Fatalf("a lost answer is %v, want ErrUnknown", err)
				case applied:
					t.Fatal("the change took effect and was not read back:", err)
				default:
					r = apply(t, w, in)
				}
				undo(t, w, in, r)
				WantSame(t, w, before)
			})
		}
	}
}

func drift(t *testing.T, s Subject) {
	if s.Make(t).Drift == nil {
		t.Log("has no third state")
		return
	}
	t.Run("before the apply", func(t *testing.T) {
		w := s.Make(t)
		in := Intend(t, w)
		w.Drift(t)
		drifted := w.Snapshot(t)
		if _, err := w.Action.Apply(t.Context(), in); !errors.Is(err, activities.ErrConflict) {
			t.Errorf("apply: %v, want ErrConflict", err)
		}
		WantSame(t, w, drifted)
	})
	t.Run("before the undo", func(t *testing.T) {
		w := s.Make(t)
		in := Intend(t, w)
		r := apply(t, w, in)
		w.Drift(t)
		drifted := w.Snapshot(t)
		if err := w.Action.Undo(t.Context(), in, r); !errors.Is(err, activities.ErrConflict) {
			t.Errorf("undo: %v, want ErrConflict", err)
		}
		WantSame(t, w, drifted)
	})
}

func replaced(t *testing.T, s Subject) {
	if s.Make(t).Replace == nil {
		t.Log("names never recur")
		return
	}
	w := s.Make(t)
	in := Intend(t, w)
	w.Replace(t)
	other := w.Snapshot(t)
	if _, err := w.Action.Expand(t.Context(), w.Step); !errors.Is(err, activities.ErrConflict) {
		t.Errorf("expand: %v, want ErrConflict", err)
	}
	if _, err := w.Action.Apply(t.Context(), in); !errors.Is(err, activities.ErrConflict) {
		t.Errorf("apply: %v, want ErrConflict", err)
	}
	if err := w.Action.Undo(t.Context(), in, plan.Receipt{}); err != nil && !errors.Is(err, activities.ErrConflict) {
		t.Errorf("undo: %v, want nothing or ErrConflict", err)
	}
	WantSame(t, w, other)
}

func reasserted(t *testing.T, s Subject) {
	if s.Make(t).Lift == nil {
		t.Log("nobody but us can lift it")
		return
	}
	w := s.Make(t)
	before, in := w.Snapshot(t), Intend(t, w)
	apply(t, w, in)
	w.Lift(t)
	wantHeld(t, w, false)
	undo(t, w, in, apply(t, w, in))
	WantSame(t, w, before)
}

// observed gives the read-only role what the workflow gives it: the intent without the content of its pre-images.
func observed(t *testing.T, s Subject) {
	w := s.Make(t)
	in := Intend(t, w)
	bare := in
	bare.PreImages = nil
	for _, image := range in.PreImages {
		bare.PreImages = append(bare.PreImages, plan.PreImage{Target: image.Target, Digest: image.Digest})
	}
	r := apply(t, w, in)
	find := func(want plan.Finding) {
		t.Helper()
		before := w.Snapshot(t)
		o, err := w.Reader.Verify(t.Context(), bare, r)
		if err != nil {
			t.Fatal("verify:", err)
		}
		if o.Finding != want || len(o.Witnesses) == 0 {
			t.Errorf("finding %q, want %q; witnesses %q", o.Finding, want, o.Witnesses)
		}
		WantSame(t, w, before)
	}
	if w.Settle != nil {
		find(plan.Asserted)
		w.Settle(t)
	}
	find(w.Finding)
	if w.Lift != nil {
		w.Lift(t)
		find(plan.NotHolding)
	}
	if _, ok := w.Reader.(activities.Action); ok {
		t.Error("the read-only role's reader can also act")
	}
}

// watched: the gate compares the receipt's post states with what Capture returns later.
func watched(t *testing.T, s Subject) {
	w := s.Make(t)
	in := Intend(t, w)
	r := apply(t, w, in)
	for _, e := range r.Effects {
		image, err := w.Action.Capture(context.Background(), in.Step, e.Target)
		if err != nil {
			t.Fatal("capture:", err)
		}
		if image.Digest != e.Post {
			t.Errorf("%s: captured %s, post state %s", e.Target, image.State, e.Post)
		}
	}
}

func protected(t *testing.T, s Subject) {
	w, protects := s.Protected(t)
	found, err := w.Action.Expand(t.Context(), w.Step)
	if err != nil {
		t.Fatal("expand:", err)
	}
	p := &plan.Plan{APIVersion: plan.APIVersion, Kind: plan.Kind, IncidentID: IncidentID, CorrelationKey: "k", Purpose: plan.Full, Option: "all",
		Playbook: plan.PlaybookRef{Name: "p", Version: 1, Digest: PlanDigest}, Detections: []string{PlanDigest}, Steps: []plan.Step{w.Step}}
	judge := func(protects trust.Protected, found []plan.Target) authz.Code {
		t.Helper()
		file := &trust.File{Scope: trust.Scope{Accounts: []string{w.Step.Target.Scope}, Clusters: []string{w.Step.Target.Scope}}, Protected: protects,
			Ceilings: trust.Ceilings{MaxTargets: 10}}
		_, err := authz.Judge(file, nil, p, authz.Request{Verb: authz.VerbApply, Found: found}, nil, authz.Spent{}, time.Now())
		var refusal *authz.Refusal
		if !errors.As(err, &refusal) {
			t.Fatalf("judge: %v, want a refusal", err)
		}
		return refusal.Code
	}
	if code := judge(protects, found); code != authz.CodeProtected {
		t.Errorf("judge: %s for %v, want %s", code, found, authz.CodeProtected)
	}
	if code := judge(trust.Protected{}, found); code != authz.CodePlaybook {
		t.Errorf("judge: %s where nothing is protected, want to get as far as %s", code, authz.CodePlaybook)
	}
}

func posts(r plan.Receipt) map[string]string {
	out := map[string]string{}
	for _, e := range r.Effects {
		out[e.Target.String()] = e.Post
	}
	return out
}
