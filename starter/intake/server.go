package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/canonical"
	"tourniquet.dev/tourniquet/internal/detection"
	"tourniquet.dev/tourniquet/internal/sys/fault"
	"tourniquet.dev/tourniquet/internal/sys/spool"
	"tourniquet.dev/tourniquet/internal/trust"
	"tourniquet.dev/tourniquet/starter/intake/adapter"
	"tourniquet.dev/tourniquet/starter/intake/correlate"
	"tourniquet.dev/tourniquet/starter/intake/recall"
	"tourniquet.dev/tourniquet/starter/intake/whereabouts"
)

const (
	maxBody     = 1 << 20
	maxRequests = 64 // of sensors, under way at once
	maxForeign  = 32 // of third parties
	maxAppends  = 32 // of one request: the spool makes one fsync of them
	retryAfter  = "1"
)

// Codes of whole requests; those of items are adapter's.
const (
	codeUnauthorized  adapter.Code = "unauthorized"
	codeUnknownSource adapter.Code = "unknown-source"
	codeFull          adapter.Code = "spool-full"
	codeUnavailable   adapter.Code = "unavailable"
	codeBusy          adapter.Code = "busy"
	codeDeadFull      adapter.Code = "dead-letters-full"
)

// appender is the write side of the spool; spool.Spool has it.
type appender interface {
	Append(ctx context.Context, lane spool.Lane, payload []byte) (uint64, error)
}

// server takes detections, events and receipts off the network. An item is answered for only once it is on disk.
type server struct {
	trust   *trust.File
	signer  *authz.Signer
	sensors token
	sources map[string]source
	maxAge  time.Duration
	now     func() time.Time

	spool   appender
	seen    *correlate.Seen
	dead    *correlate.DeadLetters
	count   *correlate.Counters
	refused *refusals
	passed  *refusals // items that are no finding, by why
	places  *whereabouts.Index
	recall  *recall.Store
	// patience is how long a third party's event may wait for its place.
	patience time.Duration
	log      *slog.Logger

	slots   chan struct{} // of sensors' requests
	foreign chan struct{} // of third parties' requests: none of them can keep a sensor out
	waiting chan struct{}
}

// Outcomes of an item. Only a refused one is not kept.
const (
	outcomeAccepted   = "accepted"
	outcomeDuplicate  = "duplicate"
	outcomeDeadLetter = "dead-letter"
	outcomeRefused    = "refused"
)

// result says what became of one item of a request.
type result struct {
	Status string `json:"status"`
	problem
}

// problem is how every refusal is told.
type problem struct {
	Code  adapter.Code `json:"code,omitempty"`
	Error string       `json:"error,omitempty"`
	Field string       `json:"field,omitempty"`
}

type reply struct {
	Results []result `json:"results"`
}

// handler routes the network's side of intake.
func (s *server) handler() http.Handler {
	s.slots, s.foreign = make(chan struct{}, maxRequests), make(chan struct{}, maxForeign)
	s.waiting = make(chan struct{}, maxWaiting)
	mux := http.NewServeMux()
	mux.Handle("POST /v1/detections", bounded(s, s.slots, s.fromSensor(s.takeDetection)))
	mux.Handle("POST /v1/receipts", bounded(s, s.slots, s.fromSensor(s.takeReceipt)))
	mux.Handle("POST /v1/events/{source}", bounded(s, s.foreign, s.takeEvent))
	return mux
}

// bounded refuses requests beyond the slots: a queue in front of the spool would only hide that it is slow.
func bounded(s *server, slots chan struct{}, next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
			next(w, r)
		default:
			s.refuse(w, http.StatusServiceUnavailable, problem{Code: codeBusy, Error: "too many requests under way"})
		}
	})
}

// body reads at most maxBody bytes; false when it has answered already.
func (s *server) body(w http.ResponseWriter, r *http.Request) ([]byte, bool) {
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		s.refuse(w, http.StatusRequestEntityTooLarge, problem{Code: adapter.TooLarge, Error: "the body is larger than 1 MiB"})
	case err != nil:
		s.refuse(w, http.StatusBadRequest, problem{Code: adapter.Malformed, Error: "the body did not arrive whole"})
	}
	return data, err == nil
}

// taken is an item that was read and found good.
type taken struct {
	kind    correlate.Kind
	key     correlate.Key
	lane    spool.Lane
	payload []byte
}

// fromSensor serves a request with one envelope a line.
func (s *server) fromSensor(read func([]byte, adapter.Window) (taken, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !s.sensors.bears(r) {
			s.refuse(w, http.StatusUnauthorized, problem{Code: codeUnauthorized, Error: "the sensors' bearer token is needed"})
			return
		}
		data, ok := s.body(w, r)
		if !ok {
			return
		}
		fault.Point("intake.decode")
		lines, err := adapter.Lines(data)
		if err != nil {
			p := problemOf(err)
			s.refuse(w, statusOf(p.Code), p)
			return
		}
		window := adapter.Window{Now: s.now(), MaxAge: s.maxAge}
		results, failed := make([]result, len(lines)), make([]error, len(lines))
		slots := make(chan struct{}, maxAppends)
		var all sync.WaitGroup
		for i, line := range lines {
			slots <- struct{}{}
			all.Go(func() {
				defer func() { <-slots }()
				item, err := read(line, window)
				if err != nil {
					results[i] = s.aside(item.kind, "sensor", line, err)
					return
				}
				results[i], failed[i] = s.keep(r.Context(), item)
			})
		}
		all.Wait()
		s.answer(w, results, errors.Join(failed...))
	}
}

func (s *server) takeDetection(line []byte, window adapter.Window) (taken, error) {
	e, d, err := adapter.SensorDetection(s.trust, line, window)
	if err != nil {
		return taken{kind: correlate.Detections}, err
	}
	if d.Workload != nil {
		if err := s.places.Learn(*d.Workload); err != nil { // a convenience: the detection itself is worth more
			s.log.Warn("whereabouts not kept", "err", err)
		}
	}
	return detectionItem(e, d)
}

func detectionItem(e authz.Envelope, d *detection.Detection) (taken, error) {
	lane := spool.Normal
	if d.Severity.Rank() >= detection.High.Rank() {
		lane = spool.Critical
	}
	payload, err := e.Encode()
	return taken{correlate.Detections, correlate.DetectionKey(d.Source.Name, d.Source.UID), lane, payload}, err
}

func (s *server) takeReceipt(line []byte, window adapter.Window) (taken, error) {
	e, _, err := adapter.NodeReceipt(s.trust, line, window)
	if err != nil {
		return taken{kind: correlate.Receipts}, err
	}
	payload, err := e.Encode()
	return taken{correlate.Receipts, correlate.ReceiptKey(canonical.DigestOf(payload)), spool.Critical, payload}, err
}

// keep has the item on disk, here or from before, when it returns without an error.
func (s *server) keep(ctx context.Context, item taken) (result, error) {
	if s.seen.Known(item.key) {
		s.count.Known(item.kind)
		return result{Status: outcomeDuplicate}, nil
	}
	// Not cut short by a client that hangs up: then nobody would know whether it is there.
	if _, err := s.spool.Append(context.WithoutCancel(ctx), item.lane, item.payload); err != nil {
		return result{Status: outcomeRefused, problem: spoolProblem(err)}, err
	}
	s.seen.Spooled(item.key)
	s.count.Spooled(item.kind)
	return result{Status: outcomeAccepted}, nil
}

// aside keeps what cannot be taken, with the reason. Without room for it the item is refused, and counted as that.
func (s *server) aside(kind correlate.Kind, from string, body []byte, reason error) result {
	p := problemOf(reason)
	s.refused.add(p.Code)
	known, err := s.dead.Put(correlate.Letter{At: s.now().UTC(), From: from, Kind: kind.String(), Code: string(p.Code), Field: p.Field, Reason: p.Error, Body: body})
	switch {
	case err != nil:
		s.refused.add(codeDeadFull)
		s.log.Error("refused and not kept", "source", from, "kind", kind.String(), "code", p.Code, "err", err)
		return result{Status: outcomeRefused, problem: p}
	case known:
		s.count.Known(kind)
	default:
		s.count.Aside(kind)
		s.log.Warn("kept as a dead letter", "source", from, "kind", kind.String(), "code", p.Code, "field", p.Field, "err", p.Error)
	}
	return result{Status: outcomeDeadLetter, problem: p}
}

// answer is 200 only when everything the request held is on disk.
func (s *server) answer(w http.ResponseWriter, results []result, err error) {
	status := http.StatusOK
	if err != nil {
		p := spoolProblem(err)
		s.refused.add(p.Code)
		s.log.Error("not taken", "code", p.Code, "err", err)
		status = statusOf(p.Code)
		w.Header().Set("Retry-After", retryAfter)
	}
	fault.Point("ack.reply")
	s.write(w, status, reply{results})
}

func (s *server) refuse(w http.ResponseWriter, status int, p problem) {
	s.refused.add(p.Code)
	s.log.Warn("request refused", "code", p.Code, "field", p.Field, "err", p.Error)
	if status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", retryAfter)
	}
	s.write(w, status, p)
}

func (s *server) write(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(body); err != nil {
		s.log.Info("answer did not arrive", "err", err)
	}
}

func spoolProblem(err error) problem {
	if errors.Is(err, spool.ErrFull) {
		return problem{Code: codeFull, Error: "no room: keep it and come again"}
	}
	return problem{Code: codeUnavailable, Error: "cannot be kept now"}
}

func problemOf(err error) problem {
	var r *adapter.Refusal
	if errors.As(err, &r) {
		return problem{r.Code, detection.Clean(r.Err.Error(), 500), detection.Clean(r.Field, 200)}
	}
	return problem{Code: adapter.Invalid, Error: detection.Clean(err.Error(), 500)}
}

func statusOf(c adapter.Code) int {
	switch c {
	case adapter.TooLarge:
		return http.StatusRequestEntityTooLarge
	case adapter.Unsupported:
		return http.StatusUnsupportedMediaType
	case adapter.Malformed, adapter.TooDeep:
		return http.StatusBadRequest
	case codeFull:
		return http.StatusTooManyRequests
	case codeUnavailable:
		return http.StatusServiceUnavailable
	}
	return http.StatusUnprocessableEntity
}
