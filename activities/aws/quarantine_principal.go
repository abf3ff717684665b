package aws

import (
	"context"
	"fmt"
	"time"

	"tourniquet.dev/tourniquet/activities"
	"tourniquet.dev/tourniquet/internal/plan"
)

// quarantineReader observes aws/quarantine-principal: the step names an access key, the cut stands on the user that
// owns it.
type quarantineReader struct{ *System }

// Expand returns the owning user.
func (q quarantineReader) Expand(ctx context.Context, s plan.Step) ([]plan.Target, error) {
	if err := q.inAccount(s.Target); err != nil {
		return nil, err
	}
	if s.Closure == nil {
		return nil, fmt.Errorf("%s: needs the closure %q: %w", s.Action, "the user that owns the key", activities.ErrRefused)
	}
	owner, err := q.ownerOf(ctx, s.Target.Name)
	if err != nil {
		return nil, err
	}
	return []plan.Target{q.target(owner)}, nil
}

// Capture records whether the quarantine stands on the user already.
func (q quarantineReader) Capture(ctx context.Context, _ plan.Step, t plan.Target) (plan.PreImage, error) {
	return q.quarantineLever().capture(ctx, t)
}

// Verify reads the attachment back, asks the policy simulator, and looks for calls that still went through.
func (q quarantineReader) Verify(ctx context.Context, in plan.Intent, r plan.Receipt) (plan.Observation, error) {
	return q.observe(ctx, in, r, func(o *sight) error {
		for _, t := range in.Targets {
			p, err := q.readPrincipal(ctx, t)
			if err := o.readBack(t, err, p.Quarantined, "bears "+q.options.QuarantinePolicyARN, "does not bear "+q.options.QuarantinePolicyARN); err != nil {
				return err
			}
			if err != nil {
				continue
			}
			q.simulate(ctx, o, p, nil)
			keys, err := q.keysOf(ctx, p.Name)
			if err != nil {
				o.gap("the user's keys could not be listed: %v", err)
				continue
			}
			for _, k := range keys {
				q.auditKey(ctx, o, k.Key)
			}
		}
		return nil
	})
}

type quarantine struct{ quarantineReader }

// Apply attaches the managed quarantine policy to the user.
func (q quarantine) Apply(ctx context.Context, in plan.Intent) (plan.Receipt, error) {
	return applyWith(ctx, q.System, in, func(time.Time) lever[principal] { return q.quarantineLever() })
}

// Undo detaches it where the pre-image says that it was not attached.
func (q quarantine) Undo(ctx context.Context, in plan.Intent, _ plan.Receipt) error {
	return undoWith(ctx, q.System, in, q.quarantineLever())
}
