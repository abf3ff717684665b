package workflows

import (
	"slices"
	"time"

	"go.temporal.io/sdk/workflow"

	"tourniquet.dev/tourniquet/activities"
)

var notification *activities.Notification

// cardState is what the workflow remembers of its card.
type cardState struct {
	channel, ts string
	Deadline    time.Time
	decisions   []activities.CardDecision
	open        bool // options may be decided on
	failed      bool
}

// updateCard posts the card, or brings it up to date. Slack is a projection: when it is down the incident goes on, and
// the next change shows the state as it is then.
func (r *incidentRun) updateCard(ctx workflow.Context) {
	in := r.cardInput()
	activity := any(notification.PostCard)
	if r.card.ts != "" {
		activity = notification.UpdateCard
	}
	var out activities.CardOutput
	actx := workflow.WithActivityOptions(ctx, notifyOptions("card"))
	if err := workflow.ExecuteActivity(actx, activity, in).Get(ctx, &out); err != nil {
		if !r.card.failed {
			r.say(ctx, "the card could not be shown: "+reason(err))
		}
		r.card.failed = true
		return
	}
	r.card.failed = false
	if r.card.ts == "" {
		r.say(ctx, "card posted")
	}
	r.card.channel, r.card.ts = out.Channel, out.TS
	r.view.Card = out.Channel + " " + out.TS
}

func (r *incidentRun) cardInput() activities.CardInput {
	v := r.view
	in := activities.CardInput{IncidentID: v.IncidentID, Key: v.Key, State: v.State, Severity: v.Severity, Playbook: v.Playbook, Subject: r.triage.Subject,
		Identities: r.triage.Identities, Assessment: v.Assessment, Gaps: v.Gaps, Decisions: r.card.decisions, Channel: r.card.channel, TS: r.card.ts}
	for _, d := range v.Detections[:min(len(v.Detections), 10)] {
		in.Detections = append(in.Detections, activities.CardDetection{Rule: d.Rule, Title: d.Title, Attacks: d.Attacks, Time: d.Time})
	}
	if v.Tier != "" {
		in.Tier = &activities.CardTier{Ask: v.Tier, Deadline: r.card.Deadline}
		for _, t := range r.triage.Tiers {
			if t.Ask == v.Tier {
				in.Tier.Quorum = t.Quorum
			}
		}
	}
	if r.card.open {
		for _, p := range r.plans {
			in.Options = append(in.Options, activities.CardOption{Option: p.Option, Plan: p.Digest, Recommended: p.Recommended, Residual: p.Residual, P50: p.P50, P90: p.P90})
		}
	}
	for _, c := range v.Containments {
		if !c.Done {
			in.Held = append(in.Held, activities.CardHeld{Plan: c.Plan, Purpose: c.Purpose})
		}
		for _, s := range c.Steps {
			if s.State == StepReleased || s.State == StepRetired || s.State == StepFailed || s.State == StepRefused {
				s.Ends = time.Time{} // nothing of it is on
			}
			in.Steps = append(in.Steps, activities.CardStep{Purpose: c.Purpose, Action: s.Action, Target: s.Target, State: s.State, Ends: s.Ends, Expiry: s.Expiry, Note: s.Note, Witnesses: s.Witnesses})
		}
	}
	return in
}

// decided notes a decision on the card. Deciding on a plan closes the offer.
func (r *incidentRun) decided(ctx workflow.Context, v activities.JudgeOutput, text string) {
	r.card.decisions = append(r.card.decisions, activities.CardDecision{Kind: string(v.Kind), Person: v.Person, At: workflow.Now(ctx).UTC(), Plan: v.Plan, Reason: v.Reason})
	r.card.decisions = slices.Clone(r.card.decisions[max(0, len(r.card.decisions)-10):])
	r.say(ctx, text)
}
