package ship_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/sys/spool"
	"tourniquet.dev/tourniquet/sensor/ship"
)

// queue is a spool in memory.
type queue struct {
	items chan spool.Record
	mu    sync.Mutex
	done  []uint64
	fail  error
}

func (q *queue) Next(ctx context.Context) (spool.Record, error) {
	if err := ctx.Err(); err != nil {
		return spool.Record{}, err
	}
	select {
	case i := <-q.items:
		return i, nil
	case <-ctx.Done():
		return spool.Record{}, ctx.Err()
	}
}

func (q *queue) Ack(_ context.Context, items ...spool.Record) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, i := range items {
		q.done = append(q.done, i.Seq)
	}
	return q.fail
}

// intake answers as it is told; by default it accepts every line.
type intake struct {
	mu     sync.Mutex
	answer func(path string, lines []string) (int, http.Header, any)
	got    []string // "path: line line", of what was accepted
	at     []time.Time
	tokens map[string]bool
}

func accept(lines []string) any {
	results := make([]map[string]string, len(lines))
	for i := range results {
		results[i] = map[string]string{"status": "accepted"}
	}
	return map[string]any{"results": results}
}

func (f *intake) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	lines := strings.Split(strings.TrimSuffix(string(body), "\n"), "\n")
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tokens[r.Header.Get("Authorization")] = true
	f.at = append(f.at, time.Now())
	status, header, answer := http.StatusOK, http.Header{}, accept(lines)
	if f.answer != nil {
		status, header, answer = f.answer(r.URL.Path, lines)
	}
	if status == 0 {
		return nil, errors.New("connection refused")
	}
	if status == http.StatusOK {
		f.got = append(f.got, r.URL.Path+": "+strings.Join(lines, " "))
	}
	encoded, err := json.Marshal(answer)
	if err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: status, Header: header, Body: io.NopCloser(bytes.NewReader(encoded))}, nil
}

type rig struct {
	queue  *queue
	intake *intake
	ship   *ship.Shipper
	stop   func() error
}

func start() *rig {
	r := &rig{queue: &queue{items: make(chan spool.Record, 10_000)}, intake: &intake{tokens: map[string]bool{}}}
	return r
}

func (r *rig) run() {
	r.ship = ship.New(ship.Options{Queue: r.queue, URL: "http://intake", Token: func() string { return "t" },
		Client: &http.Client{Transport: r.intake}, Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.ship.Run(ctx) }()
	r.stop = func() error { cancel(); return <-ended }
}

func (r *rig) put(seq uint64, payload string) {
	r.queue.items <- spool.Record{Seq: seq, Payload: []byte(payload)}
}

func TestKindsGoWhereTheyBelong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start()
		receipt := `{"payloadType":"` + authz.TypeReceipt + `"}`
		r.put(1, "a")
		r.put(2, receipt)
		r.put(3, "b")
		r.run()
		time.Sleep(time.Minute)
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"/v1/detections: a b", "/v1/receipts: " + receipt}, r.intake.got); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]uint64{1, 2, 3}, r.queue.done); diff != "" || !r.intake.tokens["Bearer t"] {
			t.Error(diff, r.intake.tokens)
		}
	})
}

// I21: nothing leaves the spool on any other word than intake's 200 with a result for each item.
func TestNothingLeavesTheSpoolBeforeIntakeHasIt(t *testing.T) {
	ok := func(n int) any { return accept(make([]string, n)) }
	for name, tc := range map[string]struct {
		status int
		answer any
	}{
		"intake is down":          {0, nil},
		"429":                     {http.StatusTooManyRequests, map[string]string{"code": "spool-full"}},
		"503":                     {http.StatusServiceUnavailable, map[string]string{"code": "unavailable"}},
		"401":                     {http.StatusUnauthorized, map[string]string{"code": "unauthorized"}},
		"404 of something else":   {http.StatusNotFound, map[string]string{}},
		"400 of something else":   {http.StatusBadRequest, map[string]string{}},
		"200 that is not JSON":    {http.StatusOK, "no"},
		"200 for fewer items":     {http.StatusOK, ok(1)},
		"200 for more items":      {http.StatusOK, ok(3)},
		"200 without any results": {http.StatusOK, map[string]string{}},
		"202":                     {http.StatusAccepted, ok(2)},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := start()
				r.intake.answer = func(string, []string) (int, http.Header, any) { return tc.status, http.Header{}, tc.answer }
				r.put(1, "a")
				r.put(2, "b")
				r.run()
				time.Sleep(time.Hour)
				if len(r.queue.done) != 0 {
					t.Errorf("%v left the spool", r.queue.done)
				}
				if n := r.ship.Stats().Retries; n < 100 || n > 300 {
					t.Errorf("%d retries in an hour", n)
				}
				r.intake.mu.Lock()
				r.intake.answer = nil
				r.intake.mu.Unlock()
				time.Sleep(time.Minute)
				if err := r.stop(); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff([]uint64{1, 2}, r.queue.done); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}

func TestRetryAfterIsHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start()
		r.intake.answer = func(_ string, lines []string) (int, http.Header, any) {
			if len(r.intake.at) == 1 {
				return http.StatusTooManyRequests, http.Header{"Retry-After": {"7"}}, map[string]string{"code": "spool-full"}
			}
			return http.StatusOK, nil, accept(lines)
		}
		r.put(1, "a")
		r.run()
		time.Sleep(time.Minute)
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
		if len(r.intake.at) != 2 || r.intake.at[1].Sub(r.intake.at[0]) != 7*time.Second {
			t.Errorf("came at %v", r.intake.at)
		}
	})
}

func TestOneBadItemKeepsNoOtherBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start()
		r.intake.answer = func(_ string, lines []string) (int, http.Header, any) {
			for _, l := range lines {
				if l == "bad" {
					return http.StatusBadRequest, nil, map[string]string{"code": "malformed"}
				}
			}
			return http.StatusOK, nil, accept(lines)
		}
		for i, p := range []string{"a", "b", "bad", "c", "d"} {
			r.put(uint64(i), p)
		}
		r.run()
		time.Sleep(time.Minute)
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(r.intake.got, " "); strings.Contains(got, "bad") || len(strings.Fields(strings.ReplaceAll(got, "/v1/detections:", ""))) != 4 {
			t.Errorf("got %s", got)
		}
		if s := r.ship.Stats(); s.Sent != 4 || s.Rejected != 1 || len(r.queue.done) != 5 {
			t.Errorf("%+v, %v", s, r.queue.done)
		}
	})
}

func TestBatchesStayBelowIntakesLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start()
		r.intake.answer = func(_ string, lines []string) (int, http.Header, any) {
			if size := len(strings.Join(lines, "\n")); len(lines) > 256 || size > 1<<20 {
				t.Errorf("%d items, %d bytes", len(lines), size)
			}
			return http.StatusOK, nil, accept(lines)
		}
		for i := range 300 {
			r.put(uint64(i), fmt.Sprint(i))
		}
		for i := range 20 {
			r.put(uint64(300+i), strings.Repeat("x", 200<<10))
		}
		r.run()
		time.Sleep(time.Minute)
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
		if s := r.ship.Stats(); s.Sent != 320 {
			t.Errorf("%+v", s)
		}
	})
}

func TestFailingSpoolEndsTheRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start()
		r.queue.fail = errors.New("disk gone")
		r.put(1, "a")
		r.run()
		time.Sleep(time.Minute)
		if err := r.stop(); err == nil {
			t.Error("went on")
		}
	})
}
