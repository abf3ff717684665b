package playbook_test

import (
	"strings"
	"testing"

	"tourniquet.dev/tourniquet/internal/playbook"
)

func TestReflexIsStrict(t *testing.T) {
	const line = "reflex: [{do: cut, rules: [server-shell], techniques: [T1552.007], severity: [high], confidence: 80, for: 30s}]\n"
	if _, err := playbook.Decode([]byte(good + line)); err != nil {
		t.Fatalf("the good one: %v", err)
	}
	for want, change := range map[string][2]string{
		"reflex[0].do: \"burn\"":          {"do: cut", "do: burn"},
		"reflex[0].for: must be whole":    {"for: 30s", "for: 61s"},
		"reflex[0].for: must be":          {", for: 30s", ""},
		"reflex[0].for: a kill":           {"do: cut", "do: kill"},
		"reflex[0].confidence: must be":   {"confidence: 80", "confidence: 0"},
		"reflex[0].rules[0]:":             {"server-shell", "Server Shell"},
		"reflex[0].techniques[0]: \"T165": {"techniques: [T1552.007]", "techniques: [T1651]"},
		"reflex[0].severity[0]: \"low\"":  {"severity: [high]", "severity: [low]"},
		"unknown key \"until\"":           {"for: 30s", "until: 30s"},
	} {
		if _, err := playbook.Decode([]byte(good + strings.Replace(line, change[0], change[1], 1))); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}
