package main

import (
	"bytes"
	"net/http"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/detection"
	"tourniquet.dev/tourniquet/starter/intake/adapter"
	"tourniquet.dev/tourniquet/starter/intake/intaketest"
)

// watcher makes the bench's scout a source of this kind.
func (b *bench) watcher(kind adapter.Kind, techniques map[string]string) http.Header {
	b.server.sources["scout"] = source{ThirdParty: adapter.ThirdParty{Name: "scout", Kind: kind, Cluster: "east", Techniques: techniques}, bearer: newToken([]byte("scout's token"))}
	return http.Header{"Authorization": {"Bearer scout's token"}, "Content-Type": {"application/json"}}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// last opens the newest detection in the spool, as whoever reads it from Temporal would.
func (b *bench) last(t *testing.T) *detection.Detection {
	t.Helper()
	e, err := authz.DecodeEnvelope(b.spool.held[len(b.spool.held)-1])
	if err != nil {
		t.Fatal(err)
	}
	d, err := authz.OpenDetection(b.world.Trust, e)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// containerDetection is a sensor's, of the container that the Falco sample names.
func (b *bench) containerDetection(t *testing.T) (*detection.Detection, []byte) {
	d := intaketest.Detection("1", "checkout")
	d.Workload.ContainerID = "0123456789ab" + strings.Repeat("0", 52)
	return d, intaketest.Signed(t, b.world.Node, authz.TypeDetection, d)
}

func TestBareContainerComesToTheSensorsIncident(t *testing.T) {
	b := newBench(t)
	header := b.watcher(adapter.Falco, nil)
	sensors, line := b.containerDetection(t)
	b.post(t, "/v1/detections", bearer, line)
	if a := b.post(t, "/v1/events/scout", header, read(t, "adapter/testdata/falco/bare-container.json")); a.Status != http.StatusOK || a.Results[0].Status != outcomeAccepted {
		t.Fatalf("%+v", a)
	}
	d := b.last(t)
	if d.Key() != sensors.Key() || d.Workload.PodUID != "checkout-pod" {
		t.Errorf("another incident: %+v", d.Workload)
	}
	if want := "resolved by container id from a sensor's detection"; d.Evidence[adapter.EvidencePlace] != want {
		t.Errorf("says %q, want %q", d.Evidence[adapter.EvidencePlace], want)
	}
}

// Falco is often the quicker one.
func TestEventWaitsForTheSensor(t *testing.T) {
	b := newBench(t)
	header := b.watcher(adapter.Falco, nil)
	b.server.patience = time.Minute
	sensors, line := b.containerDetection(t)
	answered := make(chan answer, 1)
	go func() {
		answered <- b.post(t, "/v1/events/scout", header, read(t, "adapter/testdata/falco/bare-container.json"))
	}()
	for len(b.server.waiting) == 0 {
		if len(answered) > 0 {
			t.Fatal("it did not wait")
		}
		runtime.Gosched()
	}
	b.post(t, "/v1/detections", bearer, line)
	if a := <-answered; a.Status != http.StatusOK {
		t.Fatalf("%+v", a)
	}
	if d := b.last(t); d.Key() != sensors.Key() {
		t.Errorf("another incident: %+v", d.Workload)
	}
}

func TestUnresolvedIsKeptAndSaysSo(t *testing.T) {
	b := newBench(t)
	header := b.watcher(adapter.Falco, nil)
	for sample, want := range map[string][2]string{
		"bare-container": {adapter.Unresolved, "unresolved: no sensor has told of this container"},
		"sidekick":       {"shop", "unresolved: no sensor has told of this container"},
		"host":           {adapter.Host, "the node itself: the event names no container"},
	} {
		a := b.post(t, "/v1/events/scout", header, read(t, "adapter/testdata/falco/"+sample+".json"))
		if a.Status != http.StatusOK || a.Results[0].Status != outcomeAccepted {
			t.Fatalf("%s: %+v", sample, a)
		}
		d := b.last(t)
		if got := [2]string{d.Workload.Namespace, d.Evidence[adapter.EvidencePlace]}; got != want || d.Workload.PodUID != "" {
			t.Errorf("%s: %q, want %q; pod UID %q", sample, got, want, d.Workload.PodUID)
		}
	}
}

func TestOneBadItemCostsNoOther(t *testing.T) {
	for name, tc := range map[string]struct {
		kind adapter.Kind
		body string
		want []string
	}{
		"tetragon's lines": {adapter.Tetragon, "tetragon/export.jsonl", []string{"passed-over", "accepted", "dead-letter malformed", "accepted"}},
		"alertmanager":     {adapter.Alertmanager, "alertmanager/webhook.json", []string{"accepted", "dead-letter unknown-rule", "passed-over"}},
		"the API server": {adapter.KubernetesAudit, "kubernetes-audit/list.json",
			[]string{"passed-over", "accepted", "accepted", "dead-letter malformed", "passed-over", "passed-over"}},
		"findings": {adapter.OCSF, "ocsf/findings.jsonl", []string{"accepted", "passed-over", "dead-letter unsupported"}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			header := b.watcher(tc.kind, map[string]string{"EgressJump": "T1041", "shadow-read": "T1552.001"})
			body := read(t, "adapter/testdata/"+tc.body)
			a := b.post(t, "/v1/events/scout", header, body)
			if diff := cmp.Diff(tc.want, statuses(a.Results)); diff != "" || a.Status != http.StatusOK {
				t.Errorf("status %d: %s", a.Status, diff)
			}
			again := b.post(t, "/v1/events/scout", header, body)
			for _, r := range again.Results {
				if r.Status == outcomeAccepted {
					t.Errorf("a repeated request: %v", statuses(again.Results))
				}
			}
			if n := b.server.dead.Len(); n > 1 {
				t.Errorf("%d letters of one bad item", n)
			}
		})
	}
}

// A token bound to a pod tells which pod asked; sensors know that pod.
func TestAuditedCallComesToTheCallersIncident(t *testing.T) {
	b := newBench(t)
	header := b.watcher(adapter.KubernetesAudit, nil)
	b.post(t, "/v1/detections", bearer, b.detection(t, "1"))
	b.post(t, "/v1/events/scout", header, read(t, "adapter/testdata/kubernetes-audit/list.json"))
	key := intaketest.Detection("1", "checkout").Key()
	for _, held := range b.spool.held[1:] {
		e, err := authz.DecodeEnvelope(held)
		if err != nil {
			t.Fatal(err)
		}
		d, err := authz.OpenDetection(b.world.Trust, e)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(d.Rule, "secrets-listed") && d.Key() == key {
			return
		}
	}
	t.Error("no audited call in the incident of its pod")
}

func TestBatchWithoutRoomIsRepeated(t *testing.T) {
	b := newBench(t)
	header := b.watcher(adapter.Tetragon, map[string]string{"shadow-read": "T1552.001"})
	b.spool.room = 1
	body := read(t, "adapter/testdata/tetragon/export.jsonl")
	if a := b.post(t, "/v1/events/scout", header, body); a.Status != http.StatusTooManyRequests {
		t.Errorf("status %d with a full spool", a.Status)
	}
	b.spool.room = 10
	if a := b.post(t, "/v1/events/scout", header, body); a.Status != http.StatusOK || len(b.spool.held) != 2 {
		t.Errorf("status %d, %d held", a.Status, len(b.spool.held))
	}
	if bytes.Equal(b.spool.held[0], b.spool.held[1]) {
		t.Error("one of them twice")
	}
}

func TestForeignRequestsKeepNoSensorOut(t *testing.T) {
	b := newBench(t)
	for range maxForeign {
		b.server.foreign <- struct{}{}
	}
	if a := b.post(t, "/v1/events/scout", nil, nil); a.Code != codeBusy {
		t.Errorf("%+v, want busy", a)
	}
	if a := b.post(t, "/v1/detections", bearer, b.detection(t, "1")); a.Status != http.StatusOK {
		t.Errorf("a sensor's: %+v", a)
	}
}
