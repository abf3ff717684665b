package slack

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"
)

// A Callback is the record of one interaction: what was sent, how often, and what came back.
type Callback struct {
	ID          string      `json:"id"`
	Type        string      `json:"type"`
	Interaction Interaction `json:"interaction"`
	At          time.Time   `json:"at"`
	Body        string      `json:"body"` // the form post, as signed
	Timestamp   string      `json:"timestamp"`
	Signature   string      `json:"signature"`
	Faults      []FaultKind `json:"faults,omitempty"`
	Deliveries  []Delivery  `json:"deliveries"`
	Done        bool        `json:"done"`
	Acked       bool        `json:"acked"`
	Problem     string      `json:"problem,omitempty"` // why it does not count as acknowledged, or what the person was shown
}

// A Delivery is one HTTP exchange of a callback.
type Delivery struct {
	At         time.Time `json:"at"`
	DurationMS float64   `json:"duration_ms"`
	Status     int       `json:"status,omitempty"`
	Answer     string    `json:"answer,omitempty"`
	Error      string    `json:"error,omitempty"`
}

// Sign is Slack's v0 signature of a body, for tests that forge or mutate callbacks.
func Sign(signingSecret, timestamp string, body []byte) string {
	mac := hmac.New(sha256.New, []byte(signingSecret))
	fmt.Fprintf(mac, "v0:%s:%s", timestamp, body)
	return "v0=" + hex.EncodeToString(mac.Sum(nil))
}

// deliver signs a payload, posts it, waits for the acknowledgement and keeps the record.
func (s *Server) deliver(ctx context.Context, kind string, in Interaction, payload reply) (Callback, error) {
	cb, target := s.prepare(kind, in, payload)
	if target == "" {
		return s.conclude(cb, nil, "no interactivity URL is configured")
	}
	deliveries := []Delivery{s.post(ctx, target, cb)}
	if slices.Contains(cb.Faults, FaultTwice) {
		deliveries = append(deliveries, s.post(ctx, target, cb))
	}
	return s.conclude(cb, deliveries, "")
}

// prepare makes the signed record with the faults that are on.
func (s *Server) prepare(kind string, in Interaction, payload reply) (cb *Callback, target string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.opts.Now()
	cb = &Callback{ID: s.state.id("CB"), Type: kind, Interaction: in, At: now, Deliveries: []Delivery{}}
	for _, f := range s.takeFaults(kind, callbackFaults...) {
		cb.Faults = append(cb.Faults, f.Kind)
		falsify(payload, f.Kind)
	}
	cb.Body = url.Values{"payload": {string(encode(payload))}}.Encode()
	if slices.Contains(cb.Faults, FaultLateTimestamp) {
		now = now.Add(-6 * time.Minute)
	}
	cb.Timestamp = strconv.FormatInt(now.Unix(), 10)
	cb.Signature = Sign(s.opts.SigningSecret, cb.Timestamp, []byte(cb.Body))
	if slices.Contains(cb.Faults, FaultBadSignature) {
		cb.Signature = Sign(s.opts.SigningSecret+"x", cb.Timestamp, []byte(cb.Body))
	}
	s.state.callbacks = append(s.state.callbacks, cb)
	s.changed()
	return cb, s.state.interactivityURL
}

// falsify changes who or where the payload says it is; the signature will still be right.
func falsify(payload reply, kind FaultKind) {
	set := func(key, field string, value any) {
		if o, ok := payload[key].(reply); ok {
			o[field] = value
		}
	}
	switch kind {
	case FaultWrongApp:
		payload["api_app_id"] = "A0ANOTHER00"
	case FaultWrongTeam:
		set("team", "id", "T0ANOTHER00")
		set("user", "team_id", "T0ANOTHER00")
		set("view", "team_id", "T0ANOTHER00")
	case FaultWrongChannel:
		set("channel", "id", "C0ANOTHER00")
		set("container", "channel_id", "C0ANOTHER00")
	case FaultWrongTS:
		set("container", "message_ts", "1000000000.000001")
		if m, ok := payload["message"].(Message); ok {
			m.TS = "1000000000.000001"
			payload["message"] = m
		}
	}
}

func (s *Server) post(ctx context.Context, target string, cb *Callback) Delivery {
	ctx, cancel := context.WithTimeout(ctx, s.opts.AckTimeout)
	defer cancel()
	d := Delivery{At: s.opts.Now()}
	start := time.Now() // measured on the real clock, whatever Options.Now says
	defer func() { d.DurationMS = float64(time.Since(start).Microseconds()) / 1000 }()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, bytes.NewReader([]byte(cb.Body)))
	if err != nil {
		d.Error = err.Error()
		return d
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("User-Agent", "Slackbot 1.0 (stand-in)")
	req.Header.Set("X-Slack-Request-Timestamp", cb.Timestamp)
	req.Header.Set("X-Slack-Signature", cb.Signature)
	resp, err := s.opts.Client.Do(req)
	if err == nil {
		defer resp.Body.Close()
		var answer []byte
		answer, err = io.ReadAll(io.LimitReader(resp.Body, maxAPIBody))
		d.Status, d.Answer = resp.StatusCode, string(answer)
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		d.Error = fmt.Sprintf("no answer within %s", s.opts.AckTimeout)
	case err != nil:
		d.Error = err.Error()
	}
	return d
}

// conclude decides whether the callback was acknowledged and what the page shows then.
func (s *Server) conclude(cb *Callback, deliveries []Delivery, problem string) (Callback, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.changed()
	cb.Done, cb.Deliveries, cb.Problem = true, deliveries, problem
	if problem == "" {
		first := deliveries[0]
		switch {
		case first.Error != "":
			cb.Problem = first.Error
		case first.Status != http.StatusOK:
			cb.Problem = fmt.Sprintf("answered with HTTP status %d", first.Status)
		case slices.Contains(cb.Faults, FaultDropAck):
			cb.Problem = "the acknowledgement was dropped by a fault switch"
		default:
			cb.Acked = true
		}
	}
	if cb.Type == "view_submission" {
		s.applyViewResponse(cb)
	}
	if !cb.Acked {
		return *cb, fmt.Errorf("%s by %s: %w: %s", cb.Type, cb.Interaction.User, ErrNotAcknowledged, cb.Problem)
	}
	return *cb, nil
}

const trouble = "We had some trouble connecting. Try again?"

// applyViewResponse does what the app's answer to a view_submission says.
func (s *Server) applyViewResponse(cb *Callback) {
	v := s.state.view(cb.Interaction.View)
	if v == nil || !v.Open {
		return // closed or replaced while the app was thinking
	}
	if !cb.Acked {
		v.Trouble = trouble
		return
	}
	var answer struct {
		Action string            `json:"response_action"`
		Errors map[string]string `json:"errors"`
		View   json.RawMessage   `json:"view"`
	}
	body := bytes.TrimSpace([]byte(cb.Deliveries[0].Answer))
	if len(body) > 0 && json.Unmarshal(body, &answer) != nil {
		s.viewTrouble(cb, v, "the answer to view_submission is neither empty nor JSON")
		return
	}
	switch answer.Action {
	case "", "clear":
		v.Open = false
	case "errors":
		if !areInputs(v.Blocks, answer.Errors) {
			s.viewTrouble(cb, v, "errors must name block ids of input blocks")
			return
		}
		v.Errors = answer.Errors
	case "update":
		next, err := s.checkView(string(answer.View))
		if err != nil {
			s.viewTrouble(cb, v, "the view of response_action update: "+explain(err))
			return
		}
		s.replaceView(v, next)
	default:
		s.viewTrouble(cb, v, fmt.Sprintf("the stand-in knows no response_action %q", answer.Action))
	}
}

func (s *Server) viewTrouble(cb *Callback, v *View, problem string) {
	v.Trouble, cb.Problem, cb.Acked = trouble, problem, false
}

func areInputs(blocks json.RawMessage, errs map[string]string) bool {
	inputs := map[string]bool{}
	for _, b := range decodeBlocks(blocks) {
		if id, _ := b["block_id"].(string); b["type"] == "input" {
			inputs[id] = true
		}
	}
	for id := range errs {
		if !inputs[id] {
			return false
		}
	}
	return len(errs) > 0
}

func explain(err error) string {
	var e *apiError
	if errors.As(err, &e) && len(e.messages) > 0 {
		return fmt.Sprintf("%s: %q", e.code, e.messages)
	}
	return err.Error()
}
