package click

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/card"
	"tourniquet.dev/tourniquet/internal/detection"
	"tourniquet.dev/tourniquet/internal/sys/fault"
	"tourniquet.dev/tourniquet/internal/trust"
	"tourniquet.dev/tourniquet/starter/decide/relay"
	"tourniquet.dev/tourniquet/workflows"
)

// answerSubmission decides, and answers with what Slack shows: the modal closes, or says why not.
func (d *Door) answerSubmission(ctx context.Context, w http.ResponseWriter, v *visit) {
	answer := map[string]any{"response_action": "clear"}
	if err := d.submitted(ctx, v); err != nil {
		r := d.note(v, err)
		block := r.Block
		if block == "" {
			block = card.InputReason
		}
		answer = map[string]any{"response_action": "errors", "errors": map[string]string{block: r.Text()}}
	} else {
		d.o.Count("decided")
	}
	body, err := json.Marshal(answer)
	if err != nil {
		d.o.Log.Error("answer could not be written", "err", err)
	}
	d.answer(ctx, w, v, body)
}

// submitted makes a modal's submission a decision: checked, judged, signed, in the ledger, signalled.
func (d *Door) submitted(ctx context.Context, v *visit) error {
	if v.in.View.CallbackID != card.Callback {
		return refuse(CodeInteraction)
	}
	if err := d.open(v, v.in.View.PrivateMetadata, card.InModal); err != nil {
		return err
	}
	if err := d.identify(ctx, v); err != nil {
		return err
	}
	if err := d.load(ctx, v, v.token.Plan); err != nil {
		return err
	}
	if err := wasShown(v); err != nil {
		return err
	}
	statement, err := d.statement(v)
	if err != nil {
		return err
	}
	if err := d.current(ctx, v, statement.Kind); err != nil {
		return err
	}
	envelope, err := d.o.Signer.Sign(authz.TypeDecision, statement)
	if err != nil {
		return because(CodePlan, err)
	}
	if err := d.judge(ctx, v, statement.Kind, envelope); err != nil {
		return err // the signed statement goes nowhere
	}
	fault.Point("decide.sign/after")
	return d.commit(ctx, v, statement, envelope)
}

// wasShown checks that the plan, rendered again, is what the person was shown, and is the option they had chosen.
func wasShown(v *visit) error {
	_, shown, err := card.Shown(v.token.Decision, v.plan)
	if err != nil || !same(shown, v.token.Shown) {
		return because(CodeShown, err)
	}
	if s := v.in.View.State.Values[card.InputOption][card.InputOption].Selected; s != nil && s.Value != v.token.Plan {
		return &Refusal{Code: CodeShown, Block: card.InputOption}
	}
	return nil
}

// statement is what the person decided.
func (d *Door) statement(v *visit) (authz.Decision, error) {
	now := d.o.Now().UTC().Truncate(time.Millisecond)
	values := v.in.View.State.Values
	reason := strings.TrimSpace(values[card.InputReason][card.InputReason].Value)
	if n := utf8.RuneCountInString(reason); n < 3 || n > card.MaxReason {
		return authz.Decision{}, refuse(CodeReason)
	}
	out := authz.Decision{V: 1, Kind: v.token.Decision, IncidentID: v.token.Incident, PlanDigest: v.token.Plan, Person: v.person.ID,
		Assurance: trust.Click, Slack: v.in.User.ID, Nonce: v.token.Nonce, IssuedAt: now, ExpiresAt: now.Add(d.o.DecisionLife),
		Reason: detection.Clean(reason, 2000), ShownDigest: v.token.Shown, RawBodyDigest: v.body}
	if out.Kind == authz.Extend {
		by := values[card.InputExtend][card.InputExtend].Selected
		if by == nil {
			return authz.Decision{}, &Refusal{Code: CodeExtension, Block: card.InputExtend}
		}
		n, err := strconv.ParseInt(by.Value, 10, 64)
		if err != nil || !slices.Contains(card.Extensions, time.Duration(n)*time.Second) {
			return authz.Decision{}, &Refusal{Code: CodeExtension, Block: card.InputExtend}
		}
		out.ExtendSeconds = n
	}
	return out, nil
}

var verbs = map[authz.DecisionKind]authz.Verb{authz.Approve: authz.VerbApply, authz.Deny: authz.VerbApply,
	authz.Release: authz.VerbUndo, authz.Retire: authz.VerbRetire, authz.Extend: authz.VerbExtend}

// judge asks the one judge what the enforcer will ask it, with the decisions that were made before on these plans. Of a
// quorum, one voice is enough to be recorded; a deny must be what the judge refuses the plan for.
func (d *Door) judge(ctx context.Context, v *visit, kind authz.DecisionKind, e authz.Envelope) error {
	if kind == authz.Approve && d.memory.denied(v.token.Plans) {
		return refuse(Code(authz.CodeDenied)) // whichever of the offered plans the deny named
	}
	envelopes := append(d.memory.made(v.token.Plan), e)
	for _, digest := range v.plan.Detections {
		data, err := d.o.Store.Get(ctx, digest)
		if err != nil {
			return because(CodePlan, err)
		}
		det, err := authz.DecodeEnvelope(data)
		if err != nil {
			return because(CodePlan, err)
		}
		envelopes = append(envelopes, det)
	}
	_, err := authz.JudgePlan(d.o.Trust, d.o.Books, v.plan, verbs[kind], envelopes, d.o.Now())
	var no *authz.Refusal
	switch {
	case err == nil && kind != authz.Deny:
		return nil
	case errors.As(err, &no) && kind == authz.Deny && no.Code == authz.CodeDenied:
		return nil
	case errors.As(err, &no) && kind != authz.Deny && no.Code == authz.CodeQuorum:
		return nil
	}
	return judged(err)
}

// commit writes the decision into the ledger, then brings it to its workflows. Once it is in the ledger it counts, even
// if Temporal cannot be reached now.
func (d *Door) commit(ctx context.Context, v *visit, s authz.Decision, e authz.Envelope) error {
	digest, err := e.Digest()
	if err != nil {
		return because(CodePlan, err)
	}
	r := Recorded{Decision: e, Digest: digest, Kind: s.Kind, Plan: s.PlanDigest, Spent: spentKey(s), Expires: s.ExpiresAt,
		Workflows: []string{workflows.IncidentWorkflowID(v.plan.CorrelationKey)}}
	if s.Kind != authz.Approve && s.Kind != authz.Deny {
		r.Workflows = append(r.Workflows, workflows.ContainmentWorkflowID(s.IncidentID, s.PlanDigest))
	}
	fault.Point("ledger.append/before")
	if err := d.memory.record(r); err != nil {
		return err
	}
	fault.Point("ledger.append/after")
	d.o.Log.Info("decision recorded", "incident_id", s.IncidentID, "plan_digest", s.PlanDigest, "kind", string(s.Kind), "person", s.Person, "decision", digest)
	settled := d.relay.Add(relay.Item{Digest: digest, Decision: e, Workflows: r.Workflows})
	select {
	case o := <-settled:
		if o == relay.Closed {
			return refuse(CodeClosed)
		}
	case <-time.After(awaitSignal):
		v.later = fmt.Sprintf("Your decision (%s) is signed and recorded. It takes effect as soon as the workflow engine can be reached.", s.Kind)
	case <-ctx.Done():
	}
	return nil
}

// spentKey is what one decision uses up: a person decides once by each kind on what one card offers.
func spentKey(s authz.Decision) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%s\x00%s", s.Nonce, s.Person, s.Kind))
	return hex.EncodeToString(sum[:])
}
