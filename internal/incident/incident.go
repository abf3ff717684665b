// Package incident names incidents and the states they pass through, in the words of NIST SP 800-61r3. The workflow
// keeps an incident's state; this package only says what a state is and how an incident is named.
package incident

import (
	"crypto/sha256"
	"encoding/base32"
	"regexp"
	"strings"
)

// State is where an incident stands.
type State string

// The states, in their usual order.
const (
	Triaged     State = "triaged"
	Prioritized State = "prioritized"
	Escalated   State = "escalated"
	Contained   State = "contained"
	Eradicated  State = "eradicated"
	Recovered   State = "recovered"
	Closed      State = "closed"
)

// Valid reports whether s is one of the known states.
func (s State) Valid() bool {
	switch s {
	case Triaged, Prioritized, Escalated, Contained, Eradicated, Recovered, Closed:
		return true
	}
	return false
}

var idForm = regexp.MustCompile(`^i[a-z2-7]{12}$`)

// ValidID reports whether s has the form of an incident id.
func ValidID(s string) bool { return idForm.MatchString(s) }

// ID is the incident's id: short, safe as a Kubernetes label, and new for each opening. It follows from the
// correlation key and the digest of the signed detection that opened it, so whoever holds that detection can
// recompute it: an enforcer refuses a plan for an incident that no signed detection opened.
func ID(correlationKey, openingDigest string) string {
	sum := sha256.Sum256([]byte("tourniquet incident v1\x00" + correlationKey + "\x00" + openingDigest))
	return "i" + strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:]))[:12]
}
