package aws_test

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	iamtypes "github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/google/go-cmp/cmp"

	"tourniquet.dev/tourniquet/dev/aws"
)

func TestIAMErrors(t *testing.T) {
	w := start(t, aws.Options{})
	c := w.admin.iam
	w.user("alice", allowAll)
	w.key("alice")
	w.role("deploy", trusting(nobody), "")
	w.ok(w.server.SeedServiceRole("AWSServiceRoleForX", "/aws-service-role/x.amazonaws.com/", trusting(nobody)))
	alice, deploy, deny := sdk.String("alice"), sdk.String("deploy"), sdk.String(aws.DenyAll)
	for name, tc := range map[string]struct {
		call func() error
		want string
	}{
		"unknown user": {func() error { _, err := c.GetUser(w.ctx(), &iam.GetUserInput{UserName: sdk.String("bob")}); return err }, "NoSuchEntity"},
		"unknown role": {func() error { _, err := c.GetRole(w.ctx(), &iam.GetRoleInput{RoleName: sdk.String("bob")}); return err }, "NoSuchEntity"},
		"user twice": {func() error {
			_, err := c.CreateUser(w.ctx(), &iam.CreateUserInput{UserName: sdk.String("ALICE")})
			return err
		}, "EntityAlreadyExists"},
		"bad name": {func() error {
			_, err := c.CreateUser(w.ctx(), &iam.CreateUserInput{UserName: sdk.String("a b")})
			return err
		}, "ValidationError"},
		"a third key": {func() error {
			_, err := c.CreateAccessKey(w.ctx(), &iam.CreateAccessKeyInput{UserName: alice})
			return err
		}, "LimitExceeded"},
		"somebody's key": {func() error {
			_, err := c.UpdateAccessKey(w.ctx(), &iam.UpdateAccessKeyInput{UserName: alice, AccessKeyId: sdk.String("AKIAAAAAAAAAAAAAAAAA"), Status: "Inactive"})
			return err
		}, "NoSuchEntity"},
		"last use unknown": {func() error {
			_, err := c.GetAccessKeyLastUsed(w.ctx(), &iam.GetAccessKeyLastUsedInput{AccessKeyId: sdk.String("AKIAAAAAAAAAAAAAAAAA")})
			return err
		}, "AccessDenied"},
		"broken document": {func() error {
			_, err := c.PutUserPolicy(w.ctx(), &iam.PutUserPolicyInput{UserName: alice, PolicyName: alice, PolicyDocument: sdk.String("{")})
			return err
		}, "MalformedPolicyDocument"},
		"principal inside": {func() error {
			_, err := c.PutUserPolicy(w.ctx(), &iam.PutUserPolicyInput{UserName: alice, PolicyName: alice, PolicyDocument: sdk.String(trusting(nobody))})
			return err
		}, "MalformedPolicyDocument"},
		"no principal": {func() error {
			_, err := c.UpdateAssumeRolePolicy(w.ctx(), &iam.UpdateAssumeRolePolicyInput{RoleName: deploy, PolicyDocument: &allowAll})
			return err
		}, "MalformedPolicyDocument"},
		"unknown inline": {func() error {
			_, err := c.GetUserPolicy(w.ctx(), &iam.GetUserPolicyInput{UserName: alice, PolicyName: deploy})
			return err
		}, "NoSuchEntity"},
		"delete unknown": {func() error {
			_, err := c.DeleteRolePolicy(w.ctx(), &iam.DeleteRolePolicyInput{RoleName: deploy, PolicyName: deploy})
			return err
		}, "NoSuchEntity"},
		"not attached": {func() error {
			_, err := c.DetachUserPolicy(w.ctx(), &iam.DetachUserPolicyInput{UserName: alice, PolicyArn: deny})
			return err
		}, "NoSuchEntity"},
		"unknown policy": {func() error {
			_, err := c.AttachUserPolicy(w.ctx(), &iam.AttachUserPolicyInput{UserName: alice, PolicyArn: sdk.String("arn:aws:iam::111122223333:policy/none")})
			return err
		}, "NoSuchEntity"},
		"no ARN": {func() error {
			_, err := c.AttachUserPolicy(w.ctx(), &iam.AttachUserPolicyInput{UserName: alice, PolicyArn: sdk.String("this-is-not-an-arn-at-all")})
			return err
		}, "InvalidInput"},
		"no boundary": {func() error {
			_, err := c.DeleteUserPermissionsBoundary(w.ctx(), &iam.DeleteUserPermissionsBoundaryInput{UserName: alice})
			return err
		}, "NoSuchEntity"},
		"no password": {func() error {
			_, err := c.GetLoginProfile(w.ctx(), &iam.GetLoginProfileInput{UserName: alice})
			return err
		}, "NoSuchEntity"},
		"linked role": {func() error {
			_, err := c.AttachRolePolicy(w.ctx(), &iam.AttachRolePolicyInput{RoleName: sdk.String("AWSServiceRoleForX"), PolicyArn: deny})
			return err
		}, "UnmodifiableEntity"},
		"user with keys":  {func() error { _, err := c.DeleteUser(w.ctx(), &iam.DeleteUserInput{UserName: alice}); return err }, "DeleteConflict"},
		"AWS's policy":    {func() error { _, err := c.DeletePolicy(w.ctx(), &iam.DeletePolicyInput{PolicyArn: deny}); return err }, "AccessDenied"},
		"page of nothing": {func() error { _, err := c.ListUsers(w.ctx(), &iam.ListUsersInput{MaxItems: sdk.Int32(0)}); return err }, "ValidationError"},
		"made-up marker":  {func() error { _, err := c.ListUsers(w.ctx(), &iam.ListUsersInput{Marker: sdk.String("x")}); return err }, "ValidationError"},
		"read a linked one": {func() error {
			_, err := c.GetRole(w.ctx(), &iam.GetRoleInput{RoleName: sdk.String("AWSServiceRoleForX")})
			return err
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := *w
			w.t = t
			w.refused(tc.call(), tc.want)
		})
	}
	_, err := c.GetUser(w.ctx(), &iam.GetUserInput{UserName: sdk.String("bob")})
	var typed *iamtypes.NoSuchEntityException
	if !errors.As(err, &typed) {
		t.Errorf("%v is not the SDK's typed error", err)
	}
}

func TestQuotas(t *testing.T) {
	w := start(t, aws.Options{})
	c := w.admin.iam
	w.user("alice", "")
	w.role("deploy", trusting(nobody), "")
	_, err := c.CreateGroup(w.ctx(), &iam.CreateGroupInput{GroupName: sdk.String("ops")})
	w.ok(err)
	// padded is a document of n characters that the quota counts; the space in it is not counted.
	padded := func(n int) *string {
		empty := document(`{"Effect":"Deny","Action":"*", "Resource":""}`)
		value := "arn:aws:s3:::" + strings.Repeat("x", n-len(empty)+1-len("arn:aws:s3:::"))
		return sdk.String(document(`{"Effect":"Deny","Action":"*", "Resource":"` + value + `"}`))
	}
	put := map[string]func(*string) error{
		"user": func(d *string) error {
			_, err := c.PutUserPolicy(w.ctx(), &iam.PutUserPolicyInput{UserName: sdk.String("alice"), PolicyName: sdk.String("p"), PolicyDocument: d})
			return err
		},
		"role": func(d *string) error {
			_, err := c.PutRolePolicy(w.ctx(), &iam.PutRolePolicyInput{RoleName: sdk.String("deploy"), PolicyName: sdk.String("p"), PolicyDocument: d})
			return err
		},
		"group": func(d *string) error {
			_, err := c.PutGroupPolicy(w.ctx(), &iam.PutGroupPolicyInput{GroupName: sdk.String("ops"), PolicyName: sdk.String("p"), PolicyDocument: d})
			return err
		},
	}
	for kind, limit := range map[string]int{"user": 2048, "role": 10240, "group": 5120} {
		w.refused(put[kind](padded(limit+1)), "LimitExceeded")
		w.ok(put[kind](padded(limit)))
		w.ok(put[kind](padded(limit))) // the same name: replaced, not added
	}
	_, err = c.CreatePolicy(w.ctx(), &iam.CreatePolicyInput{PolicyName: sdk.String("big"), PolicyDocument: padded(6145)})
	w.refused(err, "LimitExceeded")
	for i := range 11 {
		made, err := c.CreatePolicy(w.ctx(), &iam.CreatePolicyInput{PolicyName: sdk.String(fmt.Sprintf("p%d", i)), PolicyDocument: &denyAll})
		w.ok(err)
		_, err = c.AttachRolePolicy(w.ctx(), &iam.AttachRolePolicyInput{RoleName: sdk.String("deploy"), PolicyArn: made.Policy.Arn})
		if i < 10 {
			w.ok(err)
		} else {
			w.refused(err, "LimitExceeded")
		}
	}
}

func TestPolicyDocumentsAreEncoded(t *testing.T) {
	w := start(t, aws.Options{})
	raw := document(`{"Effect":"Allow","Action":"s3:*","Resource":"arn:aws:s3:::a+b/<&> ü/${aws:username}"}`)
	w.user("alice", raw)
	got, err := w.admin.iam.GetUserPolicy(w.ctx(), &iam.GetUserPolicyInput{UserName: sdk.String("alice"), PolicyName: sdk.String("own")})
	w.ok(err)
	if strings.ContainsAny(*got.PolicyDocument, `{"+ `) {
		t.Errorf("not percent-encoded: %s", *got.PolicyDocument)
	}
	decoded, err := url.QueryUnescape(*got.PolicyDocument)
	if err != nil || decoded != raw {
		t.Errorf("got %s, %v, want %s", decoded, err, raw)
	}
}

func TestManagedPolicyVersions(t *testing.T) {
	w := start(t, aws.Options{})
	c := w.admin.iam
	alice, _ := w.user("alice", "")
	made, err := c.CreatePolicy(w.ctx(), &iam.CreatePolicyInput{PolicyName: sdk.String("p"), PolicyDocument: &denyAll})
	w.ok(err)
	arn := made.Policy.Arn
	_, err = c.AttachUserPolicy(w.ctx(), &iam.AttachUserPolicyInput{UserName: sdk.String("alice"), PolicyArn: arn})
	w.ok(err)
	add := func(raw string, current bool) error {
		_, err := c.CreatePolicyVersion(w.ctx(), &iam.CreatePolicyVersionInput{PolicyArn: arn, PolicyDocument: &raw, SetAsDefault: current})
		return err
	}
	w.ok(add(allowAll, false))
	w.refused(w.buckets(alice), "AccessDenied")
	_, err = c.SetDefaultPolicyVersion(w.ctx(), &iam.SetDefaultPolicyVersionInput{PolicyArn: arn, VersionId: sdk.String("v2")})
	w.ok(err)
	w.ok(w.buckets(alice))
	w.ok(add(denyAll, true))
	w.refused(w.buckets(alice), "AccessDenied")
	w.ok(add(denyAll, false))
	w.ok(add(denyAll, false))
	w.refused(add(denyAll, false), "LimitExceeded")
	_, err = c.DeletePolicyVersion(w.ctx(), &iam.DeletePolicyVersionInput{PolicyArn: arn, VersionId: sdk.String("v3")})
	w.refused(err, "DeleteConflict")
	_, err = c.DeletePolicyVersion(w.ctx(), &iam.DeletePolicyVersionInput{PolicyArn: arn, VersionId: sdk.String("v5")})
	w.ok(err)
	w.ok(add(denyAll, false)) // v6: an id is never used again
	got, err := c.ListPolicyVersions(w.ctx(), &iam.ListPolicyVersionsInput{PolicyArn: arn})
	w.ok(err)
	var ids []string
	for _, v := range got.Versions {
		ids = append(ids, fmt.Sprintf("%s %t", *v.VersionId, v.IsDefaultVersion))
	}
	if diff := cmp.Diff([]string{"v6 false", "v4 false", "v3 true", "v2 false", "v1 false"}, ids); diff != "" {
		t.Error(diff)
	}
	_, err = c.DeletePolicy(w.ctx(), &iam.DeletePolicyInput{PolicyArn: arn})
	w.refused(err, "DeleteConflict")
}

func TestGroupsGrantAndDeny(t *testing.T) {
	w := start(t, aws.Options{})
	c := w.admin.iam
	alice, _ := w.user("alice", "")
	group, user := sdk.String("ops"), sdk.String("alice")
	_, err := c.CreateGroup(w.ctx(), &iam.CreateGroupInput{GroupName: group})
	w.ok(err)
	_, err = c.PutGroupPolicy(w.ctx(), &iam.PutGroupPolicyInput{GroupName: group, PolicyName: group, PolicyDocument: &allowAll})
	w.ok(err)
	w.refused(w.buckets(alice), "AccessDenied")
	_, err = c.AddUserToGroup(w.ctx(), &iam.AddUserToGroupInput{GroupName: group, UserName: user})
	w.ok(err)
	w.ok(w.buckets(alice))
	groups, err := c.ListGroupsForUser(w.ctx(), &iam.ListGroupsForUserInput{UserName: user})
	w.ok(err)
	policies, err := c.ListGroupPolicies(w.ctx(), &iam.ListGroupPoliciesInput{GroupName: group})
	w.ok(err)
	if len(groups.Groups) != 1 || *groups.Groups[0].GroupName != "ops" || len(policies.PolicyNames) != 1 {
		t.Errorf("got groups %+v, policies %v", groups.Groups, policies.PolicyNames)
	}
	_, err = c.AttachGroupPolicy(w.ctx(), &iam.AttachGroupPolicyInput{GroupName: group, PolicyArn: sdk.String(aws.DenyAll)})
	w.ok(err)
	w.refused(w.buckets(alice), "AccessDenied")
	_, err = c.RemoveUserFromGroup(w.ctx(), &iam.RemoveUserFromGroupInput{GroupName: group, UserName: user})
	w.ok(err)
	w.refused(w.buckets(alice), "AccessDenied")
}

func TestUserWithoutItsNameIsTheCaller(t *testing.T) {
	w := start(t, aws.Options{})
	alice, id := w.user("alice", allowAll)
	got, err := alice.iam.ListAccessKeys(w.ctx(), &iam.ListAccessKeysInput{})
	w.ok(err)
	if len(got.AccessKeyMetadata) != 1 || *got.AccessKeyMetadata[0].AccessKeyId != id {
		t.Errorf("got %+v", got.AccessKeyMetadata)
	}
	out, err := w.assume(alice, w.role("deploy", trusting(nobody), allowAll), "probe")
	w.ok(err)
	_, err = w.session(out.Credentials).iam.ListAccessKeys(w.ctx(), &iam.ListAccessKeysInput{})
	w.refused(err, "ValidationError")
	used, err := w.admin.iam.GetAccessKeyLastUsed(w.ctx(), &iam.GetAccessKeyLastUsedInput{AccessKeyId: &id})
	w.ok(err)
	if *used.UserName != "alice" || *used.AccessKeyLastUsed.ServiceName != "sts" {
		t.Errorf("got %s, %+v", *used.UserName, used.AccessKeyLastUsed)
	}
}

func TestPreImageReads(t *testing.T) {
	w := start(t, aws.Options{})
	c := w.admin.iam
	w.user("alice", allowAll)
	w.role("deploy", trusting(nobody), allowAll)
	w.ok(w.server.SeedMFADevice("alice", "arn:aws:iam::111122223333:mfa/alice", "123456"))
	w.ok(w.server.SeedInstanceProfile("deploy", "nodes"))
	alice, deploy := sdk.String("alice"), sdk.String("deploy")
	_, err := c.CreateLoginProfile(w.ctx(), &iam.CreateLoginProfileInput{UserName: alice, Password: sdk.String("not-kept")})
	w.ok(err)
	made, err := c.CreateServiceSpecificCredential(w.ctx(), &iam.CreateServiceSpecificCredentialInput{UserName: alice, ServiceName: sdk.String("bedrock.amazonaws.com")})
	w.ok(err)
	_, err = c.UpdateServiceSpecificCredential(w.ctx(), &iam.UpdateServiceSpecificCredentialInput{UserName: alice, ServiceSpecificCredentialId: made.ServiceSpecificCredential.ServiceSpecificCredentialId, Status: "Inactive"})
	w.ok(err)
	login, err := c.GetLoginProfile(w.ctx(), &iam.GetLoginProfileInput{UserName: alice})
	w.ok(err)
	mfa, err := c.ListMFADevices(w.ctx(), &iam.ListMFADevicesInput{UserName: alice})
	w.ok(err)
	held, err := c.ListServiceSpecificCredentials(w.ctx(), &iam.ListServiceSpecificCredentialsInput{UserName: alice})
	w.ok(err)
	profiles, err := c.ListInstanceProfilesForRole(w.ctx(), &iam.ListInstanceProfilesForRoleInput{RoleName: deploy})
	w.ok(err)
	inline, err := c.ListRolePolicies(w.ctx(), &iam.ListRolePoliciesInput{RoleName: deploy})
	w.ok(err)
	attached, err := c.ListAttachedUserPolicies(w.ctx(), &iam.ListAttachedUserPoliciesInput{UserName: sdk.String("admin")})
	w.ok(err)
	role, err := c.GetRole(w.ctx(), &iam.GetRoleInput{RoleName: deploy})
	w.ok(err)
	trust, err := url.QueryUnescape(*role.Role.AssumeRolePolicyDocument)
	w.ok(err)
	got := []string{
		*login.LoginProfile.UserName, *mfa.MFADevices[0].SerialNumber, string(held.ServiceSpecificCredentials[0].Status),
		*profiles.InstanceProfiles[0].InstanceProfileName, inline.PolicyNames[0], *attached.AttachedPolicies[0].PolicyName, trust,
	}
	want := []string{"alice", "arn:aws:iam::111122223333:mfa/alice", "Inactive", "nodes", "own", "AdministratorAccess", trusting(nobody)}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestAuthorizationDetailsInPages(t *testing.T) {
	w := start(t, aws.Options{})
	want := map[string]bool{"user admin": true}
	for i := range 5 {
		w.user(fmt.Sprintf("u%d", i), allowAll)
		w.role(fmt.Sprintf("r%d", i), trusting(nobody), allowAll)
		want[fmt.Sprintf("user u%d", i)], want[fmt.Sprintf("role r%d", i)] = true, true
	}
	got := map[string]bool{}
	pages := iam.NewGetAccountAuthorizationDetailsPaginator(w.admin.iam, &iam.GetAccountAuthorizationDetailsInput{
		MaxItems: sdk.Int32(3), Filter: []iamtypes.EntityType{"User", "Role"},
	})
	for pages.HasMorePages() {
		page, err := pages.NextPage(w.ctx())
		w.ok(err)
		for _, u := range page.UserDetailList {
			got["user "+*u.UserName] = true
		}
		for _, r := range page.RoleDetailList {
			got["role "+*r.RoleName] = true
			raw, err := url.QueryUnescape(*r.RolePolicyList[0].PolicyDocument)
			if err != nil || raw != allowAll {
				t.Errorf("inline policy %s, %v", raw, err)
			}
		}
		if len(page.Policies) > 0 {
			t.Error("policies were filtered out")
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestSimulation(t *testing.T) {
	w := start(t, aws.Options{})
	w.user("alice", document(`{"Effect":"Allow","Action":["s3:*","sts:AssumeRole"],"Resource":"*"},{"Effect":"Deny","Action":"s3:PutObject","Resource":"*","Condition":{"Bool":{"aws:SecureTransport":"false"}}}`))
	role := w.role("deploy", trusting(nobody), allowAll)
	simulate := func(entries ...iamtypes.ContextEntry) map[string]string {
		got, err := w.admin.iam.SimulatePrincipalPolicy(w.ctx(), &iam.SimulatePrincipalPolicyInput{
			PolicySourceArn: sdk.String("arn:aws:iam::111122223333:user/alice"), ContextEntries: entries,
			ActionNames: []string{"s3:ListAllMyBuckets", "sts:AssumeRole", "iam:CreateAccessKey", "s3:PutObject"}, ResourceArns: []string{role},
		})
		w.ok(err)
		out := map[string]string{}
		for _, r := range got.EvaluationResults {
			out[*r.EvalActionName] = string(r.EvalDecision)
			if len(r.MatchedStatements) > 0 {
				out[*r.EvalActionName] += " by " + *r.MatchedStatements[0].SourcePolicyId
			}
			if len(r.MissingContextValues) > 0 {
				out["missing"] = strings.Join(r.MissingContextValues, " ")
			}
		}
		return out
	}
	own := " by user_alice_own"
	if diff := cmp.Diff(map[string]string{"s3:ListAllMyBuckets": "allowed" + own, "sts:AssumeRole": "allowed" + own, "iam:CreateAccessKey": "implicitDeny",
		"s3:PutObject": "allowed" + own, "missing": "aws:SecureTransport"}, simulate()); diff != "" {
		t.Error(diff)
	}
	plain := iamtypes.ContextEntry{ContextKeyName: sdk.String("aws:SecureTransport"), ContextKeyType: "boolean", ContextKeyValues: []string{"false"}}
	if got := simulate(plain)["s3:PutObject"]; got != "explicitDeny"+own {
		t.Errorf("got %s", got)
	}
	_, err := w.admin.iam.AttachUserPolicy(w.ctx(), &iam.AttachUserPolicyInput{UserName: sdk.String("alice"), PolicyArn: sdk.String(aws.DenyAll)})
	w.ok(err)
	for action, got := range simulate() {
		if action != "missing" && got != "explicitDeny by AWSDenyAll" {
			t.Errorf("%s: got %s", action, got)
		}
	}
}
