package workflows

import (
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"tourniquet.dev/tourniquet/activities"
	"tourniquet.dev/tourniquet/internal/plan"
)

// verifyDelays bound how often an effect is looked at: IAM needs seconds to act, a node a moment to answer.
var verifyDelays = []time.Duration{0, time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 15 * time.Second, 30 * time.Second, time.Minute}

// verify has the read-only role look at the effect until it is seen, or the looks are used up.
func (c *containment) verify(ctx workflow.Context, s *stepState) {
	for _, d := range verifyDelays {
		c.wait(ctx, d, "look at "+s.ref.Action)
		if !s.on {
			return
		}
		actx := workflow.WithActivityOptions(ctx, workflow.ActivityOptions{TaskQueue: QueueInvestigate, Summary: "verify " + s.ref.Action,
			StartToCloseTimeout: 30 * time.Second, RetryPolicy: &temporal.RetryPolicy{MaximumAttempts: 3, NonRetryableErrorTypes: []string{activities.TypeRefused}}})
		var out activities.VerifyOutput
		err := workflow.ExecuteActivity(actx, observer.VerifyStep, activities.VerifyInput{Intent: s.intent, Receipt: s.receipt, NodeReceipts: c.nodes}).Get(ctx, &out)
		if err == nil {
			err = c.signed(ctx, s, out)
		}
		if !s.on {
			return
		}
		switch {
		case err != nil:
			s.view.Note = "not observed: " + reason(err)
		case out.Finding == plan.Verified:
			s.view.State, s.view.Witnesses, s.view.Note = StepVerified, out.Witnesses, s.intent.Authority
		case out.Finding == plan.Asserted:
			s.view.State, s.view.Witnesses = StepAsserted, out.Witnesses
		default:
			s.view.State, s.view.Witnesses = StepBroken, out.Witnesses
		}
		if s.view.State == StepVerified || (s.view.State == StepAsserted && !s.ref.Observable) {
			c.tell(ctx)
			return
		}
	}
	c.tell(ctx)
	if s.view.State != StepVerified {
		c.page(ctx, activities.PageFailed, s.ref.Action+" could not be verified: "+s.view.State)
	}
}

// signed has an answer judged: whoever polls the queue may have given it.
func (c *containment) signed(ctx workflow.Context, s *stepState, answer activities.VerifyOutput) error {
	if workflow.GetVersion(ctx, "judge-observation", workflow.DefaultVersion, 1) == workflow.DefaultVersion {
		return nil
	}
	var verdict activities.ObservationOutput
	jctx := workflow.WithActivityOptions(ctx, assessOptions("judge an observation"))
	if err := workflow.ExecuteActivity(jctx, assessment.JudgeObservation, activities.ObservationInput{Intent: s.intent, Answer: answer}).Get(ctx, &verdict); err != nil {
		return err
	}
	if !verdict.Valid {
		return temporal.NewApplicationError(verdict.Why, activities.TypeRefused)
	}
	return nil
}

// wait sleeps, but not longer than until a node says something new.
func (c *containment) wait(ctx workflow.Context, d time.Duration, summary string) {
	if d == 0 {
		return
	}
	before := c.news
	_, _ = workflow.AwaitWithOptions(ctx, workflow.AwaitOptions{Timeout: d, TimerOptions: workflow.TimerOptions{Summary: summary}}, func() bool { return c.news != before })
}
