package click_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/authz/authztest"
	"tourniquet.dev/tourniquet/internal/card"
	"tourniquet.dev/tourniquet/internal/ledger"
	"tourniquet.dev/tourniquet/internal/plan"
	"tourniquet.dev/tourniquet/internal/sys/journal"
	"tourniquet.dev/tourniquet/internal/trust"
	"tourniquet.dev/tourniquet/starter/decide/click"
	"tourniquet.dev/tourniquet/starter/decide/relay"
	"tourniquet.dev/tourniquet/workflows"
)

const (
	appID, teamID, channel, cardTS = "A0APP", "T0TEAM", "C0INC", "1780000000.000100"
	signingSecret                  = "test signing secret"
)

var (
	start    = time.Date(2026, 11, 23, 4, 0, 0, 0, time.UTC)
	tokenKey = bytes.Repeat([]byte{9}, 32)
)

// workspace is the part of Slack's Web API that decide calls, over HTTP, with the unmodified client in front.
type workspace struct {
	mu        sync.Mutex
	views     []map[string]any // opened and updated
	told      []string
	users     map[string]map[string]any
	failUsers bool
}

func (s *workspace) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string]any{"ok": true}
	switch strings.TrimPrefix(r.URL.Path, "/api/") {
	case "views.open", "views.update":
		var call struct {
			Trigger string         `json:"trigger_id"`
			View    map[string]any `json:"view"`
		}
		if err := json.NewDecoder(r.Body).Decode(&call); err != nil {
			out = map[string]any{"ok": false, "error": "invalid_arguments"}
			break
		}
		s.views = append(s.views, call.View)
		out["view"] = map[string]any{"id": "V1"}
	case "users.info":
		u, ok := s.users[r.PostFormValue("user")]
		if s.failUsers || !ok {
			out = map[string]any{"ok": false, "error": "user_not_found"}
			break
		}
		out["user"] = u
	case "chat.postEphemeral":
		s.told = append(s.told, r.PostFormValue("user")+" "+r.PostFormValue("text"))
		out["message_ts"] = "1.1"
	default:
		out = map[string]any{"ok": false, "error": "unknown_method"}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(out)
}

// temporal takes signals and answers for one incident.
type temporal struct {
	mu     sync.Mutex
	sent   []string // workflow id and decision digest
	err    error
	state  workflows.StateView
	stateE error
	before func() // called before a signal is taken
}

func (t *temporal) Send(_ context.Context, id string, d workflows.DecisionMade) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.before != nil {
		t.before()
	}
	if t.err != nil {
		return t.err
	}
	digest, err := d.Decision.Digest()
	if err != nil {
		return err
	}
	t.sent = append(t.sent, id+" "+digest)
	return nil
}

func (t *temporal) State(context.Context, string) (workflows.StateView, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.state, t.stateE
}

func (t *temporal) signals() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.sent)
}

type blobs map[string][]byte

func (b blobs) Get(_ context.Context, digest string) ([]byte, error) {
	if d, ok := b[digest]; ok {
		return d, nil
	}
	return nil, errors.New("not in the store")
}

// desk is decide with a real journal, store and judge, between a fake Slack and a fake Temporal.
type desk struct {
	t        testing.TB
	world    *authztest.World
	slack    *workspace
	temporal *temporal
	store    blobs
	dir      string
	counts   map[string]int
	log      bytes.Buffer
	mu       sync.Mutex

	now           time.Time
	full, less    *plan.Plan
	fullD, lessD  string
	door          *click.Door
	journal       *journal.Journal
	stop          func()
	slackURL      string
	signatureSalt int
}

func newDesk(t testing.TB) *desk {
	t.Helper()
	w := authztest.New(start)
	d := &desk{t: t, world: w, slack: &workspace{users: map[string]map[string]any{}}, temporal: &temporal{}, store: blobs{}, dir: t.TempDir(), counts: map[string]int{}, now: start}
	for _, id := range []string{"U001", "U002", "U003"} {
		d.slack.users[id] = map[string]any{"id": id, "team_id": teamID, "name": strings.ToLower(id)}
	}
	d.slack.users["U0STRANGER"] = map[string]any{"id": "U0STRANGER", "team_id": teamID}
	d.full = w.Plan(plan.Full)
	d.less = w.Plan(plan.Full)
	d.less.Option, d.less.Steps = "less", d.less.Steps[2:3]
	d.less.Steps[0].Index = 0
	d.fullD, d.lessD = d.put(d.full), d.put(d.less)
	raw, err := w.Envelope.Encode()
	if err != nil {
		t.Fatal(err)
	}
	d.store[w.Digest] = raw
	d.temporal.state = workflows.StateView{IncidentID: d.full.IncidentID, State: "prioritized", Card: channel + " " + cardTS,
		Options: []workflows.OptionView{{Option: "everything", Plan: d.fullD}, {Option: "less", Plan: d.lessD}}}
	server := httptest.NewServer(d.slack)
	t.Cleanup(server.Close)
	d.slackURL = server.URL + "/api/"
	d.open()
	t.Cleanup(d.close)
	return d
}

func (d *desk) put(p *plan.Plan) string {
	d.t.Helper()
	raw, err := p.Encode()
	if err != nil {
		d.t.Fatal(err)
	}
	digest := plan.DigestOf(raw)
	d.store[digest] = raw
	return digest
}

// open starts decide on the journal as it is on disk.
func (d *desk) open() {
	d.t.Helper()
	signer := d.world.Signers[trust.RoleDecide]
	j, err := journal.Open(journal.Options{Dir: d.dir, Name: "tourniquet/decide/test", Key: signer.Key()})
	if err != nil {
		d.t.Fatal(err)
	}
	d.journal = j
	d.door, err = click.New(click.Options{SigningSecret: []byte(signingSecret), AppID: appID, TeamID: teamID, TokenKey: tokenKey, Trust: d.world.TrustFile,
		Books: []authz.Book{d.world.Book}, Signer: signer, Store: d.store, Workspace: click.NewWorkspace("xoxb-test", d.slackURL), Incidents: d.temporal,
		Sender: d.temporal, Journal: j, DecisionLife: time.Hour, Now: func() time.Time { return d.now }, Log: slog.New(slog.NewTextHandler(&d.log, nil)),
		Count: func(o string) { d.mu.Lock(); d.counts[o]++; d.mu.Unlock() }})
	if err != nil {
		d.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = d.door.Run(ctx) }()
	d.stop = func() { cancel(); <-done }
}

func (d *desk) close() {
	if d.stop == nil {
		return
	}
	d.stop()
	d.stop = nil
	if err := d.journal.Close(); err != nil {
		d.t.Error(err)
	}
}

func (d *desk) restart() { d.close(); d.open() }

// entries returns the ledger's entries of a kind.
func (d *desk) entries(kind string) []ledger.Entry {
	d.t.Helper()
	var out []ledger.Entry
	if err := d.journal.Range(0, func(_ int64, e ledger.Entry) error {
		if e.Kind == kind {
			out = append(out, e)
		}
		return nil
	}); err != nil {
		d.t.Fatal(err)
	}
	return out
}

// decisions returns the signed decisions in the ledger.
func (d *desk) decisions() []authz.Decision {
	d.t.Helper()
	var out []authz.Decision
	for _, e := range d.entries("decision") {
		var r click.Recorded
		if err := json.Unmarshal(e.Body, &r); err != nil {
			d.t.Fatal(err)
		}
		dec, err := authz.OpenDecision(d.world.TrustFile, r.Decision)
		if err != nil {
			d.t.Fatal(err)
		}
		out = append(out, dec)
	}
	return out
}

func (d *desk) count(outcome string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.counts[outcome]
}

func (d *desk) views() []map[string]any {
	d.slack.mu.Lock()
	defer d.slack.mu.Unlock()
	return slices.Clone(d.slack.views)
}

func (d *desk) told() []string {
	d.slack.mu.Lock()
	defer d.slack.mu.Unlock()
	return slices.Clone(d.slack.told)
}

// token is the one behind a card's buttons.
func (d *desk) token(kind card.TokenKind) card.Token {
	t := card.Token{Kind: kind, Incident: d.full.IncidentID, Plans: []card.Offer{{Option: "everything", Plan: d.fullD}, {Option: "less", Plan: d.lessD}},
		Nonce: "00112233445566778899aabbccddeeff", Expiry: d.now.Add(24 * time.Hour), Channel: channel, TS: cardTS}
	if kind == card.OnHold {
		t.Plans = t.Plans[:1]
	}
	return t
}

func (d *desk) seal(t card.Token) string {
	d.t.Helper()
	s, err := card.Seal(tokenKey, t, rand.Reader)
	if err != nil {
		d.t.Fatal(err)
	}
	return s
}

type object = map[string]any

func envelope(kind, user string) object {
	return object{"type": kind, "api_app_id": appID, "trigger_id": "1.2.x", "team": object{"id": teamID}, "enterprise": nil,
		"user": object{"id": user, "team_id": teamID}}
}

// pressed is the payload of a button on the card.
func pressed(user, action, token string) object {
	p := envelope("block_actions", user)
	p["container"] = object{"type": "message", "message_ts": cardTS, "channel_id": channel, "is_ephemeral": false}
	p["channel"] = object{"id": channel, "name": "incidents"}
	p["message"] = object{"ts": cardTS, "text": "x"}
	p["actions"] = []any{object{"type": "button", "action_id": action, "block_id": "decide", "value": token}}
	return p
}

// submitted is the payload of a modal's submission, as Slack would make it of the view that was opened.
func submitted(user string, view object, values object) object {
	p := envelope("view_submission", user)
	v := object{"id": "V1", "team_id": teamID, "app_id": appID, "callback_id": view["callback_id"], "private_metadata": view["private_metadata"], "hash": "h",
		"state": object{"values": values}}
	p["view"] = v
	return p
}

func because(reason string) object {
	return object{card.InputReason: object{card.InputReason: object{"type": "plain_text_input", "value": reason}}}
}

// request is a signed request that a test may spoil.
type request struct {
	method, target string
	header         http.Header
	body           string
}

func (d *desk) sign(payload object) *request {
	d.t.Helper()
	d.signatureSalt++ // Slack never sends two equal bodies: trigger ids differ
	payload["trigger_id"] = fmt.Sprintf("1.2.%d", d.signatureSalt)
	raw, err := json.Marshal(payload)
	if err != nil {
		d.t.Fatal(err)
	}
	r := &request{method: http.MethodPost, target: "/slack/interactions", header: http.Header{}, body: url.Values{"payload": {string(raw)}}.Encode()}
	r.header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.resign(d.now, signingSecret)
	return r
}

func (r *request) resign(at time.Time, secret string) {
	ts := strconv.FormatInt(at.Unix(), 10)
	mac := hmac.New(sha256.New, []byte(secret))
	fmt.Fprintf(mac, "v0:%s:%s", ts, r.body)
	r.header.Set("X-Slack-Request-Timestamp", ts)
	r.header.Set("X-Slack-Signature", "v0="+hex.EncodeToString(mac.Sum(nil)))
}

// send gives the request to decide and returns status and answer.
func (d *desk) send(r *request) (int, object) {
	d.t.Helper()
	req := httptest.NewRequest(r.method, r.target, strings.NewReader(r.body))
	req.Header = r.header
	w := httptest.NewRecorder()
	d.door.ServeHTTP(w, req)
	body, _ := io.ReadAll(w.Body)
	var out object
	_ = json.Unmarshal(body, &out) // an empty or plain answer is none
	return w.Code, out
}

// press presses a button and returns the modal that opened, or nil.
func (d *desk) press(user, action string, t card.Token) object {
	d.t.Helper()
	before := len(d.views())
	d.send(d.sign(pressed(user, action, d.seal(t))))
	if views := d.views(); len(views) > before {
		return views[len(views)-1]
	}
	return nil
}

// approve goes the whole way from a button to the submission's answer.
func (d *desk) decide(user, action string, t card.Token, values object) object {
	d.t.Helper()
	view := d.press(user, action, t)
	if view == nil {
		d.t.Fatalf("no modal opened; counts %v, told %q", d.counts, d.told())
	}
	_, answer := d.send(d.sign(submitted(user, view, values)))
	return answer
}

var errDown = errors.New("temporal is down")

var _ relay.Sender = (*temporal)(nil)
