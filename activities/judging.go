package activities

import (
	"context"
	"errors"
	"slices"

	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/detection"
	"tourniquet.dev/tourniquet/internal/plan"
)

// JudgeInput is a decision to be judged against the plans that are on offer or on.
type JudgeInput struct {
	Plans     []string         `json:"plans"`
	Decision  authz.Envelope   `json:"decision"`
	Decisions []authz.Envelope `json:"decisions,omitempty"` // earlier valid ones of the same plan
}

// JudgeOutput is the verdict, kept in history.
type JudgeOutput struct {
	Valid   bool               `json:"valid"` // the decision is what it says, by whom it says
	Kind    authz.DecisionKind `json:"kind"`
	Plan    string             `json:"plan"`
	Person  string             `json:"person"`
	Nonce   string             `json:"nonce"`
	Reason  string             `json:"reason,omitempty"`
	Allowed bool               `json:"allowed"` // together with the earlier ones it carries the plan
	Code    string             `json:"code,omitempty"`
	Why     string             `json:"why,omitempty"`
	// Authority is the judge's words when allowed.
	Authority string `json:"authority,omitempty"`
}

// JudgeDecision says whether a decision counts. Being signalled is no authority: only the signature is.
func (a *Assessment) JudgeDecision(ctx context.Context, in JudgeInput) (JudgeOutput, error) {
	policy := a.o.Policy()
	d, err := authz.OpenDecision(policy.Trust, in.Decision)
	if err != nil {
		return JudgeOutput{Code: "decision-invalid", Why: clip(err.Error())}, nil
	}
	out := JudgeOutput{Kind: d.Kind, Plan: d.PlanDigest, Person: d.Person, Nonce: d.Nonce, Reason: detection.Clean(d.Reason, 300)}
	if !slices.Contains(in.Plans, d.PlanDigest) {
		out.Code, out.Why = "plan-not-offered", "this plan is not, or no longer, on offer"
		return out, nil
	}
	p, err := LoadPlan(ctx, a.o.Store, d.PlanDigest)
	if err != nil {
		return out, asTemporal(err)
	}
	if p.IncidentID != d.IncidentID {
		out.Code, out.Why = string(authz.CodeIncident), "the decision is for another incident"
		return out, nil
	}
	envs, err := LoadEnvelopes(ctx, a.o.Store, p.Detections)
	if err != nil {
		return out, asTemporal(err)
	}
	out.Valid = true
	verb := map[authz.DecisionKind]authz.Verb{authz.Approve: authz.VerbApply, authz.Release: authz.VerbUndo, authz.Retire: authz.VerbRetire, authz.Extend: authz.VerbExtend, authz.Deny: authz.VerbApply}[d.Kind]
	envs = append(append(envs, in.Decisions...), in.Decision)
	verdict, err := authz.JudgePlan(policy.Trust, policy.Books, p, verb, envs, a.now())
	var r *authz.Refusal
	switch {
	case err == nil:
		out.Allowed, out.Authority = true, verdict.Authority
	case errors.As(err, &r):
		out.Code, out.Why = string(r.Code), r.Why
	default:
		return out, asTemporal(err)
	}
	if d.Kind == authz.Deny {
		out.Allowed = r != nil && r.Code == authz.CodeDenied // the judge accepted the deny
	}
	return out, nil
}

// ObservationInput is what was answered for an observation, to be judged.
type ObservationInput struct {
	Intent plan.Intent  `json:"intent"`
	Answer VerifyOutput `json:"answer"`
}

// ObservationOutput says whether the read-only role signed what was answered.
type ObservationOutput struct {
	Valid bool   `json:"valid"`
	Why   string `json:"why,omitempty"`
}

// JudgeObservation says whether an answer is the read-only role's signed word on this step. Polling its queue, or
// completing its activity by id, is no authority: only the signature is.
func (a *Assessment) JudgeObservation(_ context.Context, in ObservationInput) (ObservationOutput, error) {
	o, err := authz.OpenObservation(a.o.Policy().Trust, in.Answer.Observation)
	switch {
	case err != nil:
		return ObservationOutput{Why: clip(err.Error())}, nil
	case o.Key != in.Intent.Key || o.PlanDigest != in.Intent.PlanDigest || o.Finding != in.Answer.Finding || !slices.Equal(o.Witnesses, in.Answer.Witnesses):
		return ObservationOutput{Why: "what is signed is not what was answered"}, nil
	}
	return ObservationOutput{Valid: true}, nil
}
