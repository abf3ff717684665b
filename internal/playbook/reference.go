package playbook

import (
	"fmt"
	"reflect"
	"strings"
	"time"

	"tourniquet.dev/tourniquet/internal/detection"
	"tourniquet.dev/tourniquet/internal/plan"
	"tourniquet.dev/tourniquet/internal/trust"
)

// field is what people are told of a field, and its limits in the words of JSON Schema.
type field struct {
	does   string
	limits object
}

const (
	namePattern      = `^[a-z][a-z0-9-]{0,62}$`
	techniquePattern = `^T[0-9]{4}(\.[0-9]{3})?$`
)

func severities() object {
	return object{"enum": []detection.Severity{detection.Informational, detection.Low, detection.Medium, detection.High, detection.Critical}}
}

// fields says of every field of the format what it is. Schema and reference are made of it.
var fields = map[string]field{
	"Playbook.playbook":    {"Its name: lower case, with hyphens.", object{"pattern": namePattern}},
	"Playbook.version":     {"A whole number that grows with every change; an older one than was seen is refused.", object{"minimum": 1}},
	"Playbook.description": {"What it is for, at most 500 bytes.", object{"maxLength": 500}},
	"Playbook.match":       {"Which detections it takes.", nil},
	"Playbook.stop":        {"Steps that are put on at once, without a person. Each comes off by itself.", object{"items": unattended()}},
	"Playbook.contain":     {"Steps that a person decides on: single ones, or atomic groups.", object{"minItems": 1}},
	"Playbook.forbid":      {"Actions that no step of this playbook may have.", nil},
	"Playbook.tiers":       {"Who is asked, one group after the other.", object{"minItems": 1}},
	"Playbook.fallback":    {"Steps that are put on when every tier has lapsed. Each comes off by itself.", object{"items": unattended()}},
	"Playbook.guardrails":  {"Rules that refuse a plan. They add no step and widen nothing.", object{"maxItems": 32}},
	"Playbook.reflex":      {"What a sensor does at once on a detection of its own, as far as the trust file makes it live.", object{"maxItems": maxReflex}},
	"Playbook.budget":      {"What this playbook may do without a person; left out, the trust file's ceiling holds.", nil},
	"Playbook.reassert":    {"How often a broken hold is put back before a person is asked; 3 if left out.", object{"minimum": 0, "maximum": 100}},

	"Match.techniques": {"ATT&CK techniques, such as T1552.005; one of them is enough.", object{"minItems": 1, "items": object{"type": "string", "pattern": techniquePattern}}},
	"Match.severity":   {"Severities in OCSF's words; one of them is enough.", object{"minItems": 1, "items": severities()}},

	"Step.action": {"What is done, from the catalogue of actions.", nil},
	"Step.for":    {"After this time the step comes off by itself, in whole seconds such as 90s or 1h30m. Either this or review.", nil},
	"Step.review": {"After this time people are asked again; the step stays on. Not for node/* steps, nor for steps without a person.", nil},
	"Step.max":    {"How many objects of its closure the step may touch; 10 if left out or 0.", object{"minimum": 0, "maximum": 100}},

	"Entry.action": {"As in a step. Either this or atomic.", nil},
	"Entry.for":    {"As in a step.", nil},
	"Entry.review": {"As in a step.", nil},
	"Entry.max":    {"As in a step.", object{"minimum": 0, "maximum": 100}},
	"Entry.atomic": {"Steps of one enforcer that are put on all together or not at all.", object{"minItems": 1, "anyOf": oneEnforcer()}},

	"Tier.ask":       {"A group of the trust file.", object{"pattern": namePattern}},
	"Tier.quorum":    {"How many different people must approve; 1 if left out or 0.", object{"minimum": 0, "maximum": 10}},
	"Tier.timeout":   {"How long this tier is asked, in whole seconds.", nil},
	"Tier.assurance": {"How surely a person must be known: click, key or webauthn; click if left out.", object{"enum": []string{"", "click", "key", "webauthn"}}},

	"Guardrail.name":   {"Its name, once in a playbook.", object{"pattern": namePattern}},
	"Guardrail.refuse": {"A CEL expression over the plan that says when it is refused, 1 to 2000 bytes. `tourniquet check` compiles it.", object{"minLength": 1, "maxLength": 2000}},
	"Guardrail.why":    {"What people are told, 1 to 200 bytes.", object{"minLength": 1, "maxLength": 200}},

	"Reflex.do":         {"The deed.", object{"enum": trust.Deeds()}},
	"Reflex.rules":      {"Only for these rules; left out: for all.", object{"items": object{"type": "string", "pattern": `^[a-z0-9][a-z0-9.-]{0,62}$`}}},
	"Reflex.techniques": {"Only for these of the techniques that the playbook takes.", object{"items": object{"type": "string", "pattern": techniquePattern}}},
	"Reflex.severity":   {"Only for these of the severities that the playbook takes.", object{"items": severities()}},
	"Reflex.confidence": {"The least confidence that the detection must have, 1 to 100.", object{"minimum": 1, "maximum": 100}},
	"Reflex.for":        {"How long it lasts, in whole seconds, at most a minute. A kill has none; every other deed needs it.", object{"pattern": `^(([1-9]|[1-5][0-9]|60)s|1m)$`}},

	"Budget.effects": {"How many effects, together with window.", object{"minimum": 1}},
	"Budget.window":  {"Within which time.", nil},
}

// Reference returns the reference of the format, in Markdown.
func Reference() ([]byte, error) {
	var b strings.Builder
	b.WriteString("# Playbooks\n\nThis page is generated from the format's types: `make generate`. A playbook is one YAML document; unknown and repeated keys are\n" +
		"refused. `tourniquet check FILE` names every problem. Editors take [the schema](../internal/playbook/playbook.schema.json).\n")
	done := map[reflect.Type]bool{}
	if err := refer(&b, reflect.TypeFor[Playbook](), done); err != nil {
		return nil, err
	}
	b.WriteString("\n## Actions\n\n| action | enforcer | may be reviewed | can be undone | what it does |\n| --- | --- | --- | --- | --- |\n")
	for _, e := range plan.Catalogue {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", e.Action, e.Enforcer, yesNo(e.Reviewable), yesNo(e.Reversible), e.Does)
	}
	return []byte(b.String()), nil
}

func refer(b *strings.Builder, t reflect.Type, done map[reflect.Type]bool) error {
	if done[t] {
		return nil
	}
	done[t] = true
	fmt.Fprintf(b, "\n## %s\n\n| key | type | needed | what it is |\n| --- | --- | --- | --- |\n", t.Name())
	var below []reflect.Type
	for f := range t.Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		is, ok := fields[t.Name()+"."+name]
		if !ok {
			return fmt.Errorf("field %s.%s: has no entry in the reference", t.Name(), name)
		}
		fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", name, typeName(f.Type), yesNo(!strings.Contains(options, "omitempty")), is.does)
		inner := f.Type
		if inner.Kind() == reflect.Slice {
			inner = inner.Elem()
		}
		if inner.Kind() == reflect.Struct {
			below = append(below, inner)
		}
	}
	for _, inner := range below {
		if err := refer(b, inner, done); err != nil {
			return err
		}
	}
	return nil
}

func typeName(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[time.Duration]():
		return "duration"
	case t == reflect.TypeFor[plan.Action]():
		return "action"
	case t.Kind() == reflect.Slice:
		return "list of " + typeName(t.Elem())
	case t.Kind() == reflect.Struct:
		return t.Name()
	case t.Kind() == reflect.Int:
		return "whole number"
	case t.Kind() == reflect.Bool:
		return "true or false"
	}
	return "text"
}

func yesNo(yes bool) string {
	if yes {
		return "yes"
	}
	return "no"
}
