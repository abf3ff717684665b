package aws_test

import (
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	iamtypes "github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"tourniquet.dev/tourniquet/dev/aws"
)

// TestAttackerWorksOnInTheWindow is the race that OFFENSAI published: after the key reads Inactive and the deny reads attached,
// the attacker has seconds to make itself at home.
func TestAttackerWorksOnInTheWindow(t *testing.T) {
	const lag = 4 * time.Second
	w := start(t, aws.Options{Lag: lag})
	attacker, id := w.user("victim", allowAll)
	alice := sdk.String("victim")
	role := w.role("deploy", trusting(nobody), allowAll)

	_, err := w.admin.iam.UpdateAccessKey(w.ctx(), &iam.UpdateAccessKeyInput{UserName: alice, AccessKeyId: &id, Status: iamtypes.StatusTypeInactive})
	w.ok(err)
	_, err = w.admin.iam.AttachUserPolicy(w.ctx(), &iam.AttachUserPolicyInput{UserName: alice, PolicyArn: sdk.String(aws.DenyAll)})
	w.ok(err)
	keys, err := w.admin.iam.ListAccessKeys(w.ctx(), &iam.ListAccessKeysInput{UserName: alice})
	w.ok(err)
	if got := keys.AccessKeyMetadata[0].Status; got != iamtypes.StatusTypeInactive {
		t.Errorf("the control plane says %s at once, want Inactive", got)
	}

	w.clock.advance(lag - time.Second)
	w.ok(w.buckets(attacker))
	second, err := attacker.iam.CreateAccessKey(w.ctx(), &iam.CreateAccessKeyInput{})
	w.ok(err)
	session, err := w.assume(attacker, role, "stay")
	w.ok(err)
	_, err = attacker.iam.DetachUserPolicy(w.ctx(), &iam.DetachUserPolicyInput{UserName: alice, PolicyArn: sdk.String(aws.DenyAll)})
	w.ok(err)

	w.clock.advance(time.Second)
	w.refused(w.buckets(attacker), "InvalidAccessKeyId")
	w.ok(w.buckets(w.session(session.Credentials))) // a role session outlives the key that minted it

	// The second key is known to authorization by now, and the deny that was detached in the window no longer counts.
	w.clock.advance(lag)
	w.ok(w.buckets(w.as(*second.AccessKey.AccessKeyId, *second.AccessKey.SecretAccessKey, "")))
}

func TestOnceTheWindowIsOverNothingOfTheUserWorks(t *testing.T) {
	w := start(t, aws.Options{Lag: 4 * time.Second, Jitter: time.Second, Seed: 7})
	attacker, _ := w.user("victim", allowAll)
	token, err := attacker.sts.GetSessionToken(w.ctx(), &sts.GetSessionTokenInput{})
	w.ok(err)
	federated, err := attacker.sts.GetFederationToken(w.ctx(), &sts.GetFederationTokenInput{Name: sdk.String("x1"), Policy: &allowAll})
	w.ok(err)
	session, console := w.session(token.Credentials), w.session(federated.Credentials)
	w.ok(w.buckets(session))
	w.ok(w.buckets(console))
	_, err = w.admin.iam.AttachUserPolicy(w.ctx(), &iam.AttachUserPolicyInput{UserName: sdk.String("victim"), PolicyArn: sdk.String(aws.DenyAll)})
	w.ok(err)
	w.clock.advance(5 * time.Second) // lag and jitter
	for name, c := range map[string]clients{"key": attacker, "session token": session, "federation token": console} {
		if got := codeOf(w.buckets(c)); got != "AccessDenied" {
			t.Errorf("%s: got %q, want AccessDenied", name, got)
		}
	}
}

// TestJitterStaysInItsBounds, and two changes of one thing never overtake each other.
func TestJitterStaysInItsBounds(t *testing.T) {
	for seed := range uint64(40) {
		w := start(t, aws.Options{Lag: 2 * time.Second, Jitter: time.Second, Seed: seed})
		c, _ := w.user("alice", "")
		put := func(policy string) {
			_, err := w.admin.iam.PutUserPolicy(w.ctx(), &iam.PutUserPolicyInput{UserName: sdk.String("alice"), PolicyName: sdk.String("p"), PolicyDocument: &policy})
			w.ok(err)
		}
		put(allowAll)
		put(denyAll)
		w.clock.advance(time.Second - time.Millisecond)
		w.refused(w.buckets(c), "AccessDenied")
		w.clock.advance(2*time.Second + time.Millisecond)
		err := w.buckets(c)
		w.refused(err, "AccessDenied")
		if !w.server.State().Settled {
			t.Errorf("seed %d: not settled after lag and jitter", seed)
		}
	}
}

func TestSettleEndsTheWindow(t *testing.T) {
	w := start(t, aws.Options{Lag: time.Hour})
	_, id := w.user("alice", allowAll)
	c, other := w.key("alice")
	w.refused(w.buckets(c), "InvalidAccessKeyId")
	w.server.Settle()
	w.ok(w.buckets(c))
	if id == other {
		t.Error("two keys with one id")
	}
}
