// Package ship sends what the sensor has spooled to intake, until intake says that it is on its disk. It reads nothing
// of an entry but what kind it is, changes nothing and drops nothing on its own: an entry leaves the spool only on
// intake's word. sensor's main runs it beside sensor/node.
package ship

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/sys/fault"
	"tourniquet.dev/tourniquet/internal/sys/spool"
)

// Queue is the read side of the spool; spool.Spool has it. One goroutine calls it.
type Queue interface {
	Next(ctx context.Context) (spool.Record, error)
	Ack(ctx context.Context, records ...spool.Record) error
}

// Options is what a Shipper needs.
type Options struct {
	Queue  Queue
	URL    string        // of intake, without a path
	Token  func() string // the bearer token; asked for each request, so that it may be rotated
	Client *http.Client
	Log    *slog.Logger
	// Linger is how long a batch waits for more while it is not full; a critical one goes at once. 20 ms if 0.
	Linger time.Duration
}

const (
	maxItems   = 128
	maxBytes   = 900 << 10 // intake takes 1 MiB
	timeout    = 30 * time.Second
	firstPause = 100 * time.Millisecond
	longPause  = 30 * time.Second
	maxReply   = 1 << 20
)

// Stats are counters since the start.
type Stats struct {
	Sent       uint64 // acknowledged by intake as kept, here or before
	DeadLetter uint64 // acknowledged, but kept aside by intake as wrong
	Rejected   uint64 // refused by intake for good: not kept anywhere but in our log
	Retries    uint64
}

// Shipper sends. Its Stats may be read while it runs.
type Shipper struct {
	o       Options
	pending *spool.Record // taken from the queue, but too large for the last batch

	sent, deadLetter, rejected, retries atomic.Uint64
}

// New returns a Shipper.
func New(o Options) *Shipper {
	if o.Linger == 0 {
		o.Linger = 20 * time.Millisecond
	}
	return &Shipper{o: o}
}

// Stats reads the counters.
func (s *Shipper) Stats() Stats {
	return Stats{s.sent.Load(), s.deadLetter.Load(), s.rejected.Load(), s.retries.Load()}
}

// Run sends until ctx is done, which is no error. An error means that the spool failed. It may be called once.
func (s *Shipper) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		batch, err := s.collect(ctx)
		if err == nil {
			err = s.deliver(ctx, batch)
		}
		if err != nil && ctx.Err() == nil {
			return err
		}
	}
	return nil
}

// collect waits for a record and returns it with those that are there already, or come within the linger.
func (s *Shipper) collect(ctx context.Context) ([]spool.Record, error) {
	var batch []spool.Record
	size, over := 0, time.Time{}
	for len(batch) < maxItems {
		r, err := s.next(ctx, len(batch) > 0, over)
		if errors.Is(err, errNoMore) {
			break
		}
		if err != nil {
			return nil, err
		}
		size += len(r.Payload) + 1
		if len(batch) > 0 && size > maxBytes {
			s.pending = &r
			break
		}
		if len(batch) == 0 && r.Lane != spool.Critical {
			over = time.Now().Add(s.o.Linger)
		}
		batch = append(batch, r)
	}
	return batch, nil
}

// idle is how long a batch that may go waits for a record that is perhaps there already.
const idle = time.Millisecond

var errNoMore = errors.New("no more for now")

// next returns the next record; where bounded, errNoMore when none comes before over.
func (s *Shipper) next(ctx context.Context, bounded bool, over time.Time) (spool.Record, error) {
	if r := s.pending; r != nil {
		s.pending = nil
		return *r, nil
	}
	if !bounded {
		return s.o.Queue.Next(ctx)
	}
	waiting, cancel := context.WithTimeout(ctx, max(time.Until(over), idle))
	defer cancel()
	r, err := s.o.Queue.Next(waiting)
	if err != nil && waiting.Err() != nil && ctx.Err() == nil {
		return r, errNoMore
	}
	return r, err
}

// deliver sends a batch until intake has answered for every item, then takes it from the spool.
func (s *Shipper) deliver(ctx context.Context, batch []spool.Record) error {
	byPath := map[string][]spool.Record{}
	for _, item := range batch {
		p := path(item.Payload)
		byPath[p] = append(byPath[p], item)
	}
	for _, p := range []string{pathDetections, pathReceipts} {
		if err := s.persist(ctx, p, byPath[p]); err != nil {
			return err
		}
	}
	fault.Point("send.ack")
	return s.o.Queue.Ack(context.WithoutCancel(ctx), batch...)
}

const (
	pathDetections = "/v1/detections"
	pathReceipts   = "/v1/receipts"
)

// path says where an entry belongs. What is not readable goes with the detections, for intake to keep aside.
func path(payload []byte) string {
	var kind struct {
		PayloadType string `json:"payloadType"`
	}
	if json.Unmarshal(payload, &kind) == nil && kind.PayloadType == authz.TypeReceipt {
		return pathReceipts
	}
	return pathDetections
}

// persist repeats until intake has answered for all items. What it refuses as a whole is sent in halves, so that one
// item which it cannot take keeps no other back.
func (s *Shipper) persist(ctx context.Context, path string, items []spool.Record) error {
	pause := firstPause
	for len(items) > 0 {
		outcome, after := s.post(ctx, path, items)
		switch {
		case outcome == done:
			return nil
		case outcome == refused && len(items) > 1:
			half := len(items) / 2
			if err := s.persist(ctx, path, items[:half]); err != nil {
				return err
			}
			items = items[half:]
			continue
		case outcome == refused:
			s.rejected.Add(1)
			s.o.Log.Error("refused by intake and given up", "path", path, "seq", items[0].Seq, "bytes", len(items[0].Payload))
			return nil
		}
		s.retries.Add(1)
		select {
		case <-time.After(max(after, pause/2+rand.N(pause/2))): //nolint:gosec // spreads load, keeps no secret
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		pause = min(2*pause, longPause)
	}
	return nil
}

type outcome int

const (
	again outcome = iota
	done
	refused
)

type reply struct {
	Results []struct {
		Status string `json:"status"`
		Code   string `json:"code"`
		Error  string `json:"error"`
		Field  string `json:"field"`
	} `json:"results"`
	Code  string `json:"code"`
	Error string `json:"error"`
}

// post sends items once.
func (s *Shipper) post(ctx context.Context, path string, items []spool.Record) (outcome, time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var body bytes.Buffer
	for _, item := range items {
		body.Write(item.Payload)
		body.WriteByte('\n')
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.o.URL+path, &body)
	if err != nil {
		s.o.Log.Error("intake's address cannot be used", "err", err)
		return again, longPause
	}
	request.Header.Set("Content-Type", "application/x-ndjson")
	request.Header.Set("Authorization", "Bearer "+s.o.Token())
	fault.Point("send.post/before")
	response, err := s.o.Client.Do(request)
	if err != nil {
		if ctx.Err() == nil || errors.Is(ctx.Err(), context.DeadlineExceeded) {
			s.o.Log.Warn("intake did not answer", "err", err)
		}
		return again, 0
	}
	defer response.Body.Close()
	fault.Point("send.post/after")
	var r reply
	if err := json.NewDecoder(io.LimitReader(response.Body, maxReply)).Decode(&r); err != nil {
		s.o.Log.Warn("intake's answer was not understood", "status", response.StatusCode, "err", err)
		return again, 0
	}
	return s.settle(response, r, items)
}

// settle reads intake's word. Only 200 with a result for every item counts.
func (s *Shipper) settle(response *http.Response, r reply, items []spool.Record) (outcome, time.Duration) {
	switch response.StatusCode {
	case http.StatusOK:
		if len(r.Results) != len(items) {
			s.o.Log.Warn("intake answered for another number of items", "sent", len(items), "answered", len(r.Results))
			return again, 0
		}
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity, http.StatusUnsupportedMediaType:
		if r.Code != "" { // without a code it is not intake that speaks
			return refused, 0
		}
		return again, 0
	default:
		s.o.Log.Warn("intake takes nothing now", "status", response.StatusCode, "code", r.Code, "err", r.Error)
		seconds, _ := strconv.Atoi(response.Header.Get("Retry-After")) // 0 when it is not said
		return again, min(time.Duration(max(seconds, 0))*time.Second, longPause)
	}
	for i, result := range r.Results {
		switch result.Status {
		case "accepted", "duplicate":
			s.sent.Add(1)
		case "dead-letter":
			s.deadLetter.Add(1)
			s.o.Log.Error("kept aside by intake", "seq", items[i].Seq, "code", result.Code, "field", result.Field, "err", result.Error)
		default:
			s.rejected.Add(1)
			s.o.Log.Error("refused by intake", "seq", items[i].Seq, "code", result.Code, "field", result.Field, "err", result.Error)
		}
	}
	return done, 0
}
