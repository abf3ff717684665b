// Package plan is the policy-as-code artifact: a canonical ContainmentPlan of typed steps, named by its SHA-256
// digest. The digest is what people decide on and what enforcers judge; native files are views rendered from it.
// The package is pure and knows no system: activities carry steps out.
package plan

import (
	"errors"
	"fmt"
	"regexp"
	"time"

	"tourniquet.dev/tourniquet/internal/canonical"
	"tourniquet.dev/tourniquet/internal/incident"
)

// The identity of the document.
const (
	APIVersion = "tourniquet.dev/v1"
	Kind       = "ContainmentPlan"
	// MaxBytes bounds an encoded plan.
	MaxBytes = 512 << 10
	// MaxSteps bounds the steps of one plan.
	MaxSteps = 64
)

// Purpose says under which authority a plan may run.
type Purpose string

const (
	// Stop is made of pre-authorized steps that need no assessment.
	Stop Purpose = "stop"
	// Full needs a person's decision.
	Full Purpose = "full"
	// Fallback is pre-authorized once every tier of approvers has lapsed.
	Fallback Purpose = "fallback"
)

// Expiry is what happens at the end of a step's duration.
type Expiry string

const (
	// Release: the step comes off by itself.
	Release Expiry = "release"
	// Review: the step stays on and people are asked again.
	Review Expiry = "review"
)

// TargetKind is what a target is.
type TargetKind string

// The kinds of targets.
const (
	Pod            TargetKind = "pod"
	ServiceAccount TargetKind = "service-account"
	RoleBinding    TargetKind = "role-binding"
	ClusterBinding TargetKind = "cluster-role-binding"
	AccessKey      TargetKind = "access-key"
	AWSUser        TargetKind = "user"
	AWSRole        TargetKind = "role"
)

// Target is one object, by UID. Scope is the cluster's name or the AWS account.
type Target struct {
	Kind      TargetKind `json:"kind"`
	Scope     string     `json:"scope"`
	Namespace string     `json:"namespace,omitempty"`
	Name      string     `json:"name"`
	UID       string     `json:"uid"`
}

// AWS reports whether the target lives in AWS.
func (t Target) AWS() bool { return t.Kind == AccessKey || t.Kind == AWSUser || t.Kind == AWSRole }

// String is for people and logs.
func (t Target) String() string {
	if t.Namespace != "" {
		return fmt.Sprintf("%s %s/%s", t.Kind, t.Namespace, t.Name)
	}
	return fmt.Sprintf("%s %s", t.Kind, t.Name)
}

// Closure is what a step may also touch without a new approval: at most Max objects of the catalogue's phrase.
type Closure struct {
	Of  string `json:"of"`
	Max int    `json:"max"`
}

// Step is one change to one target.
type Step struct {
	Index  int    `json:"index"`
	Action Action `json:"action"`
	// Group is 0 for a step on its own; steps of the same positive group are atomic: all or none.
	Group   int      `json:"group,omitempty"`
	Target  Target   `json:"target"`
	Closure *Closure `json:"closure,omitempty"`
	// PreImage is the digest of the state that the plan saw; empty in a stop plan, where the enforcer takes it live.
	PreImage        string `json:"pre_image,omitempty"`
	DurationSeconds int64  `json:"duration_seconds"`
	Expiry          Expiry `json:"expiry"`
	// Collateral lists in plain words what else the step hits, as far as the investigation saw.
	Collateral []string `json:"collateral,omitempty"`
}

// Duration is how long the step stays on before it is released or reviewed.
func (s Step) Duration() time.Duration { return time.Duration(s.DurationSeconds) * time.Second }

// PlaybookRef names exactly one signed playbook.
type PlaybookRef struct {
	Name    string `json:"name"`
	Version int    `json:"version"`
	Digest  string `json:"digest"`
}

// Plan is the ContainmentPlan. Absolute times and object names are not in it: the enforcer's intent fixes them.
type Plan struct {
	APIVersion     string      `json:"api_version"`
	Kind           string      `json:"kind"`
	IncidentID     string      `json:"incident_id"`
	CorrelationKey string      `json:"correlation_key"`
	Purpose        Purpose     `json:"purpose"`
	Option         string      `json:"option"`
	Playbook       PlaybookRef `json:"playbook"`
	// Detections are the digests of the signed detections the plan rests on; the first one opened the incident.
	Detections []string `json:"detections"`
	// Assessment is the digest of the assessment a full plan rests on.
	Assessment string `json:"assessment,omitempty"`
	Steps      []Step `json:"steps"`
}

var (
	digestForm = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
	optionForm = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)
)

// ValidDigest reports whether s has the form sha256:<64 hexadecimal digits>.
func ValidDigest(s string) bool { return digestForm.MatchString(s) }

// Encode returns the canonical bytes of the plan (RFC 8785).
func (p *Plan) Encode() ([]byte, error) { return canonical.Marshal(p) }

// Digest names the plan.
func (p *Plan) Digest() (string, error) { return canonical.Digest(p) }

// Decode decodes canonical plan bytes and refuses anything that Encode would not have written.
func Decode(data []byte) (*Plan, error) {
	p := &Plan{}
	if err := canonical.Unmarshal(data, p, MaxBytes); err != nil {
		return nil, fmt.Errorf("decode plan: %w", err)
	}
	if err := p.Validate(); err != nil {
		return nil, fmt.Errorf("plan: %w", err)
	}
	return p, nil
}

// Validate reports every problem at once, each with its path.
func (p *Plan) Validate() error {
	var errs []error
	bad := func(at, format string, args ...any) { errs = append(errs, fmt.Errorf(at+": "+format, args...)) }
	if p.APIVersion != APIVersion || p.Kind != Kind {
		bad("api_version, kind", "want %s %s", APIVersion, Kind)
	}
	if !incident.ValidID(p.IncidentID) {
		bad("incident_id", "%.40q is not an incident id", p.IncidentID)
	}
	if p.Purpose != Stop && p.Purpose != Full && p.Purpose != Fallback {
		bad("purpose", "%.40q is not stop, full or fallback", p.Purpose)
	}
	if !optionForm.MatchString(p.Option) {
		bad("option", "%.40q is not a short name", p.Option)
	}
	if p.Playbook.Name == "" || p.Playbook.Version < 1 || !ValidDigest(p.Playbook.Digest) {
		bad("playbook", "name, version and digest are needed")
	}
	if len(p.Detections) == 0 || len(p.Detections) > 64 {
		bad("detections", "has %d entries, want 1 to 64", len(p.Detections))
	}
	for i, d := range p.Detections {
		if !ValidDigest(d) {
			bad(fmt.Sprintf("detections[%d]", i), "is not a digest")
		}
	}
	if len(p.Steps) == 0 || len(p.Steps) > MaxSteps {
		bad("steps", "has %d entries, want 1 to %d", len(p.Steps), MaxSteps)
	}
	for i, s := range p.Steps {
		if err := s.validate(i); err != nil {
			errs = append(errs, fmt.Errorf("steps[%d]: %w", i, err))
		}
	}
	errs = append(errs, p.validateGroups()...)
	return errors.Join(errs...)
}

func (s Step) validate(i int) error {
	entry, ok := Lookup(s.Action)
	switch {
	case s.Index != i:
		return fmt.Errorf("index: is %d", s.Index)
	case !ok:
		return fmt.Errorf("action: %.40q is not in the catalogue", s.Action)
	case s.Target.Kind != entry.Targets:
		return fmt.Errorf("target.kind: %q, but %s names a %s", s.Target.Kind, s.Action, entry.Targets)
	case s.Target.Name == "" || s.Target.UID == "" || s.Target.Scope == "" || len(s.Target.Name) > 253 || len(s.Target.UID) > 253 || len(s.Target.Namespace) > 253:
		return errors.New("target: scope, name and uid are needed")
	case s.DurationSeconds <= 0 || s.DurationSeconds > 366*24*3600:
		return fmt.Errorf("duration_seconds: %d is not between 1 and a year", s.DurationSeconds)
	case s.Expiry != Release && s.Expiry != Review:
		return fmt.Errorf("expiry: %.40q is neither release nor review", s.Expiry)
	case s.Expiry == Review && !entry.Reviewable:
		return fmt.Errorf("expiry: %s knows only release", s.Action)
	case s.PreImage != "" && !ValidDigest(s.PreImage):
		return errors.New("pre_image: is not a digest")
	case s.Closure != nil && (entry.Closure == "" || s.Closure.Max < 1 || s.Closure.Max > 100):
		return errors.New("closure: not one of this action, or max not between 1 and 100")
	}
	return nil
}

func (p *Plan) validateGroups() []error {
	var errs []error
	last, enforcer := 0, map[int]Enforcer{}
	for i, s := range p.Steps {
		entry, _ := Lookup(s.Action)
		if s.Group == 0 {
			continue
		}
		if e, ok := enforcer[s.Group]; ok && e != entry.Enforcer {
			errs = append(errs, fmt.Errorf("steps[%d].group: an atomic group belongs to one enforcer", i))
		}
		if s.Group < last || (s.Group != last && s.Group != last+1) || (s.Group == last && p.Steps[i-1].Group != s.Group) {
			errs = append(errs, fmt.Errorf("steps[%d].group: groups are numbered from 1 in order and hang together", i))
		}
		last, enforcer[s.Group] = max(last, s.Group), entry.Enforcer
	}
	return errs
}

// Groups returns the steps in order, atomic ones together.
func (p *Plan) Groups() [][]Step {
	var out [][]Step
	for i, s := range p.Steps {
		if s.Group != 0 && i > 0 && p.Steps[i-1].Group == s.Group {
			out[len(out)-1] = append(out[len(out)-1], s)
			continue
		}
		out = append(out, []Step{s})
	}
	return out
}
