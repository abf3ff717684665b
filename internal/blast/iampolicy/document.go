// Package iampolicy says whether AWS IAM policies allow a request, why, and between which bounds the answer lies when
// something could not be read.
//
// It is pure: it reads no clock, no network and no file, and keeps no state; time and addresses come in the request's context.
// It never turns what it cannot read into "no reach": such a policy or condition makes the answer undecided. It is called by
// the blast radius, by the activities that check an effect, and by the AWS stand-in, so that all three agree.
package iampolicy

import (
	"errors"
	"fmt"
	"strings"
)

// MaxBytes is the largest document that Parse reads. The largest policy in AWS (a KMS key policy) has 32 KiB.
const MaxBytes = 128 << 10

// ErrTooLarge is returned for a document over MaxBytes.
var ErrTooLarge = errors.New("policy document is too large")

const (
	currentVersion = "2012-10-17" // the only version with policy variables
	oldVersion     = "2008-10-17"
)

// An Effect is what a statement does to the requests it matches.
type Effect string

// The two effects of a statement.
const (
	Allow Effect = "Allow"
	Deny  Effect = "Deny"
)

// Valid reports whether e is one of the two effects.
func (e Effect) Valid() bool { return e == Allow || e == Deny }

// A Document is a parsed policy document. It is immutable and safe for concurrent use.
type Document struct {
	Version    string
	ID         string
	Statements []Statement
}

// A Statement is one statement of a document. The lists hold the text of the document; a nil list means that the element is
// absent.
type Statement struct {
	Sid           string
	Effect        Effect
	Principals    []PrincipalEntry
	NotPrincipals []PrincipalEntry
	Actions       []string
	NotActions    []string
	Resources     []string
	NotResources  []string
	Conditions    []Condition

	actions, resources []pattern // of whichever list is present
}

// A PrincipalEntry is one value of a Principal or NotPrincipal element: {AWS, "arn:…"}. A bare "*" is {AWS, "*"}.
type PrincipalEntry struct {
	Kind  string // AWS, Federated, Service or CanonicalUser
	Value string
}

// A Condition is one operator with one key: {"StringEquals", "aws:username", ["a","b"]}.
type Condition struct {
	Operator string
	Key      string
	Values   []string

	test test
}

// Parse reads a policy document. It accepts exactly what can be evaluated: an unknown element, a duplicate key or a value of
// the wrong type is an error, never skipped. An unknown condition operator is kept: that condition stays undecided.
func Parse(raw []byte) (Document, error) {
	if len(raw) > MaxBytes {
		return Document{}, fmt.Errorf("%w: %d bytes, at most %d are read", ErrTooLarge, len(raw), MaxBytes)
	}
	tree, err := readTree(raw)
	if err != nil {
		return Document{}, fmt.Errorf("parse policy document: %w", err)
	}
	document, err := newDocument(tree)
	if err != nil {
		return Document{}, fmt.Errorf("parse policy document: %w", err)
	}
	return document, nil
}

func newDocument(tree any) (Document, error) {
	members, ok := tree.([]member)
	if !ok {
		return Document{}, errors.New("want an object")
	}
	document := Document{Version: oldVersion} // what AWS assumes where the element is absent
	for _, m := range members {
		var err error
		switch m.key {
		case "Version":
			document.Version, err = text(m.value)
			if err == nil && document.Version != currentVersion && document.Version != oldVersion {
				err = fmt.Errorf("unknown version %q", document.Version)
			}
		case "Id":
			document.ID, err = text(m.value)
		case "Statement":
			// Compiled below: the version may stand after the statements.
		default:
			err = errors.New("unknown element")
		}
		if err != nil {
			return Document{}, fmt.Errorf("%s: %w", m.key, err)
		}
	}
	for _, m := range members {
		if m.key != "Statement" {
			continue
		}
		list, ok := m.value.([]any)
		if !ok {
			list = []any{m.value}
		}
		for i, item := range list {
			statement, err := newStatement(item, document.Version == currentVersion)
			if err != nil {
				return Document{}, fmt.Errorf("statement %d: %w", i, err)
			}
			document.Statements = append(document.Statements, statement)
		}
	}
	if len(document.Statements) == 0 {
		return Document{}, errors.New("no statement")
	}
	return document, nil
}

func text(value any) (string, error) {
	s, ok := value.(string)
	if !ok {
		return "", errors.New("want a string")
	}
	return s, nil
}

func newStatement(tree any, variables bool) (Statement, error) {
	members, ok := tree.([]member)
	if !ok {
		return Statement{}, errors.New("want an object")
	}
	var s Statement
	for _, m := range members {
		if err := s.set(m, variables); err != nil {
			return Statement{}, fmt.Errorf("%s: %w", m.key, err)
		}
	}
	return s, s.compile(variables)
}

func (s *Statement) set(m member, variables bool) (err error) {
	switch m.key {
	case "Sid":
		s.Sid, err = text(m.value)
	case "Effect":
		var effect string
		effect, err = text(m.value)
		s.Effect = Effect(effect)
	case "Principal":
		s.Principals, err = principalEntries(m.value)
	case "NotPrincipal":
		s.NotPrincipals, err = principalEntries(m.value)
	case "Action":
		s.Actions, err = texts(m.value, false)
	case "NotAction":
		s.NotActions, err = texts(m.value, false)
	case "Resource":
		s.Resources, err = texts(m.value, false)
	case "NotResource":
		s.NotResources, err = texts(m.value, false)
	case "Condition":
		s.Conditions, err = newConditions(m.value, variables)
	default:
		err = errors.New("unknown element")
	}
	return err
}

// compile checks what must hold together and prepares the patterns.
func (s *Statement) compile(variables bool) error {
	switch {
	case !s.Effect.Valid():
		return fmt.Errorf("effect %q: want Allow or Deny", s.Effect)
	case (s.Actions == nil) == (s.NotActions == nil):
		return errors.New("want one of Action and NotAction")
	case s.Resources != nil && s.NotResources != nil:
		return errors.New("want one of Resource and NotResource")
	case s.Principals != nil && s.NotPrincipals != nil:
		return errors.New("want one of Principal and NotPrincipal")
	}
	for _, action := range append(s.Actions, s.NotActions...) {
		s.actions = append(s.actions, newPattern(strings.ToLower(action), false))
	}
	for _, resource := range append(s.Resources, s.NotResources...) {
		s.resources = append(s.resources, newPattern(resource, variables))
	}
	return nil
}

func principalEntries(value any) ([]PrincipalEntry, error) {
	if value == "*" {
		return []PrincipalEntry{{"AWS", "*"}}, nil
	}
	members, ok := value.([]member)
	if !ok {
		return nil, errors.New(`want "*" or an object`)
	}
	entries := []PrincipalEntry{}
	for _, m := range members {
		switch m.key {
		case "AWS", "Federated", "Service", "CanonicalUser":
		default:
			return nil, fmt.Errorf("unknown kind of principal %q", m.key)
		}
		values, err := texts(m.value, false)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", m.key, err)
		}
		for _, v := range values {
			entries = append(entries, PrincipalEntry{m.key, v})
		}
	}
	return entries, nil
}

func newConditions(value any, variables bool) ([]Condition, error) {
	operators, ok := value.([]member)
	if !ok {
		return nil, errors.New("want an object")
	}
	var conditions []Condition
	for _, operator := range operators {
		keys, ok := operator.value.([]member)
		if !ok {
			return nil, fmt.Errorf("%s: want an object", operator.key)
		}
		for _, key := range keys {
			values, err := texts(key.value, true)
			if err != nil {
				return nil, fmt.Errorf("%s: %s: %w", operator.key, key.key, err)
			}
			c := Condition{Operator: operator.key, Key: key.key, Values: values}
			c.test = newTest(c, variables)
			conditions = append(conditions, c)
		}
	}
	return conditions, nil
}
