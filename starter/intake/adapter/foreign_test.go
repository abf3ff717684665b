package adapter_test

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tourniquet.dev/tourniquet/internal/detection"
	"tourniquet.dev/tourniquet/internal/identity"
	"tourniquet.dev/tourniquet/starter/intake/adapter"
)

var update = flag.Bool("update", false, "write the golden files anew")

// foreign are the sources of the golden files, by folder.
var foreign = map[string]adapter.ThirdParty{
	"falco":            {Kind: adapter.Falco},
	"tetragon":         {Kind: adapter.Tetragon, Techniques: map[string]string{"shadow-read": "T1552.001"}},
	"alertmanager":     {Kind: adapter.Alertmanager, Techniques: map[string]string{"EgressJump": "T1041"}},
	"kubernetes-audit": {Kind: adapter.KubernetesAudit},
	"ocsf":             {Kind: adapter.OCSF},
	"aws":              {Kind: adapter.AWS, Attests: true, Learn: 24 * time.Hour},
}

func source(folder string) adapter.ThirdParty {
	s := foreign[folder]
	s.Name, s.Cluster, s.Account = folder, "east", "111122223333"
	return s
}

// met remembers by name, without an end.
type met map[string]time.Time

func (m met) First(name string) (time.Time, bool) { at, ok := m[name]; return at, ok }

// memory knows the account of the samples for a month, and two habits of its key and role.
var memory = func() met {
	m, long := met{}, now.Add(-30*24*time.Hour)
	for _, what := range []string{"account\x00111122223333", "key\x00111122223333\x00AKIAEXAMPLE000000001", "network\x00111122223333\x00AKIAEXAMPLE000000001\x00198.51.100.0/24",
		"model\x00111122223333\x00AKIAEXAMPLE000000001", "model-region\x00111122223333\x00AKIAEXAMPLE000000001\x00us-east-1", "model-agent\x00111122223333\x00AKIAEXAMPLE000000001\x00Boto3"} {
		m["aws\x00"+what] = long
	}
	return m
}()

// read is one item as intake takes it, with nothing to resolve its place by.
func read(item adapter.Item, from adapter.ThirdParty) (map[string]any, *detection.Detection, error) {
	f, err := item.Read(from, window, memory)
	if err != nil {
		return nil, nil, err
	}
	if f.PassedOver != "" {
		return map[string]any{"passed_over": f.PassedOver}, nil, nil
	}
	adapter.StandIn(f.Detection)
	d, err := f.Seal(window)
	return map[string]any{"detection": d}, d, err
}

func TestForeignSamplesAreReadAsTheGoldenFilesSay(t *testing.T) {
	for folder := range foreign {
		paths, err := filepath.Glob(filepath.Join("testdata", folder, "*.json*"))
		if err != nil || len(paths) == 0 {
			t.Fatalf("%s: no samples, %v", folder, err)
		}
		for _, path := range paths {
			if strings.HasSuffix(path, ".golden.json") {
				continue
			}
			t.Run(path, func(t *testing.T) { golden(t, path, source(folder)) })
		}
	}
}

func golden(t *testing.T, path string, from adapter.ThirdParty) {
	body, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	items, err := adapter.Split(from.Kind, body)
	if err != nil {
		t.Fatal(err)
	}
	var all []any
	for _, item := range items {
		out, _, err := read(item, from)
		var r *adapter.Refusal
		if errors.As(err, &r) {
			out = map[string]any{"refused": string(r.Code), "field": r.Field}
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, out)
	}
	got, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	file := strings.TrimSuffix(strings.TrimSuffix(path, ".jsonl"), ".json") + ".golden.json"
	if *update {
		if err := os.WriteFile(file, append(got, '\n'), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.TrimSpace(string(want)), string(got)); diff != "" {
		t.Error(diff)
	}
	if strings.Contains(string(got), "hunter2") {
		t.Error("a secret stayed")
	}
}

func TestUnknownRuleNeedsTheOperatorsTechnique(t *testing.T) {
	body := []byte(`{"rule":"Our own rule","priority":"Error","time":"2026-11-23T04:05:01Z","output":"o","output_fields":{}}`)
	from := source("falco")
	_, _, err := read(adapter.Item{Body: body}, from)
	wantRefusal(t, err, adapter.UnknownRule, "rule")
	for name, change := range map[string]func(*adapter.ThirdParty){
		"for this rule": func(f *adapter.ThirdParty) { f.Techniques = map[string]string{"Our own rule": "T1530"} },
		"for all":       func(f *adapter.ThirdParty) { f.Technique, f.AttackVersion = "T1530", "19" },
	} {
		mapped := from
		change(&mapped)
		_, d, err := read(adapter.Item{Body: body}, mapped)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff([]detection.Attack{{TechniqueID: "T1530", Version: "19"}}, d.Attacks); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// falcosidekick gives each receipt a uuid of its own; the event stays one.
func TestSameForeignEventHasOneUID(t *testing.T) {
	body, err := os.ReadFile("testdata/falco/sidekick.json")
	if err != nil {
		t.Fatal(err)
	}
	again := strings.Replace(string(body), "9ad1a0c5", "9ad1a0c6", 1)
	other := strings.Replace(string(body), "02.000000001Z", "02.000000002Z", 1)
	uid := func(body string) string {
		_, d, err := read(adapter.Item{Body: []byte(body)}, source("falco"))
		if err != nil {
			t.Fatal(err)
		}
		return d.UID
	}
	if uid(string(body)) != uid(again) || uid(string(body)) == uid(other) {
		t.Errorf("%s, %s again, %s another", uid(string(body)), uid(again), uid(other))
	}
}

func TestSplitRefusesWholeRequestsOnly(t *testing.T) {
	for name, tc := range map[string]struct {
		kind adapter.Kind
		body string
		code adapter.Code
	}{
		"empty":            {adapter.Falco, " \n", adapter.Malformed},
		"no list":          {adapter.Alertmanager, `{"version":"4"}`, adapter.Invalid},
		"the list twice":   {adapter.KubernetesAudit, `{"items":[],"items":[]}`, adapter.Malformed},
		"a list of others": {adapter.KubernetesAudit, `{"items":{}}`, adapter.Malformed},
		"too many":         {adapter.Falco, strings.Repeat("{}\n", adapter.MaxEvents+1), adapter.TooLarge},
	} {
		_, err := adapter.Split(tc.kind, []byte(tc.body))
		var r *adapter.Refusal
		if !errors.As(err, &r) || r.Code != tc.code {
			t.Errorf("%s: error %v, want %s", name, err, tc.code)
		}
	}
}

// fuzzForeign holds whatever a source sends to what intake relies on: a refusal has a code; what is taken is valid, speaks
// as its source, in its cluster, has a technique of a table, and claims at most what the source can know.
func fuzzForeign(f *testing.F, folder string, mayAttest identity.Kind) {
	paths, _ := filepath.Glob(filepath.Join("testdata", folder, "*.json*"))
	for _, path := range paths {
		if body, err := os.ReadFile(path); err == nil && !strings.HasSuffix(path, ".golden.json") {
			f.Add(body)
		}
	}
	f.Add([]byte(`[null,[],{"rule":1e999}]`))
	from := source(folder)
	f.Fuzz(func(t *testing.T, body []byte) {
		items, err := adapter.Split(from.Kind, body)
		for _, item := range items {
			var d *detection.Detection
			if _, d, err = read(item, from); d == nil || err != nil {
				break
			}
			if invalid := d.Validate(); invalid != nil {
				t.Fatalf("taken, but not valid: %v", invalid)
			}
			if d.Source.Kind != detection.ThirdParty || d.Source.Name != folder || len(d.Attacks) == 0 {
				t.Fatalf("speaks as %+v of %v", d.Source, d.Attacks)
			}
			if folder != "ocsf" && folder != "aws" && d.Workload.Cluster != from.Cluster {
				t.Fatalf("speaks for cluster %q", d.Workload.Cluster)
			}
			for _, id := range d.Identities {
				if id.Link == identity.Attested && folder != "aws" && (id.Kind != mayAttest || d.Workload.PodUID == "") {
					t.Fatalf("attested %+v", id)
				}
				if folder == "aws" && id.Link == identity.Attested && d.Workload != nil {
					t.Fatalf("attested that a workload holds %+v", id)
				}
			}
		}
		var r *adapter.Refusal
		if err != nil && (!errors.As(err, &r) || r.Code == "") {
			t.Fatalf("%v is not a refusal with a code", err)
		}
	})
}

func FuzzFalco(f *testing.F)           { fuzzForeign(f, "falco", "") }
func FuzzTetragon(f *testing.F)        { fuzzForeign(f, "tetragon", "") }
func FuzzAlertmanager(f *testing.F)    { fuzzForeign(f, "alertmanager", "") }
func FuzzOCSF(f *testing.F)            { fuzzForeign(f, "ocsf", "") }
func FuzzAWS(f *testing.F)             { fuzzForeign(f, "aws", "") }
func FuzzKubernetesAudit(f *testing.F) { fuzzForeign(f, "kubernetes-audit", identity.ServiceAccount) }
