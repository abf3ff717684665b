package activities

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/detection"
	"tourniquet.dev/tourniquet/internal/guardrail"
	"tourniquet.dev/tourniquet/internal/identity"
	"tourniquet.dev/tourniquet/internal/incident"
	"tourniquet.dev/tourniquet/internal/plan"
	"tourniquet.dev/tourniquet/internal/playbook"
	"tourniquet.dev/tourniquet/internal/sys/store"
)

// AssessmentOptions are what the orchestrate role needs. It has no outside system.
type AssessmentOptions struct {
	Policy func() Policy
	Store  Blobs
	Now    func() time.Time
}

// Assessment decides, purely: which playbook, which plans, what they are worth, whether a decision counts. Its answers
// stay in history.
type Assessment struct{ o AssessmentOptions }

// NewAssessment returns the orchestrate role's activities.
func NewAssessment(o AssessmentOptions) *Assessment { return &Assessment{o} }

// TriageInput names the detections of an incident so far; the first one opened it.
type TriageInput struct {
	Key        string   `json:"key"`
	Detections []string `json:"detections"`
	// Covered are steps (action and target UID, as in CoveredKey) that an earlier stop plan has already.
	Covered []string `json:"covered,omitempty"`
}

// CoveredKey names what a stop step does, so that a later stop plan does not do it again.
func CoveredKey(action, uid string) string { return action + " " + uid }

// TierRef is one tier of a playbook.
type TierRef struct {
	Ask            string `json:"ask"`
	Quorum         int    `json:"quorum"`
	TimeoutSeconds int64  `json:"timeout_seconds"`
}

// StepRef is a short summary of one step: enough to order and to show, never enough to act on.
type StepRef struct {
	Index           int    `json:"index"`
	Group           int    `json:"group,omitempty"`
	Action          string `json:"action"`
	Queue           string `json:"queue"`
	Target          string `json:"target"`
	TargetUID       string `json:"target_uid"`
	DurationSeconds int64  `json:"duration_seconds"`
	Expiry          string `json:"expiry"`
	Observable      bool   `json:"observable"`
}

// PlanRef names a stored plan with a short summary.
type PlanRef struct {
	Option      string    `json:"option"`
	Digest      string    `json:"digest"`
	Purpose     string    `json:"purpose"`
	Recommended bool      `json:"recommended"`
	Steps       []StepRef `json:"steps"`
	// Residual is the blast radius that stays after the plan, 0 to 100; P50 and P90 its exposure in minor units.
	Residual float64 `json:"residual"`
	P50      int64   `json:"p50"`
	P90      int64   `json:"p90"`
}

// TriageOutput opens an incident: its id, its playbook, and the stop plan where one applies.
type TriageOutput struct {
	IncidentID string    `json:"incident_id"`
	Playbook   string    `json:"playbook"` // empty: none takes these detections
	Version    int       `json:"version"`
	Tiers      []TierRef `json:"tiers,omitempty"`
	Stop       *PlanRef  `json:"stop,omitempty"`
	// KeyIDs are access keys the detections name, attested or claimed.
	KeyIDs []string `json:"key_ids,omitempty"`
	// Subject is a short description of workload and identities, cleaned.
	Subject    string   `json:"subject"`
	Identities []string `json:"identities"`
	Gaps       []string `json:"gaps,omitempty"`
	// Forged are the digests of those that are no signed detections: whoever may signal can name anything. They are left
	// out, and must be left out of what is asked next.
	Forged []string `json:"forged,omitempty"`
}

// Triage picks the playbook and makes the stop plan. It may be called again when more detections came: the stop plan
// then covers what they add.
func (a *Assessment) Triage(ctx context.Context, in TriageInput) (TriageOutput, error) {
	var out TriageOutput
	var err error
	if in.Detections, out.Forged, err = a.sift(ctx, in.Key, in.Detections); err != nil {
		return out, asTemporal(err)
	}
	if len(in.Detections) == 0 {
		return out, nil
	}
	ds, err := a.detections(ctx, in.Detections)
	if err != nil {
		return out, asTemporal(err)
	}
	out.IncidentID = incident.ID(in.Key, in.Detections[0])
	policy := a.o.Policy()
	out.describe(ds)
	book, ok := choose(policy.Books, ds)
	if !ok {
		out.Gaps = append(out.Gaps, "no playbook takes these detections")
		return out, nil
	}
	out.Playbook, out.Version = book.Playbook.Playbook, book.Playbook.Version
	for _, t := range book.Playbook.Tiers {
		out.Tiers = append(out.Tiers, TierRef{Ask: t.Ask, Quorum: t.Quorum, TimeoutSeconds: int64(t.Timeout.Seconds())})
	}
	subject := subjectOf(policy, ds, true)
	steps := book.Playbook.Draft(plan.Stop, subject, nil)
	ref, refused, err := a.stop(ctx, policy, book, in, steps)
	if err != nil {
		return out, asTemporal(err)
	}
	out.Stop, out.Gaps = ref, append(out.Gaps, refused...)
	return out, nil
}

// stop stores the plan of those stop steps that the judge would allow; the others wait for a person. refused are the
// words of guardrails that keep the plan from being put on.
func (a *Assessment) stop(ctx context.Context, policy Policy, book authz.Book, in TriageInput, steps []plan.Step) (*PlanRef, []string, error) {
	envs, err := LoadEnvelopes(ctx, a.o.Store, in.Detections)
	if err != nil {
		return nil, nil, err
	}
	var kept []plan.Step
	for _, s := range steps {
		if slices.Contains(in.Covered, CoveredKey(string(s.Action), s.Target.UID)) {
			continue
		}
		trial := a.plan(in, book, plan.Stop, "stop", "", []plan.Step{s})
		trial.Steps[0].Index, trial.Steps[0].Group = 0, 0
		if _, err := authz.Judge(policy.Trust, policy.Books, trial, authz.Request{Verb: authz.VerbApply}, envs, authz.Spent{}, a.now()); err == nil {
			kept = append(kept, s)
		}
	}
	if len(kept) == 0 {
		return nil, nil, nil
	}
	p := a.plan(in, book, plan.Stop, "stop", "", kept)
	if refused := guard(book, p, guardrail.Facts{}); len(refused) > 0 {
		return nil, refused, nil
	}
	ref, err := a.store(ctx, p)
	return ref, nil, err
}

func (a *Assessment) plan(in TriageInput, book authz.Book, purpose plan.Purpose, option, assessment string, steps []plan.Step) *plan.Plan {
	return &plan.Plan{APIVersion: plan.APIVersion, Kind: plan.Kind, IncidentID: incident.ID(in.Key, in.Detections[0]), CorrelationKey: in.Key,
		Purpose: purpose, Option: option, Playbook: book.Ref(), Detections: in.Detections, Assessment: assessment, Steps: renumber(steps)}
}

// renumber gives the steps their places, and atomic groups numbers without gaps.
func renumber(steps []plan.Step) []plan.Step {
	out := slices.Clone(steps)
	next, last := 0, 0
	for i := range out {
		out[i].Index = i
		if g := out[i].Group; g != 0 {
			if g != last {
				next++
			}
			last, out[i].Group = g, next
		}
	}
	return out
}

func (a *Assessment) store(ctx context.Context, p *plan.Plan) (*PlanRef, error) {
	if err := p.Validate(); err != nil {
		return nil, fmt.Errorf("plan: %w: %w", err, ErrRefused)
	}
	data, err := p.Encode()
	if err != nil {
		return nil, fmt.Errorf("plan: %w", err)
	}
	digest, err := a.o.Store.Put(ctx, data)
	if err != nil {
		return nil, fmt.Errorf("store plan: %w", err)
	}
	ref := &PlanRef{Option: p.Option, Digest: digest, Purpose: string(p.Purpose)}
	for _, s := range p.Steps {
		e, _ := plan.Lookup(s.Action)
		ref.Steps = append(ref.Steps, StepRef{Index: s.Index, Group: s.Group, Action: string(s.Action), Queue: string(e.Enforcer), Target: s.Target.String(), TargetUID: s.Target.UID,
			DurationSeconds: s.DurationSeconds, Expiry: string(s.Expiry), Observable: e.Observable})
	}
	return ref, nil
}

// sift parts signed detections under this key from what only claims to be some: one forged name among them must not keep
// the others from being acted on.
func (a *Assessment) sift(ctx context.Context, key string, digests []string) (signed, forged []string, err error) {
	t := a.o.Policy().Trust
	for _, digest := range digests {
		envs, err := LoadEnvelopes(ctx, a.o.Store, []string{digest})
		switch {
		case errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrDigest) || errors.Is(err, ErrRefused):
			forged = append(forged, digest)
			continue
		case err != nil:
			return nil, nil, err
		}
		if d, err := authz.OpenDetection(t, envs[0]); err != nil || d.Key() != key {
			forged = append(forged, digest)
			continue
		}
		signed = append(signed, digest)
	}
	return signed, forged, nil
}

func (a *Assessment) detections(ctx context.Context, digests []string) ([]*detection.Detection, error) {
	if len(digests) == 0 {
		return nil, fmt.Errorf("no detections: %w", ErrRefused)
	}
	envs, err := LoadEnvelopes(ctx, a.o.Store, digests)
	if err != nil {
		return nil, err
	}
	t := a.o.Policy().Trust
	out := make([]*detection.Detection, 0, len(envs))
	for i, e := range envs {
		d, err := authz.OpenDetection(t, e)
		if err != nil {
			return nil, fmt.Errorf("detection %.19s: %w: %w", digests[i], err, ErrRefused)
		}
		out = append(out, d)
	}
	return out, nil
}

// choose takes the playbook that takes the worst detection; among several the one with the longest match, then by name.
func choose(books []authz.Book, ds []*detection.Detection) (authz.Book, bool) {
	best, found, rank := authz.Book{}, false, -1
	for _, b := range books {
		for _, d := range ds {
			if !b.Playbook.Takes(d) {
				continue
			}
			r := d.Severity.Rank()*1000 + len(b.Playbook.Stop)
			if r > rank || (r == rank && b.Playbook.Playbook < best.Playbook.Playbook) {
				best, found, rank = b, true, r
			}
		}
	}
	return best, found
}

// subjectOf collects the targets that signed detections name. attested leaves out what a workload only claims.
func subjectOf(policy Policy, ds []*detection.Detection, attested bool) playbook.Subject {
	var s playbook.Subject
	for _, d := range ds {
		if w := d.Workload; w != nil && w.PodUID != "" && s.Pod == nil {
			s.Pod = &plan.Target{Kind: plan.Pod, Scope: w.Cluster, Namespace: w.Namespace, Name: w.Pod, UID: w.PodUID}
		}
		for _, id := range d.Identities {
			if id.Kind == identity.ServiceAccount && s.ServiceAccount == nil {
				uid := id.UID
				if uid == "" {
					uid = id.Namespace + "/" + id.Name
				}
				s.ServiceAccount = &plan.Target{Kind: plan.ServiceAccount, Scope: id.Scope, Namespace: id.Namespace, Name: id.Name, UID: uid}
			}
			if id.Kind != identity.AccessKey || (attested && id.Link != identity.Attested) {
				continue
			}
			s.Keys = addKey(s.Keys, policy, id.Scope, id.Name)
		}
	}
	return s
}

func addKey(keys []plan.Target, policy Policy, account, id string) []plan.Target {
	if account == "" && len(policy.Trust.Scope.Accounts) == 1 {
		account = policy.Trust.Scope.Accounts[0]
	}
	if account == "" || slices.ContainsFunc(keys, func(t plan.Target) bool { return t.Name == id }) {
		return keys
	}
	return append(keys, plan.Target{Kind: plan.AccessKey, Scope: account, Name: id, UID: id})
}

func (o *TriageOutput) describe(ds []*detection.Detection) {
	for _, d := range ds {
		if w := d.Workload; w != nil && o.Subject == "" {
			o.Subject = fmt.Sprintf("pod %s/%s on %s", w.Namespace, w.Pod, w.Cluster)
			if w.PodUID == "" && w.OwnerKind == "Node" { // a sensor that tells of itself
				o.Subject = fmt.Sprintf("node %s on %s", w.OwnerName, w.Cluster)
			}
		}
		for _, id := range d.Identities {
			line := fmt.Sprintf("%s %s (%s: %s)", id.Kind, id.Name, id.Link, id.Evidence)
			if !slices.Contains(o.Identities, line) {
				o.Identities = append(o.Identities, line)
			}
			if id.Kind == identity.AccessKey && !slices.Contains(o.KeyIDs, id.Name) {
				o.KeyIDs = append(o.KeyIDs, id.Name)
			}
		}
	}
	if o.Subject == "" {
		o.Subject = "identity without a workload"
	}
}

func (a *Assessment) now() time.Time { return a.o.Now().UTC().Truncate(time.Millisecond) }
