// Package rule turns kernel events into detections. Rules are CEL expressions over a typed environment, bundled as YAML;
// each evaluation has a bounded cost. The package reads nothing but its arguments, signs nothing and acts on nothing:
// sensor/node calls it and does the rest.
package rule

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"time"

	"cel.dev/cel-go/cel"

	"tourniquet.dev/tourniquet/internal/detection"
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
	When       Expr               `yaml:"when"` // CEL; see environment
	// Credential flags the process tree: from now on, and for a while, it has had a credential in hand.
	Credential bool     `yaml:"credential,omitempty"`
	Attacks    []Attack `yaml:"attacks"`
	// Mode is what becomes of it when it holds; "": detect.
	Mode Mode `yaml:"mode,omitempty"`
	// Falco names the rules of Falco that look for the same.
	Falco       []string `yaml:"falco,omitempty"`
	Description string   `yaml:"description,omitempty"`
	// Watch is what the kernel has to tell of for this rule to see it; an item "@name" stands for a list.
	Watch *Names `yaml:"watch,omitempty"`
	// Burst has the rule hold only after so many different names in one process tree.
	Burst *Burst `yaml:"burst,omitempty"`

	program cel.Program
	watch   Watch
}

// A Mode says what becomes of a rule that holds.
type Mode string

// The modes. What is observed is counted and flags process trees; it makes no detection.
const (
	Off     Mode = "off"
	Observe Mode = "observe"
	Detect  Mode = "detect"
)

// Valid reports whether m is one of the modes.
func (m Mode) Valid() bool { return m == Off || m == Observe || m == Detect }

// Names are names of files, system calls and sockets, and addresses, as a rule's file has them.
type Names struct {
	Files     []string `yaml:"files,omitempty"`
	Dirs      []string `yaml:"dirs,omitempty"`
	Programs  []string `yaml:"programs,omitempty"`
	Addresses []string `yaml:"addresses,omitempty"`
	Calls     []string `yaml:"calls,omitempty"`   // rare system calls, as event.call names them
	Sockets   []string `yaml:"sockets,omitempty"` // unix sockets, by the name of their file or their abstract name
}

// Burst is a number of different names within a time.
type Burst struct {
	Distinct int           `yaml:"distinct"`
	Within   time.Duration `yaml:"within"`
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
			bad(fmt.Sprintf("on[%d]", i), "%q is not exec, open, connect, call, unix or dns", k)
		}
	}
	if r.Mode == "" {
		r.Mode = Detect
	}
	if !r.Mode.Valid() {
		bad("mode", "%q is not off, observe or detect", r.Mode)
	}
	if r.Burst != nil && (r.Burst.Distinct < 2 || r.Burst.Distinct > maxBurst || r.Burst.Within < time.Second || r.Burst.Within > time.Hour) {
		bad("burst", "distinct is 2 to %d, within 1s to 1h", maxBurst)
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
	all, err := DecodePack("", data)
	if err != nil {
		return nil, err
	}
	if len(all) != 1 {
		return nil, fmt.Errorf("has %d rules, want 1", len(all))
	}
	return all[0], nil
}

// DecodePack reads one file and compiles what it has, with the words of the bundled packs.
func DecodePack(file string, data []byte) ([]*Rule, error) {
	p, err := decodePack(file, data)
	if err != nil {
		return nil, err
	}
	base, err := BundledPacks()
	if err != nil {
		return nil, err
	}
	for _, b := range base {
		b.Rules = nil
	}
	return Compile(base, []*Pack{p})
}

// ready compiles the rule, and finds what it watches.
func (r *Rule) ready(env *cel.Env, w words) error {
	var err error
	if r.program, err = compile(env, r.When); err != nil {
		return fmt.Errorf("rule %q: when: %w", r.Rule, err)
	}
	if r.watch, err = r.Watch.resolve(w); err != nil {
		return fmt.Errorf("rule %q: watch: %w", r.Rule, err)
	}
	return nil
}

// Bundled returns the set of the rules that come with the sensor.
func Bundled() (*Set, error) { return Load(bundled, "rules") }

// Load reads every *.yaml of a folder; two rules of the same name are an error.
func Load(fsys fs.FS, dir string) (*Set, error) {
	packs, err := ReadPacks(fsys, dir)
	if err != nil {
		return nil, err
	}
	rules, err := Compile(packs)
	if err != nil {
		return nil, err
	}
	return New(rules)
}
