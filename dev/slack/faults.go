package slack

import (
	"fmt"
	"slices"
)

// A FaultKind is one way to misbehave.
type FaultKind string

// Faults of the Web API; Method names the method, empty means all of them.
const (
	FaultRateLimited  FaultKind = "rate-limited"      // 429 with Retry-After
	FaultOnePerSecond FaultKind = "one-per-second"    // 429 for the second post to a channel within a second
	FaultServerError  FaultKind = "server-error"      // 503 with an HTML body
	FaultRefused      FaultKind = "refused"           // 200 with ok:false and Error
	FaultLost         FaultKind = "nothing-posted"    // 200 with ok:true, and nothing done
	FaultNoAnswer     FaultKind = "done-but-no-reply" // done, and the connection cut before the answer
)

// Faults of callbacks; Method names the callback's type (block_actions, view_submission, view_closed), empty means all.
const (
	FaultDropAck       FaultKind = "drop-ack"       // delivered, but the answer counts as missed
	FaultTwice         FaultKind = "deliver-twice"  // the same bytes and signature again
	FaultLateTimestamp FaultKind = "late-timestamp" // well signed, six minutes old
	FaultBadSignature  FaultKind = "bad-signature"
	FaultWrongApp      FaultKind = "wrong-app"
	FaultWrongTeam     FaultKind = "wrong-team"
	FaultWrongChannel  FaultKind = "wrong-channel"
	FaultWrongTS       FaultKind = "wrong-ts"
)

// FaultKinds lists every kind, those of the Web API first.
func FaultKinds() []FaultKind {
	return append(slices.Clone(apiFaults), callbackFaults...)
}

var (
	apiFaults = []FaultKind{FaultRateLimited, FaultOnePerSecond, FaultServerError, FaultRefused, FaultLost, FaultNoAnswer}

	callbackFaults = []FaultKind{FaultDropAck, FaultTwice, FaultLateTimestamp, FaultBadSignature, FaultWrongApp, FaultWrongTeam,
		FaultWrongChannel, FaultWrongTS}
)

// Valid reports whether the kind exists.
func (k FaultKind) Valid() bool {
	return slices.Contains(apiFaults, k) || slices.Contains(callbackFaults, k)
}

// A Fault makes the stand-in misbehave until it was used Times times, or until ClearFaults where Times is 0.
type Fault struct {
	Kind              FaultKind `json:"kind"`
	Method            string    `json:"method,omitempty"`
	Times             int       `json:"times,omitempty"`
	RetryAfterSeconds int       `json:"retry_after_seconds,omitempty"` // of rate-limited; 1 unless set
	Error             string    `json:"error,omitempty"`               // of refused; internal_error unless set
}

// AddFault switches a fault on.
func (s *Server) AddFault(f Fault) error {
	if !f.Kind.Valid() || f.Times < 0 || f.RetryAfterSeconds < 0 {
		return fmt.Errorf("add fault %q: unknown kind or negative number", f.Kind)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.faults = append(s.state.faults, &f)
	s.changed()
	return nil
}

// ClearFaults switches all faults off.
func (s *Server) ClearFaults() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.faults = nil
	s.changed()
}

// takeFaults uses up the faults of these kinds that are on for method. The caller holds mu.
func (s *Server) takeFaults(method string, kinds ...FaultKind) []Fault {
	var taken []Fault
	s.state.faults = slices.DeleteFunc(s.state.faults, func(f *Fault) bool {
		if !slices.Contains(kinds, f.Kind) || f.Method != "" && f.Method != method {
			return false
		}
		taken = append(taken, *f)
		if f.Times == 0 {
			return false
		}
		f.Times--
		return f.Times == 0
	})
	return taken
}
