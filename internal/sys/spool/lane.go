package spool

import (
	"cmp"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"

	"tourniquet.dev/tourniquet/internal/sys/disk"
	"tourniquet.dev/tourniquet/internal/sys/fault"
)

// A segment is one file of a lane. Its name says the lane, the first sequence that it was begun for, and its mark.
type segment struct {
	path  string
	first uint64
	mark  uint64
	size  int64 // that is durable
}

const segmentPattern = "%s-%016x-%016x.seg"

// A lane is the segments of one lane, oldest first. The writer alone adds to it, the reader alone takes away.
type lane struct {
	spool *Spool
	id    Lane

	// The writer's own. A segment that Open found is never appended to: what a dying writer left at its end stays there.
	active   disk.File // nil until the first append
	tail     segment   // that active is
	fresh    uint64    // the mark of the segment that comes next
	segments []segment // guarded by spool.mu
	durable  position  // of the last record on disk; guarded by spool.mu

	// The reader's own.
	open      disk.File
	at        segment // that open is
	offset    int64
	last      position   // that was read, or acknowledged before Open
	left      uint64     // last sequence before the segment that is open
	delivered []position // and not acknowledged
}

// openLane finds the lane's segments among the names in the directory, and where its sequence goes on.
func (s *Spool) openLane(id Lane, names []string) (*lane, error) {
	l := &lane{spool: s, id: id, durable: s.cursor[id], last: s.cursor[id]}
	for _, name := range names {
		var first, mark uint64
		n, err := fmt.Sscanf(name, id.String()+"-%16x-%16x.seg", &first, &mark)
		if err != nil || n != 2 || name != fmt.Sprintf(segmentPattern, id, first, mark) {
			continue
		}
		seg := segment{path: filepath.Join(s.opts.Dir, name), first: first, mark: mark}
		if seg.size, err = s.sizeOf(seg.path); err != nil {
			return nil, err
		}
		l.segments = append(l.segments, seg)
	}
	slices.SortFunc(l.segments, func(a, b segment) int { return cmp.Compare(a.first, b.first) })
	if s.stats.CursorLost && len(l.segments) > 0 { // begin with what is there
		first, _, err := s.positions(l.segments[0])
		if err != nil {
			return nil, err
		}
		l.last = position{max(first.sequence, 1) - 1, max(first.ordinal, 1) - 1}
		s.cursor[id] = l.last
	}
	for i := len(l.segments) - 1; i >= 0; i-- {
		_, last, err := s.positions(l.segments[i])
		if err != nil {
			return nil, err
		}
		l.durable.sequence = max(l.durable.sequence, last.sequence, l.segments[i].first-1)
		l.durable.ordinal = max(l.durable.ordinal, last.ordinal)
		if last.sequence > 0 {
			break // every segment before it ends before it began
		}
	}
	return l, l.chooseMark()
}

func (s *Spool) sizeOf(path string) (int64, error) {
	f, err := s.opts.FS.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		return 0, err
	}
	size, err := f.Size()
	return size, errors.Join(err, f.Close())
}

// positions reads a segment to its end and returns where its first and last records stand, or nothing if it holds none.
func (s *Spool) positions(seg segment) (first, last position, err error) {
	f, err := s.opts.FS.OpenFile(seg.path, os.O_RDONLY, 0)
	if err != nil {
		return first, last, err
	}
	for offset := int64(0); ; {
		found, err := scan(f, seg, offset)
		if err != nil || !found.ok {
			return first, last, errors.Join(err, f.Close())
		}
		last, offset = position{found.header.sequence, found.header.ordinal}, found.end
		if first.sequence == 0 {
			first = last
		}
	}
}

func (l *lane) chooseMark() error {
	var raw [8]byte
	if _, err := rand.Read(raw[:]); err != nil {
		return err
	}
	l.fresh = binary.LittleEndian.Uint64(raw[:])
	return nil
}

// goesTo is the mark of the segment, and the offset in it, that the next append goes to.
func (l *lane) goesTo() (mark uint64, offset int64) {
	if l.mustRoll() {
		return l.fresh, 0
	}
	return l.tail.mark, l.tail.size
}

func (l *lane) mustRoll() bool {
	return l.active == nil || l.tail.size >= l.spool.opts.SegmentBytes
}

// append writes records up to last and makes them durable. When it fails for want of room, nothing of them is left.
func (l *lane) append(out []byte, last position) error {
	if l.mustRoll() {
		if err := l.roll(); err != nil {
			return err
		}
	}
	end := l.tail.size
	fault.Point("spool.append/before")
	if _, err := l.active.WriteAt(out, end); err != nil {
		if undo := l.active.Truncate(end); undo != nil {
			return fmt.Errorf("%w: write: %w; undo: %w", ErrPoisoned, err, undo) // a torn record is in the way
		}
		return fmt.Errorf("write: %w", err)
	}
	fault.Point("spool.fsync/before")
	if err := l.active.Sync(); err != nil {
		return fmt.Errorf("%w: sync: %w", ErrPoisoned, err) // also when it says that the disk is full
	}
	fault.Point("spool.fsync/after")
	l.spool.mu.Lock()
	defer l.spool.mu.Unlock()
	l.durable = last
	l.tail.size = end + int64(len(out))
	l.segments[len(l.segments)-1].size = l.tail.size
	return nil
}

// roll begins the next segment.
func (l *lane) roll() error {
	seg := segment{first: l.spool.next, mark: l.fresh}
	seg.path = filepath.Join(l.spool.opts.Dir, fmt.Sprintf(segmentPattern, l.id, seg.first, seg.mark))
	fault.Point("spool.roll/before")
	f, err := l.spool.opts.FS.OpenFile(seg.path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("new segment: %w", err)
	}
	fault.Point("spool.roll/during")
	if err := l.spool.opts.FS.SyncDir(l.spool.opts.Dir); err != nil {
		return fmt.Errorf("%w: new segment: sync: %w", ErrPoisoned, errors.Join(err, f.Close()))
	}
	fault.Point("spool.roll/after")
	if l.active != nil {
		if err := l.active.Close(); err != nil {
			return fmt.Errorf("%w: close segment: %w", ErrPoisoned, errors.Join(err, f.Close()))
		}
	}
	l.active, l.tail = f, seg
	l.spool.mu.Lock()
	l.segments = append(l.segments, seg)
	l.spool.mu.Unlock()
	return l.chooseMark()
}

func (l *lane) bytes() int64 {
	sum := int64(0)
	for _, seg := range l.segments {
		sum += seg.size
	}
	return sum
}

// following returns the segment behind the one that is read, or the first, and whether there is one. durable is the size of
// the one that is read.
func (l *lane) following() (durable int64, next segment, ok bool) {
	l.spool.mu.Lock()
	defer l.spool.mu.Unlock()
	if l.open == nil {
		if len(l.segments) == 0 {
			return 0, segment{}, false
		}
		return 0, l.segments[0], true
	}
	for i, seg := range l.segments {
		if seg.path != l.at.path {
			continue
		}
		if i+1 < len(l.segments) {
			return seg.size, l.segments[i+1], true
		}
		return seg.size, segment{}, false
	}
	return math.MaxInt64, segment{}, false // not reached: the segment that is read is kept
}

func (l *lane) close() error {
	var errs []error
	for _, f := range []disk.File{l.active, l.open} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}
