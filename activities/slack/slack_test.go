package slack_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tourniquet.dev/tourniquet/activities"
	"tourniquet.dev/tourniquet/activities/slack"
	"tourniquet.dev/tourniquet/internal/card"
)

// web is the part of Slack's Web API that the client calls.
type web struct {
	mu       sync.Mutex
	messages []map[string]string // as posted or updated last
	calls    []string
	fail     []func(w http.ResponseWriter) bool // one for each call; true: it answered
	hideless bool                               // history shows no metadata: the scope is missing
}

func (s *web) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	method := strings.TrimPrefix(r.URL.Path, "/api/")
	s.calls = append(s.calls, method)
	post := func() map[string]string {
		m := map[string]string{}
		if err := r.ParseForm(); err != nil {
			panic(err)
		}
		for k := range r.PostForm {
			if k != "token" {
				m[k] = r.PostForm.Get(k)
			}
		}
		return m
	}
	var after func(http.ResponseWriter) bool
	if len(s.fail) > 0 {
		after, s.fail = s.fail[0], s.fail[1:]
	}
	out := map[string]any{"ok": true}
	switch method {
	case "chat.postMessage":
		m := post()
		m["ts"] = fmt.Sprintf("1780000000.%06d", len(s.messages)+1)
		if after != nil && after(w) {
			return // refused before anything was done
		}
		s.messages = append(s.messages, m)
		out["channel"], out["ts"] = m["channel"], m["ts"]
	case "chat.update":
		m := post()
		if after != nil && after(w) {
			return
		}
		out = map[string]any{"ok": false, "error": "message_not_found"}
		for i, old := range s.messages {
			if old["ts"] == m["ts"] {
				s.messages[i] = m
				out = map[string]any{"ok": true, "channel": m["channel"], "ts": m["ts"]}
			}
		}
	case "conversations.history", "conversations.replies":
		if s.hideless {
			out = map[string]any{"ok": false, "error": "missing_scope", "needed": "channels:history"}
			break
		}
		out["messages"] = s.page(post(), out)
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(out)
}

// page gives one message a time, so that a search has to follow the cursor.
func (s *web) page(a map[string]string, out map[string]any) []any {
	i, _ := strconv.Atoi(a["cursor"])
	if i >= len(s.messages) {
		return []any{}
	}
	if i+1 < len(s.messages) {
		out["has_more"], out["response_metadata"] = true, map[string]any{"next_cursor": strconv.Itoa(i + 1)}
	}
	m := s.messages[i]
	return []any{map[string]any{"type": "message", "ts": m["ts"], "metadata": json.RawMessage(m["metadata"])}}
}

func newClient(t *testing.T, retries int) (*slack.Client, *web) {
	t.Helper()
	s := &web{}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	return slack.New(slack.Options{Token: "xoxb-test", URL: server.URL + "/api", Retries: retries, Log: slog.New(slog.DiscardHandler)}), s
}

func message(t *testing.T, subject string) card.Message {
	t.Helper()
	m, err := card.Render(card.View{IncidentID: "iabcdefghijkl", Severity: "high", State: "triaged", Subject: subject})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestCardIsPostedAsItWasRendered(t *testing.T) {
	c, s := newClient(t, 0)
	m := message(t, "<!channel> *pod*")
	at, err := c.PostCard(t.Context(), "C1", "iabcdefghijkl", m, false)
	if err != nil || at != (activities.Place{Channel: "C1", TS: "1780000000.000001"}) {
		t.Fatalf("got %v, %v", at, err)
	}
	sent := s.messages[0]
	var got, want any
	if json.Unmarshal([]byte(sent["blocks"]), &got) != nil || json.Unmarshal(m.Blocks, &want) != nil {
		t.Fatal("blocks are no JSON")
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for k, v := range map[string]string{"text": m.Text, "mrkdwn": "false", "parse": "none", "link_names": "false", "unfurl_links": "false", "unfurl_media": "false",
		"metadata": `{"event_type":"tourniquet_message","event_payload":{"name":"iabcdefghijkl"}}`} {
		if sent[k] != v {
			t.Errorf("%s is %q, want %q", k, sent[k], v)
		}
	}
	if err := c.UpdateCard(t.Context(), at, "iabcdefghijkl", message(t, "another")); err != nil {
		t.Fatal(err)
	}
	if len(s.messages) != 1 || !strings.Contains(s.messages[0]["blocks"], "another") {
		t.Errorf("messages: %v", s.messages)
	}
}

func TestSearchFindsWhatWasPostedBefore(t *testing.T) {
	c, s := newClient(t, 0)
	for _, name := range []string{"iaaaaaaaaaaaa", "ibbbbbbbbbbbb", "iccccccccccccc"} {
		if _, err := c.PostCard(t.Context(), "C1", name, message(t, name), false); err != nil {
			t.Fatal(err)
		}
	}
	at, err := c.PostCard(t.Context(), "C1", "ibbbbbbbbbbbb", message(t, "again"), true)
	if err != nil || at.TS != "1780000000.000002" || len(s.messages) != 3 {
		t.Errorf("got %v, %v with %d messages", at, err, len(s.messages))
	}
	at, err = c.PostThread(t.Context(), activities.Place{Channel: "C1", TS: "1780000000.000001"}, "iaaaaaaaaaaaa/reminder", message(t, "reminder"), true)
	if err != nil || len(s.messages) != 4 || s.messages[3]["thread_ts"] != "1780000000.000001" {
		t.Errorf("got %v, %v", at, err)
	}
	s.hideless = true
	if _, err := c.PostCard(t.Context(), "C1", "ibbbbbbbbbbbb", message(t, "again"), true); err != nil || len(s.messages) != 5 {
		t.Errorf("without the right to search: %v, %d messages", err, len(s.messages))
	}
}

func answer(status int, header map[string]string, body string) func(http.ResponseWriter) bool {
	return func(w http.ResponseWriter) bool {
		for k, v := range header {
			w.Header().Set(k, v)
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
		return true
	}
}

func TestOutcomes(t *testing.T) {
	for name, tc := range map[string]struct {
		answer func(http.ResponseWriter) bool
		want   error // nil: to be tried again
	}{
		"blocks that Slack refuses": {answer(200, nil, `{"ok":false,"error":"invalid_blocks"}`), activities.ErrRefused},
		"a message that is gone":    {answer(200, nil, `{"ok":false,"error":"message_not_found"}`), activities.ErrConflict},
		"a token that was revoked":  {answer(200, nil, `{"ok":false,"error":"invalid_auth"}`), nil},
		"a server error":            {answer(503, nil, `<html>`), nil},
		"too fast":                  {answer(429, map[string]string{"Retry-After": "1"}, `{}`), nil},
		"no JSON":                   {answer(200, nil, `ok`), nil},
	} {
		t.Run(name, func(t *testing.T) {
			c, s := newClient(t, 0)
			s.fail = []func(http.ResponseWriter) bool{tc.answer}
			err := c.UpdateCard(t.Context(), activities.Place{Channel: "C1", TS: "1"}, "x", message(t, "x"))
			if err == nil || (tc.want != nil && !errors.Is(err, tc.want)) ||
				(tc.want == nil && (errors.Is(err, activities.ErrRefused) || errors.Is(err, activities.ErrConflict))) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
			if strings.Contains(err.Error(), "xoxb") {
				t.Errorf("the error holds the token: %v", err)
			}
		})
	}
}

func TestRetryAfterIsHonoured(t *testing.T) {
	c, s := newClient(t, 2)
	s.fail = []func(http.ResponseWriter) bool{answer(429, map[string]string{"Retry-After": "1"}, `{}`)}
	began := time.Now()
	if _, err := c.PostCard(t.Context(), "C1", "x", message(t, "x"), false); err != nil || len(s.messages) != 1 {
		t.Fatalf("%v, %d messages", err, len(s.messages))
	}
	if waited := time.Since(began); waited < time.Second {
		t.Errorf("waited %s, Slack asked for a second", waited)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	s.fail = []func(http.ResponseWriter) bool{answer(429, map[string]string{"Retry-After": "60"}, `{}`)}
	if _, err := c.PostCard(ctx, "C1", "x", message(t, "x"), false); err == nil {
		t.Error("a minute's wait outlived its caller")
	}
}
