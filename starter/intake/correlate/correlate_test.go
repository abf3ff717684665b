package correlate_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/canonical"
	"tourniquet.dev/tourniquet/internal/detection"
	"tourniquet.dev/tourniquet/internal/plan"
	"tourniquet.dev/tourniquet/internal/sys/spool"
	"tourniquet.dev/tourniquet/starter/intake/correlate"
	"tourniquet.dev/tourniquet/starter/intake/intaketest"
	"tourniquet.dev/tourniquet/workflows"
)

// queue is a spool in memory that remembers what was taken off it.
type queue struct {
	items chan spool.Record
	mu    sync.Mutex
	done  []uint64
}

func newQueue() *queue { return &queue{items: make(chan spool.Record, 10_000)} }

func (q *queue) Next(ctx context.Context) (spool.Record, error) {
	if err := ctx.Err(); err != nil {
		return spool.Record{}, err
	}
	select {
	case i := <-q.items:
		return i, nil
	case <-ctx.Done():
		return spool.Record{}, ctx.Err()
	}
}

func (q *queue) Ack(_ context.Context, items ...spool.Record) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, i := range items {
		q.done = append(q.done, i.Seq)
	}
	return nil
}

func (q *queue) acknowledged() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.done)
}

type blobs struct {
	mu   sync.Mutex
	held map[string][]byte
}

func (b *blobs) Put(_ context.Context, data []byte) (string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	d := canonical.DigestOf(data)
	b.held[d] = data
	return d, nil
}

type call struct {
	Workflow, Signal string
	Detections       []string // uids
	Receipts         int
	Attributes       int
}

// temporal records what it is asked, and fails as told.
type temporal struct {
	mu      sync.Mutex
	calls   []call
	options []client.StartWorkflowOptions
	args    []any
	fail    func(call) error
	at      []time.Time
}

func (f *temporal) take(c call) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.at = append(f.at, time.Now())
	if f.fail != nil {
		if err := f.fail(c); err != nil {
			return err
		}
	}
	f.calls = append(f.calls, c)
	return nil
}

func (f *temporal) SignalWithStartWorkflow(_ context.Context, id, name string, arg any, o client.StartWorkflowOptions, w any, args ...any) (client.WorkflowRun, error) {
	c := call{Workflow: id, Signal: name, Attributes: o.TypedSearchAttributes.Size()}
	for _, d := range arg.(workflows.DetectionObserved).Detections {
		c.Detections = append(c.Detections, d.UID)
	}
	err := f.take(c)
	if err == nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.options, f.args = append(f.options, o), append(append(f.args, w), args...)
	}
	return nil, err
}

func (f *temporal) SignalWorkflow(_ context.Context, id, _, name string, arg any) error {
	_ = arg.(workflows.ReceiptObserved)
	return f.take(call{Workflow: id, Signal: name, Receipts: 1})
}

type rig struct {
	world    intaketest.World
	queue    *queue
	temporal *temporal
	blobs    *blobs
	dead     *correlate.DeadLetters
	seen     *correlate.Seen
	count    *correlate.Counters
	seq      uint64
	dir      string
	stop     func() error
}

func newRig(t *testing.T, dir string) *rig {
	t.Helper()
	r := &rig{world: intaketest.New(t), queue: newQueue(), temporal: &temporal{}, blobs: &blobs{held: map[string][]byte{}}, count: &correlate.Counters{}, dir: dir}
	var err error
	if r.dead, err = correlate.OpenDeadLetters(filepath.Join(dir, "dead"), 1<<20); err != nil {
		t.Fatal(err)
	}
	if r.seen, err = correlate.OpenSeen(filepath.Join(dir, "seen")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.seen.Close() })
	return r
}

// run starts a correlator and returns how to end it.
func (r *rig) run(t *testing.T, change func(*correlate.Options)) {
	o := correlate.Options{Queue: r.queue, Store: r.blobs, Temporal: r.temporal, Dead: r.dead, Seen: r.seen, Count: r.count, Log: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&o)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- correlate.New(o).Run(ctx) }()
	r.stop = func() error { cancel(); return <-ended }
}

func (r *rig) put(payload []byte) {
	r.seq++
	r.queue.items <- spool.Record{Seq: r.seq, Time: time.Now(), Payload: payload}
}

func (r *rig) accept(t *testing.T, uid, owner string, severity detection.Severity) string {
	d := intaketest.Detection(uid, owner)
	d.Severity = severity
	payload := intaketest.Signed(t, r.world.Node, authz.TypeDetection, d)
	r.count.Spooled(correlate.Detections)
	r.put(payload)
	return canonical.DigestOf(payload)
}

func balanced(t *testing.T, c *correlate.Counters) {
	t.Helper()
	for _, k := range correlate.Kinds() {
		if a := c.Of(k); a.Pending() != 0 {
			t.Errorf("%s: %+v: %d neither correlated nor dead-lettered nor known", k, a, a.Pending())
		}
	}
}

func TestDetectionsOfOneKeyShareSignals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, t.TempDir())
		var want []string
		for i := range 70 {
			r.accept(t, fmt.Sprintf("a%d", i), "checkout", detection.High)
			want = append(want, fmt.Sprintf("a%d", i))
		}
		first := r.accept(t, "b", "billing", detection.Critical)
		r.run(t, nil)
		time.Sleep(time.Second) // in the bubble's time
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
		key := func(owner string) string { return workflows.IncidentWorkflowID(intaketest.Detection("x", owner).Key()) }
		got := map[string][][]string{}
		for _, c := range r.temporal.calls {
			if c.Signal != workflows.SignalDetectionObserved {
				t.Errorf("signal %s", c.Signal)
			}
			got[c.Workflow] = append(got[c.Workflow], c.Detections)
		}
		slices.SortFunc(got[key("checkout")], func(a, b []string) int { return len(b) - len(a) })
		if diff := cmp.Diff(map[string][][]string{key("checkout"): {want[:64], want[64:]}, key("billing"): {{"b"}}}, got); diff != "" {
			t.Error(diff)
		}
		if r.blobs.held[first] == nil {
			t.Error("the envelope is not in the store")
		}
		if n := r.queue.acknowledged(); n != 71 {
			t.Errorf("%d items left the spool, want 71", n)
		}
		balanced(t, r.count)
	})
}

func TestIncidentIsStartedAsOthersExpectIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, t.TempDir())
		r.accept(t, "a", "checkout", detection.Critical)
		r.run(t, nil)
		time.Sleep(time.Second)
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
		o, key := r.temporal.options[0], intaketest.Detection("a", "checkout").Key()
		got := []any{o.ID, o.TaskQueue, o.StaticSummary, o.WorkflowIDReusePolicy}
		want := []any{"incident/" + key, "orchestrate", "critical: aws-credentials-read on shop/checkout", enums.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE}
		if diff := cmp.Diff(append(want, any("Incident"), workflows.IncidentInput{Key: key}), append(got, r.temporal.args...)); diff != "" {
			t.Error(diff)
		}
		attributes := map[string]any{}
		for k, v := range o.TypedSearchAttributes.GetUntypedValues() {
			attributes[k.GetName()] = v
		}
		if diff := cmp.Diff(map[string]any{workflows.AttrSeverity: "critical", workflows.AttrState: "triaged", workflows.AttrWorkload: key}, attributes); diff != "" {
			t.Error(diff)
		}
	})
}

func TestFirstDetectionWaitsForNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, t.TempDir())
		r.run(t, nil)
		time.Sleep(time.Minute)
		start := time.Now()
		r.accept(t, "a", "checkout", detection.High)
		time.Sleep(2 * time.Millisecond)
		r.accept(t, "b", "checkout", detection.High)
		r.accept(t, "c", "checkout", detection.High)
		time.Sleep(time.Minute)
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
		if len(r.temporal.at) != 2 || r.temporal.at[0].Sub(start) != time.Millisecond || r.temporal.at[1].Sub(start) != 21*time.Millisecond {
			t.Errorf("signalled at %v after %v, want after 1ms and 20ms later", r.temporal.at, start)
		}
	})
}

// I20, I25: nothing leaves the spool while Temporal is down, and everything does when it is back.
func TestTemporalDownKeepsTheSpool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, t.TempDir())
		down := true
		r.temporal.fail = func(call) error {
			if down {
				return serviceerror.NewUnavailable("down")
			}
			return nil
		}
		r.accept(t, "a", "checkout", detection.High)
		r.run(t, nil)
		time.Sleep(time.Hour)
		if n := r.queue.acknowledged(); n != 0 {
			t.Errorf("%d items left the spool", n)
		}
		if a := r.count.Of(correlate.Detections); a.Pending() != 1 {
			t.Errorf("%+v, want one pending", a)
		}
		r.temporal.mu.Lock()
		down = false
		r.temporal.mu.Unlock()
		time.Sleep(time.Minute)
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
		if n := r.queue.acknowledged(); n != 1 || len(r.temporal.calls) != 1 {
			t.Errorf("%d acknowledged, calls %v", n, r.temporal.calls)
		}
		balanced(t, r.count)
	})
}

// I20: accepted = correlated + duplicates + dead letters, over every way an item can go.
func TestI20EveryItemIsAccountedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, t.TempDir())
		bad := workflows.IncidentWorkflowID(intaketest.Detection("x", "poison").Key())
		r.temporal.fail = func(c call) error {
			if c.Workflow == bad {
				return serviceerror.NewInvalidArgument("never")
			}
			return nil
		}
		r.accept(t, "a", "checkout", detection.High)
		r.accept(t, "a", "checkout", detection.High) // twice in one batch
		r.accept(t, "p", "poison", detection.High)
		r.count.Spooled(correlate.Detections)
		r.put([]byte("not an envelope"))
		r.count.Spooled(correlate.Receipts)
		r.put(intaketest.Signed(t, r.world.Node, authz.TypeReceipt, intaketest.Receipt(0, plan.Applied)))
		r.run(t, nil)
		time.Sleep(time.Minute)
		r.accept(t, "a", "checkout", detection.High) // and once more, later
		time.Sleep(time.Minute)
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
		want := correlate.Account{Accepted: 5, Correlated: 1, Duplicates: 2, DeadLettered: 2}
		if diff := cmp.Diff(want, r.count.Of(correlate.Detections)); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(correlate.Account{Accepted: 1, Correlated: 1}, r.count.Of(correlate.Receipts)); diff != "" {
			t.Error(diff)
		}
		if r.dead.Len() != 2 || r.queue.acknowledged() != 6 {
			t.Errorf("%d dead letters, %d acknowledged", r.dead.Len(), r.queue.acknowledged())
		}
		balanced(t, r.count)
	})
}

func TestIncidentIsWorthMoreThanItsSearchAttributes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, t.TempDir())
		r.temporal.fail = func(c call) error {
			if c.Attributes > 0 {
				return serviceerror.NewInvalidArgument("no such search attribute")
			}
			return nil
		}
		r.accept(t, "a", "checkout", detection.High)
		r.run(t, nil)
		time.Sleep(time.Minute)
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
		if len(r.temporal.calls) != 1 || r.dead.Len() != 0 {
			t.Errorf("calls %v, %d dead letters", r.temporal.calls, r.dead.Len())
		}
	})
}

func TestReceiptWithoutContainmentIsKeptAside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, t.TempDir())
		r.temporal.fail = func(call) error { return serviceerror.NewNotFound("workflow execution already completed") }
		r.count.Spooled(correlate.Receipts)
		r.put(intaketest.Signed(t, r.world.Node, authz.TypeReceipt, intaketest.Receipt(0, plan.Undone)))
		r.run(t, nil)
		time.Sleep(time.Minute)
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(correlate.Account{Accepted: 1, DeadLettered: 1}, r.count.Of(correlate.Receipts)); diff != "" {
			t.Error(diff)
		}
	})
}

func TestRestartDoesNotCorrelateAgain(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, dir)
		r.accept(t, "a", "checkout", detection.High)
		r.run(t, nil)
		time.Sleep(time.Minute)
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}

		again := newRig(t, dir) // the process died before it could acknowledge
		d := intaketest.Signed(t, r.world.Node, authz.TypeDetection, intaketest.Detection("a", "checkout"))
		again.put(d)
		again.put(intaketest.Signed(t, r.world.Node, authz.TypeDetection, intaketest.Detection("b", "checkout")))
		again.run(t, func(o *correlate.Options) { o.Started = time.Now().Add(time.Second) })
		time.Sleep(time.Minute)
		if err := again.stop(); err != nil {
			t.Fatal(err)
		}
		if len(again.temporal.calls) != 1 || !slices.Equal(again.temporal.calls[0].Detections, []string{"b"}) {
			t.Errorf("calls %v, want b only", again.temporal.calls)
		}
		if diff := cmp.Diff(correlate.Account{Recovered: 2, Correlated: 1, Duplicates: 1}, again.count.Of(correlate.Detections)); diff != "" {
			t.Error(diff)
		}
	})
}

type failing struct{ correlate.Queue }

func (failing) Ack(context.Context, ...spool.Record) error { return errors.New("disk gone") }

func TestFailingSpoolEndsTheProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, t.TempDir())
		r.accept(t, "a", "checkout", detection.High)
		r.run(t, func(o *correlate.Options) { o.Queue = failing{r.queue} })
		time.Sleep(time.Minute)
		if err := r.stop(); err == nil {
			t.Error("went on")
		}
	})
}
