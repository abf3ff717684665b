package iampolicy

import (
	"maps"
	"slices"
	"strings"
)

// A PrincipalKind says what sort of caller a Principal is.
type PrincipalKind string

// The kinds of caller.
const (
	Root          PrincipalKind = "root"           // the account's root user
	User          PrincipalKind = "user"           // an IAM user, also by GetSessionToken
	RoleSession   PrincipalKind = "role-session"   // a role, assumed or about to be
	FederatedUser PrincipalKind = "federated-user" // GetFederationToken
	WebIdentity   PrincipalKind = "web-identity"   // an OIDC or SAML identity: no policies of its own
	Service       PrincipalKind = "service"        // an AWS service
	Anonymous     PrincipalKind = "anonymous"
)

// A Principal is who asks.
type Principal struct {
	Kind    PrincipalKind
	Account string // 12 digits; empty for WebIdentity, Service and Anonymous
	ARN     string // of the user, the session or the federated user; for WebIdentity the provider's; for Service its name
	RoleARN string // RoleSession: the role's ARN with its path
	UserARN string // FederatedUser: of the user that asked for the token
	ID      string // unique id (AIDA…, AROA…), which a resource policy may name after a deletion; may be empty
}

// identity is the ARN that aws:PrincipalArn holds.
func (p Principal) identity() string {
	if p.Kind == RoleSession && p.RoleARN != "" {
		return p.RoleARN
	}
	return p.ARN
}

// bare reports whether the caller has no identity side: only a resource policy can let it in.
func (p Principal) bare() bool {
	return p.Kind == WebIdentity || p.Kind == Service || p.Kind == Anonymous
}

// A Value is what a request carries under one condition key.
type Value struct {
	List    []string // several for a multi-value key, such as aws:TagKeys
	Unknown bool     // the key may be there or not, with any values
}

// A Context holds a request's condition keys. The zero Context is a request that carries none.
type Context struct {
	Open bool // keys that are not set are unknown; otherwise they are absent

	values map[string]Value
}

// With returns a copy of c with the key set to values. Keys are compared without case.
func (c Context) With(key string, values ...string) Context {
	return c.set(key, Value{List: slices.Clone(values)})
}

// WithUnknown returns a copy of c in which nothing is known of the key.
func (c Context) WithUnknown(key string) Context { return c.set(key, Value{Unknown: true}) }

// Without returns a copy of c in which the key is known to be absent, also where c is open.
func (c Context) Without(key string) Context { return c.set(key, Value{}) }

// NewContext returns a closed context of single-value keys.
func NewContext(values map[string]string) Context {
	c := Context{values: make(map[string]Value, len(values))}
	for key, value := range values {
		c.values[strings.ToLower(key)] = Value{List: []string{value}}
	}
	return c
}

func (c Context) set(key string, value Value) Context {
	values := make(map[string]Value, len(c.values)+1)
	maps.Copy(values, c.values)
	values[strings.ToLower(key)] = value
	return Context{Open: c.Open, values: values}
}

func (c Context) lookup(key string) (Value, bool) {
	value, found := c.values[key]
	if !found {
		return Value{Unknown: c.Open}, false
	}
	return value, len(value.List) > 0
}

// A Request is one call that policies judge.
type Request struct {
	Principal Principal
	Action    string // "iam:CreateAccessKey"
	Resource  string // ARN, or "*" for an action without one
	// ResourceAccount is the owner of the resource. Empty: the account in the resource's ARN, and where that has none (S3),
	// the principal's own account.
	ResourceAccount string
	// Context holds the request's condition keys. aws:PrincipalArn, aws:PrincipalAccount and aws:ResourceAccount are added
	// from the fields above where they are not set.
	Context Context
}

func (r Request) resourceAccount() string {
	if r.ResourceAccount != "" {
		return r.ResourceAccount
	}
	if parts := strings.SplitN(r.Resource, ":", 6); len(parts) == 6 && isAccount(parts[4]) {
		return parts[4]
	}
	return r.Principal.Account
}

func isAccount(s string) bool {
	return len(s) == 12 && strings.Trim(s, "0123456789") == ""
}

// context adds the keys that follow from the request itself.
func (r Request) context() Context {
	values := make(map[string]Value, len(r.Context.values)+3)
	derive := func(key, value string) {
		if value != "" {
			values[key] = Value{List: []string{value}}
		}
	}
	derive("aws:principalaccount", r.Principal.Account)
	derive("aws:resourceaccount", r.resourceAccount())
	if !r.Principal.bare() {
		derive("aws:principalarn", r.Principal.identity())
	}
	maps.Copy(values, r.Context.values)
	return Context{Open: r.Context.Open, values: values}
}

// needsGrant reports whether the resource's own policy must let the caller in, also inside one account: roles by their trust
// policy, KMS keys by their key policy.
func (r Request) needsGrant() bool {
	switch action := strings.ToLower(r.Action); action {
	case "sts:assumerole", "sts:assumerolewithwebidentity", "sts:assumerolewithsaml", "sts:tagsession", "sts:setsourceidentity":
		return strings.Contains(r.Resource, ":role/")
	default:
		return strings.HasPrefix(action, "kms:") && strings.Contains(r.Resource, ":key/")
	}
}
