// Package rule turns kernel events into detections. Rules are CEL expressions over a typed environment, bundled as YAML;
// each evaluation has a bounded cost. The package reads nothing but its arguments, signs nothing and acts on nothing:
// sensor/node calls it and does the rest.
package rule

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"

	"cel.dev/cel-go/cel"

	"tourniquet.dev/tourniquet/internal/detection"
	"tourniquet.dev/tourniquet/internal/strictyaml"
)

//go:embed rules/*.yaml
var bundled embed.FS

// Attack is how a rule names a technique.
type Attack struct {
	Technique string `yaml:"technique"`
	Tactic    string `yaml:"tactic"`
}

// Rule is one rule as its file has it.
type Rule struct {
	Rule       string             `yaml:"rule"`
	Title      string             `yaml:"title"`
	Severity   detection.Severity `yaml:"severity"`
	Confidence int                `yaml:"confidence"` // 1 to 100
	On         []Kind             `yaml:"on"`
	When       string             `yaml:"when"` // CEL; see environment
	// Credential flags the process tree: from now on, and for a while, it has had a credential in hand.
	Credential bool     `yaml:"credential,omitempty"`
	Attacks    []Attack `yaml:"attacks"`

	program cel.Program
}

var ruleName = regexp.MustCompile(`^[a-z][a-z0-9-]{2,62}$`)

// Validate reports every problem at once, each with its path.
func (r *Rule) Validate() error {
	var errs []error
	bad := func(at, format string, args ...any) { errs = append(errs, fmt.Errorf(at+": "+format, args...)) }
	if !ruleName.MatchString(r.Rule) {
		bad("rule", "%q is not a short lower-case name", r.Rule)
	}
	if r.Title == "" || len(r.Title) > 200 {
		bad("title", "must be 1 to 200 bytes")
	}
	if !r.Severity.Valid() {
		bad("severity", "%q is not a severity", r.Severity)
	}
	if r.Confidence < 1 || r.Confidence > 100 {
		bad("confidence", "%d is not between 1 and 100", r.Confidence)
	}
	if len(r.On) == 0 {
		bad("on", "needs at least one kind of event")
	}
	for i, k := range r.On {
		if !k.Valid() {
			bad(fmt.Sprintf("on[%d]", i), "%q is not exec, open or connect", k)
		}
	}
	if len(r.Attacks) == 0 {
		bad("attacks", "needs at least one technique")
	}
	for i, a := range r.Attacks {
		if !knownAttack(a) {
			bad(fmt.Sprintf("attacks[%d]", i), "%s, %s is not in the table of ATT&CK v%s", a.Technique, a.Tactic, AttackVersion)
		}
	}
	return errors.Join(errs...)
}

func knownAttack(a Attack) bool {
	for _, tactic := range attack[a.Technique].tactics {
		if tactic == a.Tactic {
			return true
		}
	}
	return false
}

// Decode reads one rule and compiles it. The error says what is wrong, with line or path.
func Decode(data []byte) (*Rule, error) {
	r := &Rule{}
	if err := strictyaml.Decode(data, r); err != nil {
		return nil, fmt.Errorf("decode rule: %w", err)
	}
	if err := r.Validate(); err != nil {
		return nil, fmt.Errorf("rule %q: %w", r.Rule, err)
	}
	var err error
	if r.program, err = compile(r.When); err != nil {
		return nil, fmt.Errorf("rule %q: when: %w", r.Rule, err)
	}
	return r, nil
}

// Bundled returns the set of the rules that come with the sensor.
func Bundled() (*Set, error) { return Load(bundled, "rules") }

// Load reads every *.yaml of a folder as one rule each; two of the same name are an error.
func Load(fsys fs.FS, dir string) (*Set, error) {
	entries, err := fs.ReadDir(fsys, dir)
	if err != nil {
		return nil, fmt.Errorf("read rules: %w", err)
	}
	var all []*Rule
	for _, e := range entries {
		if e.IsDir() || path.Ext(e.Name()) != ".yaml" {
			continue
		}
		data, err := fs.ReadFile(fsys, path.Join(dir, e.Name()))
		if err != nil {
			return nil, fmt.Errorf("read rule %s: %w", e.Name(), err)
		}
		r, err := Decode(data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", e.Name(), err)
		}
		all = append(all, r)
	}
	return New(all)
}
