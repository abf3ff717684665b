package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.yaml.in/yaml/v3"

	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/sys/keys"
	"tourniquet.dev/tourniquet/starter/intake/correlate"
	"tourniquet.dev/tourniquet/starter/intake/intaketest"
	"tourniquet.dev/tourniquet/workflows"
)

// files makes all that intake reads at its start.
func files(t *testing.T, w intaketest.World) config {
	t.Helper()
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	doc, err := yaml.Marshal(w.Trust)
	if err != nil {
		t.Fatal(err)
	}
	root, err := keys.Generate(at("root.key"))
	if err != nil {
		t.Fatal(err)
	}
	e, err := root.SignBytes(authz.TypeTrust, doc)
	if err != nil {
		t.Fatal(err)
	}
	envelope, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	seed := base64.StdEncoding.EncodeToString(w.Intake.Key().Seed()) + "\n"
	for name, text := range map[string]string{"trust.json": string(envelope), "intake.key": seed, "sensors": "0123456789abcdef\n"} {
		if err := os.WriteFile(at(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := keys.WritePublic(at("root.pub"), root.Key().Public().(ed25519.PublicKey)); err != nil {
		t.Fatal(err)
	}
	c := defaultConfig()
	c.Trust, c.Root, c.Key, c.SensorToken, c.State, c.Store = at("trust.json"), at("root.pub"), at("intake.key"), at("sensors"), at("state"), at("store")
	return c
}

// temporal takes signals while it is up.
type temporal struct {
	mu   sync.Mutex
	up   bool
	uids []string
	keys map[string]int // signals by workflow
}

func (f *temporal) SignalWithStartWorkflow(_ context.Context, id, _ string, arg any, _ client.StartWorkflowOptions, _ any, _ ...any) (client.WorkflowRun, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.up {
		return nil, serviceerror.NewUnavailable("down")
	}
	f.keys[id]++
	for _, d := range arg.(workflows.DetectionObserved).Detections {
		f.uids = append(f.uids, d.UID)
	}
	return nil, nil
}

func (f *temporal) SignalWorkflow(context.Context, string, string, string, any) error { return nil }

func (f *temporal) got() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := slices.Clone(f.uids)
	slices.Sort(out)
	return out
}

// life is one process of intake, from start to end.
func life(t *testing.T, c config, world intaketest.World, f *temporal, do func(b *bench, p *process)) {
	t.Helper()
	p, err := build(c, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	p.server.now = func() time.Time { return intaketest.Now }
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- correlate.New(correlate.Options{Queue: p.spool, Store: p.store, Temporal: f, Dead: p.server.dead, Seen: p.server.seen,
			Count: p.server.count, Log: p.log, Started: p.began}).Run(ctx)
	}()
	b := &bench{world: world, server: p.server, http: httptest.NewServer(p.server.handler())}
	do(b, p)
	b.http.Close()
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := p.close(); err != nil {
		t.Error(err)
	}
}

// I20, I25: what was accepted while Temporal was down is correlated by the next process, once.
func TestAcceptedDetectionsOutliveTheProcess(t *testing.T) {
	world := intaketest.New(t)
	c, f := files(t, world), &temporal{keys: map[string]int{}}
	auth := http.Header{"Authorization": {"Bearer 0123456789abcdef"}}
	var want []string
	life(t, c, world, f, func(b *bench, p *process) {
		for from := 0; from < 200; from += 50 {
			var body bytes.Buffer
			for i := range 50 {
				uid := fmt.Sprintf("d%03d", from+i)
				want = append(want, uid)
				body.Write(intaketest.Signed(t, world.Node, authz.TypeDetection, intaketest.Detection(uid, fmt.Sprintf("owner%d", i%4))))
				body.WriteString("\n")
			}
			body.WriteString("poison\n")
			if a := b.post(t, "/v1/detections", auth, body.Bytes()); a.Status != http.StatusOK {
				t.Fatalf("%+v", a)
			}
		}
		if a := p.server.count.Of(correlate.Detections); a.Accepted != 204 || a.DeadLettered != 1 || a.Duplicates != 3 || a.Pending() != 200 {
			t.Errorf("%+v", a)
		}
	})
	if got := f.got(); len(got) != 0 {
		t.Fatalf("%d correlated while Temporal was down", len(got))
	}
	f.up = true
	life(t, c, world, f, func(b *bench, p *process) {
		again := intaketest.Signed(t, world.Node, authz.TypeDetection, intaketest.Detection("d000", "owner0"))
		b.post(t, "/v1/detections", auth, again) // its sensor did not hear the answer
		deadline := time.Now().Add(20 * time.Second)
		for p.server.count.Of(correlate.Detections).Correlated < 200 || p.server.count.Of(correlate.Detections).Pending() != 0 {
			if time.Now().After(deadline) {
				t.Fatalf("%+v", p.server.count.Of(correlate.Detections))
			}
			time.Sleep(time.Millisecond)
		}
		if a := p.server.count.Of(correlate.Detections); a.Recovered != 200 || a.Correlated != 200 || a.Accepted != 1 || a.Duplicates != 1 {
			t.Errorf("%+v", a)
		}
	})
	if got := f.got(); !slices.Equal(got, want) {
		t.Errorf("%d correlated, want each of %d once", len(got), len(want))
	}
	for id, n := range f.keys {
		if n > 4 {
			t.Errorf("%d signals to %s for 50 detections", n, id)
		}
	}
	life(t, c, world, f, func(b *bench, _ *process) {
		a := b.post(t, "/v1/detections", auth, intaketest.Signed(t, world.Node, authz.TypeDetection, intaketest.Detection("d199", "owner3")))
		if a.Results[0].Status != outcomeDuplicate {
			t.Errorf("after another restart: %+v", a)
		}
	})
}
