// Package tourniquet_test holds the import walls of the design: who may import whom, read from `go list`.
package tourniquet_test

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "tourniquet.dev/tourniquet"

type listed struct {
	ImportPath, Name string
	Imports, Deps    []string
}

func list(t *testing.T, patterns ...string) []listed {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-deps=false", "-json=ImportPath,Name,Imports,Deps"}, patterns...)...)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []listed
	for dec := json.NewDecoder(bytes.NewReader(out)); dec.More(); {
		var l listed
		if err := dec.Decode(&l); err != nil {
			t.Fatal(err)
		}
		all = append(all, l)
	}
	return all
}

// The SDKs of outside systems.
const (
	temporal   = "go.temporal.io/sdk"
	aws        = "github.com/aws/aws-sdk-go-v2"
	kubernetes = "k8s.io/client-go"
	slack      = "github.com/slack-go/slack"
)

// walls are prefixes of packages and what they must not import: directly, or anywhere in their dependencies.
var walls = []struct {
	of, but     string
	direct, all []string
}{
	{of: "internal/", but: "internal/sys/", direct: []string{temporal, aws, kubernetes, slack, "net/http", "os", "log/slog", module + "/internal/sys/"}, all: []string{temporal, aws, kubernetes, slack}},
	{of: "workflows", direct: []string{module + "/activities/", module + "/internal/sys/", "os", "net", "math/rand", "crypto/rand"}, all: []string{aws, kubernetes, slack}},
	{of: "activities", direct: []string{module + "/workflows"}},
	{of: "activities/aws", direct: []string{"text/template", "html/template", module + "/workflows", temporal}, all: []string{kubernetes, slack}},
	{of: "activities/kubernetes", direct: []string{"text/template", "html/template", module + "/workflows", temporal}, all: []string{aws, slack}},
	{of: "activities/slack", direct: []string{module + "/workflows"}, all: []string{aws, kubernetes}},
	{of: "worker/orchestrate", all: []string{aws, kubernetes, slack}},
	{of: "worker/notify", all: []string{aws, kubernetes}},
	{of: "worker/investigate", all: []string{slack}},
	{of: "worker/contain-aws", direct: []string{"net/http", "text/template", "html/template"}, all: []string{kubernetes, slack}},
	{of: "worker/contain-kubernetes", direct: []string{"net/http", "text/template", "html/template"}, all: []string{aws, slack}},
	{of: "sensor", all: []string{temporal, aws, slack, module + "/workflows", module + "/activities"}},
	{of: "sensor/hold", direct: []string{"text/template", "html/template", "net/http"}},
	{of: "starter/intake", direct: []string{module + "/activities"}, all: []string{kubernetes, slack}},
	{of: "starter/decide", direct: []string{module + "/activities"}, all: []string{aws, kubernetes}},
	{of: "cmd/tourniquet", all: []string{aws, kubernetes, slack}},
	{of: "bpf", direct: []string{module + "/"}},
}

func under(path, prefix string) bool {
	return path == prefix || strings.HasPrefix(path, strings.TrimSuffix(prefix, "/")+"/")
}

func TestImportWalls(t *testing.T) {
	all := list(t, "./...")
	known := map[string]bool{}
	for _, l := range all {
		for _, d := range l.Deps {
			known[d] = true
		}
	}
	for _, w := range walls {
		found := false
		for _, l := range all {
			rel := strings.TrimPrefix(l.ImportPath, module+"/")
			if !under(rel, w.of) || (w.but != "" && under(rel, w.but)) {
				continue
			}
			found = true
			for _, banned := range w.direct {
				if i := slices.IndexFunc(l.Imports, func(p string) bool {
					return p == banned || (strings.HasSuffix(banned, "/") && strings.HasPrefix(p, banned))
				}); i >= 0 {
					t.Errorf("%s imports %s", rel, l.Imports[i])
				}
			}
			for _, banned := range w.all {
				if i := slices.IndexFunc(l.Deps, func(p string) bool { return under(p, banned) }); i >= 0 {
					t.Errorf("%s depends on %s", rel, l.Deps[i])
				}
			}
		}
		if !found {
			t.Errorf("the wall around %s stands around nothing", w.of)
		}
	}
	for _, sdk := range []string{temporal + "/client", aws + "/aws", kubernetes + "/kubernetes", slack} {
		if !known[sdk] {
			t.Errorf("%s is banned and nobody uses it: the wall tests nothing", sdk)
		}
	}
}
