package plan_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
	"pgregory.net/rapid"

	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/plan"
)

var update = flag.Bool("update", false, "write golden files anew")

// one is a plan of one step of an action, on a target of fixed names.
func one(e plan.Entry) *plan.Plan {
	t := plan.Target{Kind: e.Targets, Scope: "production", Namespace: "shop", Name: "checkout-7d9f", UID: "0a1b2c3d-0000-4000-8000-00000000beef"}
	switch e.Targets {
	case plan.ServiceAccount:
		t.Name = "checkout"
	case plan.AccessKey:
		t = plan.Target{Kind: e.Targets, Scope: "123456789012", Name: "AKIAIOSFODNN7EXAMPLE", UID: "AKIAIOSFODNN7EXAMPLE"}
	case plan.AWSRole:
		t = plan.Target{Kind: e.Targets, Scope: "123456789012", Name: "checkout", UID: "AROAEXAMPLEEXAMPLE"}
	}
	s := plan.Step{Action: e.Action, Target: t, DurationSeconds: 5400, Expiry: plan.Release}
	if e.Reviewable {
		s.Expiry, s.DurationSeconds = plan.Review, 4*3600
	}
	if e.Closure != "" {
		s.Closure = &plan.Closure{Of: fmt.Sprintf(e.Closure, t.Name), Max: 10}
	}
	p := valid()
	p.Steps = []plan.Step{s}
	return p
}

func views(t interface {
	Helper()
	Fatalf(string, ...any)
}, p *plan.Plan) []plan.View {
	t.Helper()
	v, err := plan.Views(p)
	if err != nil {
		t.Fatalf("views: %v", err)
	}
	return v
}

// golden writes views for people who review them: the files, one under the other.
func golden(all []plan.View) []byte {
	var b bytes.Buffer
	for _, v := range all {
		fmt.Fprintf(&b, "# %s\n# %s\n--- %s (%s)\n%s", v.Title, v.Note, v.File, v.Language, v.Apply)
		if v.Undo != "" {
			fmt.Fprintf(&b, "--- %s (%s)\n%s", v.UndoFile(), v.Language, v.Undo)
		}
		b.WriteByte('\n')
	}
	return b.Bytes()
}

// TestEveryActionHasAGoldenView: what each row of the catalogue looks like, and no file of an action that is gone.
func TestEveryActionHasAGoldenView(t *testing.T) {
	var want []string
	for _, e := range plan.Catalogue {
		file := filepath.Join("testdata", "views", strings.ReplaceAll(string(e.Action), "/", "-")+".golden")
		want = append(want, file)
		p := one(e)
		if err := p.Validate(); err != nil {
			t.Fatal(err)
		}
		got := golden(views(t, p))
		if *update {
			if err := os.WriteFile(file, got, 0o644); err != nil { // #nosec G306 -- committed
				t.Fatal(err)
			}
		}
		data, err := os.ReadFile(file)
		if err != nil {
			t.Errorf("%s has no golden view: %v", e.Action, err)
		}
		if diff := cmp.Diff(string(data), string(got)); diff != "" {
			t.Errorf("%s:\n%s", file, diff)
		}
	}
	found, err := filepath.Glob(filepath.Join("testdata", "views", "*.golden"))
	slices.Sort(want)
	if err != nil || !slices.Equal(found, want) {
		t.Errorf("golden views %v, want %v (%v)", found, want, err)
	}
}

// TestTheOrderSaysWhatTheNodeReads: the order's view has exactly the members of the order that is signed.
func TestTheOrderSaysWhatTheNodeReads(t *testing.T) {
	e, _ := plan.Lookup(plan.NodeCutNetwork)
	var shown map[string]any
	if err := yaml.Unmarshal([]byte(views(t, one(e))[0].Undo), &shown); err != nil {
		t.Fatal(err)
	}
	var got, want []string
	for k := range shown {
		got = append(got, k)
	}
	for f := range reflect.TypeFor[authz.Order]().Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name != "pid" && name != "start_ns" { // of node/kill-process, which no plan has
			want = append(want, name)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// shape is a document with every text taken out, so that two can be compared by structure alone.
func shape(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for k, e := range v {
			out[k] = shape(e)
		}
		return out
	case []any:
		out := []any{}
		for _, e := range v {
			out = append(out, shape(e))
		}
		return out
	case string:
		return "text"
	}
	return v
}

var printable = regexp.MustCompile(`^[ -~\n]*$`)

// parsed reads a view back: the shape of a document, and all its texts.
func parsed(language plan.Language, text string) (any, []string, error) {
	if !printable.MatchString(text) {
		return nil, nil, fmt.Errorf("%q is not printable ASCII", text)
	}
	var v any
	var err error
	if language == plan.JSON {
		err = json.Unmarshal([]byte(text), &v)
	} else {
		err = yaml.Unmarshal([]byte(text), &v)
	}
	var texts []string
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			for _, e := range v {
				walk(e)
			}
		case []any:
			for _, e := range v {
				walk(e)
			}
		case string:
			texts = append(texts, v)
		}
	}
	walk(v)
	return shape(v), texts, err
}

// hostile is a plan whose target's names an attacker chose.
func hostile(e plan.Entry, namespace, name, uid, scope string) *plan.Plan {
	p := one(e)
	t := &p.Steps[0].Target
	t.Namespace, t.Name, t.UID, t.Scope = namespace, name, uid, scope
	return p
}

// checkStructure: a plan's views have the structure of those of harmless names, and say the very names.
func checkStructure(t interface {
	Helper()
	Fatalf(string, ...any)
}, e plan.Entry, bad *plan.Plan) {
	t.Helper()
	calm, wild := views(t, one(e)), views(t, bad)
	if len(calm) != len(wild) {
		t.Fatalf("%d views, want %d", len(wild), len(calm))
	}
	for i, v := range wild {
		if v.File != calm[i].File || v.Title != calm[i].Title || v.Note != calm[i].Note {
			t.Fatalf("names reach what is around the file: %+v", v)
		}
		for _, text := range [][2]string{{calm[i].Apply, v.Apply}, {calm[i].Undo, v.Undo}} {
			if v.Language == plan.Shell {
				if !printable.MatchString(text[1]) || strings.Count(text[0], "\n") != strings.Count(text[1], "\n") {
					t.Fatalf("%s: %q", v.File, text[1])
				}
				continue
			}
			if text[0] == "" && text[1] == "" {
				continue
			}
			want, _, err := parsed(v.Language, text[0])
			if err != nil {
				t.Fatalf("%s: %v", v.File, err)
			}
			got, texts, err := parsed(v.Language, text[1])
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Fatalf("%s: %v: structure %v, want %v\n%s", v.File, err, got, want, text[1])
			}
			if target := bad.Steps[0].Target; v.File == "step-00-order.yaml" && (!slices.Contains(texts, target.Name) || !slices.Contains(texts, target.Namespace)) {
				t.Fatalf("%q and %q do not come back from\n%s", target.Name, target.Namespace, text[1])
			}
		}
	}
}

var nasty = []string{"a\nkind: Secret", "'; echo gone #", "$(id)", "`id`", `"},{"op":"remove"`, "\u202egpj.exe", "\x1b[2J", "{{.}}", "x\r\ny", "- a", "!!binary aGk=",
	"*alias", "&anchor", "yes", "123", "~", "file:///etc/passwd", "--all", "a,b", "\u0085", "\u2028", "\x7f", "'", "\\", "\U0001F480", "<<", "a: b", " # c", "%s", "\ufeffx"}

func FuzzViews(f *testing.F) {
	for _, n := range nasty {
		f.Add(n, n, n, n)
	}
	f.Fuzz(func(t *testing.T, namespace, name, uid, scope string) {
		for _, e := range plan.Catalogue {
			p := hostile(e, namespace, name, uid, scope)
			if _, err := p.Digest(); err != nil {
				continue // no plan: canonical JSON has no such text
			}
			if p.Steps[0].Target.Kind != plan.AccessKey && p.Steps[0].Target.Kind != plan.AWSRole && (namespace == "" || name == "" || uid == "" || scope == "") {
				continue // Validate refuses it, but for the namespace, which a pod always has
			}
			checkStructure(t, e, p)
		}
	})
}

// TestNamesNeverChangeAView draws names out of hostile pieces.
func TestNamesNeverChangeAView(t *testing.T) {
	piece := rapid.OneOf(rapid.SampledFrom(nasty), rapid.StringN(1, 8, 32))
	text := rapid.Map(rapid.SliceOfN(piece, 1, 3), func(s []string) string { return strings.Join(s, "") })
	rapid.Check(t, func(t *rapid.T) {
		e := rapid.SampledFrom(plan.Catalogue).Draw(t, "action")
		p := hostile(e, text.Draw(t, "namespace"), text.Draw(t, "name"), text.Draw(t, "uid"), text.Draw(t, "scope"))
		if _, err := p.Digest(); err != nil {
			t.Skip(err.Error())
		}
		checkStructure(t, e, p)
	})
}

// TestAShellReadsTheVeryWords has bash itself take the hostile command lines apart.
func TestAShellReadsTheVeryWords(t *testing.T) {
	for _, e := range plan.Catalogue {
		for _, name := range nasty {
			p := hostile(e, name, name, name, name)
			for i, v := range views(t, p) {
				if v.Language != plan.Shell {
					continue
				}
				calm := words(t, views(t, one(e))[i].Apply)
				got := words(t, v.Apply)
				if len(got) != len(calm) {
					t.Errorf("%s of %q: %d words, want %d: %q", v.File, name, len(got), len(calm), got)
				}
				if e.Targets == plan.Pod && !slices.Contains(got, "--context="+name) {
					t.Errorf("%s: %q does not come back: %q", v.File, name, got)
				}
				if strings.HasPrefix(string(e.Action), "aws/") && slices.ContainsFunc(got, func(w string) bool {
					return strings.Contains(w, "/etc/passwd") || strings.HasSuffix(w, "=--all") && w != "--role-name=--all"
				}) {
					t.Errorf("%s: the name %q is more than a name: %q", v.File, name, got)
				}
			}
		}
	}
}

// words are a script's words as bash reads them: each command's name is a function that prints them.
func words(t *testing.T, script string) []string {
	t.Helper()
	cmd := exec.Command("bash", "--norc", "-c", `kubectl() { printf '%s\0' kubectl "$@"; }; aws() { printf '%s\0' aws "$@"; }`+"\n"+script)
	cmd.Env = []string{"PATH=/nonexistent", "LC_ALL=C"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("bash: %v: %s\n%s", err, out, script)
	}
	return strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
}
