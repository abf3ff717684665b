package plan_test

import (
	"strings"
	"testing"

	"tourniquet.dev/tourniquet/internal/plan"
)

func valid() *plan.Plan {
	d := "sha256:" + strings.Repeat("a", 64)
	step := func(i, group int, a plan.Action) plan.Step {
		e, _ := plan.Lookup(a)
		return plan.Step{Index: i, Group: group, Action: a, Target: plan.Target{Kind: e.Targets, Scope: "s", Name: "n", UID: "u"}, DurationSeconds: 60, Expiry: plan.Release}
	}
	return &plan.Plan{APIVersion: plan.APIVersion, Kind: plan.Kind, IncidentID: "iabcdefghijkl", CorrelationKey: "k", Purpose: plan.Full, Option: "everything",
		Playbook: plan.PlaybookRef{Name: "p", Version: 1, Digest: d}, Detections: []string{d},
		Steps: []plan.Step{step(0, 1, plan.KubernetesIsolatePod), step(1, 1, plan.KubernetesCutRBAC), step(2, 0, plan.AWSDeactivateKeys)}}
}

func TestValidateNamesTheField(t *testing.T) {
	if err := valid().Validate(); err != nil {
		t.Fatalf("a valid plan: %v", err)
	}
	for want, change := range map[string]func(*plan.Plan){
		"incident_id:":               func(p *plan.Plan) { p.IncidentID = "x" },
		"purpose:":                   func(p *plan.Plan) { p.Purpose = "fun" },
		"detections[0]:":             func(p *plan.Plan) { p.Detections[0] = "x" },
		"steps[1]: index":            func(p *plan.Plan) { p.Steps[1].Index = 7 },
		"steps[0]: action":           func(p *plan.Plan) { p.Steps[0].Action = "a/b" },
		"steps[0]: target.kind":      func(p *plan.Plan) { p.Steps[0].Target.Kind = plan.AWSRole },
		"steps[0]: target:":          func(p *plan.Plan) { p.Steps[0].Target.UID = "" },
		"steps[0]: duration_seconds": func(p *plan.Plan) { p.Steps[0].DurationSeconds = 0 },
		"steps[0]: closure":          func(p *plan.Plan) { p.Steps[0].Closure = &plan.Closure{Of: "x", Max: 1} },
		"steps[2].group: an atomic":  func(p *plan.Plan) { p.Steps[2].Group = 1 },
		"steps[0].group: groups are": func(p *plan.Plan) { p.Steps[0].Group, p.Steps[1].Group = 2, 2 },
		"steps: has 0 entries":       func(p *plan.Plan) { p.Steps = nil },
	} {
		p := valid()
		change(p)
		if err := p.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}

// FuzzDecode: whatever decodes is valid, and encodes to the very same bytes.
func FuzzDecode(f *testing.F) {
	seed, err := valid().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := plan.Decode(data)
		if err != nil {
			return
		}
		again, err := p.Encode()
		if err != nil || string(again) != string(data) {
			t.Errorf("%s\nencodes to\n%s\n%v", data, again, err)
		}
	})
}

// TestCatalogueIsComplete: every action has what people and reports are told, and an enforcer.
func TestCatalogueIsComplete(t *testing.T) {
	for _, e := range plan.Catalogue {
		if e.Title == "" || e.Does == "" || e.Collateral == "" || e.Enforcer == "" || len(e.D3FEND) == 0 || len(e.CSF) == 0 || e.OCSFClass == 0 || e.OCSFActivity == 0 {
			t.Errorf("%s lacks something: %+v", e.Action, e)
		}
		if e.Closure != "" && strings.Count(e.Closure, "%s") != 1 {
			t.Errorf("%s: closure %q must name its target once", e.Action, e.Closure)
		}
	}
}
