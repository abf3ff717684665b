package aws

import (
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"tourniquet.dev/tourniquet/internal/blast/iampolicy"
)

// authorize asks the caller's policies, as authorization sees them by now, and the resource's where it has one.
func (c *call) authorize(action string, at target, resource []iampolicy.Policy) *failure {
	if c.service == "iam" {
		if failed := c.mayCallIAM(); failed != nil {
			return failed
		}
	}
	decision := iampolicy.Evaluate(iampolicy.Request{
		Principal: c.caller.who, Action: action, Resource: at.resource, ResourceAccount: c.server.options.Account,
		Context: c.context(at),
	}, c.server.policySet(c.caller, resource))
	if decision.Allowed() {
		return nil
	}
	return c.denied(action, at.resource, decision)
}

// mayCallIAM holds AWS's rule on temporary credentials of users: those of GetFederationToken never reach IAM, those of
// GetSessionToken only with MFA.
func (c *call) mayCallIAM() *failure {
	held := c.caller.session
	if held == nil || held.kind == iampolicy.RoleSession || held.mfa && held.kind != iampolicy.FederatedUser {
		return nil
	}
	return errUnknownKey
}

func (c *call) denied(action, resource string, decision iampolicy.Decision) *failure {
	reason := decision.Lower.Reason
	layer := map[iampolicy.Layer]string{
		iampolicy.IdentityLayer: "identity-based policy", iampolicy.ResourceLayer: "resource-based policy",
		iampolicy.BoundaryLayer: "permissions boundary", iampolicy.SessionLayer: "session policy",
		iampolicy.SCPLayer: "service control policy",
	}[reason.Layer]
	article := "a"
	if reason.Layer == iampolicy.IdentityLayer {
		article = "an"
	}
	because := "because no " + layer + " allows the " + action + " action"
	if decision.Lower.Verdict == iampolicy.ExplicitDeny {
		because = "with an explicit deny in " + article + " " + layer
	}
	return accessDenied("User: %s is not authorized to perform: %s on resource: %s %s", c.caller.who.ARN, action, resource, because)
}

// policySet collects what bears on a caller's requests.
func (s *Server) policySet(who *caller, resource []iampolicy.Policy) iampolicy.PolicySet {
	set := iampolicy.PolicySet{Resource: resource}
	if limit, ok := s.state.control.seen[controlKey]; ok {
		set.SCP = limit.levels
	}
	if who.entity != nil {
		set.Identity = policiesOf(who.entity, s.state.entities.seen, s.state.policies.seen)
		set.Boundary = boundaryOf(who.entity, s.state.policies.seen)
	}
	if who.session != nil {
		set.Session = who.session.policies
	}
	return set
}

// controlKey is the one key under which the service control policies stand.
const controlKey = "organization"

// policiesOf collects the identity policies of an entity and, for a user, of its groups.
func policiesOf(e *entity, entities map[string]*entity, policies map[string]*managed) []iampolicy.Policy {
	var out []iampolicy.Policy
	for _, name := range slices.Sorted(maps.Keys(e.inline)) {
		out = append(out, iampolicy.Policy{Name: string(e.kind) + "_" + e.name + "_" + name, Document: e.inline[name].parsed})
	}
	for _, arn := range e.attached {
		out = append(out, managedPolicy(arn, policies)...)
	}
	for _, name := range e.groups {
		if group, ok := entities[string(groupKind)+"/"+name]; ok {
			out = append(out, policiesOf(group, nil, policies)...)
		}
	}
	return out
}

func managedPolicy(arn string, policies map[string]*managed) []iampolicy.Policy {
	policy, ok := policies[arn]
	if !ok {
		return nil // attached, but not yet known to authorization
	}
	current, _ := policy.version(policy.current)
	return []iampolicy.Policy{{Name: arn, Document: current.parsed}}
}

// boundaryOf is the permissions boundary. One that is set but not known allows nothing: it must not open what it should close.
func boundaryOf(e *entity, policies map[string]*managed) []iampolicy.Policy {
	if e.boundary == "" {
		return nil
	}
	if found := managedPolicy(e.boundary, policies); found != nil {
		return found
	}
	return []iampolicy.Policy{{Name: e.boundary}}
}

// context gathers the condition keys of the request.
func (c *call) context(at target) iampolicy.Context {
	keys := map[string]string{
		"aws:CurrentTime":     c.now.Format(time.RFC3339),
		"aws:EpochTime":       strconv.FormatInt(c.now.Unix(), 10),
		"aws:SourceIp":        c.sourceIP(),
		"aws:UserAgent":       c.request.UserAgent(),
		"aws:SecureTransport": strconv.FormatBool(c.request.TLS != nil),
		"aws:RequestedRegion": c.region,
		"aws:ViaAWSService":   "false",
	}
	if c.caller != nil {
		c.caller.keys(keys)
	}
	maps.Copy(keys, at.keys)
	context := iampolicy.NewContext(keys)
	for key, values := range at.lists {
		context = context.With(key, values...)
	}
	return context
}

func (c *caller) keys(keys map[string]string) {
	if c.who.Kind == iampolicy.WebIdentity {
		return // its keys are the token's claims
	}
	keys["aws:userid"] = c.who.ID
	keys["aws:PrincipalType"] = map[iampolicy.PrincipalKind]string{
		iampolicy.Root: "Account", iampolicy.User: "User", iampolicy.RoleSession: "AssumedRole", iampolicy.FederatedUser: "FederatedUser",
	}[c.who.Kind]
	if c.who.Kind == iampolicy.User {
		keys["aws:username"] = c.entity.name
	}
	for key, value := range c.tags() {
		keys["aws:PrincipalTag/"+key] = value
	}
	if c.session == nil {
		return // aws:TokenIssueTime and MFA keys exist in temporary credentials only
	}
	keys["aws:TokenIssueTime"] = c.session.issued.Format(time.RFC3339)
	keys["aws:MultiFactorAuthPresent"] = strconv.FormatBool(c.session.mfa)
	if c.session.sourceIdentity != "" {
		keys["aws:SourceIdentity"] = c.session.sourceIdentity
	}
	if c.session.provider != "" {
		keys["aws:FederatedProvider"] = c.session.provider
	}
}

// sourceIP is the peer's address. Forwarding headers are not believed: anybody can write them.
func (c *call) sourceIP() string {
	host, _, err := net.SplitHostPort(c.request.RemoteAddr)
	if err != nil {
		return c.request.RemoteAddr
	}
	return strings.TrimPrefix(host, "::ffff:")
}
