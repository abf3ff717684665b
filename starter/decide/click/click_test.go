package click_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/card"
	"tourniquet.dev/tourniquet/internal/plan"
	"tourniquet.dev/tourniquet/internal/trust"
	"tourniquet.dev/tourniquet/starter/decide/click"
	"tourniquet.dev/tourniquet/workflows"
)

func cleared(t *testing.T, answer object) {
	t.Helper()
	if answer["response_action"] != "clear" {
		t.Fatalf("the submission was not taken: %v", answer)
	}
}

// refusedWith checks that the modal says why, with the code.
func refusedWith(t *testing.T, answer object, code click.Code) {
	t.Helper()
	raw, _ := json.Marshal(answer)
	if answer["response_action"] != "errors" || !strings.Contains(string(raw), "("+string(code)+")") && !strings.Contains(string(raw), ": "+string(code)+".") {
		t.Fatalf("want a refusal with %s, got %s", code, raw)
	}
}

func TestClickBecomesASignedDecision(t *testing.T) {
	d := newDesk(t)
	d.temporal.before = func() {
		if len(d.entries("decision")) != 1 {
			t.Error("a decision was signalled that is not in the ledger")
		}
	}
	cleared(t, d.decide("U001", card.ActionApprove, d.token(card.OnOffer), because("exfiltration is under way")))
	got := d.decisions()
	_, shown, err := card.Shown(authz.Approve, d.full)
	if err != nil {
		t.Fatal(err)
	}
	want := []authz.Decision{{V: 1, Kind: authz.Approve, IncidentID: d.full.IncidentID, PlanDigest: d.fullD, Person: "ana", Assurance: trust.Click, Slack: "U001",
		Nonce: d.token(card.OnOffer).Nonce, IssuedAt: start, ExpiresAt: start.Add(time.Hour), Reason: "exfiltration is under way", ShownDigest: shown}}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(authz.Decision{}, "RawBodyDigest")); diff != "" {
		t.Error(diff)
	}
	if !plan.ValidDigest(got[0].RawBodyDigest) {
		t.Errorf("raw body digest is %q", got[0].RawBodyDigest)
	}
	if s := d.temporal.signals(); len(s) != 1 || !strings.HasPrefix(s[0], workflows.IncidentWorkflowID(d.full.CorrelationKey)+" ") {
		t.Errorf("signals: %v", s)
	}
	if d.count("opened") != 1 || d.count("decided") != 1 || len(d.entries("decision-settled")) != 1 {
		t.Errorf("counts %v", d.counts)
	}
	for _, secret := range []string{"exfiltration", "payload", "t1.", "private_metadata"} {
		if strings.Contains(d.log.String(), secret) {
			t.Errorf("the log holds %q of the body:\n%s", secret, d.log.String())
		}
	}
}

func TestEachButtonDecidesItsKind(t *testing.T) {
	extend := because("not rotated yet")
	extend[card.InputExtend] = object{card.InputExtend: object{"type": "static_select", "selected_option": object{"value": "14400"}}}
	for name, tc := range map[string]struct {
		action string
		kind   card.TokenKind
		values object
		want   authz.Decision
	}{
		"approve": {card.ActionApprove, card.OnOffer, because("yes"), authz.Decision{Kind: authz.Approve}},
		"deny":    {card.ActionDeny, card.OnOffer, because("a test"), authz.Decision{Kind: authz.Deny}},
		"release": {card.ActionRelease, card.OnHold, because("all clear"), authz.Decision{Kind: authz.Release}},
		"retire":  {card.ActionRetire, card.OnHold, because("key rotated"), authz.Decision{Kind: authz.Retire}},
		"extend":  {card.ActionExtend, card.OnHold, extend, authz.Decision{Kind: authz.Extend, ExtendSeconds: 14400}},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t)
			cleared(t, d.decide("U001", tc.action, d.token(tc.kind), tc.values))
			got := d.decisions()
			if len(got) != 1 || got[0].Kind != tc.want.Kind || got[0].ExtendSeconds != tc.want.ExtendSeconds || got[0].PlanDigest != d.fullD {
				t.Fatalf("got %+v", got)
			}
			want := []string{workflows.IncidentWorkflowID(d.full.CorrelationKey)}
			if tc.kind == card.OnHold {
				want = append(want, workflows.ContainmentWorkflowID(d.full.IncidentID, d.fullD))
			}
			var to []string
			for _, s := range d.temporal.signals() {
				id, _, _ := strings.Cut(s, " ")
				to = append(to, id)
			}
			if diff := cmp.Diff(want, to); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAnotherOptionIsShownBeforeItIsApproved(t *testing.T) {
	d := newDesk(t)
	view := d.press("U001", card.ActionOther, d.token(card.OnOffer))
	raw, _ := json.Marshal(view)
	if !strings.Contains(string(raw), d.lessD) || !strings.Contains(string(raw), `"initial_option"`) {
		t.Fatalf("the modal does not show the alternative: %s", raw)
	}
	pick := envelope("block_actions", "U001")
	pick["container"] = object{"type": "view", "view_id": "V1"}
	pick["view"] = submitted("U001", view, object{})["view"]
	pick["actions"] = []any{object{"type": "radio_buttons", "action_id": card.InputOption, "block_id": card.InputOption, "selected_option": object{"value": d.fullD}}}
	d.send(d.sign(pick))
	views := d.views()
	if len(views) != 2 {
		t.Fatalf("the modal was not replaced: counts %v", d.counts)
	}
	values := because("all of it")
	values[card.InputOption] = object{card.InputOption: object{"type": "radio_buttons", "selected_option": object{"value": d.fullD}}}
	_, answer := d.send(d.sign(submitted("U001", view, values))) // the old view: it shows less, the choice says everything
	refusedWith(t, answer, click.CodeShown)
	_, answer = d.send(d.sign(submitted("U001", views[1], values)))
	cleared(t, answer)
	if got := d.decisions(); len(got) != 1 || got[0].PlanDigest != d.fullD {
		t.Errorf("got %+v", got)
	}
}

func TestTwoClicksAreOneDecision(t *testing.T) {
	d := newDesk(t)
	view := d.press("U001", card.ActionApprove, d.token(card.OnOffer))
	var requests []*request
	for range 8 {
		requests = append(requests, d.sign(submitted("U001", view, because("now"))))
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	taken := 0
	for _, r := range requests {
		all.Go(func() {
			if _, answer := d.send(r); answer["response_action"] == "clear" {
				mu.Lock()
				taken++
				mu.Unlock()
			}
		})
	}
	all.Wait()
	if taken != 1 || len(d.decisions()) != 1 || len(d.temporal.signals()) != 1 || d.count(string(click.CodeAlready)) != 7 {
		t.Errorf("%d taken, %d decisions, %d signals, counts %v", taken, len(d.decisions()), len(d.temporal.signals()), d.counts)
	}
	d.restart()
	_, answer := d.send(d.sign(submitted("U001", view, because("again"))))
	refusedWith(t, answer, click.CodeAlready)
}

// Temporal is down when the click comes; the process dies; the decision is neither lost nor doubled (I23).
func TestDecisionOutlivesACrashBeforeItsSignal(t *testing.T) {
	d := newDesk(t)
	d.temporal.mu.Lock()
	d.temporal.err, d.temporal.stateE = errDown, errDown
	d.temporal.mu.Unlock()
	cleared(t, d.decide("U001", card.ActionApprove, d.token(card.OnOffer), because("stop it")))
	if len(d.decisions()) != 1 || len(d.temporal.signals()) != 0 || d.door.Waiting() != 1 {
		t.Fatalf("%d decisions, %v", len(d.decisions()), d.temporal.signals())
	}
	if told := d.told(); len(told) != 1 || !strings.Contains(told[0], "signed and recorded") {
		t.Errorf("told %q", told)
	}
	d.close()
	d.temporal.mu.Lock()
	signalled := make(chan struct{}, 9)
	d.temporal.err, d.temporal.before = nil, func() { signalled <- struct{}{} }
	d.temporal.mu.Unlock()
	d.open()
	<-signalled
	d.restart() // waits for what follows the signal
	if d.door.Waiting() != 0 || len(d.temporal.signals()) != 1 {
		t.Errorf("signals: %v", d.temporal.signals())
	}
}

func TestRequestsAreTakenOnce(t *testing.T) {
	d := newDesk(t)
	r := d.sign(pressed("U001", card.ActionApprove, d.seal(d.token(card.OnOffer))))
	if status, _ := d.send(r); status != 200 || len(d.views()) != 1 {
		t.Fatalf("status %d", status)
	}
	again := func(when string) {
		t.Helper()
		if status, _ := d.send(r); status != 409 || len(d.views()) != 1 {
			t.Errorf("%s: status %d, %d modals", when, status, len(d.views()))
		}
	}
	again("at once")
	d.restart()
	again("after a restart")
	d.now = d.now.Add(5 * time.Minute)
	again("at the end of the window")
	d.now = d.now.Add(6*time.Minute + time.Second)
	if status, _ := d.send(r); status != 401 {
		t.Errorf("after the window: status %d", status)
	}
}

func TestOneVoiceOfAQuorumIsRecorded(t *testing.T) {
	d := newDesk(t)
	cleared(t, d.decide("U002", card.ActionApprove, d.token(card.OnOffer), because("I agree")))
	cleared(t, d.decide("U003", card.ActionApprove, d.token(card.OnOffer), because("so do I")))
	var who []string
	for _, dec := range d.decisions() {
		who = append(who, dec.Person)
	}
	if diff := cmp.Diff([]string{"ben", "cleo"}, who); diff != "" {
		t.Error(diff)
	}
}

func TestADenyWins(t *testing.T) {
	d := newDesk(t)
	cleared(t, d.decide("U002", card.ActionDeny, d.token(card.OnOffer), because("it is a drill")))
	refusedWith(t, d.decide("U001", card.ActionApprove, d.token(card.OnOffer), because("no matter")), click.Code(authz.CodeDenied))
	refusedWith(t, d.decide("U001", card.ActionOther, d.token(card.OnOffer), because("the other one then")), click.Code(authz.CodeDenied))
	if got := d.decisions(); len(got) != 1 || got[0].Kind != authz.Deny {
		t.Errorf("got %+v", got)
	}
}

func TestTheSamePersonMayDenyAfterApproving(t *testing.T) {
	d := newDesk(t)
	cleared(t, d.decide("U001", card.ActionApprove, d.token(card.OnOffer), because("do it")))
	cleared(t, d.decide("U001", card.ActionDeny, d.token(card.OnOffer), because("stop, wrong pod")))
	if got := d.decisions(); len(got) != 2 {
		t.Errorf("got %+v", got)
	}
}

func TestAReasonIsCleanedBeforeItIsSigned(t *testing.T) {
	d := newDesk(t)
	cleared(t, d.decide("U001", card.ActionApprove, d.token(card.OnOffer), because("see \u202etxt password=hunter2hunter2")))
	got := d.decisions()
	if len(got) != 1 || strings.Contains(got[0].Reason, "hunter2") || strings.Contains(got[0].Reason, "\u202e") {
		t.Errorf("signed reason: %q", got[0].Reason)
	}
}

func TestTheLedgerIsNeededToDecide(t *testing.T) {
	d := newDesk(t)
	view := d.press("U001", card.ActionApprove, d.token(card.OnOffer))
	if err := d.journal.Close(); err != nil {
		t.Fatal(err)
	}
	status, _ := d.send(d.sign(submitted("U001", view, because("go on"))))
	if status != 503 || len(d.temporal.signals()) != 0 || d.count(string(click.CodeLedger)) != 1 {
		t.Errorf("status %d, signals %v, counts %v", status, d.temporal.signals(), d.counts)
	}
	d.stop()
	d.stop = nil
}

func TestEveryCodeIsStable(t *testing.T) {
	var codes []string
	for _, c := range []click.Code{click.CodeBody, click.CodeForm, click.CodeSignature, click.CodeTime, click.CodeReplayed, click.CodePayload, click.CodeApp, click.CodeTeam,
		click.CodeInteraction, click.CodeButton, click.CodeToken, click.CodeExpired, click.CodeStale, click.CodePerson, click.CodeUser, click.CodeUserUnknown,
		click.CodeNotAsked, click.CodeOthers, click.CodePlan, click.CodeShown, click.CodeReason, click.CodeExtension, click.CodeClosed, click.CodeNotOffered,
		click.CodeNotHeld, click.CodeAlready, click.CodeLedger, click.CodeSlack} {
		codes = append(codes, string(c))
	}
	slices.Sort(codes)
	want := "already-decided bad-extension bad-form bad-payload bad-signature bad-timestamp bad-token body-too-large card-expired card-stale incident-closed " +
		"ledger-unavailable not-an-approver not-your-modal plan-not-held plan-not-offered plan-not-readable reason-missing replayed shown-plan-changed slack-unavailable " +
		"unknown-button unknown-interaction unknown-person user-not-allowed user-not-checked wrong-app wrong-team"
	if got := fmt.Sprint(strings.Join(codes, " ")); got != want {
		t.Errorf("codes changed:\n got %s\nwant %s", got, want)
	}
}
