package adapter

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"tourniquet.dev/tourniquet/internal/detection"
	"tourniquet.dev/tourniquet/internal/identity"
)

// readAWS reads an event of EventBridge, or what stands in one: a CloudTrail record or a GuardDuty finding.
func readAWS(r *reading) (Finding, error) {
	kind := r.doc.text("detail-type")
	if kind != "" {
		detail, ok := r.doc.take("detail").(map[string]any)
		if !ok {
			return Finding{}, refuse(Invalid, "detail", "must be an object")
		}
		detail["event"] = map[string]any(r.doc) // the envelope is kept aside
		r.doc = detail
	}
	switch {
	case kind == "GuardDuty Finding" || (kind == "" && r.doc["schemaVersion"] != nil && r.doc["type"] != nil):
		return readGuardDuty(r)
	case strings.HasSuffix(kind, "via CloudTrail") || (kind == "" && r.doc["eventSource"] != nil):
		return readCloudTrail(r)
	}
	return Finding{}, refuse(Unsupported, "detail-type", "neither of CloudTrail nor of GuardDuty")
}

// modelCalls are the calls of Bedrock that use a model.
var modelCalls = []string{"InvokeModel", "InvokeModelWithResponseStream", "Converse", "ConverseStream", "StartAsyncInvoke"}

// What CloudTrail tells that is new, with technique and severity. The worst names the detection.
var (
	cloudTrailTechniques = map[string]string{"model-new-principal": "T1496.004", "model-new-region": "T1496.004", "model-new-agent": "T1496.004", "key-new-network": "T1078.004"}
	cloudTrailSeverities = map[string]detection.Severity{"model-new-principal": detection.High, "model-new-region": detection.High,
		"model-new-agent": detection.Medium, "key-new-network": detection.High}
	cloudTrailTitles = map[string]string{"model-new-principal": "A principal used a Bedrock model for the first time", "model-new-region": "A principal used Bedrock in a region that is new for it",
		"model-new-agent": "A principal used Bedrock with a client that is new for it", "key-new-network": "A key was used from a network that is new for it"}
)

// call is what a CloudTrail record says of who called from where.
type awsCall struct{ account, principal, key, network, region, agent string }

func readCall(doc document) awsCall {
	c := awsCall{account: first(doc.read("userIdentity", "accountId"), doc.read("recipientAccountId")), key: doc.read("userIdentity", "accessKeyId"), region: doc.read("awsRegion")}
	// Temporary keys change with each session: their role is what has habits.
	c.principal = first(doc.read("userIdentity", "sessionContext", "sessionIssuer", "arn"), doc.read("userIdentity", "arn"))
	if strings.HasPrefix(c.key, "AKIA") {
		c.principal = c.key
	}
	c.agent, _, _ = strings.Cut(doc.read("userAgent"), "/")
	c.network = first(doc.read("vpcEndpointId"), networkOf(doc.read("sourceIPAddress")))
	return c
}

// networkOf is the /24 or /48 of an address; nothing where an AWS service called.
func networkOf(address string) string {
	ip, err := netip.ParseAddr(address)
	if err != nil {
		return ""
	}
	bits := 48
	if ip = ip.Unmap(); ip.Is4() {
		bits = 24
	}
	prefix, err := ip.Prefix(bits)
	if err != nil {
		return ""
	}
	return prefix.String()
}

// readCloudTrail compares a call with what its account and principal did before. In the learning period it only learns.
func readCloudTrail(r *reading) (Finding, error) {
	id, event := r.doc.text("eventID"), r.doc.read("eventName")
	if id == "" || event == "" {
		return Finding{}, refuse(Invalid, "eventID, eventName", "are needed")
	}
	at, err := r.when("eventTime")
	if err != nil {
		return Finding{}, err
	}
	c := readCall(r.doc)
	if c.key == "" || c.principal == "" {
		return passedOver("no key was used")
	}
	model := r.doc.read("eventSource") == "bedrock.amazonaws.com" && slices.Contains(modelCalls, event)
	news, learn, since := r.news(c, model)
	if len(news) == 0 {
		return passedOver("nothing new, or learning", learn...)
	}
	slices.SortStableFunc(news, func(a, b string) int { return cloudTrailSeverities[b].Rank() - cloudTrailSeverities[a].Rank() })
	attacks, err := r.from.attacks(news[0], cloudTrailTechniques)
	if err != nil {
		return Finding{}, err
	}
	d := r.begin("cloudtrail/"+news[0], cloudTrailTitles[news[0]], cloudTrailSeverities[news[0]], at, "cloudtrail", id)
	d.Attacks = attacks
	maps.Copy(d.Evidence, map[string]string{"new": strings.Join(news, ", "), "call": event, "region": c.region, "network": c.network, "client": c.agent,
		"address": r.doc.read("sourceIPAddress"), "principal": c.principal, "error": r.doc.read("errorCode"),
		"learned": "since " + since.Format(time.RFC3339) + ", in silence for " + r.from.Learn.String()})
	r.awsIdentities(d, c.account, c.key, r.doc.read("userIdentity", "sessionContext", "sessionIssuer", "type"), r.doc.read("userIdentity", "sessionContext", "sessionIssuer", "userName"),
		"CloudTrail: the call was signed with it")
	if len(d.Identities) == 0 {
		return Finding{}, refuse(Invalid, "userIdentity", "names no key that is understood")
	}
	return r.finish(d, learn...)
}

// news says what of a call is new, what to remember of it, and since when its account is watched.
func (r *reading) news(c awsCall, model bool) (news []string, learn []string, since time.Time) {
	now := r.window.Now
	known := func(name string) (time.Time, bool) {
		name = r.from.Name + "\x00" + name
		learn = append(learn, name)
		at, ok := r.memory.First(name)
		if !ok {
			at = now
		}
		return at, ok
	}
	since, _ = known("account\x00" + c.account)
	learned := func(at time.Time) bool { return !now.Before(at.Add(r.from.Learn)) }
	who := c.account + "\x00" + c.principal
	if c.network != "" {
		from, met := known("key\x00" + who)
		if _, ok := known("network\x00" + who + "\x00" + c.network); !ok && met && learned(since) && learned(from) {
			news = append(news, "key-new-network")
		}
	}
	if !model {
		return news, learn, since
	}
	from, met := known("model\x00" + who)
	_, region := known("model-region\x00" + who + "\x00" + c.region)
	_, agent := known("model-agent\x00" + who + "\x00" + c.agent)
	switch {
	case !learned(since):
	case !met:
		news = append(news, "model-new-principal")
	case learned(from):
		if !region {
			news = append(news, "model-new-region")
		}
		if !agent {
			news = append(news, "model-new-agent")
		}
	}
	return news, learn, since
}

// awsIdentities names the key of a call, and the role behind it. AWS checked the key's signature, so that the key made the
// call is attested, where the event came a way that AWS authenticates too; that a workload holds the key is not said.
func (r *reading) awsIdentities(d *detection.Detection, account, key, issuer, name, evidence string) {
	link := identity.Claimed
	if r.from.Attests {
		link = identity.Attested
	}
	account = first(account, r.from.Account)
	identityOf(d, identity.Identity{Kind: identity.AccessKey, Scope: account, Name: key, Link: link, Evidence: evidence})
	switch issuer {
	case "Role":
		identityOf(d, identity.Identity{Kind: identity.Role, Scope: account, Name: name, Link: link, Evidence: evidence})
	case "IAMUser":
		identityOf(d, identity.Identity{Kind: identity.User, Scope: account, Name: name, Link: link, Evidence: evidence})
	}
}
