package port_test

import (
	"errors"
	"net"
	"testing"

	"tourniquet.dev/tourniquet/dev/port"
)

func TestFreePortsDifferAndCanBeBound(t *testing.T) {
	ports, err := port.Free(20)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[int]bool{}
	for _, p := range ports {
		if seen[p] || p >= 32768 {
			t.Errorf("port %d was given twice or lies in the range of outgoing connections", p)
		}
		seen[p] = true
		if err := port.Check(p); err != nil {
			t.Errorf("port %d is not free: %v", p, err)
		}
	}
}

func TestTakenPortIsReported(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := port.Check(l.Addr().(*net.TCPAddr).Port); !errors.Is(err, port.ErrTaken) {
		t.Errorf("Check of a port in use = %v, want ErrTaken", err)
	}
}
