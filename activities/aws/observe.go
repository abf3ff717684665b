package aws

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"

	"tourniquet.dev/tourniquet/activities"
	"tourniquet.dev/tourniquet/internal/plan"
)

// probes are the actions that the policy simulator is asked about. GetCallerIdentity is none: it is never denied.
var probes = []string{"s3:ListAllMyBuckets", "sts:AssumeRole", "iam:CreateAccessKey"}

// sight gathers what an observation sees.
type sight struct {
	since   time.Time // T0: when the change was made, by AWS's clock
	settled time.Time // from then on authorization is taken to have followed
	now     time.Time // by AWS's clock

	broken, gaps bool
	witnesses    []string
}

func (o *sight) saw(format string, args ...any) {
	o.witnesses = append(o.witnesses, fmt.Sprintf(format, args...))
}

// breaks records that the effect is not there.
func (o *sight) breaks(format string, args ...any) { o.broken = true; o.saw(format, args...) }

// gap records something that could not be looked at: the effect is then asserted at best.
func (o *sight) gap(format string, args ...any) { o.gaps = true; o.saw("not seen: "+format, args...) }

// readBack records what the control plane shows of a target. An object that is gone or replaced breaks the hold; any
// other error ends the observation.
func (o *sight) readBack(t plan.Target, err error, on bool, yes, no string) error {
	switch {
	case errors.Is(err, activities.ErrConflict):
		o.breaks("%s: %v", t, err)
	case err != nil:
		return fmt.Errorf("verify %s: %w", t, err)
	case on:
		o.saw("read back by the read-only role at %s: %s %s", o.now.Format(time.RFC3339), t, yes)
	default:
		o.breaks("read back by the read-only role at %s: %s %s", o.now.Format(time.RFC3339), t, no)
	}
	return nil
}

// observe runs look and words its finding. It never waits: before authorization has had time to follow, a change that
// reads back is asserted, and the caller asks again later.
func (s *System) observe(ctx context.Context, in plan.Intent, r plan.Receipt, look func(*sight) error) (plan.Observation, error) {
	out := plan.Observation{V: 1, Key: in.Key, IncidentID: in.IncidentID, PlanDigest: in.PlanDigest, Step: in.Step.Index,
		Action: in.Step.Action, Finding: plan.NotHolding}
	now, err := s.prove(ctx)
	if err != nil {
		return out, err
	}
	o := &sight{since: r.At.UTC(), now: now}
	if at, err := time.Parse(time.RFC3339, r.Detail[detailTime]); err == nil {
		o.since = at
	}
	o.settled = o.since.Add(s.options.Settle)
	if err := look(o); err != nil {
		return out, err
	}
	switch {
	case o.broken:
	case now.Before(o.settled):
		o.saw("authorization may lag behind the control plane until %s", o.settled.Format(time.RFC3339))
		out.Finding = plan.Asserted
	case o.gaps || len(in.Targets) == 0:
		out.Finding = plan.Asserted
	default:
		o.saw("verified at the control plane, %s after the change", now.Sub(o.since).Round(time.Second))
		out.Finding = plan.Verified
	}
	out.At, out.Witnesses = s.now(), o.witnesses
	return out, nil
}

// simulate asks IAM's simulator whether the principal's policies now deny everything explicitly; issued, where given,
// is when the simulated session was minted.
func (s *System) simulate(ctx context.Context, o *sight, p principal, issued *time.Time) {
	in := &iam.SimulatePrincipalPolicyInput{PolicySourceArn: &p.ARN, ActionNames: probes}
	if issued != nil {
		in.ContextEntries = []types.ContextEntry{{ContextKeyName: sdk.String(tokenIssueTime), ContextKeyType: types.ContextKeyTypeEnumDate,
			ContextKeyValues: []string{issued.UTC().Format(time.RFC3339)}}}
	}
	answers := map[string]types.PolicyEvaluationDecisionType{}
	pages := iam.NewSimulatePrincipalPolicyPaginator(s.iam, in)
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			o.gap("the policy simulator did not answer: %v", callError("simulate "+p.ARN, err, false))
			return
		}
		for _, result := range page.EvaluationResults {
			answers[sdk.ToString(result.EvalActionName)] = result.EvalDecision
		}
	}
	denied := 0
	for _, action := range probes {
		if answers[action] != types.PolicyEvaluationDecisionTypeExplicitDeny {
			o.breaks("SimulatePrincipalPolicy answers %q for %s as %s", answers[action], action, p.ARN)
			continue
		}
		denied++
	}
	if denied == len(probes) {
		o.saw("SimulatePrincipalPolicy answers explicitDeny for %v as %s", probes, p.ARN)
	}
}

// lastUse compares IAM's own note of the key's last use with the change.
func (s *System) lastUse(ctx context.Context, o *sight, key string) {
	out, err := s.iam.GetAccessKeyLastUsed(ctx, &iam.GetAccessKeyLastUsedInput{AccessKeyId: &key})
	if err != nil {
		o.gap("the last use of %s: %v", key, callError("read the last use", err, false))
		return
	}
	last := (*time.Time)(nil)
	if out.AccessKeyLastUsed != nil {
		last = out.AccessKeyLastUsed.LastUsedDate
	}
	switch {
	case last == nil:
		o.saw("IAM knows no use of %s", key)
	case last.After(o.settled):
		o.breaks("IAM notes a use of %s at %s, after the change", key, last.UTC().Format(time.RFC3339))
	default:
		o.saw("IAM notes the last use of %s at %s (the note may lag)", key, last.UTC().Format(time.RFC3339))
	}
}

// auditKey looks in the audit log for calls of the key that still went through. Silence proves little: the log is late
// and holds no data events, so it adds no certainty, and an event takes it away.
func (s *System) auditKey(ctx context.Context, o *sight, key string) {
	events, err := s.eventsOf(ctx, key, o.settled)
	if err != nil {
		o.gap("the audit log for %s: %v", key, err)
		return
	}
	if through := slices.DeleteFunc(events, func(e trailEvent) bool { return !e.wentThrough(o.settled) }); len(through) > 0 {
		e := through[0]
		o.breaks("audit log: %s by %s from %.64s succeeded at %s, after the change (%d such calls)", e.Name, key, e.SourceIP, e.Time.Format(time.RFC3339), len(through))
		return
	}
	o.saw("audit log: no successful call of %s is visible since %s (it comes late and without data events)", key, o.settled.Format(time.RFC3339))
}

// auditRole does the same for the sessions that the audit log saw minted for the role in the time a session can last;
// issued tells that sessions minted after the change are left in peace.
func (s *System) auditRole(ctx context.Context, o *sight, p principal, issued *time.Time) {
	minted, err := s.sessionsOfRole(ctx, p.ARN, o.since.Add(-longestSession))
	if err != nil {
		o.gap("the audit log for sessions of %s: %v", p.ARN, err)
		return
	}
	n := 0
	for _, session := range minted {
		if issued != nil && session.IssuedAt.After(o.since) {
			continue
		}
		if n++; n > maxAudited {
			o.gap("%d more sessions of %s were not looked up", len(minted)-maxAudited, p.ARN)
			return
		}
		s.auditKey(ctx, o, session.KeyID)
	}
	if n == 0 {
		o.saw("audit log: no session of %s is visible since %s", p.ARN, o.since.Add(-longestSession).Format(time.RFC3339))
	}
}
