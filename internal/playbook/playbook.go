// Package playbook is the versioned, signed configuration that says which detections start what: which steps run at
// once, which wait for a person, who is asked, for how long, and what happens if nobody answers. A playbook can only
// narrow what the trust file allows; package authz checks that and the signature.
package playbook

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"

	"tourniquet.dev/tourniquet/internal/detection"
	"tourniquet.dev/tourniquet/internal/plan"
	"tourniquet.dev/tourniquet/internal/strictyaml"
	"tourniquet.dev/tourniquet/internal/trust"
)

// Match says which detections a playbook takes: any of the techniques and any of the severities.
type Match struct {
	Techniques []string             `yaml:"techniques" json:"techniques"`
	Severity   []detection.Severity `yaml:"severity" json:"severity"`
}

// Step is one containment step. For means it comes off by itself, Review that people are asked again.
type Step struct {
	Action plan.Action   `yaml:"action" json:"action"`
	For    time.Duration `yaml:"for,omitempty" json:"for,omitempty"`
	Review time.Duration `yaml:"review,omitempty" json:"review,omitempty"`
	// Max bounds the step's closure; 0 means the default of the format, 10.
	Max int `yaml:"max,omitempty" json:"max,omitempty"`
}

// Entry of contain is one step, or an atomic group of steps.
type Entry struct {
	Action plan.Action   `yaml:"action,omitempty" json:"action,omitempty"`
	For    time.Duration `yaml:"for,omitempty" json:"for,omitempty"`
	Review time.Duration `yaml:"review,omitempty" json:"review,omitempty"`
	Max    int           `yaml:"max,omitempty" json:"max,omitempty"`
	Atomic []Step        `yaml:"atomic,omitempty" json:"atomic,omitempty"`
}

// Steps returns the entry's steps and whether they are atomic.
func (e Entry) Steps() (steps []Step, atomic bool) {
	if len(e.Atomic) > 0 {
		return e.Atomic, true
	}
	return []Step{{Action: e.Action, For: e.For, Review: e.Review, Max: e.Max}}, false
}

// Tier is one group of people, asked until the timeout.
type Tier struct {
	Ask       string          `yaml:"ask" json:"ask"`
	Quorum    int             `yaml:"quorum,omitempty" json:"quorum,omitempty"`
	Timeout   time.Duration   `yaml:"timeout" json:"timeout"`
	Assurance trust.Assurance `yaml:"assurance,omitempty" json:"assurance,omitempty"`
}

// Guardrail refuses a plan: Refuse is a CEL expression over the plan, see package guardrail; Why tells people.
type Guardrail struct {
	Name   string `yaml:"name" json:"name"`
	Refuse string `yaml:"refuse" json:"refuse"`
	Why    string `yaml:"why" json:"why"`
}

// Playbook is one document.
type Playbook struct {
	Playbook    string        `yaml:"playbook" json:"playbook"`
	Version     int           `yaml:"version" json:"version"`
	Description string        `yaml:"description,omitempty" json:"description,omitempty"`
	Match       Match         `yaml:"match" json:"match"`
	Stop        []Step        `yaml:"stop,omitempty" json:"stop,omitempty"`
	Contain     []Entry       `yaml:"contain" json:"contain"`
	Forbid      []plan.Action `yaml:"forbid,omitempty" json:"forbid,omitempty"`
	Tiers       []Tier        `yaml:"tiers" json:"tiers"`
	Fallback    []Step        `yaml:"fallback,omitempty" json:"fallback,omitempty"`
	Guardrails  []Guardrail   `yaml:"guardrails,omitempty" json:"guardrails,omitempty"`
	Reflex      []Reflex      `yaml:"reflex,omitempty" json:"reflex,omitempty"`
	// Budget bounds what this playbook may do without a person; empty means the trust file's ceiling.
	Budget trust.Budget `yaml:"budget,omitempty" json:"budget,omitempty"`
	// Reassert says how often a hold that was broken is put back before a person is asked; default 3.
	Reassert int `yaml:"reassert,omitempty" json:"reassert,omitempty"`
}

// Default returns the values of fields that a document leaves out.
func Default() Playbook { return Playbook{Reassert: 3} }

// Decode decodes and validates one playbook. It needs no other file.
func Decode(data []byte) (*Playbook, error) {
	p := Default()
	if err := strictyaml.Decode(data, &p); err != nil {
		return nil, fmt.Errorf("decode playbook: %w", err)
	}
	for i := range p.Tiers {
		if p.Tiers[i].Quorum == 0 {
			p.Tiers[i].Quorum = 1
		}
		if p.Tiers[i].Assurance == "" {
			p.Tiers[i].Assurance = trust.Click
		}
	}
	if err := p.Validate(); err != nil {
		return nil, fmt.Errorf("playbook %q: %w", p.Playbook, err)
	}
	return &p, nil
}

var (
	nameForm      = regexp.MustCompile(`^[a-z][a-z0-9-]{0,62}$`)
	techniqueForm = regexp.MustCompile(`^T[0-9]{4}(\.[0-9]{3})?$`)
)

type problems []error

func (p *problems) add(at, format string, args ...any) {
	*p = append(*p, fmt.Errorf(at+": "+format, args...))
}

// Validate reports every problem at once, each with its path.
func (p *Playbook) Validate() error {
	var bad problems
	if !nameForm.MatchString(p.Playbook) {
		bad.add("playbook", "%.64q is not a lower-case name with hyphens", p.Playbook)
	}
	if p.Version < 1 {
		bad.add("version", "must be at least 1")
	}
	if len(p.Description) > 500 {
		bad.add("description", "is longer than 500 bytes")
	}
	if len(p.Match.Techniques) == 0 {
		bad.add("match.techniques", "at least one is needed")
	}
	for i, t := range p.Match.Techniques {
		if !techniqueForm.MatchString(t) {
			bad.add(fmt.Sprintf("match.techniques[%d]", i), "%.20q is not a technique such as T1552.005", t)
		}
	}
	if len(p.Match.Severity) == 0 {
		bad.add("match.severity", "at least one is needed")
	}
	for i, s := range p.Match.Severity {
		if !s.Valid() {
			bad.add(fmt.Sprintf("match.severity[%d]", i), "%.20q is not a severity", s)
		}
	}
	for i, s := range p.Stop {
		p.checkStep(&bad, fmt.Sprintf("stop[%d]", i), s, true)
	}
	for i, s := range p.Fallback {
		p.checkStep(&bad, fmt.Sprintf("fallback[%d]", i), s, true)
	}
	p.checkContain(&bad)
	p.checkTiers(&bad)
	p.checkGuardrails(&bad)
	p.checkReflex(&bad)
	if p.Budget.Effects < 0 || p.Budget.Window < 0 || (p.Budget.Effects > 0) != (p.Budget.Window > 0) {
		bad.add("budget", "effects and window go together and are positive")
	}
	if p.Reassert < 0 || p.Reassert > 100 {
		bad.add("reassert", "must be between 0 and 100")
	}
	return errors.Join(bad...)
}

func (p *Playbook) checkContain(bad *problems) {
	if len(p.Contain) == 0 {
		bad.add("contain", "at least one step is needed")
	}
	for i, e := range p.Contain {
		at := fmt.Sprintf("contain[%d]", i)
		if (e.Action != "") == (len(e.Atomic) > 0) {
			bad.add(at, "want either action or atomic")
			continue
		}
		steps, atomic := e.Steps()
		var enforcer plan.Enforcer
		for j, s := range steps {
			where := at
			if atomic {
				where = fmt.Sprintf("%s.atomic[%d]", at, j)
			}
			p.checkStep(bad, where, s, false)
			entry, _ := plan.Lookup(s.Action)
			if atomic && j > 0 && entry.Enforcer != enforcer {
				bad.add(where, "an atomic group belongs to one enforcer; %s is not one of %s", s.Action, enforcer)
			}
			enforcer = entry.Enforcer
		}
	}
}

func (p *Playbook) checkStep(bad *problems, at string, s Step, unattended bool) {
	entry, ok := plan.Lookup(s.Action)
	switch {
	case !ok:
		bad.add(at+".action", "%.64q is not in the catalogue", s.Action)
	case slices.Contains(p.Forbid, s.Action):
		bad.add(at+".action", "%s is forbidden below", s.Action)
	case (s.For > 0) == (s.Review > 0):
		bad.add(at, "want exactly one of for and review, positive")
	case unattended && s.Review > 0:
		bad.add(at+".review", "a step without a person must come off by itself: use for")
	case unattended && !entry.Reversible:
		bad.add(at+".action", "%s cannot be undone and needs a person", s.Action)
	case s.Review > 0 && !entry.Reviewable:
		bad.add(at+".review", "%s knows only for", s.Action)
	case max(s.For, s.Review)%time.Second != 0:
		bad.add(at, "durations are whole seconds")
	case s.Max < 0 || s.Max > 100:
		bad.add(at+".max", "must be between 0 and 100")
	}
}

func (p *Playbook) checkTiers(bad *problems) {
	if len(p.Tiers) == 0 {
		bad.add("tiers", "at least one is needed: somebody must be asked")
	}
	for i, t := range p.Tiers {
		at := fmt.Sprintf("tiers[%d]", i)
		if !nameForm.MatchString(t.Ask) {
			bad.add(at+".ask", "%.64q is not a group's name", t.Ask)
		}
		if t.Timeout <= 0 || t.Timeout%time.Second != 0 {
			bad.add(at+".timeout", "must be positive, in whole seconds")
		}
		if t.Quorum < 1 || t.Quorum > 10 {
			bad.add(at+".quorum", "must be between 1 and 10")
		}
		if t.Assurance.Rank() < 1 {
			bad.add(at+".assurance", "%.20q is not click, key or webauthn", t.Assurance)
		}
	}
}

func (p *Playbook) checkGuardrails(bad *problems) {
	seen := map[string]bool{}
	for i, g := range p.Guardrails {
		at := fmt.Sprintf("guardrails[%d]", i)
		if !nameForm.MatchString(g.Name) || seen[g.Name] {
			bad.add(at+".name", "%.64q is not a lower-case name with hyphens, or stands twice", g.Name)
		}
		seen[g.Name] = true
		if g.Refuse == "" || len(g.Refuse) > 2000 {
			bad.add(at+".refuse", "must be an expression of 1 to 2000 bytes")
		}
		if g.Why == "" || len(g.Why) > 200 {
			bad.add(at+".why", "must be 1 to 200 bytes: people read it")
		}
	}
	if len(p.Guardrails) > 32 {
		bad.add("guardrails", "has %d entries, at most 32", len(p.Guardrails))
	}
}

// Takes reports whether the playbook matches a detection.
func (p *Playbook) Takes(d *detection.Detection) bool {
	if !slices.Contains(p.Match.Severity, d.Severity) {
		return false
	}
	return slices.ContainsFunc(d.Attacks, func(a detection.Attack) bool { return slices.Contains(p.Match.Techniques, a.TechniqueID) })
}

// Lapse is how long it takes until every tier was asked in vain.
func (p *Playbook) Lapse() time.Duration {
	var sum time.Duration
	for _, t := range p.Tiers {
		sum += t.Timeout
	}
	return sum
}

// StepFor returns the playbook's own step for an action under a purpose.
func (p *Playbook) StepFor(purpose plan.Purpose, a plan.Action) (Step, bool) {
	var steps []Step
	switch purpose {
	case plan.Stop:
		steps = p.Stop
	case plan.Fallback:
		steps = p.Fallback
	case plan.Full:
		for _, e := range p.Contain {
			s, _ := e.Steps()
			steps = append(steps, s...)
		}
	}
	if i := slices.IndexFunc(steps, func(s Step) bool { return s.Action == a }); i >= 0 {
		return steps[i], true
	}
	return Step{}, false
}

// Duration and Expiry in the plan's terms.
func (s Step) Duration() (time.Duration, plan.Expiry) {
	if s.For > 0 {
		return s.For, plan.Release
	}
	return s.Review, plan.Review
}

// ClosureMax is the bound of the step's closure.
func (s Step) ClosureMax() int {
	if s.Max == 0 {
		return 10
	}
	return s.Max
}
