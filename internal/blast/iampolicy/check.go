package iampolicy

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// A Place is what a document is stored as; it decides which elements the document must and must not have.
type Place string

// The places.
const (
	IdentityPlace Place = "identity" // inline, managed, boundary, session, service control policy
	TrustPlace    Place = "trust"    // a role's trust policy
	ResourcePlace Place = "resource" // any other resource's policy
)

var (
	sidPattern    = regexp.MustCompile(`^[0-9A-Za-z]*$`)
	actionPattern = regexp.MustCompile(`^[0-9A-Za-z*?-]+:[0-9A-Za-z*?._-]+$`)
)

// Check reports what keeps AWS from storing the document in that place. A document that Check refuses can still be evaluated:
// what does not belong there is undecided.
func (d Document) Check(place Place) error {
	seen := map[string]bool{}
	for i := range d.Statements {
		s := &d.Statements[i]
		if err := s.check(place); err != nil {
			return fmt.Errorf("statement %d: %w", i, err)
		}
		if s.Sid != "" && seen[s.Sid] {
			return fmt.Errorf("statement %d: sid %q is not unique", i, s.Sid)
		}
		seen[s.Sid] = true
	}
	return nil
}

func (s *Statement) check(place Place) error {
	named := s.Principals != nil || s.NotPrincipals != nil
	placed := s.Resources != nil || s.NotResources != nil
	switch {
	case place == IdentityPlace && named:
		return errors.New("policy document should not specify a principal")
	case place == IdentityPlace && !placed:
		return errors.New("policy statement must contain resources")
	case place == IdentityPlace && !sidPattern.MatchString(s.Sid):
		return errors.New("statement IDs (SID) must be alpha-numeric")
	case place != IdentityPlace && !named:
		return errors.New("missing required field Principal")
	case place == TrustPlace && placed:
		return errors.New("has prohibited field Resource")
	case place == TrustPlace && s.NotPrincipals != nil && s.Effect == Allow:
		return errors.New("has prohibited field NotPrincipal beside Allow")
	}
	for _, action := range append(s.Actions, s.NotActions...) {
		switch {
		case action == "*" && place != TrustPlace:
		case !actionPattern.MatchString(action):
			return fmt.Errorf("action %q: want a vendor, a colon and an action", action)
		case place == TrustPlace && !strings.HasPrefix(strings.ToLower(action), "sts:"):
			return fmt.Errorf("action %q: an AssumeRole policy may only specify STS actions", action)
		}
	}
	for _, resource := range append(s.Resources, s.NotResources...) {
		if resource != "*" && !strings.HasPrefix(resource, "arn:") {
			return fmt.Errorf("resource %q must be in ARN format or \"*\"", resource)
		}
	}
	for i := range s.Conditions {
		if !s.Conditions[i].test.known() {
			return fmt.Errorf("condition operator %q is not known", s.Conditions[i].Operator)
		}
	}
	return nil
}
