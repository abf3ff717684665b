package probe

import (
	"context"
	"fmt"
	"net"
	"os"
	"syscall"

	"tourniquet.dev/tourniquet/bpf"
)

// Proof says whether a hook has been seen at work: that it was attached without an error does not say so.
type Proof struct {
	bpf.HookStatus
	Fired bool
}

// Prove does what each hook watches, as far as that is harmless, and says which hooks have fired since New. An exec and a
// new cgroup are not made for this: those two fire with the node's own life.
func (r *Reader) Prove() ([]Proof, error) {
	if err := actForHooks(); err != nil {
		return nil, fmt.Errorf("act for the hooks to see: %w", err)
	}
	counters, err := r.programs.Counters()
	if err != nil {
		return nil, err
	}
	fired := map[string]bool{}
	for _, c := range counters {
		fired[c.Kind.String()] = c.Seen > 0
	}
	var proofs []Proof
	for _, s := range r.Status() {
		proofs = append(proofs, Proof{HookStatus: s, Fired: fired[string(s.Hook)]})
	}
	return proofs, nil
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
