package aws_test

import (
	"fmt"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	ststypes "github.com/aws/aws-sdk-go-v2/service/sts/types"

	"tourniquet.dev/tourniquet/dev/aws"
)

func TestRevokingOlderSessions(t *testing.T) {
	w := start(t, aws.Options{})
	alice, _ := w.user("alice", allowAll)
	role := w.role("deploy", trusting(nobody), allowAll)
	old, err := w.assume(alice, role, "old")
	w.ok(err)
	w.clock.advance(2 * time.Second)
	limit := w.clock.Now().Format("2006-01-02T15:04:05.000Z07:00")
	_, err = w.admin.iam.PutRolePolicy(w.ctx(), &iam.PutRolePolicyInput{RoleName: sdk.String("deploy"), PolicyName: sdk.String("revoke"),
		PolicyDocument: sdk.String(document(`{"Effect":"Deny","Action":"*","Resource":"*","Condition":{"DateLessThan":{"aws:TokenIssueTime":"` + limit + `"}}}`))})
	w.ok(err)
	w.clock.advance(time.Second)
	fresh, err := w.assume(alice, role, "new")
	w.ok(err)
	w.refused(w.buckets(w.session(old.Credentials)), "AccessDenied")
	w.ok(w.buckets(w.session(fresh.Credentials)))
}

func TestIssueTimeIsAbsentFromLongTermKeys(t *testing.T) {
	w := start(t, aws.Options{})
	revoke := `{"Effect":"Deny","Action":"*","Resource":"*","Condition":{"DateLessThan":{"aws:TokenIssueTime":"2999-01-01T00:00:00Z"}}}`
	c, _ := w.user("alice", document(`{"Effect":"Allow","Action":"*","Resource":"*"},`+revoke))
	w.ok(w.buckets(c))
	got, err := c.sts.GetSessionToken(w.ctx(), &sts.GetSessionTokenInput{})
	w.ok(err)
	w.refused(w.buckets(w.session(got.Credentials)), "AccessDenied")
}

func TestLeaseEndsByItself(t *testing.T) {
	w := start(t, aws.Options{})
	end := w.clock.Now().Add(time.Minute).UTC().Format(time.RFC3339)
	c, _ := w.user("alice", document(`{"Effect":"Allow","Action":"*","Resource":"*"},{"Effect":"Deny","Action":"*","Resource":"*","Condition":{"DateLessThan":{"aws:CurrentTime":"`+end+`"}}}`))
	w.refused(w.buckets(c), "AccessDenied")
	w.clock.advance(time.Minute)
	w.ok(w.buckets(c))
}

func TestTrust(t *testing.T) {
	w := start(t, aws.Options{})
	alice, _ := w.user("alice", "")
	admin, _ := w.user("operator", allowAll)
	root := w.server.SeedRootKey()
	open := w.role("open", trusting(nobody), allowAll)
	named := w.role("named", trusting("arn:aws:iam::111122223333:user/alice"), allowAll)
	external := w.role("external", document(`{"Effect":"Allow","Principal":{"AWS":"`+account+`"},"Action":"sts:AssumeRole","Condition":{"StringEquals":{"sts:ExternalId":"x-1"}}}`), allowAll)
	mfa := w.role("mfa", document(`{"Effect":"Allow","Principal":{"AWS":"`+account+`"},"Action":"sts:AssumeRole","Condition":{"Bool":{"aws:MultiFactorAuthPresent":"true"}}}`), allowAll)
	w.ok(w.server.SeedMFADevice("operator", "arn:aws:iam::111122223333:mfa/operator", "123456"))
	id := func(v string) func(*sts.AssumeRoleInput) { return func(in *sts.AssumeRoleInput) { in.ExternalId = &v } }
	code := func(v string) func(*sts.AssumeRoleInput) {
		return func(in *sts.AssumeRoleInput) {
			in.SerialNumber, in.TokenCode = sdk.String("arn:aws:iam::111122223333:mfa/operator"), &v
		}
	}
	for name, tc := range map[string]struct {
		clients clients
		role    string
		edit    []func(*sts.AssumeRoleInput)
		want    string
	}{
		"trust in the account and an identity policy":     {admin, open, nil, ""},
		"trust in the account without an identity policy": {alice, open, nil, "AccessDenied"},
		"trust in the user":                               {alice, named, nil, ""},
		"trust in another user":                           {admin, named, nil, "AccessDenied"},
		"no such role":                                    {admin, "arn:aws:iam::111122223333:role/none", nil, "AccessDenied"},
		"external id":                                     {admin, external, []func(*sts.AssumeRoleInput){id("x-1")}, ""},
		"another external id":                             {admin, external, []func(*sts.AssumeRoleInput){id("x-2")}, "AccessDenied"},
		"without MFA":                                     {admin, mfa, nil, "AccessDenied"},
		"with MFA":                                        {admin, mfa, []func(*sts.AssumeRoleInput){code("123456")}, ""},
		"with a wrong code":                               {admin, mfa, []func(*sts.AssumeRoleInput){code("654321")}, "AccessDenied"},
		"the root user assumes nobody":                    {w.as(root.ID, root.Secret, ""), open, nil, "AccessDenied"},
		"too short":                                       {admin, open, []func(*sts.AssumeRoleInput){func(in *sts.AssumeRoleInput) { in.DurationSeconds = sdk.Int32(60) }}, "ValidationError"},
		"longer than the role allows":                     {admin, open, []func(*sts.AssumeRoleInput){func(in *sts.AssumeRoleInput) { in.DurationSeconds = sdk.Int32(7200) }}, "ValidationError"},
	} {
		t.Run(name, func(t *testing.T) {
			w := *w
			w.t = t
			_, err := w.assume(tc.clients, tc.role, "probe", tc.edit...)
			w.refused(err, tc.want)
		})
	}
}

func TestTrustEditStopsNewSessionsOnly(t *testing.T) {
	w := start(t, aws.Options{})
	alice, _ := w.user("alice", allowAll)
	role := w.role("deploy", trusting(nobody), allowAll)
	before, err := w.assume(alice, role, "before")
	w.ok(err)
	deny := document(`{"Effect":"Deny","Principal":{"AWS":"*"},"Action":"sts:AssumeRole"}`)
	_, err = w.admin.iam.UpdateAssumeRolePolicy(w.ctx(), &iam.UpdateAssumeRolePolicyInput{RoleName: sdk.String("deploy"), PolicyDocument: &deny})
	w.ok(err)
	_, err = w.assume(alice, role, "after")
	w.refused(err, "AccessDenied")
	w.ok(w.buckets(w.session(before.Credentials)))
}

// TestTagsAndSourceIdentityNeedTheirOwnPermission on both sides: the caller's policies and the trust policy.
func TestTagsAndSourceIdentityNeedTheirOwnPermission(t *testing.T) {
	w := start(t, aws.Options{})
	alice, _ := w.user("alice", allowAll)
	trust := func(more string) string {
		return document(`{"Effect":"Allow","Principal":{"AWS":"` + account + `"},"Action":"sts:AssumeRole"}` + more)
	}
	bare := w.role("bare", trust(""), allowAll)
	both := w.role("both", trust(`,{"Effect":"Allow","Principal":{"AWS":"`+account+`"},"Action":["sts:TagSession","sts:SetSourceIdentity"],
		"Condition":{"ForAllValues:StringEquals":{"aws:TagKeys":["team"]},"StringLikeIfExists":{"sts:SourceIdentity":"al*"}}}`), allowAll)
	tag := func(key string) func(*sts.AssumeRoleInput) {
		return func(in *sts.AssumeRoleInput) { in.Tags = []ststypes.Tag{{Key: &key, Value: sdk.String("v")}} }
	}
	source := func(name string) func(*sts.AssumeRoleInput) {
		return func(in *sts.AssumeRoleInput) { in.SourceIdentity = &name }
	}
	for name, tc := range map[string]struct {
		role string
		edit func(*sts.AssumeRoleInput)
		want string
	}{
		"a tag without the permission":             {bare, tag("team"), "AccessDenied"},
		"a tag with it":                            {both, tag("team"), ""},
		"another tag":                              {both, tag("admin"), "AccessDenied"},
		"a source identity without the permission": {bare, source("alice"), "AccessDenied"},
		"a source identity with it":                {both, source("alice"), ""},
		"another source identity":                  {both, source("bob"), "AccessDenied"},
	} {
		t.Run(name, func(t *testing.T) {
			w := *w
			w.t = t
			_, err := w.assume(alice, tc.role, "probe", tc.edit)
			w.refused(err, tc.want)
		})
	}
}

// TestChains holds what goes along a chain of roles: an hour at most, transitive tags, the source identity.
func TestChains(t *testing.T) {
	w := start(t, aws.Options{})
	alice, _ := w.user("alice", allowAll)
	first := w.role("first", trusting(nobody), allowAll)
	onlyPod := `{"Effect":"Deny","Action":"*","Resource":"*","Condition":{"StringEquals":{"aws:PrincipalTag/kubernetes-pod-uid":"u1"}}}`
	second := w.role("second", trusting(first), document(`{"Effect":"Allow","Action":"*","Resource":"*"},`+onlyPod))
	bySource := w.role("source", trusting(first), document(`{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"StringEquals":{"aws:SourceIdentity":"alice"}}}`))
	tagged := func(uid string) clients {
		out, err := w.assume(alice, first, "pod-"+uid, func(in *sts.AssumeRoleInput) {
			in.Tags = []ststypes.Tag{{Key: sdk.String("kubernetes-pod-uid"), Value: &uid}}
			in.TransitiveTagKeys = []string{"kubernetes-pod-uid"}
			in.SourceIdentity = sdk.String("alice")
		})
		w.ok(err)
		return w.session(out.Credentials)
	}
	stolen, healthy := tagged("u1"), tagged("u2")
	for name, tc := range map[string]struct {
		from clients
		role string
		want string
	}{
		"the pod's tag went along":       {stolen, second, "AccessDenied"},
		"its neighbour goes on":          {healthy, second, ""},
		"the source identity went along": {healthy, bySource, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := *w
			w.t = t
			out, err := w.assume(tc.from, tc.role, "chained")
			w.ok(err)
			w.refused(w.buckets(w.session(out.Credentials)), tc.want)
		})
	}
	_, err := w.assume(stolen, second, "long", func(in *sts.AssumeRoleInput) { in.DurationSeconds = sdk.Int32(3601) })
	w.refused(err, "ValidationError")
	_, err = w.assume(stolen, second, "other", func(in *sts.AssumeRoleInput) { in.SourceIdentity = sdk.String("bob") })
	w.refused(err, "AccessDenied")
	_, err = w.assume(stolen, second, "override", func(in *sts.AssumeRoleInput) {
		in.Tags = []ststypes.Tag{{Key: sdk.String("kubernetes-pod-uid"), Value: sdk.String("u2")}}
	})
	w.refused(err, "InvalidParameterValue")
}

func TestSessionPoliciesAndBoundariesNarrow(t *testing.T) {
	w := start(t, aws.Options{})
	alice, _ := w.user("alice", allowAll)
	role := w.role("deploy", trusting(nobody), allowAll)
	narrow := document(`{"Effect":"Allow","Action":"sts:*","Resource":"*"}`)
	limited, err := w.assume(alice, role, "narrow", func(in *sts.AssumeRoleInput) { in.Policy = &narrow })
	w.ok(err)
	w.refused(w.buckets(w.session(limited.Credentials)), "AccessDenied")
	whole, err := w.assume(alice, role, "whole")
	w.ok(err)
	session := w.session(whole.Credentials)
	w.ok(w.buckets(session))
	_, err = w.admin.iam.PutRolePermissionsBoundary(w.ctx(), &iam.PutRolePermissionsBoundaryInput{RoleName: sdk.String("deploy"), PermissionsBoundary: sdk.String(aws.DenyAll)})
	w.ok(err)
	w.refused(w.buckets(session), "AccessDenied")
	got, err := w.admin.iam.GetRole(w.ctx(), &iam.GetRoleInput{RoleName: sdk.String("deploy")})
	w.ok(err)
	if *got.Role.PermissionsBoundary.PermissionsBoundaryArn != aws.DenyAll {
		t.Errorf("got boundary %s", *got.Role.PermissionsBoundary.PermissionsBoundaryArn)
	}
	_, err = w.admin.iam.DeleteRolePermissionsBoundary(w.ctx(), &iam.DeleteRolePermissionsBoundaryInput{RoleName: sdk.String("deploy")})
	w.ok(err)
	w.ok(w.buckets(session))
	w.ok(w.server.SetServiceControlPolicies([][]string{{allowAll}, {denyAll}}))
	w.refused(w.buckets(session), "AccessDenied")
	w.ok(w.server.SetServiceControlPolicies(nil))
	w.ok(w.buckets(session))
}

// TestGuardKeepsTheQuarantineOn is the service control policy that protects the deny during the window.
func TestGuardKeepsTheQuarantineOn(t *testing.T) {
	w := start(t, aws.Options{})
	alice, _ := w.user("alice", allowAll)
	made, err := w.admin.iam.CreatePolicy(w.ctx(), &iam.CreatePolicyInput{PolicyName: sdk.String("TourniquetQuarantine"), PolicyDocument: &denyAll})
	w.ok(err)
	arn := made.Policy.Arn
	w.user("victim", allowAll)
	w.ok(w.server.SetServiceControlPolicies([][]string{{document(`{"Effect":"Allow","Action":"*","Resource":"*"},
		{"Effect":"Deny","Action":["iam:DetachUserPolicy","iam:DetachRolePolicy"],"Resource":"*","Condition":{
		"ArnEquals":{"iam:PolicyARN":"` + *arn + `"},"ArnNotLike":{"aws:PrincipalArn":"arn:aws:iam::*:role/tourniquet-responder"}}}`)}}))
	_, err = w.admin.iam.AttachUserPolicy(w.ctx(), &iam.AttachUserPolicyInput{UserName: sdk.String("victim"), PolicyArn: arn})
	w.ok(err)
	_, err = alice.iam.DetachUserPolicy(w.ctx(), &iam.DetachUserPolicyInput{UserName: sdk.String("victim"), PolicyArn: arn})
	w.refused(err, "AccessDenied")
	responder := w.role("tourniquet-responder", trusting(nobody), allowAll)
	out, err := w.assume(alice, responder, "release")
	w.ok(err)
	_, err = w.session(out.Credentials).iam.DetachUserPolicy(w.ctx(), &iam.DetachUserPolicyInput{UserName: sdk.String("victim"), PolicyArn: arn})
	w.ok(err)
}

func TestTemporaryCredentialsOfUsersReachLess(t *testing.T) {
	w := start(t, aws.Options{})
	alice, _ := w.user("alice", allowAll)
	w.ok(w.server.SeedMFADevice("alice", "arn:aws:iam::111122223333:mfa/alice", "123456"))
	role := w.role("deploy", trusting(nobody), allowAll)
	plain, err := alice.sts.GetSessionToken(w.ctx(), &sts.GetSessionTokenInput{})
	w.ok(err)
	withMFA, err := alice.sts.GetSessionToken(w.ctx(), &sts.GetSessionTokenInput{SerialNumber: sdk.String("arn:aws:iam::111122223333:mfa/alice"), TokenCode: sdk.String("123456")})
	w.ok(err)
	federated, err := alice.sts.GetFederationToken(w.ctx(), &sts.GetFederationTokenInput{Name: sdk.String("guest"), Policy: &allowAll})
	w.ok(err)
	empty, err := alice.sts.GetFederationToken(w.ctx(), &sts.GetFederationTokenInput{Name: sdk.String("empty")})
	w.ok(err)
	list := func(c clients) error { _, err := c.iam.ListUsers(w.ctx(), &iam.ListUsersInput{}); return err }
	assume := func(c clients) error { _, err := w.assume(c, role, "probe"); return err }
	again := func(c clients) error {
		_, err := c.sts.GetSessionToken(w.ctx(), &sts.GetSessionTokenInput{})
		return err
	}
	for name, tc := range map[string]struct {
		got  error
		want string
	}{
		"session token to IAM":                 {list(w.session(plain.Credentials)), "InvalidClientTokenId"},
		"session token with MFA to IAM":        {list(w.session(withMFA.Credentials)), ""},
		"session token assumes a role":         {assume(w.session(plain.Credentials)), ""},
		"session token for another":            {again(w.session(plain.Credentials)), "AccessDenied"},
		"federation token to S3":               {w.buckets(w.session(federated.Credentials)), ""},
		"federation token to IAM":              {list(w.session(federated.Credentials)), "InvalidClientTokenId"},
		"federation token assumes a role":      {assume(w.session(federated.Credentials)), "AccessDenied"},
		"federation token without permissions": {w.buckets(w.session(empty.Credentials)), "AccessDenied"},
	} {
		if got := codeOf(tc.got); got != tc.want {
			t.Errorf("%s: got %q, want %q", name, got, tc.want)
		}
	}
}

func TestAccountOfAnyKey(t *testing.T) {
	for _, id := range []string{account, "000000000001", "999999999999"} {
		t.Run(id, func(t *testing.T) {
			w := start(t, aws.Options{Account: id})
			_, key := w.user("alice", "")
			for range 20 {
				w.user(fmt.Sprintf("u%d", len(w.server.Records(0))), "")
			}
			got, err := w.admin.sts.GetAccessKeyInfo(w.ctx(), &sts.GetAccessKeyInfoInput{AccessKeyId: &key})
			if err != nil || *got.Account != id {
				t.Errorf("got %v, %v, want %s", got, err, id)
			}
		})
	}
}
