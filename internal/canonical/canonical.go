// Package canonical gives every JSON document exactly one spelling, so that its digest can stand for it.
//
// The spelling is RFC 8785 (JSON Canonicalization Scheme). The package is stricter than that on what it takes in: duplicate
// keys, unpaired surrogates, invalid UTF-8 and numbers that a float64 cannot hold exactly are errors, because each of them
// would let two different documents share one digest. It never guesses, never repairs and keeps no state. Plans, envelopes,
// manifests and receipts are written and read through it.
package canonical

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// MaxDepth is how deep objects and arrays may nest.
const MaxDepth = 32

// DigestPrefix begins every digest that this package makes.
const DigestPrefix = "sha256:"

var (
	// ErrTooLarge says that a document is over the size that the caller allows.
	ErrTooLarge = errors.New("document too large")
	// ErrTooDeep says that objects and arrays nest deeper than MaxDepth.
	ErrTooDeep = fmt.Errorf("nested deeper than %d", MaxDepth)
)

// Marshal returns the canonical JSON of v. It reads v as encoding/json does, but refuses strings that are not UTF-8 and
// numbers beyond 2^53 where encoding/json would change them.
func Marshal(v any) ([]byte, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("marshal: %w", err)
	}
	if err := checkStrings(v); err != nil {
		return nil, fmt.Errorf("marshal: %w", err)
	}
	out, err := Canonicalize(raw)
	if err != nil {
		return nil, fmt.Errorf("marshal: %w", err)
	}
	return out, nil
}

// Canonicalize returns the canonical spelling of one JSON document.
func Canonicalize(data []byte) ([]byte, error) {
	root, err := parse(data)
	if err != nil {
		return nil, err
	}
	return root.appendTo(make([]byte, 0, len(data))), nil
}

// Digest returns DigestOf the canonical JSON of v.
func Digest(v any) (string, error) {
	data, err := Marshal(v)
	if err != nil {
		return "", err
	}
	return DigestOf(data), nil
}

// DigestOf returns "sha256:" and the lower-case hex SHA-256 of data as it is.
func DigestOf(data []byte) string {
	sum := sha256.Sum256(data)
	return DigestPrefix + hex.EncodeToString(sum[:])
}

// ValidDigest says whether s is spelt as DigestOf spells it.
func ValidDigest(s string) bool {
	digits, ok := strings.CutPrefix(s, DigestPrefix)
	return ok && len(digits) == 2*sha256.Size && strings.Trim(digits, "0123456789abcdef") == ""
}
