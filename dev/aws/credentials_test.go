package aws_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/cloudtrail"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	iamtypes "github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"tourniquet.dev/tourniquet/dev/aws"
)

func TestCredentialsThatAreNotGood(t *testing.T) {
	w := start(t, aws.Options{})
	good, id := w.user("alice", allowAll)
	w.ok(w.buckets(good))
	other, otherID := w.key("alice")
	w.ok(w.buckets(other))
	_, err := w.admin.iam.UpdateAccessKey(w.ctx(), &iam.UpdateAccessKeyInput{UserName: sdk.String("alice"), AccessKeyId: &otherID, Status: iamtypes.StatusTypeInactive})
	w.ok(err)
	for name, tc := range map[string]struct {
		clients           clients
		query, json, rest string
	}{
		"wrong secret": {w.as(id, "wrong-secret-wrong-secret", ""), "SignatureDoesNotMatch", "InvalidSignatureException", "SignatureDoesNotMatch"},
		"unknown key":  {w.as("AKIAUNKNOWNUNKNOWN22", "some-secret-some-secret", ""), "InvalidClientTokenId", "UnrecognizedClientException", "InvalidAccessKeyId"},
		"inactive key": {other, "InvalidClientTokenId", "UnrecognizedClientException", "InvalidAccessKeyId"},
		"wrong token":  {w.as(id, "some-secret-some-secret", "token"), "InvalidClientTokenId", "UnrecognizedClientException", "InvalidAccessKeyId"},
	} {
		t.Run(name, func(t *testing.T) {
			w := *w
			w.t = t
			_, err := tc.clients.sts.GetCallerIdentity(w.ctx(), &sts.GetCallerIdentityInput{})
			w.refused(err, tc.query)
			_, err = tc.clients.iam.GetUser(w.ctx(), &iam.GetUserInput{})
			w.refused(err, tc.query)
			_, err = tc.clients.trail.LookupEvents(w.ctx(), &cloudtrail.LookupEventsInput{})
			w.refused(err, tc.json)
			w.refused(w.buckets(tc.clients), tc.rest)
		})
	}
	w.ok(w.buckets(good))
}

// TestTamperedRequest changes what was signed on its way.
func TestTamperedRequest(t *testing.T) {
	w := start(t, aws.Options{})
	c, _ := w.user("alice", allowAll)
	_, err := c.iam.CreateUser(w.ctx(), &iam.CreateUserInput{UserName: sdk.String("bob")}, func(o *iam.Options) {
		o.HTTPClient = tamper{strings.NewReplacer("UserName=bob", "UserName=eve")}
	})
	w.refused(err, "SignatureDoesNotMatch")
	if _, there := w.server.State().Entities["user/eve"]; there {
		t.Error("a tampered request was applied")
	}
}

func TestSessionsExpire(t *testing.T) {
	w := start(t, aws.Options{})
	c, _ := w.user("alice", allowAll)
	got, err := c.sts.GetSessionToken(w.ctx(), &sts.GetSessionTokenInput{DurationSeconds: sdk.Int32(900)})
	w.ok(err)
	session := w.session(got.Credentials)
	w.ok(w.buckets(session))
	w.clock.advance(899 * time.Second)
	w.ok(w.buckets(session))
	w.clock.advance(time.Second)
	w.refused(w.buckets(session), "ExpiredToken")
	_, err = session.sts.GetCallerIdentity(w.ctx(), &sts.GetCallerIdentityInput{})
	w.refused(err, "ExpiredToken")
	_, err = session.trail.LookupEvents(w.ctx(), &cloudtrail.LookupEventsInput{})
	w.refused(err, "ExpiredTokenException")
}

// TestClockSkew has the SDK find out from the Date header that its clock is wrong.
func TestClockSkew(t *testing.T) {
	w := start(t, aws.Options{})
	w.server.SetSkew(3 * time.Hour)
	once := retry.AddWithMaxAttempts(retry.NewStandard(), 1)
	key, err := w.server.SeedAdmin("second", aws.AccessKey{})
	w.ok(err)
	_, err = w.in("us-east-1", key.ID, key.Secret, "", once).sts.GetCallerIdentity(w.ctx(), &sts.GetCallerIdentityInput{})
	w.refused(err, "SignatureDoesNotMatch")
	_, err = w.admin.sts.GetCallerIdentity(w.ctx(), &sts.GetCallerIdentityInput{})
	w.ok(err)
}

func TestCallerIdentity(t *testing.T) {
	w := start(t, aws.Options{})
	alice, _ := w.user("alice", allowAll)
	role := w.role("deploy", trusting(nobody), allowAll)
	assumed, err := w.assume(alice, role, "run-1")
	w.ok(err)
	federated, err := alice.sts.GetFederationToken(w.ctx(), &sts.GetFederationTokenInput{Name: sdk.String("guest")})
	w.ok(err)
	root := w.server.SeedRootKey()
	for name, tc := range map[string]struct {
		clients clients
		want    string
	}{
		"user":      {alice, "arn:aws:iam::111122223333:user/alice"},
		"role":      {w.session(assumed.Credentials), "arn:aws:sts::111122223333:assumed-role/deploy/run-1"},
		"federated": {w.session(federated.Credentials), "arn:aws:sts::111122223333:federated-user/guest"},
		"root":      {w.as(root.ID, root.Secret, ""), "arn:aws:iam::111122223333:root"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := tc.clients.sts.GetCallerIdentity(t.Context(), &sts.GetCallerIdentityInput{})
			if err != nil || *got.Arn != tc.want || *got.Account != account {
				t.Errorf("got %+v, %v, want %s", got, err, tc.want)
			}
		})
	}
}

func TestCallerIdentityPassesDenyAll(t *testing.T) {
	w := start(t, aws.Options{})
	c, _ := w.user("alice", denyAll)
	w.refused(w.buckets(c), "AccessDenied")
	_, err := c.sts.GetCallerIdentity(w.ctx(), &sts.GetCallerIdentityInput{})
	w.ok(err)
}

func TestUnsignedAndUnknownCalls(t *testing.T) {
	w := start(t, aws.Options{})
	for name, tc := range map[string]struct {
		body   string
		status int
		want   string
	}{
		"unsigned": {"Action=ListUsers&Version=2010-05-08", http.StatusForbidden, "<Code>MissingAuthenticationToken</Code>"},
		"web identity without a provider": {"Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleSessionName=abc&RoleArn=arn:aws:iam::111122223333:role/x&WebIdentityToken=" +
			"eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJodHRwczovL29pZGMuZXhhbXBsZSJ9.AA", http.StatusBadRequest, "No OpenIDConnect provider found in your account for https://oidc.example"},
	} {
		t.Run(name, func(t *testing.T) {
			response, err := http.Post(w.url, "application/x-www-form-urlencoded", strings.NewReader(tc.body))
			if err != nil {
				t.Fatal(err)
			}
			body := read(t, response)
			if response.StatusCode != tc.status || !strings.Contains(body, tc.want) || response.Header.Get("Server") != aws.Label {
				t.Errorf("got %d %s, want %d %s", response.StatusCode, body, tc.status, tc.want)
			}
		})
	}
	_, err := w.admin.iam.GetAccountSummary(w.ctx(), &iam.GetAccountSummaryInput{})
	w.refused(err, "InvalidAction")
	if !strings.Contains(err.Error(), aws.Label) {
		t.Errorf("%v does not name the stand-in", err)
	}
}

func TestAPersonIsToldWhatThisIs(t *testing.T) {
	w := start(t, aws.Options{})
	response, err := http.Get(w.url)
	if err != nil {
		t.Fatal(err)
	}
	if body := read(t, response); !strings.HasPrefix(body, aws.Label) {
		t.Errorf("got %q", body)
	}
}
