package playbook_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tourniquet.dev/tourniquet/internal/plan"
	"tourniquet.dev/tourniquet/internal/playbook"
)

const good = `playbook: stolen
version: 1
match: {techniques: [T1552.007], severity: [high]}
stop: [{action: node/cut-network, for: 10m}]
contain:
  - atomic: [{action: kubernetes/isolate-pod, review: 4h}, {action: kubernetes/cut-rbac, review: 4h, max: 3}]
  - {action: aws/deactivate-keys, review: 24h}
tiers: [{ask: oncall, timeout: 5m}]
`

func TestDecodeNamesEveryProblem(t *testing.T) {
	if _, err := playbook.Decode([]byte(good)); err != nil {
		t.Fatalf("the good one: %v", err)
	}
	for want, change := range map[string][2]string{
		"unknown key \"verison\"":                  {"version: 1", "verison: 1"},
		"version: must be at least 1":              {"version: 1", "version: 0"},
		"match.techniques[0]:":                     {"T1552.007", "shell"},
		"stop[0].action: \"node/burn\"":            {"node/cut-network", "node/burn"},
		"stop[0].review: a step without a person":  {"cut-network, for: 10m", "cut-network, review: 10m"},
		"stop[0]: want exactly one of for and":     {"cut-network, for: 10m", "cut-network"},
		"contain[0].atomic[1]: an atomic group":    {"kubernetes/cut-rbac", "aws/revoke-sessions"},
		"contain[1]: want exactly one of for and":  {"deactivate-keys, review: 24h", "deactivate-keys, review: 24h, for: 1h"},
		"tiers[0].timeout: must be positive":       {"timeout: 5m", "timeout: 0s"},
		"tiers: at least one is needed":            {"tiers: [{ask: oncall, timeout: 5m}]", "tiers: []"},
		"tiers[0].ask: \"On Call\"":                {"ask: oncall", "ask: On Call"},
		"durations are whole seconds":              {"for: 10m", "for: 10ms"},
		"contain[0].atomic[1].max: must be betwee": {"max: 3", "max: 101"},
	} {
		if _, err := playbook.Decode([]byte(strings.Replace(good, change[0], change[1], 1))); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}

func TestDraftFollowsThePlaybook(t *testing.T) {
	p, err := playbook.Decode([]byte(good))
	if err != nil {
		t.Fatal(err)
	}
	pod := plan.Target{Kind: plan.Pod, Scope: "c", Namespace: "n", Name: "p", UID: "u"}
	key := func(id string) plan.Target { return plan.Target{Kind: plan.AccessKey, Scope: "1", Name: id, UID: id} }
	type line struct {
		Index, Group int
		Action       plan.Action
		Target       string
		For          time.Duration
		Closure      string
	}
	var got []line
	for _, s := range p.Draft(plan.Full, playbook.Subject{Pod: &pod, Keys: []plan.Target{key("A"), key("B")}}, nil) {
		l := line{s.Index, s.Group, s.Action, s.Target.Name, s.Duration(), ""}
		if s.Closure != nil {
			l.Closure = s.Closure.Of
		}
		got = append(got, l)
	}
	// Without a service account the group has one step left and needs no group.
	want := []line{
		{0, 0, plan.KubernetesIsolatePod, "p", 4 * time.Hour, ""},
		{1, 0, plan.AWSDeactivateKeys, "A", 24 * time.Hour, "access keys of the user that owns A"},
		{2, 0, plan.AWSDeactivateKeys, "B", 24 * time.Hour, "access keys of the user that owns B"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("draft (-want +got):\n%s", diff)
	}
}
