package journal_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tourniquet.dev/tourniquet/internal/ledger"
	"tourniquet.dev/tourniquet/internal/sys/disk"
	"tourniquet.dev/tourniquet/internal/sys/disk/disktest"
	"tourniquet.dev/tourniquet/internal/sys/journal"
)

const name = "tourniquet/test"

var (
	key = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, ed25519.SeedSize))
	pub = key.Public().(ed25519.PublicKey)
)

type fact struct {
	N int `json:"n"`
}

func options(dir string, fsys disk.FS) journal.Options {
	return journal.Options{Dir: dir, Name: name, Key: key, FS: fsys, Clock: func() time.Time { return time.Unix(1_800_000_000, 5) }}
}

func open(t *testing.T, o journal.Options) *journal.Journal {
	t.Helper()
	j, err := journal.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	return j
}

func fill(t *testing.T, j *journal.Journal, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		if at, err := j.Append("receipt", fact{i}); err != nil || at != int64(i) {
			t.Fatalf("append %d: index %d, %v", i, at, err)
		}
	}
}

// numbers returns the n of each entry.
func numbers(t *testing.T, j *journal.Journal) []int {
	t.Helper()
	got := []int{}
	err := j.Range(0, func(i int64, e ledger.Entry) error {
		var f fact
		got = append(got, 0)
		err := json.Unmarshal(e.Body, &f)
		got[i] = f.N
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func upTo(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	return out
}

func closeIt(t *testing.T, j *journal.Journal) {
	t.Helper()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestJournalKeepsItsEntries(t *testing.T) {
	dir := t.TempDir()
	j := open(t, options(dir, nil))
	fill(t, j, 0, 5)
	first := j.View().Checkpoint()
	closeIt(t, j)
	if _, err := j.Append("receipt", fact{}); !errors.Is(err, journal.ErrClosed) {
		t.Errorf("append after close: %v", err)
	}

	j = open(t, options(dir, nil))
	fill(t, j, 5, 9)
	if diff := cmp.Diff(upTo(9), numbers(t, j)); diff != "" {
		t.Error(diff)
	}
	b, err := j.View().Bundle(name, []int64{0, 3, 8}, first)
	if err != nil {
		t.Fatal(err)
	}
	v, err := ledger.Verify(b, pub)
	if err != nil || v.Checkpoint.Size != 9 || v.Entries[2].Kind != "receipt" {
		t.Errorf("%+v, %v", v, err)
	}
	view, err := journal.Load(dir, name, pub) // beside the open writer
	if err != nil || view.Size() != 9 {
		t.Fatal(view, err)
	}
	if err := view.Close(); err != nil {
		t.Error(err)
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	j := open(t, options(dir, nil))
	if _, err := journal.Open(options(dir, nil)); !errors.Is(err, disk.ErrLocked) {
		t.Errorf("a second writer: %v, want ErrLocked", err)
	}
	closeIt(t, j)
	other := options(dir, nil)
	other.Key = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{2}, ed25519.SeedSize))
	renamed := options(dir, nil)
	renamed.Name = "tourniquet/other"
	for what, o := range map[string]journal.Options{"another key": other, "another name": renamed} {
		var damage *journal.DamageError
		if _, err := journal.Open(o); !errors.As(err, &damage) {
			t.Errorf("%s: %v, want damage", what, err)
		}
	}
	for what, o := range map[string]journal.Options{"no key": {Dir: dir, Name: name}, "no name": {Dir: dir, Key: key}} {
		if _, err := journal.Open(o); err == nil {
			t.Errorf("%s is accepted", what)
		}
	}
}

func TestAppendRefusesWhatCannotBeAnEntry(t *testing.T) {
	j := open(t, options(t.TempDir(), nil))
	for what, err := range map[string]error{
		"no kind":          second(j.Append("", fact{})),
		"a kind with case": second(j.Append("Intent", fact{})),
		"a huge body":      second(j.Append("intent", bytes.Repeat([]byte("a"), journal.MaxEntry))),
		"a channel":        second(j.Append("intent", make(chan int))),
	} {
		if err == nil {
			t.Errorf("%s is accepted", what)
		}
	}
	fill(t, j, 0, 2) // and none of them left a trace
}

func second(_ int64, err error) error { return err }

func TestConcurrentAppendsShareOneOrder(t *testing.T) {
	dir := t.TempDir()
	j := open(t, options(dir, nil))
	const writers, each = 16, 20
	var wg sync.WaitGroup
	indexes := make([][]int64, writers)
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				at, err := j.Append("intent", fact{w*each + i})
				if err != nil {
					t.Error(err)
				}
				indexes[w] = append(indexes[w], at)
			}
		})
	}
	wg.Wait()
	closeIt(t, j)
	got := numbers(t, open(t, options(dir, nil)))
	for w := range writers {
		for i, at := range indexes[w] {
			if got[at] != w*each+i {
				t.Errorf("entry %d is %d, want %d", at, got[at], w*each+i)
			}
		}
	}
	if len(got) != writers*each {
		t.Errorf("%d entries, want %d", len(got), writers*each)
	}
}

// I10: without a record there is no effect, so each way in which a disk fails must fail the append.
func TestI10DiskErrorsFailTheAppend(t *testing.T) {
	for what, tc := range map[string]struct {
		op       string
		err      error
		poisoned bool
	}{
		"a full disk":               {"write", syscall.ENOSPC, false},
		"no room for a checkpoint":  {"open", syscall.ENOSPC, false},
		"a write error":             {"write", syscall.EIO, false},
		"a read-only file system":   {"open", syscall.EROFS, false},
		"a failed fsync":            {"sync", syscall.EIO, true},
		"a failed rename":           {"rename", syscall.EIO, true},
		"a failed fsync of the dir": {"syncdir", syscall.EIO, true},
	} {
		t.Run(what, func(t *testing.T) {
			dir := t.TempDir()
			var failing bool
			d := &disktest.Disk{}
			d.Fail = func(op, _ string) error {
				if failing && op == tc.op {
					return tc.err
				}
				return nil
			}
			j := open(t, options(dir, d))
			fill(t, j, 0, 3)
			failing = true
			if _, err := j.Append("intent", fact{99}); !errors.Is(err, tc.err) {
				t.Errorf("got %v, want %v", err, tc.err)
			}
			failing = false
			_, err := j.Append("receipt", fact{3})
			if errors.Is(err, journal.ErrPoisoned) != tc.poisoned || (err != nil) != tc.poisoned || (j.Err() != nil) != tc.poisoned {
				t.Errorf("next append: %v, poisoned %v; want poisoned %v", err, j.Err(), tc.poisoned)
			}
			closeIt(t, j)
			j = open(t, options(dir, d))
			if got := numbers(t, j); !cmp.Equal(upTo(3), got[:3]) || !tc.poisoned && !cmp.Equal(upTo(4), got) {
				t.Errorf("entries %v", got)
			}
		})
	}
}

func TestUndoOfAFailedWriteThatFailsPoisons(t *testing.T) {
	dir, d, failing := t.TempDir(), &disktest.Disk{}, false
	d.Fail = func(op, _ string) error {
		if failing && (op == "write" || op == "truncate") {
			return syscall.EIO
		}
		return nil
	}
	j := open(t, options(dir, d))
	failing = true
	if _, err := j.Append("intent", fact{}); !errors.Is(err, journal.ErrPoisoned) {
		t.Errorf("got %v, want ErrPoisoned", err)
	}
}

// Any byte of what was acknowledged, changed or cut off, keeps the journal from opening.
func TestEveryFlippedByteIsDetected(t *testing.T) {
	dir, d := t.TempDir(), &disktest.Disk{}
	j := open(t, options(dir, d))
	fill(t, j, 0, 4)
	closeIt(t, j)
	for _, file := range []string{journal.LogFile, journal.CheckpointFile} {
		path := filepath.Join(dir, file)
		good := bytes.Clone(d.Bytes(path))
		for i := range good {
			bad := bytes.Clone(good)
			bad[i] ^= 1 << (i % 8)
			d.SetBytes(path, bad)
			wantDamage(t, dir, d, fmt.Sprintf("%s with byte %d changed", file, i))
			d.SetBytes(path, good[:i])
			wantDamage(t, dir, d, fmt.Sprintf("%s cut at byte %d", file, i))
		}
		d.SetBytes(path, good)
	}
	if err := d.Remove(filepath.Join(dir, journal.CheckpointFile)); err != nil {
		t.Fatal(err)
	}
	wantDamage(t, dir, d, "no checkpoint")
}

func wantDamage(t *testing.T, dir string, d *disktest.Disk, what string) {
	t.Helper()
	j, err := journal.Open(options(dir, d))
	if err == nil {
		_ = j.Close()
	}
	var damage *journal.DamageError
	if !errors.As(err, &damage) {
		t.Errorf("%s: %v, want damage", what, err)
	}
}

func TestMissingLogIsDamage(t *testing.T) {
	dir, d := t.TempDir(), &disktest.Disk{}
	closeIt(t, open(t, options(dir, d)))
	if err := d.Remove(filepath.Join(dir, journal.LogFile)); err != nil {
		t.Fatal(err)
	}
	wantDamage(t, dir, d, "no log")
}

// What stands behind the checkpoint was never acknowledged: each beginning of a record is cut off, a whole one is kept.
func TestTornTailIsCutOff(t *testing.T) {
	dir, d := t.TempDir(), &disktest.Disk{}
	log, checkpoint := filepath.Join(dir, journal.LogFile), filepath.Join(dir, journal.CheckpointFile)
	j := open(t, options(dir, d))
	fill(t, j, 0, 3)
	short, signed := bytes.Clone(d.Bytes(log)), bytes.Clone(d.Bytes(checkpoint))
	fill(t, j, 3, 4)
	closeIt(t, j)
	long := bytes.Clone(d.Bytes(log))
	tails := [][]byte{make([]byte, 4096), []byte("garbage"), append(bytes.Clone(long[len(short):len(long)-1]), 'x')}
	for cut := len(short); cut <= len(long); cut++ {
		tails = append(tails, long[len(short):cut])
	}
	for _, tail := range tails {
		d.SetBytes(checkpoint, signed)
		d.SetBytes(log, append(bytes.Clone(short), tail...))
		j := open(t, options(dir, d))
		want := 3
		if len(short)+len(tail) == len(long) && bytes.Equal(tail, long[len(short):]) {
			want = 4
		}
		fill(t, j, want, want+1)
		if diff := cmp.Diff(upTo(want+1), numbers(t, j)); diff != "" {
			t.Errorf("tail of %d: %s", len(tail), diff)
		}
		closeIt(t, j)
	}
}

// A power cut at any operation keeps every acknowledged entry, and the journal opens again.
func TestPowerCutKeepsWhatWasAcknowledged(t *testing.T) {
	for seed := range uint64(300) {
		dice := rand.New(rand.NewPCG(seed, 1))
		dir, d := t.TempDir(), &disktest.Disk{}
		acked := 0
		for range 3 {
			left := dice.IntN(40)
			d.Fail = func(string, string) error {
				if left--; left < 0 {
					return syscall.EIO
				}
				return nil
			}
			j, err := journal.Open(options(dir, d))
			for err == nil {
				var at int64
				if at, err = j.Append("intent", fact{acked}); err == nil {
					acked = int(at) + 1
				}
			}
			d.PowerCut(dice)
			if j != nil {
				_ = j.Close()
			}
		}
		d.Fail = nil
		j, err := journal.Open(options(dir, d))
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if got := numbers(t, j); len(got) < acked {
			t.Errorf("seed %d: %d entries, %d were acknowledged", seed, len(got), acked)
		}
		_ = j.Close()
	}
}

func TestChangeUnderAnOpenJournalIsSeen(t *testing.T) {
	dir := t.TempDir()
	j := open(t, options(dir, nil))
	fill(t, j, 0, 2)
	f, err := os.OpenFile(filepath.Join(dir, journal.LogFile), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("X"), 30); err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	var damage *journal.DamageError
	if _, err := j.View().Entry(0); !errors.As(err, &damage) {
		t.Errorf("got %v, want damage", err)
	}
}

func BenchmarkAppend(b *testing.B) {
	for _, parallel := range []int{1, 32} {
		b.Run(fmt.Sprintf("writers=%d", parallel), func(b *testing.B) {
			j, err := journal.Open(options(b.TempDir(), nil))
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = j.Close() }()
			b.SetParallelism((parallel + 1) / 2)
			if parallel == 1 {
				for b.Loop() {
					if _, err := j.Append("intent", fact{1}); err != nil {
						b.Fatal(err)
					}
				}
				return
			}
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := j.Append("intent", fact{1}); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}
