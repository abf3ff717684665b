package aws

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"sync"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudtrail"
	"github.com/aws/aws-sdk-go-v2/service/cloudtrail/types"

	"tourniquet.dev/tourniquet/internal/blast"
	"tourniquet.dev/tourniquet/internal/detection"
)

const (
	longestSession = 12 * time.Hour // of a role
	maxAudited     = 20             // sessions whose events one observation looks up
	maxPages       = 20             // of one lookup: 1,000 events
	maxEvent       = 256 << 10
)

// pace lets one caller through for each interval, so that our own lookups never meet AWS's throttle.
type pace struct {
	every time.Duration
	mu    sync.Mutex
	next  time.Time
}

// wait returns when it is the caller's turn, or with the context's error.
func (p *pace) wait(ctx context.Context) error {
	p.mu.Lock()
	turn := p.next
	if now := time.Now(); turn.Before(now) {
		turn = now
	}
	p.next = turn.Add(p.every)
	p.mu.Unlock()
	timer := time.NewTimer(time.Until(turn))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// trailEvent is what we read of one CloudTrail record.
type trailEvent struct {
	Name, KeyID, SourceIP, Error string
	Time                         time.Time
	Minted                       string // access key id of the credentials that the call made
	RoleARN                      string // of the role that it assumed
	Issuer                       string // ARN of the role or user behind a session that called
}

// wentThrough reports whether the call was answered after the time. GetCallerIdentity always is, so it counts for nothing.
func (e trailEvent) wentThrough(after time.Time) bool {
	return e.Error == "" && e.Name != "GetCallerIdentity" && e.Time.After(after)
}

// eventsOf returns the events of a key since a time, newest first.
func (s *System) eventsOf(ctx context.Context, keyID string, since time.Time) ([]trailEvent, error) {
	return s.lookup(ctx, types.LookupAttributeKeyAccessKeyId, keyID, since)
}

// sessionsOfRole returns the sessions that were minted for a role since a time.
func (s *System) sessionsOfRole(ctx context.Context, arn string, since time.Time) ([]blast.Session, error) {
	events, err := s.lookup(ctx, types.LookupAttributeKeyResourceName, arn, since)
	if err != nil {
		return nil, err
	}
	return sessionsIn(events), nil
}

// sessionsIn picks the sessions out of the calls that minted them.
func sessionsIn(events []trailEvent) []blast.Session {
	var out []blast.Session
	for _, e := range events {
		if e.Minted != "" && !slices.ContainsFunc(out, func(s blast.Session) bool { return s.KeyID == e.Minted }) {
			out = append(out, blast.Session{KeyID: e.Minted, RoleARN: e.RoleARN, IssuedAt: e.Time, SourceIP: e.SourceIP, ParentKey: e.KeyID})
		}
	}
	return out
}

func (s *System) lookup(ctx context.Context, by types.LookupAttributeKey, value string, since time.Time) ([]trailEvent, error) {
	in := &cloudtrail.LookupEventsInput{StartTime: &since, LookupAttributes: []types.LookupAttribute{{AttributeKey: by, AttributeValue: &value}}}
	var out []trailEvent
	for range maxPages {
		if err := s.lookups.wait(ctx); err != nil {
			return nil, fmt.Errorf("look up events of %s: %w", value, err)
		}
		page, err := s.trail.LookupEvents(ctx, in)
		if err != nil {
			return nil, callError("look up events of "+value, err, false)
		}
		for _, e := range page.Events {
			if event, ok := readEvent(sdk.ToString(e.CloudTrailEvent)); ok {
				out = append(out, event)
			}
		}
		if in.NextToken = page.NextToken; in.NextToken == nil {
			return out, nil
		}
	}
	return nil, fmt.Errorf("look up events of %s: more than %d pages", value, maxPages)
}

// readEvent reads a CloudTrail record. Much of it is the caller's own text: it is bounded and cleaned.
func readEvent(body string) (trailEvent, bool) {
	var record struct {
		EventName       string    `json:"eventName"`
		EventTime       time.Time `json:"eventTime"`
		SourceIPAddress string    `json:"sourceIPAddress"`
		ErrorCode       string    `json:"errorCode"`
		UserIdentity    struct {
			AccessKeyID    string `json:"accessKeyId"`
			SessionContext struct {
				SessionIssuer struct {
					ARN string `json:"arn"`
				} `json:"sessionIssuer"`
			} `json:"sessionContext"`
		} `json:"userIdentity"`
		RequestParameters struct {
			RoleARN string `json:"roleArn"`
		} `json:"requestParameters"`
		ResponseElements struct {
			Credentials struct {
				AccessKeyID string `json:"accessKeyId"`
			} `json:"credentials"`
		} `json:"responseElements"`
	}
	if len(body) > maxEvent || json.Unmarshal([]byte(body), &record) != nil || record.EventName == "" {
		return trailEvent{}, false
	}
	id := record.ResponseElements.Credentials.AccessKeyID
	e := trailEvent{
		Name: detection.Clean(record.EventName, 128), Time: record.EventTime.UTC(), SourceIP: detection.Clean(record.SourceIPAddress, 128),
		Error: detection.Clean(record.ErrorCode, 128), KeyID: formed(keyIDForm, record.UserIdentity.AccessKeyID), Minted: formed(keyIDForm, id),
		RoleARN: formed(arnForm, record.RequestParameters.RoleARN), Issuer: formed(arnForm, record.UserIdentity.SessionContext.SessionIssuer.ARN),
	}
	return e, true
}

var arnForm = regexp.MustCompile(`^arn:aws[a-z-]*:(iam|sts)::[0-9]{12}:[\w+=,.@/-]{1,600}$`)

// formed returns s if it has the form, else nothing: a name that cannot be one is not worth keeping.
func formed(form *regexp.Regexp, s string) string {
	if form.MatchString(s) {
		return s
	}
	return ""
}
