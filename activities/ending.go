package activities

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/plan"
	"tourniquet.dev/tourniquet/internal/sys/fault"
)

// UndoStep takes one step off. It needs a signed release among the decisions, or the gate's own finding that the
// step's time is over or its atomic group failed: a workflow that was cancelled, reset or told to is no reason.
func (g *Gate) UndoStep(ctx context.Context, in StepInput) (StepOutput, error) {
	return g.end(ctx, in, authz.VerbUndo)
}

// RetireStep ends a hold without restoring anything, because its identity was rotated. It needs a signed decision.
func (g *Gate) RetireStep(ctx context.Context, in StepInput) (StepOutput, error) {
	return g.end(ctx, in, authz.VerbRetire)
}

func (g *Gate) end(ctx context.Context, in StepInput, verb authz.Verb) (StepOutput, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	rec := g.mem.steps[plan.Key(in.IncidentID, in.Plan, in.Step, 0)]
	switch {
	case rec == nil:
		return StepOutput{}, asTemporal(g.refused(in, verb, &authz.Refusal{Code: authz.CodeNeverBegun, Why: "this step was never begun"}))
	case rec.final != nil:
		return rec.output("was ended before"), nil
	}
	if rec.ending == nil {
		p, envelopes, err := g.load(ctx, in)
		if err != nil {
			return StepOutput{}, asTemporal(err)
		}
		if err := g.beginEnd(rec, p, envelopes, in, verb); err != nil {
			return StepOutput{}, asTemporal(fmt.Errorf("%s step %d: %w", verb, in.Step, err))
		}
	}
	out, err := g.finishEnd(ctx, rec)
	return out, asTemporal(err)
}

// beginEnd judges the ending and puts it on record. A release may be recorded even when later entries cannot: the
// journal's word decides, as for every effect.
func (g *Gate) beginEnd(rec *record, p *plan.Plan, envelopes []authz.Envelope, in StepInput, verb authz.Verb) error {
	policy := g.o.Policy()
	verdict, err := authz.Judge(policy.Trust, policy.Books, p, authz.Request{Verb: verb, Step: in.Step}, envelopes, g.mem.spent(rec), g.now())
	if err != nil {
		return g.refused(in, verb, err)
	}
	return g.record(entryEnding, ending{Key: rec.intent.Key, Verb: verb, Authority: verdict.Authority, Envelopes: verdict.Envelopes, Decisions: in.Decisions})
}

// finishEnd restores what no other open hold still needs, and writes the receipt.
func (g *Gate) finishEnd(ctx context.Context, rec *record) (StepOutput, error) {
	r := plan.Receipt{Phase: plan.Undone, Authority: rec.ending.Authority}
	if rec.ending.Verb == authz.VerbRetire {
		r.Phase = plan.Retired
	} else if err := g.restore(ctx, rec, &r); err != nil {
		return StepOutput{}, err
	}
	if err := g.conclude(rec, r); err != nil {
		return StepOutput{}, err
	}
	return rec.output(string(r.Phase) + ", " + rec.ending.Authority), nil
}

func (g *Gate) restore(ctx context.Context, rec *record, r *plan.Receipt) error {
	in := rec.intent
	in.Targets, in.PreImages = nil, nil
	for i, t := range rec.intent.Targets {
		if g.mem.heldElsewhere(rec, t) {
			r.Effects = append(r.Effects, plan.Effect{Target: t, Did: "left on: another incident holds it"})
			continue
		}
		in.Targets, in.PreImages = append(in.Targets, t), append(in.PreImages, rec.intent.PreImages[i])
		r.Effects = append(r.Effects, plan.Effect{Target: t, Did: "restored"})
	}
	if len(in.Targets) == 0 {
		return nil
	}
	action, ok := g.o.Actions[in.Step.Action]
	if !ok {
		return fmt.Errorf("%s is not an action of %s: %w", in.Step.Action, g.o.By, ErrRefused)
	}
	applied := plan.Receipt{}
	if rec.receipt != nil {
		applied = *rec.receipt
	}
	fault.Point("undo.call/before")
	err := action.Undo(ctx, in, applied)
	fault.Point("undo.call/after")
	if err != nil {
		return fmt.Errorf("undo %s: %w", in.Step.Action, err)
	}
	return nil
}

// ExtendStep moves a step's end by what a signed decision says, once for each decision.
func (g *Gate) ExtendStep(ctx context.Context, in StepInput) (StepOutput, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	out, err := g.extend(ctx, in)
	return out, asTemporal(err)
}

func (g *Gate) extend(ctx context.Context, in StepInput) (StepOutput, error) {
	rec := g.mem.steps[plan.Key(in.IncidentID, in.Plan, in.Step, 0)]
	if rec == nil || rec.ended() || rec.receipt == nil {
		return StepOutput{}, g.refused(in, authz.VerbExtend, &authz.Refusal{Code: authz.CodeSpent, Why: "there is no open hold"})
	}
	p, envelopes, err := g.load(ctx, in)
	if err != nil {
		return StepOutput{}, err
	}
	policy := g.o.Policy()
	verdict, err := authz.Judge(policy.Trust, policy.Books, p, authz.Request{Verb: authz.VerbExtend, Step: in.Step}, envelopes, g.mem.spent(rec), g.now())
	if err != nil {
		return StepOutput{}, g.refused(in, authz.VerbExtend, err)
	}
	by := g.extension(policy, in.Decisions, verdict.Envelopes, rec)
	if by <= 0 {
		return rec.output("was extended before"), nil
	}
	ends := rec.ends().Add(by)
	if ends.Sub(g.now()) > policy.Trust.Ceilings.MaxApproved {
		return StepOutput{}, g.refused(in, authz.VerbExtend, &authz.Refusal{Code: authz.CodeCeiling, Why: "the new end is beyond the trust file's ceiling"})
	}
	if err := g.record(entryExtension, extension{Key: rec.intent.Key, Ends: ends, Nonces: verdict.Nonces, Authority: verdict.Authority, By: verdict.Envelopes, Decisions: in.Decisions}); err != nil {
		return StepOutput{}, err
	}
	return g.again(ctx, rec, "extended, "+verdict.Authority)
}

// extension is the least time that the accepted decisions agree on; 0 when they were used before.
func (g *Gate) extension(policy Policy, decisions []authz.Envelope, accepted []string, rec *record) time.Duration {
	var least time.Duration
	used := map[string]bool{}
	for _, d := range rec.extensions {
		used[d] = true
	}
	for _, e := range decisions {
		digest, err := e.Digest()
		if err != nil || used[digest] {
			continue
		}
		for _, a := range accepted {
			if d, err := authz.OpenDecision(policy.Trust, e); err == nil && a == digest && d.Kind == authz.Extend {
				if by := time.Duration(d.ExtendSeconds) * time.Second; least == 0 || by < least {
					least = by
				}
			}
		}
	}
	return least
}

// again calls Apply once more for an open hold: same intent, same effect, with the end as it is now.
func (g *Gate) again(ctx context.Context, rec *record, summary string) (StepOutput, error) {
	in := rec.intent
	in.Ends = rec.ends()
	receipt, err := g.o.Actions[in.Step.Action].Apply(ctx, in)
	if err != nil {
		return StepOutput{}, fmt.Errorf("%s: %w", in.Step.Action, err)
	}
	receipt.Phase = plan.Applied
	if err := g.conclude(rec, receipt); err != nil {
		return StepOutput{}, err
	}
	return rec.output(summary), nil
}

// Resume goes on with everything that the journal shows begun and not concluded: after a crash it is called before
// the first activity. What fails now is tried again by Tend.
func (g *Gate) Resume(ctx context.Context) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	var errs []error
	for _, key := range g.mem.order {
		if rec := g.mem.steps[key]; rec.on() && (rec.ending != nil || rec.receipt == nil) {
			errs = append(errs, g.tend(ctx, rec))
		}
	}
	return errors.Join(errs...)
}

// Tend looks once after everything that is or may be on: it goes on with what was begun, takes off what the clock has
// ended, and puts back what was undone by someone else, within the playbook's rule. Call it at intervals; it is the
// enforcer's own clock, not a workflow's.
func (g *Gate) Tend(ctx context.Context) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	var errs []error
	for _, key := range slices.Backward(g.mem.order) { // youngest first: a failed group comes off in reverse
		if rec := g.mem.steps[key]; rec.on() {
			errs = append(errs, g.tend(ctx, rec))
		}
	}
	return errors.Join(errs...)
}

func (g *Gate) tend(ctx context.Context, rec *record) error {
	switch {
	case rec.ending != nil || rec.groupDown || g.due(rec):
		_, err := g.endUnattended(ctx, rec)
		return err
	case rec.receipt == nil:
		if g.now().Sub(rec.tried) < openAgain {
			return nil
		}
		_, err := g.carryOut(ctx, rec)
		return err
	case rec.failed():
		return nil // held as it is: half a cut is neither completed nor put back without a person
	}
	return g.watch(ctx, rec, StepInput{IncidentID: rec.intent.IncidentID, Plan: rec.intent.PlanDigest, Step: rec.intent.Step.Index})
}

// due reports whether the step comes off by itself and its time is over.
func (g *Gate) due(rec *record) bool {
	return rec.intent.Step.Expiry == plan.Release && !g.now().Before(rec.ends())
}

// endUnattended takes a step off for a reason of the gate's own, or goes on with an ending that was begun.
func (g *Gate) endUnattended(ctx context.Context, rec *record) (StepOutput, error) {
	if rec.ending == nil {
		if err := g.record(entryEnding, ending{Key: rec.intent.Key, Verb: authz.VerbUndo, Authority: g.ownReason(rec)}); err != nil {
			return StepOutput{}, err
		}
	}
	out, err := g.finishEnd(ctx, rec)
	if err == nil && g.o.Ended != nil {
		g.o.Ended(ctx, rec.intent, out.Receipt)
	}
	return out, err
}

func (g *Gate) ownReason(rec *record) string {
	if rec.groupDown {
		return "failed group"
	}
	return "clock"
}

// watch compares the targets with what they were right after the step, and re-asserts.
func (g *Gate) watch(ctx context.Context, rec *record, in StepInput) error {
	action := g.o.Actions[rec.intent.Step.Action]
	by := ""
	for _, e := range rec.receipt.Effects {
		if e.Post == "" {
			continue
		}
		now, err := action.Capture(ctx, rec.intent.Step, e.Target)
		switch {
		case errors.Is(err, ErrConflict):
			by = "target gone: " + e.Target.String()
		case err != nil:
			return fmt.Errorf("watch %s: %w", e.Target, err)
		case now.Digest != e.Post:
			by = "changed: " + e.Target.String()
		}
	}
	if by == "" {
		return nil
	}
	p, envelopes, err := g.load(ctx, in)
	if err != nil {
		return err
	}
	policy := g.o.Policy()
	_, err = authz.Judge(policy.Trust, policy.Books, p, authz.Request{Verb: authz.VerbReassert, Step: in.Step}, envelopes, g.mem.spent(rec), g.now())
	if err == nil {
		if err = g.record(entryReassert, reassert{Key: rec.intent.Key, By: by}); err == nil {
			_, err = g.again(ctx, rec, "put back")
		}
	}
	var r *authz.Refusal
	if errors.As(err, &r) {
		if rec.told {
			return nil // a person was asked already
		}
		rec.told = true
	}
	g.o.Log.Error("hold broken", "incident_id", in.IncidentID, "plan_digest", in.Plan, "step", in.Step, "by", by, "reasserted", err == nil)
	if g.o.Broken != nil {
		g.o.Broken(ctx, rec.intent, by, err == nil)
	}
	if r != nil {
		return nil //nolint:nilerr // the refusal is said: a person was told
	}
	return err
}
