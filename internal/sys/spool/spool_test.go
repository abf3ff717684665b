package spool_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"tourniquet.dev/tourniquet/internal/sys/disk"
	"tourniquet.dev/tourniquet/internal/sys/disk/disktest"
	"tourniquet.dev/tourniquet/internal/sys/spool"
)

const kib = 1 << 10

func options(dir string, fsys disk.FS) spool.Options {
	return spool.Options{Dir: dir, FS: fsys, MaxBytes: 64 * kib, SegmentBytes: 4 * kib, ReserveBytes: 8 * kib,
		Clock: func() time.Time { return time.Unix(1_800_000_000, 7) }}
}

func open(t *testing.T, o spool.Options) *spool.Spool {
	t.Helper()
	s, err := spool.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func closeIt(t *testing.T, s *spool.Spool) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func put(t *testing.T, s *spool.Spool, lane spool.Lane, payloads ...string) {
	t.Helper()
	for _, p := range payloads {
		if _, err := s.Append(t.Context(), lane, []byte(p)); err != nil {
			t.Fatalf("append %.20q: %v", p, err)
		}
	}
}

// rest reads until nothing is left. A closed context tells that: Next looks at the disk before it waits.
func rest(t *testing.T, s *spool.Spool) []spool.Record {
	t.Helper()
	var out []spool.Record
	pending := s.Stats().Pending
	for left := pending[spool.Critical] + pending[spool.Normal]; left > 0; left-- {
		r, err := next(s)
		if errors.Is(err, context.DeadlineExceeded) {
			break // the others were lost
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, r)
	}
	return out
}

// next waits at most a moment of virtual time, so that a record that will never come does not hang the test.
func next(s *spool.Spool) (spool.Record, error) {
	ctx := &lapsing{Context: context.Background(), done: make(chan struct{})}
	close(ctx.done)
	return s.Next(ctx)
}

// lapsing is a context that has time for one look: Err is nil the first time.
type lapsing struct {
	context.Context
	done  chan struct{}
	asked bool
}

func (l *lapsing) Done() <-chan struct{} { return l.done }

func (l *lapsing) Err() error {
	if l.asked {
		return context.DeadlineExceeded
	}
	l.asked = true
	return nil
}

func texts(records []spool.Record) []string {
	out := []string{}
	for _, r := range records {
		out = append(out, r.Lane.String()+" "+string(r.Payload))
	}
	return out
}

func wantTexts(t *testing.T, s *spool.Spool, want ...string) []spool.Record {
	t.Helper()
	got := rest(t, s)
	if diff := cmp.Diff(append([]string{}, want...), texts(got)); diff != "" {
		t.Error(diff)
	}
	return got
}

func TestCriticalComesFirstAndOrderIsKept(t *testing.T) {
	s := open(t, options(t.TempDir(), nil))
	put(t, s, spool.Normal, "a", "b")
	put(t, s, spool.Critical, "x", "")
	put(t, s, spool.Normal, "c")
	got := wantTexts(t, s, "critical x", "critical ", "normal a", "normal b", "normal c")
	if got[0].Seq != 3 || got[4].Seq != 5 || !got[0].Time.Equal(time.Unix(1_800_000_000, 7)) {
		t.Errorf("%+v", got)
	}
}

func TestWhatIsNotAcknowledgedComesAgain(t *testing.T) {
	dir := t.TempDir()
	s := open(t, options(dir, nil))
	put(t, s, spool.Normal, "a", "b", "c")
	put(t, s, spool.Critical, "x", "y")
	records := rest(t, s)
	if err := s.Ack(t.Context(), records[0], records[3]); err != nil { // x, and a with b
		t.Fatal(err)
	}
	if diff := cmp.Diff([2]uint64{1, 1}, s.Stats().Pending); diff != "" {
		t.Error(diff)
	}
	closeIt(t, s)
	s = open(t, options(dir, nil))
	if got := s.Stats(); got.Pending != [2]uint64{1, 1} || got.Recovered != 5 {
		t.Errorf("%+v", got)
	}
	put(t, s, spool.Normal, "d")
	got := wantTexts(t, s, "critical y", "normal c", "normal d")
	if got[2].Seq != 6 {
		t.Errorf("sequence %d after a restart, want 6", got[2].Seq)
	}
	if err := s.Ack(t.Context(), got...); err != nil {
		t.Fatal(err)
	}
	closeIt(t, s)
	wantTexts(t, open(t, options(dir, nil)))
}

func TestAckRefusesWhatWasNotRead(t *testing.T) {
	s := open(t, options(t.TempDir(), nil))
	put(t, s, spool.Normal, "a", "b")
	r, err := s.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r.Seq++
	if err := s.Ack(t.Context(), r); err == nil {
		t.Error("a record that was not read is acknowledged")
	}
	if err := s.Ack(t.Context()); err != nil {
		t.Errorf("nothing to acknowledge: %v", err)
	}
}

func TestNextWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := spool.Open(options(t.TempDir(), &disktest.Disk{}))
		if err != nil {
			t.Fatal(err)
		}
		got := make(chan string, 1)
		go func() {
			r, err := s.Next(t.Context())
			got <- fmt.Sprint(string(r.Payload), err)
		}()
		synctest.Wait()
		put(t, s, spool.Normal, "a")
		if text := <-got; text != "a<nil>" {
			t.Errorf("got %s", text)
		}
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			_, err := s.Next(ctx)
			got <- fmt.Sprint(errors.Is(err, context.Canceled))
		}()
		synctest.Wait()
		cancel()
		if text := <-got; text != "true" {
			t.Errorf("cancelled: %s", text)
		}
		go func() {
			_, err := s.Next(t.Context())
			got <- fmt.Sprint(errors.Is(err, spool.ErrClosed))
		}()
		synctest.Wait()
		closeIt(t, s)
		if text := <-got; text != "true" {
			t.Errorf("closed: %s", text)
		}
	})
}

func TestRefusals(t *testing.T) {
	dir := t.TempDir()
	s := open(t, options(dir, nil))
	if _, err := spool.Open(options(dir, nil)); !errors.Is(err, disk.ErrLocked) {
		t.Errorf("a second opener: %v, want ErrLocked", err)
	}
	if _, err := s.Append(t.Context(), spool.Normal, make([]byte, spool.MaxRecord+1)); !errors.Is(err, spool.ErrTooLarge) {
		t.Errorf("too large: %v", err)
	}
	if _, err := s.Append(t.Context(), 7, nil); err == nil {
		t.Error("a lane that does not exist is accepted")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Append(ctx, spool.Normal, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	closeIt(t, s)
	if _, err := s.Append(t.Context(), spool.Normal, nil); !errors.Is(err, spool.ErrClosed) {
		t.Errorf("append after close: %v", err)
	}
	if _, err := s.Next(t.Context()); !errors.Is(err, spool.ErrClosed) {
		t.Errorf("next after close: %v", err)
	}
	if err := s.Ack(t.Context(), spool.Record{}); err == nil {
		t.Error("acknowledge after close: no error")
	}
	for name, o := range map[string]spool.Options{
		"a reserve of all":   {Dir: dir, MaxBytes: kib, ReserveBytes: kib},
		"large segments":     {Dir: dir, MaxBytes: kib, SegmentBytes: kib},
		"a negative maximum": {Dir: dir, MaxBytes: -1},
	} {
		if s, err := spool.Open(o); err == nil {
			_ = s.Close()
			t.Errorf("%s is accepted", name)
		}
	}
}

// I21: a full spool refuses and counts, keeps room for what is critical, and has room again when something is acknowledged.
func TestI21FullSpoolRefusesAndKeepsRoomForCritical(t *testing.T) {
	s := open(t, options(t.TempDir(), nil))
	payload := make([]byte, kib)
	fill := func(lane spool.Lane) (n int) {
		for {
			switch _, err := s.Append(t.Context(), lane, payload); {
			case errors.Is(err, spool.ErrFull):
				return n
			case err != nil:
				t.Fatal(err)
			}
			n++
		}
	}
	normal, critical := fill(spool.Normal), fill(spool.Critical)
	if normal != 53 || critical != 8 { // of 1,068 bytes each: 56 KiB for both, then what is left of 64
		t.Errorf("%d normal and %d critical payloads fit", normal, critical)
	}
	stats := s.Stats()
	if stats.Refused != [2]uint64{1, 1} || stats.Bytes > 64*kib {
		t.Errorf("%+v", stats)
	}
	records := rest(t, s)
	if err := s.Ack(t.Context(), records...); err != nil {
		t.Fatal(err)
	}
	if again := fill(spool.Normal); again < 40 {
		t.Errorf("only %d fit after everything was acknowledged", again)
	}
}

// fullDisk has no room for segments or files once it is full, until the reserve is given back.
func fullDisk() (d *disktest.Disk, full *bool) {
	full = new(bool)
	d = &disktest.Disk{}
	d.Fail = func(op, path string) error {
		if op == "remove" && strings.HasSuffix(path, "reserve") {
			*full = false
		}
		if *full && op == "write" {
			return syscall.ENOSPC
		}
		return nil
	}
	return d, full
}

// I21, ENOSPC: nothing of a refused payload stays, critical ones take the reserve, and what was acknowledged is there.
func TestI21FullDisk(t *testing.T) {
	dir := t.TempDir()
	d, full := fullDisk()
	s := open(t, options(dir, d))
	put(t, s, spool.Normal, "a")
	*full = true
	if _, err := s.Append(t.Context(), spool.Normal, []byte("b")); !errors.Is(err, spool.ErrFull) || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got %v, want ErrFull", err)
	}
	put(t, s, spool.Critical, "x") // from the reserve
	*full = true
	if _, err := s.Append(t.Context(), spool.Critical, []byte("y")); !errors.Is(err, spool.ErrFull) {
		t.Errorf("got %v, want ErrFull", err)
	}
	records := wantTexts(t, s, "critical x", "normal a")
	if err := s.Ack(t.Context(), records...); err != nil { // cannot be saved, and is no reason to stop
		t.Errorf("acknowledge on a full disk: %v", err)
	}
	stats := s.Stats()
	if stats.Refused != [2]uint64{1, 1} || stats.Unsaved != 1 || stats.Pending != [2]uint64{} || s.Err() != nil {
		t.Errorf("%+v, %v", stats, s.Err())
	}
	*full = false
	put(t, s, spool.Normal, "c")
	closeIt(t, s)
	s = open(t, options(dir, d))
	wantTexts(t, s, "critical x", "normal a", "normal c")
	if stats := s.Stats(); stats.Damaged+stats.Lost+stats.Torn > 0 {
		t.Errorf("%+v", stats)
	}
}

// I21: after a failed fsync nothing is acknowledged any more, however often it is tried.
func TestI21FailedFsyncPoisons(t *testing.T) {
	for name, fail := range map[string]func(op, path string) error{
		"of a segment": func(op, path string) error {
			return failIf(op == "sync" && strings.HasSuffix(path, ".seg"), syscall.EIO)
		},
		"of a segment, for want of room": func(op, path string) error {
			return failIf(op == "sync" && strings.HasSuffix(path, ".seg"), syscall.ENOSPC)
		},
		"of the directory": func(op, _ string) error { return failIf(op == "syncdir", syscall.EIO) },
		"a write": func(op, path string) error {
			return failIf(op == "write" && strings.HasSuffix(path, ".seg"), syscall.EIO)
		},
		"an undo": func(op, path string) error {
			return failIf((op == "write" || op == "truncate") && strings.HasSuffix(path, ".seg"), syscall.ENOSPC)
		},
	} {
		t.Run(name, func(t *testing.T) {
			d, dir, failing := &disktest.Disk{}, t.TempDir(), false
			d.Fail = func(op, path string) error {
				if failing {
					return fail(op, path)
				}
				return nil
			}
			s := open(t, options(dir, d))
			failing = true
			if _, err := s.Append(t.Context(), spool.Critical, []byte("a")); !errors.Is(err, spool.ErrPoisoned) {
				t.Errorf("got %v, want ErrPoisoned", err)
			}
			failing = false
			if _, err := s.Append(t.Context(), spool.Normal, []byte("b")); !errors.Is(err, spool.ErrPoisoned) || s.Err() == nil {
				t.Errorf("then got %v, Err %v", err, s.Err())
			}
		})
	}
	d, failing := &disktest.Disk{}, false
	d.Fail = func(op, path string) error { return failIf(failing && op == "rename", syscall.EIO) }
	s := open(t, options(t.TempDir(), d))
	put(t, s, spool.Normal, "a")
	records := rest(t, s)
	failing = true
	if err := s.Ack(t.Context(), records...); !errors.Is(err, spool.ErrPoisoned) {
		t.Errorf("cursor: got %v, want ErrPoisoned", err)
	}
}

func failIf(yes bool, err error) error {
	if yes {
		return err
	}
	return nil
}

func TestSegmentsGoWhenTheyAreAcknowledged(t *testing.T) {
	dir, d := t.TempDir(), &disktest.Disk{}
	s := open(t, options(dir, d))
	for range 200 { // four times what fits at once
		put(t, s, spool.Normal, strings.Repeat("n", kib))
		put(t, s, spool.Critical, strings.Repeat("c", kib/4))
		for _, r := range rest(t, s) {
			if err := s.Ack(t.Context(), r); err != nil {
				t.Fatal(err)
			}
		}
	}
	names, err := d.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	segments := 0
	for _, name := range names {
		if strings.HasSuffix(name, ".seg") {
			segments++
		}
	}
	if segments > 4 || s.Stats().Bytes > 20*kib {
		t.Errorf("%d segments, %+v", segments, s.Stats())
	}
}

func TestDamagedCursorReadsAgain(t *testing.T) {
	dir, d := t.TempDir(), &disktest.Disk{}
	s := open(t, options(dir, d))
	put(t, s, spool.Normal, "a", "b")
	if err := s.Ack(t.Context(), rest(t, s)...); err != nil {
		t.Fatal(err)
	}
	closeIt(t, s)
	cursor := filepath.Join(dir, "cursor")
	good := bytes.Clone(d.Bytes(cursor))
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 4
		d.SetBytes(cursor, bad)
		s := open(t, options(dir, d))
		if stats := s.Stats(); !stats.CursorLost || stats.Pending[spool.Normal] != 2 {
			t.Errorf("byte %d: %+v", i, stats)
		}
		wantTexts(t, s, "normal a", "normal b")
		closeIt(t, s)
	}
}

func TestManyAppendersShareOneOrder(t *testing.T) {
	dir := t.TempDir()
	o := options(dir, nil)
	o.MaxBytes, o.SegmentBytes = 1<<20, 8*kib
	s := open(t, o)
	const appenders, each = 32, 50
	var wg sync.WaitGroup
	for a := range appenders {
		wg.Go(func() {
			last := uint64(0)
			for i := range each {
				seq, err := s.Append(t.Context(), spool.Lane(a%2), fmt.Appendf(nil, "%d/%d", a, i))
				if err != nil || seq <= last {
					t.Errorf("sequence %d after %d, %v", seq, last, err)
				}
				last = seq
			}
		})
	}
	seen := map[string]int{}
	for range appenders * each { // while they append
		r, err := s.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var a, i int
		if _, err := fmt.Sscanf(string(r.Payload), "%d/%d", &a, &i); err != nil || seen[fmt.Sprint(a)] != i {
			t.Fatalf("got %s, want number %d", r.Payload, seen[fmt.Sprint(a)])
		}
		seen[fmt.Sprint(a)]++
		if i%10 == 0 {
			if err := s.Ack(t.Context(), r); err != nil {
				t.Fatal(err)
			}
		}
	}
	wg.Wait()
}
