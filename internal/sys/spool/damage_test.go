package spool_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"tourniquet.dev/tourniquet/internal/sys/disk"
	"tourniquet.dev/tourniquet/internal/sys/disk/disktest"
	"tourniquet.dev/tourniquet/internal/sys/spool"
)

// spooled writes payloads of about size bytes to one segment until it has total bytes, and returns the path of the segment.
func spooled(t testing.TB, dir string, d *disktest.Disk, total, size int) (path string, payloads [][]byte) {
	t.Helper()
	s, err := spool.Open(large(dir, d))
	if err != nil {
		t.Fatal(err)
	}
	dice := rand.New(rand.NewPCG(uint64(total), uint64(size)))
	for sum := 0; sum < total; sum += len(payloads[len(payloads)-1]) + 44 {
		payload := make([]byte, size/2+dice.IntN(size))
		for i := range payload {
			payload[i] = byte(dice.Uint32())
		}
		if _, err := s.Append(t.Context(), spool.Normal, payload); err != nil {
			t.Fatal(err)
		}
		payloads = append(payloads, payload)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return segmentOf(t, dir, d), payloads
}

func large(dir string, fsys disk.FS) spool.Options {
	return spool.Options{Dir: dir, FS: fsys, MaxBytes: 4 << 20, SegmentBytes: 512 * kib, ReserveBytes: kib}
}

func segmentOf(t testing.TB, dir string, d *disktest.Disk) string {
	t.Helper()
	names, err := d.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	names = slices.DeleteFunc(names, func(n string) bool { return !strings.HasSuffix(n, ".seg") })
	if len(names) != 1 {
		t.Fatalf("segments %v, want one", names)
	}
	return filepath.Join(dir, names[0])
}

// readAll returns what a spool with this damage hands out, and its figures.
func readAll(t *testing.T, dir string, fsys disk.FS) ([]spool.Record, spool.Stats) {
	t.Helper()
	s, err := spool.Open(large(dir, fsys))
	if err != nil {
		t.Fatal(err)
	}
	var out []spool.Record
	for {
		r, err := next(s)
		if err != nil {
			break
		}
		out = append(out, r)
	}
	stats := s.Stats()
	closeIt(t, s)
	return out, stats
}

// check wants the payloads as they were, in order, but for at most lost of them.
func check(t *testing.T, what string, payloads [][]byte, got []spool.Record, lost int) {
	t.Helper()
	at := 0
	for _, r := range got {
		for at < len(payloads) && (r.Seq != uint64(at+1) || !bytes.Equal(payloads[at], r.Payload)) {
			at++
		}
		if at == len(payloads) {
			t.Fatalf("%s: record %d was never appended", what, r.Seq)
		}
		at++
	}
	if len(got) < len(payloads)-lost {
		t.Fatalf("%s: %d of %d records, at most %d may be lost", what, len(got), len(payloads), lost)
	}
}

// I22: a flipped bit in any byte of a segment costs at most one record, changes none, and is told.
func TestI22FlippedBitInEveryByte(t *testing.T) {
	total := 48 * kib
	if os.Getenv("TOURNIQUET_LONG") != "" { // three minutes
		total = 256 * kib
	}
	dir, d := t.TempDir(), &disktest.Disk{}
	path, payloads := spooled(t, dir, d, total, 2*kib)
	good := bytes.Clone(d.Bytes(path))
	dice := rand.New(rand.NewPCG(1, 1))
	for i := range good {
		bit := byte(1) << dice.IntN(8)
		d.Bytes(path)[i] ^= bit
		got, stats := readAll(t, dir, d)
		d.Bytes(path)[i] ^= bit
		what := fmt.Sprintf("bit %08b of byte %d", bit, i)
		check(t, what, payloads, got, 1)
		if stats.Damaged != 1 || len(got) != len(payloads)-1 {
			t.Fatalf("%s: not noticed: %+v", what, stats)
		}
		if next := i + 1; next%(16*kib) == 0 {
			clearQuarantine(t, dir, d)
		}
	}
	if !bytes.Equal(good, d.Bytes(path)) {
		t.Error("reading changed the segment")
	}
}

func clearQuarantine(t *testing.T, dir string, d *disktest.Disk) {
	t.Helper()
	names, _ := d.List(dir)
	for _, name := range names {
		if strings.HasPrefix(name, "quarantine-") {
			if err := d.Remove(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// I22: a segment cut anywhere gives all records before the cut, and tells an unfinished one apart from damage.
func TestI22TornTail(t *testing.T) {
	dir, d := t.TempDir(), &disktest.Disk{}
	path, payloads := spooled(t, dir, d, 4*kib, 200)
	good := bytes.Clone(d.Bytes(path))
	ends, end := []int{0}, 0
	for _, p := range payloads {
		end += 44 + len(p)
		ends = append(ends, end)
	}
	for cut := range len(good) + 1 {
		for _, tail := range [][]byte{nil, make([]byte, 100)} { // as it was cut, and with blocks that were not written
			d.SetBytes(path, append(bytes.Clone(good[:cut]), tail...))
			whole, exact := slices.BinarySearch(ends, cut)
			if !exact {
				whole--
			}
			got, stats := readAll(t, dir, d)
			what := fmt.Sprintf("cut at %d with %d zeros", cut, len(tail))
			check(t, what, payloads[:whole], got, 0)
			if tail == nil && (stats.Torn == 1) == exact || stats.Damaged > 0 && tail == nil {
				t.Fatalf("%s: %+v", what, stats)
			}
		}
	}
}

// I22: whatever happens to a segment, each record whose bytes are as they were is handed out, and no other.
func TestI22AnyDamageCostsOnlyWhatItHits(t *testing.T) {
	dir, d := t.TempDir(), &disktest.Disk{}
	path, payloads := spooled(t, dir, d, 32*kib, 500)
	good := bytes.Clone(d.Bytes(path))
	for seed := range uint64(2000) {
		dice := rand.New(rand.NewPCG(seed, 2))
		bad := bytes.Clone(good)
		for range 1 + dice.IntN(4) {
			from := dice.IntN(len(bad))
			to := min(len(bad), from+1+dice.IntN(1500))
			switch dice.IntN(4) {
			case 0:
				clear(bad[from:to])
			case 1:
				copy(bad[from:to], good[dice.IntN(len(good)):]) // other records' bytes, headers and all
			case 2:
				bad[from] ^= 1 << dice.IntN(8)
			case 3:
				for i := from; i < to; i++ {
					bad[i] = byte(dice.Uint32())
				}
			}
		}
		hit, at := 0, 0
		for _, p := range payloads {
			if end := at + 44 + len(p); !bytes.Equal(bad[at:end], good[at:end]) {
				hit++
				at = end
			} else {
				at = end
			}
		}
		d.SetBytes(path, bad)
		got, stats := readAll(t, dir, d)
		check(t, fmt.Sprintf("seed %d", seed), payloads, got, hit)
		if hit > 0 && stats.Damaged+stats.Torn == 0 {
			t.Fatalf("seed %d: %d records hit, not noticed: %+v", seed, hit, stats)
		}
		clearQuarantine(t, dir, d)
	}
}

func TestDamageIsQuarantinedAndCounted(t *testing.T) {
	dir, d := t.TempDir(), &disktest.Disk{}
	path, payloads := spooled(t, dir, d, 8*kib, kib)
	d.Bytes(path)[50] ^= 1 // the first payload
	got, stats := readAll(t, dir, d)
	check(t, "one byte", payloads, got, 1)
	if stats.Damaged != 1 || stats.Lost != 1 {
		t.Errorf("%+v", stats)
	}
	names, err := d.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(names, func(n string) bool { return strings.HasPrefix(n, "quarantine-normal-") })
	if i < 0 {
		t.Fatalf("no quarantine in %v", names)
	}
	if want := d.Bytes(path)[:44+len(payloads[0])]; !bytes.Equal(d.Bytes(filepath.Join(dir, names[i])), want) {
		t.Error("the quarantine does not hold what was damaged")
	}
}

// A payload that holds whole records, of another spool or of this one's past, is never read as records.
func TestRecordsInsideAPayloadAreNotRead(t *testing.T) {
	other, otherDisk := t.TempDir(), &disktest.Disk{}
	otherPath, _ := spooled(t, other, otherDisk, 4*kib, 100)
	dir, d := t.TempDir(), &disktest.Disk{}
	s, err := spool.Open(large(dir, d))
	if err != nil {
		t.Fatal(err)
	}
	payloads := [][]byte{[]byte("a"), bytes.Clone(otherDisk.Bytes(otherPath)), []byte("b")}
	for _, p := range payloads {
		if _, err := s.Append(t.Context(), spool.Normal, p); err != nil {
			t.Fatal(err)
		}
	}
	closeIt(t, s)
	d.Bytes(segmentOf(t, dir, d))[45+8] ^= 1 // the length of the second record, so that its payload is searched
	got, _ := readAll(t, dir, d)
	check(t, "forged records", payloads, got, 1)
	if len(got) != 2 {
		t.Errorf("%d records, want 2", len(got))
	}
}

// A block that the disk cannot read costs the records in it.
func TestUnreadableBlock(t *testing.T) {
	dir, d := t.TempDir(), &disktest.Disk{}
	_, payloads := spooled(t, dir, d, 16*kib, 300)
	fsys := badBlock{d, 4096, 512}
	got, stats := readAll(t, dir, fsys)
	check(t, "a bad block", payloads, got, 5)
	if stats.Damaged == 0 || len(got) == len(payloads) {
		t.Errorf("not noticed: %+v", stats)
	}
}

// badBlock cannot read some bytes of each segment.
type badBlock struct {
	*disktest.Disk
	at, size int64
}

func (b badBlock) OpenFile(path string, flag int, perm fs.FileMode) (disk.File, error) {
	f, err := b.Disk.OpenFile(path, flag, perm)
	if err != nil || !strings.HasSuffix(path, ".seg") {
		return f, err
	}
	return badFile{f, b}, nil
}

type badFile struct {
	disk.File
	b badBlock
}

func (f badFile) ReadAt(p []byte, off int64) (int, error) {
	if off < f.b.at+f.b.size && f.b.at < off+int64(len(p)) {
		return 0, syscall.EIO
	}
	return f.File.ReadAt(p, off)
}

// I21, a power cut at any operation: what was acknowledged to an appender is handed out, until it is acknowledged in turn.
func TestI21PowerCutKeepsWhatWasAcknowledged(t *testing.T) {
	for seed := range uint64(400) {
		dice := rand.New(rand.NewPCG(seed, 3))
		dir, d := t.TempDir(), &disktest.Disk{}
		held := map[uint64]string{} // acknowledged to the appender, not yet by the reader
		tried, last := 0, uint64(0)
		for range 4 {
			left := dice.IntN(60)
			d.Fail = func(string, string) error {
				if left--; left < 0 {
					return []error{syscall.EIO, syscall.ENOSPC}[seed%2]
				}
				return nil
			}
			s, err := spool.Open(options(dir, d))
			for err == nil && left >= 0 {
				if dice.IntN(3) > 0 {
					tried++
					payload := fmt.Sprintf("%d %s", tried, strings.Repeat("x", dice.IntN(600)))
					var seq uint64
					if seq, err = s.Append(t.Context(), spool.Lane(dice.IntN(2)), []byte(payload)); err == nil {
						if seq <= last {
							t.Fatalf("seed %d: sequence %d after %d", seed, seq, last)
						}
						held[seq], last = payload, seq
					}
				} else if r, readErr := next(s); readErr == nil {
					if want, ok := held[r.Seq]; ok && want != string(r.Payload) {
						t.Fatalf("seed %d: record %d is %.20q, want %.20q", seed, r.Seq, r.Payload, want)
					}
					delete(held, r.Seq) // a cut during Ack may forget it or not
					err = s.Ack(t.Context(), r)
				}
			}
			d.PowerCut(dice)
			if s != nil {
				_ = s.Close()
			}
		}
		d.Fail = nil
		got, stats := readAll(t, dir, d)
		found := map[uint64]string{}
		for _, r := range got {
			found[r.Seq] = string(r.Payload)
		}
		for seq, want := range held {
			if found[seq] != want {
				t.Errorf("seed %d: record %d is %.20q, want %.20q; %+v", seed, seq, found[seq], want, stats)
			}
		}
	}
}

func FuzzSegment(f *testing.F) {
	dir, d := f.TempDir(), &disktest.Disk{}
	path, payloads := spooled(f, dir, d, 2*kib, 100)
	good := bytes.Clone(d.Bytes(path))
	f.Add(uint16(0), []byte{}, uint16(10))
	f.Add(uint16(8), []byte{1, 2, 3}, uint16(3))
	f.Add(uint16(100), good[:200], uint16(0))
	f.Fuzz(func(t *testing.T, at uint16, put []byte, cut uint16) { // replaces cut bytes at at by put
		from := min(int(at), len(good))
		to := min(from+int(cut), len(good))
		dir, d := t.TempDir(), &disktest.Disk{}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		d.SetBytes(filepath.Join(dir, filepath.Base(path)), slices.Concat(good[:from], put, good[to:]))
		got, _ := readAll(t, dir, d)
		check(t, "edited", payloads, got, len(payloads))
		for _, r := range got {
			if !bytes.Equal(r.Payload, payloads[r.Seq-1]) {
				t.Errorf("record %d was never appended", r.Seq)
			}
		}
	})
}

func TestFailingListIsAnError(t *testing.T) {
	if _, err := spool.Open(options(t.TempDir(), noList{&disktest.Disk{}})); !errors.Is(err, syscall.EACCES) {
		t.Errorf("got %v, want EACCES", err)
	}
}

type noList struct{ *disktest.Disk }

func (noList) List(string) ([]string, error) { return nil, syscall.EACCES }
