// Package strictyaml reads configuration that people write by hand.
//
// It refuses everything that a tolerant reader would pass over in silence: unknown, misspelt and duplicate keys, a second
// document, oversized files, and aliases that grow when they are followed. It never touches a file, never fills in defaults
// and never writes YAML. The packages that own a configuration type call it, usually as Default, Decode, Validate.
package strictyaml

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

const (
	// MaxBytes is the largest document that Decode reads.
	MaxBytes = 1 << 20
	// MaxDepth is how deep mappings and sequences may nest, with aliases followed.
	MaxDepth = 32
	// MaxNodes is how many nodes a document may have, with aliases followed.
	MaxNodes = 100_000
)

// ErrTooLarge says that a document is over MaxBytes, MaxDepth or MaxNodes.
var ErrTooLarge = errors.New("document too large")

// Decode reads exactly one YAML document into v, which already holds the defaults. Every problem that it can tell is in
// the error, each with its line. v may be partly filled when Decode fails.
//
// A type below v may have a custom unmarshaler only if it is a scalar: on a struct it would switch strictness off below it.
func Decode(data []byte, v any) error {
	if len(data) > MaxBytes {
		return fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(data), MaxBytes)
	}
	doc, err := checkShape(data)
	if err != nil {
		return err
	}
	if err := wholeNumbers(doc, reflect.TypeOf(v)); err != nil {
		return err
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(v); err != nil {
		return readable(err)
	}
	return nil
}

// checkShape parses data without a target type, so that growth and second documents are refused before anything is filled.
func checkShape(data []byte) (*yaml.Node, error) {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, next yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil, errors.New("line 1: the document is empty")
	case err != nil:
		return nil, readable(err)
	}
	left := MaxNodes
	if err := measure(&doc, 0, &left); err != nil {
		return nil, err
	}
	switch err := dec.Decode(&next); {
	case errors.Is(err, io.EOF):
		return &doc, nil
	case err != nil:
		return nil, readable(err)
	}
	return nil, fmt.Errorf("line %d: a second document begins; only one is allowed", next.Line)
}

// measure walks n with aliases followed and takes every visited node off left, so its own work is bounded by left too.
func measure(n *yaml.Node, depth int, left *int) error {
	*left--
	if *left < 0 {
		return fmt.Errorf("line %d: %w: more than %d nodes with aliases followed", n.Line, ErrTooLarge, MaxNodes)
	}
	if depth > MaxDepth+1 { // the document itself is one level
		return fmt.Errorf("line %d: %w: nested deeper than %d", n.Line, ErrTooLarge, MaxDepth)
	}
	if n.Kind == yaml.AliasNode {
		return measure(n.Alias, depth+1, left)
	}
	for _, c := range n.Content {
		if err := measure(c, depth+1, left); err != nil {
			return err
		}
	}
	return nil
}

var unknownField = regexp.MustCompile(`field (.+) not found in type \S+`)

// readable turns the library's error into ours: no Go type names, one line for each problem.
func readable(err error) error {
	var typed *yaml.TypeError
	if !errors.As(err, &typed) {
		return errors.New(strings.TrimPrefix(err.Error(), "yaml: "))
	}
	problems := make([]error, 0, len(typed.Errors))
	for _, text := range typed.Errors {
		problems = append(problems, errors.New(unknownField.ReplaceAllString(text, `unknown key "$1"`)))
	}
	return errors.Join(problems...)
}
