// Package recall remembers, over restarts, when something was seen first: a principal that used a model, the network that a
// key was used from. It is bounded: what was not met for two generations is forgotten, and is new when it comes again,
// which errs on the side of a detection. Adapters read it; intake's server writes it once an item is safe.
package recall

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"sync"
	"time"

	"tourniquet.dev/tourniquet/internal/sys/disk"
)

const (
	generation = 1 << 16
	size       = 16 + 8 + 4 // key, Unix milliseconds, checksum
)

type key [16]byte

// Store is safe for concurrent use. It is written without fsync: what a power cut costs is new once more.
type Store struct {
	dir string

	mu       sync.Mutex
	old, new map[key]time.Time
	file     disk.File
	at       int64
}

// Open opens the memory that is kept in dir, made if missing. A record that is not whole is passed over.
func Open(dir string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make folder of what was seen: %w", err)
	}
	s := &Store{dir: dir}
	var err error
	if s.old, _, err = s.load("old"); err == nil {
		s.new, s.at, err = s.load("new")
	}
	if err != nil {
		return nil, fmt.Errorf("read what was seen: %w", err)
	}
	return s, s.open()
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (s *Store) load(name string) (map[key]time.Time, int64, error) {
	out := map[key]time.Time{}
	data, err := disk.ReadFile(disk.OS, filepath.Join(s.dir, name), 4*generation*size)
	if errors.Is(err, os.ErrNotExist) {
		return out, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	whole := len(data) / size * size
	for at := 0; at < whole; at += size {
		record := data[at : at+size]
		if crc32.Checksum(record[:24], castagnoli) == binary.LittleEndian.Uint32(record[24:]) {
			out[key(record[:16])] = time.UnixMilli(int64(binary.LittleEndian.Uint64(record[16:]))).UTC() // #nosec G115 -- written from an int64
		}
	}
	return out, int64(whole), nil
}

func (s *Store) open() error {
	f, err := disk.OS.OpenFile(filepath.Join(s.dir, "new"), os.O_RDWR|os.O_CREATE, 0o600)
	if err == nil {
		err = f.Truncate(s.at)
	}
	if err != nil {
		return fmt.Errorf("open what was seen: %w", err)
	}
	s.file = f
	return nil
}

func keyOf(name string) key {
	sum := sha256.Sum256([]byte(name))
	return key(sum[:16])
}

// First returns when this was seen first, if it was.
func (s *Store) First(name string) (time.Time, bool) {
	k := keyOf(name)
	s.mu.Lock()
	defer s.mu.Unlock()
	if at, ok := s.new[k]; ok {
		return at, true
	}
	at, ok := s.old[k]
	return at, ok
}

// Met remembers that this was seen. What is known keeps its first time, and is not forgotten with its generation.
func (s *Store) Met(name string, at time.Time) error {
	k := keyOf(name)
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.new[k]; ok {
		return nil
	}
	if first, ok := s.old[k]; ok {
		at = first
	}
	record := append([]byte{}, k[:]...)
	record = binary.LittleEndian.AppendUint64(record, uint64(at.UnixMilli())) // #nosec G115 -- read back as an int64
	record = binary.LittleEndian.AppendUint32(record, crc32.Checksum(record, castagnoli))
	if _, err := s.file.WriteAt(record, s.at); err != nil {
		return fmt.Errorf("write what was seen: %w", err)
	}
	s.new[k] = at
	if s.at += size; len(s.new) < generation {
		return nil
	}
	if err := errors.Join(s.file.Sync(), s.file.Close(), disk.OS.Rename(filepath.Join(s.dir, "new"), filepath.Join(s.dir, "old"))); err != nil {
		return fmt.Errorf("turn what was seen: %w", err)
	}
	s.old, s.new, s.at = s.new, map[key]time.Time{}, 0
	return s.open()
}

// Close makes what was seen durable and closes the file.
func (s *Store) Close() error { return errors.Join(s.file.Sync(), s.file.Close()) }
