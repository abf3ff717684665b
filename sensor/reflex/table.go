package reflex

import (
	"fmt"
	"slices"
	"time"

	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/detection"
	"tourniquet.dev/tourniquet/internal/playbook"
	"tourniquet.dev/tourniquet/internal/trust"
)

// line is one reflex of a signed playbook, within the trust file's ceiling.
type line struct {
	playbook.Reflex
	book *playbook.Playbook
	name string // of the playbook with its version, for the evidence
}

func (l line) takes(d *detection.Detection) bool {
	return d.Confidence >= l.Confidence && (len(l.Rules) == 0 || slices.Contains(l.Rules, d.Rule)) &&
		(len(l.Severity) == 0 || slices.Contains(l.Severity, d.Severity)) && l.book.Takes(d) &&
		(len(l.Techniques) == 0 || slices.ContainsFunc(d.Attacks, func(a detection.Attack) bool { return slices.Contains(l.Techniques, a.TechniqueID) }))
}

// compile lays out what the playbooks allow on a node, the mildest deed first, and says of each reflex that is left out why.
// Of each playbook only the highest version counts, and none that is lower than one seen before; seen is brought up to date.
func compile(c trust.ReflexCeiling, books []authz.Book, seen map[string]int) (lines []line, left []error) {
	newest := map[string]authz.Book{}
	for _, b := range books {
		name, version := b.Playbook.Playbook, b.Playbook.Version
		if version < seen[name] {
			if len(b.Playbook.Reflex) > 0 {
				left = append(left, fmt.Errorf("playbook %s v%d: rolled back, version %d was seen", name, version, seen[name]))
			}
			continue
		}
		seen[name], newest[name] = version, b
	}
	for name, b := range newest {
		if b.Playbook.Version < seen[name] {
			continue
		}
		for i, r := range b.Playbook.Reflex {
			if !slices.Contains(c.Allow, r.Do) {
				left = append(left, fmt.Errorf("playbook %s v%d: reflex[%d]: the trust file allows no %s", name, b.Playbook.Version, i, r.Do))
				continue
			}
			r.For = min(r.For, c.Max, trust.LongestReflex)
			lines = append(lines, line{Reflex: r, book: b.Playbook, name: fmt.Sprintf("%s v%d", name, b.Playbook.Version)})
		}
	}
	slices.SortStableFunc(lines, func(a, b line) int {
		return slices.Index(trust.Deeds(), a.Do) - slices.Index(trust.Deeds(), b.Do)
	})
	return lines, left
}

// deeds are what all lines that take a detection ask for.
type deeds struct {
	last  map[trust.Deed]time.Duration
	names []string
}

func choose(lines []line, d *detection.Detection) (out deeds) {
	for _, l := range lines {
		if !l.takes(d) {
			continue
		}
		if out.last == nil {
			out.last = map[trust.Deed]time.Duration{}
		}
		out.last[l.Do] = max(out.last[l.Do], l.For)
		if !slices.Contains(out.names, l.name) {
			out.names = append(out.names, l.name)
		}
	}
	return out
}
