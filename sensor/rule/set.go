package rule

import (
	"container/list"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"tourniquet.dev/tourniquet/internal/detection"
)

const (
	// flagFor is how long a process tree stays flagged after it had a credential in hand.
	flagFor = 10 * time.Minute
	// maxFlags bounds the flagged trees; the one flagged longest ago goes first.
	maxFlags = 8192
	// unsure is taken off the confidence where the container's first process was never seen.
	unsure = 30
	// maxProcesses bounds the ancestry of a detection.
	maxProcesses = 16
)

// Set is a set of rules with what it remembers of process trees. It is safe for concurrent use.
type Set struct {
	byKind map[Kind][]*Rule

	mu    sync.Mutex
	flags map[Tree]*list.Element
	order *list.List // of flag, the oldest in front
}

type flag struct {
	tree  Tree
	since uint64 // CLOCK_BOOTTIME
}

// New returns the set of these rules, which came from Decode.
func New(rules []*Rule) (*Set, error) {
	s := &Set{byKind: map[Kind][]*Rule{}, flags: map[Tree]*list.Element{}, order: list.New()}
	seen := map[string]bool{}
	for _, r := range rules {
		if seen[r.Rule] {
			return nil, fmt.Errorf("rule %q stands twice", r.Rule)
		}
		if r.program == nil {
			return nil, fmt.Errorf("rule %q was not compiled", r.Rule)
		}
		seen[r.Rule] = true
		for _, k := range r.On {
			s.byKind[k] = append(s.byKind[k], r)
		}
	}
	if len(seen) == 0 {
		return nil, errors.New("no rules")
	}
	return s, nil
}

// Match returns a detection for each rule that holds. It fills what the event tells; who reports it, its id and the
// identities are the caller's. An error of one rule does not keep the others from matching.
func (s *Set) Match(e Event, who Subject) ([]*detection.Detection, error) {
	rules := s.byKind[e.Kind]
	if len(rules) == 0 {
		return nil, nil
	}
	tree := who.Tree()
	f := facts{event: e, subject: who, flagged: s.flagged(tree, e.KernelNS)}
	var found []*detection.Detection
	var errs []error
	for _, r := range rules {
		yes, err := r.holds(f)
		if err != nil {
			errs = append(errs, err)
		}
		if !yes {
			continue
		}
		if r.Credential {
			s.flag(tree, e.KernelNS)
		}
		found = append(found, r.detection(e, who))
	}
	return found, errors.Join(errs...)
}

func (s *Set) flagged(t Tree, now uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	el, ok := s.flags[t]
	if !ok {
		return false
	}
	since := el.Value.(flag).since
	return now < since || time.Duration(now-since) <= flagFor
}

func (s *Set) flag(t Tree, now uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if el, ok := s.flags[t]; ok {
		s.order.Remove(el)
	}
	s.flags[t] = s.order.PushBack(flag{t, now})
	for s.order.Len() > maxFlags {
		oldest := s.order.Remove(s.order.Front()).(flag)
		delete(s.flags, oldest.tree)
	}
}

func (r *Rule) detection(e Event, who Subject) *detection.Detection {
	workload := who.Workload
	d := &detection.Detection{
		V: detection.Version, Time: e.Time.UTC().Truncate(time.Millisecond), KernelNS: e.KernelNS, SeenNS: e.SeenNS,
		Rule: r.Rule, Title: r.Title, Severity: r.Severity, Confidence: r.Confidence,
		Workload: &workload, Evidence: map[string]string{},
	}
	if who.Init.PID == 0 {
		d.Confidence = max(d.Confidence-unsure, 1)
	}
	for _, a := range r.Attacks {
		d.Attacks = append(d.Attacks, detection.Attack{TechniqueID: a.Technique, TacticID: a.Tactic, Version: AttackVersion})
	}
	for _, p := range append([]Process{who.Process}, who.Ancestors...) {
		if len(d.Processes) == maxProcesses {
			break
		}
		d.Processes = append(d.Processes, detection.Process{PID: p.PID, PPID: p.PPID, UID: p.UID, Comm: p.Comm, Exe: p.Exe, Args: append([]string(nil), p.Args...)})
	}
	if e.Path != "" {
		d.Evidence["path"] = e.Path
	}
	if e.Unresolved {
		d.Evidence["path_is"] = "what the caller named, not resolved"
	}
	if e.Addr.IsValid() {
		d.Evidence["address"] = e.address()
		d.Evidence["port"] = strconv.Itoa(int(e.Port))
	}
	if who.Init.Exe != "" {
		d.Evidence["main_program"] = who.Init.Exe
	}
	return d
}
