package iampolicy_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tourniquet.dev/tourniquet/internal/blast/iampolicy"
)

const (
	account = "111122223333"
	alice   = "arn:aws:iam::111122223333:user/alice"
	deploy  = "arn:aws:iam::111122223333:role/ci/deploy"
	session = "arn:aws:sts::111122223333:assumed-role/deploy/run-1"
	bucket  = "arn:aws:s3:::reports"
)

var (
	userAlice = iampolicy.Principal{Kind: iampolicy.User, Account: account, ARN: alice, ID: "AIDAEXAMPLE"}
	inSession = iampolicy.Principal{Kind: iampolicy.RoleSession, Account: account, ARN: session, RoleARN: deploy}
	stranger  = iampolicy.Principal{Kind: iampolicy.User, Account: "999999999999", ARN: "arn:aws:iam::999999999999:user/eve"}
)

// read wraps statements into a document of the current version.
func read(statements ...string) []iampolicy.Policy {
	return []iampolicy.Policy{iampolicy.Read("p", []byte(`{"Version":"2012-10-17","Statement":[`+strings.Join(statements, ",")+`]}`))}
}

const (
	allowAll    = `{"Effect":"Allow","Action":"*","Resource":"*"}`
	denyAll     = `{"Sid":"Stop","Effect":"Deny","Action":"*","Resource":"*"}`
	allowS3     = `{"Effect":"Allow","Action":"s3:Get*","Resource":"arn:aws:s3:::reports*"}`
	revokeOlder = `{"Effect":"Deny","Action":"*","Resource":"*","Condition":{"DateLessThan":{"aws:TokenIssueTime":"2026-11-22T23:40:00.000Z"}}}`
)

func grantTo(principal string) []iampolicy.Policy {
	return read(`{"Effect":"Allow","Principal":` + principal + `,"Action":"*","Resource":"*"}`)
}

func trust(principal, condition string) []iampolicy.Policy {
	return read(`{"Effect":"Allow","Principal":` + principal + `,"Action":"sts:AssumeRole"` + condition + `}`)
}

type vector struct {
	principal iampolicy.Principal
	action    string
	resource  string
	owner     string
	context   iampolicy.Context
	set       iampolicy.PolicySet
	want      string // "allowed", "explicitDeny", "implicitDeny", or "lower..upper"
}

func (v vector) verdict() string {
	if v.principal.Kind == "" {
		v.principal = userAlice
	}
	if v.action == "" {
		v.action = "s3:GetObject"
	}
	if v.resource == "" {
		v.resource = bucket + "/q3.csv"
	}
	decision := iampolicy.Evaluate(iampolicy.Request{
		Principal: v.principal, Action: v.action, Resource: v.resource, ResourceAccount: v.owner, Context: v.context,
	}, v.set)
	lower, upper := string(decision.Lower.Verdict), string(decision.Upper.Verdict)
	if lower == upper {
		return lower
	}
	return lower + ".." + upper
}

func run(t *testing.T, vectors map[string]vector) {
	t.Helper()
	for name, v := range vectors {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(v.want, v.verdict()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestLayersInsideOneAccount(t *testing.T) {
	run(t, map[string]vector{
		"nothing allows":                     {want: "implicitDeny"},
		"identity allows":                    {set: iampolicy.PolicySet{Identity: read(allowS3)}, want: "allowed"},
		"identity allows something else":     {action: "s3:PutObject", set: iampolicy.PolicySet{Identity: read(allowS3)}, want: "implicitDeny"},
		"deny beats allow":                   {set: iampolicy.PolicySet{Identity: read(allowAll, denyAll)}, want: "explicitDeny"},
		"deny in a boundary":                 {set: iampolicy.PolicySet{Identity: read(allowAll), Boundary: read(allowAll, denyAll)}, want: "explicitDeny"},
		"boundary without the action":        {set: iampolicy.PolicySet{Identity: read(allowAll), Boundary: read(`{"Effect":"Allow","Action":"ec2:*","Resource":"*"}`)}, want: "implicitDeny"},
		"boundary alone grants nothing":      {set: iampolicy.PolicySet{Boundary: read(allowAll)}, want: "implicitDeny"},
		"session policy narrows":             {principal: inSession, set: iampolicy.PolicySet{Identity: read(allowAll), Session: read(`{"Effect":"Allow","Action":"ec2:*","Resource":"*"}`)}, want: "implicitDeny"},
		"session policy and identity":        {principal: inSession, set: iampolicy.PolicySet{Identity: read(allowAll), Session: read(allowS3)}, want: "allowed"},
		"every SCP level must allow":         {set: iampolicy.PolicySet{Identity: read(allowAll), SCP: [][]iampolicy.Policy{read(allowAll), read(`{"Effect":"Allow","Action":"ec2:*","Resource":"*"}`)}}, want: "implicitDeny"},
		"all SCP levels allow":               {set: iampolicy.PolicySet{Identity: read(allowAll), SCP: [][]iampolicy.Policy{read(allowAll), read(allowAll)}}, want: "allowed"},
		"SCP binds the root user":            {principal: iampolicy.Principal{Kind: iampolicy.Root, Account: account, ARN: "arn:aws:iam::111122223333:root"}, set: iampolicy.PolicySet{SCP: [][]iampolicy.Policy{read(allowAll, denyAll)}}, want: "explicitDeny"},
		"the root user needs no policy":      {principal: iampolicy.Principal{Kind: iampolicy.Root, Account: account, ARN: "arn:aws:iam::111122223333:root"}, want: "allowed"},
		"federated user without policy":      {principal: iampolicy.Principal{Kind: iampolicy.FederatedUser, Account: account, ARN: "arn:aws:sts::111122223333:federated-user/x", UserARN: alice}, set: iampolicy.PolicySet{Identity: read(allowAll)}, want: "implicitDeny"},
		"federated user with session policy": {principal: iampolicy.Principal{Kind: iampolicy.FederatedUser, Account: account, ARN: "arn:aws:sts::111122223333:federated-user/x", UserARN: alice}, set: iampolicy.PolicySet{Identity: read(allowAll), Session: read(allowS3)}, want: "allowed"},
	})
}

func TestResourcePolicies(t *testing.T) {
	narrow := read(`{"Effect":"Allow","Action":"ec2:*","Resource":"*"}`)
	run(t, map[string]vector{
		"naming the user grants":                      {set: iampolicy.PolicySet{Resource: grantTo(`{"AWS":"` + alice + `"}`)}, want: "allowed"},
		"naming the user passes its boundary":         {set: iampolicy.PolicySet{Resource: grantTo(`{"AWS":"` + alice + `"}`), Boundary: narrow}, want: "allowed"},
		"naming the account delegates only":           {set: iampolicy.PolicySet{Resource: grantTo(`{"AWS":"` + account + `"}`)}, want: "implicitDeny"},
		"naming everybody grants":                     {set: iampolicy.PolicySet{Resource: grantTo(`"*"`)}, want: "allowed"},
		"naming the role is limited by the boundary":  {principal: inSession, set: iampolicy.PolicySet{Resource: grantTo(`{"AWS":"` + deploy + `"}`), Boundary: narrow}, want: "implicitDeny"},
		"naming the session is not":                   {principal: inSession, set: iampolicy.PolicySet{Resource: grantTo(`{"AWS":"` + session + `"}`), Boundary: narrow, Session: narrow}, want: "allowed"},
		"naming the user's unique id":                 {set: iampolicy.PolicySet{Resource: grantTo(`{"AWS":"AIDAEXAMPLE"}`)}, want: "allowed"},
		"another user is not meant":                   {set: iampolicy.PolicySet{Resource: grantTo(`{"AWS":"` + alice + `2"}`)}, want: "implicitDeny"},
		"a wildcard inside an ARN names nobody":       {set: iampolicy.PolicySet{Resource: grantTo(`{"AWS":"arn:aws:iam::111122223333:user/*"}`)}, want: "implicitDeny"},
		"cross-account with one side":                 {principal: stranger, owner: account, set: iampolicy.PolicySet{Identity: read(allowAll)}, want: "implicitDeny"},
		"cross-account with the other side":           {principal: stranger, owner: account, set: iampolicy.PolicySet{Resource: grantTo(`{"AWS":"arn:aws:iam::999999999999:user/eve"}`)}, want: "implicitDeny"},
		"cross-account with both":                     {principal: stranger, owner: account, set: iampolicy.PolicySet{Identity: read(allowAll), Resource: grantTo(`{"AWS":"arn:aws:iam::999999999999:root"}`)}, want: "allowed"},
		"the owner's deny reaches strangers":          {principal: stranger, owner: account, set: iampolicy.PolicySet{Identity: read(allowAll), Resource: append(grantTo(`"*"`), read(`{"Effect":"Deny","Principal":"*","Action":"*","Resource":"*"}`)...)}, want: "explicitDeny"},
		"an anonymous caller needs the resource":      {principal: iampolicy.Principal{Kind: iampolicy.Anonymous}, owner: account, set: iampolicy.PolicySet{Resource: grantTo(`"*"`)}, want: "allowed"},
		"an identity statement with a principal":      {set: iampolicy.PolicySet{Identity: grantTo(`"*"`)}, want: "implicitDeny..allowed"},
		"a key policy must let the account in":        {action: "kms:Decrypt", resource: "arn:aws:kms:eu-west-1:111122223333:key/k", set: iampolicy.PolicySet{Identity: read(allowAll)}, want: "implicitDeny"},
		"a key policy that does":                      {action: "kms:Decrypt", resource: "arn:aws:kms:eu-west-1:111122223333:key/k", set: iampolicy.PolicySet{Identity: read(allowAll), Resource: grantTo(`{"AWS":"` + account + `"}`)}, want: "allowed"},
		"deny for all but a user and account":         {set: iampolicy.PolicySet{Identity: read(allowAll), Resource: read(`{"Effect":"Deny","NotPrincipal":{"AWS":["` + alice + `","` + account + `"]},"Action":"*","Resource":"*"}`)}, want: "allowed"},
		"deny for all but another user":               {set: iampolicy.PolicySet{Identity: read(allowAll), Resource: read(`{"Effect":"Deny","NotPrincipal":{"AWS":["arn:aws:iam::999999999999:user/eve"]},"Action":"*","Resource":"*"}`)}, want: "explicitDeny"},
		"deny for all but the user, account left out": {set: iampolicy.PolicySet{Identity: read(allowAll), Resource: read(`{"Effect":"Deny","NotPrincipal":{"AWS":"` + alice + `"},"Action":"*","Resource":"*"}`)}, want: "explicitDeny..allowed"},
	})
}

func TestTrustPolicies(t *testing.T) {
	assume := `{"Effect":"Allow","Action":"sts:AssumeRole","Resource":"*"}`
	mfa := `,"Condition":{"Bool":{"aws:MultiFactorAuthPresent":"true"}}`
	idp := `arn:aws:iam::111122223333:oidc-provider/oidc.example`
	pod := iampolicy.Principal{Kind: iampolicy.WebIdentity, ARN: idp}
	web := `{"Effect":"Allow","Principal":{"Federated":"` + idp + `"},"Action":"sts:AssumeRoleWithWebIdentity","Condition":{"StringEquals":{"oidc.example:sub":"system:serviceaccount:shop:cart"}}}`
	cut := `{"Effect":"Deny","Principal":{"Federated":"` + idp + `"},"Action":"sts:AssumeRoleWithWebIdentity","Condition":{"StringEquals":{"oidc.example:sub":"system:serviceaccount:shop:cart"}}}`
	sub := iampolicy.NewContext(map[string]string{"oidc.example:sub": "system:serviceaccount:shop:cart"})
	vectors := map[string]vector{
		"identity alone is not enough":               {set: iampolicy.PolicySet{Identity: read(assume)}, want: "implicitDeny"},
		"trust in the user is enough":                {set: iampolicy.PolicySet{Resource: trust(`{"AWS":"`+alice+`"}`, "")}, want: "allowed"},
		"trust in the account needs identity":        {set: iampolicy.PolicySet{Resource: trust(`{"AWS":"`+account+`"}`, "")}, want: "implicitDeny"},
		"trust in the account with identity":         {set: iampolicy.PolicySet{Identity: read(assume), Resource: trust(`{"AWS":"arn:aws:iam::111122223333:root"}`, "")}, want: "allowed"},
		"trust in the account with MFA, without":     {set: iampolicy.PolicySet{Identity: read(assume), Resource: trust(`{"AWS":"`+account+`"}`, mfa)}, want: "implicitDeny"},
		"trust in the account with MFA, not known":   {context: iampolicy.Context{Open: true}, set: iampolicy.PolicySet{Identity: read(assume), Resource: trust(`{"AWS":"`+account+`"}`, mfa)}, want: "implicitDeny..allowed"},
		"trust elsewhere":                            {principal: stranger, set: iampolicy.PolicySet{Resource: trust(`{"AWS":"999999999999"}`, "")}, want: "implicitDeny"},
		"trust elsewhere, with identity":             {principal: stranger, set: iampolicy.PolicySet{Identity: read(assume), Resource: trust(`{"AWS":"999999999999"}`, "")}, want: "allowed"},
		"a role chains into a role":                  {principal: inSession, set: iampolicy.PolicySet{Resource: trust(`{"AWS":"`+deploy+`"}`, "")}, want: "allowed"},
		"a service that is trusted":                  {principal: iampolicy.Principal{Kind: iampolicy.Service, ARN: "ec2.amazonaws.com"}, set: iampolicy.PolicySet{Resource: trust(`{"Service":"ec2.amazonaws.com"}`, "")}, want: "allowed"},
		"a service that is not":                      {principal: iampolicy.Principal{Kind: iampolicy.Service, ARN: "ecs.amazonaws.com"}, set: iampolicy.PolicySet{Resource: trust(`{"Service":"ec2.amazonaws.com"}`, "")}, want: "implicitDeny"},
		"a service account that is trusted":          {principal: pod, action: "sts:AssumeRoleWithWebIdentity", context: sub, set: iampolicy.PolicySet{Resource: read(web)}, want: "allowed"},
		"one that was cut":                           {principal: pod, action: "sts:AssumeRoleWithWebIdentity", context: sub, set: iampolicy.PolicySet{Resource: read(web, cut)}, want: "explicitDeny"},
		"another one of the same issuer":             {principal: pod, action: "sts:AssumeRoleWithWebIdentity", context: iampolicy.NewContext(map[string]string{"oidc.example:sub": "system:serviceaccount:shop:api"}), set: iampolicy.PolicySet{Resource: read(web, cut)}, want: "implicitDeny"},
		"the quarantine stops assuming, trust or no": {set: iampolicy.PolicySet{Identity: read(denyAll), Resource: trust(`{"AWS":"`+alice+`"}`, "")}, want: "explicitDeny"},
	}
	for name, v := range vectors {
		v.resource = deploy
		if v.action == "" {
			v.action = "sts:AssumeRole"
		}
		vectors[name] = v
	}
	run(t, vectors)
}

// TestContainmentDocuments holds the documents that our steps rely on.
func TestContainmentDocuments(t *testing.T) {
	guard := read(allowAll, `{"Effect":"Deny","Action":["iam:DetachUserPolicy","iam:DetachRolePolicy"],"Resource":"*","Condition":{
		"ArnEquals":{"iam:PolicyARN":"arn:aws:iam::111122223333:policy/TourniquetQuarantine"},
		"ArnNotLike":{"aws:PrincipalArn":"arn:aws:iam::*:role/tourniquet-responder"}}}`)
	ours := iampolicy.NewContext(map[string]string{"iam:PolicyARN": "arn:aws:iam::111122223333:policy/TourniquetQuarantine"})
	responder := iampolicy.Principal{Kind: iampolicy.RoleSession, Account: account, ARN: "arn:aws:sts::111122223333:assumed-role/tourniquet-responder/x", RoleARN: "arn:aws:iam::111122223333:role/tourniquet-responder"}
	expiring := read(allowAll, `{"Effect":"Deny","Action":"*","Resource":"*","Condition":{"DateLessThan":{"aws:CurrentTime":"2026-11-23T03:40:00Z"}}}`)
	pod := read(allowAll, `{"Effect":"Deny","Action":"*","Resource":"*","Condition":{"StringEquals":{"aws:PrincipalTag/kubernetes-pod-uid":"u1","aws:PrincipalTag/eks-cluster-arn":"c"}}}`)
	at := func(key, value string) iampolicy.Context { return iampolicy.NewContext(map[string]string{key: value}) }
	identity := func(policies []iampolicy.Policy) iampolicy.PolicySet { return iampolicy.PolicySet{Identity: policies} }
	mfaDeny := read(allowAll, `{"Effect":"Deny","Action":"*","Resource":"*","Condition":{"BoolIfExists":{"aws:MultiFactorAuthPresent":"false"}}}`)
	run(t, map[string]vector{
		"an older session is cut":                    {principal: inSession, context: at("aws:TokenIssueTime", "2026-11-22T23:39:59Z"), set: identity(read(allowAll, revokeOlder)), want: "explicitDeny"},
		"a newer session is not":                     {principal: inSession, context: at("aws:TokenIssueTime", "2026-11-22T23:40:00Z"), set: identity(read(allowAll, revokeOlder)), want: "allowed"},
		"a long-term key has no issue time":          {set: identity(read(allowAll, revokeOlder)), want: "allowed"},
		"a session whose issue time is not known":    {principal: inSession, context: iampolicy.Context{}.WithUnknown("aws:TokenIssueTime"), set: identity(read(allowAll, revokeOlder)), want: "explicitDeny..allowed"},
		"a lease before its end":                     {context: at("aws:CurrentTime", "2026-11-23T03:39:59Z"), set: identity(expiring), want: "explicitDeny"},
		"a lease after its end":                      {context: at("aws:CurrentTime", "2026-11-23T03:40:00Z"), set: identity(expiring), want: "allowed"},
		"one pod":                                    {principal: inSession, context: at("aws:PrincipalTag/kubernetes-pod-uid", "u1").With("aws:PrincipalTag/eks-cluster-arn", "c"), set: identity(pod), want: "explicitDeny"},
		"its neighbour":                              {principal: inSession, context: at("aws:PrincipalTag/kubernetes-pod-uid", "u2").With("aws:PrincipalTag/eks-cluster-arn", "c"), set: identity(pod), want: "allowed"},
		"the guard keeps the quarantine on":          {action: "iam:DetachUserPolicy", resource: alice, context: ours, set: iampolicy.PolicySet{Identity: read(allowAll), SCP: [][]iampolicy.Policy{guard}}, want: "explicitDeny"},
		"the guard lets the responder":               {principal: responder, action: "iam:DetachUserPolicy", resource: alice, context: ours, set: iampolicy.PolicySet{Identity: read(allowAll), SCP: [][]iampolicy.Policy{guard}}, want: "allowed"},
		"BoolIfExists MFA deny hits a key":           {set: identity(mfaDeny), want: "explicitDeny"},
		"BoolIfExists MFA deny spares who has it":    {context: at("aws:MultiFactorAuthPresent", "true"), set: identity(mfaDeny), want: "allowed"},
		"a boundary that also grants, as a boundary": {set: iampolicy.PolicySet{Boundary: read(denyAll), Identity: read(allowAll)}, want: "explicitDeny"},
	})
}

func TestUnreadablePolicyIsUndecided(t *testing.T) {
	broken := []iampolicy.Policy{iampolicy.Read("broken", []byte(`{"Statement":`))}
	run(t, map[string]vector{
		"identity":       {set: iampolicy.PolicySet{Identity: broken}, want: "explicitDeny..allowed"},
		"trust":          {action: "sts:AssumeRole", resource: deploy, set: iampolicy.PolicySet{Resource: broken}, want: "explicitDeny..allowed"},
		"boundary":       {set: iampolicy.PolicySet{Identity: read(allowAll), Boundary: broken}, want: "explicitDeny..allowed"},
		"session":        {principal: inSession, set: iampolicy.PolicySet{Identity: read(allowAll), Session: broken}, want: "explicitDeny..allowed"},
		"scp":            {set: iampolicy.PolicySet{Identity: read(allowAll), SCP: [][]iampolicy.Policy{broken}}, want: "explicitDeny..allowed"},
		"a sure deny":    {set: iampolicy.PolicySet{Identity: append(broken, read(denyAll)...)}, want: "explicitDeny"},
		"other operator": {set: iampolicy.PolicySet{Identity: read(`{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"StringRhymes":{"a":"b"}}}`)}, want: "implicitDeny..allowed"},
	})
}

func TestReasonNamesTheDecidingStatement(t *testing.T) {
	decide := func(set iampolicy.PolicySet) iampolicy.Reason {
		return iampolicy.Evaluate(iampolicy.Request{Principal: userAlice, Action: "s3:GetObject", Resource: bucket}, set).Lower.Reason
	}
	for name, tc := range map[string]struct {
		set  iampolicy.PolicySet
		want iampolicy.Reason
	}{
		"an allow":        {iampolicy.PolicySet{Identity: read(denyAllOf("ec2:*"), allowAll)}, iampolicy.Reason{Layer: iampolicy.IdentityLayer, Policy: "p", Statement: 1}},
		"a deny":          {iampolicy.PolicySet{Identity: read(allowAll, denyAll)}, iampolicy.Reason{Layer: iampolicy.IdentityLayer, Policy: "p", Statement: 1, Sid: "Stop"}},
		"a missing allow": {iampolicy.PolicySet{Identity: read(allowAll), Boundary: read(denyAllOf("ec2:*"))}, iampolicy.Reason{Layer: iampolicy.BoundaryLayer, Statement: -1}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, decide(tc.set)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func denyAllOf(action string) string {
	return `{"Effect":"Deny","Action":"` + action + `","Resource":"*"}`
}
