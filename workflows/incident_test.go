package workflows_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/testsuite"

	"tourniquet.dev/tourniquet/activities"
	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/authz/authztest"
	"tourniquet.dev/tourniquet/internal/blast"
	"tourniquet.dev/tourniquet/internal/ledger"
	"tourniquet.dev/tourniquet/internal/plan"
	"tourniquet.dev/tourniquet/internal/sys/store"
	"tourniquet.dev/tourniquet/internal/trust"
	"tourniquet.dev/tourniquet/workflows"
)

var start = time.Date(2026, 11, 23, 4, 0, 0, 0, time.UTC)

// memo is a journal in memory.
type memo struct{ entries []ledger.Entry }

func (m *memo) Append(kind string, body any) (int64, error) {
	raw, err := json.Marshal(body)
	m.entries = append(m.entries, ledger.Entry{Kind: kind, Body: raw})
	return int64(len(m.entries)), err
}

func (m *memo) Range(_ int64, f func(int64, ledger.Entry) error) error {
	for i, e := range m.entries {
		if err := f(int64(i), e); err != nil {
			return err
		}
	}
	return nil
}

type blobs struct {
	mu sync.Mutex
	m  map[string][]byte
}

func (b *blobs) Put(_ context.Context, data []byte) (string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	d := plan.DigestOf(data)
	b.m[d] = data
	return d, nil
}

func (b *blobs) Get(_ context.Context, digest string) ([]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if data, ok := b.m[digest]; ok {
		return data, nil
	}
	return nil, fmt.Errorf("%.20s: %w", digest, store.ErrNotFound)
}

// fakes is a system that only remembers what was done to it.
type fakes struct {
	mu      sync.Mutex
	effects []string
	fail    map[string]error
	finding map[plan.Action]plan.Finding
	cards   []activities.CardInput
	pages   []activities.PageInput
	noSlack bool
	// half makes a failing Apply change its target before it fails; on is what was changed and not undone.
	half bool
	on   map[string]bool
}

func (f *fakes) did(s string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.effects = append(f.effects, s)
}

type fakeAction struct {
	*fakes
	name plan.Action
}

func (a fakeAction) Expand(_ context.Context, s plan.Step) ([]plan.Target, error) {
	return []plan.Target{s.Target}, nil
}

func (a fakeAction) Capture(_ context.Context, _ plan.Step, t plan.Target) (plan.PreImage, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return plan.PreImage{Target: t, Digest: plan.DigestOf(fmt.Append(nil, t.UID, a.on[string(a.name)+" "+t.UID])), State: json.RawMessage(`{}`)}, nil
}

func (a fakeAction) Verify(context.Context, plan.Intent, plan.Receipt) (plan.Observation, error) {
	if f, ok := a.finding[a.name]; ok {
		return plan.Observation{Finding: f, Witnesses: []string{"looked"}}, nil
	}
	return plan.Observation{Finding: plan.Verified, Witnesses: []string{"looked"}}, nil
}

func (a fakeAction) Apply(_ context.Context, in plan.Intent) (plan.Receipt, error) {
	a.did("apply " + string(a.name))
	err := a.fail["apply "+string(a.name)]
	a.set(in, err == nil || a.half)
	return plan.Receipt{}, err
}

func (a fakeAction) Undo(_ context.Context, in plan.Intent, _ plan.Receipt) error {
	a.did("undo " + string(a.name))
	err := a.fail["undo "+string(a.name)]
	a.set(in, err != nil)
	return err
}

func (a fakeAction) set(in plan.Intent, on bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, t := range in.Targets {
		a.on[string(a.name)+" "+t.UID] = on
	}
}

func (f *fakes) Workload(_ context.Context, ns, pod, uid string) (*blast.KubernetesFacts, error) {
	return &blast.KubernetesFacts{Cluster: authztest.Cluster, Namespace: ns, Pod: pod, PodUID: uid, ServiceAccount: "cart", AccountUID: "sa-uid",
		Rules:   []blast.Rule{{Namespace: ns, Binding: "RoleBinding cart", Role: "Role reader", Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"secrets"}}},
		Secrets: []blast.Object{{Namespace: ns, Name: "db"}}}, nil
}

func (f *fakes) Identity(_ context.Context, key string) (*blast.AWSFacts, error) {
	return nil, errors.New("access denied")
}

func (f *fakes) PostCard(_ context.Context, in activities.CardInput) (activities.CardOutput, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.noSlack {
		return activities.CardOutput{}, errors.New("slack is down")
	}
	f.cards = append(f.cards, in)
	return activities.CardOutput{Channel: "C1", TS: "1.1"}, nil
}

func (f *fakes) Page(_ context.Context, in activities.PageInput) (activities.PageOutput, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.noSlack {
		return activities.PageOutput{}, errors.New("slack is down")
	}
	f.pages = append(f.pages, in)
	return activities.PageOutput{}, nil
}

func (f *fakes) History(context.Context, string, string) ([]byte, int, error) {
	return []byte(`{}`), 1, nil
}

// stage is an incident in Temporal's test environment with the real activities over fake systems.
type stage struct {
	*fakes
	t     *testing.T
	w     *authztest.World
	env   *testsuite.TestWorkflowEnvironment
	store *blobs
	key   string
}

func newStage(t *testing.T) *stage {
	t.Helper()
	var suite testsuite.WorkflowTestSuite
	suite.SetLogger(quiet{})
	s := &stage{fakes: &fakes{fail: map[string]error{}, on: map[string]bool{}, finding: map[plan.Action]plan.Finding{}}, t: t, w: authztest.New(start), env: suite.NewTestWorkflowEnvironment(), store: &blobs{m: map[string][]byte{}}}
	s.key = s.w.Detection.Key()
	s.env.SetStartTime(start)
	s.env.SetTestTimeout(time.Minute)
	s.env.SetStartWorkflowOptions(client.StartWorkflowOptions{ID: workflows.IncidentWorkflowID(s.key), TaskQueue: workflows.QueueOrchestrate})
	policy := func() activities.Policy {
		return activities.Policy{Trust: s.w.TrustFile, Books: []authz.Book{s.w.Book}}
	}
	now := func() time.Time { return s.env.Now() }
	all, readers := map[plan.Action]activities.Action{}, map[plan.Action]activities.Reader{}
	for _, e := range plan.Catalogue {
		all[e.Action], readers[e.Action] = fakeAction{s.fakes, e.Action}, fakeAction{s.fakes, e.Action}
	}
	gate, err := activities.NewGate(activities.GateOptions{By: trust.RoleContainKubernetes, Policy: policy, Signer: s.w.Signers[trust.RoleContainKubernetes], Journal: &memo{}, Store: s.store,
		Actions: all, Prove: func(context.Context) (string, error) { return "", nil }, Now: now, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	s.env.RegisterWorkflow(workflows.Incident)
	s.env.RegisterWorkflow(workflows.Containment)
	s.env.RegisterWorkflow(workflows.Archive)
	s.env.RegisterActivity(gate.ApplyStep)
	s.env.RegisterActivity(gate.UndoStep)
	s.env.RegisterActivity(gate.RetireStep)
	s.env.RegisterActivity(gate.ExtendStep)
	s.env.RegisterActivity(activities.NewObserver(activities.ObserverOptions{Trust: func() *trust.File { return s.w.TrustFile }, Signer: s.w.Signers[trust.RoleInvestigate], Readers: readers, Now: now}))
	s.env.RegisterActivity(activities.NewInvestigation(activities.InvestigationOptions{Trust: func() *trust.File { return s.w.TrustFile }, Store: s.store, Workloads: s.fakes, Identities: s.fakes, Readers: readers}))
	s.env.RegisterActivity(activities.NewAssessment(activities.AssessmentOptions{Policy: policy, Store: s.store, Now: now}))
	s.env.RegisterActivity(activities.NewArchiving(s.fakes, s.store))
	for name, f := range map[string]any{"PostCard": s.PostCard, "UpdateCard": s.PostCard, "Page": s.Page} {
		s.env.RegisterActivityWithOptions(f, activity.RegisterOptions{Name: name})
	}
	return s
}

// run delivers the detection and runs the incident to its end.
func (s *stage) run() workflows.IncidentResult {
	s.t.Helper()
	s.after(0, func() { s.detect(s.w.Envelope, s.digest(s.w.Envelope)) })
	s.env.ExecuteWorkflow(workflows.Incident, workflows.IncidentInput{Key: s.key})
	var out workflows.IncidentResult
	if err := s.env.GetWorkflowResult(&out); err != nil {
		s.t.Fatal(err)
	}
	return out
}

func (s *stage) after(d time.Duration, f func()) { s.env.RegisterDelayedCallback(f, d) }

func (s *stage) digest(e authz.Envelope) string {
	data, err := e.Encode()
	if err != nil {
		s.t.Fatal(err)
	}
	d, _ := s.store.Put(context.Background(), data)
	return d
}

func (s *stage) detect(e authz.Envelope, digest string) {
	s.env.SignalWorkflow(workflows.SignalDetectionObserved, workflows.DetectionObserved{Detections: []workflows.Observed{{Digest: digest, UID: digest[:20], Rule: "credential-file-read", Title: "t", Severity: "high", Attacks: []string{"T1552.001"}, Time: start, SpoolAt: start}}})
}

func (s *stage) state() workflows.StateView {
	s.t.Helper()
	v, err := s.env.QueryWorkflow(workflows.QueryState)
	if err != nil {
		s.t.Fatal(err)
	}
	var out workflows.StateView
	if err := v.Get(&out); err != nil {
		s.t.Fatal(err)
	}
	return out
}

// offered loads the recommended plan that is on offer now.
func (s *stage) offered() *plan.Plan {
	s.t.Helper()
	for _, o := range s.state().Options {
		if o.Recommended {
			p, err := activities.LoadPlan(context.Background(), s.store, o.Plan)
			if err != nil {
				s.t.Fatal(err)
			}
			return p
		}
	}
	s.t.Fatalf("nothing is on offer: %+v", s.state())
	return nil
}

// decide signs as of now and signals incident and containments, as decide does.
func (s *stage) decide(kind authz.DecisionKind, p *plan.Plan, person string) {
	s.w.Now = s.env.Now().UTC().Truncate(time.Millisecond)
	s.signal(s.w.Decide(kind, p, person, trust.Click), p)
}

func (s *stage) signal(e authz.Envelope, p *plan.Plan) {
	s.env.SignalWorkflow(workflows.SignalDecisionMade, workflows.DecisionMade{Decision: e})
	digest, _ := p.Digest()
	_ = s.env.SignalWorkflowByID(workflows.ContainmentWorkflowID(p.IncidentID, digest), workflows.SignalDecisionMade, workflows.DecisionMade{Decision: e})
}

var stopEffects = []string{"apply node/cut-network", "apply kubernetes/block-writes", "apply aws/quarantine-principal"}
var stopUndone = []string{"undo node/cut-network", "undo kubernetes/block-writes", "undo aws/quarantine-principal"}

func without(all, drop []string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(s string) bool { return slices.Contains(drop, s) })
}

// TestIncidentApprovedAndReleased is the whole life: stop, ask, contain, release in reverse, report.
func TestIncidentApprovedAndReleased(t *testing.T) {
	s := newStage(t)
	var approved *plan.Plan
	s.after(time.Minute, func() { approved = s.offered(); s.decide(authz.Approve, approved, "ana") })
	s.after(2*time.Minute, func() {
		for _, c := range s.state().Containments {
			for _, step := range c.Steps {
				if step.State != workflows.StepVerified {
					t.Errorf("%s is %s: %s", step.Action, step.State, step.Note)
				}
			}
		}
	})
	s.after(time.Hour, func() { s.decide(authz.Release, approved, "ana") })
	out := s.run()
	full := []string{"apply kubernetes/isolate-pod", "apply kubernetes/cut-rbac", "apply aws/deactivate-keys", "apply aws/deactivate-keys"}
	undone := []string{"undo aws/deactivate-keys", "undo aws/deactivate-keys", "undo kubernetes/cut-rbac", "undo kubernetes/isolate-pod"}
	want := slices.Concat(stopEffects, full, stopUndone, undone)
	if diff := cmp.Diff(want, s.effects); diff != "" {
		t.Errorf("effects (-want +got):\n%s", diff)
	}
	if out.Outcome != "approved by ana (oncall)" || out.Report == "" {
		t.Errorf("result %+v", out)
	}
	if last := s.cards[len(s.cards)-1]; last.State != "closed" || len(last.Options) != 0 {
		t.Errorf("last card %+v", last)
	}
}

// TestNobodyDecides is the escalation: tiers lapse at exact virtual times, the fallback goes on, and all comes off.
func TestNobodyDecides(t *testing.T) {
	s := newStage(t)
	asked := map[string]string{}
	for _, at := range []time.Duration{4 * time.Minute, 6 * time.Minute, 21 * time.Minute} {
		s.after(at, func() { asked[at.String()] = s.state().Tier })
	}
	out := s.run()
	if diff := cmp.Diff(map[string]string{"4m0s": "oncall", "6m0s": "leads", "21m0s": ""}, asked); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
	fallback := []string{"apply kubernetes/block-writes"}
	if got := without(s.effects, slices.Concat(stopEffects, stopUndone)); len(got) != 0 {
		t.Errorf("more than stop plan and fallback: %v", got)
	}
	if n := strings.Count(strings.Join(s.effects, "\n"), fallback[0]); n != 2 {
		t.Errorf("the fallback was applied %d times: %v", n-1, s.effects)
	}
	if out.Outcome != "nobody decided" {
		t.Errorf("result %+v", out)
	}
	// half-way through each tier a reminder, at its end an escalation, after the last one a page that nobody decided
	if diff := cmp.Diff([]activities.PageReason{activities.PageReminder, activities.PageEscalated, activities.PageReminder, activities.PageLapsed}, s.reasons()); diff != "" {
		t.Errorf("pages (-want +got):\n%s", diff)
	}
}

func (f *fakes) reasons() []activities.PageReason {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []activities.PageReason
	for _, p := range f.pages {
		out = append(out, p.Reason)
	}
	return out
}

// TestI3I5OnlySignedDecisionsCount is I3 and I5 at the workflow: forged, stale, foreign and doubled decisions do nothing,
// and each stands in the record with its reason.
func TestI3I5OnlySignedDecisionsCount(t *testing.T) {
	s := newStage(t)
	s.after(time.Minute, func() {
		p := s.offered()
		s.w.Now = s.env.Now().UTC()
		forged := s.w.Decide(authz.Approve, p, "ana", trust.Click)
		forged.Signatures[0].Sig = "AAAA" + forged.Signatures[0].Sig[4:]
		s.signal(forged, p)
		other := *p
		other.Option = "other"
		s.signal(s.w.Decide(authz.Approve, &other, "ana", trust.Click), p)
		s.signal(s.w.Decide(authz.Approve, p, "ben", trust.Click), p) // one lead is no quorum
		s.signal(s.w.Decide(authz.Release, p, "ana", trust.Click), p)
		late := s.w.Decision(authz.Approve, p, "ana", trust.Click)
		late.IssuedAt, late.ExpiresAt = s.w.Now.Add(-2*time.Hour), s.w.Now.Add(-time.Hour)
		s.signal(s.w.Sign(late), p)
	})
	s.run()
	if got := without(s.effects, slices.Concat(stopEffects, stopUndone)); len(got) != 0 {
		t.Errorf("effects: %v", got)
	}
	if len(s.state().Refused) < 3 {
		t.Errorf("refusals on record: %q", s.state().Refused)
	}
}

// TestI3DenyWinsAndStopPlanRunsOut: after a deny nothing more is cut.
func TestI3DenyWinsAndStopPlanRunsOut(t *testing.T) {
	s := newStage(t)
	s.after(time.Minute, func() {
		p := s.offered()
		s.decide(authz.Deny, p, "cleo")
		s.decide(authz.Approve, p, "ana")
	})
	out := s.run()
	if diff := cmp.Diff(slices.Concat(stopEffects, stopUndone), s.effects); diff != "" {
		t.Errorf("effects (-want +got):\n%s", diff)
	}
	if out.Outcome != "denied by cleo" {
		t.Errorf("outcome %q", out.Outcome)
	}
}

// TestI14I19Failures is I14 and I19: a failed step leaves other cuts on, a failed atomic group comes off, and somebody is paged.
func TestI14I19Failures(t *testing.T) {
	for name, tc := range map[string]struct {
		fail string
		want []string
	}{
		"a failed step leaves other cuts on": {"apply aws/deactivate-keys", []string{"apply kubernetes/isolate-pod", "apply kubernetes/cut-rbac", "apply aws/deactivate-keys", "apply aws/deactivate-keys",
			"undo kubernetes/cut-rbac", "undo kubernetes/isolate-pod"}},
		"a failed atomic group comes off in reverse": {"apply kubernetes/cut-rbac", []string{"apply kubernetes/isolate-pod", "apply kubernetes/cut-rbac",
			"undo kubernetes/isolate-pod", "apply aws/deactivate-keys", "apply aws/deactivate-keys", "undo aws/deactivate-keys", "undo aws/deactivate-keys"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			s.fail[tc.fail] = fmt.Errorf("not today: %w", activities.ErrConflict)
			var p *plan.Plan
			s.after(time.Minute, func() { p = s.offered(); s.decide(authz.Approve, p, "ana") })
			s.after(time.Hour, func() { s.decide(authz.Release, p, "ana") })
			s.run()
			if diff := cmp.Diff(tc.want, without(s.effects, slices.Concat(stopEffects, stopUndone))); diff != "" {
				t.Errorf("effects (-want +got):\n%s", diff)
			}
			if !slices.ContainsFunc(s.pages, func(p activities.PageInput) bool { return p.Reason == activities.PageFailed }) {
				t.Error("nobody was paged")
			}
		})
	}
}

// TestI24SlackDownDecidesNothing is I24: escalation keeps its times without any card.
func TestI24SlackDownDecidesNothing(t *testing.T) {
	s := newStage(t)
	s.noSlack = true
	tier := ""
	s.after(10*time.Minute, func() { tier = s.state().Tier })
	if out := s.run(); out.Outcome != "nobody decided" || tier != "leads" {
		t.Errorf("outcome %q, tier after ten minutes %q", out.Outcome, tier)
	}
}

// TestI19CancelTakesNothingOff: a cancelled incident goes on.
func TestI19CancelTakesNothingOff(t *testing.T) {
	s := newStage(t)
	s.after(time.Minute, func() { s.env.CancelWorkflow() })
	s.after(2*time.Minute, func() {
		if got := without(s.effects, stopEffects); len(got) != 0 {
			t.Errorf("after the cancel: %v", got)
		}
	})
	if out := s.run(); out.Outcome != "nobody decided" {
		t.Errorf("outcome %q", out.Outcome)
	}
}

// quiet drops the test environment's logs.
type quiet struct{}

func (quiet) Debug(string, ...any) {}
func (quiet) Info(string, ...any)  {}
func (quiet) Warn(string, ...any)  {}
func (quiet) Error(string, ...any) {}
