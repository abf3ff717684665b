package probe_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tourniquet.dev/tourniquet/bpf"
	"tourniquet.dev/tourniquet/sensor/probe"
)

func TestAConnectIsSeenInEveryFamily(t *testing.T) {
	for name, tc := range map[string]struct {
		deed     string
		args     []string
		want     string
		datagram bool
		protocol uint8
	}{
		"tcp4":            {"connect", []string{"tcp", "127.0.0.1:9"}, "127.0.0.1:9", false, unix.IPPROTO_TCP},
		"tcp6":            {"connect", []string{"tcp", "[::1]:9"}, "[::1]:9", false, unix.IPPROTO_TCP},
		"udp4":            {"connect", []string{"udp", "127.0.0.1:53"}, "127.0.0.1:53", false, unix.IPPROTO_UDP},
		"datagram":        {"send", []string{"127.0.0.1:9"}, "127.0.0.1:9", true, unix.IPPROTO_UDP},
		"datagram to v6":  {"send", []string{"[::1]:9"}, "[::1]:9", true, unix.IPPROTO_UDP},
		"watched address": {"connect", []string{"udp", "127.0.0.254:80"}, "127.0.0.254:80", false, unix.IPPROTO_UDP},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWatch(t, probe.Options{
				Config: bpf.Config{Datagrams: true, Quiet: time.Hour},
				Filter: probe.Filter{Addresses: map[netip.Addr]uint32{netip.MustParseAddr("127.0.0.254"): 8}},
			})
			w.do(tc.deed, tc.args...)
			e := await(w, func(e *probe.Connect) bool { return e.Addr.String() == tc.want })
			if e.Datagram != tc.datagram || e.Protocol != tc.protocol || e.Cgroup != w.id || e.Policy != 42 {
				t.Errorf("%+v", e)
			}
			if watched := name == "watched address"; (e.Match == 8) != watched {
				t.Errorf("match %d", e.Match)
			}
		})
	}
}

func TestARepeatedDatagramIsToldOnce(t *testing.T) {
	w := newWatch(t, probe.Options{Config: bpf.Config{Datagrams: true, Quiet: time.Hour}})
	w.do("send", "127.0.0.1:9") // five times
	await(w, func(e *probe.Exit) bool { return true })
	n := 0
	for _, event := range w.seen {
		if _, ok := event.(*probe.Connect); ok {
			n++
		}
	}
	if n != 1 {
		t.Errorf("told %d times", n)
	}
}

func TestACgroupIsSeenComingAndGoing(t *testing.T) {
	w := newWatch(t, probe.Options{})
	dir := filepath.Join(w.cgroup.Name(), "inner")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	id := inode(t, dir)
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	path := "/" + filepath.Base(w.cgroup.Name()) + "/inner"
	for _, removed := range []bool{false, true} {
		e := await(w, func(e *probe.Cgroup) bool { return e.ID == id && e.Removed == removed })
		if e.Path != path || e.Level != 2 || int(e.TGID) != os.Getpid() {
			t.Errorf("%+v, want path %s", e, path)
		}
	}
}

// A flood of connects overruns its ring; the watched opens in its midst must all come through, and the loss be told to
// the last event.
func TestAFloodLosesNothingCriticalAndIsToldExactly(t *testing.T) {
	const connects, opens = 100_000, 1_000
	_, file := credentials(t)
	w := newWatch(t, probe.Options{Options: bpf.Options{TelemetryBytes: 16 << 10}, Filter: byName()})
	w.do("flood", strconv.Itoa(connects), file)
	var got struct{ opens, connects, lost, exits uint64 }
	deadline := time.After(60 * time.Second)
	for got.opens < opens || got.connects+got.lost < connects {
		select {
		case event := <-w.events:
			switch e := event.(type) {
			case *probe.Open:
				got.opens++
			case *probe.Connect:
				got.connects++
			case *probe.Blind:
				if e.Cause != probe.CauseRingFull || e.From >= e.At {
					t.Errorf("%+v", e)
				}
				if e.Lost == bpf.KindOpen.String() {
					t.Errorf("lost critical events: %+v", e)
				}
				if e.Lost == bpf.KindConnect.String() {
					got.lost += e.Count
				}
			}
		case <-deadline:
			t.Fatalf("%+v of %d connects, %d opens", got, connects, opens)
		}
	}
	if got.opens != opens || got.connects+got.lost != connects {
		t.Errorf("%+v", got)
	}
	if got.lost == 0 {
		t.Error("the flood did not overrun the ring, so this proved nothing")
	}
	t.Logf("%+v", got)
}
