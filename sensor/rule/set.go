package rule

import (
	"container/list"
	"errors"
	"fmt"
	"path"
	"strconv"
	"sync"
	"sync/atomic"
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
	table    atomic.Pointer[table]
	observed atomic.Uint64

	mu     sync.Mutex
	flags  map[Tree]*list.Element
	order  *list.List // of flag, the oldest in front
	bursts bursts
}

// table is what Replace exchanges as one.
type table struct {
	byKind map[Kind][]*Rule // but those that are off
	all    []*Rule
}

type flag struct {
	tree  Tree
	since uint64 // CLOCK_BOOTTIME
}

// New returns the set of these rules, which came from Compile or Decode.
func New(rules []*Rule) (*Set, error) {
	s := &Set{flags: map[Tree]*list.Element{}, order: list.New(), bursts: newBursts()}
	return s, s.Replace(rules, nil)
}

// Replace exchanges the rules while others match; modes win over the rules' own. What is remembered of process trees
// stays. On an error nothing has changed.
func (s *Set) Replace(rules []*Rule, modes map[string]Mode) error {
	t := &table{byKind: map[Kind][]*Rule{}}
	seen := map[string]bool{}
	for _, given := range rules {
		r := *given
		if seen[r.Rule] {
			return fmt.Errorf("rule %q stands twice", r.Rule)
		}
		if r.program == nil {
			return fmt.Errorf("rule %q was not compiled", r.Rule)
		}
		seen[r.Rule] = true
		if m, ok := modes[r.Rule]; ok {
			r.Mode = m
		}
		t.all = append(t.all, &r)
		if r.Mode == Off {
			continue
		}
		for _, k := range r.On {
			t.byKind[k] = append(t.byKind[k], &r)
		}
	}
	if len(seen) == 0 {
		return errors.New("no rules")
	}
	for name, m := range modes {
		if !seen[name] {
			return fmt.Errorf("mode of %q: no such rule", name)
		}
		if !m.Valid() {
			return fmt.Errorf("mode of %q: %q is not off, observe or detect", name, m)
		}
	}
	s.table.Store(t)
	return nil
}

// Rules returns the rules with the modes in which they run. They are not to be changed.
func (s *Set) Rules() []*Rule { return s.table.Load().all }

// Observed counts how often a rule in the mode observe held.
func (s *Set) Observed() uint64 { return s.observed.Load() }

// Match returns a detection for each rule that holds. It fills what the event tells; who reports it, its id and the
// identities are the caller's. An error of one rule does not keep the others from matching.
func (s *Set) Match(e Event, who Subject) ([]*detection.Detection, error) {
	rules := s.table.Load().byKind[e.Kind]
	if len(rules) == 0 {
		return nil, nil
	}
	tree := who.Tree()
	f := facts{event: e, subject: who, flagged: s.flagged(tree, e.KernelNS)}
	var found []*detection.Detection
	var errs []error
	for _, r := range rules {
		if e.Kind == Open && !r.watch.opens(e.Path) {
			continue
		}
		yes, err := r.holds(f)
		if err != nil {
			errs = append(errs, err)
		}
		if !yes || (r.Burst != nil && !s.burst(r, tree, path.Base(e.Path), e.KernelNS)) {
			continue
		}
		if r.Credential {
			s.flag(tree, e.KernelNS)
		}
		if r.Mode == Observe {
			s.observed.Add(1)
			continue
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
	for key, text := range map[string]string{"call": e.Call, "target": e.TargetName, "query": e.Query} {
		if text != "" {
			d.Evidence[key] = text
		}
	}
	if who.Init.Exe != "" {
		d.Evidence["main_program"] = who.Init.Exe
	}
	return d
}
