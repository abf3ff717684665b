package rule

import (
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"
	"path"
	"slices"
	"strings"
	"time"
)

func base(p string) string { return path.Base(p) }
func dir(p string) string  { return path.Dir(p) }

// Case is a test beside the rules: what happens, and which rules hold at the end of it.
type Case struct {
	Case   string   `yaml:"case"`
	Before []Act    `yaml:"before,omitempty"` // in the same container; what holds there is not asked
	Event  Act      `yaml:"event"`
	Want   []string `yaml:"want"`
}

// Act is one event of a case. Its process is By, a path, below Under, the nearest first, below the container's main
// program, which is Main or else /app/server; "main" stands for that one itself.
type Act struct {
	Kind       Kind          `yaml:"kind"`
	By         string        `yaml:"by"`
	Comm       string        `yaml:"comm,omitempty"`
	UID        uint32        `yaml:"uid,omitempty"`
	Under      []string      `yaml:"under,omitempty"`
	Main       string        `yaml:"main,omitempty"`
	Entered    bool          `yaml:"entered,omitempty"` // from outside: not below the main program
	At         time.Duration `yaml:"at,omitempty"`      // since the case began
	Path       string        `yaml:"path,omitempty"`    // of an exec: By, if empty
	Write      bool          `yaml:"write,omitempty"`   // else a file is opened to read
	Failed     bool          `yaml:"failed,omitempty"`
	Unresolved bool          `yaml:"unresolved,omitempty"`
	Addr       string        `yaml:"addr,omitempty"`
	Port       uint16        `yaml:"port,omitempty"`
	Args       []string      `yaml:"args,omitempty"`
	Upper      bool          `yaml:"upper,omitempty"`
	Unlinked   bool          `yaml:"unlinked,omitempty"`
	Network    bool          `yaml:"network,omitempty"`
	Call       string        `yaml:"call,omitempty"`
	Flags      uint64        `yaml:"flags,omitempty"`
	Gained     bool          `yaml:"gained,omitempty"`
	Target     string        `yaml:"target,omitempty"`
	Outside    bool          `yaml:"target_outside,omitempty"` // the target is not of the container
	Query      string        `yaml:"query,omitempty"`
}

const defaultMain = "/app/server"

// process names the process at the end of a chain of programs, so that equal chains are one process.
func process(chain ...string) Process {
	h := fnv.New32a()
	fmt.Fprint(h, strings.Join(chain, "\n"))
	exe := chain[len(chain)-1]
	return Process{PID: h.Sum32() | 1, StartNS: 1, Comm: base(exe), Exe: exe}
}

// subject says who acts.
func (a Act) subject() Subject {
	name := a.Main
	if name == "" {
		name = defaultMain
	}
	var s Subject
	s.Init = process(name)
	chain := []string{name}
	if a.Entered {
		chain = []string{"entered"}
	} else {
		s.Ancestors = []Process{s.Init}
	}
	if a.By == "main" {
		s.Process, s.Ancestors = s.Init, nil
	} else {
		for _, exe := range slices.Backward(a.Under) {
			chain = append(chain, exe)
			s.Ancestors = append([]Process{process(chain...)}, s.Ancestors...)
		}
		s.Process = process(append(chain, a.By)...)
	}
	if a.Comm != "" {
		s.Process.Comm = a.Comm
	}
	s.Process.UID, s.Process.Args = a.UID, a.Args
	return s
}

func (a Act) event() (Event, error) {
	e := Event{Kind: a.Kind, KernelNS: uint64(time.Hour + a.At), Path: a.Path, Failed: a.Failed, Unresolved: a.Unresolved, Port: a.Port, //nolint:gosec // since boot
		Upper: a.Upper, Unlinked: a.Unlinked, Network: a.Network, Call: a.Call, Flags: a.Flags, Gained: a.Gained, TargetName: a.Target,
		TargetSameContainer: a.Target != "" && !a.Outside, Query: a.Query}
	if !a.Kind.Valid() || a.By == "" {
		return e, errors.New("an event has a kind and a process (by)")
	}
	if a.Kind == Open {
		e.Read, e.Write = !a.Write, a.Write
	}
	if a.Kind == Exec && e.Path == "" {
		e.Path = a.By
	}
	if a.Addr != "" {
		addr, err := netip.ParseAddr(a.Addr)
		if err != nil {
			return e, fmt.Errorf("address: %w", err)
		}
		e.Addr = addr
	}
	return e, nil
}

// Outcome is what became of a case.
type Outcome struct {
	Case string   `json:"case"`
	Want []string `json:"want"`
	Got  []string `json:"got"`
	Err  string   `json:"error,omitempty"`
	OK   bool     `json:"ok"`
}

// Run plays a case on rules, each as if its mode were detect.
func (c Case) Run(rules []*Rule) Outcome {
	o := Outcome{Case: c.Case, Want: slices.Sorted(slices.Values(c.Want)), Got: []string{}}
	if err := c.run(rules, &o); err != nil {
		o.Err = err.Error()
		return o
	}
	o.OK = slices.Equal(o.Want, o.Got)
	return o
}

func (c Case) run(rules []*Rule, o *Outcome) error {
	modes := map[string]Mode{}
	for _, r := range rules {
		modes[r.Rule] = Detect
	}
	s, err := New(rules)
	if err != nil {
		return err
	}
	if err := s.Replace(rules, modes); err != nil {
		return err
	}
	for i, a := range append(slices.Clone(c.Before), c.Event) {
		e, err := a.event()
		if err != nil {
			return err
		}
		found, err := s.Match(e, a.subject())
		if err != nil {
			return err
		}
		if len(found) > 0 && !s.Watch().Tells(e) {
			return fmt.Errorf("the kernel would not tell of event %d: no rule watches it", i)
		}
		if i < len(c.Before) {
			continue
		}
		for _, d := range found {
			o.Got = append(o.Got, d.Rule)
		}
	}
	slices.Sort(o.Got)
	return nil
}
