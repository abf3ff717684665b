// Package click turns a person's click in Slack into a signed decision, or refuses it with a stable code. Every check
// fails closed: the request's signature, its age and that it is new; app, team and person; the token behind the button
// and the message it stands on; the plan by its digest; the trust file's and the playbook's word, by the one judge. A
// decision is in the ledger before anyone is told of it. The package applies nothing: enforcers judge again. Called by
// starter/decide.
package click

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/card"
	"tourniquet.dev/tourniquet/internal/plan"
	"tourniquet.dev/tourniquet/internal/sys/fault"
	"tourniquet.dev/tourniquet/internal/trust"
	"tourniquet.dev/tourniquet/starter/decide/relay"
	"tourniquet.dev/tourniquet/workflows"
)

// User is what Slack says of an account.
type User struct {
	TeamID                            string
	Deleted, Bot, Restricted, Foreign bool
}

// A Workspace is the part of Slack that decide uses. It is safe for concurrent use.
type Workspace interface {
	OpenView(ctx context.Context, trigger string, view json.RawMessage) error
	UpdateView(ctx context.Context, viewID, hash string, view json.RawMessage) error
	User(ctx context.Context, id string) (User, error)
	// Tell shows a text to one user only.
	Tell(ctx context.Context, channel, user, text string) error
}

// Incidents answers where an incident stands: relay.ErrClosed when its workflow is unknown, any other error when nobody
// can say now. What it says is a courtesy to the person; it grants nothing.
type Incidents interface {
	State(ctx context.Context, workflowID string) (workflows.StateView, error)
}

// Plans is the read side of the store.
type Plans interface {
	Get(ctx context.Context, digest string) ([]byte, error)
}

// Options are what a Door needs.
type Options struct {
	SigningSecret               []byte
	AppID, TeamID, EnterpriseID string // EnterpriseID may be empty
	// TokenKey opens the buttons' tokens; notify has the same key.
	TokenKey  []byte
	Trust     *trust.File
	Books     []authz.Book
	Signer    *authz.Signer
	Store     Plans
	Workspace Workspace
	Incidents Incidents
	Sender    relay.Sender
	Journal   Journal
	// DecisionLife is how long a decision holds until the enforcer has to act on it.
	DecisionLife time.Duration
	Now          func() time.Time
	// Count counts what became of a request: "opened", "decided", or a code.
	Count func(outcome string)
	Log   *slog.Logger
}

// The time that the parts of an answer may take: Slack wants it within three seconds.
const (
	answerWithin = 2500 * time.Millisecond
	askUser      = 1200 * time.Millisecond
	askState     = 500 * time.Millisecond
	awaitSignal  = 700 * time.Millisecond
	tellWithin   = 5 * time.Second
)

// A Door takes Slack's interactions. It is safe for concurrent use.
type Door struct {
	o      Options
	memory *memory
	relay  *relay.Relay
}

// New reads the ledger back and returns a door. What the ledger has unsettled is signalled once Run runs.
func New(o Options) (*Door, error) {
	if len(o.SigningSecret) == 0 || o.AppID == "" || o.TeamID == "" {
		return nil, errors.New("signing secret, app id and team id are needed")
	}
	m, unsettled, err := remember(o.Journal, o.Now)
	if err != nil {
		return nil, fmt.Errorf("read ledger: %w", err)
	}
	d := &Door{o: o, memory: m}
	d.relay = relay.New(relay.Options{Sender: o.Sender, Settled: m.settle, Timeout: 2 * time.Second, Pause: time.Second, Log: o.Log}, unsettled)
	return d, nil
}

// Run brings decisions to their workflows until ctx ends.
func (d *Door) Run(ctx context.Context) error { return d.relay.Run(ctx) }

// Waiting is how many recorded decisions Temporal has not taken yet.
func (d *Door) Waiting() int { return d.relay.Waiting() }

// visit is one authentic request on its way through the checks.
type visit struct {
	in   *interaction
	body string // digest
	// What is known of it so far, for whoever is told of a refusal.
	token  card.Token
	person trust.Person
	plan   *plan.Plan
	book   authz.Book
	// later is what the person is told once Slack has its answer.
	later string
}

// ServeHTTP answers one interaction.
func (d *Door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), answerWithin)
	defer cancel()
	v, err := d.enter(w, r)
	if err != nil {
		d.turnAway(w, v, err)
		return
	}
	if v.in.Type == "view_submission" {
		d.answerSubmission(ctx, w, v)
		return
	}
	if err := d.pressed(ctx, v); err != nil {
		v.later = d.note(v, err).Text()
	} else {
		d.o.Count("opened")
	}
	d.answer(ctx, w, v, nil)
}

// answer acknowledges first: Slack waits three seconds, the person reads what is said after that too.
func (d *Door) answer(ctx context.Context, w http.ResponseWriter, v *visit, body []byte) {
	fault.Point("slack.ack/before")
	if body != nil {
		w.Header().Set("Content-Type", "application/json")
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(body))) // so that the answer is whole before the handler returns
	w.WriteHeader(http.StatusOK)
	_, err := w.Write(body)
	if err = errors.Join(err, http.NewResponseController(w).Flush()); err != nil {
		d.o.Log.Warn("Slack did not take the answer", "user", v.in.User.ID, "err", err)
	}
	if v.later != "" {
		d.tell(ctx, v, v.later)
	}
}

// enter makes the checks after which we know that our workspace sent this, just now and for the first time.
func (d *Door) enter(w http.ResponseWriter, r *http.Request) (*visit, error) {
	body, signature, err := d.authentic(w, r)
	if err != nil {
		return nil, err
	}
	first, err := d.memory.first(signature)
	if err != nil {
		return nil, because(CodeLedger, err)
	}
	if !first {
		return nil, refuse(CodeReplayed)
	}
	fault.Point("decide.verify/after")
	in, err := parse(r, body)
	if err != nil {
		return nil, err
	}
	v := &visit{in: in, body: plan.DigestOf(body)}
	if err := d.ours(in); err != nil {
		return v, err
	}
	switch {
	case in.Type == "block_actions" && len(in.Actions) == 1, in.Type == "view_submission" && in.View != nil:
		return v, nil
	}
	return v, refuse(CodeInteraction)
}

// turnAway answers what is not an authentic click of our workspace: with a status, and without an explanation.
func (d *Door) turnAway(w http.ResponseWriter, v *visit, err error) {
	r := asRefusal(err)
	d.o.Count(string(r.Code))
	d.o.Log.Warn("request refused", "code", string(r.Code), "err", err)
	if v != nil { // signed by Slack: worth a line in the ledger
		d.enterRefusal(v, r)
	}
	status, ok := statusOf[r.Code]
	if !ok {
		status = http.StatusBadRequest
	}
	http.Error(w, http.StatusText(status), status)
}

// tell shows the person who clicked a text that nobody else sees, in the channel of the card.
func (d *Door) tell(ctx context.Context, v *visit, text string) {
	channel := v.token.Channel
	if channel == "" && v.in.Channel != nil {
		channel = v.in.Channel.ID
	}
	if channel == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tellWithin)
	defer cancel()
	if err := d.o.Workspace.Tell(ctx, channel, v.in.User.ID, text); err != nil {
		d.o.Log.Warn("person could not be told", "user", v.in.User.ID, "err", err)
	}
}

// note counts, logs and records a refused click.
func (d *Door) note(v *visit, err error) *Refusal {
	r := asRefusal(err)
	d.o.Count(string(r.Code))
	d.o.Log.Warn("click refused", "code", string(r.Code), "user", v.in.User.ID, "incident_id", v.token.Incident, "err", err)
	d.enterRefusal(v, r)
	return r
}

func (d *Door) enterRefusal(v *visit, r *Refusal) {
	entry := refused{Code: r.Code, User: clip(v.in.User.ID), Incident: v.token.Incident, Plan: v.token.Plan, Body: v.body}
	if err := d.memory.refuse(entry); err != nil {
		d.o.Log.Error("refusal could not be recorded", "code", string(r.Code), "err", err)
	}
}

func clip(s string) string {
	if len(s) > 40 {
		return s[:40]
	}
	return s
}

func asRefusal(err error) *Refusal {
	var r *Refusal
	if errors.As(err, &r) {
		return r
	}
	return because(CodePlan, err)
}
