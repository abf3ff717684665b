package e2e_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
	"google.golang.org/protobuf/types/known/durationpb"

	"tourniquet.dev/tourniquet/activities"
	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/authz/authztest"
	"tourniquet.dev/tourniquet/internal/plan"
	"tourniquet.dev/tourniquet/workflows"
)

// pins has the containment of the stop plan run by mallory's own code: a worker of a version of hers, pinned, and a reset.
func (a *adversary) pins() {
	var ran atomic.Int32
	version := worker.WorkerDeploymentVersion{DeploymentName: "mallory", BuildID: "1"}
	w := worker.New(shared.client, workflows.QueueOrchestrate, worker.Options{DeploymentOptions: worker.DeploymentOptions{UseVersioning: true, Version: version, DefaultVersioningBehavior: workflow.VersioningBehaviorPinned}})
	w.RegisterWorkflowWithOptions(func(ctx workflow.Context, in workflows.ContainmentInput) (workflows.ContainmentResult, error) {
		for i := range in.Plan.Steps {
			if err := mine(ctx, "UndoStep", activities.StepInput{IncidentID: in.IncidentID, Plan: in.Plan.Digest, Step: i}, workflows.QueueContainKubernetes); err != nil {
				ran.Add(1)
			}
		}
		return workflows.ContainmentResult{}, nil
	}, workflow.RegisterOptions{Name: workflows.TypeContainment})
	a.must(w.Start())
	a.t.Cleanup(w.Stop)
	id := workflows.ContainmentWorkflowID(a.plan.IncidentID, a.stop)
	request := client.UpdateWorkflowExecutionOptionsRequest{WorkflowId: id, WorkflowExecutionOptionsChanges: client.WorkflowExecutionOptionsChanges{
		VersioningOverride: &client.VersioningOverrideChange{Value: &client.PinnedVersioningOverride{Version: version}}}}
	deadline := time.Now().Add(20 * time.Second)
	for tick := time.NewTicker(100 * time.Millisecond); ; <-tick.C {
		_, err := shared.client.UpdateWorkflowExecutionOptions(a.ctx(), request)
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			a.t.Fatalf("pin: %v", err)
		}
	}
	run, _ := a.reset(id, false)
	a.must(shared.client.GetWorkflow(a.ctx(), id, run).Get(a.ctx(), nil))
	if ran.Load() != 3 {
		a.t.Errorf("mallory's code had %d of 3 steps refused", ran.Load())
	}
}

// across signals and starts from a workflow in another namespace.
func (a *adversary) across() {
	name := fmt.Sprint("mallory-", time.Now().UnixNano())
	_, err := shared.client.WorkflowService().RegisterNamespace(a.ctx(), &workflowservice.RegisterNamespaceRequest{Namespace: name, WorkflowExecutionRetentionPeriod: durationpb.New(24 * time.Hour)})
	a.must(err)
	c, err := client.Dial(client.Options{HostPort: shared.address, Namespace: name})
	a.must(err)
	defer c.Close()
	w := worker.New(c, "mallory", worker.Options{})
	w.RegisterWorkflowWithOptions(func(ctx workflow.Context, id string, d workflows.DecisionMade, in workflows.ContainmentInput) (bool, error) {
		ctx = workflow.WithWorkflowNamespace(ctx, "default") //nolint:staticcheck // deprecated because of this very move
		signalled := workflow.SignalExternalWorkflow(ctx, id, "", workflows.SignalDecisionMade, d).Get(ctx, nil)
		ctx = workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{Namespace: "default", TaskQueue: workflows.QueueOrchestrate, WorkflowID: "containment/" + name}) //nolint:staticcheck // the same
		started := workflow.ExecuteChildWorkflow(ctx, workflows.TypeContainment, in).Get(ctx, nil)
		return signalled == nil || started == nil, nil
	}, workflow.RegisterOptions{Name: "across"})
	a.must(w.Start())
	defer w.Stop()
	in := workflows.ContainmentInput{IncidentID: a.plan.IncidentID, Key: a.plan.CorrelationKey, Plan: a.ref(a.digest), Decisions: []authz.Envelope{a.forged}}
	deadline := time.Now().Add(25 * time.Second)
	for tick := time.NewTicker(200 * time.Millisecond); ; <-tick.C { // a namespace is known everywhere after a moment
		r, err := c.ExecuteWorkflow(a.ctx(), client.StartWorkflowOptions{TaskQueue: "mallory", WorkflowTaskTimeout: 5 * time.Second}, "across", a.incidentID(), workflows.DecisionMade{Decision: a.forged}, in)
		if err != nil && time.Now().Before(deadline) {
			continue
		}
		a.must(err)
		for time.Now().Before(deadline) {
			for it := c.GetWorkflowHistory(a.ctx(), r.GetID(), r.GetRunID(), false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT); it.HasNext(); {
				e, err := it.Next()
				a.must(err)
				if f := e.GetWorkflowTaskFailedEventAttributes(); f != nil {
					if !strings.Contains(f.GetFailure().GetMessage(), "cross namespace commands are not allowed") {
						a.t.Errorf("the server says %q", f.GetFailure().GetMessage())
					}
					return
				}
			}
			<-tick.C
		}
		a.t.Fatal("the server did not refuse a command to another namespace")
	}
}

// TestI5ForgedAnswersAreNotTheRecord: a rogue worker takes the enforcers' and the observer's queues and answers "applied" and
// "verified", one answer by the activity's id. Nothing is done to any system, and audit says that the word is nobody's.
func TestI5ForgedAnswersAreNotTheRecord(t *testing.T) {
	if *record {
		t.Skip("SKIP-REASON: the recordings are in the clear, which the command line refuses")
	}
	a := &adversary{ground: prepare(t)}
	o := newOperator(a.ground)
	for _, queue := range []string{workflows.QueueContainAWS, workflows.QueueContainKubernetes, workflows.QueueInvestigate} {
		a.workers[queue].Stop()
		delete(a.workers, queue)
	}
	mallory := authztest.Signer("mallory")
	apply := func(ctx context.Context, in activities.StepInput) (activities.StepOutput, error) {
		p, err := activities.LoadPlan(ctx, a.store, in.Plan)
		if err != nil {
			return activities.StepOutput{}, err
		}
		now := time.Now().UTC().Truncate(time.Millisecond)
		intent := plan.Intent{Key: plan.Key(in.IncidentID, in.Plan, in.Step, 0), IncidentID: in.IncidentID, PlanDigest: in.Plan, Step: p.Steps[in.Step], At: now, Ends: now.Add(time.Hour)}
		r, err := mallory.Sign(authz.TypeReceipt, plan.Receipt{V: 1, By: "contain-kubernetes", Key: intent.Key, IncidentID: in.IncidentID, PlanDigest: in.Plan, Step: in.Step, Action: intent.Step.Action, Phase: plan.Applied, At: now, Ends: intent.Ends})
		return activities.StepOutput{Receipt: r, Intent: intent, Phase: plan.Applied, Summary: "applied"}, err
	}
	lie := activities.VerifyOutput{Finding: plan.Verified, Witnesses: []string{"mallory"}}
	start := func(queue, name string, f any) {
		w := worker.New(shared.client, queue, worker.Options{Identity: "mallory"})
		w.RegisterActivityWithOptions(f, activity.RegisterOptions{Name: name})
		a.must(w.Start())
		t.Cleanup(w.Stop)
	}
	start(workflows.QueueContainAWS, "ApplyStep", apply)
	start(workflows.QueueContainKubernetes, "ApplyStep", apply)
	a.detect(a.w.Envelope)
	v := a.await("stop plan", func(v workflows.StateView) bool { return len(v.Containments) == 1 })
	id := workflows.ContainmentWorkflowID(v.IncidentID, v.Containments[0].Plan)
	var pending string
	a.settled("a step to verify", id, "", func(events []*historypb.HistoryEvent) bool {
		for _, e := range events {
			if s := e.GetActivityTaskScheduledEventAttributes(); s != nil && s.ActivityType.Name == "VerifyStep" {
				pending = s.ActivityId
			}
		}
		return pending != ""
	})
	a.must(shared.client.CompleteActivityByID(a.ctx(), "default", id, "", pending, lie, nil))
	start(workflows.QueueInvestigate, "VerifyStep", func(context.Context, activities.VerifyInput) (activities.VerifyOutput, error) { return lie, nil })
	a.settled("every forged answer", id, "", answered("JudgeObservation", 3, 0))
	v = a.await("containment's word", func(v workflows.StateView) bool { return len(v.Containments) == 1 && len(v.Containments[0].Steps) == 3 })
	for _, s := range v.Containments[0].Steps {
		if s.State != workflows.StepApplied || len(s.Witnesses) > 0 {
			t.Errorf("the record shows %s of %s, by %v", s.State, s.Action, s.Witnesses)
		}
	}
	if got := a.done(); len(got) != 0 {
		t.Errorf("effects: %v", got)
	}
	o.types(0, "audit", "export", v.IncidentID, "-o", "rogue.json")
	said := o.types(4, "audit", "verify", "rogue.json")
	o.sees(said, "failed  statements", "ApplyStep", "VerifyStep")
	if strings.Contains(said, "everything that is claimed holds") {
		t.Errorf("audit believed it:\n%s", said)
	}
}
