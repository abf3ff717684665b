package slack_test

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	client "github.com/slack-go/slack"

	"tourniquet.dev/tourniquet/dev/slack"
)

func TestClickReachesTheAppSignedAndComplete(t *testing.T) {
	f := newFixture(t)
	ts := f.post(t)
	var got client.InteractionCallback
	f.answers(func(ic client.InteractionCallback) string { got = ic; return "" })
	cb, err := f.Click(t.Context(), alice, channel, ts, "approve")
	if err != nil || !cb.Acked || len(cb.Deliveries) != 1 || cb.Deliveries[0].Status != http.StatusOK {
		t.Fatalf("callback = %+v, %v", cb, err)
	}
	type claim struct{ Type, App, Team, User, UserTeam, Channel, TS, Container, Action, Block, Value, Text string }
	a := got.ActionCallback.BlockActions[0]
	want := claim{"block_actions", "A0STANDIN00", "T0STANDIN00", alice, "T0STANDIN00", channel, ts, ts, "approve", "decide", "token-1", "Stolen token"}
	if diff := cmp.Diff(want, claim{string(got.Type), got.APIAppID, got.Team.ID, got.User.ID, got.User.TeamID, got.Channel.ID,
		got.Message.Timestamp, got.Container.MessageTs, a.ActionID, a.BlockID, a.Value, got.Message.Text}); diff != "" {
		t.Error(diff)
	}
	if got.TriggerID == "" || got.ResponseURL == "" || len(got.Message.Blocks.BlockSet) != 3 || a.ActionTs == "" {
		t.Errorf("trigger %q, response URL %q, %d blocks, action_ts %q", got.TriggerID, got.ResponseURL, len(got.Message.Blocks.BlockSet), a.ActionTs)
	}
	if strings.Contains(cb.Body, "%3F") && !strings.HasPrefix(cb.Body, "payload=") {
		t.Errorf("the payload is not in the body: %.40s", cb.Body)
	}
}

func TestSignatureCoversEveryByte(t *testing.T) {
	f := newFixture(t)
	ts := f.post(t)
	cb, err := f.Click(t.Context(), alice, channel, ts, "approve")
	if err != nil {
		t.Fatal(err)
	}
	check := func(body, timestamp, signature string) error {
		h := http.Header{"X-Slack-Request-Timestamp": {timestamp}, "X-Slack-Signature": {signature}}
		v, err := client.NewSecretsVerifier(h, signing)
		if err != nil {
			return err
		}
		_, _ = v.Write([]byte(body))
		return v.Ensure()
	}
	if err := check(cb.Body, cb.Timestamp, cb.Signature); err != nil {
		t.Fatalf("the recorded callback does not verify: %v", err)
	}
	if got := slack.Sign(signing, cb.Timestamp, []byte(cb.Body)); got != cb.Signature {
		t.Errorf("Sign = %s, want %s", got, cb.Signature)
	}
	for i := 0; i < len(cb.Body); i += 97 {
		forged := cb.Body[:i] + string(cb.Body[i]^1) + cb.Body[i+1:]
		if check(forged, cb.Timestamp, cb.Signature) == nil {
			t.Fatalf("a body with byte %d changed verifies", i)
		}
	}
}

func TestImpossibleClicksAreErrors(t *testing.T) {
	f := newFixture(t)
	ts := f.post(t)
	for name, in := range map[string]slack.Interaction{
		"unknown user":    {User: "U0NOBODY000", Channel: channel, TS: ts, ActionID: "approve"},
		"unknown message": {User: alice, Channel: channel, TS: "1.000000", ActionID: "approve"},
		"unknown button":  {User: alice, Channel: channel, TS: ts, ActionID: "nope"},
		"another block":   {User: alice, Channel: channel, TS: ts, ActionID: "approve", BlockID: "nope"},
		"no open view":    {User: alice, View: "V0NONE", ActionID: "approve"},
	} {
		if _, err := f.Act(t.Context(), in); !errors.Is(err, slack.ErrImpossible) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(f.Callbacks()) != 0 {
		t.Errorf("%d callbacks were sent", len(f.Callbacks()))
	}
}

func TestEverybodyInTheWorkspaceCanClick(t *testing.T) {
	f := newFixture(t)
	ts := f.post(t)
	for _, user := range []string{alice, "U0GUEST0000", "U0GONE00000", "U0ROBOT0000", "U0STRANGE00"} {
		if cb, err := f.Click(t.Context(), user, channel, ts, "approve"); err != nil || !cb.Acked {
			t.Errorf("%s: the app must get to refuse it: %v", user, err)
		}
	}
}

func TestMissedAcknowledgementShows(t *testing.T) {
	t.Parallel() // it waits for Slack's three seconds
	f := newFixture(t)
	ts := f.post(t)
	f.hold = true
	start := time.Now()
	cb, err := f.Click(t.Context(), alice, channel, ts, "approve")
	if !errors.Is(err, slack.ErrNotAcknowledged) || cb.Acked || !strings.Contains(cb.Problem, "3s") {
		t.Errorf("callback = %+v, %v", cb, err)
	}
	if waited := time.Since(start); waited < 3*time.Second {
		t.Errorf("waited %s", waited)
	}
	state := get(t, f.url+"/page/state?channel="+channel+"&user="+alice)
	if !strings.Contains(state, `"warning":"no answer within 3s"`) {
		t.Error("the page does not warn")
	}
	if state := get(t, f.url+"/page/state?channel="+channel+"&user="+boris); strings.Contains(state, `"warning"`) {
		t.Error("the page warns somebody else")
	}
}

func TestAnythingBut200IsNoAcknowledgement(t *testing.T) {
	f := newFixture(t, func(o *slack.Options) { o.SigningSecret = "another" })
	ts := f.post(t)
	cb, err := f.Click(t.Context(), alice, channel, ts, "approve")
	if !errors.Is(err, slack.ErrNotAcknowledged) || cb.Deliveries[0].Status != http.StatusUnauthorized {
		t.Errorf("callback = %+v, %v", cb, err)
	}
	f.SetInteractivityURL("")
	if _, err := f.Click(t.Context(), alice, channel, ts, "approve"); !errors.Is(err, slack.ErrNotAcknowledged) {
		t.Errorf("without an interactivity URL: %v", err)
	}
}

func TestCallbackFaults(t *testing.T) {
	f := newFixture(t)
	ts := f.post(t)
	for kind, tc := range map[slack.FaultKind]struct {
		acked, refused bool
		calls          int32
		claim          func(client.InteractionCallback) bool
	}{
		slack.FaultDropAck:       {false, false, 1, nil},
		slack.FaultTwice:         {true, false, 2, nil},
		slack.FaultLateTimestamp: {false, true, 0, nil},
		slack.FaultBadSignature:  {false, true, 0, nil},
		slack.FaultWrongApp:      {true, false, 1, func(ic client.InteractionCallback) bool { return ic.APIAppID == "A0ANOTHER00" }},
		slack.FaultWrongTeam: {true, false, 1, func(ic client.InteractionCallback) bool {
			return ic.Team.ID == "T0ANOTHER00" && ic.User.TeamID == "T0ANOTHER00"
		}},
		slack.FaultWrongChannel: {true, false, 1, func(ic client.InteractionCallback) bool {
			return ic.Channel.ID == "C0ANOTHER00" && ic.Container.ChannelID == "C0ANOTHER00"
		}},
		slack.FaultWrongTS: {true, false, 1, func(ic client.InteractionCallback) bool {
			return ic.Message.Timestamp != ts && ic.Container.MessageTs != ts
		}},
	} {
		t.Run(string(kind), func(t *testing.T) {
			f.refused = nil
			if err := f.AddFault(slack.Fault{Kind: kind, Method: "block_actions", Times: 1}); err != nil {
				t.Fatal(err)
			}
			var calls atomic.Int32
			f.answers(func(ic client.InteractionCallback) string {
				calls.Add(1)
				if tc.claim != nil && !tc.claim(ic) {
					t.Errorf("the payload still tells the truth: %+v", ic.Container)
				}
				return ""
			})
			cb, err := f.Click(t.Context(), alice, channel, ts, "approve")
			if cb.Acked != tc.acked || (err == nil) != tc.acked || calls.Load() != tc.calls || (len(f.refused) > 0) != tc.refused {
				t.Errorf("acked %v, %v, %d calls, refused %v", cb.Acked, err, calls.Load(), f.refused)
			}
			if len(f.Faults()) != 0 || len(f.Messages(channel)) == 0 || f.Messages(channel)[0].TS != ts {
				t.Error("the fault is still on, or it changed the message itself")
			}
		})
	}
}

func TestResponseURLWorksFiveTimesInHalfAnHour(t *testing.T) {
	f := newFixture(t)
	ts := f.post(t)
	var target string
	f.answers(func(ic client.InteractionCallback) string { target = ic.ResponseURL; return "" })
	use := func(o ...client.MsgOption) error {
		_, _, err := f.api.PostMessage(channel, append([]client.MsgOption{client.MsgOptionText("only you", false)}, o...)...)
		return err
	}
	click := func() {
		if _, err := f.Click(context.Background(), alice, channel, ts, "approve"); err != nil {
			t.Fatal(err)
		}
	}
	click()
	for i := range 5 {
		if err := use(client.MsgOptionResponseURL(target, client.ResponseTypeEphemeral)); err != nil {
			t.Fatalf("use %d: %v", i+1, err)
		}
	}
	gone := func(err error) bool {
		var e client.StatusCodeError
		return errors.As(err, &e) && e.Code == http.StatusNotFound
	}
	if err := use(client.MsgOptionResponseURL(target, client.ResponseTypeEphemeral)); !gone(err) {
		t.Errorf("the sixth use: %v", err)
	}
	if got := f.Ephemerals(alice); len(got) != 5 {
		t.Errorf("%d ephemerals", len(got))
	}
	click()
	if err := use(client.MsgOptionReplaceOriginal(target)); err != nil || f.Messages(channel)[0].Text != "only you" {
		t.Errorf("replace: %v", err)
	}
	if err := use(client.MsgOptionDeleteOriginal(target)); err != nil || len(f.Messages(channel)) != 0 {
		t.Errorf("delete: %v", err)
	}
	ts = f.post(t)
	click()
	f.advance(30 * time.Minute)
	if err := use(client.MsgOptionResponseURL(target, client.ResponseTypeInChannel)); err != nil || len(f.Messages(channel)) != 2 {
		t.Errorf("in channel, at half an hour: %v", err)
	}
	f.advance(time.Second)
	if err := use(client.MsgOptionResponseURL(target, client.ResponseTypeInChannel)); !gone(err) {
		t.Errorf("after half an hour: %v", err)
	}
}

func TestSelectInAMessageCarriesItsChoice(t *testing.T) {
	f := newFixture(t)
	menu := client.NewOptionsSelectBlockElement(client.OptTypeStatic, plain("Option"), "option",
		client.NewOptionBlockObject("a", plain("Narrow"), nil), client.NewOptionBlockObject("b", plain("Wide"), nil))
	_, ts, err := f.api.PostMessage(channel, client.MsgOptionBlocks(client.NewActionBlock("pick", menu)))
	if err != nil {
		t.Fatal(err)
	}
	var got client.InteractionCallback
	f.answers(func(ic client.InteractionCallback) string { got = ic; return "" })
	if _, err := f.Act(t.Context(), slack.Interaction{User: alice, Channel: channel, TS: ts, ActionID: "option", Choice: []string{"b"}}); err != nil {
		t.Fatal(err)
	}
	if a := got.ActionCallback.BlockActions[0]; a.SelectedOption.Value != "b" || got.BlockActionState.Values["pick"]["option"].SelectedOption.Value != "b" {
		t.Errorf("action = %+v", a)
	}
}

func TestWaitForSeesAModalThatOpensAfterTheAcknowledgement(t *testing.T) {
	f := newFixture(t)
	ts := f.post(t)
	acked := make(chan string, 1)
	f.answers(func(ic client.InteractionCallback) string { acked <- ic.TriggerID; return "" })
	go func() { _, _ = f.api.OpenView(<-acked, modal()) }()
	if _, err := f.Click(t.Context(), alice, channel, ts, "approve"); err != nil {
		t.Fatal(err)
	}
	isOpen := func() bool { _, ok := f.OpenView(alice); return ok }
	if err := f.WaitFor(t.Context(), "the modal is open", isOpen); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := f.WaitFor(ctx, "never", func() bool { return false }); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("waiting for nothing: %v", err)
	}
}

func TestPayloadIsOnlyInTheBody(t *testing.T) {
	f := newFixture(t)
	ts := f.post(t)
	cb, _ := f.Click(t.Context(), alice, channel, ts, "approve")
	form, err := url.ParseQuery(cb.Body)
	if err != nil || len(form) != 1 || form.Get("payload") == "" {
		t.Errorf("body holds %d fields, %v", len(form), err)
	}
}
