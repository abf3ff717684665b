package workflows

import (
	"fmt"
	"slices"
	"time"

	"go.temporal.io/sdk/workflow"

	"tourniquet.dev/tourniquet/activities"
	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/incident"
)

// approval asks the tiers in turn until a decision carries a plan, somebody denies, or all have lapsed. Then the stop
// plan stays, the fallback is put on and someone is paged; a late decision still counts while something is held.
func (r *incidentRun) approval(ctx workflow.Context) (outcome string) {
	if len(r.plans) == 0 {
		return "no plan was made"
	}
	a := &approvalRun{r: r, made: map[string][]authz.Envelope{}}
	r.card.open = true
	defer r.closeOffer()
	for i, t := range r.triage.Tiers {
		timeout := time.Duration(t.TimeoutSeconds) * time.Second
		r.view.Tier, r.card.Deadline = t.Ask, workflow.Now(ctx).Add(timeout)
		if i > 0 {
			r.state(ctx, incident.Escalated)
			r.page(ctx, activities.PageEscalated, fmt.Sprintf("nobody of %s decided in time; %s is asked now", r.triage.Tiers[i-1].Ask, t.Ask))
		}
		r.attributes(ctx)
		r.say(ctx, fmt.Sprintf("asking %s until %s", t.Ask, r.card.Deadline.Format("15:04:05")))
		r.updateCard(ctx)
		if a.ask(ctx, timeout) {
			return a.outcome
		}
	}
	r.view.Tier = ""
	r.say(ctx, "every tier has lapsed")
	r.page(ctx, activities.PageLapsed, "nobody decided: the stop plan stays, the fallback is put on, a decision is still taken")
	r.fallback(ctx)
	end := workflow.Now(ctx).Add(lateDecision)
	for r.holding() && workflow.Now(ctx).Before(end) {
		if a.ask(ctx, min(time.Hour, end.Sub(workflow.Now(ctx)))) {
			return a.outcome
		}
	}
	return "nobody decided"
}

// closeOffer ends what may be decided on; a late click is told so.
func (r *incidentRun) closeOffer() { r.card.open, r.view.Options = false, nil }

type approvalRun struct {
	r       *incidentRun
	made    map[string][]authz.Envelope // valid approvals by plan digest
	outcome string
	over    bool
}

// ask waits for decisions until the timeout. Half-way it reminds the tier that is asked.
func (a *approvalRun) ask(ctx workflow.Context, timeout time.Duration) bool {
	start := workflow.Now(ctx)
	reminded := timeout < 2*time.Minute || a.r.view.Tier == ""
	for !a.over {
		left := timeout - workflow.Now(ctx).Sub(start)
		if left <= 0 {
			return false
		}
		wait := left
		if !reminded {
			wait = min(left, timeout/2-workflow.Now(ctx).Sub(start))
			if wait <= 0 {
				reminded = true
				a.r.page(ctx, activities.PageReminder, "still waiting for "+a.r.view.Tier)
				continue
			}
		}
		keys := len(a.r.triage.KeyIDs)
		a.r.turn(ctx, wait, a.decision)
		if !a.over && len(a.r.triage.KeyIDs) > keys {
			a.replan(ctx)
		}
	}
	return true
}

// replan makes new plans when detections named identities that the old ones do not cover. The old ones are no longer
// on offer: what people decided on them does not carry over.
func (a *approvalRun) replan(ctx workflow.Context) {
	a.r.say(ctx, "a detection named another identity: the plans are made anew")
	if err := a.r.study(ctx); err != nil {
		a.r.say(ctx, "the new plans could not be made, the old ones stay: "+reason(err))
		return
	}
	a.made = map[string][]authz.Envelope{}
	a.r.updateCard(ctx)
}

// decision has a signed statement judged by an activity, so that history keeps the verdict.
func (a *approvalRun) decision(ctx workflow.Context, e authz.Envelope) {
	r := a.r
	var plans []string
	for _, p := range r.plans {
		plans = append(plans, p.Digest)
	}
	v, ok := r.judge(ctx, plans, e, a.made)
	if !ok {
		return
	}
	switch {
	case v.Kind == authz.Deny && v.Allowed:
		a.over, a.outcome = true, "denied by "+v.Person
		r.view.Tier = ""
		r.closeOffer()
		r.decided(ctx, v, fmt.Sprintf("%s denied plan %s: %s", v.Person, short(v.Plan), v.Reason))
		r.updateCard(ctx)
	case v.Kind == authz.Approve && v.Allowed:
		a.made[v.Plan] = append(a.made[v.Plan], e)
		a.over, a.outcome = true, v.Authority
		i := slices.IndexFunc(r.plans, func(p activities.PlanRef) bool { return p.Digest == v.Plan })
		r.view.Tier = ""
		r.closeOffer()
		r.decided(ctx, v, fmt.Sprintf("plan %s %s: %s", short(v.Plan), v.Authority, v.Reason))
		r.contain(ctx, r.plans[i], a.made[v.Plan])
		r.state(ctx, incident.Contained)
		r.updateCard(ctx)
	case v.Kind == authz.Approve && v.Code == string(authz.CodeQuorum):
		a.made[v.Plan] = append(a.made[v.Plan], e)
		r.say(ctx, fmt.Sprintf("%s approved plan %s; %s", v.Person, short(v.Plan), v.Why))
		r.updateCard(ctx)
	default:
		r.refuse(ctx, v)
	}
}

// judge returns the verdict, and false when the statement is not what it claims or came before.
func (r *incidentRun) judge(ctx workflow.Context, plans []string, e authz.Envelope, made map[string][]authz.Envelope) (activities.JudgeOutput, bool) {
	var earlier []authz.Envelope
	for _, p := range plans {
		earlier = append(earlier, made[p]...)
	}
	if r.counted[e.Payload] || slices.ContainsFunc(earlier, func(o authz.Envelope) bool { return o.Payload == e.Payload }) {
		return activities.JudgeOutput{}, false
	}
	var v activities.JudgeOutput
	actx := workflow.WithActivityOptions(ctx, assessOptions("judge a decision"))
	in := activities.JudgeInput{Plans: plans, Decision: e, Decisions: earlier}
	if err := workflow.ExecuteActivity(actx, assessment.JudgeDecision, in).Get(ctx, &v); err != nil {
		v.Code, v.Why = "not-judged", reason(err)
	}
	if !v.Valid {
		r.refuse(ctx, v)
		return v, false
	}
	if v.Allowed {
		r.counted[e.Payload] = true
	}
	return v, true
}

func (r *incidentRun) refuse(ctx workflow.Context, v activities.JudgeOutput) {
	line := fmt.Sprintf("%s by %s had no effect: %s (%s)", orElse(string(v.Kind), "decision"), orElse(v.Person, "an unknown sender"), v.Why, v.Code)
	if len(r.view.Refused) < 100 {
		r.view.Refused = append(r.view.Refused, line)
	}
	r.say(ctx, line)
	r.updateCard(ctx)
}

// recordDecision takes note of what was decided on a plan that is on; the containment hears of it by itself.
func (r *incidentRun) recordDecision(ctx workflow.Context, e authz.Envelope) {
	var plans []string
	for _, c := range r.view.Containments {
		plans = append(plans, c.Plan)
	}
	v, ok := r.judge(ctx, plans, e, nil)
	switch {
	case !ok:
	case v.Allowed && v.Kind == authz.Deny:
		r.decided(ctx, v, fmt.Sprintf("%s denied plan %s after it was approved: what was not applied yet stays off, what is on needs a release: %s", v.Person, short(v.Plan), v.Reason))
		r.updateCard(ctx)
	case v.Allowed && v.Kind != authz.Approve:
		r.decided(ctx, v, fmt.Sprintf("%s of plan %s by %s: %s", v.Kind, short(v.Plan), v.Person, v.Reason))
		r.updateCard(ctx)
	default:
		r.refuse(ctx, v)
	}
}

func (r *incidentRun) fallback(ctx workflow.Context) {
	var out activities.TriageOutput
	actx := workflow.WithActivityOptions(ctx, assessOptions("fallback plan"))
	if err := workflow.ExecuteActivity(actx, assessment.Fallback, activities.TriageInput{Key: r.in.Key, Detections: r.digests()}).Get(ctx, &out); err != nil {
		r.say(ctx, "fallback: "+reason(err))
		return
	}
	for _, refused := range out.Gaps {
		r.say(ctx, refused)
	}
	if out.Stop != nil {
		r.contain(ctx, *out.Stop, nil)
		r.updateCard(ctx)
	}
}
