// Package e2e_test runs the product's workflows and gates against the real Temporal server.
package e2e_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	temporaldev "tourniquet.dev/tourniquet/dev/temporal"

	"tourniquet.dev/tourniquet/activities"
	"tourniquet.dev/tourniquet/activities/archive"
	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/authz/authztest"
	"tourniquet.dev/tourniquet/internal/plan"
	"tourniquet.dev/tourniquet/internal/sys/journal"
	"tourniquet.dev/tourniquet/internal/sys/store"
	"tourniquet.dev/tourniquet/internal/sys/temporalclient"
	"tourniquet.dev/tourniquet/internal/trust"
	"tourniquet.dev/tourniquet/workflows"
)

// shared is the heavy part, started once: a Temporal server, and a client with the payload codec.
var shared struct {
	client  client.Client
	ring    string
	address string
}

// record, with a plain client, writes the histories of the approved incident into test/histories.
var record = flag.Bool("record", false, "record histories in the clear into test/histories")

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "tourniquet-e2e-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	logs, err := os.Create(filepath.Join(dir, "temporal.log"))
	if err != nil {
		panic(err)
	}
	attrs := map[string]enumspb.IndexedValueType{workflows.AttrExposure: enumspb.INDEXED_VALUE_TYPE_INT}
	for _, a := range []string{workflows.AttrSeverity, workflows.AttrState, workflows.AttrPlaybook, workflows.AttrTier, workflows.AttrIncident, workflows.AttrWorkload} {
		attrs[a] = enumspb.INDEXED_VALUE_TYPE_KEYWORD
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	server, err := temporaldev.Start(ctx, temporaldev.Options{Database: filepath.Join(dir, "temporal.db"), NoUI: true, Namespace: "default", SearchAttributes: attrs, Log: logs})
	if err != nil {
		fmt.Fprintln(os.Stderr, "start Temporal:", err)
		return 1
	}
	defer server.Stop()
	shared.address, shared.ring = server.Addr(), filepath.Join(dir, "ring")
	if _, err := temporalclient.RotateKeyRing(shared.ring, time.Now()); err != nil {
		panic(err)
	}
	ring, err := temporalclient.LoadKeyRing(shared.ring)
	if err != nil {
		panic(err)
	}
	shared.client, err = temporalclient.Dial(ctx, temporalclient.Options{Address: server.Addr(), Namespace: "default", Identity: "e2e", Ring: ring, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		fmt.Fprintln(os.Stderr, "dial Temporal:", err)
		return 1
	}
	if *record {
		shared.client.Close()
		if shared.client, err = client.Dial(client.Options{HostPort: server.Addr(), Namespace: "default"}); err != nil {
			panic(err)
		}
	}
	defer shared.client.Close()
	return m.Run()
}

// ground is a system that remembers what was done to it, behind a real gate with a real journal.
type ground struct {
	t       *testing.T
	w       *authztest.World
	store   *store.Store
	folders map[string]string // of the store and the journal
	gate    *activities.Gate
	mu      sync.Mutex
	effects []string
	ahead   time.Duration            // the gate's clock against the machine's
	workers map[string]worker.Worker // by queue
}

type action struct {
	*ground
	name plan.Action
}

func (a action) Expand(_ context.Context, s plan.Step) ([]plan.Target, error) {
	return []plan.Target{s.Target}, nil
}

func (a action) Capture(_ context.Context, _ plan.Step, t plan.Target) (plan.PreImage, error) {
	return plan.PreImage{Target: t, Digest: plan.DigestOf([]byte(t.UID)), State: json.RawMessage(`{}`)}, nil
}

func (a action) Verify(context.Context, plan.Intent, plan.Receipt) (plan.Observation, error) {
	return plan.Observation{Finding: plan.Verified, Witnesses: []string{"looked"}}, nil
}

func (a action) Apply(context.Context, plan.Intent) (plan.Receipt, error) {
	a.did("apply " + string(a.name))
	return plan.Receipt{}, nil
}

func (a action) Undo(context.Context, plan.Intent, plan.Receipt) error {
	a.did("undo " + string(a.name))
	return nil
}

func (g *ground) did(s string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.effects = append(g.effects, s)
}

func (g *ground) done() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.effects)
}

func (g *ground) PostCard(context.Context, activities.CardInput) (activities.CardOutput, error) {
	return activities.CardOutput{Channel: "C1", TS: "1"}, nil
}

func (g *ground) Page(context.Context, activities.PageInput) (activities.PageOutput, error) {
	return activities.PageOutput{}, nil
}

// prepare starts the role's workers on their own queues. Each test has a world of its own pod, so ids do not meet.
func prepare(t *testing.T) *ground {
	t.Helper()
	g := &ground{t: t, w: authztest.New(time.Now()), folders: map[string]string{"store": t.TempDir(), "journal": t.TempDir()}}
	g.w.Detection.Workload.OwnerUID = "owner-" + filepath.Base(t.TempDir()) + fmt.Sprint(time.Now().UnixNano())
	g.w.Envelope, g.w.Digest = g.w.SignDetection(g.w.Node, g.w.Detection)
	var err error
	if g.store, err = store.Open(store.Options{Dir: g.folders["store"]}); err != nil {
		t.Fatal(err)
	}
	j, err := journal.Open(journal.Options{Dir: g.folders["journal"], Name: "tourniquet/contain/e2e", Key: g.w.Signers[trust.RoleContainKubernetes].Key()})
	if err != nil {
		t.Fatal(err)
	}
	policy := func() activities.Policy {
		return activities.Policy{Trust: g.w.TrustFile, Books: []authz.Book{g.w.Book}}
	}
	now := func() time.Time { return time.Now().Add(g.ahead) }
	actions, readers := map[plan.Action]activities.Action{}, map[plan.Action]activities.Reader{}
	for _, e := range plan.Catalogue {
		actions[e.Action], readers[e.Action] = action{g, e.Action}, action{g, e.Action}
	}
	g.gate, err = activities.NewGate(activities.GateOptions{By: trust.RoleContainKubernetes, Policy: policy, Signer: g.w.Signers[trust.RoleContainKubernetes], Journal: j, Store: g.store,
		Actions: actions, Prove: func(context.Context) (string, error) { return "", nil }, Now: now, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	trustOf := func() *trust.File { return g.w.TrustFile }
	register := map[string]func(worker.Worker){
		workflows.QueueOrchestrate: func(w worker.Worker) {
			w.RegisterWorkflow(workflows.Incident)
			w.RegisterWorkflow(workflows.Containment)
			w.RegisterWorkflow(workflows.Archive)
			w.RegisterActivity(activities.NewAssessment(activities.AssessmentOptions{Policy: policy, Store: g.store, Now: time.Now}))
			w.RegisterActivity(activities.NewArchiving(archive.New(shared.client), g.store))
		},
		workflows.QueueInvestigate: func(w worker.Worker) {
			w.RegisterActivity(activities.NewInvestigation(activities.InvestigationOptions{Trust: trustOf, Store: g.store, Readers: readers}))
			w.RegisterActivity(activities.NewObserver(activities.ObserverOptions{Trust: trustOf, Signer: g.w.Signers[trust.RoleInvestigate], Readers: readers, Now: time.Now}))
		},
		workflows.QueueNotify: func(w worker.Worker) {
			for name, f := range map[string]any{"PostCard": g.PostCard, "UpdateCard": g.PostCard, "Page": g.Page} {
				w.RegisterActivityWithOptions(f, activity.RegisterOptions{Name: name})
			}
		},
	}
	gates := func(w worker.Worker) {
		for _, a := range []any{g.gate.ApplyStep, g.gate.UndoStep, g.gate.RetireStep, g.gate.ExtendStep} {
			w.RegisterActivity(a)
		}
	}
	register[workflows.QueueContainAWS], register[workflows.QueueContainKubernetes] = gates, gates
	g.workers = map[string]worker.Worker{}
	for queue, reg := range register {
		w := worker.New(shared.client, queue, worker.Options{})
		reg(w)
		if err := w.Start(); err != nil {
			t.Fatal(err)
		}
		g.workers[queue] = w
	}
	t.Cleanup(func() {
		for _, w := range g.workers {
			w.Stop()
		}
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	})
	return g
}

func (g *ground) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	g.t.Cleanup(cancel)
	return ctx
}

func (g *ground) put(data []byte) string {
	d, err := g.store.Put(g.ctx(), data)
	if err != nil {
		g.t.Fatal(err)
	}
	return d
}

func (g *ground) putEnvelope(e authz.Envelope) string {
	data, err := e.Encode()
	if err != nil {
		g.t.Fatal(err)
	}
	return g.put(data)
}

func (g *ground) incidentID() string { return workflows.IncidentWorkflowID(g.w.Detection.Key()) }

// detect does what intake does: the envelope into the store, then SignalWithStart.
func (g *ground) detect(e authz.Envelope) {
	g.t.Helper()
	o := workflows.Observed{Digest: g.putEnvelope(e), UID: "d", Title: "t", Severity: "high", Time: g.w.Now}
	_, err := shared.client.SignalWithStartWorkflow(g.ctx(), g.incidentID(), workflows.SignalDetectionObserved, workflows.DetectionObserved{Detections: []workflows.Observed{o}},
		client.StartWorkflowOptions{TaskQueue: workflows.QueueOrchestrate}, workflows.TypeIncident, workflows.IncidentInput{Key: g.w.Detection.Key()})
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() {
		_ = shared.client.TerminateWorkflow(context.Background(), g.incidentID(), "", "end of test")
	})
}

// await waits for a condition of the incident's state.
func (g *ground) await(what string, ok func(workflows.StateView) bool) workflows.StateView {
	g.t.Helper()
	deadline := time.Now().Add(40 * time.Second)
	var last workflows.StateView
	for tick := time.NewTicker(50 * time.Millisecond); time.Now().Before(deadline); <-tick.C {
		v, err := shared.client.QueryWorkflow(g.ctx(), g.incidentID(), "", workflows.QueryState)
		if err != nil {
			continue
		}
		last = workflows.StateView{}
		if err := v.Get(&last); err == nil && ok(last) {
			return last
		}
	}
	g.t.Fatalf("no %s; the state is %+v, effects %v", what, last, g.done())
	return last
}

func offered(v workflows.StateView) bool { return len(v.Options) > 0 && v.Tier != "" }

func (g *ground) offer(v workflows.StateView) *plan.Plan {
	p, err := activities.LoadPlan(g.ctx(), g.store, v.Options[0].Plan)
	if err != nil {
		g.t.Fatal(err)
	}
	return p
}

// unchanged fails when anything was done beyond before.
func (g *ground) unchanged(before []string) {
	g.t.Helper()
	if got := g.done(); !slices.Equal(before, got) {
		g.t.Errorf("effects went from %v to %v", before, got)
	}
}

// mine is a workflow of the adversary's own: it schedules the enforcer's activities by hand.
func mine(ctx workflow.Context, name string, in activities.StepInput, queue string) error {
	actx := workflow.WithActivityOptions(ctx, workflow.ActivityOptions{TaskQueue: queue, StartToCloseTimeout: 10 * time.Second, RetryPolicy: &temporal.RetryPolicy{MaximumAttempts: 2}})
	return workflow.ExecuteActivity(actx, name, in).Get(ctx, nil)
}

// endsByItself terminates the workflows and lets the gate's clock run: the release steps come off all the same (I17).
func (g *ground) endsByItself(stop string, before []string) {
	g.t.Helper()
	id := workflows.ContainmentWorkflowID(g.await("incident", func(v workflows.StateView) bool { return v.IncidentID != "" }).IncidentID, stop)
	for _, w := range []string{g.incidentID(), id} {
		var gone *serviceerror.NotFound // a worker of mallory's own may have ended it already
		if err := shared.client.TerminateWorkflow(g.ctx(), w, "", "mallory"); err != nil && !errors.As(err, &gone) {
			g.t.Errorf("terminate %s: %v", w, err)
		}
	}
	g.unchanged(before)
	g.ahead = time.Hour
	if err := g.gate.Tend(g.ctx()); err != nil {
		g.t.Fatal(err)
	}
	want := append(before, "undo aws/quarantine-principal", "undo kubernetes/block-writes", "undo node/cut-network")
	if got := g.done(); !slices.Equal(want, got) {
		g.t.Errorf("after the end: %v, want %v", got, want)
	}
}

// TestApprovedByItsOwnSignature: the same ground, one true signature: the plan goes on, and a true release takes it off.
func TestApprovedByItsOwnSignature(t *testing.T) {
	g := prepare(t)
	g.detect(g.w.Envelope)
	p := g.offer(g.await("offer", offered))
	digest, err := p.Digest()
	if err != nil {
		t.Fatal(err)
	}
	g.w.Now = time.Now().UTC().Truncate(time.Millisecond)
	decide := func(kind authz.DecisionKind, p *plan.Plan, to ...string) {
		for _, id := range to {
			if err := shared.client.SignalWorkflow(g.ctx(), id, "", workflows.SignalDecisionMade, workflows.DecisionMade{Decision: g.w.Decide(kind, p, "ana", trust.OwnKey)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	decide(authz.Approve, p, g.incidentID())
	v := g.await("verified containment", func(v workflows.StateView) bool {
		return len(v.Containments) == 2 && !slices.ContainsFunc(v.Containments, func(c workflows.ContainmentChanged) bool {
			return len(c.Steps) == 0 || slices.ContainsFunc(c.Steps, func(s workflows.StepView) bool { return s.State != workflows.StepVerified })
		})
	})
	for _, c := range v.Containments {
		q := p
		if c.Plan != digest {
			if q, err = activities.LoadPlan(g.ctx(), g.store, c.Plan); err != nil {
				t.Fatal(err)
			}
		}
		decide(authz.Release, q, g.incidentID(), workflows.ContainmentWorkflowID(p.IncidentID, c.Plan))
	}
	g.await("close", func(v workflows.StateView) bool { return v.State == "closed" })
	applied, undone := 0, 0
	for _, e := range g.done() {
		if e[:5] == "apply" {
			applied++
		} else {
			undone++
		}
	}
	if applied == 0 || applied != undone {
		t.Errorf("%d applied, %d undone: %v", applied, undone, g.done())
	}
	g.unreadable(g.incidentID(), workflows.ContainmentWorkflowID(p.IncidentID, digest))
	if *record {
		for _, id := range []string{g.incidentID(), workflows.ArchiveWorkflowID(p.IncidentID)} {
			if err := shared.client.GetWorkflow(g.ctx(), id, "").Get(g.ctx(), nil); err != nil {
				t.Fatal(err)
			}
		}
		g.keep("v2-approved-incident", g.incidentID())
		g.keep("v2-archive", workflows.ArchiveWorkflowID(p.IncidentID))
		for _, c := range v.Containments {
			g.keep("v2-containment-"+c.Purpose, workflows.ContainmentWorkflowID(p.IncidentID, c.Plan))
		}
	}
}

// keep writes an execution's history into test/histories.
func (g *ground) keep(name, workflowID string) {
	g.t.Helper()
	data, _, err := archive.New(shared.client).History(g.ctx(), workflowID, "")
	if err != nil {
		g.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join("..", "histories", name+".json"), data, 0o644); err != nil {
		g.t.Fatal(err)
	}
}

// unreadable is I33 for what Temporal keeps: names of pods, keys and people stand in no history in the clear.
func (g *ground) unreadable(workflowIDs ...string) {
	g.t.Helper()
	if *record {
		return
	}
	for _, id := range workflowIDs {
		data, events, err := archive.New(shared.client).History(g.ctx(), id, "")
		if err != nil || events < 20 {
			g.t.Fatalf("history of %s: %d events, %v", id, events, err)
		}
		for _, clear := range []string{"cart-7", authztest.KeyID, `"ana"`, base64.StdEncoding.EncodeToString([]byte("pod shop/cart-7"))[:18]} {
			if bytes.Contains(data, []byte(clear)) {
				g.t.Errorf("the history of %s shows %q", id, clear)
			}
		}
	}
}
