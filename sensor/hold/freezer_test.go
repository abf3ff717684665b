package hold_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"tourniquet.dev/tourniquet/internal/sys/needs"
	"tourniquet.dev/tourniquet/sensor/hold"
)

// jailed is a process in a cgroup of its own, told by its lines whether it runs.
func jailed(t *testing.T) (root, path string, p *process) {
	t.Helper()
	needs.Root(t)
	needs.Kernel(t, needs.CgroupWrite)
	root = needs.CgroupV2(t)
	dir := makeCgroup(t, root)
	return root, "/" + filepath.Base(dir), start(t, "held", dir)
}

func frozen(t *testing.T, root, path string) bool {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, path, "cgroup.events"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(data), "frozen 1")
}

func freezer(t *testing.T, root, state string) (*hold.Freezer, []hold.Frozen) {
	t.Helper()
	f, left, err := hold.OpenFreezer(root, state, "boot")
	if err != nil {
		t.Fatal(err)
	}
	return f, left
}

func TestFreezeEndsByOurClockAndByAThaw(t *testing.T) {
	root, path, p := jailed(t)
	f, _ := freezer(t, root, t.TempDir())
	id := inode(t, filepath.Join(root, path))
	z := hold.Frozen{Cgroup: id, Path: path, Until: hold.Now() + 200*time.Millisecond, Boot: "boot"}
	if err := f.Freeze(z); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is frozen", func() bool { return frozen(t, root, path) })
	eventually(t, "it is thawed", func() bool { over, err := f.Tick(); return err == nil && len(over) == 1 })
	if hold.Now() < z.Until {
		t.Error("thawed early")
	}
	p.count()
	z.Until = hold.Now() + time.Hour
	if err := f.Freeze(z); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is frozen again", func() bool { return frozen(t, root, path) })
	if over, err := f.Tick(); len(over) != 0 || err != nil {
		t.Errorf("over %v, %v", over, err)
	}
	if err := f.Thaw(id); err != nil {
		t.Fatal(err)
	}
	p.count()
	if err := f.Thaw(id); !errors.Is(err, hold.ErrNotHeld) {
		t.Errorf("thawed twice: %v", err)
	}
}

func TestWhatADeadProcessFrozeIsThawedOnStart(t *testing.T) {
	root, path, p := jailed(t)
	state := t.TempDir()
	agent := exec.Command("/proc/self/exe")
	agent.Env = append(os.Environ(), deedEnv+"=freezer", "ROOT="+root, "STATE="+state, "CGROUP="+path)
	out, err := agent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	one := make([]byte, 3)
	if _, err := out.Read(one); err != nil || string(one) != "ok\n" {
		t.Fatalf("the agent said %q, %v", one, err)
	}
	if err := agent.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	agent.Wait()
	eventually(t, "it stays frozen", func() bool { return frozen(t, root, path) })
	_, left := freezer(t, root, state)
	if len(left) != 1 || left[0].Path != path {
		t.Errorf("left %+v", left)
	}
	eventually(t, "it is thawed", func() bool { return !frozen(t, root, path) })
	p.count()
	if _, left = freezer(t, root, state); len(left) != 0 {
		t.Errorf("left again %+v", left)
	}
}

// freezeAndWait is an agent that freezes for an hour.
func freezeAndWait() string {
	f, _, err := hold.OpenFreezer(os.Getenv("ROOT"), os.Getenv("STATE"), "boot")
	var stat syscall.Stat_t
	if err == nil {
		err = syscall.Stat(filepath.Join(os.Getenv("ROOT"), os.Getenv("CGROUP")), &stat)
	}
	if err == nil {
		err = f.Freeze(hold.Frozen{Cgroup: stat.Ino, Path: os.Getenv("CGROUP"), Until: hold.Now() + time.Hour, Boot: "boot"})
	}
	return told(err)
}

func TestFreezerRefuses(t *testing.T) {
	root, path, p := jailed(t)
	f, _ := freezer(t, root, t.TempDir())
	soon := hold.Now() + time.Hour
	for name, z := range map[string]hold.Frozen{
		"the whole machine": {Cgroup: inode(t, root), Path: "/", Until: soon},
		"a way out":         {Cgroup: inode(t, root), Path: path + "/..", Until: soon},
		"over already":      {Cgroup: inode(t, filepath.Join(root, path)), Path: path, Until: hold.Now() - 1},
	} {
		if err := f.Freeze(z); !errors.Is(err, hold.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := f.Freeze(hold.Frozen{Cgroup: 12345, Path: path, Until: soon}); err != nil || frozen(t, root, path) {
		t.Errorf("another cgroup has the path: %v, frozen %t", err, frozen(t, root, path))
	}
	p.count()
}

func TestKillEndsThatProcessOnly(t *testing.T) {
	root, path, p := jailed(t)
	child := start(t, "held", filepath.Join(root, path))
	began := func(p *process) time.Duration {
		data, err := os.ReadFile("/proc/" + itoa(p.cmd.Process.Pid) + "/stat")
		if err != nil {
			t.Fatal(err)
		}
		fields := strings.Fields(string(data)[strings.LastIndexByte(string(data), ')')+2:])
		d, err := time.ParseDuration(fields[19] + "0ms")
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	pid := uint32(child.cmd.Process.Pid)
	if err := hold.Kill("/proc", pid, began(child)+time.Minute); !errors.Is(err, hold.ErrGone) {
		t.Errorf("another with its number: %v", err)
	}
	child.count()
	if err := hold.Kill("/proc", pid, began(child)); err != nil {
		t.Fatal(err)
	}
	if state, err := child.cmd.Process.Wait(); err != nil || state.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("ended %v, %v", state, err)
	}
	p.count()
	f, _ := freezer(t, root, t.TempDir())
	if err := f.KillAll(inode(t, filepath.Join(root, path)), path); err != nil {
		t.Fatal(err)
	}
	if state, err := p.cmd.Process.Wait(); err != nil || state.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("ended %v, %v", state, err)
	}
	for _, pid := range []uint32{0, 1, uint32(os.Getpid())} {
		if err := hold.Kill("/proc", pid, 0); !errors.Is(err, hold.ErrInvalid) {
			t.Errorf("kill %d: %v", pid, err)
		}
	}
}

func TestRaiseTakesNothingAway(t *testing.T) {
	root := kernel(t)
	table := open(t, hold.Options{CgroupRoot: root})
	far, near := hold.Now()+time.Hour, hold.Now()+time.Minute
	for _, tc := range []struct {
		put   hold.Hold
		added bool
		want  hold.Hold
	}{
		{hold.Hold{Cgroup: 1 << 40, Until: near, Bits: hold.Egress}, true, hold.Hold{Cgroup: 1 << 40, Until: near, Bits: hold.Egress}},
		{hold.Hold{Cgroup: 1 << 40, Until: far, Bits: hold.Egress}, true, hold.Hold{Cgroup: 1 << 40, Until: far, Bits: hold.Egress}},
		{hold.Hold{Cgroup: 1 << 40, Until: near, Bits: hold.Egress}, false, hold.Hold{Cgroup: 1 << 40, Until: far, Bits: hold.Egress}},
		{hold.Hold{Cgroup: 1 << 40, Until: near, Bits: hold.Ingress}, true, hold.Hold{Cgroup: 1 << 40, Until: far, Bits: hold.Egress | hold.Ingress}},
	} {
		added, err := table.Raise(tc.put)
		held, gotErr := table.Get(1 << 40)
		if err != nil || gotErr != nil || added != tc.added || held.Hold != tc.want {
			t.Errorf("raise %+v: added %t, %v; stands %+v, %v", tc.put, added, err, held.Hold, gotErr)
		}
	}
}
