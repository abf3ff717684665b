package workload_test

import (
	"bufio"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tourniquet.dev/tourniquet/dev/build"
	"tourniquet.dev/tourniquet/dev/stack"
	"tourniquet.dev/tourniquet/dev/workload"
	"tourniquet.dev/tourniquet/internal/sys/needs"
)

// host runs programs for a test and takes off the machine what the workload puts on it.
type host struct {
	t      *testing.T
	netns  []string
	cgroup string
}

func (h *host) Run(_ context.Context, name, bin string, args ...string) (ready map[string]any, err error) {
	cmd := exec.Command(bin, args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	cmd.Stderr = h.t.Output()
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	h.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil && name != "pod" {
			h.t.Errorf("%s: %v", name, err)
		}
	})
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err != nil {
		return nil, err
	}
	return ready, json.Unmarshal(line, &ready)
}

func (h *host) Netns(name string) error { h.netns = append(h.netns, name); return nil }

func (h *host) Folder(path string) error {
	h.t.Cleanup(func() { _ = os.Remove(path) }) // others may use it
	return nil
}

func (h *host) Cgroup(path string) error {
	h.cgroup = path
	h.t.Cleanup(func() {
		if _, err := stack.RemoveCgroup(path); err != nil {
			h.t.Error(err)
		}
	})
	return nil
}

// program builds the workload program.
func program(t *testing.T) string {
	t.Helper()
	root, err := build.Root()
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	if err := build.Go(t.Context(), filepath.Join(root, "dev"), []string{"./workload/cmd/workload"}, bin, t.Output()); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(bin, "workload")
}

func options(t *testing.T, h *host) workload.Options {
	t.Helper()
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return workload.Options{Program: program(t), Dir: dir, Run: h, Book: h, PodUID: "0f8fad5b-d9cb-469f-a165-70867728950e",
		ContainerID: strings.Repeat("5e", 32), Namespace: "shop", KeyID: "AKIATESTTESTTESTTEST", Tag: "test",
		Credentials: file("credentials", "[default]\naws_access_key_id = AKIATESTTESTTESTTEST\naws_secret_access_key = made-for-this-test\n"),
		Token:       file("token", "eyJmade.for.this-test"), CA: file("ca.crt", ""),
		AWS: "http://127.0.0.1:1", Kubernetes: "https://127.0.0.1:1", Role: "arn:aws:iam::111122223333:role/data-export"}
}

// calls waits until the attacker has made a call of each kind, and returns which kinds he made.
func calls(t *testing.T, w *workload.Workload, want []string) {
	t.Helper()
	var got []string
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		got = nil
		log, err := os.ReadFile(w.Calls())
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(log)) {
			var c workload.Call
			if json.Unmarshal([]byte(line), &c) == nil && !slices.Contains(got, c.Who) {
				got = append(got, c.Who)
			}
		}
		slices.Sort(got)
		if cmp.Equal(want, got) {
			return
		}
	}
	t.Errorf("the attacker used (-want +got):\n%s", cmp.Diff(want, got))
}

func TestTheAttackStealsFromTheRealPod(t *testing.T) {
	needs.Root(t)
	needs.Kernel(t, needs.NetNS)
	needs.Kernel(t, needs.MountNS)
	needs.Kernel(t, needs.IPTool)
	needs.Kernel(t, needs.CgroupWrite)
	h := &host{t: t}
	t.Cleanup(func() {
		for _, ns := range h.netns {
			if out, err := exec.Command("ip", "netns", "delete", ns).CombinedOutput(); err != nil {
				t.Errorf("delete %s: %s", ns, out)
			}
		}
	})
	o := options(t, h)
	o.CgroupFS = cgroupFS(t)
	w, err := workload.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if pids, err := os.ReadFile(filepath.Join(h.cgroup, "cgroup.procs")); err != nil || len(strings.Fields(string(pids))) != 1 {
		t.Errorf("the pod's cgroup holds %q, %v; want one process", pids, err)
	}
	if mounts, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(mounts), o.Dir) {
		t.Errorf("the pod's mounts show outside of it, or %v", err)
	}
	if err := w.Attack(t.Context()); err != nil {
		t.Fatal(err)
	}
	calls(t, w, []string{"attack", "exfiltration", "key", "token"})
	wire, err := w.Wire(t.Context())
	if err != nil || wire["stream"].Count == 0 || wire["beacon"].Count == 0 {
		t.Errorf("the peer got %+v, %v", wire, err)
	}
}

func TestWithoutRootTheLootIsBrought(t *testing.T) {
	w, err := workload.Start(t.Context(), options(t, &host{t: t}))
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Steal(t.Context()); err != nil {
		t.Fatal(err)
	}
	calls(t, w, []string{"exfiltration", "key", "token"})
}

func cgroupFS(t *testing.T) string {
	t.Helper()
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(table)) {
		before, after, _ := strings.Cut(line, " - ")
		if fields := strings.Fields(before); strings.HasPrefix(after, "cgroup2 ") && fields[3] == "/" {
			return fields[4]
		}
	}
	t.Fatal("no cgroup v2 tree is mounted")
	return ""
}
