package aws

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iam"

	"tourniquet.dev/tourniquet/internal/blast/iampolicy"
	"tourniquet.dev/tourniquet/internal/plan"
)

const (
	tokenIssueTime = "aws:TokenIssueTime"
	// issueMargin makes up for a session minted in the very second of the change.
	issueMargin = time.Second
	// detailMode is the receipt's detail that says how the sessions were revoked.
	detailMode = "mode"
)

// sessionsReader observes aws/revoke-sessions: the step names a role.
type sessionsReader struct{ *System }

// Expand returns the role as it is now: its sessions cannot be listed, they are denied through it.
func (s sessionsReader) Expand(ctx context.Context, step plan.Step) ([]plan.Target, error) {
	p, err := s.lookUp(ctx, step.Target)
	if err != nil {
		return nil, err
	}
	return []plan.Target{s.target(p)}, nil
}

// Capture records which of our denies stand on the role already.
func (s sessionsReader) Capture(ctx context.Context, _ plan.Step, t plan.Target) (plan.PreImage, error) {
	if s.options.Mode == Leashed {
		return s.quarantineLever().capture(ctx, t)
	}
	return lever[principal]{read: s.readWithOwn}.capture(ctx, t)
}

// Verify reads the deny back, asks the policy simulator as a session minted before the change, and looks for calls of
// sessions that still went through.
func (s sessionsReader) Verify(ctx context.Context, in plan.Intent, r plan.Receipt) (plan.Observation, error) {
	return s.observe(ctx, in, r, func(o *sight) error {
		for _, t := range in.Targets {
			p, err := s.sessionLever(in, r, time.Time{}).read(ctx, t)
			stands, bears, issued := p.Quarantined, s.options.QuarantinePolicyARN, (*time.Time)(nil)
			if s.modeOf(r) == Full {
				before := o.since.Add(-time.Second)
				stands, bears, issued = revokesOlder(ownPolicies(p)[in.ObjectName()]), "inline policy "+in.ObjectName(), &before
			}
			if err := o.readBack(t, err, stands, "bears "+bears, "does not bear "+bears); err != nil {
				return err
			}
			if err != nil {
				continue
			}
			s.simulate(ctx, o, p, issued)
			s.auditRole(ctx, o, p, issued)
		}
		return nil
	})
}

// modeOf is the mode in which the receipt's change was made; without one, the mode of now.
func (s *System) modeOf(r plan.Receipt) Mode {
	if m := Mode(r.Detail[detailMode]); m.Valid() {
		return m
	}
	return s.options.Mode
}

// sessionLever is the quarantine in leashed mode, and our own inline deny of older sessions in full mode.
func (s *System) sessionLever(in plan.Intent, r plan.Receipt, at time.Time) lever[principal] {
	if s.modeOf(r) == Leashed {
		return s.quarantineLever()
	}
	return lever[principal]{
		read: s.readWithOwn,
		cut: func(now principal) principal {
			own := ownPolicies(now)
			own[in.ObjectName()] = revokeDocument(at.Add(issueMargin))
			return withOwn(now, own)
		},
		on: func(pre, now principal) bool {
			own := ownPolicies(now)
			for _, document := range own {
				if !revokesOlder(document) {
					return false // someone wrote under our name
				}
			}
			pre.Own = now.Own
			return own[in.ObjectName()] != "" && now == pre
		},
		write: s.writeOwn,
		did:   "denied sessions older than the change by inline policy " + in.ObjectName(),
	}
}

// ownPrefix begins the names of the inline policies that are ours.
const ownPrefix = "tourniquet-"

func ownPolicies(p principal) map[string]string {
	own := map[string]string{}
	if p.Own != "" && json.Unmarshal([]byte(p.Own), &own) != nil {
		return map[string]string{"": "unreadable"}
	}
	return own
}

func withOwn(p principal, own map[string]string) principal {
	p.Own = ""
	if len(own) > 0 {
		raw, _ := json.Marshal(own) // strings always marshal, keys in order
		p.Own = string(raw)
	}
	return p
}

// readWithOwn reads a role with the inline policies under our names.
func (s *System) readWithOwn(ctx context.Context, t plan.Target) (principal, error) {
	p, err := s.readPrincipal(ctx, t)
	if err != nil {
		return p, err
	}
	own := map[string]string{}
	pages := iam.NewListRolePoliciesPaginator(s.iam, &iam.ListRolePoliciesInput{RoleName: &p.Name})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return p, callError("list inline policies of "+t.String(), err, false)
		}
		for _, name := range page.PolicyNames {
			if !strings.HasPrefix(name, ownPrefix) {
				continue
			}
			out, err := s.iam.GetRolePolicy(ctx, &iam.GetRolePolicyInput{RoleName: &p.Name, PolicyName: &name})
			if err != nil {
				return p, callError("read policy "+name+" of "+t.String(), err, false)
			}
			if own[name], err = decodeDocument(out.PolicyDocument); err != nil {
				return p, err
			}
		}
	}
	return withOwn(p, own), nil
}

// writeOwn puts and deletes policies under our own names until the role bears those of to.
func (s *System) writeOwn(ctx context.Context, t plan.Target, from, to principal) (at time.Time, err error) {
	before, after := ownPolicies(from), ownPolicies(to)
	for name := range before {
		if _, stays := after[name]; stays {
			continue
		}
		if _, err := s.iam.DeleteRolePolicy(ctx, &iam.DeleteRolePolicyInput{RoleName: &t.Name, PolicyName: &name}, once); err != nil {
			return at, callError("delete policy "+name+" of "+t.String(), err, true)
		}
	}
	for name, document := range after {
		if before[name] == document {
			continue
		}
		out, err := s.iam.PutRolePolicy(ctx, &iam.PutRolePolicyInput{RoleName: &t.Name, PolicyName: &name, PolicyDocument: &document}, once)
		if err != nil {
			return at, callError("put policy "+name+" on "+t.String(), err, true)
		}
		at = s.serverTime(out.ResultMetadata)
	}
	return at, nil
}

func revokeDocument(before time.Time) string {
	return fmt.Sprintf(`{"Version":"2012-10-17","Statement":[{"Sid":"TourniquetRevoke","Effect":"Deny","Action":"*","Resource":"*",`+
		`"Condition":{"DateLessThan":{"aws:TokenIssueTime":"%s"}}}]}`, before.UTC().Format("2006-01-02T15:04:05.000Z"))
}

// revokesOlder reports whether the document is of revokeDocument's shape.
func revokesOlder(document string) bool {
	d, err := iampolicy.Parse([]byte(document))
	if err != nil || len(d.Statements) != 1 || !deniesEverything(d.Statements[0]) || len(d.Statements[0].Conditions) != 1 {
		return false
	}
	c := d.Statements[0].Conditions[0]
	return c.Operator == "DateLessThan" && c.Key == tokenIssueTime && len(c.Values) == 1
}

type revokeSessions struct{ sessionsReader }

// Apply denies the role's sessions: all of them in leashed mode, those older than the change in full mode.
func (s revokeSessions) Apply(ctx context.Context, in plan.Intent) (plan.Receipt, error) {
	r, err := applyWith(ctx, s.System, in, func(at time.Time) lever[principal] { return s.sessionLever(in, plan.Receipt{}, at) })
	r.Detail[detailMode] = string(s.options.Mode)
	return r, err
}

// Undo takes exactly our deny off.
func (s revokeSessions) Undo(ctx context.Context, in plan.Intent, r plan.Receipt) error {
	return undoWith(ctx, s.System, in, s.sessionLever(in, r, time.Time{}))
}
