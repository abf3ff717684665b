package activities_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.temporal.io/sdk/temporal"

	"tourniquet.dev/tourniquet/activities"
	"tourniquet.dev/tourniquet/internal/blast"
	"tourniquet.dev/tourniquet/internal/canonical"
	"tourniquet.dev/tourniquet/internal/card"
	"tourniquet.dev/tourniquet/internal/risk"
)

// channel is a messenger that keeps what it shows.
type channel struct {
	cards  map[string]string // ts to blocks
	said   []string          // "<what> <name>"
	errors []error           // of the next calls
}

func (c *channel) next(what, name string) error {
	c.said = append(c.said, what+" "+name)
	if len(c.errors) == 0 {
		return nil
	}
	err := c.errors[0]
	c.errors = c.errors[1:]
	return err
}

func (c *channel) PostCard(_ context.Context, ch, name string, m card.Message, _ bool) (activities.Place, error) {
	if err := c.next("post", name); err != nil {
		return activities.Place{}, err
	}
	ts := fmt.Sprintf("%d.0", len(c.cards)+1)
	c.cards[ts] = string(m.Blocks)
	return activities.Place{Channel: ch, TS: ts}, nil
}

func (c *channel) UpdateCard(_ context.Context, at activities.Place, name string, m card.Message) error {
	if err := c.next("update", name); err != nil {
		return err
	}
	c.cards[at.TS] = string(m.Blocks)
	return nil
}

func (c *channel) PostThread(_ context.Context, below activities.Place, name string, m card.Message, _ bool) (activities.Place, error) {
	if err := c.next("thread", name); err != nil {
		return activities.Place{}, err
	}
	ts := "9.9"
	c.cards[ts] = string(m.Blocks)
	return activities.Place{Channel: below.Channel, TS: ts}, nil
}

var notifyKey = bytes.Repeat([]byte{3}, 32)

const (
	offerA = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	offerB = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
	offerC = "sha256:cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"
)

func newNotification(now *time.Time) (*activities.Notification, *channel, blobs) {
	c, store := &channel{cards: map[string]string{}}, blobs{}
	return activities.NewNotification(activities.NotificationOptions{Messenger: c, Store: store, Channel: "C1", Mentions: map[string]string{"oncall": "S123", "leads": "U456"},
		TokenKey: notifyKey, TokenLife: time.Hour, Now: func() time.Time { return *now }, Log: slog.New(slog.DiscardHandler)}), c, store
}

func cardInput() activities.CardInput {
	return activities.CardInput{IncidentID: "iabcdefghijkl", Key: "k", State: "prioritized", Severity: "high", Playbook: "p", Subject: "pod shop/cart on demo",
		Tier:    &activities.CardTier{Ask: "oncall", Deadline: start.Add(time.Minute)},
		Options: []activities.CardOption{{Option: "less", Plan: offerB, Residual: 40}, {Option: "everything", Plan: offerA, Recommended: true, Residual: 3}},
		Held:    []activities.CardHeld{{Plan: offerC, Purpose: "stop"}}}
}

// tokens opens every token on a card, by action id.
func tokens(t *testing.T, blocks string, now time.Time) map[string]card.Token {
	t.Helper()
	var all []struct {
		Elements []struct {
			Action string `json:"action_id"`
			Value  string `json:"value"`
		} `json:"elements"`
	}
	if err := json.Unmarshal([]byte(blocks), &all); err != nil {
		t.Fatal(err)
	}
	out := map[string]card.Token{}
	for _, b := range all {
		for _, e := range b.Elements {
			if e.Action == "" {
				continue
			}
			tk, err := card.Open(notifyKey, e.Value, now)
			if err != nil {
				t.Fatal(err)
			}
			out[e.Action] = tk
		}
	}
	return out
}

func TestCardsButtonsAreBoundToTheirMessage(t *testing.T) {
	now := start
	n, c, _ := newNotification(&now)
	out, err := n.PostCard(t.Context(), cardInput())
	if err != nil || out != (activities.CardOutput{Channel: "C1", TS: "1.0"}) {
		t.Fatalf("got %v, %v", out, err)
	}
	if diff := cmp.Diff([]string{"post iabcdefghijkl", "update iabcdefghijkl"}, c.said); diff != "" {
		t.Error(diff)
	}
	first := tokens(t, c.cards["1.0"], now)
	want := card.Token{Kind: card.OnOffer, Incident: "iabcdefghijkl", Plans: []card.Offer{{Option: "everything", Plan: offerA}, {Option: "less", Plan: offerB}},
		Nonce: first["approve"].Nonce, Expiry: now.Add(time.Hour), Channel: "C1", TS: "1.0"}
	for _, action := range []string{"approve", "other", "deny"} {
		if diff := cmp.Diff(want, first[action]); diff != "" {
			t.Errorf("%s: %s", action, diff)
		}
	}
	for _, action := range []string{"release", "retire", "extend"} {
		if tk := first[action]; tk.Kind != card.OnHold || len(tk.Plans) != 1 || tk.Plans[0].Plan != offerC || tk.TS != "1.0" || tk.Nonce == want.Nonce {
			t.Errorf("%s: %+v", action, tk)
		}
	}

	// Brought up to date, the same offer keeps its nonce, so that two clicks stay one decision; another offer has another.
	in := cardInput()
	in.Channel, in.TS = out.Channel, out.TS
	now = now.Add(time.Minute)
	if _, err := n.UpdateCard(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	second := tokens(t, c.cards["1.0"], now)
	if second["approve"].Nonce != want.Nonce || second["release"].Nonce == first["release"].Nonce {
		t.Error("nonces of the same offer differ, or those of a hold do not")
	}
	in.Options = in.Options[1:]
	if _, err := n.UpdateCard(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	third := tokens(t, c.cards["1.0"], now)
	if third["approve"].Nonce == want.Nonce || third["other"].Nonce != "" {
		t.Errorf("another offer: %+v", third)
	}

	in.Options, in.Held, in.Tier = nil, nil, nil
	in.Decisions = []activities.CardDecision{{Kind: "approve", Person: "ana", At: now, Plan: offerA}}
	if _, err := n.UpdateCard(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	if got := c.cards["1.0"]; len(tokens(t, got, now)) != 0 || !strings.Contains(got, "ana") || !strings.Contains(got, "aaaaaaaaaaaa") {
		t.Errorf("after the decision: %s", got)
	}
}

func TestCardShowsTheStoredAssessment(t *testing.T) {
	now := start
	n, c, store := newNotification(&now)
	rec := activities.AssessmentRecord{V: 1, Facts: []string{}, Before: blast.Radius{Score: 63, Lower: 40, Upper: 80, Assets: []blast.Asset{{Path: []string{"pod", "key AKIA", "bucket orders"}}}},
		Waiting: risk.Exposure{Currency: "USD", Mean: 777700, P50: 1200000, P90: 9900000, WaitingPerMinute: 4200, Defaults: true},
		Options: []activities.Option{{Draft: activities.Draft{Option: "everything"}, Residual: blast.Radius{Score: 3}, Exposure: risk.Exposure{Currency: "USD", Mean: 100}}}}
	raw, err := canonical.Marshal(rec)
	if err != nil {
		t.Fatal(err)
	}
	in := cardInput()
	in.Assessment = store.put(raw)
	if _, err := n.PostCard(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"63 of 100", "bucket orders", "USD 7,777", "up to USD 12,000, nine of ten up to USD 99,000", "USD 42.00", "defaults", "expected loss USD 1.00"} {
		if !strings.Contains(c.cards["1.0"], want) {
			t.Errorf("the card does not say %q: %s", want, c.cards["1.0"])
		}
	}
	in.Assessment, in.Channel, in.TS = offerA, "C1", "1.0"
	if _, err := n.UpdateCard(t.Context(), in); err != nil {
		t.Fatalf("no card without an assessment: %v", err)
	}
	if !strings.Contains(c.cards["1.0"], "the assessment could not be read") {
		t.Error("the gap is not stated")
	}
}

func TestUpdateOfALostCardPostsAnother(t *testing.T) {
	now := start
	n, c, _ := newNotification(&now)
	in := cardInput()
	in.Channel, in.TS = "C1", "0.5"
	c.errors = []error{fmt.Errorf("update message: message_not_found: %w", activities.ErrConflict)}
	out, err := n.UpdateCard(t.Context(), in)
	if err != nil || out.TS != "1.0" {
		t.Fatalf("got %v, %v", out, err)
	}
	if tk := tokens(t, c.cards["1.0"], now)["approve"]; tk.TS != "1.0" {
		t.Errorf("the new card's token stands for %s", tk.TS)
	}
}

func TestNotifyingErrorsAreTyped(t *testing.T) {
	now := start
	for name, tc := range map[string]struct {
		err  error
		want string // type of the application error; empty: tried again
	}{
		"refused": {activities.ErrRefused, activities.TypeRefused},
		"down":    {errors.New("connection refused"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			n, c, _ := newNotification(&now)
			c.errors = []error{tc.err}
			_, err := n.PostCard(t.Context(), cardInput())
			var app *temporal.ApplicationError
			if errors.As(err, &app) != (tc.want != "") || (app != nil && app.Type() != tc.want) || err == nil {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestPageCallsTheGroupInTheThread(t *testing.T) {
	now := start
	n, c, _ := newNotification(&now)
	in := activities.PageInput{IncidentID: "iabcdefghijkl", Channel: "C1", TS: "1.0", Reason: activities.PageEscalated, Ask: "oncall", Text: "nobody <!channel> answered",
		Deadline: now, Once: "escalated:1"}
	if _, err := n.Page(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	got := c.cards["9.9"]
	for _, want := range []string{`"usergroup_id":"S123"`, "Escalated: a decision is needed", `"type":"usergroup"`} {
		if !strings.Contains(got, want) {
			t.Errorf("the page does not hold %s: %s", want, got)
		}
	}
	in.Ask = "nobody-we-know"
	if _, err := n.Page(t.Context(), in); err != nil || strings.Contains(c.cards["9.9"], "usergroup") || !strings.Contains(c.cards["9.9"], "nobody-we-know") {
		t.Errorf("%v: %s", err, c.cards["9.9"])
	}
	again := in
	again.Once = "escalated:2"
	if _, err := n.Page(t.Context(), again); err != nil || c.said[0] != c.said[1] || c.said[1] == c.said[2] {
		t.Errorf("the same page must have the same name, another one another: %v, %v", c.said, err)
	}
	in.Reason = "because"
	if _, err := n.Page(t.Context(), in); err == nil {
		t.Error("an unknown reason was paged")
	}
}
