package aws

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tourniquet.dev/tourniquet/activities"
	"tourniquet.dev/tourniquet/internal/plan"
)

func TestDeniesAll(t *testing.T) {
	for document, want := range map[string]bool{
		`{"Version":"2012-10-17","Statement":[{"Sid":"TourniquetQuarantine","Effect":"Deny","Action":"*","Resource":"*"}]}`:                         true,
		`{"Version":"2012-10-17","Statement":{"Effect":"Deny","Action":["*"],"Resource":["*"]}}`:                                                    true,
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}`:                                                     false,
		`{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"s3:*","Resource":"*"}]}`:                                                   false,
		`{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"*","Resource":"arn:aws:s3:::x"}]}`:                                         false,
		`{"Version":"2012-10-17","Statement":[{"Effect":"Deny","NotAction":"*","Resource":"*"}]}`:                                                   false,
		`{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"*","Resource":"*","Condition":{"Bool":{"aws:SecureTransport":"false"}}}]}`: false,
		`{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"*","Resource":"*"},{"Effect":"Allow","Action":"*","Resource":"*"}]}`:       false,
		`not a document`: false,
	} {
		if got := deniesAll(document); got != want {
			t.Errorf("%s: %t, want %t", document, got, want)
		}
	}
}

func TestRevokesOlder(t *testing.T) {
	at := time.Date(2026, 11, 22, 23, 40, 0, 0, time.UTC)
	for document, want := range map[string]bool{
		revokeDocument(at): true,
		`{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"*","Resource":"*"}]}`:                                                                               false,
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"DateLessThan":{"aws:TokenIssueTime":"2026-11-22T23:40:00Z"}}}]}`:   false,
		`{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"*","Resource":"*","Condition":{"DateGreaterThan":{"aws:TokenIssueTime":"2026-11-22T23:40:00Z"}}}]}`: false,
		`{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"s3:*","Resource":"*","Condition":{"DateLessThan":{"aws:TokenIssueTime":"2026-11-22T23:40:00Z"}}}]}`: false,
		``: false,
	} {
		if got := revokesOlder(document); got != want {
			t.Errorf("%s: %t, want %t", document, got, want)
		}
	}
}

func TestTouchable(t *testing.T) {
	s := &System{options: Options{Account: "111122223333"}}
	for name, tc := range map[string]struct {
		p    principal
		path string
		want error
	}{
		"a user":                   {principal{Kind: plan.AWSUser, Name: "app", ARN: "arn:aws:iam::111122223333:user/team/app"}, "/team/", nil},
		"a role in China":          {principal{Kind: plan.AWSRole, Name: "r", ARN: "arn:aws-cn:iam::111122223333:role/r"}, "/", nil},
		"the root user":            {principal{Kind: plan.AWSUser, Name: "root", ARN: "arn:aws:iam::111122223333:root"}, "/", activities.ErrRefused},
		"another account":          {principal{Kind: plan.AWSUser, Name: "app", ARN: "arn:aws:iam::999988887777:user/app"}, "/", activities.ErrRefused},
		"a service-linked role":    {principal{Kind: plan.AWSRole, Name: "AWSServiceRoleForX", ARN: "arn:aws:iam::111122223333:role/aws-service-role/x/AWSServiceRoleForX"}, "/aws-service-role/x/", activities.ErrRefused},
		"an Identity Center role":  {principal{Kind: plan.AWSRole, Name: "AWSReservedSSO_Admin_1", ARN: "arn:aws:iam::111122223333:role/AWSReservedSSO_Admin_1"}, "/", activities.ErrRefused},
		"a role in the user's way": {principal{Kind: plan.AWSUser, Name: "r", ARN: "arn:aws:iam::111122223333:role/r"}, "/", activities.ErrRefused},
		"no ARN":                   {principal{Kind: plan.AWSUser, Name: "app", ARN: "app"}, "/", activities.ErrRefused},
	} {
		t.Run(name, func(t *testing.T) {
			if err := s.touchable(tc.p, tc.path); !errors.Is(err, tc.want) {
				t.Errorf("%v, want %v", err, tc.want)
			}
		})
	}
}

func TestTargetsBearTheirPath(t *testing.T) {
	s := &System{options: Options{Account: "111122223333"}}
	p := principal{Kind: plan.AWSUser, Name: "app", ID: "AIDAX", ARN: "arn:aws:iam::111122223333:user/team/blue/app"}
	want := plan.Target{Kind: plan.AWSUser, Scope: "111122223333", Namespace: "team/blue", Name: "app", UID: "AIDAX"}
	if diff := cmp.Diff(want, s.target(p)); diff != "" {
		t.Error("(-want +got):\n" + diff)
	}
	want = plan.Target{Kind: plan.AccessKey, Scope: "111122223333", Namespace: "team/blue/app", Name: "AKIAX", UID: "AKIAX"}
	if diff := cmp.Diff(want, s.keyTarget("AKIAX", p)); diff != "" {
		t.Error("(-want +got):\n" + diff)
	}
}

func TestOptions(t *testing.T) {
	good := Options{Region: "us-east-1", Credentials: "x", Account: "111122223333", Mode: Leashed, QuarantinePolicyARN: "arn:aws:iam::111122223333:policy/TourniquetQuarantine"}
	for name, tc := range map[string]struct {
		edit func(*Options)
		ok   bool
	}{
		"good":                             {func(*Options) {}, true},
		"a stand-in":                       {func(o *Options) { o.Endpoint = "http://127.0.0.1:4566" }, true},
		"no account":                       {func(o *Options) { o.Account = "" }, false},
		"a quarantine of another account":  {func(o *Options) { o.QuarantinePolicyARN = "arn:aws:iam::999988887777:policy/T" }, false},
		"a quarantine of AWS's own":        {func(o *Options) { o.QuarantinePolicyARN = "arn:aws:iam::aws:policy/AWSDenyAll" }, false},
		"no mode":                          {func(o *Options) { o.Mode = "" }, false},
		"an endpoint without a host":       {func(o *Options) { o.Endpoint = "localhost" }, false},
		"no region":                        {func(o *Options) { o.Region = "" }, false},
		"no key file: never from the host": {func(o *Options) { o.Credentials = "" }, false},
	} {
		t.Run(name, func(t *testing.T) {
			o := good
			tc.edit(&o)
			if err := o.Validate(); (err == nil) != tc.ok {
				t.Errorf("%v, want ok %t", err, tc.ok)
			}
		})
	}
}
