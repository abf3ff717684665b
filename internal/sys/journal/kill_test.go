package journal_test

import (
	"bufio"
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
)

// I23, I10: killed at any point, the writer's journal has every entry that was acknowledged and at most one more, and opens.
func TestKillNineAtEveryPointLosesNoAcknowledgedEntry(t *testing.T) {
	program := buildWriter(t)
	for _, point := range []string{
		"leaf.write/before", "leaf.write/during", "leaf.write/after", "checkpoint.sign/before", "checkpoint.sign/after",
		"checkpoint.rename/before", "checkpoint.rename/after",
	} {
		for _, nth := range []int{1, 2, 5} {
			t.Run(fmt.Sprintf("%s#%d", point, nth), func(t *testing.T) {
				dir := t.TempDir()
				for range 2 { // killed again on the journal that the first death left
					cmd := exec.Command(program, dir)
					cmd.Env = append(os.Environ(), fmt.Sprintf("TOURNIQUET_FAULT=%s#%d", point, nth))
					out, err := cmd.Output()
					if err == nil {
						t.Fatal("the writer was not killed")
					}
					checkAfterKill(t, dir, lastAcked(t, out))
				}
			})
		}
	}
}

func TestKillNineAtAnyTimeLosesNoAcknowledgedEntry(t *testing.T) {
	program, dir := buildWriter(t), t.TempDir()
	dice := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		cmd := exec.Command(program, dir)
		pipe, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var seen bytes.Buffer
		lines := bufio.NewScanner(pipe)
		for left := dice.IntN(60); lines.Scan(); left-- {
			seen.WriteString(lines.Text() + "\n")
			if left == 0 {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = cmd.Wait()
		checkAfterKill(t, dir, lastAcked(t, seen.Bytes()))
	}
}

func buildWriter(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "writer")
	if out, err := exec.Command("go", "build", "-tags", "faultpoints", "-o", program, "./testdata/writer").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return program
}

// lastAcked returns the last index that the writer printed, or -1. The writer may have died inside a line.
func lastAcked(t *testing.T, out []byte) int {
	t.Helper()
	lines := bytes.Split(out, []byte("\n"))
	if len(lines) < 2 {
		return -1
	}
	n, err := strconv.Atoi(string(lines[len(lines)-2]))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func checkAfterKill(t *testing.T, dir string, acked int) {
	t.Helper()
	j := open(t, options(dir, nil))
	defer closeIt(t, j)
	got := numbers(t, j)
	for i, n := range got {
		if i != n {
			t.Fatalf("entry %d is %d", i, n)
		}
	}
	if len(got) < acked+1 {
		t.Errorf("%d entries, %d were acknowledged", len(got), acked+1)
	}
}
