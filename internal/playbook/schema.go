package playbook

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"time"

	"tourniquet.dev/tourniquet/internal/plan"
	"tourniquet.dev/tourniquet/internal/trust"
)

// The schema and the reference of the format are generated from the types and from what fields says of them.
//go:generate go test . -run ^TestSchemaAndReferenceAreCurrent$ -update

type object = map[string]any

// Schema returns the JSON Schema (2020-12) of a playbook: for editors, and for who writes playbooks by program. What a
// schema cannot say, such as that no step is forbidden below or that names are unique, only Decode refuses.
func Schema() ([]byte, error) {
	defs := object{}
	root, err := schemaOf(reflect.TypeFor[Playbook](), defs)
	if err != nil {
		return nil, err
	}
	delete(defs, "Playbook")
	root["$schema"], root["$id"] = "https://json-schema.org/draft/2020-12/schema", "https://tourniquet.dev/playbook.schema.json"
	root["title"], root["$defs"] = "Tourniquet playbook", defs
	out, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode schema: %w", err)
	}
	return append(out, '\n'), nil
}

// schemaOf is the schema of a struct; those that it names go to defs.
func schemaOf(t reflect.Type, defs object) (object, error) {
	properties, required := object{}, []string{}
	for f := range t.Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		is, ok := fields[t.Name()+"."+name]
		if !ok {
			return nil, fmt.Errorf("field %s.%s: has no entry in the reference", t.Name(), name)
		}
		property, err := typeOf(f.Type, defs)
		if err != nil {
			return nil, err
		}
		property["description"] = is.does
		for k, v := range is.limits {
			property[k] = v
		}
		properties[name] = property
		if !strings.Contains(options, "omitempty") {
			required = append(required, name)
		}
	}
	s := object{"type": "object", "additionalProperties": false, "properties": properties, "required": required}
	for k, v := range together[t.Name()] {
		s[k] = v
	}
	defs[t.Name()] = s
	return s, nil
}

func typeOf(t reflect.Type, defs object) (object, error) {
	switch {
	case t == reflect.TypeFor[time.Duration]():
		return object{"type": "string", "pattern": `^([0-9]+h)?([0-9]+m)?([0-9]+s)?$`, "not": object{"pattern": "^[0hms]*$"}}, nil
	case t == reflect.TypeFor[plan.Action]():
		return object{"type": "string", "enum": actions(func(plan.Entry) bool { return true })}, nil
	case t.Kind() == reflect.Slice:
		items, err := typeOf(t.Elem(), defs)
		return object{"type": "array", "items": items}, err
	case t.Kind() == reflect.Struct:
		_, err := schemaOf(t, defs)
		return object{"$ref": "#/$defs/" + t.Name()}, err
	case t.Kind() == reflect.String:
		return object{"type": "string"}, nil
	case t.Kind() == reflect.Int:
		return object{"type": "integer"}, nil
	case t.Kind() == reflect.Bool:
		return object{"type": "boolean"}, nil
	}
	return nil, fmt.Errorf("type %s: has no schema", t)
}

func actions(want func(plan.Entry) bool) []plan.Action {
	var out []plan.Action
	for _, e := range plan.Catalogue {
		if want(e) {
			out = append(out, e.Action)
		}
	}
	return out
}

// durations wants exactly one of for and review, and no review where the action knows none.
var durations = object{
	"oneOf": []object{{"required": []string{"for"}}, {"required": []string{"review"}}},
	"if":    object{"properties": object{"action": object{"enum": actions(func(e plan.Entry) bool { return !e.Reviewable })}}, "required": []string{"action"}},
	"then":  object{"properties": object{"review": false}},
}

// together are the rules between the fields of a type.
var together = map[string]object{
	"Step": durations,
	"Entry": {"oneOf": []object{
		{"required": []string{"atomic"}, "properties": object{"action": false, "for": false, "review": false, "max": false}},
		{"required": []string{"action"}, "properties": object{"atomic": false}, "allOf": []object{durations}},
	}},
	"Reflex": {
		"if":   object{"properties": object{"do": object{"const": trust.Kill}}},
		"then": object{"properties": object{"for": false}},
		"else": object{"required": []string{"for"}},
	},
	"Budget": {"required": []string{"effects", "window"}},
}

// oneEnforcer is the rule for the steps of an atomic group.
func oneEnforcer() []object {
	var out []object
	for _, by := range []plan.Enforcer{plan.ContainAWS, plan.ContainKubernetes} {
		its := actions(func(e plan.Entry) bool { return e.Enforcer == by })
		out = append(out, object{"items": object{"properties": object{"action": object{"enum": its}}}})
	}
	return out
}

// unattended steps come off by themselves and can be undone.
func unattended() object {
	return object{"$ref": "#/$defs/Step", "required": []string{"for"},
		"properties": object{"action": object{"enum": actions(func(e plan.Entry) bool { return e.Reversible })}}}
}
