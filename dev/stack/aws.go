package stack

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/iam"

	"tourniquet.dev/tourniquet/dev/aws"
)

// awsKeys is the key of the stand-in's first administrator.
type awsKeys struct {
	ID     string `json:"accessKeyId"`
	Secret string `json:"secretAccessKey"`
}

// denyAll is the quarantine, installed in peacetime.
const denyAll = `{"Version":"2012-10-17","Statement":[{"Sid":"TourniquetQuarantine","Effect":"Deny","Action":"*","Resource":"*"}]}`

// reads are the rights of the investigate role, and of the enforcer's own reading.
const reads = `{"Effect":"Allow","Action":["iam:Get*","iam:List*","iam:SimulatePrincipalPolicy","cloudtrail:LookupEvents","sts:GetAccessKeyInfo"],"Resource":"*"}`

// writes are the enforcer's: attach and detach of the one quarantine policy, and the status of keys. It may not touch our
// own accounts or whoever breaks the glass.
const writes = `{"Effect":"Allow","Action":["iam:AttachUserPolicy","iam:DetachUserPolicy","iam:AttachRolePolicy","iam:DetachRolePolicy"],"Resource":"*",
  "Condition":{"ArnEquals":{"iam:PolicyARN":"` + QuarantinePolicy + `"}}},
 {"Effect":"Allow","Action":"iam:UpdateAccessKey","Resource":"*"},
 {"Effect":"Deny","Action":["iam:AttachUserPolicy","iam:DetachUserPolicy","iam:AttachRolePolicy","iam:DetachRolePolicy","iam:UpdateAccessKey"],
  "Resource":["arn:aws:iam::` + Account + `:user/tourniquet-*","arn:aws:iam::` + Account + `:role/tourniquet-*","arn:aws:iam::` + Account + `:user/break-glass"]}`

func document(statements string) string {
	return `{"Version":"2012-10-17","Statement":[` + statements + `]}`
}

// startAWS starts the stand-in. Its admin endpoint is a socket in our folder, for looking at it from outside the product.
func (s *Stack) startAWS(ctx context.Context) error {
	bootstrap := aws.New(aws.Options{Account: Account})
	key, err := bootstrap.SeedAdmin("bootstrap-admin", aws.AccessKey{}) // drawn as AWS draws them; the account itself is thrown away
	if err != nil {
		return err
	}
	s.aws = awsKeys{key.ID, key.Secret}
	data, err := json.Marshal(s.aws)
	if err != nil {
		return err
	}
	if err := os.WriteFile(s.key("aws-admin.json"), data, 0o600); err != nil {
		return fmt.Errorf("write bootstrap credentials: %w", err)
	}
	args := []string{"-bootstrap", s.key("aws-admin.json"), "-admin", "unix:" + s.path("aws-admin.sock"), "-account", Account,
		"-buckets", "orders,customers,ledger-archive", "-delivery-delay", "1s"}
	if s.opts.Lag != 0 {
		args = append(args, "-lag", s.opts.Lag.String(), "-jitter", "0s")
	}
	ready, err := s.start(ctx, command{name: "aws-standin", bin: s.Program("aws-standin"), args: args})
	if err != nil {
		return err
	}
	s.AWSURL, _ = ready["url"].(string)
	return nil
}

// IAM is a client with the administrator's rights, which no part of the product has.
func (s *Stack) IAM() *iam.Client {
	return iam.NewFromConfig(sdk.Config{Region: Region, BaseEndpoint: &s.AWSURL,
		Credentials: credentials.NewStaticCredentialsProvider(s.aws.ID, s.aws.Secret, "")})
}

// seedAWS makes what stands in the account in peacetime: the quarantine policy, and our own two users.
func (s *Stack) seedAWS(ctx context.Context) error {
	api := s.IAM()
	_, err := api.CreatePolicy(ctx, &iam.CreatePolicyInput{PolicyName: sdk.String("TourniquetQuarantine"), PolicyDocument: sdk.String(denyAll)})
	if err != nil {
		return fmt.Errorf("make the quarantine policy: %w", err)
	}
	for role, statements := range map[string]string{"investigate": reads, "contain-aws": reads + "," + writes} {
		id, secret, err := s.MakeUser(ctx, "tourniquet-"+role, document(statements))
		if err != nil {
			return err
		}
		data, err := json.Marshal(map[string]string{"access_key_id": id, "secret_access_key": secret})
		if err != nil {
			return err
		}
		if err := os.WriteFile(s.key(role+".aws.json"), data, 0o600); err != nil {
			return fmt.Errorf("write key of %s: %w", role, err)
		}
	}
	return s.Settle(ctx)
}

// MakeUser makes an IAM user with one inline policy and one access key.
func (s *Stack) MakeUser(ctx context.Context, name, policy string) (keyID, secret string, err error) {
	api := s.IAM()
	if _, err := api.CreateUser(ctx, &iam.CreateUserInput{UserName: &name}); err != nil {
		return "", "", fmt.Errorf("make user %s: %w", name, err)
	}
	_, err = api.PutUserPolicy(ctx, &iam.PutUserPolicyInput{UserName: &name, PolicyName: sdk.String("rights"), PolicyDocument: &policy})
	if err != nil {
		return "", "", fmt.Errorf("give user %s its rights: %w", name, err)
	}
	key, err := api.CreateAccessKey(ctx, &iam.CreateAccessKeyInput{UserName: &name})
	if err != nil {
		return "", "", fmt.Errorf("make access key of %s: %w", name, err)
	}
	return sdk.ToString(key.AccessKey.AccessKeyId), sdk.ToString(key.AccessKey.SecretAccessKey), nil
}

// Settle has every change in AWS so far count at once: the set-up need not wait for it.
func (s *Stack) Settle(ctx context.Context) error {
	return s.awsAdmin(ctx, http.MethodPost, "/settle", nil)
}

// AWSState is what stands in the account, by the stand-in's own word.
func (s *Stack) AWSState(ctx context.Context) (state aws.Snapshot, err error) {
	return state, s.awsAdmin(ctx, http.MethodGet, "/state", &state)
}

// AWSRecords is every call that the stand-in had, by its own word.
func (s *Stack) AWSRecords(ctx context.Context) ([]aws.Record, error) {
	var out struct {
		Records []aws.Record `json:"records"`
	}
	err := s.awsAdmin(ctx, http.MethodGet, "/records", &out)
	return out.Records, err
}

func (s *Stack) awsAdmin(ctx context.Context, method, path string, into any) error {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", s.path("aws-admin.sock"))
	}}
	defer transport.CloseIdleConnections()
	r, err := http.NewRequestWithContext(ctx, method, "http://admin"+path, nil)
	if err != nil {
		return err
	}
	answer, err := (&http.Client{Transport: transport}).Do(r)
	if err != nil {
		return fmt.Errorf("ask the AWS stand-in: %w", err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		return fmt.Errorf("ask the AWS stand-in for %s: %s: %w", path, answer.Status, errors.Join(err, errors.New(string(body))))
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(body, into)
}
