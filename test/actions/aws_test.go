package actions_test

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"tourniquet.dev/tourniquet/activities"
	"tourniquet.dev/tourniquet/activities/aws"
	"tourniquet.dev/tourniquet/activities/conformance"
	"tourniquet.dev/tourniquet/internal/plan"

	standin "tourniquet.dev/tourniquet/dev/aws"
)

func TestUndoKeepsWhatStoodBefore(t *testing.T) {
	t.Parallel()
	a := newAccount(t, aws.Leashed)
	key := a.user(t, "app", allowAll)
	asleep := a.key(t, "app")
	must(a.admin.UpdateAccessKey(t.Context(), &iam.UpdateAccessKeyInput{UserName: sdk.String("app"), AccessKeyId: &asleep.ID, Status: types.StatusTypeInactive}))(t)
	must(a.admin.AttachUserPolicy(t.Context(), &iam.AttachUserPolicyInput{UserName: sdk.String("app"), PolicyArn: sdk.String(quarantineARN)}))(t)
	for _, action := range []plan.Action{plan.AWSDeactivateKeys, plan.AWSQuarantinePrincipal} {
		w := a.world(t, action, keyTarget(a, key))
		before, in := w.Snapshot(t), conformance.Intend(t, w)
		r, err := w.Action.Apply(t.Context(), in)
		if err != nil {
			t.Fatal(action, err)
		}
		if err := w.Action.Undo(t.Context(), in, r); err != nil {
			t.Fatal(action, err)
		}
		conformance.WantSame(t, w, before)
	}
	app := a.State().Entities["user/app"]
	// A key that was Inactive before is not ours to judge when it comes off, whatever became of it.
	w := a.world(t, plan.AWSDeactivateKeys, keyTarget(a, asleep))
	in := conformance.Intend(t, w)
	r, err := w.Action.Apply(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	must(a.admin.UpdateAccessKey(t.Context(), &iam.UpdateAccessKeyInput{UserName: sdk.String("app"), AccessKeyId: &asleep.ID, Status: types.StatusTypeActive}))(t)
	if err := w.Action.Undo(t.Context(), in, r); err != nil || a.State().Entities["user/app"].Keys[asleep.ID] != "Active" {
		t.Errorf("a key that someone activated: %v, %v", err, a.State().Entities["user/app"].Keys)
	}
	if app.Keys[key.ID] != "Active" || app.Keys[asleep.ID] != "Inactive" || !slices.Contains(app.Attached, quarantineARN) {
		t.Errorf("a key that was Inactive or a quarantine of others did not stay: %v %v", app.Keys, app.Attached)
	}
}

func TestCutActsOnTheKeyAndOnItsSessions(t *testing.T) {
	t.Parallel()
	a := newAccount(t, aws.Leashed)
	key := a.user(t, "app", allowAll)
	session := must(a.caller(key).GetSessionToken(t.Context(), &sts.GetSessionTokenInput{}))(t).Credentials
	asSession := standin.AccessKey{ID: *session.AccessKeyId, Secret: *session.SecretAccessKey}
	role := a.role(t, "reader")
	assumed := must(a.caller(key).AssumeRole(t.Context(), &sts.AssumeRoleInput{RoleArn: sdk.String("arn:aws:iam::" + a.Account() + ":role/reader"), RoleSessionName: sdk.String("stolen")}))(t).Credentials
	asRole := standin.AccessKey{ID: *assumed.AccessKeyId, Secret: *assumed.SecretAccessKey}
	if !a.can(key, "") || !a.can(asRole, *assumed.SessionToken) {
		t.Fatal("the key and its role session work before the cut")
	}
	for _, step := range []struct {
		action plan.Action
		target plan.Target
		still  map[string]bool // who can still act after it
	}{
		{plan.AWSDeactivateKeys, keyTarget(a, key), map[string]bool{"key": false, "role": true}},
		{plan.AWSQuarantinePrincipal, keyTarget(a, key), map[string]bool{"key": false, "role": true}},
		{plan.AWSRevokeSessions, role, map[string]bool{"key": false, "role": false}},
	} {
		w := a.world(t, step.action, step.target)
		if _, err := w.Action.Apply(t.Context(), conformance.Intend(t, w)); err != nil {
			t.Fatal(step.action, err)
		}
		if got := a.can(key, ""); got != step.still["key"] {
			t.Errorf("after %s the key can act: %t", step.action, got)
		}
		if got := a.can(asRole, *assumed.SessionToken); got != step.still["role"] {
			t.Errorf("after %s the role session can act: %t", step.action, got)
		}
		_ = asSession
	}
}

func TestFullModeSparesSessionsMadeLater(t *testing.T) {
	t.Parallel()
	a := newAccount(t, aws.Full)
	key := a.user(t, "app", allowAll)
	assume := func() (standin.AccessKey, string) {
		c := must(a.caller(key).AssumeRole(t.Context(), &sts.AssumeRoleInput{RoleArn: sdk.String("arn:aws:iam::" + a.Account() + ":role/reader"), RoleSessionName: sdk.String("stolen")}))(t).Credentials
		return standin.AccessKey{ID: *c.AccessKeyId, Secret: *c.SecretAccessKey}, *c.SessionToken
	}
	w := a.world(t, plan.AWSRevokeSessions, a.role(t, "reader"))
	before, beforeToken := assume()
	if _, err := w.Action.Apply(t.Context(), conformance.Intend(t, w)); err != nil {
		t.Fatal(err)
	}
	a.clock.pass(3 * time.Second)
	after, afterToken := assume()
	if a.can(before, beforeToken) || !a.can(after, afterToken) {
		t.Errorf("session minted before can act: %t, session minted after can act: %t", a.can(before, beforeToken), a.can(after, afterToken))
	}
}

func TestVerifyNamesCallsThatStillWentThrough(t *testing.T) {
	t.Parallel()
	a := newAccount(t, aws.Leashed)
	key := a.user(t, "app", allowAll)
	w := a.world(t, plan.AWSQuarantinePrincipal, keyTarget(a, key))
	in := conformance.Intend(t, w)
	r, err := w.Action.Apply(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	a.settle(t)
	// Someone takes the deny off, the attacker calls, and the deny is put back: only the audit log knows.
	w2 := a.world(t, plan.AWSQuarantinePrincipal, keyTarget(a, key))
	must(a.admin.DetachUserPolicy(t.Context(), &iam.DetachUserPolicyInput{UserName: sdk.String("app"), PolicyArn: sdk.String(quarantineARN)}))(t)
	if !a.can(key, "") {
		t.Fatal("the key works without the deny")
	}
	if _, err := w2.Action.Apply(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	o, err := w.Reader.Verify(t.Context(), in, r)
	if err != nil {
		t.Fatal(err)
	}
	if o.Finding != plan.NotHolding || !strings.Contains(strings.Join(o.Witnesses, "\n"), "ListUsers by "+key.ID) {
		t.Errorf("finding %s, witnesses %q", o.Finding, o.Witnesses)
	}
}

func TestVerifyFindsTheKeyMadeInTheLag(t *testing.T) {
	t.Parallel()
	a := newAccount(t, aws.Leashed)
	w := a.world(t, plan.AWSDeactivateKeys, keyTarget(a, a.user(t, "app", allowAll)))
	in := conformance.Intend(t, w)
	r, err := w.Action.Apply(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	second := a.key(t, "app")
	a.settle(t)
	o, err := w.Reader.Verify(t.Context(), in, r)
	if err != nil || o.Finding != plan.NotHolding || !strings.Contains(strings.Join(o.Witnesses, "\n"), second.ID) {
		t.Errorf("%v, finding %s, witnesses %q", err, o.Finding, o.Witnesses)
	}
}

func TestVerifyIsNotFooledByAWeakenedPolicy(t *testing.T) {
	t.Parallel()
	a := newAccount(t, aws.Leashed)
	key := a.user(t, "app", allowAll)
	w := a.world(t, plan.AWSQuarantinePrincipal, keyTarget(a, key))
	in := conformance.Intend(t, w)
	r, err := w.Action.Apply(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	weak := `{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"s3:*","Resource":"*"}]}`
	must(a.admin.CreatePolicyVersion(t.Context(), &iam.CreatePolicyVersionInput{PolicyArn: sdk.String(quarantineARN), PolicyDocument: &weak, SetAsDefault: true}))(t)
	a.settle(t)
	o, err := w.Reader.Verify(t.Context(), in, r)
	if err != nil {
		t.Fatal(err)
	}
	if o.Finding != plan.NotHolding {
		t.Errorf("finding %s, witnesses %q", o.Finding, o.Witnesses)
	}
}

func TestAWSRefuses(t *testing.T) {
	t.Parallel()
	a := newAccount(t, aws.Leashed)
	key := a.user(t, "app", allowAll)
	rootKey := a.SeedRootKey()
	const trustNobody = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"x.amazonaws.com"},"Action":"sts:AssumeRole"}]}`
	for _, path := range []string{"/aws-service-role/x.amazonaws.com/", "/aws-reserved/sso.amazonaws.com/"} {
		if err := a.SeedServiceRole("svc"+path[5:8], path, trustNobody); err != nil {
			t.Fatal(err)
		}
	}
	service := func(name string) plan.Target {
		out := must(a.admin.GetRole(t.Context(), &iam.GetRoleInput{RoleName: &name}))(t)
		return plan.Target{Kind: plan.AWSRole, Scope: a.Account(), Name: name, UID: *out.Role.RoleId}
	}
	elsewhere := keyTarget(a, key)
	elsewhere.Scope = "999988887777"
	for name, tc := range map[string]struct {
		action plan.Action
		target plan.Target
		want   error
	}{
		"the root user's key":       {plan.AWSQuarantinePrincipal, keyTarget(a, rootKey), activities.ErrRefused},
		"the root user's keys":      {plan.AWSDeactivateKeys, keyTarget(a, rootKey), activities.ErrRefused},
		"a service-linked role":     {plan.AWSRevokeSessions, service("svcser"), activities.ErrRefused},
		"an Identity Center role":   {plan.AWSRevokeSessions, service("svcres"), activities.ErrRefused},
		"a target of other account": {plan.AWSDeactivateKeys, elsewhere, activities.ErrRefused},
		"a role of another id":      {plan.AWSRevokeSessions, plan.Target{Kind: plan.AWSRole, Scope: a.Account(), Name: "svcser", UID: "AROAOTHER"}, activities.ErrRefused},
		"a role that is gone":       {plan.AWSRevokeSessions, plan.Target{Kind: plan.AWSRole, Scope: a.Account(), Name: "nobody", UID: "AROAOTHER"}, activities.ErrConflict},
	} {
		t.Run(name, func(t *testing.T) {
			w := a.world(t, tc.action, tc.target)
			if _, err := w.Action.Expand(t.Context(), w.Step); !errors.Is(err, tc.want) {
				t.Errorf("%v, want %v", err, tc.want)
			}
		})
	}
}

func TestWrongAccountIsRefusedBeforeAnyEffect(t *testing.T) {
	t.Parallel()
	a := newAccount(t, aws.Leashed)
	key := a.user(t, "app", allowAll)
	w := a.world(t, plan.AWSDeactivateKeys, keyTarget(a, key))
	in := conformance.Intend(t, w)
	const other = "444455556666"
	elsewhere, err := aws.New(aws.Options{Endpoint: a.url, Region: "us-east-1", Account: other, Mode: aws.Leashed,
		Credentials: keyFile(t, key), QuarantinePolicyARN: "arn:aws:iam::" + other + ":policy/TourniquetQuarantine"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := elsewhere.Prove(t.Context()); !errors.Is(err, activities.ErrRefused) {
		t.Errorf("prove: %v, want ErrRefused", err)
	}
	for i := range in.Targets { // a plan for the account that we believe to be in
		in.Targets[i].Scope, in.PreImages[i].Target.Scope = other, other
	}
	before, action, seen := w.Snapshot(t), elsewhere.Actions()[plan.AWSDeactivateKeys], len(a.Records(0))
	if _, err := action.Apply(t.Context(), in); !errors.Is(err, activities.ErrRefused) {
		t.Errorf("apply: %v, want ErrRefused", err)
	}
	if err := action.Undo(t.Context(), in, plan.Receipt{}); !errors.Is(err, activities.ErrRefused) {
		t.Errorf("undo: %v, want ErrRefused", err)
	}
	for _, r := range a.Records(0)[seen:] {
		if r.Action != "GetCallerIdentity" {
			t.Errorf("asked for %s in the wrong account", r.Action)
		}
	}
	conformance.WantSame(t, w, before)
}

func TestAWriteIsAskedForOnce(t *testing.T) {
	t.Parallel()
	a := newAccount(t, aws.Leashed)
	w := a.world(t, plan.AWSDeactivateKeys, keyTarget(a, a.user(t, "app", allowAll)))
	in := conformance.Intend(t, w)
	patient, err := aws.New(aws.Options{Endpoint: a.url, Region: "us-east-1", Account: a.Account(), Mode: aws.Leashed,
		Credentials: keyFile(t, a.key(t, "tourniquet-contain")), QuarantinePolicyARN: quarantineARN})
	if err != nil {
		t.Fatal(err)
	}
	for _, fault := range []standin.FaultKind{standin.LostReply, standin.Throttle, standin.Broken} {
		if err := a.Inject(standin.Fault{Kind: fault, Action: "UpdateAccessKey", Times: 1}); err != nil {
			t.Fatal(err)
		}
		seen := len(a.Records(0))
		_, err := patient.Actions()[plan.AWSDeactivateKeys].Apply(t.Context(), in)
		if asked := count(a.Records(0)[seen:], "UpdateAccessKey"); asked != 1 {
			t.Errorf("%s: asked %d times (%v)", fault, asked, err)
		}
		if fault == standin.LostReply {
			if err != nil {
				t.Error("the lost reply was not read back:", err)
			}
			if err := patient.Actions()[plan.AWSDeactivateKeys].Undo(t.Context(), in, plan.Receipt{}); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func count(records []standin.Record, action string) int {
	n := 0
	for _, r := range records {
		if r.Action == action {
			n++
		}
	}
	return n
}

func TestQuarantineThatGrantsIsNeverAttached(t *testing.T) {
	t.Parallel()
	a := newAccount(t, aws.Leashed)
	w := a.world(t, plan.AWSQuarantinePrincipal, keyTarget(a, a.user(t, "app", investigator)))
	in := conformance.Intend(t, w)
	must(a.admin.CreatePolicyVersion(t.Context(), &iam.CreatePolicyVersionInput{PolicyArn: sdk.String(quarantineARN), PolicyDocument: sdk.String(allowAll), SetAsDefault: true}))(t)
	before := w.Snapshot(t)
	if _, err := w.Action.Apply(t.Context(), in); !errors.Is(err, activities.ErrRefused) {
		t.Errorf("apply: %v, want ErrRefused", err)
	}
	conformance.WantSame(t, w, before)
}

func TestLeashedRightsForbidFreeText(t *testing.T) {
	t.Parallel()
	a := newAccount(t, aws.Leashed)
	w := a.world(t, plan.AWSRevokeSessions, a.role(t, "reader"))
	full := a.system(t, a.url, aws.Full, a.key(t, "tourniquet-contain")).Actions()[plan.AWSRevokeSessions]
	if _, err := full.Apply(t.Context(), conformance.Intend(t, w)); !errors.Is(err, activities.ErrRefused) {
		t.Errorf("full mode under leashed rights: %v, want ErrRefused", err)
	}
}

func TestErrorsKeepNoSecret(t *testing.T) {
	t.Parallel()
	a := newAccount(t, aws.Leashed)
	key := a.user(t, "app", allowAll)
	w := a.world(t, plan.AWSDeactivateKeys, keyTarget(a, key))
	in := conformance.Intend(t, w)
	secret := a.key(t, "tourniquet-contain")
	s := a.system(t, a.url, aws.Leashed, secret)
	for _, fault := range []standin.FaultKind{standin.Throttle, standin.Broken, standin.Reset} {
		if err := a.Inject(standin.Fault{Kind: fault, Action: "UpdateAccessKey", Times: 1}); err != nil {
			t.Fatal(err)
		}
		_, err := s.Actions()[plan.AWSDeactivateKeys].Apply(t.Context(), in)
		if err == nil || strings.Contains(err.Error(), secret.Secret) || strings.Contains(err.Error(), "Authorization") {
			t.Errorf("%s: %v", fault, err)
		}
		want := fault != standin.Throttle
		if got := errors.Is(err, activities.ErrUnknown); got != want {
			t.Errorf("%s: unknown %t, want %t (%v)", fault, got, want, err)
		}
		a.ClearFaults()
	}
}

func TestKeyFile(t *testing.T) {
	t.Parallel()
	file := keyFile(t, standin.AccessKey{ID: "AKIAABCDEFGHIJKLMNOP", Secret: "not-a-secret-of-anybody"})
	options := aws.Options{Region: "us-east-1", Credentials: file, Account: standin.DefaultAccount, QuarantinePolicyARN: quarantineARN, Mode: aws.Leashed}
	if _, err := aws.New(options); err != nil {
		t.Error(err)
	}
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := aws.New(options); err == nil || strings.Contains(err.Error(), "not-a-secret") {
		t.Errorf("a key file open to others: %v", err)
	}
}

func TestEnvironmentDoesNotSteerTheClient(t *testing.T) {
	for name, value := range map[string]string{"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_ENDPOINT_URL_IAM": "http://127.0.0.1:1", "AWS_ENDPOINT_URL_STS": "http://127.0.0.1:1",
		"AWS_ACCESS_KEY_ID": "AKIAENVIRONMENT00000", "AWS_SECRET_ACCESS_KEY": "x", "AWS_REGION": "eu-west-1", "AWS_PROFILE": "nobody", "AWS_CONFIG_FILE": "/nonexistent"} {
		t.Setenv(name, value)
	}
	a := newAccount(t, aws.Leashed)
	if account, err := a.look.Prove(t.Context()); err != nil || account != a.Account() {
		t.Errorf("%q, %v", account, err)
	}
	w := a.world(t, plan.AWSDeactivateKeys, keyTarget(a, a.user(t, "app", allowAll)))
	conformance.Intend(t, w)
}

func TestIdentityFacts(t *testing.T) {
	t.Parallel()
	a := newAccount(t, aws.Leashed)
	key := a.user(t, "app", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["sts:AssumeRole","iam:ListUsers"],"Resource":"*"}]}`)
	a.role(t, "reader")
	a.role(t, "deployer")
	group := "team"
	must(a.admin.CreateGroup(t.Context(), &iam.CreateGroupInput{GroupName: &group}))(t)
	must(a.admin.AddUserToGroup(t.Context(), &iam.AddUserToGroupInput{GroupName: &group, UserName: sdk.String("app")}))(t)
	must(a.admin.PutGroupPolicy(t.Context(), &iam.PutGroupPolicyInput{GroupName: &group, PolicyName: sdk.String("g"), PolicyDocument: sdk.String(investigator)}))(t)
	arn := func(role string) *string { return sdk.String("arn:aws:iam::" + a.Account() + ":role/" + role) }
	first := must(a.caller(key).AssumeRole(t.Context(), &sts.AssumeRoleInput{RoleArn: arn("reader"), RoleSessionName: sdk.String("one")}))(t).Credentials
	chained := sts.NewFromConfig(a.config(a.url, *first.AccessKeyId, *first.SecretAccessKey, *first.SessionToken))
	second := must(chained.AssumeRole(t.Context(), &sts.AssumeRoleInput{RoleArn: arn("deployer"), RoleSessionName: sdk.String("two")}))(t).Credentials

	f, err := a.look.Identity(t.Context(), key.ID)
	if err != nil {
		t.Fatal(err)
	}
	if f.Owner.Kind != "user" || f.Owner.Name != "app" || len(f.Owner.Keys) != 1 || len(f.Owner.Policies) != 2 || len(f.Roles) != 2 {
		t.Errorf("owner %+v, %d roles", f.Owner, len(f.Roles))
	}
	var chain []string
	for _, s := range f.Sessions {
		chain = append(chain, s.ParentKey+" "+s.RoleARN+" "+s.KeyID)
	}
	want := []string{key.ID + " " + *arn("reader") + " " + *first.AccessKeyId, *first.AccessKeyId + " " + *arn("deployer") + " " + *second.AccessKeyId}
	if !slices.Equal(chain, want) {
		t.Errorf("sessions %q, want %q", chain, want)
	}
	if f, err = a.look.Identity(t.Context(), *first.AccessKeyId); err != nil || f.Owner.Kind != "role" || f.Owner.Name != "reader" {
		t.Errorf("identity of a session: %v, %v", f, err)
	}
	if _, err := a.look.Identity(t.Context(), "AKIA' or 1=1"); !errors.Is(err, activities.ErrRefused) {
		t.Errorf("a key id that is none: %v", err)
	}
}
