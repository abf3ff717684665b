package activities

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"

	"tourniquet.dev/tourniquet/internal/blast"
	"tourniquet.dev/tourniquet/internal/card"
	"tourniquet.dev/tourniquet/internal/risk"
)

// Place is where a message stands.
type Place struct {
	Channel string
	TS      string
}

// A Messenger shows cards and messages to people. A message bears a name, by which it is found again when it is unknown
// whether it was posted: searching says so. Errors are ErrRefused, ErrConflict (the message is gone), or anything else
// for "try again". It is safe for concurrent use.
type Messenger interface {
	// PostCard posts the card with this name. With search set an earlier one with the name is taken instead.
	PostCard(ctx context.Context, channel, name string, m card.Message, search bool) (Place, error)
	// UpdateCard replaces what the card shows.
	UpdateCard(ctx context.Context, at Place, name string, m card.Message) error
	// PostThread posts below a card; without a TS, into the channel.
	PostThread(ctx context.Context, below Place, name string, m card.Message, search bool) (Place, error)
}

// NotificationOptions are what the notify role needs. It decides nothing.
type NotificationOptions struct {
	Messenger Messenger
	Store     Lookup
	// Channel takes cards and pages that name no other.
	Channel string
	// Mentions are the Slack ids (S… or U…) of the groups that playbooks ask.
	Mentions map[string]string
	// TokenKey seals the buttons' tokens, for TokenLife; decide has the same key.
	TokenKey  []byte
	TokenLife time.Duration
	Now       func() time.Time
	Log       *slog.Logger
}

// Notification shows people the state of an incident and calls them. Slack is a projection: nothing here decides.
type Notification struct{ o NotificationOptions }

// NewNotification returns the notify role's activities.
func NewNotification(o NotificationOptions) *Notification { return &Notification{o} }

// PostCard posts the incident's card. The buttons' tokens are bound to the message they stand on, so the card is posted
// without buttons first and gets them at once by an update. Called again after an unknown outcome it finds its own card.
func (n *Notification) PostCard(ctx context.Context, in CardInput) (CardOutput, error) {
	view := n.view(ctx, in)
	at := Place{Channel: n.channel(in.Channel), TS: in.TS}
	if at.TS == "" {
		bare, err := card.Render(view)
		if err != nil {
			return CardOutput{}, asTemporal(fmt.Errorf("%w: %w", err, ErrRefused))
		}
		if at, err = n.o.Messenger.PostCard(ctx, at.Channel, in.IncidentID, bare, repeated(ctx)); err != nil {
			return CardOutput{}, asTemporal(fmt.Errorf("post card of %s: %w", in.IncidentID, err))
		}
		if len(in.Options) == 0 && len(in.Held) == 0 {
			return CardOutput{Channel: at.Channel, TS: at.TS}, nil
		}
	}
	if err := n.update(ctx, at, in, view); err != nil {
		return CardOutput{}, asTemporal(fmt.Errorf("update card of %s: %w", in.IncidentID, err))
	}
	return CardOutput{Channel: at.Channel, TS: at.TS}, nil
}

// UpdateCard makes the card show the state as it is now. A card that somebody deleted is posted anew.
func (n *Notification) UpdateCard(ctx context.Context, in CardInput) (CardOutput, error) {
	out, err := n.PostCard(ctx, in)
	if in.TS == "" || !isConflict(err) {
		return out, err
	}
	n.o.Log.Warn("card is gone, posting another", "incident_id", in.IncidentID)
	in.TS = ""
	return n.PostCard(ctx, in)
}

// Page calls people: in the thread of the incident's card, or in the channel where there is none.
func (n *Notification) Page(ctx context.Context, in PageInput) (PageOutput, error) {
	words, ok := pageWords[in.Reason]
	if !ok {
		return PageOutput{}, asTemporal(fmt.Errorf("page: reason %.20q: %w", in.Reason, ErrRefused))
	}
	m, err := card.Page(words, in.Text, in.Ask, n.o.Mentions[in.Ask], in.Deadline)
	if err != nil {
		return PageOutput{}, asTemporal(fmt.Errorf("page: %w: %w", err, ErrRefused))
	}
	sum := sha256.Sum256([]byte(in.Once))
	name := fmt.Sprintf("%s/%s/%s", in.IncidentID, in.Reason, hex.EncodeToString(sum[:8]))
	at, err := n.o.Messenger.PostThread(ctx, Place{Channel: n.channel(in.Channel), TS: in.TS}, name, m, repeated(ctx))
	if err != nil {
		return PageOutput{}, asTemporal(fmt.Errorf("page for %s: %w", in.IncidentID, err))
	}
	return PageOutput{Channel: at.Channel, TS: at.TS}, nil
}

var pageWords = map[PageReason]string{
	PageAsked:     "A decision is needed",
	PageReminder:  "A decision is still needed",
	PageEscalated: "Escalated: a decision is needed",
	PageLapsed:    "Nobody decided: the fallback goes on",
	PageFailed:    "A step needs a person",
	PageBroken:    "A hold was broken",
	PageReview:    "A hold is due for review: release or extend it",
}

func (n *Notification) update(ctx context.Context, at Place, in CardInput, view card.View) error {
	if err := n.seal(&view, in, at); err != nil {
		return fmt.Errorf("%w: %w", err, ErrRefused)
	}
	m, err := card.Render(view)
	if err != nil {
		return fmt.Errorf("%w: %w", err, ErrRefused)
	}
	return n.o.Messenger.UpdateCard(ctx, at, in.IncidentID, m)
}

// seal packs the tokens of the card's buttons. The same offer on the same card has the same nonce, however often the
// card is brought up to date, so that two clicks stay one decision. A hold's is new each time: it may be extended again.
func (n *Notification) seal(v *card.View, in CardInput, at Place) error {
	t := card.Token{Kind: card.OnOffer, Incident: in.IncidentID, Channel: at.Channel, TS: at.TS, Expiry: n.o.Now().UTC().Add(n.o.TokenLife).Truncate(time.Millisecond)}
	mac := hmac.New(sha256.New, n.o.TokenKey)
	fmt.Fprintf(mac, "tourniquet offer v1\x00%s\x00%s\x00%s", in.IncidentID, at.Channel, at.TS)
	for _, o := range v.Options {
		t.Plans = append(t.Plans, card.Offer{Option: o.Name, Plan: o.Plan})
		fmt.Fprintf(mac, "\x00%s", o.Plan)
	}
	if len(t.Plans) > 0 {
		t.Nonce = hex.EncodeToString(mac.Sum(nil)[:16])
		sealed, err := card.Seal(n.o.TokenKey, t, rand.Reader)
		if err != nil {
			return err
		}
		v.DecideToken = sealed
	}
	for _, h := range in.Held {
		var nonce [16]byte
		if _, err := rand.Read(nonce[:]); err != nil {
			return fmt.Errorf("nonce: %w", err)
		}
		t.Kind, t.Plans, t.Nonce = card.OnHold, []card.Offer{{Option: h.Purpose, Plan: h.Plan}}, hex.EncodeToString(nonce[:])
		sealed, err := card.Seal(n.o.TokenKey, t, rand.Reader)
		if err != nil {
			return err
		}
		v.Holds = append(v.Holds, card.Hold{Purpose: h.Purpose, Plan: h.Plan, Token: sealed})
	}
	return nil
}

// view collects what the card shows, with the recommended option first. What cannot be read is a stated gap.
func (n *Notification) view(ctx context.Context, in CardInput) card.View {
	v := card.View{IncidentID: in.IncidentID, State: in.State, Severity: in.Severity, Playbook: in.Playbook, Subject: in.Subject,
		Identities: in.Identities, Gaps: slices.Clone(in.Gaps)}
	for _, d := range in.Detections {
		v.Detections = append(v.Detections, card.Detection(d))
	}
	for _, s := range in.Steps {
		v.Steps = append(v.Steps, card.Step(s))
	}
	for _, d := range in.Decisions {
		v.Decisions = append(v.Decisions, card.Decision(d))
	}
	if t := in.Tier; t != nil {
		v.Tier = &card.Tier{Ask: t.Ask, Quorum: t.Quorum, Deadline: t.Deadline}
	}
	for _, o := range in.Options[:min(len(in.Options), card.MaxOptions)] {
		v.Options = append(v.Options, card.Option{Name: o.Option, Plan: o.Plan, Recommended: o.Recommended, After: card.Reach{Score: o.Residual}})
	}
	slices.SortStableFunc(v.Options, func(a, b card.Option) int { return rank(a) - rank(b) })
	if in.Assessment != "" {
		n.assess(ctx, in, &v)
	}
	return v
}

func rank(o card.Option) int {
	if o.Recommended {
		return 0
	}
	return 1
}

// assess adds the stored assessment's figures. A card without them is better than none.
func (n *Notification) assess(ctx context.Context, in CardInput, v *card.View) {
	rec, err := LoadAssessment(ctx, n.o.Store, in.Assessment)
	if err != nil {
		n.o.Log.Warn("card shows no figures", "incident_id", in.IncidentID, "err", err)
		v.Gaps = append(v.Gaps, "the assessment could not be read")
		return
	}
	before, waiting := reachOf(rec.Before), exposureOf(rec.Waiting)
	v.Before, v.Waiting = &before, &waiting
	for i := range v.Options {
		for _, o := range rec.Options {
			if o.Draft.Option == v.Options[i].Name {
				v.Options[i].After, v.Options[i].Exposure = reachOf(o.Residual), exposureOf(o.Exposure)
			}
		}
	}
}

func reachOf(r blast.Radius) card.Reach {
	out := card.Reach{Score: r.Score, Lower: r.Lower, Upper: r.Upper, Admin: r.Admin}
	if len(r.Assets) > 0 {
		out.Witness = r.Assets[0].Path
	}
	return out
}

func exposureOf(e risk.Exposure) card.Exposure {
	return card.Exposure{Currency: e.Currency, P50: e.P50, P90: e.P90, Mean: e.Mean, WaitingPerMinute: e.WaitingPerMinute, Defaults: e.Defaults}
}

func (n *Notification) channel(named string) string {
	if named != "" {
		return named
	}
	return n.o.Channel
}

// repeated reports whether this activity was tried before: then it is unknown whether a message was posted.
func repeated(ctx context.Context) bool {
	return activity.IsActivity(ctx) && activity.GetInfo(ctx).Attempt > 1
}

func isConflict(err error) bool {
	var app *temporal.ApplicationError
	return errors.As(err, &app) && app.Type() == TypeConflict
}
