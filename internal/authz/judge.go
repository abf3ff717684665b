package authz

import (
	"fmt"
	"path"
	"slices"
	"time"

	"tourniquet.dev/tourniquet/internal/detection"
	"tourniquet.dev/tourniquet/internal/identity"
	"tourniquet.dev/tourniquet/internal/incident"
	"tourniquet.dev/tourniquet/internal/plan"
	"tourniquet.dev/tourniquet/internal/playbook"
	"tourniquet.dev/tourniquet/internal/trust"
)

// Verb is what is to be done.
type Verb string

// The verbs that Judge knows.
const (
	// ApplyStep puts a step on; also used by decide before it signs and by orchestrate for its verdict.
	VerbApply  Verb = "apply"
	VerbUndo   Verb = "undo"
	VerbRetire Verb = "retire"
	VerbExtend Verb = "extend"
	// VerbReassert puts a broken hold back on.
	VerbReassert Verb = "reassert"
)

// Code is a stable reason of a refusal.
type Code string

// The codes.
const (
	CodePlan          Code = "plan-invalid"
	CodeScope         Code = "out-of-scope"
	CodeProtected     Code = "protected"
	CodePlaybook      Code = "playbook-unknown"
	CodeRollback      Code = "playbook-rolled-back"
	CodeForbidden     Code = "not-in-playbook"
	CodeCeiling       Code = "above-ceiling"
	CodeDetection     Code = "detection-invalid"
	CodeIncident      Code = "wrong-incident"
	CodeStale         Code = "detection-stale"
	CodeTarget        Code = "target-not-detected"
	CodeClaimed       Code = "identity-only-claimed"
	CodeBudget        Code = "budget-exhausted"
	CodeNoDecision    Code = "no-valid-decision"
	CodeDenied        Code = "denied"
	CodeExpired       Code = "decision-expired"
	CodeAssurance     Code = "assurance-too-low"
	CodeQuorum        Code = "quorum-missing"
	CodeSpent         Code = "already-spent"
	CodeClosure       Code = "closure-too-wide"
	CodeNotLapsed     Code = "tiers-not-lapsed"
	CodeNoUndoReason  Code = "no-authority-to-undo"
	CodeNeverBegun    Code = "never-begun"
	CodeReassertLimit Code = "reassert-limit"
	CodeUnknownVerb   Code = "unknown-verb"
)

// Refusal is a judge's no. It is an error.
type Refusal struct {
	Code Code
	Why  string
}

func (r *Refusal) Error() string { return string(r.Code) + ": " + r.Why }

func refuse(c Code, format string, args ...any) *Refusal {
	return &Refusal{Code: c, Why: fmt.Sprintf(format, args...)}
}

// Request is what is asked for: a verb on a step of the plan, and the targets that the enforcer found for it.
type Request struct {
	Verb Verb
	Step int
	// Found are the objects the step would touch now. decide and orchestrate, which see no system, leave it empty and
	// are judged on the step's own target.
	Found []plan.Target
	// Account or Cluster that the enforcer has proven it stands in; empty where nothing is touched.
	Standing string
}

// Spent is what the judging process remembers in its own journal.
type Spent struct {
	// HighestPlaybook is the highest version ever seen, by name.
	HighestPlaybook map[string]int
	// Unattended are the times of effects made without a person, by playbook name ("" holds all of them).
	Unattended map[string][]time.Time
	// Nonces maps "nonce/person" to the plan digest it was spent on.
	Nonces map[string]string
	// Ended is set when this step of this plan was undone or retired before: its approval is used up.
	Ended bool
	// Held is the step's open hold, for undo, retire, extend and reassert.
	Held *Held
}

// Held is an open hold as the journal knows it.
type Held struct {
	Since, Ends time.Time
	Expiry      plan.Expiry
	// GroupFailed is set when the journal recorded the failure of the step's atomic group.
	GroupFailed bool
	Reasserted  int
}

// Verdict is a judge's yes: on whose authority, and which envelopes carried it.
type Verdict struct {
	// Authority is "pre-authorized by <playbook> v<n>", "approved by <people>", "clock", or "failed group".
	Authority string `json:"authority"`
	// Envelopes are the digests of what was accepted, sorted.
	Envelopes []string `json:"envelopes"`
	// Unattended is set when no person decided: it is counted against the budget.
	Unattended bool `json:"unattended"`
	// Nonces to be recorded as spent ("nonce/person").
	Nonces []string `json:"nonces,omitempty"`
}

// Judge says whether the request may be done, from nothing but its arguments. envelopes are the signed detections
// and decisions at hand, in any order; what does not verify carries no weight. The error is a *Refusal.
func Judge(t *trust.File, books []Book, p *plan.Plan, req Request, envelopes []Envelope, spent Spent, now time.Time) (Verdict, error) {
	c := &hearing{t: t, plan: p, req: req, spent: spent, now: now}
	if err := p.Validate(); err != nil {
		return Verdict{}, refuse(CodePlan, "%v", err)
	}
	digest, err := p.Digest()
	if err != nil {
		return Verdict{}, refuse(CodePlan, "%v", err)
	}
	c.digest = digest
	if req.Step < 0 || req.Step >= len(p.Steps) {
		return Verdict{}, refuse(CodePlan, "has no step %d", req.Step)
	}
	c.step = p.Steps[req.Step]
	c.sort(envelopes)
	switch req.Verb {
	case VerbUndo, VerbRetire:
		return c.end(books)
	case VerbApply, VerbExtend, VerbReassert:
	default:
		return Verdict{}, refuse(CodeUnknownVerb, "%.20q", req.Verb)
	}
	if r := c.targets(); r != nil {
		return Verdict{}, r
	}
	if r := c.findBook(books); r != nil {
		return Verdict{}, r
	}
	if r := c.rests(); r != nil {
		return Verdict{}, r
	}
	v, r := c.authority()
	if r != nil {
		return Verdict{}, r
	}
	return v, nil
}

// JudgePlan judges every step of a plan with the same verb, as an enforcer would that remembers nothing, and returns
// the last verdict or the first refusal. Holds count as open with their end ahead: only people's word can carry an
// undo here, never the clock.
func JudgePlan(t *trust.File, books []Book, p *plan.Plan, verb Verb, envelopes []Envelope, now time.Time) (Verdict, error) {
	var v Verdict
	for i, s := range p.Steps {
		held := &Held{Since: now, Ends: now.Add(s.Duration()), Expiry: s.Expiry}
		var err error
		if v, err = Judge(t, books, p, Request{Verb: verb, Step: i}, envelopes, Spent{Held: held}, now); err != nil {
			return Verdict{}, fmt.Errorf("step %d: %w", i, err)
		}
	}
	return v, nil
}

// hearing is one case before the judge.
type hearing struct {
	t      *trust.File
	plan   *plan.Plan
	digest string
	step   plan.Step
	req    Request
	spent  Spent
	now    time.Time
	book   Book

	detections map[string]*detection.Detection // by envelope digest, valid ones only
	decisions  []decided
}

type decided struct {
	Decision
	digest string
	person trust.Person
}

// sort verifies every envelope and keeps what counts: valid detections, and valid decisions on this very plan.
func (c *hearing) sort(envelopes []Envelope) {
	c.detections = map[string]*detection.Detection{}
	seen := map[string]bool{}
	for _, e := range envelopes {
		digest, err := e.Digest()
		if err != nil || seen[digest] {
			continue
		}
		seen[digest] = true
		switch e.PayloadType {
		case TypeDetection:
			if d, err := OpenDetection(c.t, e); err == nil {
				c.detections[digest] = d
			}
		case TypeDecision:
			d, err := OpenDecision(c.t, e)
			if err != nil || d.IncidentID != c.plan.IncidentID || d.PlanDigest != c.digest {
				continue
			}
			if p, ok := c.t.PersonByID(d.Person); ok {
				c.decisions = append(c.decisions, decided{d, digest, p})
			}
		}
	}
	slices.SortFunc(c.decisions, func(a, b decided) int { return a.IssuedAt.Compare(b.IssuedAt) })
}

// targets checks scope, the protected set and the closure for the step's own target and everything found.
func (c *hearing) targets() *Refusal {
	entry, _ := plan.Lookup(c.step.Action)
	if c.req.Standing != "" && c.req.Standing != c.step.Target.Scope {
		return refuse(CodeScope, "this enforcer stands in %q, the step is for %q", c.req.Standing, c.step.Target.Scope)
	}
	limit := 1
	if c.step.Closure != nil {
		limit = c.step.Closure.Max
		if c.step.Closure.Of != ClosureOf(entry, c.step.Target) {
			return refuse(CodeClosure, "%.80q is not this step's closure", c.step.Closure.Of)
		}
	}
	if len(c.req.Found) > limit || len(c.plan.Steps) > c.t.Ceilings.MaxTargets {
		return refuse(CodeClosure, "%d targets found, the plan allows %d and the trust file %d", len(c.req.Found), limit, c.t.Ceilings.MaxTargets)
	}
	for _, tg := range append([]plan.Target{c.step.Target}, c.req.Found...) {
		if r := c.allowed(tg); r != nil {
			return r
		}
	}
	return nil
}

// ClosureOf is the phrase of an action's closure for a target; empty when it has none.
func ClosureOf(e plan.Entry, t plan.Target) string {
	if e.Closure == "" {
		return ""
	}
	return fmt.Sprintf(e.Closure, t.Name)
}

// principals are the names under which the protected set may know an AWS target: a user's or a role's name, unique id
// and ARN, whose path is the target's namespace. A key found in AWS bears its owner there; it counts as its owner.
func principals(tg plan.Target) []string {
	full, names := tg.Namespace, []string{}
	if tg.Kind != plan.AccessKey {
		full, names = path.Join(tg.Namespace, tg.Name), []string{tg.Name, tg.UID}
	}
	kind := plan.AWSUser
	if tg.Kind == plan.AWSRole {
		kind = plan.AWSRole
	}
	if full != "" {
		for _, partition := range []string{"aws", "aws-cn", "aws-us-gov"} {
			names = append(names, fmt.Sprintf("arn:%s:iam::%s:%s/%s", partition, tg.Scope, kind, full))
		}
	}
	return names
}

func (c *hearing) allowed(tg plan.Target) *Refusal {
	if tg.AWS() {
		if !slices.Contains(c.t.Scope.Accounts, tg.Scope) {
			return refuse(CodeScope, "account %q is not in the trust file", tg.Scope)
		}
		if slices.ContainsFunc(principals(tg), c.t.ProtectsPrincipal) {
			return refuse(CodeProtected, "%s", tg)
		}
		return nil
	}
	if !slices.Contains(c.t.Scope.Clusters, tg.Scope) {
		return refuse(CodeScope, "cluster %q is not in the trust file", tg.Scope)
	}
	if tg.Kind == plan.ServiceAccount && c.t.ProtectsServiceAccount(tg.Namespace, tg.Name) {
		return refuse(CodeProtected, "%s", tg)
	}
	if tg.Namespace != "" && c.t.ProtectsNamespace(tg.Namespace) {
		return refuse(CodeProtected, "%s", tg)
	}
	return nil
}

// findBook finds the very playbook that the plan names, and checks that the step is in it.
func (c *hearing) findBook(books []Book) *Refusal {
	i := slices.IndexFunc(books, func(b Book) bool { return b.Ref() == c.plan.Playbook })
	if i < 0 {
		return refuse(CodePlaybook, "%s v%d with this digest is not among this process's signed playbooks", c.plan.Playbook.Name, c.plan.Playbook.Version)
	}
	c.book = books[i]
	if high := c.spent.HighestPlaybook[c.plan.Playbook.Name]; c.plan.Playbook.Version < high && c.plan.Purpose != plan.Full {
		return refuse(CodeRollback, "version %d was seen, this is %d", high, c.plan.Playbook.Version)
	}
	s, ok := c.book.Playbook.StepFor(c.plan.Purpose, c.step.Action)
	if !ok {
		return refuse(CodeForbidden, "playbook %s has no %s step %s", c.plan.Playbook.Name, c.plan.Purpose, c.step.Action)
	}
	d, expiry := s.Duration()
	if c.step.Duration() > d || c.step.Expiry != expiry {
		return refuse(CodeForbidden, "playbook says %s for %s, the plan %s for %s", expiry, d, c.step.Expiry, c.step.Duration())
	}
	if c.step.Closure != nil && c.step.Closure.Max > s.ClosureMax() {
		return refuse(CodeClosure, "playbook allows %d, the plan %d", s.ClosureMax(), c.step.Closure.Max)
	}
	return nil
}

// rests checks the detections the plan rests on: all valid, of its correlation key, taken by its playbook, and the
// first one the one that opened this incident.
func (c *hearing) rests() *Refusal {
	for _, digest := range c.plan.Detections {
		d, ok := c.detections[digest]
		if !ok {
			return refuse(CodeDetection, "no validly signed detection %s at hand", digest)
		}
		if d.Key() != c.plan.CorrelationKey {
			return refuse(CodeIncident, "detection %s belongs to another correlation key", digest)
		}
		if d.Time.After(c.now.Add(Skew)) {
			return refuse(CodeStale, "detection %s lies in the future", digest)
		}
	}
	if incident.ID(c.plan.CorrelationKey, c.plan.Detections[0]) != c.plan.IncidentID {
		return refuse(CodeIncident, "the first detection did not open incident %s", c.plan.IncidentID)
	}
	if !slices.ContainsFunc(c.plan.Detections, func(dg string) bool { return c.book.Playbook.Takes(c.detections[dg]) }) {
		return refuse(CodePlaybook, "playbook %s takes none of the detections", c.plan.Playbook.Name)
	}
	return nil
}

func (c *hearing) authority() (Verdict, *Refusal) {
	switch {
	case c.req.Verb == VerbReassert:
		return c.reassert()
	case c.req.Verb == VerbExtend:
		return c.people(Extend)
	case c.spent.Ended:
		return Verdict{}, refuse(CodeSpent, "this step was ended before; it needs a new plan")
	case c.plan.Purpose == plan.Full:
		return c.people(Approve)
	}
	return c.preAuthorized()
}

// preAuthorized finds whether the signed playbook covers the signed detection and this step, within every ceiling.
func (c *hearing) preAuthorized() (Verdict, *Refusal) {
	ceil := c.t.Ceilings
	entry, _ := plan.Lookup(c.step.Action)
	if !slices.Contains(ceil.PreAuthorize, string(c.step.Action)) || !entry.Reversible || c.step.Expiry != plan.Release || c.step.Duration() > ceil.MaxPreAuthorized {
		return Verdict{}, refuse(CodeCeiling, "%s for %s (%s) may not be pre-authorized", c.step.Action, c.step.Duration(), c.step.Expiry)
	}
	var witness *detection.Detection
	why := refuse(CodeTarget, "%s stands in no signed detection of this plan", c.step.Target)
	for _, dg := range c.plan.Detections {
		d := c.detections[dg]
		if r := c.covers(d); r != nil {
			if r.Code != CodeTarget {
				why = r
			}
			continue
		}
		witness = d
	}
	if witness == nil {
		return Verdict{}, why
	}
	if c.plan.Purpose == plan.Fallback && c.now.Before(c.detections[c.plan.Detections[0]].Time.Add(c.book.Playbook.Lapse())) {
		return Verdict{}, refuse(CodeNotLapsed, "the tiers of %s lapse later", c.book.Playbook.Playbook)
	}
	if c.plan.Purpose == plan.Fallback {
		if i := slices.IndexFunc(c.decisions, func(d decided) bool { return d.Kind == Deny }); i >= 0 {
			return Verdict{}, refuse(CodeDenied, "by %s", c.decisions[i].Person)
		}
	}
	if r := c.budget(); r != nil {
		return Verdict{}, r
	}
	envelopes := slices.Clone(c.plan.Detections)
	slices.Sort(envelopes)
	return Verdict{Authority: fmt.Sprintf("pre-authorized by %s v%d", c.book.Playbook.Playbook, c.book.Playbook.Version), Envelopes: envelopes, Unattended: true}, nil
}

// covers says whether a detection pre-authorizes the step: taken by the playbook, fresh, from a source that may, and
// naming the step's target, in AWS with an attested link.
func (c *hearing) covers(d *detection.Detection) *Refusal {
	if !c.book.Playbook.Takes(d) {
		return refuse(CodeTarget, "not taken")
	}
	if d.Source.Kind == detection.ThirdParty {
		if s, ok := c.t.ThirdParty(d.Source.Name); !ok || !s.PreAuthorize {
			return refuse(CodeTarget, "source %s may not start anything by itself", d.Source.Name)
		}
	}
	age := c.t.Ceilings.DetectionMaxAge
	if c.plan.Purpose == plan.Fallback {
		age += c.book.Playbook.Lapse()
	}
	if c.now.Sub(d.Time) > age {
		return refuse(CodeStale, "detection is older than %s", age)
	}
	tg := c.step.Target
	if !tg.AWS() {
		w := d.Workload
		switch {
		case w == nil || w.Cluster != tg.Scope || w.Namespace != tg.Namespace:
		case tg.Kind == plan.Pod && w.PodUID != "" && w.PodUID == tg.UID:
			return nil
		case tg.Kind == plan.ServiceAccount && w.ServiceAccount != "" && w.ServiceAccount == tg.Name:
			return nil
		}
		return refuse(CodeTarget, "%s stands in no signed detection of this plan", tg)
	}
	for _, id := range d.Identities {
		if id.Kind == identity.AccessKey && tg.Kind == plan.AccessKey && id.Name == tg.Name && (id.Scope == "" || id.Scope == tg.Scope) {
			if id.Link != identity.Attested {
				return refuse(CodeClaimed, "access key %s is only claimed by the workload; a person must decide", tg.Name)
			}
			return nil
		}
	}
	return refuse(CodeTarget, "%s stands in no signed detection of this plan", tg)
}

func (c *hearing) budget() *Refusal {
	check := func(name string, b trust.Budget) *Refusal {
		n := 0
		for _, at := range c.spent.Unattended[name] {
			if c.now.Sub(at) < b.Window {
				n++
			}
		}
		if b.Effects > 0 && n >= b.Effects {
			return refuse(CodeBudget, "%d unattended effects in %s, the limit is %d", n, b.Window, b.Effects)
		}
		return nil
	}
	if r := check("", c.t.Ceilings.Budget); r != nil {
		return r
	}
	return check(c.book.Playbook.Playbook, c.book.Playbook.Budget)
}

// people counts the decisions of this kind: a quorum of distinct people of one tier, none of whom was outvoted.
func (c *hearing) people(kind DecisionKind) (Verdict, *Refusal) {
	for _, d := range c.decisions {
		if d.Kind == Deny && kind == Approve {
			return Verdict{}, refuse(CodeDenied, "by %s: a deny wins", d.Person)
		}
	}
	if c.step.Duration() > c.t.Ceilings.MaxApproved {
		return Verdict{}, refuse(CodeCeiling, "%s is longer than the trust file allows", c.step.Duration())
	}
	why := refuse(CodeNoDecision, "no valid %s of this plan", kind)
	for _, tier := range c.book.Playbook.Tiers {
		v, r := c.tier(tier, kind)
		if r == nil {
			return v, nil
		}
		if r.Code != CodeNoDecision {
			why = r
		}
	}
	return Verdict{}, why
}

func (c *hearing) tier(tier playbook.Tier, kind DecisionKind) (Verdict, *Refusal) {
	why := refuse(CodeNoDecision, "nobody of %s decided", tier.Ask)
	subjects, v := map[string]bool{}, Verdict{}
	var names []string
	for _, d := range c.decisions {
		if d.Kind != kind || !d.person.In(tier.Ask) || subjects[d.person.Subject] {
			continue
		}
		switch {
		case d.IssuedAt.After(c.now.Add(Skew)) || !c.now.Before(d.ExpiresAt):
			why = refuse(CodeExpired, "the decision of %s held until %s", d.Person, d.ExpiresAt.Format(time.RFC3339))
			continue
		case d.Assurance.Rank() < tier.Assurance.Rank() || (d.Assurance == trust.Click && !slices.Contains(c.t.Ceilings.Click, string(c.step.Action))):
			why = refuse(CodeAssurance, "%s needs more than a %s", c.step.Action, d.Assurance)
			continue
		}
		key := d.Nonce + "/" + d.Person
		if on, used := c.spent.Nonces[key]; used && on != c.digest {
			why = refuse(CodeSpent, "the decision of %s was used for another plan", d.Person)
			continue
		}
		subjects[d.person.Subject] = true
		names, v.Envelopes, v.Nonces = append(names, d.Person), append(v.Envelopes, d.digest), append(v.Nonces, key)
	}
	if len(subjects) < tier.Quorum {
		if len(subjects) > 0 {
			why = refuse(CodeQuorum, "%d of %d people of %s", len(subjects), tier.Quorum, tier.Ask)
		}
		return Verdict{}, why
	}
	slices.Sort(names)
	slices.Sort(v.Envelopes)
	v.Authority = fmt.Sprintf("%sd by %s (%s)", kind, joinNames(names), tier.Ask)
	if kind == Extend {
		v.Authority = fmt.Sprintf("extended by %s (%s)", joinNames(names), tier.Ask)
	}
	return v, nil
}

func joinNames(names []string) string {
	out := ""
	for i, n := range names {
		if i > 0 {
			out += ", "
		}
		out += n
	}
	return out
}
