package activities_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tourniquet.dev/tourniquet/activities"
	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/authz/authztest"
	"tourniquet.dev/tourniquet/internal/ledger"
	"tourniquet.dev/tourniquet/internal/plan"
	"tourniquet.dev/tourniquet/internal/sys/journal"
	"tourniquet.dev/tourniquet/internal/trust"
)

var start = time.Date(2026, 11, 23, 4, 0, 0, 0, time.UTC)

// system is a small outside system on disk: one file for each target, which survives the death of a process. Every
// change is appended to a log, so that a test can count effects.
type system struct {
	dir  string
	fail map[string]error // by "apply <action>" or "undo <action>"
	// outcome, when set, is how every Apply ends.
	outcome *outcome
	// die, when set, kills the process at a named moment.
	die string
}

func (s *system) path(name string) string { return filepath.Join(s.dir, name) }

func (s *system) read(uid string) string {
	b, err := os.ReadFile(s.path("state-" + uid))
	if err != nil {
		return "free"
	}
	return string(b)
}

func (s *system) write(uid, state, effect string) {
	if err := os.WriteFile(s.path("state-"+uid), []byte(state), 0o600); err != nil {
		panic(err)
	}
	f, err := os.OpenFile(s.path("effects"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		panic(err)
	}
	defer f.Close()
	fmt.Fprintln(f, effect)
}

func (s *system) effects() []string {
	b, err := os.ReadFile(s.path("effects"))
	if err != nil {
		return nil
	}
	return strings.Split(strings.TrimSpace(string(b)), "\n")
}

func (s *system) moment(name string) {
	if s.die == name {
		_ = exec.Command("kill", "-9", fmt.Sprint(os.Getpid())).Run()
		select {}
	}
}

// lock is the fake action: it sets its targets' state to "locked".
type lock struct {
	*system
	name plan.Action
	// more are further targets that Expand finds.
	more []plan.Target
}

func (l lock) Expand(_ context.Context, s plan.Step) ([]plan.Target, error) {
	if l.more != nil {
		return l.more, nil
	}
	return []plan.Target{s.Target}, nil
}

func (l lock) Capture(_ context.Context, _ plan.Step, t plan.Target) (plan.PreImage, error) {
	state, _ := json.Marshal(l.read(t.UID))
	return plan.PreImage{Target: t, Digest: plan.DigestOf(state), State: state}, nil
}

func (l lock) Verify(context.Context, plan.Intent, plan.Receipt) (plan.Observation, error) {
	return plan.Observation{Finding: plan.Verified}, nil
}

func (l lock) Apply(_ context.Context, in plan.Intent) (plan.Receipt, error) {
	l.moment("before apply")
	if err := l.fail["apply "+string(l.name)]; err != nil {
		return plan.Receipt{}, err
	}
	if o := l.outcome; o != nil && !o.applied {
		return plan.Receipt{}, o.err
	}
	var r plan.Receipt
	for i, t := range in.Targets {
		if l.read(t.UID) != "locked" {
			l.write(t.UID, "locked", "apply "+string(l.name))
		}
		if i == 0 {
			l.moment("during apply")
		}
		post, _ := json.Marshal("locked")
		r.Effects = append(r.Effects, plan.Effect{Target: t, Did: "locked", Post: plan.DigestOf(post)})
	}
	l.moment("after apply")
	if l.outcome != nil {
		return r, l.outcome.err
	}
	return r, nil
}

func (l lock) Undo(_ context.Context, in plan.Intent, _ plan.Receipt) error {
	l.moment("before undo")
	if err := l.fail["undo "+string(l.name)]; err != nil {
		return err
	}
	for _, img := range in.PreImages {
		var was string
		if err := json.Unmarshal(img.State, &was); err != nil {
			return err
		}
		if l.read(img.Target.UID) != was {
			l.write(img.Target.UID, was, "undo "+string(l.name))
		}
		l.moment("during undo")
	}
	l.moment("after undo")
	return nil
}

type blobs map[string][]byte

func (b blobs) Get(_ context.Context, digest string) ([]byte, error) {
	if data, ok := b[digest]; ok {
		return data, nil
	}
	return nil, errors.New("not in the store")
}

func (b blobs) put(data []byte) string { d := plan.DigestOf(data); b[d] = data; return d }

// bench is a gate over the fake system, with a world, a store and a journal in a folder.
type bench struct {
	w     *authztest.World
	sys   *system
	store blobs
	gate  *activities.Gate
	jrnl  *journal.Journal
	now   time.Time
	books []authz.Book
	more  []plan.Target
	told  []string
}

func newBench(tb testing.TB, dir string) *bench {
	tb.Helper()
	b := &bench{w: authztest.New(start), sys: &system{dir: dir, fail: map[string]error{}}, store: blobs{}, now: start}
	b.books = []authz.Book{b.w.Book}
	data, err := b.w.Envelope.Encode()
	if err != nil {
		tb.Fatal(err)
	}
	b.store.put(data)
	b.open(tb)
	return b
}

// open starts the gate as a new process would.
func (b *bench) open(tb testing.TB) {
	tb.Helper()
	signer := b.w.Signers[trust.RoleContainKubernetes]
	var err error
	if b.jrnl, err = journal.Open(journal.Options{Dir: b.sys.path("journal"), Name: "tourniquet/contain-kubernetes/test", Key: signer.Key(), Clock: func() time.Time { return b.now }}); err != nil {
		tb.Fatal(err)
	}
	actions := map[plan.Action]activities.Action{}
	for _, e := range plan.Catalogue {
		actions[e.Action] = lock{system: b.sys, name: e.Action, more: b.more}
	}
	b.gate, err = activities.NewGate(activities.GateOptions{By: trust.RoleContainKubernetes, Signer: signer, Journal: b.jrnl, Store: b.store, Actions: actions,
		Policy: func() activities.Policy { return activities.Policy{Trust: b.w.TrustFile, Books: b.books} },
		Prove:  func(context.Context) (string, error) { return "", nil }, Now: func() time.Time { return b.now }, Log: slog.New(slog.DiscardHandler),
		Broken: func(_ context.Context, in plan.Intent, by string, again bool) {
			b.told = append(b.told, fmt.Sprintf("%s %s %v", in.Step.Action, by, again))
		}})
	if err != nil {
		tb.Fatal(err)
	}
}

func (b *bench) reopen(tb testing.TB) {
	tb.Helper()
	if err := b.jrnl.Close(); err != nil {
		tb.Fatal(err)
	}
	b.open(tb)
}

func (b *bench) input(p *plan.Plan, step int, decisions ...authz.Envelope) activities.StepInput {
	data, err := p.Encode()
	if err != nil {
		panic(err)
	}
	return activities.StepInput{IncidentID: p.IncidentID, Plan: b.store.put(data), Step: step, Decisions: decisions}
}

func refusedWith(err error, code authz.Code) bool {
	return err != nil && strings.Contains(err.Error(), string(code))
}

// TestI1I5GateActsOnlyOnAuthority is I1 and I5 at the enforcer: whatever Temporal schedules, only signatures count.
func TestI1I5GateActsOnlyOnAuthority(t *testing.T) {
	ctx := context.Background()
	for name, tc := range map[string]struct {
		change func(*bench, *plan.Plan) activities.StepInput
		code   authz.Code
	}{
		"a full plan without a decision": {func(b *bench, _ *plan.Plan) activities.StepInput { return b.input(b.w.Plan(plan.Full), 0) }, authz.CodeNoDecision},
		"a full plan with a decision on another plan": {func(b *bench, p *plan.Plan) activities.StepInput {
			return b.input(b.w.Plan(plan.Full), 0, b.w.Decide(authz.Approve, p, "ana", trust.Click))
		}, authz.CodeNoDecision},
		"a stop plan that nothing detected": {func(b *bench, p *plan.Plan) activities.StepInput {
			p.Steps[0].Target.UID = "somebody-elses-pod"
			return b.input(p, 0)
		}, authz.CodeTarget},
		"a stop plan with a playbook that is not signed": {func(b *bench, p *plan.Plan) activities.StepInput { b.books = nil; return b.input(p, 0) }, authz.CodePlaybook},
		"an undo scheduled by hand":                      {func(b *bench, p *plan.Plan) activities.StepInput { return b.input(p, 0) }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, t.TempDir())
			in := tc.change(b, b.w.Plan(plan.Stop))
			var err error
			if tc.code == "" {
				_, err = b.gate.UndoStep(ctx, in)
			} else {
				_, err = b.gate.ApplyStep(ctx, in)
			}
			if err == nil || (tc.code != "" && !refusedWith(err, tc.code)) {
				t.Fatalf("got %v, want a refusal %s", err, tc.code)
			}
			if got := b.sys.effects(); len(got) != 0 {
				t.Fatalf("effects: %v", got)
			}
		})
	}
}

// TestI12OneIntentIsOneEffect: scheduled again, by a retry, a reset or by hand, a step has one effect, also after a restart.
func TestI12OneIntentIsOneEffect(t *testing.T) {
	ctx := context.Background()
	b := newBench(t, t.TempDir())
	in := b.input(b.w.Plan(plan.Stop), 0)
	var receipts []string
	for range 3 {
		out, err := b.gate.ApplyStep(ctx, in)
		if err != nil {
			t.Fatal(err)
		}
		digest, _ := out.Receipt.Digest()
		receipts = append(receipts, digest)
		b.reopen(t)
	}
	if diff := cmp.Diff([]string{"apply node/cut-network"}, b.sys.effects()); diff != "" {
		t.Errorf("effects (-want +got):\n%s", diff)
	}
	if receipts[0] != receipts[1] || receipts[1] != receipts[2] {
		t.Errorf("receipts differ: %v", receipts)
	}
}

// TestI17I19UndoNeedsAReason is I17 and I19: nothing but a signed release, the gate's clock or a failed group takes a cut off.
func TestI17I19UndoNeedsAReason(t *testing.T) {
	ctx := context.Background()
	b := newBench(t, t.TempDir())
	stop := b.input(b.w.Plan(plan.Stop), 0)
	if _, err := b.gate.ApplyStep(ctx, stop); err != nil {
		t.Fatal(err)
	}
	if _, err := b.gate.UndoStep(ctx, stop); err == nil {
		t.Fatal("an undo without a reason went through")
	}
	if err := b.gate.Tend(ctx); err != nil || b.sys.read(authztest.PodUID) != "locked" {
		t.Fatalf("tended too early: %v, %s", err, b.sys.read(authztest.PodUID))
	}
	b.now = start.Add(11 * time.Minute)
	b.reopen(t)
	if err := b.gate.Tend(ctx); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"apply node/cut-network", "undo node/cut-network"}, b.sys.effects()); diff != "" {
		t.Errorf("effects (-want +got):\n%s", diff)
	}
	if _, err := b.gate.ApplyStep(ctx, stop); !refusedWith(err, authz.CodeSpent) {
		t.Errorf("an ended step was applied again: %v", err)
	}
}

// TestI17ReviewStepStaysOnUntilAPersonReleases is I17's other half.
func TestI17ReviewStepStaysOnUntilAPersonReleases(t *testing.T) {
	ctx := context.Background()
	b := newBench(t, t.TempDir())
	p := b.w.Plan(plan.Full)
	if _, err := b.gate.ApplyStep(ctx, b.input(p, 0, b.w.Decide(authz.Approve, p, "ana", trust.Click))); err != nil {
		t.Fatal(err)
	}
	b.now = start.Add(5 * time.Hour)
	if err := b.gate.Tend(ctx); err != nil || b.sys.read(authztest.PodUID) != "locked" {
		t.Fatalf("a review step came off by itself: %v", err)
	}
	b.w.Now = b.now
	if _, err := b.gate.UndoStep(ctx, b.input(p, 0, b.w.Decide(authz.Release, p, "ana", trust.OwnKey))); err != nil {
		t.Fatal(err)
	}
	if got := b.sys.read(authztest.PodUID); got != "free" {
		t.Errorf("after the release the pod is %s", got)
	}
}

// TestI10NoRecordNoEffect is I10.
func TestI10NoRecordNoEffect(t *testing.T) {
	b := newBench(t, t.TempDir())
	in := b.input(b.w.Plan(plan.Stop), 0)
	if err := b.jrnl.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.gate.ApplyStep(context.Background(), in); err == nil {
		t.Fatal("applied without a journal")
	}
	if got := b.sys.effects(); len(got) != 0 {
		t.Fatalf("effects: %v", got)
	}
}

// TestI19FailedAtomicGroupComesOff is I19: the gate's own record of the failure is the reason, and each step comes off once.
func TestI19FailedAtomicGroupComesOff(t *testing.T) {
	ctx := context.Background()
	b := newBench(t, t.TempDir())
	p := b.w.Plan(plan.Full)
	yes := b.w.Decide(authz.Approve, p, "ana", trust.Click)
	b.sys.fail["apply kubernetes/cut-rbac"] = activities.ErrConflict
	if _, err := b.gate.ApplyStep(ctx, b.input(p, 0, yes)); err != nil {
		t.Fatal(err)
	}
	if _, err := b.gate.ApplyStep(ctx, b.input(p, 1, yes)); err == nil {
		t.Fatal("the failing step was applied")
	}
	for range 2 {
		if _, err := b.gate.UndoStep(ctx, b.input(p, 0)); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]string{"apply kubernetes/isolate-pod", "undo kubernetes/isolate-pod"}, b.sys.effects()); diff != "" {
		t.Errorf("effects (-want +got):\n%s", diff)
	}
}

// TestI19AForgedFailureIsNoReason: asking for a step of the group without authority must not make the group fail.
func TestI19AForgedFailureIsNoReason(t *testing.T) {
	ctx := context.Background()
	b := newBench(t, t.TempDir())
	p := b.w.Plan(plan.Full)
	if _, err := b.gate.ApplyStep(ctx, b.input(p, 0, b.w.Decide(authz.Approve, p, "ana", trust.Click))); err != nil {
		t.Fatal(err)
	}
	if _, err := b.gate.ApplyStep(ctx, b.input(p, 1)); !refusedWith(err, authz.CodeNoDecision) {
		t.Fatalf("got %v", err)
	}
	if _, err := b.gate.UndoStep(ctx, b.input(p, 0)); err == nil {
		t.Fatal("a refused step took its group off")
	}
	if err := b.gate.Tend(ctx); err != nil || b.sys.read(authztest.PodUID) != "locked" {
		t.Fatalf("tend: %v, %s", err, b.sys.read(authztest.PodUID))
	}
}

// TestBrokenHoldIsPutBackWithinTheRule: three times, then a person is asked, once.
func TestBrokenHoldIsPutBackWithinTheRule(t *testing.T) {
	ctx := context.Background()
	b := newBench(t, t.TempDir())
	if _, err := b.gate.ApplyStep(ctx, b.input(b.w.Plan(plan.Stop), 0)); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		if err := os.Remove(b.sys.path("state-" + authztest.PodUID)); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		if err := b.gate.Tend(ctx); err != nil {
			t.Fatal(err)
		}
	}
	again := "node/cut-network changed: pod shop/cart-7 true"
	if diff := cmp.Diff([]string{again, again, again, "node/cut-network changed: pod shop/cart-7 false"}, b.told); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
}

// TestI18LastReleaseRestores: two plans hold one target; the first state comes back with the last one.
func TestI18LastReleaseRestores(t *testing.T) {
	ctx := context.Background()
	b := newBench(t, t.TempDir())
	one, two := b.w.Plan(plan.Stop), b.w.Plan(plan.Stop)
	two.Option = "again"
	for _, p := range []*plan.Plan{one, two} {
		if _, err := b.gate.ApplyStep(ctx, b.input(p, 0)); err != nil {
			t.Fatal(err)
		}
	}
	for i, want := range []string{"locked", "free"} {
		p := []*plan.Plan{one, two}[i]
		if _, err := b.gate.UndoStep(ctx, b.input(p, 0, b.w.Decide(authz.Release, p, "ana", trust.OwnKey))); err != nil {
			t.Fatal(err)
		}
		if got := b.sys.read(authztest.PodUID); got != want {
			t.Errorf("after release %d the target is %s, want %s", i+1, got, want)
		}
	}
}

// TestI23KilledAtAnyPointResumes: kill -9 before, during and after each effect and each undo, then a new process finishes
// what the journal shows begun, with one effect for each target in the end.
func TestI23KilledAtAnyPointResumes(t *testing.T) {
	if dir := os.Getenv("GATE_CHILD_DIR"); dir != "" {
		child(t, dir, os.Getenv("GATE_CHILD_DIE"), os.Getenv("GATE_CHILD_STEP"))
		return
	}
	for _, step := range []string{"one target", "two targets"} {
		for _, point := range []string{"before apply", "during apply", "after apply", "before undo", "during undo", "after undo"} {
			t.Run(step+", "+point, func(t *testing.T) { killed(t, point, step) })
		}
	}
}

func killed(t *testing.T, point, step string) {
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run=^TestI23KilledAtAnyPointResumes$")
	cmd.Env = append(os.Environ(), "GATE_CHILD_DIR="+dir, "GATE_CHILD_DIE="+point, "GATE_CHILD_STEP="+step)
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Fatalf("the child ended with %v: %s", err, out)
	}
	b := newBench(t, dir)
	undone := strings.Contains(point, "undo")
	if undone {
		b.now = start.Add(11 * time.Minute)
	}
	if err := b.gate.Resume(context.Background()); err != nil {
		t.Fatal(err)
	}
	action, targets := "node/cut-network", 1
	if step == "two targets" {
		action, targets = "aws/deactivate-keys", 2
	}
	var want []string
	for _, verb := range []string{"apply ", "undo "}[:map[bool]int{false: 1, true: 2}[undone]] {
		for range targets {
			want = append(want, verb+action)
		}
	}
	if diff := cmp.Diff(want, b.sys.effects()); diff != "" {
		t.Errorf("effects (-want +got):\n%s", diff)
	}
	kinds := map[string]int{}
	if err := b.jrnl.Range(0, func(_ int64, e ledger.Entry) error { kinds[e.Kind]++; return nil }); err != nil {
		t.Fatal(err)
	}
	if receipts := map[bool]int{false: 1, true: 2}[undone]; kinds["receipt"] != receipts || kinds["intent"] != 1 {
		t.Errorf("journal has %v", kinds)
	}
}

func child(t *testing.T, dir, die, step string) {
	b := newBench(t, dir)
	p, at, end := b.w.Plan(plan.Stop), 0, func(in activities.StepInput) error {
		b.now = start.Add(11 * time.Minute)
		return b.gate.Tend(context.Background())
	}
	if step == "two targets" {
		b.more = []plan.Target{b.w.Key(authztest.KeyID), b.w.Key("AKIATESTSECOND000002")}
		b.reopen(t)
		p, at = b.w.Plan(plan.Full), 2
		end = func(in activities.StepInput) error {
			in.Decisions = []authz.Envelope{b.w.Decide(authz.Release, p, "ana", trust.OwnKey)}
			_, err := b.gate.UndoStep(context.Background(), in)
			return err
		}
	}
	b.sys.die = die
	b.reopen(t)
	in := b.input(p, at, b.w.Decide(authz.Approve, p, "ana", trust.Click))
	if _, err := b.gate.ApplyStep(context.Background(), in); err != nil {
		t.Fatal(err)
	}
	if err := end(in); err != nil {
		t.Fatal(err)
	}
	t.Fatal("nobody killed the child")
}
