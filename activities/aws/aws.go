// Package aws cuts off and investigates AWS identities: the Actions and Readers of the aws/* kinds, and the facts of an
// access key. The contain-aws worker builds a System with the rights to write and calls Actions through the gate; the
// investigate worker builds one with read-only rights and calls Readers and Identity. It reads no AWS_* environment
// variable, profile or instance metadata, and it never deletes a key, a user, a role or anybody else's policy.
package aws

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/cloudtrail"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	smithymiddleware "github.com/aws/smithy-go/middleware"

	"tourniquet.dev/tourniquet/activities"
	"tourniquet.dev/tourniquet/internal/plan"
)

// Mode says what the enforcer may write.
type Mode string

const (
	// Leashed attaches and detaches the managed quarantine policy and sets the status of keys: no free text.
	Leashed Mode = "leashed"
	// Full also writes our own inline deny on roles, which spares the sessions made after it.
	Full Mode = "full"
)

// Valid reports whether m is one of the modes.
func (m Mode) Valid() bool { return m == Leashed || m == Full }

// Defaults of the options.
const (
	DefaultSettle   = 10 * time.Second // more than twice the 4 s in which authorization was seen to lag
	DefaultTimeout  = 20 * time.Second
	DefaultAttempts = 4
	lookupsEvery    = 500 * time.Millisecond // AWS allows 2 LookupEvents a second for each account and region
)

// Options configures a System.
type Options struct {
	// Endpoint replaces AWS's endpoints, for a stand-in; empty in production.
	Endpoint string
	Region   string
	// Credentials is the path of the key file: see keyFile.
	Credentials string
	// Account is the only account this System may ever act in.
	Account string
	// QuarantinePolicyARN is the managed deny-all that is installed in peacetime.
	QuarantinePolicyARN string
	Mode                Mode
	// Settle is how long after a change authorization may still lag behind it; 0: DefaultSettle.
	Settle time.Duration
	// Timeout bounds one call; 0: DefaultTimeout.
	Timeout time.Duration
	// Attempts is how often a read is tried; 0: DefaultAttempts. A write is tried once: see lever.
	Attempts int
	// Clock is nil for the machine's.
	Clock func() time.Time
}

var (
	accountForm = regexp.MustCompile(`^[0-9]{12}$`)
	policyForm  = regexp.MustCompile(`^arn:aws[a-z-]*:iam::([0-9]{12}):policy/[\w+=,.@/-]{1,600}$`)
)

// Validate reports every problem at once.
func (o Options) Validate() error {
	var errs []error
	if !accountForm.MatchString(o.Account) {
		errs = append(errs, fmt.Errorf("account: %.20q is not 12 digits", o.Account))
	}
	if m := policyForm.FindStringSubmatch(o.QuarantinePolicyARN); m == nil || m[1] != o.Account {
		errs = append(errs, fmt.Errorf("quarantine_policy_arn: %.80q is not a policy of account %s", o.QuarantinePolicyARN, o.Account))
	}
	if o.Region == "" {
		errs = append(errs, errors.New("region: is needed"))
	}
	if o.Credentials == "" {
		errs = append(errs, errors.New("credentials: the path of a key file is needed"))
	}
	if !o.Mode.Valid() {
		errs = append(errs, fmt.Errorf("mode: %.20q is neither leashed nor full", o.Mode))
	}
	if u, err := url.Parse(o.Endpoint); o.Endpoint != "" && (err != nil || u.Host == "") {
		errs = append(errs, fmt.Errorf("endpoint: %.80q is not a URL", o.Endpoint))
	}
	return errors.Join(errs...)
}

// System is one AWS account as one of our roles sees it. It is safe for concurrent use.
type System struct {
	options Options
	iam     *iam.Client
	sts     *sts.Client
	trail   *cloudtrail.Client
	lookups pace
}

// New returns the System. It calls nothing: call Prove before anything else.
func New(o Options) (*System, error) {
	if o.Settle == 0 {
		o.Settle = DefaultSettle
	}
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	if o.Attempts == 0 {
		o.Attempts = DefaultAttempts
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("aws options: %w", err)
	}
	keys := keyFile{path: o.Credentials, clock: o.Clock}
	if _, err := keys.Retrieve(context.Background()); err != nil {
		return nil, err
	}
	cfg := sdk.Config{
		Region:      o.Region,
		Credentials: sdk.NewCredentialsCache(keys),
		HTTPClient:  awshttp.NewBuildableClient().WithTimeout(o.Timeout),
		Retryer:     func() sdk.Retryer { return retry.AddWithMaxAttempts(retry.NewStandard(), o.Attempts) },
	}
	if o.Endpoint != "" {
		cfg.BaseEndpoint = &o.Endpoint
	}
	return &System{options: o, iam: iam.NewFromConfig(cfg), sts: sts.NewFromConfig(cfg), trail: cloudtrail.NewFromConfig(cfg),
		lookups: pace{every: lookupsEvery}}, nil
}

// once keeps the SDK from repeating a write by itself: after a lost reply the state is read back first.
func once(o *iam.Options) { o.Retryer = sdk.NopRetryer{} }

// Prove returns the configured account after it has asked AWS that the credentials stand in it. ErrRefused: they stand
// in another one. Apply and Undo ask by themselves as well.
func (s *System) Prove(ctx context.Context) (account string, err error) {
	if _, err := s.prove(ctx); err != nil {
		return "", err
	}
	return s.options.Account, nil
}

// prove also returns the time by AWS's clock: deadlines in AWS are never judged by ours.
func (s *System) prove(ctx context.Context) (time.Time, error) {
	out, err := s.sts.GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	if err != nil {
		return time.Time{}, callError("prove the account", err, false)
	}
	if got := sdk.ToString(out.Account); got != s.options.Account {
		return time.Time{}, fmt.Errorf("prove the account: the credentials stand in %.20q, configured is %s: %w", got, s.options.Account, activities.ErrRefused)
	}
	return s.serverTime(out.ResultMetadata), nil
}

// serverTime is the answer's own time, or ours where it bears none.
func (s *System) serverTime(m smithymiddleware.Metadata) time.Time {
	if at, ok := awsmiddleware.GetServerTime(m); ok {
		return at.UTC()
	}
	return s.now()
}

// Readers returns the observers of every aws/* action, for the investigate role. None of them can write.
func (s *System) Readers() map[plan.Action]activities.Reader {
	return map[plan.Action]activities.Reader{
		plan.AWSQuarantinePrincipal: quarantineReader{s},
		plan.AWSDeactivateKeys:      keysReader{s},
		plan.AWSRevokeSessions:      sessionsReader{s},
	}
}

// Actions returns the aws/* actions, for the gate of contain-aws.
func (s *System) Actions() map[plan.Action]activities.Action {
	return map[plan.Action]activities.Action{
		plan.AWSQuarantinePrincipal: quarantine{quarantineReader{s}},
		plan.AWSDeactivateKeys:      deactivateKeys{keysReader{s}},
		plan.AWSRevokeSessions:      revokeSessions{sessionsReader{s}},
	}
}

func (s *System) now() time.Time { return s.options.Clock().UTC().Truncate(time.Millisecond) }
