package spool

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"tourniquet.dev/tourniquet/internal/sys/disk"
)

const (
	quarantinePrefix = "quarantine-"
	maxQuarantined   = 64      // files
	scanBlock        = 1 << 16 // bytes, when looking for a mark
)

// found is what scan came upon.
type found struct {
	ok         bool // a record; else the segment has no more
	header     header
	payload    []byte
	start, end int64 // of the record
	damaged    bool  // bytes between where scan began and start (or the end of the segment) are no record
	unfinished bool  // the segment ends inside a record
}

// scan returns the first whole record at or behind offset. It reads no further than seg.size.
func scan(file io.ReaderAt, seg segment, offset int64) (found, error) {
	f := patient{file}
	var out found
	for at := offset; at < seg.size; {
		h, ok, err := headerAt(f, seg, at)
		if err != nil {
			return out, err
		}
		if !ok {
			if at == offset && (seg.size-at < headerSize || allZero(f, at, seg.size)) {
				out.unfinished = true
				return out, nil
			}
			out.damaged = true
			if at, err = nextMark(f, seg, at+1); err != nil {
				return out, err
			}
			continue
		}
		if at+h.size() > seg.size {
			out.unfinished = true // its header is whole, so this was the last one, and being written
			return out, nil
		}
		body := make([]byte, h.length+trailerSize)
		if _, err := f.ReadAt(body, at+headerSize); err != nil {
			return out, fmt.Errorf("read: %w", err)
		}
		payload := body[:h.length:h.length]
		if binary.LittleEndian.Uint32(body[h.length:]) != payloadSum(h.checksum, payload) {
			out.damaged = true
			at += h.size() // the header holds, so its length does
			continue
		}
		out.ok, out.header, out.payload, out.start, out.end = true, h, payload, at, at+h.size()
		return out, nil
	}
	return out, nil
}

// patient reads on where a disk has lost a block, and puts filler in its place: no checksum holds over that, so the block costs
// the records that lie in it and no others.
type patient struct{ file io.ReaderAt }

const (
	block  = 512
	filler = 0xEE
)

func (p patient) ReadAt(buf []byte, at int64) (int, error) {
	n, err := p.file.ReadAt(buf, at)
	if !errors.Is(err, syscall.EIO) {
		return n, err
	}
	for from := 0; from < len(buf); {
		to := min(len(buf), from+block-int((at+int64(from))%block))
		if _, err := p.file.ReadAt(buf[from:to], at+int64(from)); errors.Is(err, syscall.EIO) {
			copy(buf[from:to], bytes.Repeat([]byte{filler}, to-from))
		} else if err != nil {
			return from, err
		}
		from = to
	}
	return len(buf), nil
}

func headerAt(f io.ReaderAt, seg segment, at int64) (header, bool, error) {
	var raw [headerSize]byte
	n := min(headerSize, seg.size-at)
	if _, err := f.ReadAt(raw[:n], at); err != nil {
		return header{}, false, fmt.Errorf("read: %w", err)
	}
	h, ok := readHeader(raw[:n], at, seg.mark)
	return h, ok, nil
}

// nextMark returns where the segment's mark stands next, or the segment's size.
func nextMark(f io.ReaderAt, seg segment, at int64) (int64, error) {
	mark := binary.LittleEndian.AppendUint64(nil, seg.mark)
	buf := make([]byte, scanBlock)
	for at < seg.size {
		n := min(int64(len(buf)), seg.size-at)
		if _, err := f.ReadAt(buf[:n], at); err != nil {
			return 0, fmt.Errorf("read: %w", err)
		}
		if i := bytes.Index(buf[:n], mark); i >= 0 {
			return at + int64(i), nil
		}
		if at+n == seg.size {
			break
		}
		at += n - int64(len(mark)) + 1 // a mark may begin in this block and end in the next
	}
	return seg.size, nil
}

// allZero says whether nothing but zeros follows, as where a file's size was on disk before its data.
func allZero(f io.ReaderAt, at, size int64) bool {
	buf := make([]byte, scanBlock)
	for at < size {
		n := min(int64(len(buf)), size-at)
		if _, err := f.ReadAt(buf[:n], at); err != nil || len(bytes.Trim(buf[:n], "\x00")) > 0 {
			return false
		}
		at += n
	}
	return true
}

// Next returns the next record, critical ones first, and waits for one if there is none. After Open it begins with the oldest
// that was not acknowledged. It must not be called by two goroutines at once.
func (s *Spool) Next(ctx context.Context) (Record, error) {
	for {
		if err := ctx.Err(); err != nil {
			return Record{}, fmt.Errorf("read spool: %w", err)
		}
		r, ok, err := s.tryNext()
		if err != nil {
			return Record{}, fmt.Errorf("read spool: %w", err)
		}
		if ok {
			return r, nil
		}
		select {
		case <-s.more:
		case <-s.stop:
			return Record{}, fmt.Errorf("read spool: %w", ErrClosed)
		case <-ctx.Done():
		}
	}
}

func (s *Spool) tryNext() (Record, bool, error) {
	s.reading.Lock()
	defer s.reading.Unlock()
	select {
	case <-s.stop: // Close may take the files away
		return Record{}, false, ErrClosed
	default:
	}
	for _, l := range s.lanes {
		if r, ok, err := l.read(); ok || err != nil {
			return r, ok, err
		}
	}
	return Record{}, false, nil
}

// read returns the lane's next record, if it has one on disk.
func (l *lane) read() (Record, bool, error) {
	for {
		durable, next, more := l.following()
		if l.open != nil {
			seg := l.at
			seg.size = durable
			r, ok, err := l.readFrom(seg)
			if ok || err != nil {
				return r, ok, err
			}
		}
		if !more {
			return Record{}, false, nil
		}
		if err := l.enter(next); err != nil {
			return Record{}, false, err
		}
	}
}

// readFrom reads on in a segment, and puts aside what is no record.
func (l *lane) readFrom(seg segment) (Record, bool, error) {
	for l.offset < seg.size {
		got, err := scan(l.open, seg, l.offset)
		if err != nil {
			return Record{}, false, err
		}
		end := got.start
		if !got.ok {
			end = seg.size
		}
		if got.damaged {
			l.quarantine(seg, l.offset, end)
		}
		if got.unfinished {
			l.count(func(s *Stats) { s.Torn++ })
		}
		if !got.ok {
			l.offset = end
			return Record{}, false, nil
		}
		l.offset = got.end
		if got.header.sequence <= l.last.sequence {
			continue // acknowledged before Open
		}
		if expected := l.last.ordinal + 1; got.header.ordinal > expected {
			l.count(func(s *Stats) { s.Lost += got.header.ordinal - expected })
		}
		l.last = position{got.header.sequence, got.header.ordinal}
		l.delivered = append(l.delivered, l.last)
		return Record{Lane: l.id, Seq: got.header.sequence, Time: time.Unix(0, got.header.nanos).UTC(), Payload: got.payload}, true, nil
	}
	return Record{}, false, nil
}

// enter opens a segment for reading.
func (l *lane) enter(seg segment) error {
	f, err := l.spool.opts.FS.OpenFile(seg.path, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	if l.open != nil {
		if err := l.open.Close(); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	l.open, l.at, l.offset, l.left = f, seg, 0, l.last.sequence
	l.spool.forget(l)
	return nil
}

func (l *lane) count(f func(*Stats)) {
	l.spool.mu.Lock()
	defer l.spool.mu.Unlock()
	f(&l.spool.stats)
}

// quarantine keeps damaged bytes for a person to look at. That there is no room for them is counted, and no reason to stop.
func (l *lane) quarantine(seg segment, from, to int64) {
	l.count(func(s *Stats) { s.Damaged++ })
	s := l.spool
	names, err := s.opts.FS.List(s.opts.Dir)
	kept := 0
	for _, name := range names {
		if len(name) > len(quarantinePrefix) && name[:len(quarantinePrefix)] == quarantinePrefix {
			kept++
		}
	}
	to = min(to, from+MaxRecord+overhead)
	data := make([]byte, to-from)
	if err == nil && kept < maxQuarantined {
		_, err = patient{l.open}.ReadAt(data, from)
	}
	if err == nil && kept < maxQuarantined {
		name := fmt.Sprintf("%s%s-%016x-%d", quarantinePrefix, l.id, seg.first, from)
		err = disk.WriteFile(s.opts.FS, filepath.Join(s.opts.Dir, name), data, 0o600)
	}
	if err != nil || kept >= maxQuarantined {
		l.count(func(s *Stats) { s.Unsaved++ })
	}
}

// forget removes the segments of a lane that hold nothing that is still needed: all before the one that is read, when
// every record of theirs is acknowledged.
func (s *Spool) forget(l *lane) (freed bool) {
	s.mu.Lock()
	var gone []segment
	for l.open != nil && l.left <= s.cursor[l.id].sequence && l.segments[0].path != l.at.path {
		gone = append(gone, l.segments[0])
		l.segments = l.segments[1:]
	}
	s.mu.Unlock()
	for _, seg := range gone {
		// A segment that cannot be removed is found again at the next Open, and its records are skipped by the cursor.
		if err := s.opts.FS.Remove(seg.path); err == nil || errors.Is(err, fs.ErrNotExist) {
			s.mu.Lock()
			s.stats.Bytes -= seg.size
			s.mu.Unlock()
			freed = true
		}
	}
	return freed
}
