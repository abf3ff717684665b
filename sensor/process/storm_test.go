package process_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"tourniquet.dev/tourniquet/bpf"
	"tourniquet.dev/tourniquet/internal/sys/needs"
	"tourniquet.dev/tourniquet/sensor/probe"
	"tourniquet.dev/tourniquet/sensor/process"
)

// Each chain nests shells whose parents end at once, and ends in a program that a rule asks for. At the moment when that is
// told, every one of those who made it must be known, dead or alive.
func TestAncestryIsCompleteInAStormOfShortLives(t *testing.T) {
	needs.Root(t)
	needs.BTF(t)
	needs.Kernel(t, needs.Tracepoints)
	const chains, depth = 100, 3
	dir := t.TempDir()
	script, worthy := filepath.Join(dir, "nest"), filepath.Join(dir, "storm-end")
	text := `if [ "$1" = 0 ]; then exec "$2"; fi; (sh "$0" $(($1 - 1)) "$2" &)`
	if err := os.WriteFile(script, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile("/bin/true")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(worthy, program, 0o700); err != nil {
		t.Fatal(err)
	}
	reader, err := probe.New(probe.Options{
		Options: bpf.Options{Hooks: []bpf.Hook{bpf.HookFork, bpf.HookExec, bpf.HookExit}},
		Config:  bpf.Config{WatchAll: true, MaxArgs: 4096},
		Filter:  probe.Filter{Names: map[probe.Name]uint32{{What: bpf.NameExec, Name: filepath.Base(worthy)}: 1}},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	events := make(chan probe.Event, 4096)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- reader.Run(ctx, events) }()
	defer func() { cancel(); <-done }()
	tree := process.NewTree(process.TreeOptions{Proc: "/proc"})
	if err := tree.Fill(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		var err error
		for i := 0; i < chains && err == nil; i++ {
			err = exec.Command("sh", script, strconv.Itoa(depth), worthy).Run()
		}
		ended <- err
	}()
	told := 0
	for deadline := time.After(60 * time.Second); told < chains; {
		select {
		case e := <-events:
			tree.Apply(e)
			ran, ok := e.(*probe.Exec)
			if !ok || ran.Path != worthy {
				continue
			}
			told++
			up := tree.Ancestors(ran.Process())
			if len(up) <= 2*depth || int(up[2*depth].ID.TGID) != os.Getpid() {
				t.Errorf("%d: made by %+v", told, up)
			}
		case <-deadline:
			t.Fatalf("%d of %d told", told, chains)
		}
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}
