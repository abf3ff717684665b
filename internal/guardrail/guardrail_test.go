package guardrail_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tourniquet.dev/tourniquet/internal/authz/authztest"
	"tourniquet.dev/tourniquet/internal/guardrail"
	"tourniquet.dev/tourniquet/internal/plan"
	"tourniquet.dev/tourniquet/internal/playbook"
)

func TestGuardrailRefuses(t *testing.T) {
	w := authztest.New(time.Date(2026, 11, 23, 4, 0, 0, 0, time.UTC))
	for name, tc := range map[string]struct {
		refuse string
		facts  guardrail.Facts
		want   bool
	}{
		"a purpose":                       {`plan.purpose == "full"`, guardrail.Facts{}, true},
		"another purpose":                 {`plan.purpose == "stop"`, guardrail.Facts{}, false},
		"an action":                       {`plan.steps.exists(s, s.action == "kubernetes/cut-rbac")`, guardrail.Facts{}, true},
		"an action with many pods":        {`plan.steps.exists(s, s.action == "kubernetes/cut-rbac") && plan.account_pods > 50`, guardrail.Facts{AccountPods: 51}, true},
		"an action with few pods":         {`plan.steps.exists(s, s.action == "kubernetes/cut-rbac") && plan.account_pods > 50`, guardrail.Facts{AccountPods: 50}, false},
		"no gain":                         {`plan.after >= plan.before`, guardrail.Facts{Before: 90, After: 90}, true},
		"some gain":                       {`plan.after >= plan.before`, guardrail.Facts{Before: 90, After: 4}, false},
		"a namespace":                     {`plan.steps.exists(s, s.namespace == "shop" && s.kind == "pod")`, guardrail.Facts{}, true},
		"what cannot be decided":          {`plan.steps[99].action == "x"`, guardrail.Facts{}, true},
		"what costs too much to decide":   {`!plan.steps.all(t, plan.steps.all(s, plan.steps.all(r, plan.steps.all(q, plan.steps.all(p, plan.steps.all(o, plan.steps.all(n, plan.steps.all(m, plan.steps.all(l, plan.steps.all(k, k.seconds >= 0))))))))))`, guardrail.Facts{}, true},
		"something that cannot be undone": {`plan.steps.exists(s, !s.reversible)`, guardrail.Facts{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			set, err := guardrail.Compile([]playbook.Guardrail{{Name: "the-rule", Refuse: tc.refuse, Why: "because"}})
			if err != nil {
				t.Fatal(err)
			}
			got := set.Judge(w.Plan(plan.Full), tc.facts)
			if (len(got) > 0) != tc.want {
				t.Errorf("refusals %+v, want one: %v", got, tc.want)
			}
		})
	}
}

func TestRefusalBearsItsAuthorsWords(t *testing.T) {
	w := authztest.New(time.Date(2026, 11, 23, 4, 0, 0, 0, time.UTC))
	set, err := guardrail.Compile([]playbook.Guardrail{{Name: "never", Refuse: "true", Why: "ask the owner first"}, {Name: "always", Refuse: "false", Why: "x"}})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]guardrail.Refusal{{Rule: "never", Why: "ask the owner first"}}, set.Judge(w.Plan(plan.Stop), guardrail.Facts{})); diff != "" {
		t.Error(diff)
	}
}

func TestBadGuardrailDoesNotCompile(t *testing.T) {
	for name, tc := range map[string]struct{ refuse, want string }{
		"a misspelt field":    {`plan.purpos == "full"`, "undefined field"},
		"a misspelt step":     {`plan.steps.exists(s, s.acton == "x")`, "undefined field"},
		"not a bool":          {`plan.purpose`, "want a bool"},
		"another type":        {`plan.after == "high"`, "no matching overload"},
		"not an expression":   {`plan.purpose ==`, "Syntax error"},
		"an unknown variable": {`incident.id == ""`, "undeclared reference"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := guardrail.Compile([]playbook.Guardrail{{Name: "ok", Refuse: "true"}, {Name: "bad", Refuse: tc.refuse}})
			if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), "guardrails[1].refuse") {
				t.Errorf("error %v, want one of guardrails[1].refuse with %q", err, tc.want)
			}
		})
	}
}

func TestBundledPlaybooksCompile(t *testing.T) {
	files, err := filepath.Glob("../../deploy/playbooks/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		p, err := playbook.Decode(data)
		if err != nil {
			t.Fatal(err)
		}
		if len(p.Guardrails) == 0 {
			t.Errorf("%s has no guardrail", f)
		}
		if _, err := guardrail.Compile(p.Guardrails); err != nil {
			t.Errorf("%s: %v", f, err)
		}
	}
}
