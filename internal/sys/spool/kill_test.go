package spool_test

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"tourniquet.dev/tourniquet/internal/sys/spool"
)

// I21, I23: an appender that is killed at any point leaves every payload that was acknowledged to it, once and unchanged.
func TestI21KillNineAtEveryPoint(t *testing.T) {
	program := buildAppender(t)
	for _, point := range []string{
		"spool.append/before", "spool.fsync/before", "spool.fsync/after", "spool.roll/before", "spool.roll/during", "spool.roll/after",
		"cursor.write/before", "cursor.write/during", "cursor.write/after",
	} {
		t.Run(strings.ReplaceAll(point, "/", "-"), func(t *testing.T) {
			dir, held, next := t.TempDir(), map[int]bool{}, 1
			for _, nth := range []int{1, 2, 3, 1} { // killed again on what the last death left
				arm := fmt.Sprintf("TOURNIQUET_FAULT=%s#%d", point, nth)
				next = runUntilKilled(t, exec.Command(program, dir, fmt.Sprint(next)), arm, -1, held)
				checkHeld(t, dir, held)
			}
		})
	}
}

func TestI21KillNineAtAnyTime(t *testing.T) {
	program := buildAppender(t)
	dir, held, next := t.TempDir(), map[int]bool{}, 1
	dice := rand.New(rand.NewPCG(1, 4))
	for range 20 {
		next = runUntilKilled(t, exec.Command(program, dir, fmt.Sprint(next)), "TOURNIQUET_FAULT=", dice.IntN(100), held)
		checkHeld(t, dir, held)
	}
}

func buildAppender(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "appender")
	if out, err := exec.Command("go", "build", "-tags", "faultpoints", "-o", program, "./testdata/appender").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return program
}

// runUntilKilled keeps in held what the program holds, and kills it after some lines unless it dies before. It returns a number
// that the program did not come to.
func runUntilKilled(t *testing.T, cmd *exec.Cmd, arm string, after int, held map[int]bool) int {
	t.Helper()
	cmd.Env = append(os.Environ(), arm)
	cmd.Stderr = os.Stderr
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	last := 0
	for lines := bufio.NewScanner(pipe); lines.Scan(); after-- {
		var sign rune
		var n int
		if _, err := fmt.Sscanf(lines.Text(), "%c%d", &sign, &n); err != nil {
			t.Fatal(err)
		}
		if sign == '+' {
			held[n], last = true, n
		} else {
			delete(held, n)
		}
		if after == 0 {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Fatalf("the appender ended by itself: %v", err)
	}
	var start int
	_, _ = fmt.Sscan(cmd.Args[2], &start)
	return max(last, start-1) + 2 // one more may have been appended without its word
}

func checkHeld(t *testing.T, dir string, held map[int]bool) {
	t.Helper()
	s := open(t, spool.Options{Dir: dir, MaxBytes: 1 << 20, SegmentBytes: 2 << 10})
	defer closeIt(t, s)
	seen := map[int]bool{}
	for _, r := range rest(t, s) {
		var n int
		if _, err := fmt.Sscan(strings.Trim(string(r.Payload), "\x00"), &n); err != nil || len(r.Payload) != 300 || seen[n] {
			t.Fatalf("record %d is %.10q, %v; twice: %v", r.Seq, r.Payload, err, seen[n])
		}
		seen[n] = true
	}
	for n := range held {
		if !seen[n] {
			t.Errorf("payload %d is lost", n)
		}
	}
	if stats := s.Stats(); stats.Damaged+stats.Lost > 0 || stats.Refused != [2]uint64{} {
		t.Errorf("%+v", stats)
	}
}
