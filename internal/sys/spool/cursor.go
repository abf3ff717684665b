package spool

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"tourniquet.dev/tourniquet/internal/sys/disk"
	"tourniquet.dev/tourniquet/internal/sys/fault"
)

const (
	cursorFile  = "cursor"
	reserveFile = "reserve"
	cursorMagic = "TQC1"
	cursorSize  = len(cursorMagic) + 16*int(laneCount) + 4

	// maxReserve bounds the file that holds blocks of a full disk for critical payloads.
	maxReserve = 4 << 20
)

// Ack says that these records, and all that Next returned before them in their lanes, are not needed any more. It returns when
// that is on disk. When the disk is full it is kept in memory only, and room is made all the same: after a crash the records
// that are still there are read again.
func (s *Spool) Ack(ctx context.Context, records ...Record) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("acknowledge: %w", err)
	}
	s.reading.Lock()
	defer s.reading.Unlock()
	s.mu.Lock()
	closed, broken, next := s.closed, s.broken, s.cursor
	s.mu.Unlock()
	var upTo [laneCount]uint64
	for _, r := range records {
		if !r.Lane.Valid() || r.Seq > s.lanes[r.Lane].last.sequence {
			return fmt.Errorf("acknowledge %v %d: not read yet", r.Lane, r.Seq)
		}
		upTo[r.Lane] = max(upTo[r.Lane], r.Seq)
	}
	for l, lane := range s.lanes {
		for _, p := range lane.delivered {
			if p.sequence <= upTo[l] {
				next[l] = p
			}
		}
	}
	switch {
	case closed:
		return fmt.Errorf("acknowledge: %w", ErrClosed)
	case broken != nil:
		return fmt.Errorf("acknowledge: %w", broken)
	case len(records) == 0:
		return nil
	}
	err := s.saveCursor(next)
	s.mu.Lock()
	switch {
	case noRoom(err):
		s.stats.Unsaved++
		err = nil
	case err != nil:
		err = s.poison(err)
	}
	if err == nil {
		s.cursor = next
	}
	s.mu.Unlock()
	if err != nil {
		return fmt.Errorf("acknowledge: %w", err)
	}
	for _, l := range s.lanes {
		for len(l.delivered) > 0 && l.delivered[0].sequence <= next[l.id].sequence {
			l.delivered = l.delivered[1:]
		}
		if s.forget(l) {
			if err := s.keepReserve(); err != nil {
				return fmt.Errorf("acknowledge: %w", err)
			}
		}
	}
	return nil
}

// saveCursor writes the cursor durably. An ENOSPC in the error means that the old one is still there.
func (s *Spool) saveCursor(next [laneCount]position) error {
	data := []byte(cursorMagic)
	for _, p := range next {
		data = binary.LittleEndian.AppendUint64(data, p.sequence)
		data = binary.LittleEndian.AppendUint64(data, p.ordinal)
	}
	data = binary.LittleEndian.AppendUint32(data, crc32.Checksum(data, castagnoli))
	fault.Point("cursor.write/before")
	staged, err := disk.Stage(s.opts.FS, filepath.Join(s.opts.Dir, cursorFile), data, 0o600)
	if err != nil {
		return err
	}
	if err := staged.Sync(); err != nil {
		staged.Discard()
		return fmt.Errorf("%w: %w", ErrPoisoned, err) // whatever it was
	}
	fault.Point("cursor.write/during")
	if err := staged.Rename(); err != nil {
		return fmt.Errorf("%w: %w", ErrPoisoned, err)
	}
	fault.Point("cursor.write/after")
	return nil
}

// loadCursor reads the cursor, and removes what a crash left without a name. A damaged cursor begins at the oldest record.
func (s *Spool) loadCursor() error {
	names, err := s.opts.FS.List(s.opts.Dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.HasPrefix(name, disk.TempPrefix) {
			if err := s.opts.FS.Remove(filepath.Join(s.opts.Dir, name)); err != nil {
				return err
			}
		}
	}
	data, err := disk.ReadFile(s.opts.FS, filepath.Join(s.opts.Dir, cursorFile), 4096)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, disk.ErrTooLarge):
		data = nil
	case err != nil:
		return err
	}
	if len(data) != cursorSize || string(data[:len(cursorMagic)]) != cursorMagic ||
		crc32.Checksum(data[:cursorSize-4], castagnoli) != binary.LittleEndian.Uint32(data[cursorSize-4:]) {
		s.stats.CursorLost = true
		return nil
	}
	for l := range laneCount {
		at := data[len(cursorMagic)+16*int(l):]
		s.cursor[l] = position{binary.LittleEndian.Uint64(at), binary.LittleEndian.Uint64(at[8:])}
	}
	return nil
}

// keepReserve holds blocks of the disk that only a critical payload may have. On a full disk there is none, until there is
// room again.
func (s *Spool) keepReserve() error {
	s.mu.Lock()
	have := s.reserve
	s.mu.Unlock()
	if have {
		return nil
	}
	path, size := filepath.Join(s.opts.Dir, reserveFile), min(s.opts.ReserveBytes, maxReserve)
	f, err := s.opts.FS.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err == nil {
		var old int64
		if old, err = f.Size(); err == nil && old < size {
			_, err = f.WriteAt(make([]byte, size-old), old)
		}
		if err == nil && old < size {
			err = f.Sync()
		}
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		if removed := s.opts.FS.Remove(path); removed != nil && !errors.Is(removed, fs.ErrNotExist) {
			err = errors.Join(err, removed)
		}
		if noRoom(err) {
			return nil
		}
		return fmt.Errorf("reserve: %w", err)
	}
	s.mu.Lock()
	s.reserve = true
	s.mu.Unlock()
	return nil
}

// spendReserve gives the reserved blocks back to the disk, and says whether there were any.
func (s *Spool) spendReserve() bool {
	s.mu.Lock()
	have := s.reserve
	s.reserve = false
	s.mu.Unlock()
	return have && s.opts.FS.Remove(filepath.Join(s.opts.Dir, reserveFile)) == nil
}
