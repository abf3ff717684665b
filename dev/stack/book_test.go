package stack_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tourniquet.dev/tourniquet/dev/stack"
)

// sleeper starts a process that waits to be killed, and returns it with a channel that is closed at its end.
func sleeper(t *testing.T) (*exec.Cmd, chan struct{}) {
	t.Helper()
	cmd, ended := exec.Command("sleep", "600"), make(chan struct{})
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = cmd.Wait(); close(ended) }()
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-ended })
	return cmd, ended
}

// started is the start time of a process, by which the book knows it.
func started(t *testing.T, pid int) string {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(stat), ") ")
	return strings.Fields(after)[19]
}

func write(t *testing.T, dir string, lines ...any) {
	t.Helper()
	var text []byte
	for _, l := range lines {
		line, err := json.Marshal(l)
		if err != nil {
			t.Fatal(err)
		}
		text = append(append(text, line...), '\n')
	}
	text = append(text, `{"kind":"process","na`...) // cut by a kill
	if err := os.WriteFile(filepath.Join(dir, "machine.jsonl"), text, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestCleanEndsWhatIsOursAndNothingElse(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	if err := os.MkdirAll(filepath.Join(dir, "used", "by-others"), 0o700); err != nil {
		t.Fatal(err)
	}
	ours, oursEnded := sleeper(t)
	another, anotherEnded := sleeper(t)
	write(t, dir,
		map[string]any{"kind": "process", "name": "ours", "pid": ours.Process.Pid, "start": started(t, ours.Process.Pid)},
		map[string]any{"kind": "process", "name": "one that had this number before", "pid": another.Process.Pid, "start": "1"},
		map[string]any{"kind": "netns", "name": "tourniquet-never-made"},
		map[string]any{"kind": "cgroup", "name": filepath.Join(dir, "never-made")},
		map[string]any{"kind": "cgroup folder", "name": filepath.Join(dir, "used")})
	removed, err := stack.Clean(dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"process ours"}, removed); diff != "" {
		t.Errorf("removed (-want +got):\n%s", diff)
	}
	select {
	case <-oursEnded:
	case <-time.After(10 * time.Second):
		t.Error("our process lives on")
	}
	select {
	case <-anotherEnded:
		t.Error("somebody else's process was ended")
	default:
	}
	if _, err := os.Stat(filepath.Join(dir, "used", "by-others")); err != nil {
		t.Errorf("a folder that others use: %v", err)
	}
	again, err := stack.Clean(dir)
	if err != nil || len(again) != 0 {
		t.Errorf("cleaned again: %v, %v", again, err)
	}
}
