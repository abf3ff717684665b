package activities

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/blast"
	"tourniquet.dev/tourniquet/internal/detection"
	"tourniquet.dev/tourniquet/internal/guardrail"
	"tourniquet.dev/tourniquet/internal/identity"
	"tourniquet.dev/tourniquet/internal/incident"
	"tourniquet.dev/tourniquet/internal/plan"
	"tourniquet.dev/tourniquet/internal/playbook"
	"tourniquet.dev/tourniquet/internal/risk"
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
}

// Triage picks the playbook and makes the stop plan. It may be called again when more detections came: the stop plan
// then covers what they add.
func (a *Assessment) Triage(ctx context.Context, in TriageInput) (TriageOutput, error) {
	var out TriageOutput
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

// AssessInput names everything gathered.
type AssessInput struct {
	Key        string   `json:"key"`
	Detections []string `json:"detections"`
	Facts      []string `json:"facts"`
	Gaps       []string `json:"gaps"`
}

// Option is one way to contain, with what it leaves.
type Option struct {
	Draft    Draft         `json:"draft"`
	Residual blast.Radius  `json:"residual"`
	Exposure risk.Exposure `json:"exposure"`
}

// AssessmentRecord is the stored assessment: what can be reached now, what waiting costs, and each option.
type AssessmentRecord struct {
	V       int           `json:"v"`
	Facts   []string      `json:"facts"`
	Before  blast.Radius  `json:"before"`
	Waiting risk.Exposure `json:"waiting"`
	Options []Option      `json:"options"`
	Gaps    []string      `json:"gaps,omitempty"`
}

// AssessOutput names the stored assessment and carries the drafts to be captured.
type AssessOutput struct {
	Assessment string        `json:"assessment"`
	Drafts     []Draft       `json:"drafts"`
	Score      float64       `json:"score"`
	Admin      bool          `json:"admin"`
	Waiting    risk.Exposure `json:"waiting"`
	// Witness is the best path to the most valuable asset, in words.
	Witness []string `json:"witness,omitempty"`
}

// options are the ways to contain that a full plan offers: everything, only identities, only the workload.
var options = []struct {
	name string
	keep func(plan.Action) bool
}{
	{"everything", nil},
	{"identities-only", func(x plan.Action) bool {
		return x == plan.KubernetesCutRBAC || x == plan.AWSDeactivateKeys || x == plan.AWSQuarantinePrincipal || x == plan.AWSRevokeSessions
	}},
	{"workload-only", func(x plan.Action) bool {
		return x == plan.KubernetesIsolatePod || x == plan.KubernetesBlockWrites || x.Node()
	}},
}

// Assess computes blast radius and exposure, before and after each option. Same facts, same figures.
func (a *Assessment) Assess(ctx context.Context, in AssessInput) (AssessOutput, error) {
	out, err := a.assess(ctx, in)
	return out, asTemporal(err)
}

func (a *Assessment) assess(ctx context.Context, in AssessInput) (AssessOutput, error) {
	ds, err := a.detections(ctx, in.Detections)
	if err != nil {
		return AssessOutput{}, err
	}
	policy := a.o.Policy()
	book, ok := choose(policy.Books, ds)
	if !ok {
		return AssessOutput{}, fmt.Errorf("no playbook takes these detections: %w", ErrRefused)
	}
	facts, err := loadFacts(ctx, a.o.Store, in.Facts)
	if err != nil {
		return AssessOutput{}, err
	}
	subject := widen(policy, subjectOf(policy, ds, false), facts)
	rec := AssessmentRecord{V: 1, Facts: in.Facts, Gaps: in.Gaps, Before: blast.Compute(facts, blast.Cut{})}
	seed := seedOf(incident.ID(in.Key, in.Detections[0]))
	rec.Waiting = risk.Expose(risk.Inputs{Before: rec.Before.Score, After: rec.Before.Score, Admin: rec.Before.Admin}, seed)
	for i, o := range options {
		steps := book.Playbook.Draft(plan.Full, subject, o.keep)
		if len(steps) == 0 || (i > 0 && len(steps) == len(rec.Options[0].Draft.Steps)) {
			continue
		}
		after := blast.Compute(facts, cutOf(steps, facts))
		rec.Options = append(rec.Options, Option{Draft: Draft{Option: o.name, Recommended: i == 0, Steps: steps}, Residual: after,
			Exposure: risk.Expose(risk.Inputs{Before: rec.Before.Score, After: after.Score, Admin: after.Admin, Delay: [3]time.Duration{time.Minute, 5 * time.Minute, 20 * time.Minute}}, seed)})
		if i == 0 && len(rec.Options) == 0 {
			break
		}
	}
	if len(rec.Options) == 0 {
		return AssessOutput{}, fmt.Errorf("playbook %s has no step for what was found: %w", book.Playbook.Playbook, ErrRefused)
	}
	// What another minute costs is what the recommended option saves by starting a minute sooner: doing nothing costs the same
	// however long one waits to do it.
	rec.Waiting.WaitingPerMinute = rec.Options[0].Exposure.WaitingPerMinute
	digest, err := putCanonical(ctx, a.o.Store, rec)
	if err != nil {
		return AssessOutput{}, err
	}
	out := AssessOutput{Assessment: digest, Score: rec.Before.Score, Admin: rec.Before.Admin, Waiting: rec.Waiting}
	for _, o := range rec.Options {
		out.Drafts = append(out.Drafts, o.Draft)
	}
	if len(rec.Before.Assets) > 0 {
		out.Witness = rec.Before.Assets[0].Path
	}
	return out, nil
}

// widen adds what the investigation found. It widens only what a person decides on, never a stop plan.
func widen(policy Policy, s playbook.Subject, f blast.Facts) playbook.Subject {
	s.Collateral = map[plan.Action][]string{}
	if k := f.Kubernetes; k != nil {
		s.ServiceAccount = &plan.Target{Kind: plan.ServiceAccount, Scope: k.Cluster, Namespace: k.Namespace, Name: k.ServiceAccount, UID: k.AccountUID}
		if n := len(k.Siblings); n > 0 {
			s.Collateral[plan.KubernetesCutRBAC] = []string{fmt.Sprintf("%d other pods of the service account lose its rights", n)}
		}
		for _, svc := range k.Services {
			s.Collateral[plan.KubernetesIsolatePod] = append(s.Collateral[plan.KubernetesIsolatePod], "service "+detection.Clean(svc.Name, 60)+" loses this pod")
		}
		for _, id := range k.KeyIDs {
			s.Keys = addKey(s.Keys, policy, "", id)
		}
	}
	for _, aws := range f.AWS {
		for _, session := range aws.Sessions {
			i := slices.IndexFunc(aws.Roles, func(r blast.Principal) bool { return r.ARN == session.RoleARN })
			if i < 0 || slices.ContainsFunc(s.Roles, func(t plan.Target) bool { return t.UID == aws.Roles[i].ID }) {
				continue
			}
			s.Roles = append(s.Roles, plan.Target{Kind: plan.AWSRole, Scope: aws.Account, Name: aws.Roles[i].Name, UID: aws.Roles[i].ID})
		}
	}
	return s
}

// cutOf says in the graph's terms what the steps take away.
func cutOf(steps []plan.Step, f blast.Facts) blast.Cut {
	var c blast.Cut
	for _, s := range steps {
		switch s.Action {
		case plan.NodeCutNetwork, plan.NodeFreeze, plan.NodeKillPod, plan.KubernetesIsolatePod:
			c.PodNetwork = true
		case plan.KubernetesBlockWrites:
			c.PodWrites = true
		case plan.KubernetesCutRBAC:
			c.ServiceAccount = true
		case plan.AWSDeactivateKeys, plan.AWSQuarantinePrincipal:
			for _, aws := range f.AWS {
				if aws.KeyID != s.Target.Name {
					continue
				}
				for _, k := range aws.Owner.Keys {
					c.Keys = append(c.Keys, k.ID)
				}
				if s.Action == plan.AWSQuarantinePrincipal {
					c.Principals = append(c.Principals, aws.Owner.ARN)
				}
			}
		case plan.AWSRevokeSessions:
			for _, aws := range f.AWS {
				for _, r := range aws.Roles {
					if r.ID == s.Target.UID {
						c.Sessions = append(c.Sessions, r.ARN)
					}
				}
			}
		}
	}
	return c
}

func seedOf(incidentID string) uint64 {
	var s uint64 = 14695981039346656037
	for i := range len(incidentID) {
		s = (s ^ uint64(incidentID[i])) * 1099511628211
	}
	return s
}

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

// LoadAssessment reads a stored assessment.
func LoadAssessment(ctx context.Context, store Lookup, digest string) (*AssessmentRecord, error) {
	rec := &AssessmentRecord{}
	return rec, loadCanonical(ctx, store, digest, rec)
}

func (a *Assessment) now() time.Time { return a.o.Now().UTC().Truncate(time.Millisecond) }

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
