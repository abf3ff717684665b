package playbook_test

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"tourniquet.dev/tourniquet/internal/guardrail"
	"tourniquet.dev/tourniquet/internal/playbook"
)

var update = flag.Bool("update", false, "write generated files anew")

// TestSchemaAndReferenceAreCurrent holds the committed files to the types; with -update it is their generator.
func TestSchemaAndReferenceAreCurrent(t *testing.T) {
	for file, make := range map[string]func() ([]byte, error){"playbook.schema.json": playbook.Schema, "../../docs/playbook.md": playbook.Reference} {
		want, err := make()
		if err != nil {
			t.Fatal(err)
		}
		if *update {
			if err := os.WriteFile(file, want, 0o644); err != nil { // #nosec G306 -- committed
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(file)
		if diff := cmp.Diff(string(want), string(got)); err != nil || diff != "" {
			t.Errorf("%s is not current (make generate): %v\n%s", file, err, diff)
		}
	}
}

func schema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	raw, err := playbook.Schema()
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("playbook.schema.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("playbook.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestSchemaAndDecoderAgree gives every file to both and wants one verdict.
func TestSchemaAndDecoderAgree(t *testing.T) {
	s := schema(t)
	for pattern, valid := range map[string]bool{"testdata/valid/*.yaml": true, "testdata/invalid/*.yaml": false, "../../deploy/playbooks/*.yaml": true} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v, %d files", pattern, err, len(files))
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var v any
			if err := yaml.Unmarshal(data, &v); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			book, decoded := playbook.Decode(data)
			if decoded == nil {
				_, decoded = guardrail.Compile(book.Guardrails)
			}
			if by := s.Validate(v); (by == nil) != valid || (decoded == nil) != valid {
				t.Errorf("%s: want valid %t\nschema: %v\ndecoder: %v", file, valid, by, decoded)
			}
			if first, _, _ := strings.Cut(string(data), "\n"); !valid && !strings.HasPrefix(first, "# ") {
				t.Errorf("%s does not say what is wrong with it", file)
			}
		}
	}
}
