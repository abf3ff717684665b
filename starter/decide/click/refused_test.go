package click_test

import (
	"strings"
	"testing"

	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/card"
	"tourniquet.dev/tourniquet/starter/decide/click"
	"tourniquet.dev/tourniquet/starter/decide/relay"
	"tourniquet.dev/tourniquet/workflows"
)

func TestDecisionsForWhatIsOverAreRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*temporal)
		action string
		kind   card.TokenKind
		want   click.Code
	}{
		"no such workflow":        {func(t *temporal) { t.stateE = relay.ErrClosed }, card.ActionApprove, card.OnOffer, click.CodeClosed},
		"the incident is closed":  {func(t *temporal) { t.state.State = "closed" }, card.ActionApprove, card.OnOffer, click.CodeClosed},
		"another incident now":    {func(t *temporal) { t.state.IncidentID = "iaaaaaaaaaaaa" }, card.ActionDeny, card.OnOffer, click.CodeClosed},
		"a newer card stands":     {func(t *temporal) { t.state.Card = channel + " 1790000000.000001" }, card.ActionApprove, card.OnOffer, click.CodeStale},
		"the offer is gone":       {func(t *temporal) { t.state.Options = nil }, card.ActionDeny, card.OnOffer, click.CodeNotOffered},
		"the containment is over": {nil, card.ActionRelease, card.OnHold, click.CodeNotHeld},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t)
			view := d.press("U001", tc.action, d.token(tc.kind)) // while it was still up
			if tc.change == nil {
				tc.change = func(t *temporal) { t.state.Containments = []workflows.ContainmentChanged{{Plan: d.fullD, Done: true}} }
			}
			tc.change(d.temporal)
			_, answer := d.send(d.sign(submitted("U001", view, because("late"))))
			refusedWith(t, answer, tc.want)
			if d.press("U001", tc.action, d.token(tc.kind)) != nil {
				t.Error("a modal opened")
			}
			if told := d.told(); len(told) != 1 || !strings.HasPrefix(told[0], "U001 ") || !strings.Contains(told[0], string(tc.want)) {
				t.Errorf("told %q", told)
			}
			if len(d.decisions()) != 0 || len(d.temporal.signals()) != 0 || len(d.entries("decision-refused")) != 2 {
				t.Errorf("%d decisions, %d refusals", len(d.decisions()), len(d.entries("decision-refused")))
			}
		})
	}
	t.Run("the signal finds nobody", func(t *testing.T) {
		d := newDesk(t)
		d.temporal.err, d.temporal.stateE = relay.ErrClosed, errDown
		refusedWith(t, d.decide("U001", card.ActionApprove, d.token(card.OnOffer), because("late")), click.CodeClosed)
	})
}

func TestOnlyMembersInGoodStandingDecide(t *testing.T) {
	for name, tc := range map[string]struct {
		user   string
		change func(*desk)
		want   click.Code
	}{
		"a deleted account":        {"U001", set("deleted", true), click.CodeUser},
		"a bot":                    {"U001", set("is_bot", true), click.CodeUser},
		"a guest":                  {"U001", set("is_restricted", true), click.CodeUser},
		"a single-channel guest":   {"U001", set("is_ultra_restricted", true), click.CodeUser},
		"a member of another team": {"U001", set("team_id", "T0OTHER"), click.CodeUser},
		"a stranger":               {"U001", set("is_stranger", true), click.CodeUser},
		"another account's answer": {"U001", set("id", "U002"), click.CodeUserUnknown},
		"Slack does not answer":    {"U001", func(d *desk) { d.slack.failUsers = true }, click.CodeUserUnknown},
		"nobody of the trust file": {"U0STRANGER", func(*desk) {}, click.CodePerson},
		"whom the playbook never asks": {"U001", func(d *desk) {
			d.world.TrustFile.People[0].Groups = []string{"sales"}
		}, click.CodeNotAsked},
		"with an empty list of groups": {"U001", func(d *desk) { d.world.TrustFile.People[0].Groups = nil }, click.CodeNotAsked},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t)
			var view object
			if tc.user != "U0STRANGER" {
				view = d.press(tc.user, card.ActionApprove, d.token(card.OnOffer))
			} else {
				_, shown, _ := card.Shown(authz.Approve, d.full)
				tk := d.token(card.InModal)
				tk.Decision, tk.Plan, tk.Shown, tk.User = authz.Approve, d.fullD, shown, tc.user
				view = object{"callback_id": card.Callback, "private_metadata": d.seal(tk)}
			}
			tc.change(d)
			for _, action := range []string{card.ActionApprove, card.ActionOther, card.ActionDeny} {
				if d.press(tc.user, action, d.token(card.OnOffer)) != nil {
					t.Errorf("%s opened a modal", action)
				}
			}
			_, answer := d.send(d.sign(submitted(tc.user, view, because("let me"))))
			refusedWith(t, answer, tc.want)
			if d.count(string(tc.want)) != 4 || len(d.decisions()) != 0 || len(d.temporal.signals()) != 0 {
				t.Errorf("counts %v, %d decisions", d.counts, len(d.decisions()))
			}
		})
	}
}

func set(field string, value any) func(*desk) {
	return func(d *desk) { d.slack.users["U001"][field] = value }
}

func TestTheJudgeIsAskedBeforeAnythingIsRecorded(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*desk)
		want   click.Code
	}{
		"a click is not enough":          {func(d *desk) { d.world.TrustFile.Ceilings.Click = nil }, click.Code(authz.CodeAssurance)},
		"a protected namespace":          {func(d *desk) { d.world.TrustFile.Protected.Namespaces = []string{"shop"} }, click.Code(authz.CodeProtected)},
		"an account out of scope":        {func(d *desk) { d.world.TrustFile.Scope.Clusters = nil }, click.Code(authz.CodeScope)},
		"a detection of an unknown node": {func(d *desk) { d.world.TrustFile.Keys = d.world.TrustFile.Keys[1:] }, click.Code(authz.CodeDetection)},
		"the detection is not there":     {func(d *desk) { delete(d.store, d.world.Digest) }, click.CodePlan},
		"the plan is not there":          {func(d *desk) { delete(d.store, d.fullD) }, click.CodePlan},
		"the store's bytes are others":   {func(d *desk) { d.store[d.fullD] = d.store[d.lessD] }, click.CodePlan},
		"the store's bytes are no plan":  {func(d *desk) { d.store[d.fullD] = []byte("{}") }, click.CodePlan},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t)
			view := d.press("U001", card.ActionApprove, d.token(card.OnOffer))
			tc.change(d)
			_, answer := d.send(d.sign(submitted("U001", view, because("go on"))))
			refusedWith(t, answer, tc.want)
			if len(d.decisions()) != 0 || len(d.temporal.signals()) != 0 || d.count(string(tc.want)) != 1 {
				t.Errorf("counts %v", d.counts)
			}
		})
	}
}

func TestSubmissionsThatAreRefused(t *testing.T) {
	modalToken := func(d *desk, change func(*card.Token)) object {
		_, shown, err := card.Shown(authz.Approve, d.full)
		if err != nil {
			t.Fatal(err)
		}
		tk := d.token(card.InModal)
		tk.Decision, tk.Plan, tk.Shown, tk.User = authz.Approve, d.fullD, shown, "U001"
		change(&tk)
		return object{"callback_id": card.Callback, "private_metadata": d.seal(tk)}
	}
	for name, tc := range map[string]struct {
		user   string
		view   func(*desk) object
		values object
		want   click.Code
	}{
		"without a reason":         {"U001", func(d *desk) object { return modalToken(d, func(*card.Token) {}) }, object{}, click.CodeReason},
		"with blanks as reason":    {"U001", func(d *desk) object { return modalToken(d, func(*card.Token) {}) }, because("  \n "), click.CodeReason},
		"with a long reason":       {"U001", func(d *desk) object { return modalToken(d, func(*card.Token) {}) }, because(strings.Repeat("x", 501)), click.CodeReason},
		"of somebody else's modal": {"U002", func(d *desk) object { return modalToken(d, func(*card.Token) {}) }, because("mine now"), click.CodeOthers},
		"of an expired modal":      {"U001", func(d *desk) object { return modalToken(d, func(t *card.Token) { t.Expiry = start }) }, because("late"), click.CodeExpired},
		"that was shown another plan": {"U001", func(d *desk) object {
			return modalToken(d, func(t *card.Token) { t.Plan = d.lessD })
		}, because("trust me"), click.CodeShown},
		"that was shown another decision": {"U001", func(d *desk) object {
			return modalToken(d, func(t *card.Token) { t.Decision = authz.Deny })
		}, because("trust me"), click.CodeShown},
		"for another incident": {"U001", func(d *desk) object {
			return modalToken(d, func(t *card.Token) { t.Incident = "iaaaaaaaaaaaa" })
		}, because("go on"), click.Code(authz.CodeIncident)},
		"with a card's token": {"U001", func(d *desk) object {
			return object{"callback_id": card.Callback, "private_metadata": d.seal(d.token(card.OnOffer))}
		}, because("go on"), click.CodeToken},
		"with another view's callback": {"U001", func(d *desk) object {
			v := modalToken(d, func(*card.Token) {})
			v["callback_id"] = "other"
			return v
		}, because("go on"), click.CodeInteraction},
		"with no token": {"U001", func(*desk) object { return object{"callback_id": card.Callback, "private_metadata": ""} }, because("go on"), click.CodeToken},
		"with an extension of our own making": {"U001", func(d *desk) object {
			_, shown, _ := card.Shown(authz.Extend, d.full)
			return modalToken(d, func(t *card.Token) { t.Decision, t.Shown = authz.Extend, shown })
		}, object{card.InputReason: because("x y z")[card.InputReason],
			card.InputExtend: object{card.InputExtend: object{"selected_option": object{"value": "99999999"}}}}, click.CodeExtension},
		"with no extension": {"U001", func(d *desk) object {
			_, shown, _ := card.Shown(authz.Extend, d.full)
			return modalToken(d, func(t *card.Token) { t.Decision, t.Shown = authz.Extend, shown })
		}, because("longer"), click.CodeExtension},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t)
			_, answer := d.send(d.sign(submitted(tc.user, tc.view(d), tc.values)))
			refusedWith(t, answer, tc.want)
			if len(d.decisions()) != 0 || len(d.temporal.signals()) != 0 || d.count(string(tc.want)) != 1 || len(d.entries("decision-refused")) != 1 {
				t.Errorf("counts %v", d.counts)
			}
		})
	}
}
