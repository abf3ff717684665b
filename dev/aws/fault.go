package aws

import "fmt"

// A FaultKind is one way in which a call can go wrong.
type FaultKind string

// The kinds of fault.
const (
	Throttle  FaultKind = "throttle"   // refused with Throttling, not applied
	Broken    FaultKind = "error"      // status 500, not applied
	Reset     FaultKind = "reset"      // connection reset, not applied
	LostReply FaultKind = "lost-reply" // applied, then the connection is reset
	Slow      FaultKind = "slow"       // applied, answered late
)

// Valid reports whether k is one of the kinds.
func (k FaultKind) Valid() bool {
	switch k {
	case Throttle, Broken, Reset, LostReply, Slow:
		return true
	}
	return false
}

// A Fault befalls the next calls that match it.
type Fault struct {
	Kind              FaultKind `json:"kind"`
	Service           string    `json:"service,omitempty"`     // empty: any
	Action            string    `json:"action,omitempty"`      // empty: any
	AccessKeyID       string    `json:"accessKeyId,omitempty"` // empty: anybody's
	Times             int       `json:"times"`                 // how many calls; below 0: all, until cleared
	AfterBytes        int       `json:"afterBytes,omitempty"`  // reset and lost-reply: so much of the answer still arrives
	DelayMilliseconds int       `json:"delayMilliseconds,omitempty"`
}

// maxFaults bounds the list of faults.
const maxFaults = 100

// Inject arms a fault. Faults are tried in the order of arming; the first that matches befalls the call.
func (s *Server) Inject(f Fault) error {
	switch {
	case !f.Kind.Valid():
		return fmt.Errorf("inject fault: unknown kind %q", f.Kind)
	case f.Times == 0:
		return fmt.Errorf("inject fault %s: times is 0", f.Kind)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.faults) >= maxFaults {
		return fmt.Errorf("inject fault %s: %d faults are armed already", f.Kind, maxFaults)
	}
	s.faults = append(s.faults, &f)
	return nil
}

// ClearFaults disarms all faults.
func (s *Server) ClearFaults() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = nil
}

// nextFault takes the fault that befalls this call, if any.
func (s *Server) nextFault(c *call) *Fault {
	signed, _ := parseSignature(c.request.Header.Get("Authorization"))
	for i, f := range s.faults {
		if f.Service != "" && f.Service != c.service || f.Action != "" && f.Action != c.action || f.AccessKeyID != "" && f.AccessKeyID != signed.keyID {
			continue
		}
		taken := *f
		if f.Times--; f.Times == 0 {
			s.faults = append(s.faults[:i:i], s.faults[i+1:]...)
		}
		return &taken
	}
	return nil
}

// before is the error that stands in for the call, for a fault that keeps it from being applied.
func (f *Fault) before() *failure {
	if f == nil {
		return nil
	}
	switch f.Kind {
	case Throttle:
		return errThrottled
	case Broken, Reset:
		return errInternal
	}
	return nil
}

// cuts reports whether the connection breaks before the whole answer is out.
func (f *Fault) cuts() bool { return f != nil && (f.Kind == Reset || f.Kind == LostReply) }
