// Package guardrail refuses plans: rules in CEL, signed with the playbook, over a plan and what is known of its effect. A
// guardrail can only refuse; it adds no step and widens nothing. What cannot be decided refuses too. The planner asks it
// before a plan is offered or put on unattended; the enforcers' own limits (protected set, ceilings, budgets) are
// package authz's and do not rest on it.
package guardrail

import (
	"errors"
	"fmt"
	"reflect"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/ext"

	"tourniquet.dev/tourniquet/internal/plan"
	"tourniquet.dev/tourniquet/internal/playbook"
)

// costLimit bounds one evaluation: a plan has at most plan.MaxSteps steps.
const costLimit = 100_000

// Facts are what is known beside the plan.
type Facts struct {
	Before, After float64 // blast radius score, 0 to 100, without and with the plan
	Admin         bool    // an administrator's rights are in reach
	AccountPods   int     // pods of the service account, the detected one included; 0: not read
	HostNetwork   bool
	Privileged    bool
}

// view is the plan as rules see it. Field names are those of the rules.
type view struct {
	Purpose     string  `cel:"purpose"`
	Option      string  `cel:"option"`
	Steps       []step  `cel:"steps"`
	Before      float64 `cel:"before"`
	After       float64 `cel:"after"`
	Admin       bool    `cel:"admin"`
	AccountPods int64   `cel:"account_pods"`
	HostNetwork bool    `cel:"host_network"`
	Privileged  bool    `cel:"privileged"`
}

type step struct {
	Action     string   `cel:"action"`
	Kind       string   `cel:"kind"`
	Scope      string   `cel:"scope"`
	Namespace  string   `cel:"namespace"`
	Name       string   `cel:"name"`
	Seconds    int64    `cel:"seconds"`
	Expiry     string   `cel:"expiry"`
	Atomic     bool     `cel:"atomic"`
	ClosureMax int64    `cel:"closure_max"`
	Collateral []string `cel:"collateral"`
	Reversible bool     `cel:"reversible"`
	Observable bool     `cel:"observable"`
}

// A Refusal is a rule's no, in its author's words.
type Refusal struct {
	Rule string `json:"rule"`
	Why  string `json:"why"`
}

// Set is the compiled guardrails of one playbook. It is safe for concurrent use.
type Set struct{ rules []rule }

type rule struct {
	playbook.Guardrail
	program cel.Program
}

// Compile checks and compiles rules, and reports every problem at once, each with its path.
func Compile(rules []playbook.Guardrail) (*Set, error) {
	env, err := cel.NewEnv(cel.DefaultUTCTimeZone(true), ext.NativeTypes(reflect.TypeFor[view](), reflect.TypeFor[step](), ext.ParseStructTags(true)),
		cel.Variable("plan", cel.ObjectType("guardrail.view")))
	if err != nil {
		return nil, fmt.Errorf("guardrails: build environment: %w", err)
	}
	s, errs := &Set{}, []error(nil)
	for i, r := range rules {
		program, err := compile(env, r.Refuse)
		if err != nil {
			errs = append(errs, fmt.Errorf("guardrails[%d].refuse: %w", i, err))
			continue
		}
		s.rules = append(s.rules, rule{r, program})
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return s, nil
}

func compile(env *cel.Env, expression string) (cel.Program, error) {
	ast, issues := env.Compile(expression)
	if err := issues.Err(); err != nil {
		return nil, err
	}
	if !ast.OutputType().IsExactType(cel.BoolType) {
		return nil, fmt.Errorf("is a %s, want a bool", ast.OutputType())
	}
	return env.Program(ast, cel.EvalOptions(cel.OptOptimize), cel.CostLimit(costLimit))
}

// Judge returns the refusals of a plan; none: it may be offered. A rule that comes to no answer refuses.
func (s *Set) Judge(p *plan.Plan, f Facts) []Refusal {
	var out []Refusal
	seen := viewOf(p, f)
	for _, r := range s.rules {
		answer, _, err := r.program.Eval(map[string]any{"plan": seen})
		if err != nil {
			out = append(out, Refusal{Rule: r.Name, Why: "could not be decided: " + err.Error()})
			continue
		}
		if refuse, ok := answer.Value().(bool); !ok || refuse {
			out = append(out, Refusal{Rule: r.Name, Why: r.Why})
		}
	}
	return out
}

func viewOf(p *plan.Plan, f Facts) view {
	v := view{Purpose: string(p.Purpose), Option: p.Option, Before: f.Before, After: f.After, Admin: f.Admin, AccountPods: int64(f.AccountPods),
		HostNetwork: f.HostNetwork, Privileged: f.Privileged, Steps: []step{}}
	for _, s := range p.Steps {
		entry, _ := plan.Lookup(s.Action)
		one := step{Action: string(s.Action), Kind: string(s.Target.Kind), Scope: s.Target.Scope, Namespace: s.Target.Namespace, Name: s.Target.Name,
			Seconds: s.DurationSeconds, Expiry: string(s.Expiry), Atomic: s.Group != 0, ClosureMax: 1, Collateral: append([]string{}, s.Collateral...),
			Reversible: entry.Reversible, Observable: entry.Observable}
		if s.Closure != nil {
			one.ClosureMax = int64(s.Closure.Max)
		}
		v.Steps = append(v.Steps, one)
	}
	return v
}
