package probe

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"syscall"
	"time"

	"tourniquet.dev/tourniquet/bpf"
)

// Proof says whether a hook has been seen at work: that it was attached without an error does not say so.
type Proof struct {
	bpf.HookStatus
	Fired bool
}

const (
	proofWait = time.Second // an act that is not seen by then will not be
	proofLook = 5 * time.Millisecond
)

// acted are the hooks whose watched act Prove does; the others fire with the node's own life.
var acted = []bpf.Hook{bpf.HookFork, bpf.HookExit, bpf.HookOpen, bpf.HookConnect}

// Acted says whether Prove does the watched act of a hook.
func Acted(hook bpf.Hook) bool { return slices.Contains(acted, hook) }

// Prove does what each hook watches, as far as that is harmless, and says which hooks saw it. A hook that did not is
// replaced by its next weaker tier, which is tried in turn. An exec and a new cgroup are not made for this: of those two
// it says whether they have fired since New. Safe to call again at any time.
func (r *Reader) Prove() ([]Proof, error) {
	r.proofMu.Lock()
	defer r.proofMu.Unlock()
	for {
		fired, err := r.act()
		if err != nil {
			return nil, err
		}
		var proofs []Proof
		lowered := false
		for _, s := range r.Status() {
			proof := Proof{HookStatus: s, Fired: s.Err == nil && fired[string(s.Hook)]}
			proofs = append(proofs, proof)
			if s.Err == nil && !proof.Fired && slices.Contains(acted, s.Hook) {
				reason := fmt.Errorf("hook %s: %s is attached and did not see the sensor's own act", s.Hook, s.Tier)
				lowered = r.programs.Lower(s.Hook, reason) == nil || lowered // a hook on its last tier is told of by Fired
			}
		}
		if !lowered {
			return proofs, nil
		}
	}
}

// act does the acts and waits until all hooks that could see them have, or will not.
func (r *Reader) act() (map[string]bool, error) {
	before, err := r.seen()
	if err != nil {
		return nil, err
	}
	if err := actForHooks(); err != nil {
		return nil, fmt.Errorf("act for the hooks to see: %w", err)
	}
	for deadline := time.Now().Add(proofWait); ; time.Sleep(proofLook) {
		now, err := r.seen()
		if err != nil {
			return nil, err
		}
		fired, all := map[string]bool{}, true
		for kind, n := range now {
			fired[kind] = n > before[kind] || (n > 0 && !slices.Contains(acted, bpf.Hook(kind)))
		}
		for _, s := range r.Status() {
			all = all && (s.Err != nil || fired[string(s.Hook)] || !slices.Contains(acted, s.Hook))
		}
		if all || time.Now().After(deadline) {
			return fired, nil
		}
	}
}

func (r *Reader) seen() (map[string]uint64, error) {
	counters, err := r.programs.Counters()
	if err != nil {
		return nil, err
	}
	seen := map[string]uint64{}
	for _, c := range counters {
		seen[c.Kind.String()] = c.Seen
	}
	return seen, nil
}

// actForHooks opens a file, connects a datagram socket to this machine without sending, and starts a program that does
// not exist, for which a process begins and ends.
func actForHooks() error {
	file, err := os.Open("/proc/self/stat")
	if err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	conn, err := (&net.Dialer{}).DialContext(context.Background(), "udp", "127.0.0.1:9")
	if err != nil {
		return err
	}
	if err := conn.Close(); err != nil {
		return err
	}
	if _, err := syscall.ForkExec("/proc/self/no-such-program", []string{"no-such-program"}, nil); err == nil {
		return fmt.Errorf("a program that does not exist was started")
	}
	return nil
}
