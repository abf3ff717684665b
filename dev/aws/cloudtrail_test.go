package aws_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/cloudtrail"
	trailtypes "github.com/aws/aws-sdk-go-v2/service/cloudtrail/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/google/go-cmp/cmp"

	"tourniquet.dev/tourniquet/dev/aws"
)

// trailEvent is what a session chase reads of a CloudTrail record.
type trailEvent struct {
	EventName       string `json:"eventName"`
	ErrorCode       string `json:"errorCode"`
	SourceIPAddress string `json:"sourceIPAddress"`
	UserIdentity    struct {
		Type, ARN, AccessKeyID string
		SessionContext         struct {
			SessionIssuer struct{ Type, ARN string }
			Attributes    struct{ MFAAuthenticated string }
		}
	} `json:"userIdentity"`
	ResponseElements struct {
		Credentials struct{ AccessKeyID, SecretAccessKey string }
		AccessKey   struct{ AccessKeyID string }
	} `json:"responseElements"`
}

func (w *world) lookup(c clients, key, value string) ([]trailEvent, error) {
	var out []trailEvent
	in := &cloudtrail.LookupEventsInput{}
	if key != "" {
		in.LookupAttributes = []trailtypes.LookupAttribute{{AttributeKey: trailtypes.LookupAttributeKey(key), AttributeValue: &value}}
	}
	pages := cloudtrail.NewLookupEventsPaginator(c.trail, in)
	for pages.HasMorePages() {
		page, err := pages.NextPage(w.ctx())
		if err != nil {
			return nil, err
		}
		if len(page.Events) > 50 {
			return nil, fmt.Errorf("%d events on one page", len(page.Events))
		}
		for _, e := range page.Events {
			var record trailEvent
			if err := json.Unmarshal([]byte(*e.CloudTrailEvent), &record); err != nil {
				return nil, err
			}
			out = append(out, record)
		}
	}
	return out, nil
}

// TestSessionChase follows a stolen key to the role session that it minted, and to what that did.
func TestSessionChase(t *testing.T) {
	w := start(t, aws.Options{DeliveryDelay: time.Minute})
	thief, id := w.user("victim", allowAll)
	role := w.role("deploy", trusting(nobody), document(`{"Effect":"Allow","Action":"s3:*","Resource":"*"}`))
	out, err := w.assume(thief, role, "stay")
	w.ok(err)
	session := w.session(out.Credentials)
	w.ok(w.buckets(session))
	_, err = session.iam.CreateUser(w.ctx(), &iam.CreateUserInput{UserName: sdk.String("mallory")})
	w.refused(err, "AccessDenied")

	early, err := w.lookup(w.admin, "AccessKeyId", id)
	w.ok(err)
	if len(early) != 0 {
		t.Errorf("%d events before the delivery delay", len(early))
	}
	w.clock.advance(time.Minute)
	events, err := w.lookup(w.admin, "AccessKeyId", id)
	w.ok(err)
	if len(events) != 1 || events[0].EventName != "AssumeRole" || events[0].UserIdentity.ARN != "arn:aws:iam::111122223333:user/victim" {
		t.Fatalf("got %+v", events)
	}
	minted := events[0].ResponseElements.Credentials
	if minted.AccessKeyID != *out.Credentials.AccessKeyId || minted.SecretAccessKey != "" {
		t.Errorf("got %+v, want %s and no secret", minted, *out.Credentials.AccessKeyId)
	}
	events, err = w.lookup(w.admin, "AccessKeyId", minted.AccessKeyID)
	w.ok(err)
	var got []string
	for _, e := range events { // newest first
		got = append(got, e.EventName+" "+e.ErrorCode+" "+e.UserIdentity.Type+" "+e.UserIdentity.SessionContext.SessionIssuer.ARN+" "+e.SourceIPAddress)
	}
	want := []string{
		"CreateUser AccessDenied AssumedRole arn:aws:iam::111122223333:role/deploy 127.0.0.1",
		"ListBuckets  AssumedRole arn:aws:iam::111122223333:role/deploy 127.0.0.1",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestLookupLimits(t *testing.T) {
	w := start(t, aws.Options{LookupRate: 2})
	key, err := w.server.SeedAdmin("reader", aws.AccessKey{})
	w.ok(err)
	once := w.in("us-east-1", key.ID, key.Secret, "", retry.AddWithMaxAttempts(retry.NewStandard(), 1))
	lookup := func(in cloudtrail.LookupEventsInput) error {
		_, err := once.trail.LookupEvents(w.ctx(), &in)
		return err
	}
	w.ok(lookup(cloudtrail.LookupEventsInput{}))
	w.ok(lookup(cloudtrail.LookupEventsInput{}))
	w.refused(lookup(cloudtrail.LookupEventsInput{}), "ThrottlingException")
	w.clock.advance(500 * time.Millisecond)
	w.ok(lookup(cloudtrail.LookupEventsInput{}))
	attribute := trailtypes.LookupAttribute{AttributeKey: "EventName", AttributeValue: sdk.String("x")}
	for want, in := range map[string]cloudtrail.LookupEventsInput{
		"InvalidMaxResultsException":       {MaxResults: sdk.Int32(51)},
		"InvalidLookupAttributesException": {LookupAttributes: []trailtypes.LookupAttribute{attribute, attribute}},
		"InvalidTimeRangeException":        {StartTime: sdk.Time(w.clock.Now()), EndTime: sdk.Time(w.clock.Now().Add(-time.Hour))},
		"InvalidNextTokenException":        {NextToken: sdk.String("x")},
	} {
		w.clock.advance(time.Second)
		w.refused(lookup(in), want)
	}
}

func TestLookupPagesAndFilters(t *testing.T) {
	w := start(t, aws.Options{})
	for range 60 {
		w.ok(w.buckets(w.admin))
	}
	w.user("alice", "")
	events, err := w.lookup(w.admin, "EventName", "ListBuckets")
	w.ok(err)
	if len(events) != 60 {
		t.Errorf("got %d events, want 60 on two pages", len(events))
	}
	for _, tc := range []struct {
		key, value string
		want       int
	}{
		{"ResourceName", "alice", 2}, {"ResourceType", "AWS::IAM::AccessKey", 1}, {"EventSource", "s3.amazonaws.com", 60},
		{"Username", "nobody", 0}, {"ReadOnly", "false", 2},
	} {
		events, err := w.lookup(w.admin, tc.key, tc.value)
		if err != nil || len(events) != tc.want {
			t.Errorf("%s=%s: got %d events, %v, want %d", tc.key, tc.value, len(events), err, tc.want)
		}
	}
}

// TestEventsStayInTheirRegion: IAM is logged in us-east-1, STS where it was called.
func TestEventsStayInTheirRegion(t *testing.T) {
	w := start(t, aws.Options{})
	key, err := w.server.SeedAdmin("reader", aws.AccessKey{})
	w.ok(err)
	west := w.in("eu-west-1", key.ID, key.Secret, "", retry.NewStandard())
	_, err = w.assume(west, w.role("deploy", trusting(nobody), ""), "probe")
	w.ok(err)
	for name, tc := range map[string]struct {
		from clients
		want int
	}{"there": {west, 1}, "in the home region": {w.admin, 0}} {
		events, err := w.lookup(tc.from, "EventName", "AssumeRole")
		if err != nil || len(events) != tc.want {
			t.Errorf("%s: got %d, %v, want %d", name, len(events), err, tc.want)
		}
	}
}
