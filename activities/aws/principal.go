package aws

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/smithy-go"

	"tourniquet.dev/tourniquet/activities"
	"tourniquet.dev/tourniquet/internal/blast/iampolicy"
	"tourniquet.dev/tourniquet/internal/plan"
)

// principal is a user or a role as a pre-image records it. Nothing that the cut does not change stands in it: an
// attacker who adds a key must not be able to stall the plan by that.
type principal struct {
	Kind        plan.TargetKind `json:"kind"`
	Name        string          `json:"name"`
	ID          string          `json:"id"`
	ARN         string          `json:"arn"`
	Quarantined bool            `json:"quarantined"`
	// Own are the inline policies under our own names, on a role in full mode: a JSON object from name to document.
	Own string `json:"own,omitempty"`
}

// user reads a user by name and refuses what is none of ours to touch.
func (s *System) user(ctx context.Context, name string) (principal, error) {
	out, err := s.iam.GetUser(ctx, &iam.GetUserInput{UserName: &name})
	if err != nil {
		return principal{}, callError("get user "+name, err, false)
	}
	u := principal{Kind: plan.AWSUser, Name: sdk.ToString(out.User.UserName), ID: sdk.ToString(out.User.UserId), ARN: sdk.ToString(out.User.Arn)}
	return u, s.touchable(u, sdk.ToString(out.User.Path))
}

func (s *System) role(ctx context.Context, name string) (principal, error) {
	out, err := s.iam.GetRole(ctx, &iam.GetRoleInput{RoleName: &name})
	if err != nil {
		return principal{}, callError("get role "+name, err, false)
	}
	r := principal{Kind: plan.AWSRole, Name: sdk.ToString(out.Role.RoleName), ID: sdk.ToString(out.Role.RoleId), ARN: sdk.ToString(out.Role.Arn)}
	return r, s.touchable(r, sdk.ToString(out.Role.Path))
}

// touchable refuses the root user, what belongs to AWS (it cannot be changed, or undoes the change) and any other
// account. The trust file's protected set is the judge's.
func (s *System) touchable(p principal, path string) error {
	account, resource, ok := splitARN(p.ARN)
	switch {
	case !ok || account != s.options.Account:
		return fmt.Errorf("%s %s: is not of account %s: %w", p.Kind, p.ARN, s.options.Account, activities.ErrRefused)
	case resource == "root" || !strings.HasPrefix(resource, string(p.Kind)+"/"):
		return fmt.Errorf("%s %s: the root user cannot be contained by policy: %w", p.Kind, p.ARN, activities.ErrRefused)
	case strings.HasPrefix(path, "/aws-service-role/"), strings.HasPrefix(path, "/aws-reserved/"), strings.HasPrefix(p.Name, "AWSReservedSSO_"):
		return fmt.Errorf("%s %s: belongs to AWS and cannot be edited in IAM: %w", p.Kind, p.ARN, activities.ErrRefused)
	}
	return nil
}

// splitARN takes an IAM ARN apart: its account and its resource, path included.
func splitARN(arn string) (account, resource string, ok bool) {
	parts := strings.SplitN(arn, ":", 6)
	if len(parts) != 6 || parts[0] != "arn" || parts[2] != "iam" {
		return "", "", false
	}
	return parts[4], parts[5], true
}

// target names the principal for a plan. Namespace is its path, so that the judge can check the whole ARN.
func (s *System) target(p principal) plan.Target {
	_, resource, _ := splitARN(p.ARN)
	middle := strings.TrimSuffix(strings.TrimPrefix(resource, string(p.Kind)+"/"), p.Name)
	return plan.Target{Kind: p.Kind, Scope: s.options.Account, Namespace: strings.Trim(middle, "/"), Name: p.Name, UID: p.ID}
}

// ownerOf finds the user that owns a long-term access key.
func (s *System) ownerOf(ctx context.Context, keyID string) (principal, error) {
	out, err := s.iam.GetAccessKeyLastUsed(ctx, &iam.GetAccessKeyLastUsedInput{AccessKeyId: &keyID})
	var api smithy.APIError
	if errors.As(err, &api) && api.ErrorCode() == "AccessDenied" { // AWS says so of keys that it does not know
		return principal{}, fmt.Errorf("access key %s: is gone, of another account, or not ours to ask about: %w", keyID, activities.ErrConflict)
	}
	if err != nil {
		return principal{}, callError("find the owner of access key "+keyID, err, false)
	}
	name := sdk.ToString(out.UserName)
	if name == "" || name == "root" || strings.HasPrefix(name, "<root") {
		return principal{}, fmt.Errorf("access key %s: belongs to no IAM user (the root user's cannot be contained): %w", keyID, activities.ErrRefused)
	}
	return s.user(ctx, name)
}

// inAccount refuses a step for another account before anything is asked.
func (s *System) inAccount(t plan.Target) error {
	if t.Scope != s.options.Account {
		return fmt.Errorf("%s: is of account %.20q, this is %s: %w", t, t.Scope, s.options.Account, activities.ErrRefused)
	}
	return nil
}

// readPrincipal reads a target of kind user or role, with whether the quarantine stands on it.
func (s *System) readPrincipal(ctx context.Context, t plan.Target) (principal, error) {
	p, err := s.lookUp(ctx, t)
	if err != nil {
		return p, err
	}
	arns, err := s.attached(ctx, p)
	if err != nil {
		return p, err
	}
	for _, arn := range arns {
		p.Quarantined = p.Quarantined || arn == s.options.QuarantinePolicyARN
	}
	return p, nil
}

func (s *System) lookUp(ctx context.Context, t plan.Target) (p principal, err error) {
	if err := s.inAccount(t); err != nil {
		return p, err
	}
	switch t.Kind {
	case plan.AWSUser:
		p, err = s.user(ctx, t.Name)
	case plan.AWSRole:
		p, err = s.role(ctx, t.Name)
	default:
		return p, fmt.Errorf("%s: is neither user nor role: %w", t, activities.ErrRefused)
	}
	if err == nil && p.ID != t.UID {
		return p, fmt.Errorf("%s: another one bears the name now (%s, not %s): %w", t, p.ID, t.UID, activities.ErrConflict)
	}
	return p, err
}

// attached lists the ARNs of the managed policies attached to the principal.
func (s *System) attached(ctx context.Context, p principal) ([]string, error) {
	var arns []string
	var marker *string
	for {
		var next []string
		var more bool
		if p.Kind == plan.AWSRole {
			out, err := s.iam.ListAttachedRolePolicies(ctx, &iam.ListAttachedRolePoliciesInput{RoleName: &p.Name, Marker: marker})
			if err != nil {
				return nil, callError("list policies of role "+p.Name, err, false)
			}
			for _, a := range out.AttachedPolicies {
				next = append(next, sdk.ToString(a.PolicyArn))
			}
			marker, more = out.Marker, out.IsTruncated
		} else {
			out, err := s.iam.ListAttachedUserPolicies(ctx, &iam.ListAttachedUserPoliciesInput{UserName: &p.Name, Marker: marker})
			if err != nil {
				return nil, callError("list policies of user "+p.Name, err, false)
			}
			for _, a := range out.AttachedPolicies {
				next = append(next, sdk.ToString(a.PolicyArn))
			}
			marker, more = out.Marker, out.IsTruncated
		}
		arns = append(arns, next...)
		if !more || marker == nil {
			return arns, nil
		}
	}
}

// quarantineLever attaches the managed quarantine policy. It detaches it only where the pre-image says that it did not
// stand there before.
func (s *System) quarantineLever() lever[principal] {
	return lever[principal]{
		read:  s.readPrincipal,
		cut:   func(now principal) principal { now.Quarantined = true; return now },
		on:    func(pre, now principal) bool { pre.Quarantined = true; return now == pre },
		write: s.writeQuarantine,
		did:   "attached " + s.options.QuarantinePolicyARN,
	}
}

func (s *System) writeQuarantine(ctx context.Context, t plan.Target, _, to principal) (time.Time, error) {
	arn := &s.options.QuarantinePolicyARN
	if to.Quarantined {
		if err := s.proveQuarantine(ctx); err != nil {
			return time.Time{}, err
		}
	}
	switch {
	case to.Quarantined && t.Kind == plan.AWSUser:
		out, err := s.iam.AttachUserPolicy(ctx, &iam.AttachUserPolicyInput{UserName: &t.Name, PolicyArn: arn}, once)
		if err != nil {
			return time.Time{}, callError("attach the quarantine to "+t.String(), err, true)
		}
		return s.serverTime(out.ResultMetadata), nil
	case to.Quarantined:
		out, err := s.iam.AttachRolePolicy(ctx, &iam.AttachRolePolicyInput{RoleName: &t.Name, PolicyArn: arn}, once)
		if err != nil {
			return time.Time{}, callError("attach the quarantine to "+t.String(), err, true)
		}
		return s.serverTime(out.ResultMetadata), nil
	case t.Kind == plan.AWSUser:
		_, err := s.iam.DetachUserPolicy(ctx, &iam.DetachUserPolicyInput{UserName: &t.Name, PolicyArn: arn}, once)
		if err != nil {
			return time.Time{}, callError("detach the quarantine from "+t.String(), err, true)
		}
	default:
		_, err := s.iam.DetachRolePolicy(ctx, &iam.DetachRolePolicyInput{RoleName: &t.Name, PolicyArn: arn}, once)
		if err != nil {
			return time.Time{}, callError("detach the quarantine from "+t.String(), err, true)
		}
	}
	return time.Time{}, nil
}

// proveQuarantine reads the managed policy and refuses to attach anything but a plain deny of everything: whoever can
// edit it could otherwise have us grant rights to the very identity we contain.
func (s *System) proveQuarantine(ctx context.Context) error {
	arn := &s.options.QuarantinePolicyARN
	policy, err := s.iam.GetPolicy(ctx, &iam.GetPolicyInput{PolicyArn: arn})
	if err != nil {
		return callError("read the quarantine policy", err, false)
	}
	version, err := s.iam.GetPolicyVersion(ctx, &iam.GetPolicyVersionInput{PolicyArn: arn, VersionId: policy.Policy.DefaultVersionId})
	if err != nil {
		return callError("read the quarantine policy", err, false)
	}
	document, err := decodeDocument(version.PolicyVersion.Document)
	if err != nil || !deniesAll(document) {
		return fmt.Errorf("quarantine policy %s: is not a plain deny of everything: %w", *arn, activities.ErrRefused)
	}
	return nil
}

// decodeDocument undoes the URL encoding in which IAM returns policy documents.
func decodeDocument(encoded *string) (string, error) {
	document, err := url.QueryUnescape(sdk.ToString(encoded))
	if err != nil {
		return "", fmt.Errorf("policy document: %w", err)
	}
	return document, nil
}

// deniesAll reports whether the document is one unconditional deny of every action on every resource.
func deniesAll(document string) bool {
	d, err := iampolicy.Parse([]byte(document))
	return err == nil && len(d.Statements) == 1 && deniesEverything(d.Statements[0]) && len(d.Statements[0].Conditions) == 0
}

func deniesEverything(st iampolicy.Statement) bool {
	return st.Effect == iampolicy.Deny && len(st.Actions) == 1 && st.Actions[0] == "*" && len(st.Resources) == 1 && st.Resources[0] == "*" &&
		st.NotActions == nil && st.NotResources == nil && st.Principals == nil && st.NotPrincipals == nil
}
