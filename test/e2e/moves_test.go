package e2e_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	batchpb "go.temporal.io/api/batch/v1"
	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"tourniquet.dev/tourniquet/activities"
	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/authz/authztest"
	"tourniquet.dev/tourniquet/internal/plan"
	"tourniquet.dev/tourniquet/internal/trust"
	"tourniquet.dev/tourniquet/workflows"
)

// adversary is somebody with full Temporal access and the codec's keys, and no signing key.
type adversary struct {
	*ground
	plan   *plan.Plan     // on offer
	digest string         // of it
	stop   string         // digest of the stop plan, which is on
	forged authz.Envelope // an approval that mallory signed
	replay authz.Envelope // ana's own approval, of another incident
}

// move is one of the adversary's; do returns once the system has dealt with it, and fails the test when it cannot be made.
type move struct {
	name string
	do   func()
}

func (a *adversary) play(moves []move) {
	a.t.Helper()
	for _, m := range moves {
		before := a.done()
		began := time.Now()
		m.do()
		if got := a.done(); !slices.Equal(before, got) {
			a.t.Fatalf("%s: effects went from %v to %v", m.name, before, got)
		}
		a.t.Logf("%s: no effect (%s)", m.name, time.Since(began).Round(time.Millisecond))
	}
}

// refused wants an activity that mallory schedules by hand to be refused.
func (a *adversary) refused(name, digest string, decisions ...authz.Envelope) func() {
	return func() {
		p, err := activities.LoadPlan(a.ctx(), a.store, digest)
		a.must(err)
		for i := range p.Steps {
			in := activities.StepInput{IncidentID: p.IncidentID, Plan: digest, Step: i, Decisions: decisions}
			r, err := shared.client.ExecuteWorkflow(a.ctx(), client.StartWorkflowOptions{TaskQueue: "mallory"}, "mine", name, in, workflows.QueueContainKubernetes)
			a.must(err)
			if err := r.Get(a.ctx(), nil); err == nil {
				a.t.Errorf("%s of step %d went through", name, i)
			}
		}
	}
}

// signals sends a decision and waits for the incident to say that it had no effect.
func (a *adversary) signals(c client.Client, e authz.Envelope) func() {
	return func() {
		before := a.refusals()
		a.must(c.SignalWorkflow(a.ctx(), a.incidentID(), "", workflows.SignalDecisionMade, workflows.DecisionMade{Decision: e}))
		a.await("refusal", func(v workflows.StateView) bool { return len(v.Refused) > before })
	}
}

func (a *adversary) refusals() int {
	return len(a.await("state", func(v workflows.StateView) bool { return v.State != "" }).Refused)
}

// events reads a run's history.
func (a *adversary) events(id, run string) []*historypb.HistoryEvent {
	a.t.Helper()
	var out []*historypb.HistoryEvent
	it := shared.client.GetWorkflowHistory(a.ctx(), id, run, false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for it.HasNext() {
		e, err := it.Next()
		a.must(err)
		out = append(out, e)
	}
	return out
}

func (a *adversary) currentRun(id string) string {
	a.t.Helper()
	d, err := shared.client.DescribeWorkflowExecution(a.ctx(), id, "")
	a.must(err)
	return d.WorkflowExecutionInfo.Execution.RunId
}

// settled waits until a run has done, of its own, what ok looks for in its events.
func (a *adversary) settled(what, id, run string, ok func([]*historypb.HistoryEvent) bool) {
	a.t.Helper()
	deadline := time.Now().Add(40 * time.Second)
	for tick := time.NewTicker(50 * time.Millisecond); time.Now().Before(deadline); <-tick.C {
		if ok(a.events(id, run)) {
			return
		}
	}
	a.t.Fatalf("%s of %s: %d events, and it did not come", what, id, len(a.events(id, run)))
}

// resetPoint is where the run's first or last workflow task ended.
func resetPoint(events []*historypb.HistoryEvent, last bool) int64 {
	var at int64
	for _, e := range events {
		if e.EventType == enumspb.EVENT_TYPE_WORKFLOW_TASK_COMPLETED && (at == 0 || last) {
			at = e.EventId
		}
	}
	return at
}

// reset rewinds a workflow and returns the new run and the point; the server's refusal of it is fatal.
func (a *adversary) reset(id string, last bool) (run string, point int64) {
	a.t.Helper()
	old := a.currentRun(id)
	point = resetPoint(a.events(id, old), last)
	out, err := shared.client.WorkflowService().ResetWorkflowExecution(a.ctx(), &workflowservice.ResetWorkflowExecutionRequest{Namespace: "default", RequestId: fmt.Sprint(time.Now().UnixNano()),
		Reason: "mallory", WorkflowExecution: &commonpb.WorkflowExecution{WorkflowId: id, RunId: old}, WorkflowTaskFinishEventId: point})
	if err != nil {
		a.t.Fatalf("reset %s: %v", id, err)
	}
	return out.RunId, point
}

// answered says whether at least n activities of a name were scheduled after the point, and each of them has ended.
func answered(name string, n int, point int64) func([]*historypb.HistoryEvent) bool {
	return func(events []*historypb.HistoryEvent) bool {
		open, all := map[int64]bool{}, 0
		for _, e := range events {
			if s := e.GetActivityTaskScheduledEventAttributes(); s != nil && e.EventId > point && s.ActivityType.Name == name {
				open[e.EventId], all = true, all+1
			}
			delete(open, e.GetActivityTaskCompletedEventAttributes().GetScheduledEventId())
			delete(open, e.GetActivityTaskFailedEventAttributes().GetScheduledEventId())
		}
		return all >= n && len(open) == 0
	}
}

// tasks says whether the run has completed a workflow task of its own after the point.
func tasks(point int64) func([]*historypb.HistoryEvent) bool {
	return func(events []*historypb.HistoryEvent) bool {
		return slices.ContainsFunc(events, func(e *historypb.HistoryEvent) bool {
			return e.EventId > point+1 && e.EventType == enumspb.EVENT_TYPE_WORKFLOW_TASK_COMPLETED
		})
	}
}

// child says whether the run asked for a child after the point, and was answered.
func child(point int64) func([]*historypb.HistoryEvent) bool {
	return func(events []*historypb.HistoryEvent) bool {
		return slices.ContainsFunc(events, func(e *historypb.HistoryEvent) bool {
			return e.EventId > point && (e.EventType == enumspb.EVENT_TYPE_START_CHILD_WORKFLOW_EXECUTION_FAILED || e.EventType == enumspb.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_STARTED)
		})
	}
}

// rewinds resets a containment to its start, where it applies its n steps again, and to its end.
func (a *adversary) rewinds(digest string, n int) func() {
	return func() {
		id := workflows.ContainmentWorkflowID(a.plan.IncidentID, digest)
		run, point := a.reset(id, false)
		a.settled("applying again", id, run, answered("ApplyStep", n, point))
		run, point = a.reset(id, true)
		a.settled("going on", id, run, tasks(point))
	}
}

// rewindsIncident resets the incident to its start: it triages and contains again.
func (a *adversary) rewindsIncident() {
	run, point := a.reset(a.incidentID(), false)
	a.settled("containing again", a.incidentID(), run, child(point))
	run, point = a.reset(a.incidentID(), true)
	a.settled("going on", a.incidentID(), run, tasks(point))
}

func (a *adversary) ref(digest string) activities.PlanRef {
	p, err := activities.LoadPlan(a.ctx(), a.store, digest)
	a.must(err)
	ref := activities.PlanRef{Digest: digest, Purpose: string(p.Purpose)}
	for _, s := range p.Steps {
		ref.Steps = append(ref.Steps, activities.StepRef{Index: s.Index, Action: string(s.Action), Queue: workflows.QueueContainKubernetes, Target: s.Target.String(), TargetUID: s.Target.UID, DurationSeconds: s.DurationSeconds, Expiry: string(s.Expiry)})
	}
	return ref
}

// startsContainment starts one by hand, for the plan that nobody approved, with what decisions there are.
func (a *adversary) startsContainment() {
	in := workflows.ContainmentInput{IncidentID: a.plan.IncidentID, Key: a.plan.CorrelationKey, Plan: a.ref(a.digest), Decisions: []authz.Envelope{a.forged, a.replay}}
	r, err := shared.client.ExecuteWorkflow(a.ctx(), client.StartWorkflowOptions{TaskQueue: workflows.QueueOrchestrate}, workflows.TypeContainment, in)
	a.must(err)
	var out workflows.ContainmentResult
	if err := r.Get(a.ctx(), &out); err != nil || slices.ContainsFunc(out.Steps, func(s workflows.StepView) bool { return s.State != workflows.StepRefused }) {
		a.t.Errorf("it ended %+v, %v", out, err)
	}
}

// schedules has a schedule run a containment of each plan. What the codec encrypted for the schedule does not open in the
// workflow that it starts, whose id is another: such a run never begins. In the clear it begins, and is refused.
func (a *adversary) schedules() {
	plain, err := client.Dial(client.Options{HostPort: shared.address, Namespace: "default"})
	a.must(err)
	defer plain.Close()
	for _, c := range []client.Client{shared.client, plain} {
		a.schedule(c)
	}
}

// brought says whether a run's steps were all answered, or its input could not be opened.
func brought(n int) func([]*historypb.HistoryEvent) bool {
	return func(events []*historypb.HistoryEvent) bool {
		return answered("ApplyStep", n, 0)(events) || slices.ContainsFunc(events, func(e *historypb.HistoryEvent) bool {
			return e.EventType == enumspb.EVENT_TYPE_WORKFLOW_TASK_FAILED || e.EventType == enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_FAILED
		})
	}
}

func (a *adversary) schedule(c client.Client) {
	for _, digest := range []string{a.stop, a.digest} {
		in := workflows.ContainmentInput{IncidentID: a.plan.IncidentID, Key: a.plan.CorrelationKey, Plan: a.ref(digest), Decisions: []authz.Envelope{a.forged}}
		id := "mallory-" + digest[len(digest)-8:] + fmt.Sprint(time.Now().UnixNano())
		h, err := c.ScheduleClient().Create(a.ctx(), client.ScheduleOptions{ID: id, TriggerImmediately: true,
			Action: &client.ScheduleWorkflowAction{ID: id, Workflow: workflows.TypeContainment, TaskQueue: workflows.QueueOrchestrate, Args: []any{in}}})
		a.must(err)
		deadline := time.Now().Add(20 * time.Second)
		for tick := time.NewTicker(50 * time.Millisecond); ; <-tick.C {
			d, err := h.Describe(a.ctx())
			a.must(err)
			if len(d.Info.RecentActions) > 0 {
				r := d.Info.RecentActions[0].StartWorkflowResult
				a.settled("applying", r.WorkflowID, r.FirstExecutionRunID, brought(3))
				_ = shared.client.TerminateWorkflow(a.ctx(), r.WorkflowID, "", "end of the move") // one that was refused has ended
				break
			}
			if time.Now().After(deadline) {
				a.t.Fatal("the schedule ran nothing")
			}
		}
		a.must(h.Delete(a.ctx()))
	}
}

// batches resets the containment of the stop plan by a batch operation.
func (a *adversary) batches() {
	id := workflows.ContainmentWorkflowID(a.plan.IncidentID, a.stop)
	old := a.currentRun(id)
	point := resetPoint(a.events(id, old), false)
	_, err := shared.client.WorkflowService().StartBatchOperation(a.ctx(), &workflowservice.StartBatchOperationRequest{Namespace: "default", JobId: id + old, Reason: "mallory",
		Executions: []*commonpb.WorkflowExecution{{WorkflowId: id, RunId: old}}, //nolint:staticcheck // an adversary uses what is deprecated, too
		Operation: &workflowservice.StartBatchOperationRequest_ResetOperation{ResetOperation: &batchpb.BatchOperationReset{Identity: "mallory",
			Options: &commonpb.ResetOptions{Target: &commonpb.ResetOptions_WorkflowTaskId{WorkflowTaskId: point}}}}})
	a.must(err)
	deadline := time.Now().Add(30 * time.Second)
	run := old
	for tick := time.NewTicker(50 * time.Millisecond); run == old; <-tick.C {
		if run = a.currentRun(id); time.Now().After(deadline) {
			a.t.Fatal("the batch reset nothing")
		}
	}
	a.settled("applying again", id, run, answered("ApplyStep", 3, point))
}

// cancels both workflows and waits until each has taken note of it.
func (a *adversary) cancels() {
	for _, id := range []string{a.incidentID(), workflows.ContainmentWorkflowID(a.plan.IncidentID, a.stop)} {
		run := a.currentRun(id)
		a.must(shared.client.CancelWorkflow(a.ctx(), id, run))
		a.settled("cancel", id, run, func(events []*historypb.HistoryEvent) bool {
			i := slices.IndexFunc(events, func(e *historypb.HistoryEvent) bool {
				return e.EventType == enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_CANCEL_REQUESTED
			})
			return i >= 0 && tasks(events[i].EventId-1)(events)
		})
	}
}

// plainPayload signals with a codec of mallory's own, that is none; a refusal after it shows that it was dealt with.
func (a *adversary) plainPayload() {
	plain, err := client.Dial(client.Options{HostPort: shared.address, Namespace: "default"})
	a.must(err)
	defer plain.Close()
	a.must(plain.SignalWorkflow(a.ctx(), a.incidentID(), "", workflows.SignalDecisionMade, workflows.DecisionMade{Decision: a.replay}))
	other, err := authztest.Signer("mallory").Sign(authz.TypeDecision, a.w.Decision(authz.Approve, a.plan, "cleo", trust.OwnKey))
	a.must(err)
	a.signals(shared.client, other)()
}

// forgedDetection comes by SignalWithStart.
func (a *adversary) forgedDetection() {
	d := a.w.Detect("forged")
	d.Workload.OwnerUID = a.w.Detection.Workload.OwnerUID
	e, _ := a.w.SignDetection(authz.NewNodeSigner(authztest.Signer("mallory").Key(), authz.Envelope{PayloadType: authz.TypeNode, Payload: "e30=", Signatures: []authz.Signature{{KeyID: "x", Sig: "AA=="}}}), d)
	a.detect(e)
	a.await("refusal of the forged detection", func(v workflows.StateView) bool {
		return slices.ContainsFunc(v.Refused, func(line string) bool { return strings.Contains(line, "nobody who may has signed them") })
	})
}

// ownPlan puts a plan of mallory's into the store and has its steps applied.
func (a *adversary) ownPlan() {
	q := a.w.Plan(plan.Stop)
	q.Steps = q.Steps[:1]
	q.Steps[0].Target.UID = "somebody-elses-pod"
	data, err := q.Encode()
	a.must(err)
	a.refused("ApplyStep", a.put(data), a.forged)()
}

// onceMore applies the stop plan by hand: the gate answers from its journal.
func (a *adversary) onceMore() {
	r, err := shared.client.ExecuteWorkflow(a.ctx(), client.StartWorkflowOptions{TaskQueue: "mallory"}, "mine", "ApplyStep",
		activities.StepInput{IncidentID: a.plan.IncidentID, Plan: a.stop}, workflows.QueueContainKubernetes)
	a.must(err)
	a.must(r.Get(a.ctx(), nil))
}

func newAdversary(t *testing.T) *adversary {
	t.Helper()
	a := &adversary{ground: prepare(t)}
	a.detect(a.w.Envelope)
	v := a.await("offer", func(v workflows.StateView) bool { return offered(v) && len(a.done()) == 3 })
	a.plan, a.digest, a.stop = a.offer(v), v.Options[0].Plan, v.Containments[0].Plan
	var err error
	a.forged, err = authztest.Signer("mallory").Sign(authz.TypeDecision, a.w.Decision(authz.Approve, a.plan, "ana", trust.Click))
	a.must(err)
	other := *a.plan
	other.IncidentID = "i" + "aaaaaaaaaaaa"
	a.replay = a.w.Decide(authz.Approve, &other, "ana", trust.OwnKey)
	own := worker.New(shared.client, "mallory", worker.Options{})
	own.RegisterWorkflowWithOptions(mine, workflow.RegisterOptions{Name: "mine"})
	a.must(own.Start())
	t.Cleanup(own.Stop)
	return a
}

// TestI5NamespaceAdminCausesNoEffect: somebody with full Temporal access and no key makes the moves of the adversary, one
// after another, before a person approved the full plan and after it. None has an effect; ana's own signature, by the
// same door, has.
func TestI5NamespaceAdminCausesNoEffect(t *testing.T) {
	a := newAdversary(t)
	a.play([]move{
		{"a forged decision by signal", a.signals(shared.client, a.forged)},
		{"a true approval of another incident by signal", a.signals(shared.client, a.replay)},
		{"a decision by a codec of its own", a.plainPayload},
		{"ApplyStep of the offered plan by hand", a.refused("ApplyStep", a.digest, a.forged, a.replay)},
		{"UndoStep of the stop plan by hand", a.refused("UndoStep", a.stop, a.forged)},
		{"RetireStep of the stop plan by hand", a.refused("RetireStep", a.stop)},
		{"a plan of its own in the store", a.ownPlan},
		{"the stop plan applied once more", a.onceMore},
		{"Containment started by hand", a.startsContainment},
		{"schedules that run both plans", a.schedules},
		{"a batch that resets the containment", a.batches},
		{"reset of the containment", a.rewinds(a.stop, 3)},
		{"signal and start from another namespace", a.across},
		{"reset of the incident", a.rewindsIncident},
		{"cancel of both workflows", a.cancels},
	})
	a.plan = a.offer(a.await("offer of the run that was reset", offered))
	if d, err := a.plan.Digest(); err != nil || d != a.digest {
		t.Fatalf("the plan is another after a reset: %s, was %s, %v", d, a.digest, err)
	}
	before := a.done()
	a.w.Now = time.Now().UTC().Truncate(time.Millisecond)
	approval := a.w.Decide(authz.Approve, a.plan, "ana", trust.OwnKey)
	a.must(shared.client.SignalWorkflow(a.ctx(), a.incidentID(), "", workflows.SignalDecisionMade, workflows.DecisionMade{Decision: approval}))
	a.await("containment of the full plan", func(workflows.StateView) bool { return len(a.done()) == len(before)+len(a.plan.Steps) })
	a.settled("applying", workflows.ContainmentWorkflowID(a.plan.IncidentID, a.digest), "", answered("ApplyStep", len(a.plan.Steps), 0))
	a.play([]move{
		{"UndoStep of the approved plan by hand", a.refused("UndoStep", a.digest, approval, a.forged)},
		{"RetireStep of the approved plan by hand", a.refused("RetireStep", a.digest, approval)},
		{"ExtendStep of the approved plan by hand", a.refused("ExtendStep", a.digest, approval)},
		{"reset of the approved containment", a.rewinds(a.digest, len(a.plan.Steps))},
		{"reset of the incident", a.rewindsIncident},
		{"a forged detection", a.forgedDetection},
		{"cancel of both workflows", a.cancels},
		{"the containment pinned to a version of its own", a.pins},
	})
	a.endsByItself(a.stop, a.done())
}
