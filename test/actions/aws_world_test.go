// Package actions_test tries the containment actions on the AWS stand-in and on a real Kubernetes API server: the
// conformance suite, and what is particular to each.
package actions_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"tourniquet.dev/tourniquet/activities/aws"
	"tourniquet.dev/tourniquet/activities/conformance"
	"tourniquet.dev/tourniquet/internal/plan"

	standin "tourniquet.dev/tourniquet/dev/aws"
)

const (
	denyAll      = `{"Version":"2012-10-17","Statement":[{"Sid":"TourniquetQuarantine","Effect":"Deny","Action":"*","Resource":"*"}]}`
	allowAll     = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}`
	investigator = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["iam:Get*","iam:List*","iam:SimulatePrincipalPolicy",` +
		`"cloudtrail:LookupEvents","sts:GetAccessKeyInfo"],"Resource":"*"}]}`
	quarantineARN = "arn:aws:iam::" + standin.DefaultAccount + ":policy/TourniquetQuarantine"
)

// containment is the enforcer's own policy: in leashed mode it cannot write free text.
func containment(mode aws.Mode) string {
	actions := `"iam:UpdateAccessKey"`
	if mode == aws.Full {
		actions += `,"iam:PutRolePolicy","iam:DeleteRolePolicy"`
	}
	return `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["iam:Get*","iam:List*","cloudtrail:LookupEvents",` + actions + `],"Resource":"*"},` +
		`{"Effect":"Allow","Action":["iam:AttachUserPolicy","iam:DetachUserPolicy","iam:AttachRolePolicy","iam:DetachRolePolicy"],"Resource":"*",` +
		`"Condition":{"ArnEquals":{"iam:PolicyARN":"` + quarantineARN + `"}}}]}`
}

// clock is the stand-in's, moved by hand.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// account is an AWS account with our two roles in it.
type account struct {
	*standin.Server
	clock   *clock
	url     string
	admin   *iam.Client
	link    *link
	contain *aws.System
	look    *aws.System
}

func newAccount(t *testing.T, mode aws.Mode) *account {
	t.Helper()
	a := &account{clock: &clock{at: time.Now()}}
	a.Server = standin.New(standin.Options{Clock: a.clock.now})
	// The HTTP server's own Date header is the machine's time; AWS's is that of AWS.
	handler := a.Handler()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Date", a.clock.now().UTC().Format(http.TimeFormat))
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	a.url = server.URL
	root, err := a.SeedAdmin("admin", standin.AccessKey{})
	if err != nil {
		t.Fatal(err)
	}
	a.admin = iam.NewFromConfig(a.config(a.url, root.ID, root.Secret, ""))
	must(a.admin.CreatePolicy(t.Context(), &iam.CreatePolicyInput{PolicyName: sdk.String("TourniquetQuarantine"), PolicyDocument: sdk.String(denyAll)}))(t)
	a.link = newLink(t, a.url, http.DefaultTransport, awsWrite)
	a.contain = a.system(t, a.link.server.URL, mode, a.user(t, "tourniquet-contain", containment(mode)))
	a.look = a.system(t, a.url, mode, a.user(t, "tourniquet-investigate", investigator))
	return a
}

func awsWrite(r *http.Request, body []byte) bool {
	form, err := url.ParseQuery(string(body))
	name := form.Get("Action")
	if err != nil || name == "" {
		return false
	}
	for _, prefix := range []string{"Get", "List", "Simulate"} {
		if strings.HasPrefix(name, prefix) {
			return false
		}
	}
	return true
}

func (a *account) config(endpoint, id, secret, token string) sdk.Config {
	return sdk.Config{Region: "us-east-1", BaseEndpoint: &endpoint, Credentials: credentials.NewStaticCredentialsProvider(id, secret, token)}
}

// user makes a user with an inline policy and an access key.
func (a *account) user(t *testing.T, name, policy string) standin.AccessKey {
	t.Helper()
	must(a.admin.CreateUser(t.Context(), &iam.CreateUserInput{UserName: &name}))(t)
	must(a.admin.PutUserPolicy(t.Context(), &iam.PutUserPolicyInput{UserName: &name, PolicyName: sdk.String("own"), PolicyDocument: &policy}))(t)
	return a.key(t, name)
}

func (a *account) key(t *testing.T, user string) standin.AccessKey {
	t.Helper()
	out := must(a.admin.CreateAccessKey(t.Context(), &iam.CreateAccessKeyInput{UserName: &user}))(t)
	return standin.AccessKey{ID: *out.AccessKey.AccessKeyId, Secret: *out.AccessKey.SecretAccessKey}
}

// role makes a role that everybody in the account may assume.
func (a *account) role(t *testing.T, name string) plan.Target {
	t.Helper()
	document := fmt.Sprintf(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::%s:root"},"Action":"sts:AssumeRole"}]}`, a.Account())
	out := must(a.admin.CreateRole(t.Context(), &iam.CreateRoleInput{RoleName: &name, AssumeRolePolicyDocument: &document}))(t)
	must(a.admin.PutRolePolicy(t.Context(), &iam.PutRolePolicyInput{RoleName: &name, PolicyName: sdk.String("own"), PolicyDocument: sdk.String(allowAll)}))(t)
	return plan.Target{Kind: plan.AWSRole, Scope: a.Account(), Name: name, UID: *out.Role.RoleId}
}

func (a *account) system(t *testing.T, endpoint string, mode aws.Mode, key standin.AccessKey) *aws.System {
	t.Helper()
	file := keyFile(t, key)
	s, err := aws.New(aws.Options{Endpoint: endpoint, Region: "us-east-1", Credentials: file, Account: a.Account(),
		QuarantinePolicyARN: quarantineARN, Mode: mode, Timeout: 5 * time.Second, Attempts: 1})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func keyFile(t *testing.T, key standin.AccessKey) string {
	t.Helper()
	raw, err := json.Marshal(map[string]string{"access_key_id": key.ID, "secret_access_key": key.Secret})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "key.json")
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// settle lets pass what authorization may lag.
func (a *account) settle(*testing.T) { a.clock.pass(aws.DefaultSettle + 2*time.Second) }

// world is a world whose snapshot is every user and role of the account.
func (a *account) world(t *testing.T, action plan.Action, target plan.Target) conformance.World {
	entry, _ := plan.Lookup(action)
	step := plan.Step{Action: action, Target: target, Closure: &plan.Closure{Of: fmt.Sprintf(entry.Closure, target.Name), Max: 10},
		DurationSeconds: 3600, Expiry: plan.Review}
	return conformance.World{
		Action: a.contain.Actions()[action], Reader: a.look.Readers()[action], Step: step, Link: a.link, Settle: a.settle, Finding: plan.Verified,
		Snapshot: func(t *testing.T) any {
			raw, err := json.Marshal(a.State().Entities)
			if err != nil {
				t.Fatal(err)
			}
			var out map[string]any
			if err := json.Unmarshal(raw, &out); err != nil {
				t.Fatal(err)
			}
			return out
		},
	}
}

func keyTarget(a *account, key standin.AccessKey) plan.Target {
	return plan.Target{Kind: plan.AccessKey, Scope: a.Account(), Name: key.ID, UID: key.ID}
}

// caller is a client with somebody's long-term key.
func (a *account) caller(key standin.AccessKey) *sts.Client {
	return sts.NewFromConfig(a.config(a.url, key.ID, key.Secret, ""), func(o *sts.Options) { o.Retryer = sdk.NopRetryer{} })
}

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// can reports whether a key may do anything but ask who it is.
func (a *account) can(key standin.AccessKey, token string) bool {
	client := iam.NewFromConfig(a.config(a.url, key.ID, key.Secret, token), func(o *iam.Options) { o.Retryer = sdk.NopRetryer{} })
	_, err := client.ListUsers(context.Background(), &iam.ListUsersInput{})
	return err == nil
}
