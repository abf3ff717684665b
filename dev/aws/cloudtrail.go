package aws

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"tourniquet.dev/tourniquet/internal/blast/iampolicy"
)

// event is a management event on its way to, or in, the event history.
type event struct {
	at, delivered time.Time
	id, name      string
	source        string
	region        string
	username      string
	keyID         string
	readOnly      bool
	resources     []resource
	body          string // the CloudTrail record as JSON
}

type resource struct {
	Type string `json:"ResourceType"`
	Name string `json:"ResourceName"`
}

// exceptionCodes are the codes that CloudTrail writes with a suffix.
var exceptionCodes = map[string]bool{
	"NoSuchEntity": true, "EntityAlreadyExists": true, "LimitExceeded": true, "DeleteConflict": true,
	"MalformedPolicyDocument": true, "Throttling": true, "InvalidInput": true, "UnmodifiableEntity": true,
}

// event words the call as a CloudTrail record.
func (c *call) event(r Record) event {
	op := c.server.operations[c.service+":"+c.action]
	region := c.region
	if c.service == "iam" {
		region = "us-east-1" // IAM is global and logs there
	}
	e := event{
		at: c.now, delivered: c.now.Add(c.server.options.DeliveryDelay), id: newUUID(), name: c.action,
		source: c.service + ".amazonaws.com", region: region, keyID: c.caller.keyID, readOnly: op.readOnly,
		username: c.caller.username(), resources: c.resources,
	}
	if c.action == "ListAllMyBuckets" {
		e.name = "ListBuckets" // S3's name for the call
	}
	record := map[string]any{
		"eventVersion": "1.11", "eventTime": c.now.Format(time.RFC3339), "eventSource": e.source, "eventName": e.name,
		"awsRegion": region, "sourceIPAddress": r.SourceIP, "userAgent": c.request.UserAgent(), "requestID": c.id, "eventID": e.id,
		"eventType": "AwsApiCall", "eventCategory": "Management", "managementEvent": true, "readOnly": op.readOnly,
		"recipientAccountId": c.server.options.Account, "userIdentity": c.caller.userIdentity(),
		"requestParameters": r.Parameters, "responseElements": nil,
	}
	if r.Applied && c.answer != nil {
		record["responseElements"] = c.answer
	}
	if r.Code != "" {
		if exceptionCodes[r.Code] {
			r.Code += "Exception"
		}
		record["errorCode"], record["errorMessage"] = r.Code, r.Message
	}
	body, err := json.Marshal(record)
	if err != nil {
		body = []byte(`{}`) // cannot happen: the record holds strings and maps of them
	}
	e.body = string(body)
	return e
}

func (c *caller) username() string {
	switch {
	case c.who.Kind == iampolicy.WebIdentity:
		return c.who.ID
	case c.session != nil && c.session.name != "":
		return c.session.name
	case c.entity != nil:
		return c.entity.name
	}
	return string(iampolicy.Root)
}

// userIdentity is CloudTrail's element of that name.
func (c *caller) userIdentity() map[string]any {
	identity := map[string]any{
		"type": map[iampolicy.PrincipalKind]string{
			iampolicy.Root: "Root", iampolicy.User: "IAMUser", iampolicy.RoleSession: "AssumedRole",
			iampolicy.FederatedUser: "FederatedUser", iampolicy.WebIdentity: "WebIdentityUser",
		}[c.who.Kind],
		"principalId": c.who.ID, "arn": c.who.ARN, "accountId": c.who.Account,
	}
	if c.who.Kind == iampolicy.WebIdentity {
		return map[string]any{"type": identity["type"], "principalId": c.who.ARN + ":" + c.who.ID, "userName": c.who.ID, "identityProvider": c.who.ARN}
	}
	identity["accessKeyId"] = c.keyID
	if c.who.Kind == iampolicy.User {
		identity["userName"] = c.entity.name
	}
	if c.session == nil {
		return identity
	}
	context := map[string]any{"attributes": map[string]string{
		"creationDate": c.session.issued.Format(time.RFC3339), "mfaAuthenticated": strconv.FormatBool(c.session.mfa),
	}}
	if c.entity != nil && c.who.Kind != iampolicy.User {
		sort := "Role"
		if c.entity.kind == userKind {
			sort = "IAMUser"
		}
		context["sessionIssuer"] = map[string]string{
			"type": sort, "principalId": c.entity.id, "arn": c.entity.arn, "accountId": c.who.Account, "userName": c.entity.name,
		}
	}
	if c.session.sourceIdentity != "" {
		context["sourceIdentity"] = c.session.sourceIdentity
	}
	if c.session.provider != "" {
		context["webIdFederationData"] = map[string]any{"federatedProvider": c.session.provider, "attributes": map[string]string{}}
	}
	identity["sessionContext"] = context
	return identity
}

// bucketRate is a token bucket of whole calls on the stand-in's clock.
type bucketRate struct {
	tokens float64
	at     time.Time
}

func (b *bucketRate) take(now time.Time, rate int) bool {
	b.tokens = min(float64(rate), b.tokens+now.Sub(b.at).Seconds()*float64(rate))
	b.at = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

func cloudTrailOperations() map[string]operation {
	anything := func(*call) target { return target{resource: "*"} }
	return map[string]operation{
		"cloudtrail:LookupEvents": {readOnly: true, target: anything, json: lookupEvents},
	}
}

type lookupInput struct {
	LookupAttributes []struct{ AttributeKey, AttributeValue string }
	StartTime        *float64
	EndTime          *float64
	MaxResults       *int
	NextToken        string
	EventCategory    string
}

// lookupEvents answers from the event history of the region that was called, newest first.
func lookupEvents(c *call) (any, error) {
	s := c.server
	if rate := s.options.LookupRate; rate > 0 {
		limit, ok := s.lookups[c.region]
		if !ok {
			limit = &bucketRate{tokens: float64(rate), at: c.now}
			s.lookups[c.region] = limit
		}
		if !limit.take(c.now, rate) {
			return nil, errThrottled
		}
	}
	var in lookupInput
	if err := json.Unmarshal(c.body, &in); err != nil {
		return nil, fail(http.StatusBadRequest, "SerializationException", "%s", err)
	}
	size := 50
	if in.MaxResults != nil {
		size = *in.MaxResults
	}
	switch {
	case size < 1 || size > 50:
		return nil, fail(http.StatusBadRequest, "InvalidMaxResultsException", "The maximum number of results must be between 1 and 50.")
	case len(in.LookupAttributes) > 1:
		return nil, fail(http.StatusBadRequest, "InvalidLookupAttributesException", "You can only specify one lookup attribute.")
	case in.StartTime != nil && in.EndTime != nil && *in.StartTime > *in.EndTime:
		return nil, fail(http.StatusBadRequest, "InvalidTimeRangeException", "The start time must be before the end time.")
	}
	before := len(s.events)
	if in.NextToken != "" {
		if _, err := fmt.Sscanf(in.NextToken, "next-%d", &before); err != nil || before < 0 || before > len(s.events) {
			return nil, fail(http.StatusBadRequest, "InvalidNextTokenException", "The NextToken is not valid.")
		}
	}
	return s.findEvents(c, in, before, size)
}

func (s *Server) findEvents(c *call, in lookupInput, before, size int) (any, error) {
	found := []map[string]any{}
	out := map[string]any{}
	for i := before - 1; i >= 0; i-- {
		e := s.events[i]
		matches, err := in.matches(e)
		if err != nil {
			return nil, err
		}
		if !matches || e.delivered.After(c.now) || e.region != c.region {
			continue
		}
		if len(found) == size {
			out["NextToken"] = fmt.Sprintf("next-%d", i+1)
			break
		}
		found = append(found, map[string]any{
			"EventId": e.id, "EventName": e.name, "EventSource": e.source, "EventTime": e.at.Unix(), "Username": e.username,
			"AccessKeyId": e.keyID, "ReadOnly": strconv.FormatBool(e.readOnly), "Resources": e.resources, "CloudTrailEvent": e.body,
		})
	}
	out["Events"] = found
	return out, nil
}

func (in lookupInput) matches(e event) (bool, error) {
	at := float64(e.at.Unix())
	start, end := math.Inf(-1), math.Inf(1)
	if in.StartTime != nil {
		start = math.Floor(*in.StartTime)
	}
	if in.EndTime != nil {
		end = *in.EndTime
	}
	if at < start || at > end {
		return false, nil
	}
	if len(in.LookupAttributes) == 0 {
		return true, nil
	}
	value := in.LookupAttributes[0].AttributeValue
	switch in.LookupAttributes[0].AttributeKey {
	case "EventId":
		return e.id == value, nil
	case "EventName":
		return e.name == value, nil
	case "EventSource":
		return e.source == value, nil
	case "ReadOnly":
		return strings.EqualFold(strconv.FormatBool(e.readOnly), value), nil
	case "Username":
		return e.username == value, nil
	case "AccessKeyId":
		return e.keyID == value, nil
	case "ResourceName":
		return e.hasResource(func(r resource) bool { return r.Name == value }), nil
	case "ResourceType":
		return e.hasResource(func(r resource) bool { return r.Type == value }), nil
	}
	return false, fail(http.StatusBadRequest, "InvalidLookupAttributesException", "The lookup attribute %q is not known.", in.LookupAttributes[0].AttributeKey)
}

func (e event) hasResource(is func(resource) bool) bool {
	for _, r := range e.resources {
		if is(r) {
			return true
		}
	}
	return false
}
