// Package port finds free TCP ports on loopback for the servers of the embedded stack. It holds none: a caller that
// cannot bind the port it was given starts over. It is called by the packages cluster and temporal and by their tests.
package port

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"syscall"
)

// Ports are drawn from below the kernel's range for outgoing connections (32768 and up), so that no client on this
// machine is given one between our look and the server's bind. Temporal also stores its ports in 16 signed bits.
const lowest, highest = 20000, 32767

// ErrTaken says that another process listens on a port that was asked for by number.
var ErrTaken = errors.New("port is taken")

// Free returns n different ports on which nothing listened a moment ago.
func Free(n int) ([]int, error) {
	held := make(map[int]net.Listener, n)
	defer func() {
		for _, l := range held {
			_ = l.Close()
		}
	}()
	ports := make([]int, 0, n)
	for tries := 0; len(ports) < n; tries++ {
		if tries > 1000+n {
			return nil, fmt.Errorf("find %d free ports between %d and %d: %w", n, lowest, highest, ErrTaken)
		}
		p := lowest + rand.IntN(highest-lowest+1)
		if held[p] != nil {
			continue
		}
		l, err := net.Listen("tcp", Addr(p))
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("find a free port: %w", err)
		}
		held[p] = l
		ports = append(ports, p)
	}
	return ports, nil
}

// Check returns ErrTaken, wrapped, when something listens on the port.
func Check(p int) error {
	l, err := net.Listen("tcp", Addr(p))
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%s: %w", Addr(p), ErrTaken)
	}
	if err != nil {
		return fmt.Errorf("probe %s: %w", Addr(p), err)
	}
	return l.Close()
}

// Addr is the loopback address of a port.
func Addr(p int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(p)) }
