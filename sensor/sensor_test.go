package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/authz/authztest"
	"tourniquet.dev/tourniquet/internal/detection"
)

// intake takes everything, and says when it has enough.
type intake struct {
	mu    sync.Mutex
	lines []string
	want  int
	done  chan struct{}
}

func (f *intake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	f.mu.Lock()
	defer f.mu.Unlock()
	var results []map[string]string
	for line := range strings.Lines(string(body)) {
		results = append(results, map[string]string{"status": "accepted"})
		if f.lines = append(f.lines, line); len(f.lines) == f.want {
			close(f.done)
		}
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"results": results}) // the sensor asks again
}

// configure makes all that the sensor reads at its start.
func configure(t *testing.T, world *authztest.World, intakeURL string, change func(map[string]any)) string {
	t.Helper()
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	encode := func(e authz.Envelope, err error) []byte {
		if err != nil {
			t.Fatal(err)
		}
		b, err := e.Encode()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	doc, err := yaml.Marshal(world.TrustFile)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := world.Node.Sign(authz.TypeDetection, world.Detection)
	if err != nil {
		t.Fatal(err)
	}
	cert := authz.Envelope{PayloadType: signed.Certificate.PayloadType, Payload: signed.Certificate.Payload, Signatures: signed.Certificate.Signatures}
	c := map[string]any{
		"cluster": authztest.Cluster, "node": authztest.NodeName, "account": authztest.Account,
		"trust": write("trust.json", encode(world.Root.SignBytes(authz.TypeTrust, doc))), "root": write("root.pub", []byte(authztest.Public(world.Root)+"\n")),
		"key":         write("node.key", []byte(base64.StdEncoding.EncodeToString(world.Node.Key().Seed())+"\n")),
		"certificate": write("node.json", encode(cert, nil)), "state": filepath.Join(dir, "state"),
		"intake": map[string]any{"url": intakeURL, "token": write("token", []byte("0123456789abcdef\n"))}, "kubernetes": map[string]any{"off": true},
		"source": map[string]any{"recording": "testdata/attack.jsonl", "replace": map[string]string{"${POD_UID}": authztest.PodUID,
			"${CONTAINER_ID}": strings.Repeat("0123456789abcdef", 4), "${HOME}": "/root", "${SINK}": "203.0.113.9:8443"}},
	}
	if change != nil {
		change(c)
	}
	data, err := yaml.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return write("sensor.yaml", data)
}

func TestRecordedAttackReachesIntake(t *testing.T) {
	world := authztest.New(time.Now())
	f := &intake{want: 5, done: make(chan struct{})}
	server := httptest.NewServer(f)
	defer server.Close()
	path := configure(t, world, server.URL, nil)
	ctx, cancel := context.WithCancel(t.Context())
	var stdout, stderr bytes.Buffer
	ended := make(chan int, 1)
	go func() { ended <- run(ctx, []string{"--config", path}, &stdout, &stderr) }()
	select {
	case <-f.done:
	case code := <-ended:
		t.Fatalf("ended with %d: %s", code, stderr.String())
	case <-time.After(30 * time.Second):
		t.Error("intake did not get everything")
	}
	cancel()
	if code := <-ended; code != 0 {
		t.Errorf("exit code %d: %s", code, stderr.String())
	}
	var rules []string
	for _, line := range f.lines {
		e, err := authz.DecodeEnvelope([]byte(strings.TrimSpace(line)))
		if err != nil {
			t.Fatal(err)
		}
		d, err := authz.OpenDetection(world.TrustFile, e)
		if err != nil {
			t.Fatal(err)
		}
		if d.Workload.PodUID != authztest.PodUID || time.Since(d.Time).Abs() > time.Minute {
			t.Errorf("%+v at %v", d.Workload, d.Time)
		}
		rules = append(rules, fmt.Sprintf("%s %s", d.Severity, d.Rule))
	}
	want := []string{string(detection.High) + " server-shell", "high aws-credentials-read", "high service-account-token-read", "high metadata-access", "critical egress-after-credential-access"}
	if diff := cmp.Diff(want, rules); diff != "" {
		t.Error(diff)
	}
	var ready map[string]any
	if err := json.Unmarshal(stdout.Bytes(), &ready); err != nil || ready["ready"] != true || ready["source"] != "recording" || ready["holds"] != "none" {
		t.Errorf("said %s", stdout.String())
	}
	if first, _, _ := strings.Cut(stderr.String(), "\n"); !strings.Contains(first, "degraded") || !strings.Contains(first, "attack.jsonl") {
		t.Errorf("first line %s", first)
	}
}

func TestBadStartIsSaid(t *testing.T) {
	world := authztest.New(time.Now())
	for name, tc := range map[string]struct {
		change func(map[string]any)
		want   string
	}{
		"an unknown key":        {func(c map[string]any) { c["clutser"] = "x" }, "clutser"},
		"no name":               {func(c map[string]any) { c["node"] = "" }, "node:"},
		"a path in the address": {func(c map[string]any) { c["intake"].(map[string]any)["url"] = "http://x/y" }, "intake.url"},
		"a strange mode":        {func(c map[string]any) { c["profiles"] = map[string]any{"mode": "watch"} }, "profiles.mode"},
		"a range that is all":   {func(c map[string]any) { c["profiles"] = map[string]any{"ranges": []string{"0.0.0.0/0"}} }, "profiles.ranges[0]"},
		"too short a window":    {func(c map[string]any) { c["profiles"] = map[string]any{"learn_for": "1s"} }, "profiles.learn_for"},
		"another root":          {func(c map[string]any) { c["root"] = otherRoot(t) }, "signature"},
		"no recording":          {func(c map[string]any) { c["source"].(map[string]any)["recording"] = "none.jsonl" }, "none.jsonl"},
	} {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			path := configure(t, world, "http://127.0.0.1:1", func(c map[string]any) { tc.change(c) })
			if code := run(t.Context(), []string{"--config", path}, &stdout, &stderr); code != 1 || !strings.Contains(stderr.String(), tc.want) || stdout.Len() > 0 {
				t.Errorf("code %d, said %q and %s, want %q", code, stdout.String(), stderr.String(), tc.want)
			}
		})
	}
	var stderr bytes.Buffer
	if code := run(t.Context(), nil, io.Discard, &stderr); code != 2 || !strings.Contains(stderr.String(), "usage:") {
		t.Errorf("without a file: %d, %s", code, stderr.String())
	}
}

func otherRoot(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "root.pub")
	if err := os.WriteFile(path, []byte(authztest.Public(authztest.Signer("another"))+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
