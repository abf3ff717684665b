package slack_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	client "github.com/slack-go/slack"

	"tourniquet.dev/tourniquet/dev/slack"
)

func TestTriggerOpensOneViewWithinThreeSeconds(t *testing.T) {
	f := newFixture(t)
	ts := f.post(t)
	var trigger string
	f.answers(func(ic client.InteractionCallback) string { trigger = ic.TriggerID; return "" })
	openAfter := func(d time.Duration) error {
		if _, err := f.Click(t.Context(), alice, channel, ts, "approve"); err != nil {
			t.Fatal(err)
		}
		f.advance(d)
		return second(f.api.OpenView(trigger, modal()))
	}
	if err := openAfter(3 * time.Second); err != nil {
		t.Errorf("at three seconds: %v", err)
	}
	if err := second(f.api.OpenView(trigger, modal())); slackError(err) != "exchanged_trigger_id" {
		t.Errorf("the second time: %v", err)
	}
	if err := openAfter(3*time.Second + time.Millisecond); slackError(err) != "expired_trigger_id" {
		t.Errorf("after three seconds: %v", err)
	}
	bad := modal()
	bad.Title = plain(strings.Repeat("x", 25))
	if _, err := f.Click(t.Context(), alice, channel, ts, "approve"); err != nil {
		t.Fatal(err)
	}
	if err := second(f.api.OpenView(trigger, bad)); slackError(err) != "invalid_arguments" {
		t.Errorf("a bad view: %v", err)
	}
	if err := second(f.api.OpenView(trigger, modal())); err != nil {
		t.Errorf("a refused view used the trigger up: %v", err)
	}
	open := 0
	for _, v := range f.Views() {
		if v.Open {
			open++
		}
	}
	if open != 1 {
		t.Errorf("%d views are open for one person", open)
	}
}

func TestSubmissionCarriesWhatWasFilledIn(t *testing.T) {
	f := newFixture(t)
	view := f.openModal(t)
	var got client.InteractionCallback
	f.answers(func(ic client.InteractionCallback) string { got = ic; return "" })
	if cb, err := f.Submit(t.Context(), alice, view, filled()); err != nil || !cb.Acked {
		t.Fatal(err)
	}
	values := got.View.State.Values
	type state struct{ Type, Callback, Meta, Reason, Number, Hours, Also, User string }
	also := values["b-also"]["also"].SelectedOptions
	if len(also) != 1 {
		t.Fatalf("also = %+v", also)
	}
	want := state{"view_submission", "approve", "digest", "stolen, seen by two", "42", "4h", "page", alice}
	if diff := cmp.Diff(want, state{string(got.Type), got.View.CallbackID, got.View.PrivateMetadata, values["b-reason"]["reason"].Value,
		values["b-number"]["number"].SelectedOption.Value, values["b-hours"]["hours"].SelectedOption.Value, also[0].Value, got.User.ID}); diff != "" {
		t.Error(diff)
	}
	if _, stillOpen := f.OpenView(alice); stillOpen {
		t.Error("the modal stayed open after an empty answer")
	}
	if _, err := f.Submit(t.Context(), alice, view, filled()); !errors.Is(err, slack.ErrImpossible) {
		t.Errorf("a second submission: %v", err)
	}
}

func TestPageWouldNotSubmitThis(t *testing.T) {
	f := newFixture(t)
	view := f.openModal(t)
	for name, change := range map[string]func(slack.Values){
		"required text missing":   func(v slack.Values) { delete(v, "reason") },
		"required choice missing": func(v slack.Values) { delete(v, "number") },
		"no such option":          func(v slack.Values) { v["number"] = []string{"18"} },
		"no such checkbox":        func(v slack.Values) { v["also"] = []string{"page", "nope"} },
		"too long":                func(v slack.Values) { v["reason"] = []string{strings.Repeat("x", 3001)} },
	} {
		values := filled()
		change(values)
		if _, err := f.Submit(t.Context(), alice, view, values); !errors.Is(err, slack.ErrImpossible) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := f.Submit(t.Context(), boris, view, filled()); !errors.Is(err, slack.ErrImpossible) {
		t.Errorf("somebody else's modal: %v", err)
	}
}

func TestResponseActions(t *testing.T) {
	type outcome struct {
		Open, Acked, Trouble bool
		Errors               map[string]string
		Title                string
	}
	for name, tc := range map[string]struct {
		answer string
		want   outcome
	}{
		"empty closes":           {"", outcome{Acked: true}},
		"clear closes":           {`{"response_action":"clear"}`, outcome{Acked: true}},
		"errors show":            {`{"response_action":"errors","errors":{"b-reason":"too vague"}}`, outcome{Open: true, Acked: true, Errors: map[string]string{"b-reason": "too vague"}, Title: "Approve plan"}},
		"errors of no input":     {`{"response_action":"errors","errors":{"zzz":"?"}}`, outcome{Open: true, Trouble: true, Title: "Approve plan"}},
		"update replaces":        {`{"response_action":"update","view":{"type":"modal","title":{"type":"plain_text","text":"Done"},"blocks":[{"type":"divider"}]}}`, outcome{Open: true, Acked: true, Title: "Done"}},
		"update with a bad view": {`{"response_action":"update","view":{"type":"modal"}}`, outcome{Open: true, Trouble: true, Title: "Approve plan"}},
		"not JSON":               {`ok`, outcome{Open: true, Trouble: true, Title: "Approve plan"}},
		"push is not known":      {`{"response_action":"push"}`, outcome{Open: true, Trouble: true, Title: "Approve plan"}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			view := f.openModal(t)
			f.answers(func(client.InteractionCallback) string { return tc.answer })
			cb, err := f.Submit(t.Context(), alice, view, filled())
			got := outcome{Acked: cb.Acked}
			if (err == nil) != cb.Acked {
				t.Errorf("acked %v with %v", cb.Acked, err)
			}
			if v, ok := f.OpenView(alice); ok {
				got.Open, got.Trouble, got.Errors = true, v.Trouble != "", v.Errors
				got.Title = strings.Split(strings.SplitAfter(string(v.Title), `"text":"`)[1], `"`)[0]
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestClosingTellsTheAppThatAsked(t *testing.T) {
	f := newFixture(t)
	view := f.openModal(t)
	var kind client.InteractionType
	f.answers(func(ic client.InteractionCallback) string { kind = ic.Type; return "" })
	if cb, err := f.CloseView(t.Context(), alice, view); err != nil || !cb.Acked || kind != client.InteractionTypeViewClosed {
		t.Errorf("closed: %+v, %v, app saw %q", cb, err, kind)
	}
	if _, ok := f.OpenView(alice); ok {
		t.Error("still open")
	}
}

func TestViewUpdateWantsTheLatestHash(t *testing.T) {
	f := newFixture(t)
	view := f.openModal(t)
	old, _ := f.OpenView(alice)
	next := modal()
	next.Title = plain("Second")
	if _, err := f.api.UpdateView(next, "", old.Hash, view); err != nil {
		t.Fatal(err)
	}
	if _, err := f.api.UpdateView(next, "", old.Hash, view); slackError(err) != "hash_conflict" {
		t.Errorf("with an old hash: %v", err)
	}
	if _, err := f.api.UpdateView(next, "", "", view); err != nil {
		t.Errorf("without a hash: %v", err)
	}
}
