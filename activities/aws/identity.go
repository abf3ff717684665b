package aws

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"tourniquet.dev/tourniquet/activities"
	"tourniquet.dev/tourniquet/internal/blast"
)

// The bounds of one investigation. What lies beyond them is a stated gap.
const (
	lookBack       = 24 * time.Hour // sessions live 12 h at most, console sessions too
	maxChased      = 20             // keys whose events are looked up
	maxEvents      = 500
	maxRoles       = 1000
	maxAccountList = 100 // pages of the account's details
)

// Identity gathers what AWS knows of an access key: its owner with everything that decides what it may do, the
// account's roles, and the sessions that the audit log saw minted with it, chased along chains. What cannot be read is
// a gap in the facts, never "no reach"; an error means that not even the owner is known.
func (s *System) Identity(ctx context.Context, keyID string) (*blast.AWSFacts, error) {
	if !keyIDForm.MatchString(keyID) {
		return nil, fmt.Errorf("identity: %.40q is not an access key id: %w", keyID, activities.ErrRefused)
	}
	if _, err := s.prove(ctx); err != nil {
		return nil, err
	}
	f := &blast.AWSFacts{Account: s.options.Account, KeyID: keyID}
	out, err := s.sts.GetAccessKeyInfo(ctx, &sts.GetAccessKeyInfoInput{AccessKeyId: &keyID})
	if err != nil {
		f.Gaps = append(f.Gaps, callError("account of access key "+keyID, err, false).Error())
	} else if account := sdk.ToString(out.Account); account != s.options.Account {
		return nil, fmt.Errorf("identity: access key %s is of account %.20q, this is %s: %w", keyID, account, s.options.Account, activities.ErrRefused)
	}
	s.chase(ctx, f)
	kind, name, err := s.holderOf(ctx, f, keyID)
	if err != nil {
		return nil, err
	}
	a, err := s.accountDetails(ctx)
	if err != nil {
		return nil, err
	}
	f.Gaps = append(f.Gaps, a.gaps...)
	f.Roles = a.roles()
	if len(f.Roles) > maxRoles {
		f.Gaps = append(f.Gaps, fmt.Sprintf("%d roles; only the first %d are looked at", len(f.Roles), maxRoles))
		f.Roles = f.Roles[:maxRoles]
	}
	owner, ok := a.principal(kind, name)
	if !ok {
		return nil, fmt.Errorf("identity: %s %s is gone: %w", kind, name, activities.ErrConflict)
	}
	f.Owner = owner
	if kind == "user" {
		keys, err := s.keysOf(ctx, name)
		if err != nil {
			f.Gaps = append(f.Gaps, err.Error())
		}
		for _, k := range keys {
			f.Owner.Keys = append(f.Owner.Keys, blast.Key{ID: k.Key, Status: string(k.Status)})
		}
	}
	return f, nil
}

// holderOf says who a key acts as: the user that owns a long-term key, or the role behind a session's, as the audit
// log tells.
func (s *System) holderOf(ctx context.Context, f *blast.AWSFacts, keyID string) (kind, name string, err error) {
	if strings.HasPrefix(keyID, "AKIA") {
		owner, err := s.ownerOf(ctx, keyID)
		return "user", owner.Name, err
	}
	for _, session := range f.Sessions {
		if session.KeyID == keyID && session.RoleARN != "" {
			return "role", session.RoleARN[strings.LastIndexByte(session.RoleARN, '/')+1:], nil
		}
	}
	events, err := s.eventsOf(ctx, keyID, s.now().Add(-lookBack))
	if err != nil {
		return "", "", err
	}
	for _, e := range events {
		if _, resource, ok := splitARN(e.Issuer); ok {
			kind, _, _ := strings.Cut(resource, "/")
			return kind, resource[strings.LastIndexByte(resource, '/')+1:], nil
		}
	}
	return "", "", fmt.Errorf("identity: the audit log does not say (yet) whose session %s is", keyID)
}

// chase follows the sessions that a key minted, the sessions that those minted, and so on; cycles happen.
func (s *System) chase(ctx context.Context, f *blast.AWSFacts) {
	since := s.now().Add(-lookBack)
	work, seen := []string{f.KeyID}, map[string]bool{f.KeyID: true}
	for n := 0; len(work) > 0; n++ {
		key := work[0]
		work = work[1:]
		if n == maxChased {
			f.Gaps = append(f.Gaps, fmt.Sprintf("%d more sessions were not chased", len(work)+1))
			break
		}
		events, err := s.eventsOf(ctx, key, since)
		if err != nil {
			f.Gaps = append(f.Gaps, err.Error())
			continue
		}
		for _, e := range events {
			f.Events = append(f.Events, blast.Event{Name: e.Name, Time: e.Time, KeyID: e.KeyID, SourceIP: e.SourceIP, Error: e.Error})
		}
		for _, session := range sessionsIn(events) {
			if !seen[session.KeyID] {
				seen[session.KeyID] = true
				f.Sessions, work = append(f.Sessions, session), append(work, session.KeyID)
			}
		}
	}
	slices.SortStableFunc(f.Events, func(a, b blast.Event) int { return b.Time.Compare(a.Time) })
	if len(f.Events) > maxEvents {
		f.Gaps = append(f.Gaps, fmt.Sprintf("%d events; only the last %d are kept", len(f.Events), maxEvents))
		f.Events = f.Events[:maxEvents]
	}
	f.Gaps = append(f.Gaps, "the audit log of region "+s.options.Region+" only; it comes minutes late and without data events")
}

// account is what GetAccountAuthorizationDetails returns, whole.
type account struct {
	users    []types.UserDetail
	groups   map[string]types.GroupDetail
	roleList []types.RoleDetail
	policies map[string]blast.Document
	gaps     []string
}

func (s *System) accountDetails(ctx context.Context) (*account, error) {
	a := &account{groups: map[string]types.GroupDetail{}, policies: map[string]blast.Document{}}
	pages := iam.NewGetAccountAuthorizationDetailsPaginator(s.iam, &iam.GetAccountAuthorizationDetailsInput{})
	for n := 0; pages.HasMorePages(); n++ {
		if n == maxAccountList {
			a.gaps = append(a.gaps, fmt.Sprintf("the account's details have more than %d pages", maxAccountList))
			break
		}
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, callError("read the account's details", err, false)
		}
		a.users = append(a.users, page.UserDetailList...)
		a.roleList = append(a.roleList, page.RoleDetailList...)
		for _, g := range page.GroupDetailList {
			a.groups[sdk.ToString(g.GroupName)] = g
		}
		for _, p := range page.Policies {
			a.policy(p)
		}
	}
	return a, nil
}

func (a *account) policy(p types.ManagedPolicyDetail) {
	for _, v := range p.PolicyVersionList {
		if v.IsDefaultVersion || sdk.ToString(v.VersionId) == sdk.ToString(p.DefaultVersionId) {
			a.policies[sdk.ToString(p.Arn)] = a.document(sdk.ToString(p.PolicyName), sdk.ToString(p.Arn), v.Document)
		}
	}
}

func (a *account) document(name, arn string, encoded *string) blast.Document {
	text, err := decodeDocument(encoded)
	if err != nil {
		a.gaps = append(a.gaps, fmt.Sprintf("policy %s: %v", cmp.Or(arn, name), err))
	}
	return blast.Document{Name: name, ARN: arn, Document: text}
}

func (a *account) principal(kind, name string) (blast.Principal, bool) {
	if kind == "role" {
		i := slices.IndexFunc(a.roleList, func(r types.RoleDetail) bool { return sdk.ToString(r.RoleName) == name })
		if i < 0 {
			return blast.Principal{}, false
		}
		return a.role(a.roleList[i]), true
	}
	i := slices.IndexFunc(a.users, func(u types.UserDetail) bool { return sdk.ToString(u.UserName) == name })
	if i < 0 {
		return blast.Principal{}, false
	}
	return a.user(a.users[i]), true
}

func (a *account) user(u types.UserDetail) blast.Principal {
	p := blast.Principal{Kind: "user", Name: sdk.ToString(u.UserName), ARN: sdk.ToString(u.Arn), ID: sdk.ToString(u.UserId),
		Boundary: a.boundary(u.PermissionsBoundary), Policies: append(a.inline("", u.UserPolicyList), a.attached(u.AttachedManagedPolicies)...)}
	for _, name := range u.GroupList {
		g, ok := a.groups[name]
		if !ok {
			a.gaps = append(a.gaps, "group "+name+" could not be read")
			continue
		}
		p.Policies = append(p.Policies, a.inline("group "+name+": ", g.GroupPolicyList)...)
		p.Policies = append(p.Policies, a.attached(g.AttachedManagedPolicies)...)
	}
	return p
}

func (a *account) role(r types.RoleDetail) blast.Principal {
	trust, err := decodeDocument(r.AssumeRolePolicyDocument)
	if err != nil {
		a.gaps = append(a.gaps, fmt.Sprintf("trust policy of role %s: %v", sdk.ToString(r.RoleName), err))
	}
	return blast.Principal{Kind: "role", Name: sdk.ToString(r.RoleName), ARN: sdk.ToString(r.Arn), ID: sdk.ToString(r.RoleId), Trust: trust,
		Boundary: a.boundary(r.PermissionsBoundary), Policies: append(a.inline("", r.RolePolicyList), a.attached(r.AttachedManagedPolicies)...)}
}

func (a *account) roles() []blast.Principal {
	out := make([]blast.Principal, 0, len(a.roleList))
	for _, r := range a.roleList {
		out = append(out, a.role(r))
	}
	slices.SortFunc(out, func(x, y blast.Principal) int { return strings.Compare(x.ARN, y.ARN) })
	return out
}

func (a *account) inline(prefix string, list []types.PolicyDetail) []blast.Document {
	var out []blast.Document
	for _, p := range list {
		out = append(out, a.document(prefix+sdk.ToString(p.PolicyName), "", p.PolicyDocument))
	}
	return out
}

func (a *account) attached(list []types.AttachedPolicy) []blast.Document {
	var out []blast.Document
	for _, p := range list {
		arn := sdk.ToString(p.PolicyArn)
		d, ok := a.policies[arn]
		if !ok {
			a.gaps = append(a.gaps, "policy "+arn+" could not be read")
			d = blast.Document{Name: sdk.ToString(p.PolicyName), ARN: arn}
		}
		out = append(out, d)
	}
	return out
}

func (a *account) boundary(b *types.AttachedPermissionsBoundary) *blast.Document {
	if b == nil || b.PermissionsBoundaryArn == nil {
		return nil
	}
	arn := *b.PermissionsBoundaryArn
	d, ok := a.policies[arn]
	if !ok {
		a.gaps = append(a.gaps, "boundary "+arn+" could not be read")
		d = blast.Document{Name: arn, ARN: arn}
	}
	return &d
}
