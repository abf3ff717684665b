package workflows

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"tourniquet.dev/tourniquet/activities"
	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/plan"
)

// The step states of a StepView.
const (
	StepIntended = "intended"
	StepApplied  = "applied"
	StepAsserted = "asserted"
	StepVerified = "verified"
	StepReleased = "released"
	StepRetired  = "retired"
	StepFailed   = "failed"
	StepRefused  = "refused"
	StepBroken   = "broken"
	// StepUnknown is a step whose enforcer has not answered: it may be on.
	StepUnknown = "unknown"
)

// ContainmentInput starts the containment of one stored plan. It names the plan; enforcers load it by its digest.
type ContainmentInput struct {
	IncidentID string             `json:"incident_id"`
	Key        string             `json:"key"`
	Plan       activities.PlanRef `json:"plan"`
	Decisions  []authz.Envelope   `json:"decisions,omitempty"`
}

// ContainmentResult is how every step ended.
type ContainmentResult struct {
	Steps []StepView `json:"steps"`
}

// stepState is one step as the workflow follows it.
type stepState struct {
	ref     activities.StepRef
	view    StepView
	intent  plan.Intent
	receipt authz.Envelope
	on      bool // its effect stands, as far as the workflow knows
	ends    time.Time
}

type containment struct {
	in    ContainmentInput
	steps []*stepState
	nodes []authz.Envelope // receipts of nodes
	news  int              // counts node receipts, to wake verifications
	early []authz.Envelope // decisions that came while steps were being applied
	pages pages
	note  string
	ended bool
}

var (
	gate     *activities.Gate     // names activities, never called
	observer *activities.Observer // the same
)

// Containment applies in.Plan step by step, has each effect verified by the read-only role, and holds until every
// step is released, retired or expired. A failed step leaves the cuts that stand and pages; a failed atomic group
// comes off. It goes on when it is cancelled: only signed decisions and clocks take a cut off.
func Containment(ctx workflow.Context, in ContainmentInput) (ContainmentResult, error) {
	ctx, _ = workflow.NewDisconnectedContext(ctx)
	c := &containment{in: in}
	for _, ref := range in.Plan.Steps {
		c.steps = append(c.steps, &stepState{ref: ref, view: StepView{Plan: in.Plan.Digest, Index: ref.Index, Action: ref.Action, Target: ref.Target, State: StepIntended, Expiry: ref.Expiry}})
	}
	if err := workflow.SetQueryHandler(ctx, QueryState, func() (ContainmentChanged, error) { return c.changed(), nil }); err != nil {
		return ContainmentResult{}, err
	}
	workflow.Go(ctx, c.listen)
	for _, group := range c.groups() {
		if err := c.apply(ctx, group); err != nil {
			c.fail(ctx, group, err)
		}
	}
	c.hold(ctx)
	return ContainmentResult{Steps: c.changed().Steps}, nil
}

func (c *containment) groups() [][]*stepState {
	var out [][]*stepState
	for i, s := range c.steps {
		if s.ref.Group != 0 && i > 0 && c.steps[i-1].ref.Group == s.ref.Group {
			out[len(out)-1] = append(out[len(out)-1], s)
			continue
		}
		out = append(out, []*stepState{s})
	}
	return out
}

// listen takes in what nodes say, at any time.
func (c *containment) listen(ctx workflow.Context) {
	ch := workflow.GetSignalChannel(ctx, SignalReceiptObserved)
	for !c.ended {
		var r ReceiptObserved
		ch.Receive(ctx, &r)
		if len(c.nodes) < 256 {
			c.nodes = append(c.nodes, r.Receipt)
		} else {
			c.nodes = append(c.nodes[:1:1], c.nodes[2:]...)
			c.nodes = append(c.nodes, r.Receipt)
		}
		c.news++
	}
}

func effectOptions(queue, summary string) workflow.ActivityOptions {
	// Longer than the gate's own patience: it says itself what became of a step.
	return workflow.ActivityOptions{TaskQueue: queue, Summary: summary, StartToCloseTimeout: 30 * time.Second, ScheduleToCloseTimeout: activities.StepPatience + 5*time.Minute,
		RetryPolicy: &temporal.RetryPolicy{InitialInterval: 200 * time.Millisecond, BackoffCoefficient: 2, MaximumInterval: 15 * time.Second,
			NonRetryableErrorTypes: []string{activities.TypeRefused, activities.TypeConflict, activities.TypeStanding, activities.TypeInput}}}
}

func (c *containment) input(s *stepState, decisions []authz.Envelope) activities.StepInput {
	return activities.StepInput{IncidentID: c.in.IncidentID, Plan: c.in.Plan.Digest, Step: s.ref.Index, Decisions: decisions}
}

// apply puts a group on, in order, and starts the verification of each step.
func (c *containment) apply(ctx workflow.Context, group []*stepState) error {
	for _, s := range group {
		actx := workflow.WithActivityOptions(ctx, effectOptions(s.ref.Queue, s.ref.Action+" on "+s.ref.Target))
		var out activities.StepOutput
		if err := workflow.ExecuteActivity(actx, gate.ApplyStep, c.input(s, c.decisions(ctx))).Get(ctx, &out); err != nil {
			c.failed(ctx, s, err)
			return err
		}
		s.on, s.intent, s.receipt, s.ends = true, out.Intent, out.Receipt, out.Intent.Ends
		s.view.State, s.view.Ends, s.view.AppliedAt, s.view.Note = StepApplied, out.Intent.Ends, out.Intent.At, out.Intent.Authority
		c.tell(ctx)
		workflow.Go(ctx, func(ctx workflow.Context) { c.verify(ctx, s) })
	}
	return nil
}

// decisions are what the plan was approved by and what came since: a deny that comes before the effect still wins.
func (c *containment) decisions(ctx workflow.Context) []authz.Envelope {
	ch := workflow.GetSignalChannel(ctx, SignalDecisionMade)
	for d := (DecisionMade{}); len(c.early) < 16 && ch.ReceiveAsync(&d); d = (DecisionMade{}) {
		c.early = append(c.early, d.Decision)
	}
	return slices.Concat(c.in.Decisions, c.early)
}

// failed notes a step that was not applied. Unless its enforcer says that nothing of it stands, it counts as on: it is
// ended, released and shown like one that was.
func (c *containment) failed(ctx workflow.Context, s *stepState, err error) {
	s.view.State, s.view.Note = StepFailed, reason(err)
	switch {
	case isType(err, activities.TypeRefused):
		s.view.State = StepRefused
		return
	case isType(err, activities.TypeConflict), isType(err, activities.TypeInput):
		return
	case !isType(err, activities.TypeStanding):
		s.view.State = StepUnknown
	}
	s.on, s.ends = true, workflow.Now(ctx).Add(time.Duration(s.ref.DurationSeconds)*time.Second)
	s.view.Ends = s.ends
}

// fail leaves a single step's neighbours alone; an atomic group comes off in reverse. Either way somebody is paged.
func (c *containment) fail(ctx workflow.Context, group []*stepState, cause error) {
	for i := len(group) - 1; i >= 0; i-- {
		s := group[i]
		if s.ref.Group == 0 || !s.on {
			continue
		}
		_ = c.undo(ctx, s, gate.UndoStep, StepReleased, nil) // what stays on stands in its note, and the page follows
	}
	c.tell(ctx)
	failed := group[0]
	for _, s := range group {
		if s.view.State == StepFailed || s.view.State == StepRefused || s.view.State == StepUnknown {
			failed = s
		}
	}
	c.page(ctx, activities.PageFailed, fmt.Sprintf("%s on %s: %s", failed.ref.Action, failed.ref.Target, reason(cause)))
}

// undo ends one step; what the gate refuses or cannot do leaves it on and says so.
func (c *containment) undo(ctx workflow.Context, s *stepState, activity any, state string, decisions []authz.Envelope) error {
	actx := workflow.WithActivityOptions(ctx, effectOptions(s.ref.Queue, "end "+s.ref.Action+" on "+s.ref.Target))
	var out activities.StepOutput
	if err := workflow.ExecuteActivity(actx, activity, c.input(s, decisions)).Get(ctx, &out); err != nil {
		if isCode(err, authz.CodeNeverBegun) {
			s.on, s.view.State, s.view.Note = false, StepFailed, reason(err)
			return nil
		}
		s.view.Note = "still on: " + reason(err)
		return err
	}
	s.on, s.view.State, s.view.Note = false, state, out.Summary
	return nil
}

// hold waits for decisions, clocks and enforcers' words until nothing is on any more.
func (c *containment) hold(ctx workflow.Context) {
	decisions := workflow.GetSignalChannel(ctx, SignalDecisionMade)
	broken := workflow.GetSignalChannel(ctx, SignalHoldBroken)
	var made []authz.Envelope
	for _, e := range c.early {
		made = c.decision(ctx, made, e)
	}
	for c.anyOn() {
		c.pages.again(ctx)
		tctx, cancel := workflow.WithCancel(ctx)
		due, next := c.next()
		next = c.pages.before(next)
		timer := workflow.NewTimerWithOptions(tctx, max(next.Sub(workflow.Now(ctx)), time.Second), workflow.TimerOptions{Summary: due.view.Expiry + " of " + due.ref.Action})
		workflow.NewSelector(ctx).
			AddReceive(decisions, func(ch workflow.ReceiveChannel, _ bool) {
				var d DecisionMade
				ch.Receive(ctx, &d)
				made = c.decision(ctx, made, d.Decision)
			}).
			AddReceive(broken, func(ch workflow.ReceiveChannel, _ bool) {
				var b HoldBroken
				ch.Receive(ctx, &b)
				c.broken(ctx, b)
			}).
			AddFuture(timer, func(workflow.Future) { c.due(ctx, due) }).
			Select(ctx)
		cancel()
	}
	c.ended = true
	c.tell(ctx)
	for c.pages.sleep(ctx) {
		c.pages.again(ctx)
	}
}

func (c *containment) anyOn() bool {
	for _, s := range c.steps {
		if s.on {
			return true
		}
	}
	return false
}

// next is the step whose time comes first.
func (c *containment) next() (*stepState, time.Time) {
	var first *stepState
	for _, s := range c.steps {
		if s.on && (first == nil || s.ends.Before(first.ends)) {
			first = s
		}
	}
	return first, first.ends
}

// due: a step that comes off by itself is taken off by its enforcer's clock; asking is only to hear that it did. A
// step under review stays on, and people are asked again.
func (c *containment) due(ctx workflow.Context, s *stepState) {
	if !s.on || workflow.Now(ctx).Before(s.ends) {
		return
	}
	if s.ref.Expiry == string(plan.Review) {
		s.ends = s.ends.Add(time.Duration(s.ref.DurationSeconds) * time.Second)
		c.page(ctx, activities.PageReview, s.ref.Action+" on "+s.ref.Target+" is due for review: it stays on until somebody releases or retires it")
		return
	}
	if err := c.undo(ctx, s, gate.UndoStep, StepReleased, nil); err != nil {
		s.ends = workflow.Now(ctx).Add(time.Minute)
		c.page(ctx, activities.PageFailed, "the end of "+s.ref.Action+" has come and it is still on: "+reason(err))
	}
	c.tell(ctx)
}

// decision carries a release, retire or extend to every step that is on. Whether it counts, the gate says.
func (c *containment) decision(ctx workflow.Context, made []authz.Envelope, e authz.Envelope) []authz.Envelope {
	if slices.ContainsFunc(made, func(o authz.Envelope) bool { return o.Payload == e.Payload }) {
		return made // signalled twice
	}
	var verdict activities.JudgeOutput
	jctx := workflow.WithActivityOptions(ctx, assessOptions("judge a decision"))
	if err := workflow.ExecuteActivity(jctx, assessment.JudgeDecision, activities.JudgeInput{Plans: []string{c.in.Plan.Digest}, Decision: e, Decisions: made}).Get(ctx, &verdict); err != nil || !verdict.Valid {
		c.note = "a decision had no effect: " + verdict.Code
		return made
	}
	made = append(made, e)
	if !verdict.Allowed {
		c.note = verdict.Code + ": " + verdict.Why
		c.tell(ctx)
		return made
	}
	for i := len(c.steps) - 1; i >= 0; i-- {
		s := c.steps[i]
		if !s.on {
			continue
		}
		switch verdict.Kind {
		case authz.Release:
			_ = c.undo(ctx, s, gate.UndoStep, StepReleased, made)
		case authz.Retire:
			_ = c.undo(ctx, s, gate.RetireStep, StepRetired, made)
		case authz.Extend:
			c.extend(ctx, s, made)
		}
	}
	c.note = verdict.Authority
	c.tell(ctx)
	if verdict.Kind != authz.Extend && c.anyOn() {
		c.page(ctx, activities.PageFailed, "a "+string(verdict.Kind)+" left steps on")
	}
	return made
}

func (c *containment) extend(ctx workflow.Context, s *stepState, decisions []authz.Envelope) {
	actx := workflow.WithActivityOptions(ctx, effectOptions(s.ref.Queue, "extend "+s.ref.Action))
	var out activities.StepOutput
	if err := workflow.ExecuteActivity(actx, gate.ExtendStep, c.input(s, decisions)).Get(ctx, &out); err != nil {
		s.view.Note = "not extended: " + reason(err)
		return
	}
	s.intent, s.receipt, s.ends, s.view.Ends, s.view.Note = out.Intent, out.Receipt, out.Intent.Ends, out.Intent.Ends, out.Summary
}

func (c *containment) broken(ctx workflow.Context, b HoldBroken) {
	for _, s := range c.steps {
		if s.ref.Index != b.Step || !s.on {
			continue
		}
		s.view.State, s.view.Note = StepBroken, b.By
		if b.Reasserted {
			s.view.State, s.view.Note = StepApplied, "put back; "+b.By
			workflow.Go(ctx, func(ctx workflow.Context) { c.verify(ctx, s) })
		}
		c.page(ctx, activities.PageBroken, s.ref.Action+" was undone ("+b.By+")")
	}
	c.tell(ctx)
}

func (c *containment) changed() ContainmentChanged {
	out := ContainmentChanged{Plan: c.in.Plan.Digest, Purpose: c.in.Plan.Purpose, Note: c.note, Done: c.ended}
	for _, s := range c.steps {
		out.Steps = append(out.Steps, s.view)
	}
	return out
}

// tell lets the incident know. The incident may be gone; that changes nothing here.
func (c *containment) tell(ctx workflow.Context) {
	workflow.SetCurrentDetails(ctx, stepsMarkdown(c.changed()))
	_ = workflow.SignalExternalWorkflow(ctx, IncidentWorkflowID(c.in.Key), "", SignalContainmentChanged, c.changed()).Get(ctx, nil)
}

// page asks for a person, until one was reached.
func (c *containment) page(ctx workflow.Context, why activities.PageReason, text string) {
	c.note = text
	if err := c.pages.send(ctx, activities.PageInput{IncidentID: c.in.IncidentID, Reason: why, Text: text}); err != nil {
		c.note += " (nobody was reached yet: " + reason(err) + ")"
	}
	c.tell(ctx)
}

// reason is an error's innermost message: Temporal's wrapping says nothing to people.
func reason(err error) string {
	var app *temporal.ApplicationError
	if errors.As(err, &app) {
		return app.Message()
	}
	return err.Error()
}

func isCode(err error, code authz.Code) bool {
	var app *temporal.ApplicationError
	var found string
	return errors.As(err, &app) && app.HasDetails() && app.Details(&found) == nil && found == string(code)
}

func isType(err error, name string) bool {
	var app *temporal.ApplicationError
	return errors.As(err, &app) && app.Type() == name
}
