package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"tourniquet.dev/tourniquet/activities"
	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/plan"
	"tourniquet.dev/tourniquet/internal/trust"
	"tourniquet.dev/tourniquet/workflows"
)

// listener checks what was said in histories: who signed it, whether it stands in the ledgers, and whether the same
// answer comes out again.
type listener struct {
	v *verifier
	// ledgered are the digests of receipts and decisions in the ledgers, by role.
	ledgered map[trust.Role]map[string]bool
	// signed counts each valid statement once, by payload type.
	signed   map[string]map[string]bool
	missing  map[trust.Role]bool // ledgers that would have to be here
	unsigned map[string]bool     // statements without a valid signature that had no effect
	bad      int
	again    int // answers that came out the same
	verdicts int
}

func newListener(v *verifier) *listener {
	l := &listener{v: v, ledgered: map[trust.Role]map[string]bool{}, signed: map[string]map[string]bool{}, missing: map[trust.Role]bool{}, unsigned: map[string]bool{}}
	for _, from := range v.ledgers {
		if l.ledgered[from.role] == nil {
			l.ledgered[from.role] = map[string]bool{}
		}
		for _, e := range from.entries {
			var w struct {
				Envelope authz.Envelope `json:"envelope"`
				Decision authz.Envelope `json:"decision"`
			}
			if json.Unmarshal(e.Body, &w) != nil {
				continue
			}
			for _, env := range []authz.Envelope{w.Envelope, w.Decision} {
				if digest, err := env.Digest(); err == nil {
					l.ledgered[from.role][digest] = true
				}
			}
		}
	}
	return l
}

func (l *listener) fail(at execution, s said, err error) {
	l.bad++
	l.v.fail("statements", "%s, event %d (%s %s): %v", at.id, s.event, s.where, s.name, err)
}

// listen goes through what was said in one history.
func (l *listener) listen(ctx context.Context, at execution, all []said) {
	requests := map[int64]said{}
	for _, s := range all {
		if s.where == asRequest {
			requests[s.event] = s
		}
		l.envelopes(at, s)
		var err error
		switch s.where {
		case asResult:
			err = l.answer(ctx, requests[s.request], s)
		case asInput:
			err = l.input(ctx, at, s)
		}
		if err != nil {
			l.fail(at, s, err)
		}
	}
}

// envelopes checks every signed statement in a payload. What came by signal, and what a workflow passed on of it, may be
// anybody's: it is noted. What a worker answered, and what a containment rests on, must be validly signed.
func (l *listener) envelopes(at execution, s said) {
	anybodys := s.where == asSignal || s.where == asRequest || s.where == asOutgoing
	collect(s.data, nil, func(m map[string]json.RawMessage, raw json.RawMessage) {
		if m["payloadType"] == nil || m["signatures"] == nil {
			return
		}
		e, err := authz.DecodeEnvelope(raw)
		if err == nil {
			err = l.envelope(e)
		}
		if err != nil && anybodys {
			l.unsigned[fmt.Sprintf("%s: %v", at.id, err)] = true
		} else if err != nil {
			l.fail(at, s, err)
		}
	})
}

// envelope opens a statement by its type, and wants its word in the ledger of the process that gave it.
func (l *listener) envelope(e authz.Envelope) error {
	digest, err := e.Digest()
	if err != nil {
		return err
	}
	t := l.v.policy.Trust
	keeper := trust.Role("") // whose ledger has it
	switch e.PayloadType {
	case authz.TypeDecision:
		d, err := authz.OpenDecision(t, e)
		if err != nil {
			return err
		}
		if d.Assurance == trust.Click {
			keeper = trust.RoleDecide
		}
	case authz.TypeReceipt:
		r, err := authz.OpenReceipt(t, e)
		if err != nil {
			return err
		}
		if !strings.HasPrefix(r.By, "node/") {
			keeper = trust.Role(r.By)
		}
	case authz.TypeObservation:
		if _, err := authz.OpenObservation(t, e); err != nil {
			return err
		}
	case authz.TypeDetection:
		if _, err := authz.OpenDetection(t, e); err != nil {
			return err
		}
	case authz.TypeOrder:
		if _, _, err := authz.Verify(e, authz.TypeOrder, t.KeysOf(trust.RoleContainKubernetes)); err != nil {
			return fmt.Errorf("order: %w", err)
		}
	case authz.TypeNode: // the certificate beside what a node signed
		_, _, err := authz.Verify(e, authz.TypeNode, t.KeysOf(trust.RoleNodeCA))
		return err
	default:
		return fmt.Errorf("%w: %.80q", authz.ErrPayloadType, e.PayloadType)
	}
	if l.signed[e.PayloadType] == nil {
		l.signed[e.PayloadType] = map[string]bool{}
	}
	l.signed[e.PayloadType][digest] = true
	switch {
	case keeper == "":
	case l.ledgered[keeper] == nil:
		l.missing[keeper] = true
	case !l.ledgered[keeper][digest]:
		return fmt.Errorf("%s signed it, and it is not in the ledger of %s that is here", keeper, keeper)
	}
	return nil
}

// input checks that a containment is of this incident and of a plan that is here.
func (l *listener) input(ctx context.Context, at execution, s said) error {
	if !strings.HasPrefix(at.id, "containment/") {
		return nil
	}
	var in workflows.ContainmentInput
	if err := json.Unmarshal(s.data, &in); err != nil {
		return err
	}
	if in.IncidentID != l.v.id || workflows.ContainmentWorkflowID(in.IncidentID, in.Plan.Digest) != at.id {
		return fmt.Errorf("it is of incident %.40q, plan %.80q", in.IncidentID, in.Plan.Digest)
	}
	p, err := activities.LoadPlan(ctx, l.v, in.Plan.Digest)
	if err != nil {
		return err
	}
	if p.IncidentID != in.IncidentID || len(p.Steps) != len(in.Plan.Steps) {
		return errors.New("its steps are not its plan's")
	}
	for i, step := range in.Plan.Steps {
		if step.Index != i || step.Action != string(p.Steps[i].Action) || step.TargetUID != p.Steps[i].Target.UID {
			return fmt.Errorf("step %d is not its plan's", i)
		}
	}
	return nil
}

// answer checks what a worker answered: signed statements are about what was asked, and pure answers come out again.
func (l *listener) answer(ctx context.Context, asked, s said) error {
	switch s.name {
	case "ApplyStep", "UndoStep", "RetireStep", "ExtendStep":
		return l.step(asked, s)
	case "VerifyStep":
		return l.observation(asked, s)
	case "JudgeDecision":
		l.verdicts++
	}
	return l.recompute(ctx, asked, s)
}

func (l *listener) step(asked, s said) error {
	var in activities.StepInput
	var out activities.StepOutput
	if err := errors.Join(json.Unmarshal(asked.data, &in), json.Unmarshal(s.data, &out)); err != nil {
		return err
	}
	r, err := authz.OpenReceipt(l.v.policy.Trust, out.Receipt)
	if err != nil {
		return err
	}
	if r.IncidentID != l.v.id || r.PlanDigest != in.Plan || r.Step != in.Step || r.Key != out.Intent.Key || r.Phase != out.Phase ||
		r.Key != plan.Key(in.IncidentID, in.Plan, in.Step, out.Intent.Generation) {
		return errors.New("the receipt is of another step")
	}
	return nil
}

func (l *listener) observation(asked, s said) error {
	var in activities.VerifyInput
	var out activities.VerifyOutput
	if err := errors.Join(json.Unmarshal(asked.data, &in), json.Unmarshal(s.data, &out)); err != nil {
		return err
	}
	o, err := authz.OpenObservation(l.v.policy.Trust, out.Observation)
	if err != nil {
		return err
	}
	if o.Key != in.Intent.Key || o.Finding != out.Finding || !slices.Equal(o.Witnesses, out.Witnesses) {
		return errors.New("the observation says something else")
	}
	return nil
}

// recompute runs a pure activity again, at the time it ran, on the objects of the bundle. A verdict must come out the same.
// Figures and plans of another version of the program need not: people decided on the digest, whatever made it.
func (l *listener) recompute(ctx context.Context, asked, s said) error {
	run, ok := pure[s.name]
	if !ok {
		return nil
	}
	var err error
	for _, at := range []time.Time{asked.at, s.at} { // the worker's clock was between these
		assessment := activities.NewAssessment(activities.AssessmentOptions{Policy: func() activities.Policy { return l.v.policy },
			Store: scratch{l.v, map[string][]byte{}}, Now: func() time.Time { return at }})
		var out any
		if out, err = run(ctx, assessment, asked.data); err == nil && equalJSON(out, s.data) {
			l.again++
			return nil
		}
	}
	if err == nil {
		err = errors.New("another answer comes out")
	}
	if s.name == "JudgeDecision" || s.name == "JudgeObservation" {
		return err
	}
	l.v.note("%s at event %d: %v; another version of the program, trust file or playbooks would explain it", s.name, s.event, err)
	return nil
}

// pure are the activities that compute from nothing but their input, the store and the policy.
var pure = map[string]func(context.Context, *activities.Assessment, json.RawMessage) (any, error){
	"Triage": func(ctx context.Context, a *activities.Assessment, in json.RawMessage) (any, error) {
		return call(ctx, a.Triage, in)
	},
	"Fallback": func(ctx context.Context, a *activities.Assessment, in json.RawMessage) (any, error) {
		return call(ctx, a.Fallback, in)
	},
	"Assess": func(ctx context.Context, a *activities.Assessment, in json.RawMessage) (any, error) {
		return call(ctx, a.Assess, in)
	},
	"BuildPlan": func(ctx context.Context, a *activities.Assessment, in json.RawMessage) (any, error) {
		return call(ctx, a.BuildPlan, in)
	},
	"JudgeDecision": func(ctx context.Context, a *activities.Assessment, in json.RawMessage) (any, error) {
		return call(ctx, a.JudgeDecision, in)
	},
	"JudgeObservation": func(ctx context.Context, a *activities.Assessment, in json.RawMessage) (any, error) {
		return call(ctx, a.JudgeObservation, in)
	},
}

func call[In, Out any](ctx context.Context, f func(context.Context, In) (Out, error), data json.RawMessage) (any, error) {
	var in In
	if err := json.Unmarshal(data, &in); err != nil {
		return nil, err
	}
	return f(ctx, in)
}

// scratch is the bundle's store with room for what is computed again.
type scratch struct {
	*verifier
	made map[string][]byte
}

func (s scratch) Put(_ context.Context, data []byte) (string, error) {
	digest := plan.DigestOf(data)
	s.made[digest] = data
	return digest, nil
}

func (s scratch) Get(ctx context.Context, digest string) ([]byte, error) {
	if data, ok := s.made[digest]; ok {
		return data, nil
	}
	return s.verifier.Get(ctx, digest)
}

// conclude writes the lines about all histories together.
func (l *listener) conclude() {
	for _, role := range sortedKeys(l.missing) {
		l.bad++
		l.v.fail("statements", "there are signed words of %s in the histories, and its ledger is not in the bundle", role)
	}
	for _, line := range sortedKeys(l.unsigned) {
		l.v.note("somebody sent a statement that had no effect: %s", line)
	}
	if l.bad > 0 {
		return
	}
	var counts []string
	for _, payloadType := range sortedKeys(l.signed) {
		name, _, _ := strings.Cut(strings.TrimPrefix(path.Base(payloadType), "vnd.tourniquet."), ".")
		counts = append(counts, fmt.Sprintf("%d %ss", len(l.signed[payloadType]), name))
	}
	l.v.ok("statements", "validly signed and in the ledgers: %s", orNone(counts))
	l.v.ok("verdicts", "%d decisions were judged by workflows; %d answers in all come out the same again", l.verdicts, l.again)
}
