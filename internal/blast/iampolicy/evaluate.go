package iampolicy

import "strings"

// A Policy is a document under the name that a reason shows: an ARN, or an inline policy's name.
type Policy struct {
	Name     string
	Document Document
	Err      error // set: the document could not be read, so it may allow or deny anything
}

// Read parses raw under a name. It never fails: a document that cannot be read makes the answers that depend on it undecided.
func Read(name string, raw []byte) Policy {
	document, err := Parse(raw)
	return Policy{Name: name, Document: document, Err: err}
}

// A PolicySet is everything that bears on one request.
type PolicySet struct {
	Identity []Policy   // inline, attached and group policies of the user or role; a federated user has its user's
	Resource []Policy   // the resource's policy; for sts:AssumeRole the role's trust policy
	Boundary []Policy   // the permissions boundary; empty: none is set
	Session  []Policy   // session policies; empty: none was passed. A federated user without one has no permissions
	SCP      [][]Policy // service control policies, one list for each level from the organization's root down to the account
}

// A Layer is one of the places where a policy can stand.
type Layer string

// The layers.
const (
	IdentityLayer Layer = "identity policy"
	ResourceLayer Layer = "resource policy"
	BoundaryLayer Layer = "permissions boundary"
	SessionLayer  Layer = "session policy"
	SCPLayer      Layer = "service control policy"
)

// A Verdict is the outcome of an evaluation.
type Verdict string

// The three verdicts.
const (
	Allowed      Verdict = "allowed"
	ExplicitDeny Verdict = "explicitDeny"
	ImplicitDeny Verdict = "implicitDeny"
)

// A Reason is the statement that decided. For an implicit deny it is the layer in which no statement allows, without a policy.
type Reason struct {
	Layer     Layer
	Policy    string
	Statement int // index in the document; -1 without a statement
	Sid       string
	Undecided bool // the statement was counted although it, or its document, cannot be decided
}

// An Outcome is a verdict with its reason.
type Outcome struct {
	Verdict Verdict
	Reason  Reason
}

// A Decision brackets the truth. Where everything could be decided both outcomes have the same verdict.
type Decision struct {
	Lower Outcome // all that is undecidable goes against the caller
	Upper Outcome // all that is undecidable goes for the caller
}

// Allowed reports whether the request is surely allowed.
func (d Decision) Allowed() bool { return d.Lower.Verdict == Allowed }

// Possible reports whether the request may be allowed.
func (d Decision) Possible() bool { return d.Upper.Verdict == Allowed }

// Decided reports whether it is known if the request is allowed.
func (d Decision) Decided() bool { return d.Allowed() == d.Possible() }

// Evaluate judges a request. An explicit deny anywhere wins. Else every level of SCP must allow, and then: in the resource's
// own account either the resource policy names the caller itself, or the identity policies allow within boundary and session
// policy; from another account both sides must. The answer does not depend on the order of policies or statements; only which
// of several deciding statements is named does.
func Evaluate(request Request, set PolicySet) Decision {
	if request.Principal.bare() {
		set = PolicySet{Resource: set.Resource} // it belongs to no account that could limit it
	}
	e := evaluation{request: request, context: request.context(), action: strings.ToLower(request.Action)}
	e.collect(set)
	return Decision{Lower: e.outcome(set, false), Upper: e.outcome(set, true)}
}

// grant says how directly a resource policy names the caller.
type grant int8

const (
	noGrant      grant = iota
	accountGrant       // the account: it may delegate by its identity policies
	roleGrant          // the role: boundary and session policy still limit it
	directGrant        // the user, the session, or everybody
)

// match is one statement that applies, or may.
type match struct {
	reason Reason
	sure   bool
	level  int   // of SCP
	grant  grant // of ResourceLayer
}

type evaluation struct {
	request Request
	context Context
	action  string

	denies []match
	allows map[Layer][]match
}

func (e *evaluation) collect(set PolicySet) {
	e.allows = map[Layer][]match{}
	e.layer(IdentityLayer, 0, set.Identity)
	e.layer(ResourceLayer, 0, set.Resource)
	e.layer(BoundaryLayer, 0, set.Boundary)
	e.layer(SessionLayer, 0, set.Session)
	for level, policies := range set.SCP {
		e.layer(SCPLayer, level, policies)
	}
}

func (e *evaluation) layer(layer Layer, level int, policies []Policy) {
	for _, policy := range policies {
		if policy.Err != nil {
			m := match{reason: Reason{Layer: layer, Policy: policy.Name, Statement: -1, Undecided: true}, level: level, grant: directGrant}
			e.denies = append(e.denies, m)
			e.allows[layer] = append(e.allows[layer], m)
			continue
		}
		for i := range policy.Document.Statements {
			statement := &policy.Document.Statements[i]
			applies, how := e.applies(layer, statement)
			if applies == no {
				continue
			}
			m := match{
				reason: Reason{layer, policy.Name, i, statement.Sid, applies == unknown},
				sure:   applies == yes, level: level, grant: how,
			}
			if statement.Effect == Deny {
				e.denies = append(e.denies, m)
			} else {
				e.allows[layer] = append(e.allows[layer], m)
			}
		}
	}
}

// applies reports whether the statement matches the request, cheapest test first.
func (e *evaluation) applies(layer Layer, s *Statement) (truth, grant) {
	result := e.matchesAction(s)
	if result == no {
		return no, noGrant
	}
	if result = result.and(e.matchesResource(layer, s)); result == no {
		return no, noGrant
	}
	how := noGrant
	switch named := s.Principals != nil || s.NotPrincipals != nil; {
	case named != (layer == ResourceLayer):
		result, how = result.and(unknown), directGrant // AWS would not store it here
	case named:
		var principal truth
		principal, how = e.matchesPrincipal(s)
		result = result.and(principal)
	}
	for i := range s.Conditions {
		if result == no {
			break
		}
		result = result.and(s.Conditions[i].test.eval(e.context))
	}
	return result, how
}

func (e *evaluation) matchesAction(s *Statement) truth {
	found := no
	for i := range s.actions {
		found = found.or(s.actions[i].match(e.action, e.context))
	}
	if s.NotActions != nil {
		return found.not()
	}
	return found
}

func (e *evaluation) matchesResource(layer Layer, s *Statement) truth {
	if s.Resources == nil && s.NotResources == nil {
		if layer == ResourceLayer {
			return yes // a trust policy stands on its one resource
		}
		return unknown
	}
	found := no
	for i := range s.resources {
		if s.NotResources != nil && s.resources[i].unresolved(e.context) {
			found = found.or(unknown)
			continue
		}
		found = found.or(s.resources[i].match(e.request.Resource, e.context))
	}
	if s.NotResources != nil {
		return found.not()
	}
	return found
}

// outcome decides with everything undecidable for the caller, or against it.
func (e *evaluation) outcome(set PolicySet, generous bool) Outcome {
	for _, deny := range e.denies {
		if deny.sure || !generous {
			return Outcome{ExplicitDeny, deny.reason}
		}
	}
	for level := range set.SCP {
		if _, ok := e.allowedBy(SCPLayer, level, noGrant, generous); !ok {
			return implicit(SCPLayer)
		}
	}
	sameAccount := e.request.Principal.Account == e.request.resourceAccount()
	resource, how := e.resourceGrant(generous)
	switch {
	case e.request.Principal.bare():
		if how == directGrant {
			return Outcome{Allowed, resource}
		}
		return implicit(ResourceLayer)
	case how == noGrant && (!sameAccount || e.request.needsGrant()):
		return implicit(ResourceLayer)
	case sameAccount && how == directGrant:
		return Outcome{Allowed, resource}
	}
	return e.identitySide(set, generous, sameAccount && how == roleGrant, resource)
}

// identitySide judges the caller's own policies. With granted, the resource policy stands in for the identity policies.
func (e *evaluation) identitySide(set PolicySet, generous, granted bool, resource Reason) Outcome {
	reason := resource
	if !granted {
		if e.request.Principal.Kind == Root {
			reason = Reason{Layer: IdentityLayer, Policy: "root user", Statement: -1}
		} else {
			found, ok := e.allowedBy(IdentityLayer, 0, noGrant, generous)
			if !ok {
				return implicit(IdentityLayer)
			}
			reason = found
		}
	}
	if _, ok := e.allowedBy(BoundaryLayer, 0, noGrant, generous); !ok && len(set.Boundary) > 0 {
		return implicit(BoundaryLayer)
	}
	if len(set.Session) > 0 || e.request.Principal.Kind == FederatedUser {
		if _, ok := e.allowedBy(SessionLayer, 0, noGrant, generous); !ok {
			return implicit(SessionLayer)
		}
	}
	return Outcome{Allowed, reason}
}

func implicit(layer Layer) Outcome {
	return Outcome{ImplicitDeny, Reason{Layer: layer, Statement: -1}}
}

// allowedBy finds a statement that allows, a sure one before an undecided one.
func (e *evaluation) allowedBy(layer Layer, level int, least grant, generous bool) (Reason, bool) {
	var second *Reason
	for i, allow := range e.allows[layer] {
		switch {
		case allow.level != level || allow.grant < least:
		case allow.sure:
			return allow.reason, true
		case generous && second == nil:
			second = &e.allows[layer][i].reason
		}
	}
	if second == nil {
		return Reason{}, false
	}
	return *second, true
}

// resourceGrant is the most direct grant of the resource policy.
func (e *evaluation) resourceGrant(generous bool) (Reason, grant) {
	for _, least := range []grant{directGrant, roleGrant, accountGrant} {
		if reason, ok := e.allowedBy(ResourceLayer, 0, least, generous); ok {
			return reason, least
		}
	}
	return Reason{}, noGrant
}
