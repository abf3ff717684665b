package playbook

import (
	"fmt"

	"tourniquet.dev/tourniquet/internal/plan"
)

// Subject is what a plan is about: the targets that detections named, and what the investigation added for a plan
// that a person decides on.
type Subject struct {
	Pod            *plan.Target
	ServiceAccount *plan.Target
	Keys           []plan.Target // for an unattended plan: those with an attested link only
	Roles          []plan.Target // roles whose sessions the keys minted
	// Collateral are plain words by action, as far as known.
	Collateral map[plan.Action][]string
}

// Draft lays out the playbook's steps for a purpose on the subject's targets, in the playbook's order. Steps without a
// target fall out. keep says which actions the option has; nil keeps all.
func (p *Playbook) Draft(purpose plan.Purpose, subject Subject, keep func(plan.Action) bool) []plan.Step {
	var entries []Entry
	switch purpose {
	case plan.Stop:
		entries = single(p.Stop)
	case plan.Fallback:
		entries = single(p.Fallback)
	case plan.Full:
		entries = p.Contain
	}
	var out []plan.Step
	group := 0
	for _, e := range entries {
		steps, atomic := e.Steps()
		var made []plan.Step
		for _, s := range steps {
			if keep == nil || keep(s.Action) {
				made = append(made, s.draft(subject)...)
			}
		}
		if atomic && len(made) > 1 {
			group++
			for i := range made {
				made[i].Group = group
			}
		}
		out = append(out, made...)
	}
	for i := range out {
		out[i].Index = i
	}
	return out
}

func single(steps []Step) []Entry {
	var out []Entry
	for _, s := range steps {
		out = append(out, Entry{Action: s.Action, For: s.For, Review: s.Review, Max: s.Max})
	}
	return out
}

func (s Step) draft(subject Subject) []plan.Step {
	entry, ok := plan.Lookup(s.Action)
	if !ok {
		return nil
	}
	var targets []plan.Target
	switch entry.Targets {
	case plan.Pod:
		targets = optional(subject.Pod)
	case plan.ServiceAccount:
		targets = optional(subject.ServiceAccount)
	case plan.AccessKey:
		targets = subject.Keys
	case plan.AWSRole:
		targets = subject.Roles
	}
	duration, expiry := s.Duration()
	var out []plan.Step
	for _, t := range targets {
		step := plan.Step{Action: s.Action, Target: t, DurationSeconds: int64(duration.Seconds()), Expiry: expiry, Collateral: subject.Collateral[s.Action]}
		if entry.Closure != "" {
			step.Closure = &plan.Closure{Of: fmt.Sprintf(entry.Closure, t.Name), Max: s.ClosureMax()}
		}
		out = append(out, step)
	}
	return out
}

func optional(t *plan.Target) []plan.Target {
	if t == nil {
		return nil
	}
	return []plan.Target{*t}
}
