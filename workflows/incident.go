package workflows

import (
	"fmt"
	"slices"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"tourniquet.dev/tourniquet/activities"
	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/detection"
	"tourniquet.dev/tourniquet/internal/evidence"
	"tourniquet.dev/tourniquet/internal/incident"
)

// Waits of an incident.
const (
	// settle is how long detections may keep coming before the investigation starts, and for how long at most.
	settle, settleMost = time.Second, 5 * time.Second
	// unattended is how long an incident without a playbook waits for a detection that one takes.
	unattended = time.Hour
	// lateDecision is how long a decision is still taken after every tier has lapsed.
	lateDecision = 24 * time.Hour
	// mostDetections bounds what an incident keeps by name; the rest is counted.
	mostDetections = 256
	// planDetections bounds the detections that a plan rests on.
	planDetections = 64
)

var (
	assessment    *activities.Assessment
	investigation *activities.Investigation
)

// IncidentResult says how an incident ended.
type IncidentResult struct {
	IncidentID string `json:"incident_id"`
	Outcome    string `json:"outcome"`
	Report     string `json:"report"` // digest in the store
}

type incidentRun struct {
	in      IncidentInput
	view    StateView
	triage  activities.TriageOutput
	seen    map[string]bool
	covered []string // stop steps that stand in a stop plan
	keys    []string // access keys that were investigated
	facts   []string
	plans   []activities.PlanRef
	assess  activities.AssessOutput
	card    cardState
	pages   pages
	// evidence is what was gathered, by digest.
	evidence []evidence.Item
	started  int // containments
	dirty    bool
	// counted are the payloads of decisions that counted: decide may signal one twice.
	counted map[string]bool
	// fresh counts detections, so that waits can see new ones.
	fresh int

	detections, decisions, changes workflow.ReceiveChannel
}

// Incident handles all detections under one correlation key: it stops, investigates, quantifies, plans, asks, contains
// by child workflows that outlive it, and accounts. It goes on when it is cancelled; nothing it does is authority.
func Incident(ctx workflow.Context, in IncidentInput) (IncidentResult, error) {
	ctx, _ = workflow.NewDisconnectedContext(ctx)
	r := &incidentRun{in: in, seen: map[string]bool{}, counted: map[string]bool{},
		detections: workflow.GetSignalChannel(ctx, SignalDetectionObserved),
		decisions:  workflow.GetSignalChannel(ctx, SignalDecisionMade),
		changes:    workflow.GetSignalChannel(ctx, SignalContainmentChanged)}
	r.view.Key = in.Key
	if err := workflow.SetQueryHandler(ctx, QueryState, func() (StateView, error) { return r.view, nil }); err != nil {
		return IncidentResult{}, err
	}
	r.state(ctx, incident.Triaged)
	if err := r.open(ctx); err != nil {
		return r.close(ctx, "no playbook takes these detections"), nil //nolint:nilerr // an ending like another
	}
	if err := r.study(ctx); err != nil {
		r.say(ctx, "no plan could be made: "+reason(err))
		r.page(ctx, activities.PageFailed, "no plan could be made, a person has to look: "+reason(err))
	}
	outcome := r.approval(ctx)
	r.follow(ctx)
	for r.pages.sleep(ctx) {
		r.pageAgain(ctx)
	}
	return r.close(ctx, outcome), nil
}

// open waits for the first detections, picks the playbook and applies the stop plan at once.
func (r *incidentRun) open(ctx workflow.Context) error {
	deadline := workflow.Now(ctx).Add(unattended)
	for {
		if !r.awaitDetections(ctx, max(deadline.Sub(workflow.Now(ctx)), time.Second)) {
			return temporal.NewApplicationError("no playbook", "no-playbook")
		}
		if err := r.retriage(ctx); err != nil {
			r.say(ctx, "triage: "+reason(err))
			continue
		}
		if r.triage.Playbook != "" {
			r.updateCard(ctx)
			return nil
		}
	}
}

// retriage judges all detections so far and puts on what of the stop plan is new.
func (r *incidentRun) retriage(ctx workflow.Context) error {
	var out activities.TriageOutput
	actx := workflow.WithActivityOptions(ctx, assessOptions("triage"))
	in := activities.TriageInput{Key: r.in.Key, Detections: r.digests(), Covered: r.covered}
	if err := workflow.ExecuteActivity(actx, assessment.Triage, in).Get(ctx, &out); err != nil {
		return err
	}
	r.dropForged(ctx, out.Forged)
	if out.IncidentID == "" {
		return nil // nothing signed came yet
	}
	before := r.triage.Playbook
	r.triage = out
	r.view.IncidentID, r.view.Playbook, r.view.Gaps = out.IncidentID, out.Playbook, out.Gaps
	if out.Playbook != before {
		r.say(ctx, fmt.Sprintf("%s: playbook %s v%d", out.Subject, out.Playbook, out.Version))
		r.attributes(ctx)
	}
	if out.Stop != nil {
		for _, s := range out.Stop.Steps {
			r.covered = append(r.covered, activities.CoveredKey(s.Action, s.TargetUID))
		}
		r.say(ctx, fmt.Sprintf("stop plan %s: %d pre-authorized steps", short(out.Stop.Digest), len(out.Stop.Steps)))
		r.contain(ctx, *out.Stop, nil)
	}
	return nil
}

// contain starts the containment of a plan as an abandoned child: it outlives this workflow.
func (r *incidentRun) contain(ctx workflow.Context, ref activities.PlanRef, decisions []authz.Envelope) {
	cctx := workflow.WithChildOptions(ctx, childOptions(ContainmentWorkflowID(r.triage.IncidentID, ref.Digest),
		fmt.Sprintf("%s plan %s of %s", ref.Purpose, short(ref.Digest), r.triage.IncidentID)))
	in := ContainmentInput{IncidentID: r.triage.IncidentID, Key: r.in.Key, Plan: ref, Decisions: decisions}
	if err := workflow.ExecuteChildWorkflow(cctx, Containment, in).GetChildWorkflowExecution().Get(ctx, nil); err != nil {
		r.say(ctx, "containment did not start: "+reason(err))
		r.page(ctx, activities.PageFailed, "the containment of plan "+short(ref.Digest)+" did not start")
		return
	}
	r.started++
	r.keep(ctx, ref.Digest, evidence.Plan, ref.Purpose+" plan", QueueOrchestrate)
	r.view.Containments = append(r.view.Containments, ContainmentChanged{Plan: ref.Digest, Purpose: ref.Purpose})
}

// study investigates, quantifies and plans. What cannot be read is a stated gap.
func (r *incidentRun) study(ctx workflow.Context) error {
	r.settle(ctx)
	r.investigate(ctx)
	digests := r.digests()
	actx := workflow.WithActivityOptions(ctx, assessOptions("blast radius and exposure"))
	if err := workflow.ExecuteActivity(actx, assessment.Assess, activities.AssessInput{Key: r.in.Key, Detections: digests, Facts: r.facts, Gaps: r.view.Gaps}).Get(ctx, &r.assess); err != nil {
		return err
	}
	var captured activities.CaptureOutput
	ictx := workflow.WithActivityOptions(ctx, investigateOptions("pre-images"))
	if err := workflow.ExecuteActivity(ictx, investigation.CapturePreImages, activities.CaptureInput{Drafts: r.assess.Drafts}).Get(ctx, &captured); err != nil {
		return err
	}
	r.view.Gaps = append(r.view.Gaps, captured.Gaps...)
	var built activities.BuildOutput
	in := activities.BuildInput{Key: r.in.Key, Detections: digests, Assessment: r.assess.Assessment, Drafts: captured.Drafts}
	if err := workflow.ExecuteActivity(actx, assessment.BuildPlan, in).Get(ctx, &built); err != nil {
		return err
	}
	r.view.Gaps = append(r.view.Gaps, built.Refused...)
	for _, refused := range built.Refused {
		r.say(ctx, refused)
	}
	r.plans, r.view.Assessment, r.view.Options = built.Plans, r.assess.Assessment, nil
	r.keep(ctx, r.assess.Assessment, evidence.Assessment, "facts and playbook", QueueOrchestrate)
	for _, p := range built.Plans {
		r.keep(ctx, p.Digest, evidence.Plan, "option "+p.Option, QueueOrchestrate)
		o := OptionView{Option: p.Option, Plan: p.Digest, Recommended: p.Recommended, Residual: p.Residual}
		for _, s := range p.Steps {
			o.Actions = append(o.Actions, s.Action+" on "+s.Target)
		}
		r.view.Options = append(r.view.Options, o)
	}
	r.say(ctx, fmt.Sprintf("blast radius %.0f of 100, %d options", r.assess.Score, len(built.Plans)))
	r.state(ctx, incident.Prioritized)
	return nil
}

// investigate runs the read-only activities side by side. The workload is read first: it names further keys.
func (r *incidentRun) investigate(ctx workflow.Context) {
	r.facts, r.keys = nil, slices.Clone(r.triage.KeyIDs)
	ictx := workflow.WithActivityOptions(ctx, investigateOptions("workload"))
	workload := workflow.ExecuteActivity(ictx, investigation.InvestigateWorkload, activities.InvestigateInput{Detection: r.view.Detections[0].Digest})
	running := map[string]workflow.Future{}
	start := func(key string) {
		running[key] = workflow.ExecuteActivity(workflow.WithActivityOptions(ctx, investigateOptions("identity "+key)), investigation.InvestigateIdentity,
			activities.InvestigateInput{Detection: r.view.Detections[0].Digest, KeyID: key})
	}
	for _, k := range r.keys {
		start(k)
	}
	for _, k := range r.gather(ctx, "workload", workload).KeyIDs {
		if !slices.Contains(r.keys, k) {
			r.keys = append(r.keys, k)
			start(k)
		}
	}
	for _, k := range r.keys {
		r.gather(ctx, "access key "+k, running[k])
	}
}

func (r *incidentRun) gather(ctx workflow.Context, what string, f workflow.Future) activities.InvestigateOutput {
	var out activities.InvestigateOutput
	if err := f.Get(ctx, &out); err != nil {
		r.view.Gaps = append(r.view.Gaps, what+" could not be read: "+reason(err))
		return out
	}
	if out.Facts != "" {
		r.facts = append(r.facts, out.Facts)
		r.keep(ctx, out.Facts, evidence.Facts, what, QueueInvestigate)
	}
	r.view.Gaps = append(r.view.Gaps, out.Gaps...)
	r.say(ctx, what+": "+out.Summary)
	return out
}

// awaitDetections takes in what is there, and waits for the first when nothing is.
func (r *incidentRun) awaitDetections(ctx workflow.Context, timeout time.Duration) bool {
	before := r.fresh
	r.drain()
	if r.fresh != before {
		return true
	}
	got := false
	tctx, cancel := workflow.WithCancel(ctx)
	defer cancel()
	workflow.NewSelector(ctx).
		AddReceive(r.detections, func(ch workflow.ReceiveChannel, _ bool) { r.take(ctx, ch); got = true }).
		AddFuture(workflow.NewTimerWithOptions(tctx, timeout, workflow.TimerOptions{Summary: "wait for detections"}), func(workflow.Future) {}).
		Select(ctx)
	r.drain()
	return got
}

// settle lets a burst of detections arrive, triaging each lot at once, before the investigation starts.
func (r *incidentRun) settle(ctx workflow.Context) {
	end := workflow.Now(ctx).Add(settleMost)
	for workflow.Now(ctx).Before(end) {
		if !r.awaitDetections(ctx, settle) {
			return
		}
		if err := r.retriage(ctx); err != nil {
			r.say(ctx, "triage: "+reason(err))
		}
	}
}

func (r *incidentRun) drain() {
	var d DetectionObserved
	for r.detections.ReceiveAsync(&d) {
		r.add(d)
		d = DetectionObserved{}
	}
}

func (r *incidentRun) take(ctx workflow.Context, ch workflow.ReceiveChannel) {
	var d DetectionObserved
	ch.Receive(ctx, &d)
	r.add(d)
}

// add takes detections in once each; beyond the bound they are counted only.
func (r *incidentRun) add(d DetectionObserved) {
	for _, o := range d.Detections {
		if r.seen[o.Digest] {
			continue
		}
		if len(r.view.Detections) >= mostDetections {
			r.view.Dropped++
			continue
		}
		r.seen[o.Digest] = true
		r.fresh++
		o.Title = detection.Clean(o.Title, 200)
		r.view.Detections = append(r.view.Detections, o)
		if o.Severity.Rank() > detection.Severity(r.view.Severity).Rank() {
			r.view.Severity = string(o.Severity)
		}
		r.view.Timeline = append(r.view.Timeline, TimelineEntry{At: o.Time, Text: "detected: " + o.Title})
	}
}

func (r *incidentRun) digests() []string {
	var out []string
	for _, d := range r.view.Detections[:min(len(r.view.Detections), planDetections)] {
		out = append(out, d.Digest)
	}
	return out
}

func (r *incidentRun) changed(c ContainmentChanged) {
	i := slices.IndexFunc(r.view.Containments, func(o ContainmentChanged) bool { return o.Plan == c.Plan })
	if i < 0 {
		return // not one of ours: nothing here acts on it
	}
	r.view.Containments[i] = c
	r.dirty = true
}

// follow stays with the incident until no containment holds anything any more.
func (r *incidentRun) follow(ctx workflow.Context) {
	for r.holding() {
		r.turn(ctx, time.Hour, func(ctx workflow.Context, e authz.Envelope) { r.recordDecision(ctx, e) })
	}
	if r.started > 0 {
		r.state(ctx, incident.Recovered)
	}
}

func (r *incidentRun) holding() bool {
	return slices.ContainsFunc(r.view.Containments, func(c ContainmentChanged) bool { return !c.Done })
}

// turn waits for the next thing to happen, at most for d, takes it in, and brings the card up to date.
func (r *incidentRun) turn(ctx workflow.Context, d time.Duration, decide func(workflow.Context, authz.Envelope)) {
	tctx, cancel := workflow.WithCancel(ctx)
	defer cancel()
	d = r.pages.before(workflow.Now(ctx).Add(d)).Sub(workflow.Now(ctx))
	timer := workflow.NewTimerWithOptions(tctx, max(d, time.Millisecond), workflow.TimerOptions{Summary: r.waiting()})
	before := r.fresh
	workflow.NewSelector(ctx).
		AddReceive(r.detections, func(ch workflow.ReceiveChannel, _ bool) { r.take(ctx, ch) }).
		AddReceive(r.changes, func(ch workflow.ReceiveChannel, _ bool) {
			var c ContainmentChanged
			ch.Receive(ctx, &c)
			r.changed(c)
		}).
		AddReceive(r.decisions, func(ch workflow.ReceiveChannel, _ bool) {
			var m DecisionMade
			ch.Receive(ctx, &m)
			decide(ctx, m.Decision)
		}).
		AddFuture(timer, func(workflow.Future) {}).
		Select(ctx)
	r.drain()
	r.pageAgain(ctx)
	for c := (ContainmentChanged{}); r.changes.ReceiveAsync(&c); c = (ContainmentChanged{}) {
		r.changed(c) // many changes, one card
	}
	if r.fresh != before {
		if err := r.retriage(ctx); err != nil {
			r.say(ctx, "triage: "+reason(err))
		}
	}
	if r.dirty {
		r.dirty = false
		workflow.SetCurrentDetails(ctx, r.markdown())
		r.updateCard(ctx)
	}
}

func (r *incidentRun) waiting() string {
	if r.view.Tier != "" {
		return "waiting for " + r.view.Tier
	}
	return "holding"
}
