package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/detection"
	"tourniquet.dev/tourniquet/internal/plan"
	"tourniquet.dev/tourniquet/internal/sys/spool"
	"tourniquet.dev/tourniquet/internal/sys/telemetry"
	"tourniquet.dev/tourniquet/starter/intake/adapter"
	"tourniquet.dev/tourniquet/starter/intake/correlate"
	"tourniquet.dev/tourniquet/starter/intake/intaketest"
	"tourniquet.dev/tourniquet/starter/intake/recall"
	"tourniquet.dev/tourniquet/starter/intake/whereabouts"
)

// memory is a spool in memory with room for so many payloads.
type memory struct {
	mu   sync.Mutex
	room int
	fail error
	held [][]byte
	high int
}

func (m *memory) Append(_ context.Context, lane spool.Lane, payload []byte) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.fail != nil:
		return 0, m.fail
	case len(m.held) == m.room:
		return 0, spool.ErrFull
	}
	m.held = append(m.held, payload)
	if lane == spool.Critical {
		m.high++
	}
	return uint64(len(m.held)), nil
}

type bench struct {
	world  intaketest.World
	spool  *memory
	server *server
	http   *httptest.Server
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{world: intaketest.New(t), spool: &memory{room: 1000}}
	dir := t.TempDir()
	dead, err := correlate.OpenDeadLetters(filepath.Join(dir, "dead"), 4<<20)
	if err != nil {
		t.Fatal(err)
	}
	seen, err := correlate.OpenSeen(filepath.Join(dir, "seen"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { seen.Close() })
	places, err := whereabouts.Open(filepath.Join(dir, "whereabouts"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { places.Close() })
	memory, err := recall.Open(filepath.Join(dir, "recall"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { memory.Close() })
	scout := source{ThirdParty: adapter.ThirdParty{Name: "scout", Cluster: "east", Account: "111122223333"}, key: []byte("scout's key")}
	drone := source{ThirdParty: adapter.ThirdParty{Name: "drone"}, bearer: newToken([]byte("drone's token"))}
	b.server = &server{
		trust: b.world.Trust, signer: b.world.Intake, sensors: newToken([]byte("sensors")), sources: map[string]source{"scout": scout, "drone": drone},
		maxAge: time.Hour, now: func() time.Time { return intaketest.Now }, spool: b.spool, seen: seen, dead: dead,
		count: &correlate.Counters{}, refused: &refusals{}, passed: &refusals{}, places: places, recall: memory, patience: time.Millisecond, log: slog.New(slog.DiscardHandler),
	}
	b.http = httptest.NewServer(b.server.handler())
	t.Cleanup(b.http.Close)
	return b
}

type answer struct {
	Status int
	problem
	Results []result
}

func (b *bench) post(t *testing.T, path string, header http.Header, body []byte) answer {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, b.http.URL+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header = header
	response, err := b.http.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	a := answer{Status: response.StatusCode}
	var raw struct {
		problem
		Results []result `json:"results"`
	}
	if err := json.NewDecoder(response.Body).Decode(&raw); err != nil {
		t.Fatalf("status %d: %v", response.StatusCode, err)
	}
	a.problem, a.Results = raw.problem, raw.Results
	if a.Status == http.StatusTooManyRequests && response.Header.Get("Retry-After") == "" {
		t.Error("429 without Retry-After")
	}
	return a
}

var bearer = http.Header{"Authorization": {"Bearer sensors"}}

func (b *bench) detection(t *testing.T, uid string) []byte {
	return intaketest.Signed(t, b.world.Node, authz.TypeDetection, intaketest.Detection(uid, "checkout"))
}

func statuses(results []result) []string {
	var out []string
	for _, r := range results {
		out = append(out, strings.TrimSuffix(r.Status+" "+string(r.Code), " "))
	}
	return out
}

func TestSensorItemsAreJudgedOneByOne(t *testing.T) {
	b := newBench(t)
	body := bytes.Join([][]byte{b.detection(t, "1"), []byte("{"), b.detection(t, "2"), []byte(strings.Repeat("[", 40))}, []byte("\n"))
	a := b.post(t, "/v1/detections", bearer, body)
	want := []string{"accepted", "dead-letter malformed", "accepted", "dead-letter too-deep"}
	if diff := cmp.Diff(want, statuses(a.Results)); diff != "" || a.Status != http.StatusOK {
		t.Errorf("status %d: %s", a.Status, diff)
	}
	again := b.post(t, "/v1/detections", bearer, b.detection(t, "1"))
	if diff := cmp.Diff([]string{"duplicate"}, statuses(again.Results)); diff != "" {
		t.Error(diff)
	}
	if got := b.server.dead.Len(); got != 2 {
		t.Errorf("%d dead letters, want 2", got)
	}
}

// I21: nothing is answered for that is not on disk.
func TestI21FullSpoolPushesBack(t *testing.T) {
	b := newBench(t)
	b.spool.room = 1
	body := append(append(b.detection(t, "1"), '\n'), b.detection(t, "2")...)
	a := b.post(t, "/v1/detections", bearer, body)
	got := statuses(a.Results)
	slices.Sort(got)
	if diff := cmp.Diff([]string{"accepted", "refused spool-full"}, got); diff != "" || a.Status != http.StatusTooManyRequests {
		t.Errorf("status %d: %s", a.Status, diff)
	}
	b.spool.room = 10
	a = b.post(t, "/v1/detections", bearer, body)
	got = statuses(a.Results)
	slices.Sort(got)
	if diff := cmp.Diff([]string{"accepted", "duplicate"}, got); diff != "" || a.Status != http.StatusOK {
		t.Errorf("when there is room, status %d: %s", a.Status, diff)
	}
	b.spool.fail = errors.New("input/output error")
	if a = b.post(t, "/v1/detections", bearer, b.detection(t, "3")); a.Status != http.StatusServiceUnavailable {
		t.Errorf("status %d of a spool that fails", a.Status)
	}
	if want := (correlate.Account{Accepted: 3, Duplicates: 1}); b.server.count.Of(correlate.Detections) != want {
		t.Errorf("%+v, want %+v", b.server.count.Of(correlate.Detections), want)
	}
}

func TestRequestsAreRefusedWithACode(t *testing.T) {
	b := newBench(t)
	good := b.detection(t, "1")
	for name, tc := range map[string]struct {
		path   string
		header http.Header
		body   []byte
		status int
		code   adapter.Code
	}{
		"no token":         {"/v1/detections", nil, good, http.StatusUnauthorized, codeUnauthorized},
		"another token":    {"/v1/detections", http.Header{"Authorization": {"Bearer sensor"}}, good, http.StatusUnauthorized, codeUnauthorized},
		"a source's token": {"/v1/receipts", http.Header{"Authorization": {"Bearer drone's token"}}, good, http.StatusUnauthorized, codeUnauthorized},
		"2 MiB":            {"/v1/detections", bearer, make([]byte, 2<<20), http.StatusRequestEntityTooLarge, adapter.TooLarge},
		"nothing":          {"/v1/detections", bearer, nil, http.StatusBadRequest, adapter.Malformed},
		"unknown source":   {"/v1/events/nobody", bearer, good, http.StatusNotFound, codeUnknownSource},
	} {
		t.Run(name, func(t *testing.T) {
			if a := b.post(t, tc.path, tc.header, tc.body); a.Status != tc.status || a.Code != tc.code || a.Error == "" {
				t.Errorf("%+v, want %d %s", a, tc.status, tc.code)
			}
		})
	}
	if len(b.spool.held) != 0 || b.server.dead.Len() != 0 {
		t.Error("something of it was kept")
	}
	if n := b.server.refused.snapshot()[codeUnauthorized]; n != 3 {
		t.Errorf("%d counted as unauthorized, want 3", n)
	}
}

func TestEmptyTokenIsBorneByNobody(t *testing.T) {
	for name, secret := range map[string]token{"none": {}, "empty": newToken(nil)} {
		for _, given := range []string{"", "Bearer ", "Bearer x"} {
			if secret.bears(&http.Request{Header: http.Header{"Authorization": {given}}}) {
				t.Errorf("%s token: %q is taken", name, given)
			}
		}
	}
}

func event(t *testing.T) []byte {
	t.Helper()
	b, err := os.ReadFile("adapter/testdata/cloudevents/finding.json")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func signedHeader(key, name string, at time.Time, body []byte) http.Header {
	stamp := strconv.FormatInt(at.Unix(), 10)
	return http.Header{"Content-Type": {"application/cloudevents+json"}, headerTimestamp: {stamp},
		headerSignature: {"v1=" + hex.EncodeToString(sign([]byte(key), stamp, name, body))}}
}

func TestEventIsSignedByIntake(t *testing.T) {
	b, body := newBench(t), event(t)
	header := signedHeader("scout's key", "scout", intaketest.Now, body)
	for _, want := range []string{outcomeAccepted, outcomeDuplicate} {
		if a := b.post(t, "/v1/events/scout", header, body); a.Status != http.StatusOK || a.Results[0].Status != want {
			t.Errorf("%+v, want %s", a, want)
		}
	}
	e, err := authz.DecodeEnvelope(b.spool.held[0])
	if err != nil {
		t.Fatal(err)
	}
	d, err := authz.OpenDetection(b.world.Trust, e)
	if err != nil {
		t.Fatal(err)
	}
	if d.Source.Kind != detection.ThirdParty || d.Source.Name != "scout" || b.spool.high != 1 {
		t.Errorf("%+v, %d urgent", d.Source, b.spool.high)
	}
}

func TestEventNeedsItsSourcesWord(t *testing.T) {
	b, body := newBench(t), event(t)
	changed := bytes.Replace(body, []byte("f-1"), []byte("f-2"), 1)
	drone := http.Header{"Content-Type": {"application/cloudevents+json"}, "Authorization": {"Bearer drone's token"}}
	for name, tc := range map[string]struct {
		source string
		header http.Header
		body   []byte
		want   int
	}{
		"signed":              {"scout", signedHeader("scout's key", "scout", intaketest.Now, body), body, http.StatusOK},
		"another body":        {"scout", signedHeader("scout's key", "scout", intaketest.Now, body), changed, http.StatusUnauthorized},
		"another key":         {"scout", signedHeader("x", "scout", intaketest.Now, body), body, http.StatusUnauthorized},
		"for another source":  {"scout", signedHeader("scout's key", "drone", intaketest.Now, body), body, http.StatusUnauthorized},
		"six minutes ago":     {"scout", signedHeader("scout's key", "scout", intaketest.Now.Add(-6*time.Minute), body), body, http.StatusUnauthorized},
		"in six minutes":      {"scout", signedHeader("scout's key", "scout", intaketest.Now.Add(6*time.Minute), body), body, http.StatusUnauthorized},
		"a token for a key":   {"scout", drone, body, http.StatusUnauthorized},
		"a token":             {"drone", drone, bytes.Replace(body, []byte(`"uid": "0c0ffee0-1111`), []byte(`"cluster": "east", "uid": "0c0ffee0-1111`), 1), http.StatusOK},
		"the sensors' token":  {"drone", http.Header{"Authorization": {"Bearer sensors"}}, body, http.StatusUnauthorized},
		"nothing at all":      {"drone", http.Header{}, body, http.StatusUnauthorized},
		"not JSON, but known": {"drone", drone, []byte("{"), http.StatusBadRequest},
	} {
		t.Run(name, func(t *testing.T) {
			if a := b.post(t, "/v1/events/"+tc.source, tc.header, tc.body); a.Status != tc.want {
				t.Errorf("%+v, want %d", a, tc.want)
			}
		})
	}
}

func TestReceiptsGoTheSameWay(t *testing.T) {
	b := newBench(t)
	body := intaketest.Signed(t, b.world.Node, authz.TypeReceipt, intaketest.Receipt(0, plan.Applied))
	for _, want := range []string{outcomeAccepted, outcomeDuplicate} {
		if a := b.post(t, "/v1/receipts", bearer, body); a.Status != http.StatusOK || a.Results[0].Status != want {
			t.Errorf("%+v, want %s", a, want)
		}
	}
	if a := b.post(t, "/v1/receipts", bearer, b.detection(t, "1")); a.Results[0].Code != adapter.WrongType {
		t.Errorf("a detection among receipts: %+v", a)
	}
}

// I29: poison is kept once, and everything else goes on.
func TestPoisonIsKeptOnce(t *testing.T) {
	b := newBench(t)
	for range 3 {
		b.post(t, "/v1/detections", bearer, []byte("{\"a\":\"\x00\"}"))
	}
	if n := b.server.dead.Len(); n != 1 {
		t.Errorf("%d dead letters, want 1", n)
	}
	if a := b.server.count.Of(correlate.Detections); a.Pending() != 0 || a.Accepted != 3 {
		t.Errorf("%+v", a)
	}
}

func TestWithoutRoomForPoisonItIsRefusedAndCounted(t *testing.T) {
	b := newBench(t)
	for i := range 40 {
		line := fmt.Appendf(nil, "%d%s", i, strings.Repeat("x", 200<<10))
		b.post(t, "/v1/detections", bearer, line)
	}
	refused := b.server.refused.snapshot()[codeDeadFull]
	if kept := int64(b.server.dead.Len()); refused == 0 || kept+refused != 40 {
		t.Errorf("%d kept, %d refused, want 40 together", kept, refused)
	}
	if a := b.post(t, "/v1/detections", bearer, b.detection(t, "1")); a.Results[0].Status != outcomeAccepted {
		t.Errorf("a good one: %+v", a)
	}
}

func TestMetrics(t *testing.T) {
	b := newBench(t)
	b.post(t, "/v1/detections", bearer, b.detection(t, "1"))
	b.post(t, "/v1/detections", nil, nil)
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(collector{b.server.count, b.server.refused, b.server.passed, b.server.dead})
	w := httptest.NewRecorder()
	telemetry.Handler(registry, nil).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for _, want := range []string{`tourniquet_intake_items_total{kind="detection",outcome="accepted"} 1`,
		`tourniquet_intake_pending{kind="detection"} 1`, `tourniquet_intake_refused_total{code="unauthorized"} 1`} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("metrics lack %s", want)
		}
	}
}
