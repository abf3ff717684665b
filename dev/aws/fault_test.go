package aws_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/google/go-cmp/cmp"

	"tourniquet.dev/tourniquet/dev/aws"
)

func TestFaults(t *testing.T) {
	for name, tc := range map[string]struct {
		fault   aws.Fault
		code    string
		applied bool
	}{
		"throttled":             {aws.Fault{Kind: aws.Throttle, Times: 1}, "Throttling", false},
		"broken":                {aws.Fault{Kind: aws.Broken, Times: 1}, "InternalFailure", false},
		"reset":                 {aws.Fault{Kind: aws.Reset, Times: 1}, "no answer", false},
		"lost reply":            {aws.Fault{Kind: aws.LostReply, Times: 1}, "no answer", true},
		"cut in the answer":     {aws.Fault{Kind: aws.LostReply, Times: 1, AfterBytes: 120}, "no answer", true},
		"slow":                  {aws.Fault{Kind: aws.Slow, Times: 1, DelayMilliseconds: 1}, "", true},
		"of another action":     {aws.Fault{Kind: aws.Throttle, Action: "CreateRole", Times: 1}, "", true},
		"of another service":    {aws.Fault{Kind: aws.Throttle, Service: "sts", Times: 1}, "", true},
		"of another access key": {aws.Fault{Kind: aws.Throttle, AccessKeyID: "AKIAOTHER", Times: 1}, "", true},
	} {
		t.Run(name, func(t *testing.T) {
			w := start(t, aws.Options{})
			key, err := w.server.SeedAdmin("operator", aws.AccessKey{})
			w.ok(err)
			once := w.in("us-east-1", key.ID, key.Secret, "", retry.AddWithMaxAttempts(retry.NewStandard(), 1))
			w.ok(w.server.Inject(tc.fault))
			_, err = once.iam.CreateUser(w.ctx(), &iam.CreateUserInput{UserName: sdk.String("bob")})
			w.refused(err, tc.code)
			if _, there := w.server.State().Entities["user/bob"]; there != tc.applied {
				t.Errorf("applied: %t, want %t", there, tc.applied)
			}
			last := w.server.Records(0)[0]
			if last.Applied != tc.applied || (tc.code == "") != (last.Code == "" && (last.Fault == "" || last.Fault == aws.Slow)) {
				t.Errorf("recorded as %+v", last)
			}
		})
	}
}

// TestRetriedLostReplyRepeatsTheCall is what a caller must reckon with: the SDK sends a call again whose answer it never got.
func TestRetriedLostReplyRepeatsTheCall(t *testing.T) {
	w := start(t, aws.Options{})
	_, err := w.admin.iam.CreateUser(w.ctx(), &iam.CreateUserInput{UserName: sdk.String("bob")})
	w.ok(err)
	w.ok(w.server.Inject(aws.Fault{Kind: aws.LostReply, Action: "CreateAccessKey", Times: 1}))
	_, err = w.admin.iam.CreateAccessKey(w.ctx(), &iam.CreateAccessKeyInput{UserName: sdk.String("bob")})
	w.ok(err)
	if got := len(w.server.State().Entities["user/bob"].Keys); got != 2 {
		t.Errorf("%d keys after a retried lost reply, want 2", got)
	}
}

func TestThrottlesAreRetried(t *testing.T) {
	w := start(t, aws.Options{})
	w.ok(w.server.Inject(aws.Fault{Kind: aws.Throttle, Times: 2}))
	w.ok(w.buckets(w.admin))
	w.ok(w.server.Inject(aws.Fault{Kind: aws.Throttle, Times: -1}))
	w.refused(w.buckets(w.admin), "SlowDown")
	w.server.ClearFaults()
	w.ok(w.buckets(w.admin))
}

func TestAdminEndpoint(t *testing.T) {
	w := start(t, aws.Options{})
	admin := httptest.NewServer(w.server.AdminHandler())
	defer admin.Close()
	call := func(method, path, body string) (int, string) {
		request, err := http.NewRequestWithContext(w.ctx(), method, admin.URL+path, strings.NewReader(body))
		w.ok(err)
		response, err := http.DefaultClient.Do(request)
		w.ok(err)
		return response.StatusCode, read(t, response)
	}
	_, id := w.user("alice", allowAll)
	for name, tc := range map[string]struct {
		method, path, body string
		status             int
		want               string
	}{
		"who":          {"GET", "/", "", 200, aws.Label},
		"records":      {"GET", "/records?from=2", "", 200, `"seq":2,`},
		"records from": {"GET", "/records?from=x", "", 400, aws.Label},
		"state":        {"GET", "/state", "", 200, `"` + id + `":"Active"`},
		"arm":          {"POST", "/faults", `{"kind":"throttle","times":1,"action":"Never"}`, 200, aws.Label},
		"bad fault":    {"POST", "/faults", `{"kind":"earthquake","times":1}`, 400, "earthquake"},
		"typo":         {"POST", "/faults", `{"knid":"throttle"}`, 400, "unknown field"},
		"clock":        {"POST", "/clock", `{"skewSeconds":1.5}`, 200, aws.Label},
		"settle":       {"POST", "/settle", "", 200, aws.Label},
		"policies":     {"POST", "/policies", `{"serviceControlPolicies":[[` + allowAll + `]]}`, 200, aws.Label},
		"bad policy":   {"POST", "/policies", `{"serviceControlPolicies":[[{}]]}`, 400, "level 0, policy 0"},
		"elsewhere":    {"GET", "/elsewhere", "", 404, ""},
	} {
		if status, body := call(tc.method, tc.path, tc.body); status != tc.status || !strings.Contains(body, tc.want) {
			t.Errorf("%s: got %d %s, want %d %s", name, status, body, tc.status, tc.want)
		}
	}
	if _, body := call("GET", "/faults", ""); !strings.Contains(body, `"action":"Never"`) {
		t.Errorf("armed faults: %s", body)
	}
	call("DELETE", "/faults", "")
	if _, body := call("GET", "/faults", ""); strings.Contains(body, "Never") {
		t.Errorf("disarmed faults: %s", body)
	}
}

// TestRecordsHoldNoSecret looks for everything secret that went over the wire.
func TestRecordsHoldNoSecret(t *testing.T) {
	w := start(t, aws.Options{})
	_, err := w.admin.iam.CreateUser(w.ctx(), &iam.CreateUserInput{UserName: sdk.String("alice")})
	w.ok(err)
	made, err := w.admin.iam.CreateAccessKey(w.ctx(), &iam.CreateAccessKeyInput{UserName: sdk.String("alice")})
	w.ok(err)
	_, err = w.admin.iam.CreateLoginProfile(w.ctx(), &iam.CreateLoginProfileInput{UserName: sdk.String("alice"), Password: sdk.String("correct-horse")})
	w.ok(err)
	out, err := w.assume(w.admin, w.role("deploy", trusting(nobody), ""), "probe")
	w.ok(err)
	raw, err := json.Marshal([]any{w.server.Records(0), w.server.State()})
	w.ok(err)
	for _, secret := range []string{*made.AccessKey.SecretAccessKey, *out.Credentials.SecretAccessKey, *out.Credentials.SessionToken, "correct-horse"} {
		if bytes.Contains(raw, []byte(secret)) {
			t.Errorf("a secret is in the records: %.8s…", secret)
		}
	}
	last := w.server.Records(len(w.server.Records(0)))
	want := []string{"AssumeRole", "arn:aws:iam::111122223333:user/admin", *out.Credentials.AccessKeyId}
	if diff := cmp.Diff(want, []string{last[0].Action, last[0].Principal, last[0].Minted}); diff != "" {
		t.Error(diff)
	}
}
