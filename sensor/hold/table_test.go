package hold_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tourniquet.dev/tourniquet/internal/sys/needs"
	"tourniquet.dev/tourniquet/sensor/hold"
)

func kernel(t *testing.T) string {
	t.Helper()
	needs.Root(t)
	needs.BTF(t)
	needs.Kernel(t, needs.CgroupSkb)
	needs.Kernel(t, needs.CgroupAddr)
	needs.Kernel(t, needs.CgroupWrite)
	needs.Kernel(t, needs.NetNS)
	needs.Kernel(t, needs.IPTool)
	return needs.CgroupV2(t)
}

func open(t *testing.T, o hold.Options) *hold.Table {
	t.Helper()
	table, err := hold.Open(o)
	if err != nil {
		t.Fatalf("%+v", err)
	}
	t.Cleanup(func() { table.Close() })
	return table
}

// pair is a process in a cgroup with an established flow to a peer outside of it.
type pair struct {
	*process
	pod, container string // cgroups, the second below the first
}

func newPair(t *testing.T, root, address string) *pair {
	t.Helper()
	pod := makeCgroup(t, root)
	container := makeCgroup(t, pod)
	p := &pair{start(t, "held", container), pod, container}
	connectNets(t, p.process, start(t, "peer", root))
	p.must("flow %s", address)
	eventually(t, "the flow runs", func() bool { return p.count() > 100 })
	return p
}

func drops(t *testing.T, table *hold.Table, cgroup uint64) hold.Drops {
	t.Helper()
	held, err := table.Get(cgroup)
	if err != nil {
		t.Fatal(err)
	}
	return held.Drops
}

func packets(d hold.Drops) uint64 { return d.EgressPackets + d.IngressPackets }

// assertCut proves that the flow stands still: retransmissions are dropped, and no exchange comes through.
func assertCut(t *testing.T, p *pair, table *hold.Table, cgroup uint64) {
	t.Helper()
	eventually(t, "a packet is dropped", func() bool { return packets(drops(t, table, cgroup)) > 0 })
	before, dropped := p.count(), packets(drops(t, table, cgroup))
	eventually(t, "a retransmission is dropped", func() bool { return packets(drops(t, table, cgroup)) > dropped })
	if after := p.count(); after != before {
		t.Errorf("%d exchanges came through the hold", after-before)
	}
}

func assertRuns(t *testing.T, p *pair) {
	t.Helper()
	before := p.count()
	eventually(t, "the flow runs again", func() bool { return p.count() > before+100 })
}

func TestAHoldCutsAnEstablishedFlowAndEndsByItself(t *testing.T) {
	root := kernel(t)
	for name, tc := range map[string]struct {
		address string
		bits    hold.Bits
		pod     bool // hold the pod, not the container
		refused bool
		stopped func(hold.Drops) bool
	}{
		"both ways":       {"10.77.0.2:7000", hold.All, false, true, func(d hold.Drops) bool { return d.EgressPackets+d.IngressPackets > 0 }},
		"egress":          {"10.77.0.2:7000", hold.Egress, false, false, func(d hold.Drops) bool { return d.EgressPackets > 0 && d.IngressPackets == 0 }},
		"ingress":         {"10.77.0.2:7000", hold.Ingress, false, false, func(d hold.Drops) bool { return d.IngressPackets > 0 && d.EgressPackets == 0 }},
		"both ways in v6": {"[fd77::2]:7000", hold.All, false, true, func(d hold.Drops) bool { return d.EgressBytes+d.IngressBytes > 0 }},
		"of the pod":      {"10.77.0.2:7000", hold.All, true, true, func(d hold.Drops) bool { return d.Last > 0 }},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, root, tc.address)
			table := open(t, hold.Options{CgroupRoot: root})
			cgroup := inode(t, p.container)
			if tc.pod {
				cgroup = inode(t, p.pod)
			}
			another := hold.Hold{Cgroup: 1 << 40, Until: hold.Now() + time.Hour, Bits: hold.All} // is over much later
			if err := table.Put(another); err != nil {
				t.Fatal(err)
			}
			until := hold.Now() + 3*time.Second
			if err := table.Put(hold.Hold{Cgroup: cgroup, Until: until, Bits: tc.bits}); err != nil {
				t.Fatal(err)
			}
			assertCut(t, p, table, cgroup)
			if tc.refused {
				for _, try := range []string{"try tcp " + tc.address, "try udp " + tc.address, "send " + tc.address} {
					if answer := p.tell(try); answer != "EPERM" {
						t.Errorf("%s: %s", try, answer)
					}
				}
				if n := drops(t, table, cgroup).Connects; n < 3 {
					t.Errorf("%d connects counted", n)
				}
			}
			if hold.Now() >= until {
				t.Fatal("the machine is too slow for this test: the hold was over before it was looked at")
			}
			assertRuns(t, p)
			if now := hold.Now(); now < until {
				t.Errorf("the flow ran %v before the end of the hold", until-now)
			}
			p.must("try tcp %s", tc.address)
			over, err := table.Expire()
			if err != nil || len(over) != 1 || over[0].Cgroup != cgroup || !over[0].Expired || !tc.stopped(over[0].Drops) {
				t.Errorf("expired %+v, %v", over, err)
			}
			if left, err := table.List(); err != nil || len(left) != 1 || left[0].Hold != another {
				t.Errorf("left %+v, %v", left, err)
			}
		})
	}
}

func TestALiftedHoldLetsTheFlowGoOn(t *testing.T) {
	root := kernel(t)
	p := newPair(t, root, "10.77.0.2:7000")
	table := open(t, hold.Options{CgroupRoot: root})
	cgroup := inode(t, p.container)
	if err := table.Put(hold.Hold{Cgroup: cgroup, Until: hold.Now() + time.Hour, Bits: hold.All}); err != nil {
		t.Fatal(err)
	}
	assertCut(t, p, table, cgroup)
	held, err := table.Lift(cgroup)
	if err != nil || held.Bits != hold.All || packets(held.Drops) == 0 {
		t.Errorf("lifted %+v, %v", held, err)
	}
	assertRuns(t, p)
	if _, err := table.Lift(cgroup); !errors.Is(err, hold.ErrNotHeld) {
		t.Errorf("lifted again: %v", err)
	}
}

func TestADenialOfConnectsLeavesAnEstablishedFlowAlone(t *testing.T) {
	root := kernel(t)
	p := newPair(t, root, "10.77.0.2:7000")
	table := open(t, hold.Options{CgroupRoot: root})
	if err := table.Put(hold.Hold{Cgroup: inode(t, p.container), Until: hold.Now() + time.Hour, Bits: hold.Connect}); err != nil {
		t.Fatal(err)
	}
	if answer := p.tell("try tcp 10.77.0.2:7000"); answer != "EPERM" {
		t.Errorf("connect: %s", answer)
	}
	assertRuns(t, p)
}

func TestAnotherCgroupIsNotHeld(t *testing.T) {
	root := kernel(t)
	p := newPair(t, root, "10.77.0.2:7000")
	table := open(t, hold.Options{CgroupRoot: root})
	other := inode(t, makeCgroup(t, p.pod)) // a sibling of the container
	if err := table.Put(hold.Hold{Cgroup: other, Until: hold.Now() + time.Hour, Bits: hold.All}); err != nil {
		t.Fatal(err)
	}
	assertRuns(t, p)
	p.must("try tcp 10.77.0.2:7000")
	if d := drops(t, table, other); d != (hold.Drops{}) {
		t.Errorf("drops %+v", d)
	}
}

func mountBpffs(t *testing.T) string {
	t.Helper()
	needs.Root(t)
	needs.Kernel(t, needs.BpfFS)
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "bpf", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	return filepath.Join(dir, "tourniquet")
}

func TestAPinnedHoldStandsWhileNobodyIsThere(t *testing.T) {
	root := kernel(t)
	options := hold.Options{CgroupRoot: root, PinDir: mountBpffs(t)}
	p := newPair(t, root, "10.77.0.2:7000")
	cgroup := inode(t, p.container)
	table := open(t, options)
	until := hold.Now() + 5*time.Second
	if err := table.Put(hold.Hold{Cgroup: cgroup, Until: until, Bits: hold.All}); err != nil {
		t.Fatal(err)
	}
	assertCut(t, p, table, cgroup)
	before := drops(t, table, cgroup)
	if err := table.Close(); err != nil {
		t.Fatal(err)
	}
	exchanged := p.count()
	if answer := p.tell("try tcp 10.77.0.2:7000"); answer != "EPERM" {
		t.Errorf("connect with nobody there: %s", answer)
	}

	table = open(t, options)
	held, err := table.Get(cgroup)
	if err != nil || held.Until != until || held.Bits != hold.All || packets(held.Drops) < packets(before) || held.Drops.Connects != 1 {
		t.Errorf("adopted %+v, %v; before %+v", held, err, before)
	}
	if answer := p.tell("try tcp 10.77.0.2:7000"); answer != "EPERM" {
		t.Errorf("connect after adoption: %s", answer)
	}
	if n := p.count(); n != exchanged {
		t.Errorf("%d exchanges came through during the restart", n-exchanged)
	}
	if hold.Now() >= until {
		t.Fatal("the machine is too slow for this test")
	}
	assertRuns(t, p)
	if hold.Now() < until {
		t.Error("the hold ended early")
	}
	if err := table.Unpin(); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(options.PinDir); err != nil || len(left) != 0 {
		t.Errorf("pins left: %v, %v", left, err)
	}
}

func TestPinsNeedABpffs(t *testing.T) {
	root := kernel(t)
	if table, err := hold.Open(hold.Options{CgroupRoot: root, PinDir: t.TempDir()}); err == nil {
		table.Close()
		t.Error("opened")
	}
}

func TestAnInvalidHoldIsRefused(t *testing.T) {
	root := kernel(t)
	table := open(t, hold.Options{CgroupRoot: root, Longest: time.Minute})
	soon := hold.Now() + 30*time.Second
	for name, h := range map[string]hold.Hold{
		"the whole machine": {Cgroup: inode(t, root), Until: soon, Bits: hold.All},
		"no cgroup":         {Until: soon, Bits: hold.All},
		"nothing stopped":   {Cgroup: 12345, Until: soon},
		"unknown bits":      {Cgroup: 12345, Until: soon, Bits: 8},
		"no end":            {Cgroup: 12345, Bits: hold.All},
		"over already":      {Cgroup: 12345, Until: hold.Now() - 1, Bits: hold.All},
		"too long":          {Cgroup: 12345, Until: hold.Now() + time.Hour, Bits: hold.All},
	} {
		if err := table.Put(h); !errors.Is(err, hold.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if left, err := table.List(); err != nil || len(left) != 0 {
		t.Errorf("list %+v, %v", left, err)
	}
}

func TestAFullTableMakesRoomByWhatIsOver(t *testing.T) {
	root := kernel(t)
	table := open(t, hold.Options{CgroupRoot: root})
	const room = 4096
	for id := range uint64(room) {
		if err := table.Put(hold.Hold{Cgroup: 1<<40 + id, Until: hold.Now() + time.Hour, Bits: hold.Egress}); err != nil {
			t.Fatal(err)
		}
	}
	extra := hold.Hold{Cgroup: 1 << 41, Until: hold.Now() + time.Hour, Bits: hold.Egress}
	if err := table.Put(extra); err == nil {
		t.Error("a full table took one more")
	}
	soon := hold.Now() + 50*time.Millisecond
	if err := table.Put(hold.Hold{Cgroup: 1 << 40, Until: soon, Bits: hold.Egress}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "one hold is over", func() bool { return hold.Now() >= soon })
	if err := table.Put(extra); err != nil {
		t.Error(err)
	}
}

// cutAndWait is an agent that cuts for some seconds.
func cutAndWait() string {
	table, err := hold.Open(hold.Options{CgroupRoot: os.Getenv("ROOT"), PinDir: os.Getenv("PINS")})
	var stat unix.Stat_t
	if err == nil {
		err = unix.Stat(os.Getenv("CGROUP"), &stat)
	}
	if err == nil {
		_, err = table.Raise(hold.Hold{Cgroup: stat.Ino, Until: hold.Now() + 3*time.Second, Bits: hold.All})
	}
	return told(err)
}

func TestTheHoldOfAKilledAgentLapsesByItself(t *testing.T) {
	root := kernel(t)
	pins := mountBpffs(t)
	p := newPair(t, root, "[fd77::2]:7000")
	agent := exec.Command("/proc/self/exe")
	agent.Env = append(os.Environ(), deedEnv+"=cutter", "ROOT="+root, "PINS="+pins, "CGROUP="+p.container)
	out, err := agent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	begun := hold.Now()
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	one := make([]byte, 3)
	if _, err := out.Read(one); err != nil || string(one) != "ok\n" {
		t.Fatalf("the agent said %q, %v", one, err)
	}
	if err := agent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	agent.Wait()
	if answer := p.tell("try tcp [fd77::2]:7000"); answer != "EPERM" {
		t.Errorf("connect with the agent dead: %s", answer)
	}
	assertRuns(t, p) // with nobody alive to end the hold
	if hold.Now()-begun < 3*time.Second {
		t.Error("the hold ended early")
	}
	if err := open(t, hold.Options{CgroupRoot: root, PinDir: pins}).Unpin(); err != nil {
		t.Error(err)
	}
}
