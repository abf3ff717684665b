package activities

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/ledger"
	"tourniquet.dev/tourniquet/internal/plan"
)

// AuditResult is what judging an enforcer's journal again has shown.
type AuditResult struct {
	Judged   int      // intents, endings and extensions that were judged again
	Receipts int      // signed receipts whose signature was checked
	Problems []string // what does not hold; empty: everything does
}

// Audit judges every effect of an enforcer's journal again, at the time it was judged and from what stood in the
// journal then, by the same pure judge. entries may be those of one incident only: then budgets are not judged again.
func Audit(ctx context.Context, policy Policy, entries []ledger.Entry, store Lookup) AuditResult {
	a := &auditor{ctx: ctx, policy: policy, store: store, mem: newMemory()}
	for i, e := range entries {
		a.entry(e)
		if err := a.mem.replay(e.Kind, e.Body); err != nil {
			a.problem("entry %d: %v", i, err)
		}
	}
	return a.out
}

type auditor struct {
	ctx    context.Context
	policy Policy
	store  Lookup
	mem    *memory
	out    AuditResult
}

func (a *auditor) problem(format string, args ...any) {
	a.out.Problems = append(a.out.Problems, fmt.Sprintf(format, args...))
}

func (a *auditor) entry(e ledger.Entry) {
	var err error
	switch e.Kind {
	case entryIntent:
		err = decode(e.Body, func(w intentWritten) { a.intent(w) })
	case entryEnding:
		err = decode(e.Body, func(w ending) {
			a.again(w.Key, w.Verb, w.Authority, w.Decisions, e.Time)
		})
	case entryExtension:
		err = decode(e.Body, func(w extension) { a.again(w.Key, authz.VerbExtend, w.Authority, w.Decisions, e.Time) })
	case entryReceipt:
		err = decode(e.Body, func(w receiptWritten) { a.receipt(w) })
	}
	if err != nil {
		a.problem("%s: %v", e.Kind, err)
	}
}

func (a *auditor) intent(w intentWritten) {
	in := w.Intent
	p, envs, ok := a.load(in, w.Decisions)
	if !ok {
		return
	}
	a.out.Judged++
	if in.Key != plan.Key(in.IncidentID, in.PlanDigest, in.Step.Index, in.Generation) || in.Step.Index >= len(p.Steps) || !sameStep(in.Step, p.Steps[in.Step.Index]) {
		a.problem("intent %.16s: its step is not the plan's", in.Key)
		return
	}
	v, err := authz.Judge(a.policy.Trust, a.policy.Books, p, authz.Request{Verb: authz.VerbApply, Step: in.Step.Index, Found: in.Targets, Standing: in.Step.Target.Scope}, envs, a.mem.spent(nil), in.At)
	if err != nil {
		a.problem("intent %.16s (%s): %v", in.Key, in.Step.Action, err)
	} else if v.Authority != in.Authority || v.Unattended != w.Unattended {
		a.problem("intent %.16s: was done on %q, the judge says %q", in.Key, in.Authority, v.Authority)
	}
}

func sameStep(a, b plan.Step) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && string(x) == string(y)
}

// again judges an ending or an extension.
func (a *auditor) again(key string, verb authz.Verb, authority string, decisions []authz.Envelope, at time.Time) {
	rec := a.mem.steps[key]
	if rec == nil {
		a.problem("%s of %.16s: nothing was begun under this key", verb, key)
		return
	}
	p, envs, ok := a.load(rec.intent, decisions)
	if !ok {
		return
	}
	a.out.Judged++
	// The entry was written within a moment of being judged.
	v, err := authz.Judge(a.policy.Trust, a.policy.Books, p, authz.Request{Verb: verb, Step: rec.intent.Step.Index}, envs, a.mem.spent(rec), at)
	if err != nil {
		a.problem("%s of %.16s: %v", verb, key, err)
	} else if v.Authority != authority {
		a.problem("%s of %.16s: was done on %q, the judge says %q", verb, key, authority, v.Authority)
	}
}

func (a *auditor) receipt(w receiptWritten) {
	r, err := authz.OpenReceipt(a.policy.Trust, w.Envelope)
	if err != nil {
		a.problem("receipt %.16s: %v", w.Receipt.Key, err)
		return
	}
	a.out.Receipts++
	x, errX := json.Marshal(r)
	y, errY := json.Marshal(w.Receipt)
	if errX != nil || errY != nil || string(x) != string(y) {
		a.problem("receipt %.16s: what is signed is not what is written", w.Receipt.Key)
	}
}

func (a *auditor) load(in plan.Intent, decisions []authz.Envelope) (*plan.Plan, []authz.Envelope, bool) {
	p, err := LoadPlan(a.ctx, a.store, in.PlanDigest)
	if err != nil {
		a.problem("intent %.16s: %v", in.Key, err)
		return nil, nil, false
	}
	envs, err := LoadEnvelopes(a.ctx, a.store, p.Detections)
	if err != nil {
		a.problem("intent %.16s: %v", in.Key, err)
		return nil, nil, false
	}
	return p, append(envs, decisions...), true
}

// AboutIncident reports whether a journal entry speaks of an incident: its id stands in what the enforcer or decide
// wrote. keys remembers intents, so that entries which only name an intent are found too.
func AboutIncident(e ledger.Entry, incidentID string, keys map[string]bool) bool {
	var w struct {
		IncidentID string `json:"incident_id"`
		Key        string `json:"key"`
		Intent     struct {
			IncidentID string `json:"incident_id"`
			Key        string `json:"key"`
		} `json:"intent"`
		Receipt struct {
			IncidentID string `json:"incident_id"`
		} `json:"receipt"`
		Decision struct {
			IncidentID string `json:"incident_id"`
		} `json:"decision"`
	}
	if json.Unmarshal(e.Body, &w) != nil {
		return false
	}
	if w.Intent.IncidentID == incidentID && w.Intent.Key != "" {
		keys[w.Intent.Key] = true
	}
	return w.IncidentID == incidentID || w.Intent.IncidentID == incidentID || w.Receipt.IncidentID == incidentID ||
		w.Decision.IncidentID == incidentID || (w.Key != "" && keys[w.Key])
}
