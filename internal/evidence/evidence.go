// Package evidence is the sealed list of what was gathered about an incident: content-addressed items with where each came
// from, when, and who collected it. Sealing fixes the list by its digest; nothing can be added, dropped or swapped after
// it. The bytes themselves stand in the store under their digests.
package evidence

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"tourniquet.dev/tourniquet/internal/canonical"
)

// MaxItems bounds a manifest.
const MaxItems = 2_000

// Kind says what an item is.
type Kind string

// The kinds.
const (
	Detection  Kind = "detection"  // a signed detection
	Facts      Kind = "facts"      // what the read-only role read of a system
	Assessment Kind = "assessment" // blast radius and exposure computed from the facts
	Plan       Kind = "plan"       // a ContainmentPlan that was offered or put on
	NodeState  Kind = "node-state" // what a node read of a pod's processes on a signed order
)

// Valid reports whether k is one of the kinds.
func (k Kind) Valid() bool {
	return slices.Contains([]Kind{Detection, Facts, Assessment, Plan, NodeState}, k)
}

// Item is one piece of evidence.
type Item struct {
	Digest string `json:"digest"`
	Kind   Kind   `json:"kind"`
	// Source says in a few words what it was taken from; Collector is the role that did.
	Source    string    `json:"source"`
	Collector string    `json:"collector"`
	At        time.Time `json:"at"` // when it was collected
}

// Manifest is the sealed list.
type Manifest struct {
	V          int       `json:"v"`
	IncidentID string    `json:"incident_id"`
	SealedAt   time.Time `json:"sealed_at"`
	Items      []Item    `json:"items"` // by time, then digest; each digest once
}

// Seal makes the manifest of items in any order; an item that stands twice is listed once, as it was first collected.
func Seal(incidentID string, items []Item, at time.Time) (*Manifest, error) {
	m := &Manifest{V: 1, IncidentID: incidentID, SealedAt: at.UTC().Truncate(time.Millisecond), Items: []Item{}}
	sorted := slices.Clone(items)
	for i := range sorted {
		sorted[i].At = sorted[i].At.UTC().Truncate(time.Millisecond)
	}
	slices.SortFunc(sorted, func(a, b Item) int { return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.Digest, b.Digest)) })
	seen := map[string]bool{}
	for _, it := range sorted {
		if !seen[it.Digest] {
			seen[it.Digest] = true
			m.Items = append(m.Items, it)
		}
	}
	if err := m.Validate(); err != nil {
		return nil, fmt.Errorf("seal evidence: %w", err)
	}
	return m, nil
}

// Validate reports every problem at once, each with its path.
func (m *Manifest) Validate() error {
	var errs []error
	if m.V != 1 || m.IncidentID == "" || m.SealedAt.IsZero() {
		errs = append(errs, errors.New("v, incident_id, sealed_at: version 1, an id and a time are needed"))
	}
	if len(m.Items) > MaxItems {
		errs = append(errs, fmt.Errorf("items: has %d entries, at most %d", len(m.Items), MaxItems))
	}
	for i, it := range m.Items {
		switch {
		case !canonical.ValidDigest(it.Digest):
			errs = append(errs, fmt.Errorf("items[%d].digest: %.80q is not a digest", i, it.Digest))
		case !it.Kind.Valid():
			errs = append(errs, fmt.Errorf("items[%d].kind: %.40q is not a kind of evidence", i, it.Kind))
		case it.Source == "" || it.Collector == "" || it.At.IsZero():
			errs = append(errs, fmt.Errorf("items[%d]: source, collector and at are needed", i))
		case it.At.After(m.SealedAt):
			errs = append(errs, fmt.Errorf("items[%d].at: is after the seal", i))
		}
	}
	return errors.Join(errs...)
}
