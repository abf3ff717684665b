package aws_test

import (
	"context"
	"errors"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/cloudtrail"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	ststypes "github.com/aws/aws-sdk-go-v2/service/sts/types"
	"github.com/aws/smithy-go"

	"tourniquet.dev/tourniquet/dev/aws"
)

const account = aws.DefaultAccount

// clock is moved by the test. It starts at the machine's time, because the SDK signs with that.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// world is a stand-in on a socket with an administrator's clients.
type world struct {
	t      *testing.T
	server *aws.Server
	url    string
	clock  *clock
	admin  clients
}

// clients are the unmodified SDK's, with one set of credentials.
type clients struct {
	iam   *iam.Client
	sts   *sts.Client
	trail *cloudtrail.Client
	s3    *s3.Client
}

func start(t *testing.T, options aws.Options) *world {
	t.Helper()
	w := &world{t: t, clock: &clock{now: time.Now().Truncate(time.Second)}}
	options.Clock = w.clock.Now
	w.server = aws.New(options)
	listener := httptest.NewServer(w.server.Handler())
	t.Cleanup(listener.Close)
	w.url = listener.URL
	key, err := w.server.SeedAdmin("admin", aws.AccessKey{})
	if err != nil {
		t.Fatal(err)
	}
	w.admin = w.as(key.ID, key.Secret, "")
	return w
}

// as returns clients that retry at once, so that no test waits.
func (w *world) as(id, secret, token string) clients {
	return w.in("us-east-1", id, secret, token, retry.NewStandard(func(o *retry.StandardOptions) {
		o.Backoff = retry.BackoffDelayerFunc(func(int, error) (time.Duration, error) { return 0, nil })
		o.RateLimiter = ratelimit.None
	}))
}

func (w *world) in(region, id, secret, token string, retryer sdk.Retryer) clients {
	config := sdk.Config{
		Region: region, BaseEndpoint: &w.url, Retryer: func() sdk.Retryer { return retryer },
		Credentials: credentials.NewStaticCredentialsProvider(id, secret, token),
	}
	return clients{
		iam: iam.NewFromConfig(config), sts: sts.NewFromConfig(config), trail: cloudtrail.NewFromConfig(config),
		s3: s3.NewFromConfig(config, func(o *s3.Options) { o.UsePathStyle = true }),
	}
}

// session returns clients of temporary credentials.
func (w *world) session(c *ststypes.Credentials) clients {
	return w.as(*c.AccessKeyId, *c.SecretAccessKey, *c.SessionToken)
}

// user makes a user with a key and an inline policy, known to authorization.
func (w *world) user(name, policy string) (clients, string) {
	w.t.Helper()
	_, err := w.admin.iam.CreateUser(w.ctx(), &iam.CreateUserInput{UserName: &name})
	w.ok(err)
	if policy != "" {
		_, err = w.admin.iam.PutUserPolicy(w.ctx(), &iam.PutUserPolicyInput{UserName: &name, PolicyName: sdk.String("own"), PolicyDocument: &policy})
		w.ok(err)
	}
	c, id := w.key(name)
	w.server.Settle()
	return c, id
}

func (w *world) key(user string) (clients, string) {
	w.t.Helper()
	made, err := w.admin.iam.CreateAccessKey(w.ctx(), &iam.CreateAccessKeyInput{UserName: &user})
	w.ok(err)
	return w.as(*made.AccessKey.AccessKeyId, *made.AccessKey.SecretAccessKey, ""), *made.AccessKey.AccessKeyId
}

// role makes a role and returns its ARN.
func (w *world) role(name, trust, policy string) string {
	w.t.Helper()
	made, err := w.admin.iam.CreateRole(w.ctx(), &iam.CreateRoleInput{RoleName: &name, AssumeRolePolicyDocument: &trust})
	w.ok(err)
	if policy != "" {
		_, err = w.admin.iam.PutRolePolicy(w.ctx(), &iam.PutRolePolicyInput{RoleName: &name, PolicyName: sdk.String("own"), PolicyDocument: &policy})
		w.ok(err)
	}
	w.server.Settle()
	return *made.Role.Arn
}

func (w *world) assume(c clients, role, name string, edit ...func(*sts.AssumeRoleInput)) (*sts.AssumeRoleOutput, error) {
	in := &sts.AssumeRoleInput{RoleArn: &role, RoleSessionName: &name}
	for _, e := range edit {
		e(in)
	}
	return c.sts.AssumeRole(w.ctx(), in)
}

func (w *world) ctx() context.Context { return w.t.Context() }

func (w *world) ok(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// refused wants the error of that code.
func (w *world) refused(err error, code string) {
	w.t.Helper()
	if got := codeOf(err); got != code {
		w.t.Errorf("got %q (%v), want %q", got, err, code)
	}
}

// codeOf is the code by which a caller branches; "" for success.
func codeOf(err error) string {
	var api smithy.APIError
	switch {
	case err == nil:
		return ""
	case errors.As(err, &api):
		return api.ErrorCode()
	}
	return "no answer"
}

// buckets is the probe: does this key still reach anything?
func (w *world) buckets(c clients) error {
	_, err := c.s3.ListBuckets(w.ctx(), &s3.ListBucketsInput{})
	return err
}

func document(statements string) string {
	return `{"Version":"2012-10-17","Statement":[` + statements + `]}`
}

func trusting(principal string) string {
	return document(`{"Effect":"Allow","Principal":{"AWS":"` + principal + `"},"Action":["sts:AssumeRole","sts:TagSession","sts:SetSourceIdentity"]}`)
}

var (
	allowAll = document(`{"Effect":"Allow","Action":"*","Resource":"*"}`)
	denyAll  = document(`{"Sid":"TourniquetQuarantine","Effect":"Deny","Action":"*","Resource":"*"}`)
)

const nobody = "arn:aws:iam::" + account + ":root" // trust in the account leaves it to identity policies
