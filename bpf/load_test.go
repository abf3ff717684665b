package bpf_test

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf/ringbuf"

	"tourniquet.dev/tourniquet/bpf"
	"tourniquet.dev/tourniquet/internal/sys/needs"
)

func kernel(t testing.TB) string {
	needs.Root(t)
	needs.BTF(t)
	needs.Kernel(t, needs.Bpf)
	needs.Kernel(t, needs.RingBuffer)
	needs.Kernel(t, needs.Tracepoints)
	needs.Kernel(t, needs.CgroupAddr)
	return needs.CgroupV2(t)
}

func load(t *testing.T, o bpf.Options) *bpf.Programs {
	t.Helper()
	o.CgroupRoot = kernel(t)
	o.SkipTiers = []bpf.Tier{bpf.TierLSM} // may attach and never fire: sensor/probe finds that out, and tests it
	p, err := bpf.Load(o)
	if err != nil {
		t.Fatalf("%+v", err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// rare has the kinds that this test causes no event of; sensor/probe does.
var rare = map[bpf.Kind]bool{bpf.KindUring: true, bpf.KindCall: true, bpf.KindCred: true, bpf.KindUnix: true, bpf.KindDNS: true}

func TestEveryHookIsAttachedAndFires(t *testing.T) {
	p := load(t, bpf.Options{Hooks: bpf.Hooks()})
	if err := p.Configure(bpf.Config{WatchAll: true, MaxArgs: 1024, Datagrams: true, FailedOpens: true}); err != nil {
		t.Fatal(err)
	}
	if err := p.MatchAddress(netip.MustParseAddr("127.0.0.1"), 1); err != nil {
		t.Fatal(err)
	}
	if err := p.Attach(); err != nil {
		t.Fatal(err)
	}
	for _, s := range p.Status() {
		if s.Err != nil {
			t.Errorf("hook %s: %+v", s.Hook, s.Err)
		}
	}
	if err := exec.Command("/proc/self/exe", "-test.run=^$").Run(); err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("udp", "127.0.0.1:9")
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	cgroup, err := os.MkdirTemp(needs.CgroupV2(t), "tourniquet-test-*")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(cgroup); err != nil {
		t.Fatal(err)
	}
	counters, err := p.Counters()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range counters {
		t.Logf("%+v", c)
		if !rare[c.Kind] && c.Seen == 0 {
			t.Errorf("%s never fired", c.Kind)
		}
	}
}

// No reader empties the tiny rings, so most records are dropped: the account must still be exact.
func TestEverySeenEventIsSubmittedOrDroppedOrFiltered(t *testing.T) {
	p := load(t, bpf.Options{Hooks: bpf.Hooks(), CriticalBytes: 4096, TelemetryBytes: 4096})
	if err := p.MatchCalls(map[bpf.Call]uint32{bpf.CallChroot: 1, bpf.CallSetID: 1, bpf.CallConnect: 1}); err != nil {
		t.Fatal(err)
	}
	if err := p.Configure(bpf.Config{WatchAll: true, MaxArgs: 4096, Rate: 1, Burst: 50}); err != nil {
		t.Fatal(err)
	}
	if err := p.MatchName(bpf.NameFile, "watched", 1); err != nil {
		t.Fatal(err)
	}
	if err := p.Attach(); err != nil {
		t.Fatal(err)
	}
	watched := filepath.Join(t.TempDir(), "watched")
	if err := os.WriteFile(watched, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		if err := exec.Command("/proc/self/exe", "-test.run=^$").Run(); err != nil {
			t.Fatal(err)
		}
		file, err := os.Open(watched)
		if err != nil {
			t.Fatal(err)
		}
		file.Close()
		conn, err := net.Dial("udp", "127.0.0.1:53")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write(append(make([]byte, 5), 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1)); err != nil && !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatal(err)
		}
		conn.Close()
		if err := syscall.Chroot("/no/such"); err == nil {
			t.Fatal("changed root to nowhere")
		}
	}
	if err := p.Detach(); err != nil {
		t.Fatal(err)
	}
	var submitted, limited uint64
	dropped := map[bpf.Class]bool{}
	for _, c := range settled(t, p) {
		limited += c.Limited
		for class := range c.Submitted {
			submitted += c.Submitted[class]
			dropped[bpf.Class(class)] = dropped[bpf.Class(class)] || c.Dropped[class] > 0
		}
	}
	if !dropped[bpf.Critical] || !dropped[bpf.Telemetry] {
		t.Errorf("the rings did not overflow: %v", dropped)
	}
	if limited == 0 {
		t.Error("nothing went beyond the rate")
	}
	if read := drain(t, p); read != submitted {
		t.Errorf("%d records in the rings, %d counted as submitted", read, submitted)
	}
}

// settled reads the counters until the programs that were at work when they were detached have ended.
func settled(t *testing.T, p *bpf.Programs) []bpf.Counter {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; {
		counters, err := p.Counters()
		if err != nil {
			t.Fatal(err)
		}
		exact := true
		for _, c := range counters {
			sum := c.Filtered + c.Limited + c.Submitted[0] + c.Submitted[1] + c.Dropped[0] + c.Dropped[1]
			if exact = exact && c.Seen == sum; !exact && time.Now().After(deadline) {
				t.Fatalf("%s: seen %d, filtered + submitted + dropped = %d", c.Kind, c.Seen, sum)
			}
		}
		if exact {
			return counters
		}
	}
}

func drain(t *testing.T, p *bpf.Programs) uint64 {
	t.Helper()
	var n uint64
	for _, ring := range []*ringbufReader{open(t, p, bpf.Critical), open(t, p, bpf.Telemetry)} {
		for ring.AvailableBytes() > 0 {
			if _, err := ring.Read(); err != nil {
				t.Fatal(err)
			}
			n++
		}
	}
	return n
}

type ringbufReader = ringbuf.Reader

func open(t *testing.T, p *bpf.Programs, class bpf.Class) *ringbufReader {
	t.Helper()
	ring := p.Critical()
	if class == bpf.Telemetry {
		ring = p.Telemetry()
	}
	r, err := ringbuf.NewReader(ring)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}
