package main

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"tourniquet.dev/tourniquet/activities"
	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/authz/authztest"
	"tourniquet.dev/tourniquet/internal/plan"
	"tourniquet.dev/tourniquet/internal/sys/journal"
	"tourniquet.dev/tourniquet/internal/sys/keys"
	"tourniquet.dev/tourniquet/internal/sys/store"
	"tourniquet.dev/tourniquet/internal/sys/temporalclient"
	"tourniquet.dev/tourniquet/internal/trust"
)

var start = time.Date(2026, 11, 23, 4, 0, 0, 0, time.UTC)

const book = `playbook: stolen-credentials
version: 2
match: {techniques: [T1552.001], severity: [high]}
stop: [{action: kubernetes/block-writes, for: 30m}]
contain: [{action: kubernetes/cut-rbac, review: 4h}]
tiers: [{ask: oncall, timeout: 5m}]
`

// lab is a folder with everything that an installation has on disk after an incident: trust file, playbook, store, and the
// ledgers of an enforcer and of decide, written by a real gate over a system that does nothing.
type lab struct {
	t     *testing.T
	dir   string
	w     *authztest.World
	book  authz.Book
	store *store.Store
	stop  *plan.Plan
	full  *plan.Plan
	now   time.Time
}

func (l *lab) path(name string) string { return filepath.Join(l.dir, name) }

func (l *lab) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

func newLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{t: t, dir: t.TempDir(), w: authztest.New(start), now: start}
	w := l.w
	doc, err := yaml.Marshal(w.TrustFile)
	l.must(err)
	l.envelope("trust.json", w.Root, authz.TypeTrust, doc)
	l.must(keys.WritePublic(l.path("root.pub"), public(w.Root)))
	l.must(keys.WritePublic(l.path("other.pub"), public(w.Own["ana"])))
	l.must(os.Mkdir(l.path("playbooks"), 0o750))
	l.book, err = authz.OpenPlaybook(w.TrustFile, l.envelope("playbooks/p.json", w.Signers[trust.RolePlaybookSigner], authz.TypePlaybook, []byte(book)))
	l.must(err)
	_, err = temporalclient.RotateKeyRing(l.path("ring.json"), start)
	l.must(err)
	l.key("ana.key", w.Own["ana"])
	l.key("stranger.key", authztest.Signer("stranger"))
	l.store, err = store.Open(store.Options{Dir: l.path("store")})
	l.must(err)
	data, err := w.Envelope.Encode()
	l.must(err)
	l.put(data)
	l.stop, l.full = l.plan(plan.Stop), l.plan(plan.Full)
	l.must(os.WriteFile(l.path("config.yaml"), []byte("trust: "+l.path("trust.json")+"\nroot: "+l.path("root.pub")+"\nplaybooks: "+l.path("playbooks")+"\nstore: "+l.path("store")+
		"\nkey: "+l.path("ana.key")+"\ntemporal: {address: '127.0.0.1:1', key_ring: "+l.path("ring.json")+"}\njournals:\n"+
		"  - {role: contain-kubernetes, name: tourniquet/contain-kubernetes/demo, dir: "+l.path("enforcer")+"}\n"+
		"  - {role: decide, name: tourniquet/decide, dir: "+l.path("decide")+"}\n"), 0o600))
	return l
}

func (l *lab) envelope(name string, s *authz.Signer, payloadType string, raw []byte) authz.Envelope {
	l.t.Helper()
	e, err := s.SignBytes(payloadType, raw)
	l.must(err)
	data, err := e.Encode()
	l.must(err)
	l.must(os.WriteFile(l.path(name), data, 0o600))
	return e
}

func (l *lab) key(name string, s *authz.Signer) {
	l.must(os.WriteFile(l.path(name), []byte(seed(s)), 0o600))
}

func (l *lab) put(data []byte) string {
	l.t.Helper()
	d, err := l.store.Put(context.Background(), data)
	l.must(err)
	return d
}

func (l *lab) plan(purpose plan.Purpose) *plan.Plan {
	l.w.Book = l.book
	p := l.w.Plan(purpose)
	data, err := p.Encode()
	l.must(err)
	l.put(data)
	return p
}

// nothing is an Action on a system on which everything works and nothing changes.
type nothing struct{}

func (nothing) Expand(_ context.Context, s plan.Step) ([]plan.Target, error) {
	return []plan.Target{s.Target}, nil
}

func (nothing) Capture(_ context.Context, _ plan.Step, t plan.Target) (plan.PreImage, error) {
	return plan.PreImage{Target: t, Digest: plan.DigestOf([]byte(`{}`)), State: json.RawMessage(`{}`)}, nil
}

func (nothing) Verify(context.Context, plan.Intent, plan.Receipt) (plan.Observation, error) {
	return plan.Observation{Finding: plan.Verified}, nil
}

func (nothing) Apply(context.Context, plan.Intent) (plan.Receipt, error) { return plan.Receipt{}, nil }

func (nothing) Undo(context.Context, plan.Intent, plan.Receipt) error { return nil }

// enforce opens the enforcer's gate on its ledger for as long as f runs.
func (l *lab) enforce(f func(g *activities.Gate)) {
	l.t.Helper()
	signer := l.w.Signers[trust.RoleContainKubernetes]
	j := l.journal("enforcer", "tourniquet/contain-kubernetes/demo", signer)
	defer func() { l.must(j.Close()) }()
	actions := map[plan.Action]activities.Action{}
	for _, e := range plan.Catalogue {
		actions[e.Action] = nothing{}
	}
	g, err := activities.NewGate(activities.GateOptions{By: trust.RoleContainKubernetes, Signer: signer, Journal: j, Store: l.store, Actions: actions,
		Policy: func() activities.Policy { return activities.Policy{Trust: l.w.TrustFile, Books: []authz.Book{l.book}} },
		Prove:  func(context.Context) (string, error) { return "", nil }, Now: func() time.Time { return l.now }, Log: slog.New(slog.DiscardHandler)})
	l.must(err)
	f(g)
}

func (l *lab) journal(dir, name string, s *authz.Signer) *journal.Journal {
	j, err := journal.Open(journal.Options{Dir: l.path(dir), Name: name, Key: s.Key(), Clock: func() time.Time { return l.now }})
	l.must(err)
	return j
}

// live has the stop plan applied, the full plan approved by a click, applied, and released with ana's own key.
func (l *lab) live() {
	l.t.Helper()
	ctx := context.Background()
	click := l.w.Decide(authz.Approve, l.full, "ana", trust.Click)
	j := l.journal("decide", "tourniquet/decide", l.w.Signers[trust.RoleDecide])
	digest, err := click.Digest()
	l.must(err)
	full, err := l.full.Digest()
	l.must(err)
	for kind, body := range map[string]any{"decision": map[string]any{"decision": click, "digest": digest, "plan": full}} {
		_, err := j.Append(kind, body)
		l.must(err)
	}
	_, err = j.Append("decision-settled", map[string]string{"digest": digest, "outcome": "signalled"})
	l.must(err)
	_, err = j.Append("request-seen", map[string]string{"signature": "of somebody else"})
	l.must(err)
	l.must(j.Close())
	l.enforce(func(g *activities.Gate) {
		stop, err := l.stop.Digest()
		l.must(err)
		_, err = g.ApplyStep(ctx, activities.StepInput{IncidentID: l.stop.IncidentID, Plan: stop})
		l.must(err)
		in := activities.StepInput{IncidentID: l.full.IncidentID, Plan: full, Decisions: []authz.Envelope{click}}
		_, err = g.ApplyStep(ctx, in)
		l.must(err)
		l.now = l.now.Add(time.Minute)
		in.Decisions = []authz.Envelope{l.w.Decide(authz.Release, l.full, "ana", trust.OwnKey)}
		_, err = g.UndoStep(ctx, in)
		l.must(err)
	})
}

// run is the command line, with the lab's configuration and clock.
func (l *lab) run(args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = run(context.Background(), append([]string{"--config", l.path("config.yaml")}, args...), bytes.NewReader(nil), &out, &errs)
	return code, out.String(), errs.String()
}
