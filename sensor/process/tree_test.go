package process_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tourniquet.dev/tourniquet/bpf"
	"tourniquet.dev/tourniquet/internal/sys/needs"
	"tourniquet.dev/tourniquet/sensor/probe"
	"tourniquet.dev/tourniquet/sensor/process"
)

// at makes the Meta of process n at a moment; it began at second n, and process n-1 is its parent.
func at(n uint32, second float64) probe.Meta {
	return probe.Meta{
		At: time.Duration(second * float64(time.Second)), TGID: n, TID: n, PPID: n - 1, Start: time.Duration(n) * time.Second,
		Comm: fmt.Sprint("p", n), Cgroup: 77,
	}
}

func fork(n uint32) *probe.Fork {
	return &probe.Fork{Meta: at(n, float64(n)), ParentStart: time.Duration(n-1) * time.Second}
}

func ran(n uint32, second float64, path string) *probe.Exec {
	return &probe.Exec{Meta: at(n, second), ParentStart: time.Duration(n-1) * time.Second, Path: path}
}

func exit(n uint32, second float64) *probe.Exit { return &probe.Exit{Meta: at(n, second), Code: 256} }

func idOf(n uint32) probe.ID { return probe.ID{TGID: n, Start: time.Duration(n) * time.Second} }

func names(all []process.Process) string {
	var names []string
	for _, p := range all {
		names = append(names, strings.TrimPrefix(p.Path, "/"))
	}
	return strings.Join(names, " < ")
}

func TestAncestry(t *testing.T) {
	for name, tc := range map[string]struct {
		events []probe.Event
		of     uint32
		path   string
		want   string
	}{
		"in order": {
			[]probe.Event{fork(10), ran(10, 10, "/java"), fork(11), ran(11, 11, "/sh"), fork(12), ran(12, 12, "/cat")},
			12, "/cat", "sh < java",
		},
		"before its exec a child is what its parent is": {
			[]probe.Event{fork(10), ran(10, 10, "/java"), fork(11)},
			11, "/java", "java",
		},
		"an exec overtakes its fork": {
			[]probe.Event{fork(10), ran(10, 10, "/java"), ran(11, 11, "/sh"), fork(11)},
			11, "/sh", "java",
		},
		"the parent's exec comes last": {
			[]probe.Event{ran(12, 12, "/cat"), ran(11, 11, "/sh"), fork(10), ran(10, 10, "/java")},
			12, "/cat", "sh < java",
		},
		"an exec comes after the exit": {
			[]probe.Event{fork(10), ran(10, 10, "/java"), fork(11), exit(11, 12), ran(11, 11, "/sh")},
			11, "/sh", "java",
		},
		"an older exec comes after a newer one": {
			[]probe.Event{fork(10), ran(10, 11, "/second"), ran(10, 10.5, "/first")},
			10, "/second", "",
		},
		"a dead parent is remembered": {
			[]probe.Event{fork(10), ran(10, 10, "/java"), fork(11), ran(11, 11, "/sh"), fork(12), exit(11, 12), exit(10, 13), exit(99, 500), ran(12, 501, "/cat")},
			12, "/cat", "sh < java",
		},
		"a lost fork": {
			[]probe.Event{fork(10), ran(10, 10, "/java"), ran(11, 11, "/sh")},
			11, "/sh", "java",
		},
		"known by its open only": {
			[]probe.Event{fork(10), ran(10, 10, "/java"), &probe.Open{Meta: at(11, 11)}},
			11, "", "java",
		},
		"its exec makes up for a lost fork": {
			[]probe.Event{fork(10), ran(10, 10, "/java"), &probe.Open{Meta: at(11, 11)}, ran(11, 12, "/sh")},
			11, "/sh", "java",
		},
	} {
		t.Run(name, func(t *testing.T) {
			tree := process.NewTree(process.TreeOptions{})
			for _, e := range tc.events {
				tree.Apply(e)
			}
			p, ok := tree.Get(idOf(tc.of))
			if !ok || p.Path != tc.path {
				t.Errorf("process %+v, %v, want %s", p, ok, tc.path)
			}
			if got := names(tree.Ancestors(idOf(tc.of))); got != tc.want {
				t.Errorf("ancestors %q, want %q", got, tc.want)
			}
		})
	}
}

func TestAProcessIdUsedAgainIsAnotherProcess(t *testing.T) {
	tree := process.NewTree(process.TreeOptions{})
	old, young := at(10, 10), at(10, 20)
	young.Start = 20 * time.Second
	tree.Apply(&probe.Exec{Meta: old, Path: "/old"})
	tree.Apply(&probe.Exit{Meta: old})
	tree.Apply(&probe.Exec{Meta: young, Path: "/young"})
	for id, want := range map[probe.ID]string{old.Process(): "/old", young.Process(): "/young"} {
		if p, ok := tree.Get(id); !ok || p.Path != want {
			t.Errorf("%+v, %v, want %s", p, ok, want)
		}
	}
}

func TestATombstoneStaysForLateEventsAndThenGoes(t *testing.T) {
	tree := process.NewTree(process.TreeOptions{Tombstones: 5 * time.Second})
	tree.Apply(ran(10, 10, "/sh"))
	tree.Apply(exit(10, 11))
	p, ok := tree.Get(idOf(10))
	if want := 11 * time.Second; !ok || p.Exited != want || p.Code != 256 || p.Path != "/sh" {
		t.Errorf("%+v, %v", p, ok)
	}
	tree.Apply(fork(15))
	if _, ok := tree.Get(idOf(10)); !ok {
		t.Error("gone too early")
	}
	tree.Apply(fork(16))
	if p, ok := tree.Get(idOf(10)); ok {
		t.Errorf("still there: %+v", p)
	}
}

func TestADeadParentGoesWithItsLastChild(t *testing.T) {
	tree := process.NewTree(process.TreeOptions{Tombstones: time.Second})
	for _, e := range []probe.Event{fork(10), fork(11), exit(10, 12), fork(20)} {
		tree.Apply(e)
	}
	if _, ok := tree.Get(idOf(10)); !ok {
		t.Fatal("the parent of a living process was forgotten")
	}
	tree.Apply(exit(11, 21))
	tree.Apply(fork(30))
	if p, ok := tree.Get(idOf(10)); ok {
		t.Errorf("still there: %+v", p)
	}
	if got, want := tree.Stats(), (process.TreeStats{Live: 2}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestTheTreeKeepsItsBound(t *testing.T) {
	const most = 100
	tree := process.NewTree(process.TreeOptions{Max: most, Tombstones: time.Hour})
	random := rand.New(rand.NewPCG(1, 2))
	for n := range uint32(10_000) {
		pid := 10 + n
		tree.Apply(fork(pid))
		switch random.IntN(4) {
		case 0:
			tree.Apply(exit(pid, float64(pid)))
		case 1:
			tree.Apply(ran(pid, float64(pid), "/x"))
		case 2:
			tree.Apply(exit(10+random.Uint32N(n+1), float64(pid)))
		}
		if s := tree.Stats(); s.Live+s.Dead > most {
			t.Fatalf("after %d: %+v", n, s)
		}
	}
	s := tree.Stats()
	if s.Evicted == 0 {
		t.Error("nothing was evicted")
	}
	if got := tree.Find(func(*process.Process) bool { return true }); len(got) != s.Live+s.Dead {
		t.Errorf("%d found, %+v", len(got), s)
	}
}

func TestAnUnknownProcessIsReadFromProc(t *testing.T) {
	tree := process.NewTree(process.TreeOptions{Proc: "/proc"})
	if err := tree.Fill(); err != nil {
		t.Fatal(err)
	}
	self := tree.Find(func(p *process.Process) bool { return int(p.ID.TGID) == os.Getpid() })
	if len(self) != 1 {
		t.Fatalf("found %+v", self)
	}
	path, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if p := self[0]; p.Path != path || p.UID != uint32(os.Getuid()) || int(p.Parent.TGID) != os.Getppid() || p.Parent.Start == 0 && os.Getppid() > 1 {
		t.Errorf("%+v", p)
	}
	fresh := process.NewTree(process.TreeOptions{Proc: "/proc"})
	fresh.Apply(&probe.Open{Meta: probe.Meta{At: 1, TGID: self[0].ID.TGID, Start: self[0].ID.Start + 3*time.Millisecond, Cgroup: 5}})
	if p, ok := fresh.Get(self[0].ID); !ok || p.Path != path || p.Partial || p.Cgroup != 5 {
		t.Errorf("%+v, %v", p, ok)
	}
}

func TestFillBuriesWhoseExitWasLost(t *testing.T) {
	tree := process.NewTree(process.TreeOptions{Proc: "/proc"})
	tree.Apply(ran(4_000_000, 10, "/gone")) // no such process
	if err := tree.Fill(); err != nil {
		t.Fatal(err)
	}
	if p, ok := tree.Get(idOf(4_000_000)); !ok || p.Exited == 0 {
		t.Errorf("%+v, %v", p, ok)
	}
}

func TestProcStatWithAnyNameIsRead(t *testing.T) {
	dir := t.TempDir()
	for pid, name := range map[string]string{"10": "sh", "11": "a) R 1 (b", "12": "", "13": "x y\nz"} {
		if err := os.Mkdir(dir+"/"+pid, 0o700); err != nil {
			t.Fatal(err)
		}
		line := pid + " (" + name + ") S 7 0 0 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 1234 0 0"
		if err := os.WriteFile(dir+"/"+pid+"/stat", []byte(line), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tree := process.NewTree(process.TreeOptions{Proc: dir})
	if err := tree.Fill(); err != nil {
		t.Fatal(err)
	}
	got := map[uint32]string{}
	for _, p := range tree.Find(func(*process.Process) bool { return true }) {
		got[p.ID.TGID] = p.Comm
		if p.Parent.TGID != 7 || p.ID.Start != 12340*time.Millisecond {
			t.Errorf("%+v", p)
		}
	}
	if diff := cmp.Diff(map[uint32]string{10: "sh", 11: "a) R 1 (b", 12: "", 13: "x y\nz"}, got); diff != "" {
		t.Error(diff)
	}
}

// The live kernel and /proc must name a process alike.
func TestTheKernelAndProcAgreeOnWhoIsWho(t *testing.T) {
	needs.Root(t)
	needs.BTF(t)
	needs.Kernel(t, needs.Tracepoints)
	reader, err := probe.New(probe.Options{
		Options: bpf.Options{Hooks: []bpf.Hook{bpf.HookFork, bpf.HookExec, bpf.HookExit}},
		Config:  bpf.Config{WatchAll: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	events := make(chan probe.Event, 256)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- reader.Run(ctx, events) }()
	defer func() { cancel(); <-done }()

	tree := process.NewTree(process.TreeOptions{Proc: "/proc", CgroupRoot: needs.CgroupV2(t)})
	if err := tree.Fill(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", "read x; true & wait") // it waits until it has been filled in
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	filled := process.NewTree(process.TreeOptions{Proc: "/proc", CgroupRoot: needs.CgroupV2(t)})
	if err := filled.Fill(); err != nil {
		t.Fatal(err)
	}
	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	pid := uint32(cmd.Process.Pid)
	deadline := time.After(20 * time.Second)
	for {
		select {
		case e := <-events:
			tree.Apply(e)
			died, ok := e.(*probe.Exit)
			if !ok || died.TGID != pid {
				continue
			}
			p, known := tree.Get(died.Process())
			q, listed := filled.Get(died.Process())
			if !known || !listed || p.Exited == 0 || p.Parent.TGID != uint32(os.Getpid()) {
				t.Fatalf("by events %+v, by /proc %+v", p, q)
			}
			if p.Path != q.Path || p.Cgroup != q.Cgroup || p.Cgroup == 0 || p.UID != q.UID || p.Parent.TGID != q.Parent.TGID {
				t.Errorf("by events %+v\nby /proc %+v", p, q)
			}
			children := tree.Find(func(c *process.Process) bool { return c.Parent.TGID == pid })
			for _, c := range children {
				if up := tree.Ancestors(c.ID); len(up) < 2 || up[0].ID != p.ID || int(up[1].ID.TGID) != os.Getpid() {
					t.Errorf("ancestors of %+v: %+v", c, up)
				}
			}
			return
		case <-deadline:
			t.Fatal("the exit was not seen")
		}
	}
}
