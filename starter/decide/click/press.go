package click

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"slices"

	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/card"
	"tourniquet.dev/tourniquet/internal/incident"
	"tourniquet.dev/tourniquet/internal/plan"
	"tourniquet.dev/tourniquet/internal/trust"
	"tourniquet.dev/tourniquet/starter/decide/relay"
	"tourniquet.dev/tourniquet/workflows"
)

// buttons say what each button of a card decides, and on which kind of token. Other opens with the first alternative.
var buttons = map[string]struct {
	kind     card.TokenKind
	decision authz.DecisionKind
	plan     int
}{
	card.ActionApprove: {card.OnOffer, authz.Approve, 0},
	card.ActionOther:   {card.OnOffer, authz.Approve, 1},
	card.ActionDeny:    {card.OnOffer, authz.Deny, 0},
	card.ActionRelease: {card.OnHold, authz.Release, 0},
	card.ActionRetire:  {card.OnHold, authz.Retire, 0},
	card.ActionExtend:  {card.OnHold, authz.Extend, 0},
}

// pressed opens the modal of a card's button, or shows another option in an open modal. It decides nothing.
func (d *Door) pressed(ctx context.Context, v *visit) error {
	if v.in.View != nil {
		return d.picked(ctx, v)
	}
	a := v.in.Actions[0]
	b, ok := buttons[a.ActionID]
	if !ok || a.Type != "button" {
		return refuse(CodeButton)
	}
	if err := d.open(v, a.Value, b.kind); err != nil {
		return err
	}
	if err := onItsMessage(v); err != nil {
		return err
	}
	if err := d.identify(ctx, v); err != nil {
		return err
	}
	offer := v.token.Plans[min(b.plan, len(v.token.Plans)-1)]
	if err := d.load(ctx, v, offer.Plan); err != nil {
		return err
	}
	if err := d.current(ctx, v, b.decision); err != nil {
		return err
	}
	modal, err := d.modal(v, b.decision, a.ActionID == card.ActionOther)
	if err != nil {
		return err
	}
	if err := d.o.Workspace.OpenView(ctx, v.in.TriggerID, modal); err != nil {
		return because(CodeSlack, err)
	}
	return nil
}

// picked shows the plan that the person picked among the options, in the modal that is open.
func (d *Door) picked(ctx context.Context, v *visit) error {
	a := v.in.Actions[0]
	if a.ActionID != card.InputOption || a.Selected == nil || v.in.View.CallbackID != card.Callback {
		return refuse(CodeButton)
	}
	if err := d.open(v, v.in.View.PrivateMetadata, card.InModal); err != nil {
		return err
	}
	if !v.token.Offers(a.Selected.Value) {
		return refuse(CodeButton)
	}
	if err := d.identify(ctx, v); err != nil {
		return err
	}
	if err := d.load(ctx, v, a.Selected.Value); err != nil {
		return err
	}
	modal, err := d.modal(v, v.token.Decision, true)
	if err != nil {
		return err
	}
	if err := d.o.Workspace.UpdateView(ctx, v.in.View.ID, v.in.View.Hash, modal); err != nil {
		return because(CodeSlack, err)
	}
	return nil
}

// open opens the sealed token. A modal's is good only for who opened the modal.
func (d *Door) open(v *visit, sealed string, kind card.TokenKind) error {
	t, err := card.Open(d.o.TokenKey, sealed, d.o.Now())
	switch {
	case errors.Is(err, card.ErrTokenExpired):
		v.token = t
		return refuse(CodeExpired)
	case err != nil:
		return because(CodeToken, err)
	case t.Kind != kind:
		return refuse(CodeToken)
	}
	v.token = t
	if kind == card.InModal && t.User != v.in.User.ID {
		return refuse(CodeOthers)
	}
	return nil
}

// onItsMessage checks that the button was pressed on the message that its token was made for.
func onItsMessage(v *visit) error {
	c := v.in.Container
	switch {
	case c == nil, c.Type != "message", c.Ephemeral, v.in.Channel == nil, v.in.Message == nil:
		return refuse(CodeStale)
	case !same(c.ChannelID, v.token.Channel), !same(v.in.Channel.ID, v.token.Channel):
		return refuse(CodeStale)
	case !same(c.MessageTS, v.token.TS), !same(v.in.Message.TS, v.token.TS):
		return refuse(CodeStale)
	}
	return nil
}

func same(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

// identify finds the person by the immutable user id, and has Slack confirm the account. No answer is a no.
func (d *Door) identify(ctx context.Context, v *visit) error {
	p, ok := d.o.Trust.PersonBySlack(v.in.User.ID)
	if !ok {
		return refuse(CodePerson)
	}
	v.person = p
	ctx, cancel := context.WithTimeout(ctx, askUser)
	defer cancel()
	u, err := d.o.Workspace.User(ctx, v.in.User.ID)
	if err != nil {
		return because(CodeUserUnknown, err)
	}
	if u.TeamID != d.o.TeamID || u.Deleted || u.Bot || u.Restricted || u.Foreign {
		return refuse(CodeUser)
	}
	return nil
}

// load reads the plan by its digest and checks that it is of the token's incident, and that its playbook asks the person.
func (d *Door) load(ctx context.Context, v *visit, digest string) error {
	data, err := d.o.Store.Get(ctx, digest)
	if err != nil {
		return because(CodePlan, err)
	}
	if !same(plan.DigestOf(data), digest) {
		return because(CodePlan, errors.New("the store's bytes have another digest"))
	}
	p, err := plan.Decode(data)
	if err != nil {
		return because(CodePlan, err)
	}
	if p.IncidentID != v.token.Incident {
		return refuse(Code(authz.CodeIncident))
	}
	i := slices.IndexFunc(d.o.Books, func(b authz.Book) bool { return b.Ref() == p.Playbook })
	if i < 0 {
		return refuse(Code(authz.CodePlaybook))
	}
	v.plan, v.book = p, d.o.Books[i]
	if !asked(v.book, v.person) {
		return refuse(CodeNotAsked)
	}
	return nil
}

func asked(b authz.Book, p trust.Person) bool {
	for _, t := range b.Playbook.Tiers {
		if p.In(t.Ask) {
			return true
		}
	}
	return false
}

// current asks the workflow whether this card and plan are still up for this decision. When nobody can say, the click
// goes on: the workflow and the enforcer judge it anyway.
func (d *Door) current(ctx context.Context, v *visit, kind authz.DecisionKind) error {
	ctx, cancel := context.WithTimeout(ctx, askState)
	defer cancel()
	s, err := d.o.Incidents.State(ctx, workflows.IncidentWorkflowID(v.plan.CorrelationKey))
	onOffer := kind == authz.Approve || kind == authz.Deny
	switch {
	case errors.Is(err, relay.ErrClosed) && onOffer:
		return refuse(CodeClosed)
	case err != nil:
		return nil
	case onOffer && (s.IncidentID != v.token.Incident || s.State == string(incident.Closed)):
		return refuse(CodeClosed)
	case s.IncidentID != v.token.Incident:
		return nil // a hold outlives its incident: the containment will say
	case s.Card != "" && s.Card != v.token.Channel+" "+v.token.TS:
		return refuse(CodeStale)
	}
	digest := v.token.Plan
	if digest == "" {
		if digest, err = v.plan.Digest(); err != nil {
			return because(CodePlan, err)
		}
	}
	if onOffer {
		if !slices.ContainsFunc(s.Options, func(o workflows.OptionView) bool { return o.Plan == digest }) {
			return refuse(CodeNotOffered)
		}
		return nil
	}
	if slices.ContainsFunc(s.Containments, func(c workflows.ContainmentChanged) bool { return c.Plan == digest && c.Done }) {
		return refuse(CodeNotHeld)
	}
	return nil
}

// modal renders the modal of a decision on the loaded plan. Its token is bound to what it shows and to who opened it.
func (d *Door) modal(v *visit, kind authz.DecisionKind, choose bool) (json.RawMessage, error) {
	digest, err := v.plan.Digest()
	if err != nil {
		return nil, because(CodePlan, err)
	}
	ask := card.Ask{Decision: kind, Plan: v.plan, Seal: func(shown string) (string, error) {
		t := v.token
		t.Kind, t.Decision, t.Plan, t.Shown, t.User = card.InModal, kind, digest, shown, v.in.User.ID
		return card.Seal(d.o.TokenKey, t, rand.Reader)
	}}
	if choose {
		ask.Others = v.token.Plans
	}
	view, _, err := card.Modal(ask)
	if err != nil {
		return nil, because(CodePlan, err)
	}
	return view, nil
}
