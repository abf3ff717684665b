package activities

import (
	"context"
	"fmt"
	"strings"

	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/blast"
	"tourniquet.dev/tourniquet/internal/guardrail"
	"tourniquet.dev/tourniquet/internal/plan"
)

// BuildInput are captured drafts to be made into plans.
type BuildInput struct {
	Key        string   `json:"key"`
	Detections []string `json:"detections"`
	Assessment string   `json:"assessment"`
	Drafts     []Draft  `json:"drafts"`
}

// BuildOutput names the stored plans, the recommended one first.
type BuildOutput struct {
	Plans []PlanRef `json:"plans"`
	// Refused says which options a guardrail keeps from being offered, and why.
	Refused []string `json:"refused,omitempty"`
}

// BuildPlan makes full plans from captured drafts and stores them. Each has its own digest.
func (a *Assessment) BuildPlan(ctx context.Context, in BuildInput) (BuildOutput, error) {
	out, err := a.build(ctx, in)
	return out, asTemporal(err)
}

func (a *Assessment) build(ctx context.Context, in BuildInput) (BuildOutput, error) {
	var out BuildOutput
	ds, err := a.detections(ctx, in.Detections)
	if err != nil {
		return out, err
	}
	book, ok := choose(a.o.Policy().Books, ds)
	if !ok {
		return out, fmt.Errorf("no playbook takes these detections: %w", ErrRefused)
	}
	rec, err := LoadAssessment(ctx, a.o.Store, in.Assessment)
	if err != nil {
		return out, err
	}
	facts, err := loadFacts(ctx, a.o.Store, rec.Facts)
	if err != nil {
		return out, err
	}
	triage := TriageInput{Key: in.Key, Detections: in.Detections}
	for _, d := range in.Drafts {
		option := optionOf(rec, d.Option)
		p := a.plan(triage, book, plan.Full, d.Option, in.Assessment, d.Steps)
		if refused := guard(book, p, guardFacts(rec, option, facts)); len(refused) > 0 {
			out.Refused = append(out.Refused, refused...)
			continue
		}
		ref, err := a.store(ctx, p)
		if err != nil {
			return out, err
		}
		// Where the recommended option is refused, the next best is recommended: options come best first.
		ref.Recommended = len(out.Plans) == 0
		ref.Residual, ref.P50, ref.P90 = option.Residual.Score, option.Exposure.P50, option.Exposure.P90
		out.Plans = append(out.Plans, *ref)
	}
	if len(out.Plans) == 0 {
		return out, fmt.Errorf("nothing is left to contain: %s: %w", strings.Join(append([]string{"no option remains"}, out.Refused...), "; "), ErrRefused)
	}
	return out, nil
}

func optionOf(rec *AssessmentRecord, name string) Option {
	for _, o := range rec.Options {
		if o.Draft.Option == name {
			return o
		}
	}
	return Option{}
}

func guardFacts(rec *AssessmentRecord, o Option, f blast.Facts) guardrail.Facts {
	out := guardrail.Facts{Before: rec.Before.Score, After: o.Residual.Score, Admin: rec.Before.Admin}
	if k := f.Kubernetes; k != nil {
		out.AccountPods, out.HostNetwork, out.Privileged = len(k.Siblings)+1, k.HostNetwork, k.Privileged
	}
	return out
}

// guard asks the playbook's guardrails and returns their refusals in words. Guardrails that do not compile refuse.
func guard(book authz.Book, p *plan.Plan, f guardrail.Facts) []string {
	set, err := guardrail.Compile(book.Playbook.Guardrails)
	if err != nil {
		return []string{fmt.Sprintf("option %s is not offered: %v", p.Option, err)}
	}
	var out []string
	for _, r := range set.Judge(p, f) {
		out = append(out, fmt.Sprintf("option %s is not offered: guardrail %s: %s", p.Option, r.Rule, r.Why))
	}
	return out
}

// Fallback stores the plan for when every tier has lapsed; nil when the playbook has none.
func (a *Assessment) Fallback(ctx context.Context, in TriageInput) (TriageOutput, error) {
	ds, err := a.detections(ctx, in.Detections)
	if err != nil {
		return TriageOutput{}, asTemporal(err)
	}
	policy := a.o.Policy()
	book, ok := choose(policy.Books, ds)
	if !ok {
		return TriageOutput{}, nil
	}
	steps := book.Playbook.Draft(plan.Fallback, subjectOf(policy, ds, true), nil)
	if len(steps) == 0 {
		return TriageOutput{}, nil
	}
	p := a.plan(in, book, plan.Fallback, "fallback", "", steps)
	if refused := guard(book, p, guardrail.Facts{}); len(refused) > 0 {
		return TriageOutput{Gaps: refused}, nil
	}
	ref, err := a.store(ctx, p)
	return TriageOutput{Stop: ref}, asTemporal(err)
}
