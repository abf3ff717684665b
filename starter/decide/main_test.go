package main

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/authz/authztest"
	"tourniquet.dev/tourniquet/internal/sys/keys"
	"tourniquet.dev/tourniquet/internal/sys/temporalclient"
	"tourniquet.dev/tourniquet/internal/trust"
)

// folder holds everything that decide needs, with a Temporal that nobody answers for.
func folder(t *testing.T, change func(map[string]any)) (configPath string) {
	t.Helper()
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	write := func(name, content string) {
		t.Helper()
		if err := os.WriteFile(at(name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	w := authztest.New(time.Now())
	own, err := keys.Generate(at("decide.key"))
	must(err)
	for i, k := range w.TrustFile.Keys {
		if k.Role == trust.RoleDecide {
			w.TrustFile.Keys[i] = trust.Key{ID: own.KeyID(), Role: trust.RoleDecide, Public: authztest.Public(own)}
		}
	}
	doc, err := yaml.Marshal(w.TrustFile)
	must(err)
	envelope := func(name, payloadType string, s *authz.Signer, raw []byte) {
		t.Helper()
		e, err := s.SignBytes(payloadType, raw)
		must(err)
		encoded, err := e.Encode()
		must(err)
		write(name, string(encoded))
	}
	envelope("trust.json", authz.TypeTrust, w.Root, doc)
	must(keys.WritePublic(at("root.pub"), w.Root.Key().Public().(ed25519.PublicKey)))
	must(os.Mkdir(at("playbooks"), 0o700))
	envelope("playbooks/p.json", authz.TypePlaybook, w.Signers[trust.RolePlaybookSigner], []byte(authztest.Playbook))
	_, err = keys.GenerateSecret(at("token.key"))
	must(err)
	_, err = temporalclient.RotateKeyRing(at("ring.json"), time.Now())
	must(err)
	must(os.Mkdir(at("store"), 0o700))
	write("bot", "xoxb-test")
	write("signing", "test-signing-secret")
	c := map[string]any{"listen": "127.0.0.1:0", "metrics": "127.0.0.1:0", "trust": at("trust.json"), "root": at("root.pub"), "playbooks": at("playbooks"),
		"key": at("decide.key"), "token_key": at("token.key"), "journal": at("journal"), "store": at("store"),
		"slack":    map[string]any{"app_id": "A1", "team_id": "T1", "bot_token": at("bot"), "signing_secret": at("signing")},
		"temporal": map[string]any{"address": "127.0.0.1:1", "key_ring": at("ring.json")}}
	if change != nil {
		change(c)
	}
	raw, err := yaml.Marshal(c)
	must(err)
	write("decide.yaml", string(raw))
	return at("decide.yaml")
}

// decide takes decisions in while Temporal cannot be reached: they wait in its ledger.
func TestProcessRunsWithoutTemporal(t *testing.T) {
	path := folder(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out, in := io.Pipe()
	code := make(chan int, 1)
	go func() { code <- run(ctx, []string{"--config", path}, in, t.Output()) }()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	var ready struct {
		Ready           bool
		Listen, Metrics string
	}
	if err := json.Unmarshal([]byte(line), &ready); err != nil || !ready.Ready {
		t.Fatalf("said %q, %v", line, err)
	}
	get := func(url string) (int, string) {
		t.Helper()
		r, err := http.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		return r.StatusCode, string(b)
	}
	r, err := http.Post("http://"+ready.Listen+"/slack/interactions", "application/x-www-form-urlencoded", strings.NewReader("payload={}"))
	if err != nil || r.StatusCode != http.StatusUnauthorized {
		t.Fatalf("an unsigned request: %v, %v", r, err)
	}
	r.Body.Close()
	if status, _ := get("http://" + ready.Listen + "/slack/interactions"); status != http.StatusMethodNotAllowed {
		t.Errorf("GET: status %d", status)
	}
	if status, _ := get("http://" + ready.Metrics + "/healthz"); status != http.StatusNoContent {
		t.Errorf("healthz: status %d", status)
	}
	if _, metrics := get("http://" + ready.Metrics + "/metrics"); !strings.Contains(metrics, `tourniquet_decide_interactions_total{outcome="bad-signature"} 1`) ||
		!strings.Contains(metrics, "tourniquet_decide_waiting 0") {
		t.Errorf("metrics:\n%s", metrics)
	}
	cancel()
	if got := <-code; got != 0 {
		t.Errorf("exit code %d", got)
	}
}

func TestProcessRefusesToStart(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(map[string]any)
		want   string
	}{
		"an unknown setting":     {func(c map[string]any) { c["lisen"] = "x" }, "lisen"},
		"without a team":         {func(c map[string]any) { delete(c["slack"].(map[string]any), "team_id") }, "slack.team_id: is needed"},
		"a decision for ever":    {func(c map[string]any) { c["decision_life"] = "48h" }, "decision_life"},
		"no address to listen":   {func(c map[string]any) { c["listen"] = "here" }, "listen"},
		"a missing playbook":     {func(c map[string]any) { c["playbooks"] = filepath.Dir(c["store"].(string)) + "/store" }, "no playbook"},
		"somebody else's key":    {func(c map[string]any) { c["key"] = c["token_key"] }, "not a decide key"},
		"a public token":         {func(c map[string]any) { _ = os.Chmod(c["slack"].(map[string]any)["bot_token"].(string), 0o644) }, "mode"},
		"a trust file of others": {func(c map[string]any) { c["trust"] = filepath.Join(c["playbooks"].(string), "p.json") }, "payload type"},
	} {
		t.Run(name, func(t *testing.T) {
			var stderr strings.Builder
			if code := run(t.Context(), []string{"--config", folder(t, tc.change)}, io.Discard, &stderr); code != 1 || !strings.Contains(stderr.String(), tc.want) {
				t.Errorf("exit code %d, said %q, want %q", code, stderr.String(), tc.want)
			}
		})
	}
	if code := run(t.Context(), nil, io.Discard, io.Discard); code != 2 {
		t.Errorf("without --config: exit code %d", code)
	}
}
