package aws

import (
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"tourniquet.dev/tourniquet/internal/blast/iampolicy"
)

var sessionPattern = regexp.MustCompile(`^[\w+=,.@-]{2,64}$`)

const (
	minSession     = 15 * time.Minute
	maxUserSession = 36 * time.Hour
	maxSessionSize = 2048 // characters of a session policy
	maxSessions    = 100_000
)

func stsOperations() map[string]operation {
	anything := func(*call) target { return target{resource: "*"} }
	return map[string]operation{
		"sts:GetCallerIdentity":         {readOnly: true, open: true, run: getCallerIdentity},
		"sts:GetAccessKeyInfo":          {readOnly: true, target: anything, run: getAccessKeyInfo},
		"sts:AssumeRole":                {readOnly: true, open: true, run: assumeRole},
		"sts:AssumeRoleWithWebIdentity": {readOnly: true, open: true, run: assumeRoleWithWebIdentity},
		"sts:GetSessionToken":           {readOnly: true, open: true, run: getSessionToken},
		"sts:GetFederationToken":        {readOnly: true, open: true, run: getFederationToken},
	}
}

// getCallerIdentity is allowed to everybody whose signature is right, also under a deny of everything.
func getCallerIdentity(c *call) (element, error) {
	who := c.caller.who
	return el("", txt("UserId", who.ID), txt("Account", who.Account), txt("Arn", who.ARN)), nil
}

func getAccessKeyInfo(c *call) (element, error) {
	account, ok := accountOf(c.form.Get("AccessKeyId"))
	if !ok {
		return element{}, invalid("1 validation error detected: Value at 'accessKeyId' failed to satisfy constraint: Member must satisfy regular expression pattern: [\\w]*")
	}
	return el("", txt("Account", account)), nil
}

// seconds reads DurationSeconds within its bounds.
func (c *call) seconds(standard, most time.Duration) (time.Duration, error) {
	text := c.form.Get("DurationSeconds")
	if text == "" {
		return standard, nil
	}
	n, err := strconv.Atoi(text)
	length := time.Duration(n) * time.Second
	if err != nil || length < minSession || length > most {
		return 0, invalid("1 validation error detected: Value '%s' at 'durationSeconds' failed to satisfy constraint: Member must have value between 900 and %d", text, int(most.Seconds()))
	}
	return length, nil
}

// sessionPolicies reads the policies that a call passes for its session.
func (c *call) sessionPolicies() ([]iampolicy.Policy, error) {
	var out []iampolicy.Policy
	if raw := c.form.Get("Policy"); raw != "" {
		d, err := identityDocument(raw)
		if err != nil {
			return nil, err
		}
		if len(raw) > maxSessionSize {
			return nil, fail(http.StatusBadRequest, "PackedPolicyTooLarge", "Packed policy consumes more than 100%% of allotted space")
		}
		out = append(out, iampolicy.Policy{Name: "session policy", Document: d.parsed})
	}
	for _, arn := range queryList(c.form, "PolicyArns", "arn") {
		found := managedPolicy(arn, c.server.state.policies.seen)
		if found == nil {
			return nil, invalid("Policy %s does not exist or is not attachable.", arn)
		}
		out = append(out, found...)
	}
	return out, nil
}

func assumeRole(c *call) (element, error) {
	switch c.caller.who.Kind {
	case iampolicy.Root:
		return element{}, accessDenied("Roles may not be assumed by root accounts.")
	case iampolicy.FederatedUser:
		return element{}, accessDenied("Cannot call AssumeRole with federated user credentials")
	}
	held, err := c.newRoleSession()
	if err != nil {
		return element{}, err
	}
	if err := c.inherit(held); err != nil {
		return element{}, err
	}
	role, trust := c.role()
	at := c.assumeTarget(held)
	if held.mfa, err = c.checkMFA(); err != nil {
		return element{}, err
	}
	if held.mfa {
		at.keys["aws:MultiFactorAuthPresent"] = "true"
	}
	actions := []string{"sts:AssumeRole"}
	if len(held.tags) > 0 {
		actions = append(actions, "sts:TagSession")
	}
	if held.sourceIdentity != "" {
		actions = append(actions, "sts:SetSourceIdentity")
	}
	for _, action := range actions {
		if failed := c.authorize(action, at, trust); failed != nil {
			failed.message, _, _ = strings.Cut(failed.message, " because ")
			return element{}, failed
		}
	}
	return c.startRoleSession(role, held)
}

// newRoleSession reads and checks what both ways to assume a role have in common.
func (c *call) newRoleSession() (*session, error) {
	name := c.form.Get("RoleSessionName")
	if !sessionPattern.MatchString(name) {
		return nil, invalid("1 validation error detected: Value '%s' at 'roleSessionName' failed to satisfy constraint: Member must satisfy regular expression pattern: [\\w+=,.@-]*", name)
	}
	length, err := c.seconds(time.Hour, 12*time.Hour)
	if err != nil {
		return nil, err
	}
	policies, err := c.sessionPolicies()
	if err != nil {
		return nil, err
	}
	tags, err := queryTags(c.form, "Tags")
	if err != nil {
		return nil, err
	}
	if len(tags) > 50 {
		return nil, invalid("1 validation error detected: Value at 'tags' failed to satisfy constraint: Member must have length less than or equal to 50")
	}
	issued := c.now.Truncate(time.Second)
	return &session{
		kind: iampolicy.RoleSession, name: name, issued: issued, expires: issued.Add(length), policies: policies, tags: tags,
		transitive: queryList(c.form, "TransitiveTagKeys", ""), sourceIdentity: c.form.Get("SourceIdentity"),
	}, nil
}

// inherit takes over what goes along a chain of roles: transitive tags and the source identity. Neither can be changed on the way.
func (c *call) inherit(held *session) error {
	parent := c.caller.session
	if parent == nil {
		return nil
	}
	if parent.kind == iampolicy.RoleSession && held.expires.Sub(held.issued) > time.Hour {
		return invalid("The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining")
	}
	for _, key := range parent.transitive {
		if _, given := held.tags[key]; given {
			return fail(http.StatusBadRequest, "InvalidParameterValue", "One of the specified transitive tag keys can't be set because it conflicts with a transitive tag key from the calling session.")
		}
		held.tags[key] = parent.tags[key]
	}
	held.transitive = append(held.transitive, parent.transitive...)
	if parent.sourceIdentity != "" {
		if held.sourceIdentity != "" && held.sourceIdentity != parent.sourceIdentity {
			return accessDenied("User: %s is not authorized to perform: sts:SetSourceIdentity on resource: %s", c.caller.who.ARN, c.form.Get("RoleArn"))
		}
		held.sourceIdentity = parent.sourceIdentity
	}
	return nil
}

// role is the role that the call names, as authorization sees it, and its trust policy; nil where there is none.
func (c *call) role() (*entity, []iampolicy.Policy) {
	arn := c.form.Get("RoleArn")
	for _, e := range c.server.state.entities.seen {
		if e.kind == roleKind && e.arn == arn {
			return e, []iampolicy.Policy{{Name: "trust policy of " + e.name, Document: e.trust.parsed}}
		}
	}
	return nil, nil
}

func (c *call) assumeTarget(held *session) target {
	at := target{
		resource: c.form.Get("RoleArn"),
		keys:     map[string]string{"sts:RoleSessionName": held.name},
		lists:    map[string][]string{},
	}
	if id := c.form.Get("ExternalId"); id != "" {
		at.keys["sts:ExternalId"] = id
	}
	if held.sourceIdentity != "" {
		at.keys["sts:SourceIdentity"] = held.sourceIdentity
	}
	for key, value := range held.tags {
		at.keys["aws:RequestTag/"+key] = value
	}
	if len(held.tags) > 0 {
		at.lists["aws:TagKeys"] = slices.Sorted(maps.Keys(held.tags))
	}
	if len(held.transitive) > 0 {
		at.lists["sts:TransitiveTagKeys"] = held.transitive
	}
	return at
}

// checkMFA compares the code with the caller's device. Without a device in the call there is none present.
func (c *call) checkMFA() (bool, error) {
	serial, code := c.form.Get("SerialNumber"), c.form.Get("TokenCode")
	if serial == "" && code == "" {
		return c.caller.session != nil && c.caller.session.kind == iampolicy.User && c.caller.session.mfa, nil
	}
	if c.caller.entity != nil {
		for _, device := range c.caller.entity.mfa {
			if device.serial == serial && device.code == code {
				return true, nil
			}
		}
	}
	return false, accessDenied("MultiFactorAuthentication failed with invalid MFA one time pass code. ")
}

func (c *call) startRoleSession(role *entity, held *session) (element, error) {
	if role == nil { // a policy that trusts everything cannot make a role
		return element{}, accessDenied("User: %s is not authorized to perform: sts:%s on resource: %s", c.caller.who.ARN, c.action, c.form.Get("RoleArn"))
	}
	if held.expires.Sub(held.issued) > role.maxSession {
		return element{}, invalid("The requested DurationSeconds exceeds the MaxSessionDuration set for this role.")
	}
	held.owner, held.ownerID = role.key(), role.id
	credentials, err := c.mint(held)
	if err != nil {
		return element{}, err
	}
	arn := "arn:aws:sts::" + c.server.options.Account + ":assumed-role/" + role.name + "/" + held.name
	c.resources = append(c.resources, resource{"AWS::IAM::Role", role.arn}, resource{"AWS::STS::AssumedRole", arn})
	c.answer["assumedRoleUser"] = map[string]string{"assumedRoleId": role.id + ":" + held.name, "arn": arn}
	out := el("", credentials, el("AssumedRoleUser", txt("AssumedRoleId", role.id+":"+held.name), txt("Arn", arn)))
	if held.sourceIdentity != "" {
		c.answer["sourceIdentity"] = held.sourceIdentity
		out.children = append(out.children, txt("SourceIdentity", held.sourceIdentity))
	}
	return out, nil
}

// mint makes the credentials of a session, which work at once.
func (c *call) mint(held *session) (element, error) {
	s := c.server
	if len(s.sessions) >= maxSessions {
		maps.DeleteFunc(s.sessions, func(_ string, old *session) bool { return c.now.After(old.expires) })
	}
	if len(s.sessions) >= maxSessions {
		return element{}, errThrottled
	}
	held.keyID, held.secret, held.token = newKeyID("ASIA", s.options.Account), newSecret(), newToken()
	s.sessions[held.keyID] = held
	c.mintedKey = held.keyID
	c.resources = append(c.resources, resource{"AWS::IAM::AccessKey", held.keyID})
	c.answer = map[string]any{"credentials": map[string]string{
		"accessKeyId": held.keyID, "expiration": held.expires.Format("Jan 2, 2006, 3:04:05 PM"), "sessionToken": "HIDDEN_DUE_TO_SECURITY_REASONS",
	}}
	return el("Credentials", txt("AccessKeyId", held.keyID), txt("SecretAccessKey", held.secret), txt("SessionToken", held.token), when("Expiration", held.expires)), nil
}

// longTerm refuses what only a long-term key may call.
func (c *call) longTerm() error {
	if c.caller.session != nil {
		return accessDenied("Cannot call %s with session credentials", c.action)
	}
	return nil
}

// userSession starts a session of the calling user or of the root user.
func (c *call) userSession(kind iampolicy.PrincipalKind, length time.Duration) *session {
	issued := c.now.Truncate(time.Second)
	held := &session{kind: kind, issued: issued, expires: issued.Add(length)}
	if c.caller.entity != nil {
		held.owner, held.ownerID = c.caller.entity.key(), c.caller.entity.id
	}
	return held
}

// getSessionToken needs no permission; only an explicit deny stops it.
func getSessionToken(c *call) (element, error) {
	if err := c.longTerm(); err != nil {
		return element{}, err
	}
	length, err := c.seconds(12*time.Hour, maxUserSession)
	if err != nil {
		return element{}, err
	}
	decision := iampolicy.Evaluate(iampolicy.Request{
		Principal: c.caller.who, Action: "sts:GetSessionToken", Resource: "*", Context: c.context(target{}),
	}, c.server.policySet(c.caller, nil))
	if decision.Lower.Verdict == iampolicy.ExplicitDeny {
		return element{}, c.denied("sts:GetSessionToken", "*", decision)
	}
	held := c.userSession(c.caller.who.Kind, length)
	if c.caller.who.Kind == iampolicy.Root {
		held.expires = held.issued.Add(min(length, time.Hour))
	}
	if held.mfa, err = c.checkMFA(); err != nil {
		return element{}, err
	}
	credentials, err := c.mint(held)
	return el("", credentials), err
}

func getFederationToken(c *call) (element, error) {
	if err := c.longTerm(); err != nil {
		return element{}, err
	}
	name := c.form.Get("Name")
	if len(name) > 32 || !sessionPattern.MatchString(name) {
		return element{}, invalid("1 validation error detected: Value '%s' at 'name' failed to satisfy constraint: Member must satisfy regular expression pattern: [\\w+=,.@-]*", name)
	}
	length, err := c.seconds(12*time.Hour, maxUserSession)
	if err != nil {
		return element{}, err
	}
	arn := "arn:aws:sts::" + c.server.options.Account + ":federated-user/" + name
	if failed := c.authorize("sts:GetFederationToken", target{resource: arn}, nil); failed != nil {
		return element{}, failed
	}
	if c.caller.entity == nil {
		return element{}, accessDenied("The stand-in gives the root user no federation token.")
	}
	held := c.userSession(iampolicy.FederatedUser, length)
	held.name = name
	if held.policies, err = c.sessionPolicies(); err != nil {
		return element{}, err
	}
	if held.tags, err = queryTags(c.form, "Tags"); err != nil {
		return element{}, err
	}
	credentials, err := c.mint(held)
	if err != nil {
		return element{}, err
	}
	id := c.server.options.Account + ":" + name
	c.answer["federatedUser"] = map[string]string{"federatedUserId": id, "arn": arn}
	return el("", credentials, el("FederatedUser", txt("FederatedUserId", id), txt("Arn", arn))), nil
}
