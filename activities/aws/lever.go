package aws

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"tourniquet.dev/tourniquet/activities"
	"tourniquet.dev/tourniquet/internal/canonical"
	"tourniquet.dev/tourniquet/internal/plan"
	"tourniquet.dev/tourniquet/internal/sys/fault"
)

// maxState bounds a pre-image's state.
const maxState = 64 << 10

// detailTime is the receipt's detail with the time of the last change, by AWS's clock.
const detailTime = "aws_time"

// lever is how one kind of object is switched: S is its state as a pre-image records it. Every switch is
// read, compare, write; IAM knows no conditional write, so between the last two another writer can still slip in.
type lever[S comparable] struct {
	read func(ctx context.Context, t plan.Target) (S, error)
	// cut is the state that the action wants, from the one it finds; on reports whether a state is such a one.
	cut func(now S) S
	on  func(pre, now S) bool
	// write switches the target from one state to the other and returns AWS's time of doing so.
	write func(ctx context.Context, t plan.Target, from, to S) (time.Time, error)
	did   string
}

// capture records the state that an undo restores.
func (l lever[S]) capture(ctx context.Context, t plan.Target) (plan.PreImage, error) {
	state, err := l.read(ctx, t)
	if err != nil {
		return plan.PreImage{}, fmt.Errorf("capture %s: %w", t, err)
	}
	raw, err := canonical.Marshal(state)
	if err != nil {
		return plan.PreImage{}, fmt.Errorf("capture %s: %w", t, err)
	}
	return plan.PreImage{Target: t, Digest: plan.DigestOf(raw), State: raw}, nil
}

// apply switches every target on. What fails half-way is gone on with by the next call.
func (l lever[S]) apply(ctx context.Context, in plan.Intent, r *plan.Receipt) error {
	for _, image := range in.PreImages {
		effect, at, err := l.applyOne(ctx, image)
		fault.Point("apply.call/during")
		if err != nil {
			return fmt.Errorf("%s %s: %w", in.Step.Action, image.Target, err)
		}
		r.Effects = append(r.Effects, effect)
		if !at.IsZero() {
			r.Detail[detailTime] = at.UTC().Format(time.RFC3339)
		}
	}
	return nil
}

func (l lever[S]) applyOne(ctx context.Context, image plan.PreImage) (plan.Effect, time.Time, error) {
	t := image.Target
	pre, now, err := l.both(ctx, image)
	if err != nil {
		return plan.Effect{}, time.Time{}, err
	}
	switch {
	case now == pre && l.on(pre, pre):
		return effect(t, "was so before", now)
	case l.on(pre, now):
		return effect(t, l.did, now)
	case now != pre:
		return plan.Effect{}, time.Time{}, fmt.Errorf("is not what the plan saw: %w", activities.ErrConflict)
	}
	want := l.cut(now)
	at, err := l.settle(ctx, t, now, want, func(s S) bool { return l.on(pre, s) })
	if err != nil {
		return plan.Effect{}, time.Time{}, err
	}
	e, _, err := effect(t, l.did, want)
	return e, at, err
}

// undo switches every target back to its pre-image, the last one first. One that fails keeps none of the others on.
func (l lever[S]) undo(ctx context.Context, in plan.Intent) error {
	var errs []error
	for _, image := range slices.Backward(in.PreImages) {
		err := l.undoOne(ctx, image)
		fault.Point("undo.call/during")
		if err != nil {
			errs = append(errs, fmt.Errorf("undo %s %s: %w", in.Step.Action, image.Target, err))
		}
	}
	return errors.Join(errs...)
}

// undoOne compares with the state that the cut makes, which is what the receipt's post state names; so it also knows
// its own work when the crash came before the receipt.
func (l lever[S]) undoOne(ctx context.Context, image plan.PreImage) error {
	pre, now, err := l.both(ctx, image)
	switch {
	case err != nil:
		return err
	case now == pre || l.on(pre, pre):
		return nil // back already, or nothing was changed
	case !l.on(pre, now):
		return fmt.Errorf("was changed by someone else: %w", activities.ErrConflict)
	}
	_, err = l.settle(ctx, image.Target, now, pre, func(s S) bool { return s == pre })
	return err
}

// settle writes, and where the answer does not come reads the state back instead of writing again.
func (l lever[S]) settle(ctx context.Context, t plan.Target, from, to S, done func(S) bool) (time.Time, error) {
	at, err := l.write(ctx, t, from, to)
	if !errors.Is(err, activities.ErrUnknown) {
		return at, err
	}
	now, readErr := l.read(context.WithoutCancel(ctx), t)
	if readErr == nil && done(now) {
		return at, nil
	}
	return at, err
}

// both reads what stands now beside what stood before, and refuses an object that only bears the same name.
func (l lever[S]) both(ctx context.Context, image plan.PreImage) (pre, now S, err error) {
	raw, err := canonical.Canonicalize(image.State) // whoever carried it may have spaced or escaped it anew
	if err == nil {
		err = canonical.Unmarshal(raw, &pre, maxState)
	}
	if err != nil || plan.DigestOf(raw) != image.Digest {
		return pre, now, fmt.Errorf("pre-image: is not what its digest names: %w", activities.ErrRefused)
	}
	now, err = l.read(ctx, image.Target)
	return pre, now, err
}

func effect[S any](t plan.Target, did string, post S) (plan.Effect, time.Time, error) {
	digest, err := canonical.Digest(post)
	return plan.Effect{Target: t, Did: did, Post: digest}, time.Time{}, err
}

// receipt is the unsigned receipt of an intent; the gate signs it.
func (s *System) receipt(in plan.Intent) plan.Receipt {
	return plan.Receipt{V: 1, By: string(plan.ContainAWS), Key: in.Key, IncidentID: in.IncidentID, PlanDigest: in.PlanDigest,
		Step: in.Step.Index, Action: in.Step.Action, Phase: plan.Begun, Authority: in.Authority, At: s.now(), Ends: in.Ends,
		Detail: map[string]string{}}
}

// applyWith proves the account, pulls the lever and returns the receipt; with an error, of what was done so far. make
// gets the time by AWS's clock.
func applyWith[S comparable](ctx context.Context, s *System, in plan.Intent, make func(at time.Time) lever[S]) (plan.Receipt, error) {
	r := s.receipt(in)
	at, err := s.prove(ctx)
	if err != nil {
		return r, err
	}
	r.Detail[detailTime] = at.Format(time.RFC3339) // of a change made before a crash: not later than this
	if err := make(at).apply(ctx, in, &r); err != nil {
		return r, err
	}
	r.Phase, r.At = plan.Applied, s.now()
	return r, nil
}

func undoWith[S comparable](ctx context.Context, s *System, in plan.Intent, l lever[S]) error {
	if _, err := s.Prove(ctx); err != nil {
		return err
	}
	return l.undo(ctx, in)
}
