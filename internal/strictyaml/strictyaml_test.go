package strictyaml_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"tourniquet.dev/tourniquet/internal/strictyaml"
)

type tier struct {
	Ask    string `yaml:"ask"`
	Quorum int    `yaml:"quorum"`
}

type config struct {
	Name   string            `yaml:"name"`
	Count  int               `yaml:"count"`
	Tiers  []tier            `yaml:"tiers"`
	Labels map[string]string `yaml:"labels"`
	Tree   any               `yaml:"tree"`
}

func TestDecodeKeepsDefaultsAndFillsTheRest(t *testing.T) {
	got := config{Name: "default", Count: 7}
	in := "# comment\ncount: 3\ntiers:\n  - &t {ask: oncall}\n  - *t\n  - {<<: *t, quorum: 2}\nlabels: {a: b}\n"
	if err := strictyaml.Decode([]byte(in), &got); err != nil {
		t.Fatal(err)
	}
	want := config{Name: "default", Count: 3, Tiers: []tier{{Ask: "oncall"}, {Ask: "oncall"}, {Ask: "oncall", Quorum: 2}}, Labels: map[string]string{"a": "b"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestDecodeRefuses(t *testing.T) {
	bomb := "tree:\n  a: &a [x,x,x,x,x,x,x,x,x,x]\n  b: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\n" +
		"  c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\n  d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\n" +
		"  e: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\n  f: [*e,*e,*e,*e,*e,*e,*e,*e,*e,*e]\n"
	for name, tc := range map[string]struct {
		in   string
		want string
	}{
		"an unknown key":                   {"name: a\nnames: b\n", `line 2: unknown key "names"`},
		"an unknown key further down":      {"tiers:\n  - ask: a\n    timeot: 3\n", `line 3: unknown key "timeot"`},
		"an unknown key in a merge":        {"tree: &x {bad: 1}\ntiers:\n  - {<<: *x}\n", `unknown key "bad"`},
		"a key in another case":            {"Name: a\n", `line 1: unknown key "Name"`},
		"a duplicate key":                  {"name: a\nname: b\n", `line 2: mapping key "name" already defined at line 1`},
		"a duplicate key in a map":         {"labels:\n  a: b\n  a: c\n", `line 3: mapping key "a" already defined`},
		"a duplicate key in untyped data":  {"tree:\n  a: b\n  a: c\n", `line 3: mapping key "a" already defined`},
		"a wrong type":                     {"count: many\n", "line 1: cannot unmarshal"},
		"a fraction for a whole number":    {"count: 1.5\n", "line 1: cannot unmarshal"},
		"a fraction in a list":             {"tiers:\n  - quorum: 1.5\n", "line 2: cannot unmarshal fraction"},
		"a fraction in a merge":            {"tree: &x {quorum: 1.9}\ntiers:\n  - {<<: *x}\n", "cannot unmarshal fraction"},
		"a number that overflows":          {"count: 99999999999999999999\n", "cannot unmarshal"},
		"a second document":                {"name: a\n---\nname: b\n", "line 2: a second document"},
		"an empty second document":         {"name: a\n---\n", "a second document"},
		"an empty document":                {"", "empty"},
		"only a comment":                   {"# nothing\n", "empty"},
		"broken syntax":                    {"name: [a\n", "line 1"},
		"a tab for indentation":            {"tiers:\n\t- ask: a\n", "line 2"},
		"a file over the limit":            {"name: " + strings.Repeat("a", strictyaml.MaxBytes), "too large"},
		"aliases that grow":                {bomb, "too large"},
		"an alias to itself":               {"tree: &a [*a]\n", "too large"},
		"deep nesting":                     {"tree: " + strings.Repeat("[", 40) + strings.Repeat("]", 40), "nested deeper"},
		"an undefined alias":               {"name: *nowhere\n", "unknown anchor"},
		"a list where a mapping should be": {"- a\n", "line 1: cannot unmarshal"},
	} {
		t.Run(name, func(t *testing.T) {
			err := strictyaml.Decode([]byte(tc.in), &config{})
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want an error with %q", err, tc.want)
			}
		})
	}
}

func TestDecodeReportsEveryUnknownKey(t *testing.T) {
	err := strictyaml.Decode([]byte("one: 1\ntwo: 2\n"), &config{})
	want := "line 1: unknown key \"one\"\nline 2: unknown key \"two\""
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestSizeErrorsAreTyped(t *testing.T) {
	err := strictyaml.Decode(bytes.Repeat([]byte("#"), strictyaml.MaxBytes+1), &config{})
	if !errors.Is(err, strictyaml.ErrTooLarge) {
		t.Errorf("got %v, want ErrTooLarge", err)
	}
}

// What Decode accepts is one document whose every key the type knows, so writing the value out and reading it again is stable.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{
		"name: a\ncount: 3\ntiers:\n  - {ask: oncall, quorum: 2}\nlabels: {a: b}\n",
		"tree: &a [x, *a]\n", "name: a\n---\nname: b\n", "tree: {? [a] : b}\n", "labels: {a: b, a: c}\n", "name: \x00\n", "{", "- - - -",
		"tiers: [&x {ask: a}, {<<: *x, quorum: 1}]\n", "tree: 2001-01-01\n", "name: !!binary aGk=\n", "%YAML 1.1\n---\nname: a\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var first, second config
		if err := strictyaml.Decode(data, &first); err != nil {
			return
		}
		first.Tree = nil // untyped data may hold values that YAML writes differently; the typed part is the promise
		out, err := yaml.Marshal(first)
		if err != nil {
			t.Fatalf("marshal what was decoded: %v", err)
		}
		if err := strictyaml.Decode(out, &second); err != nil {
			t.Fatalf("decode what was written: %v\n%s", err, out)
		}
		again, err := yaml.Marshal(second)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(out, again) {
			t.Errorf("not stable:\n%s\n%s", out, again)
		}
	})
}
