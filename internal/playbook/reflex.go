package playbook

import (
	"fmt"
	"regexp"
	"slices"
	"time"

	"tourniquet.dev/tourniquet/internal/detection"
	"tourniquet.dev/tourniquet/internal/trust"
)

// Reflex is what a sensor does at once, before anybody is asked, on a detection of its own that the playbook takes. Rules,
// Techniques and Severity narrow the playbook's match further; empty ones do not. Only the trust file's ceiling makes it live.
type Reflex struct {
	Do         trust.Deed           `yaml:"do" json:"do"`
	Rules      []string             `yaml:"rules,omitempty" json:"rules,omitempty"`
	Techniques []string             `yaml:"techniques,omitempty" json:"techniques,omitempty"`
	Severity   []detection.Severity `yaml:"severity,omitempty" json:"severity,omitempty"`
	// Confidence is the least that the detection must have, 1 to 100.
	Confidence int `yaml:"confidence" json:"confidence"`
	// For is how long it lasts, at most a minute. Kill has none.
	For time.Duration `yaml:"for,omitempty" json:"for,omitempty"`
}

const maxReflex = 16

var ruleForm = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{0,62}$`)

func (p *Playbook) checkReflex(bad *problems) {
	if len(p.Reflex) > maxReflex {
		bad.add("reflex", "has %d entries, want at most %d", len(p.Reflex), maxReflex)
	}
	for i, r := range p.Reflex {
		at := fmt.Sprintf("reflex[%d]", i)
		if !r.Do.Valid() {
			bad.add(at+".do", "%.20q is not one of %v", r.Do, trust.Deeds())
		}
		switch lasts := r.For > 0; {
		case r.Do == trust.Kill && r.For != 0:
			bad.add(at+".for", "a kill does not end")
		case r.Do != trust.Kill && (!lasts || r.For > trust.LongestReflex || r.For%time.Second != 0):
			bad.add(at+".for", "must be whole seconds, at most %s", trust.LongestReflex)
		}
		if r.Confidence < 1 || r.Confidence > 100 {
			bad.add(at+".confidence", "must be between 1 and 100")
		}
		for j, rule := range r.Rules {
			if !ruleForm.MatchString(rule) {
				bad.add(fmt.Sprintf("%s.rules[%d]", at, j), "%.64q is not a rule's name", rule)
			}
		}
		for j, t := range r.Techniques {
			if !slices.Contains(p.Match.Techniques, t) {
				bad.add(fmt.Sprintf("%s.techniques[%d]", at, j), "%.20q is not one that the playbook matches", t)
			}
		}
		for j, s := range r.Severity {
			if !slices.Contains(p.Match.Severity, s) {
				bad.add(fmt.Sprintf("%s.severity[%d]", at, j), "%.20q is not one that the playbook matches", s)
			}
		}
	}
}
