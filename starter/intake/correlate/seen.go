package correlate

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"tourniquet.dev/tourniquet/internal/sys/disk"
)

// A Key is what two deliveries of one item share.
type Key [16]byte

// DetectionKey is the key of a detection: its reporter's name, and the reporter's own id of the event.
func DetectionKey(source, uid string) Key { return keyOf("detection", source, uid) }

// ReceiptKey is the key of a receipt: the digest of its envelope.
func ReceiptKey(digest string) Key { return keyOf("receipt", digest, "") }

func keyOf(kind, a, b string) (k Key) {
	sum := sha256.Sum256([]byte(kind + "\x00" + a + "\x00" + b))
	copy(k[:], sum[:])
	return k
}

// generation is how many keys a file of Seen holds before the next one begins.
const generation = 1 << 16

// Seen remembers what was correlated, over restarts: at least the last 65 536 items, at most twice as many. A file is the
// keys one after the other, so a torn tail costs the last key only and a flipped bit one. Safe for concurrent use.
type Seen struct {
	dir string

	mu       sync.Mutex
	old, new map[Key]bool // committed, by generation
	spooled  map[Key]bool // in the spool, not yet committed
	file     disk.File
	size     int64
}

// OpenSeen opens the memory that is kept in dir, made if missing.
func OpenSeen(dir string) (*Seen, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make folder of seen items: %w", err)
	}
	s := &Seen{dir: dir, spooled: map[Key]bool{}}
	var err error
	if s.old, _, err = s.load("old"); err != nil {
		return nil, err
	}
	if s.new, s.size, err = s.load("new"); err != nil {
		return nil, err
	}
	return s, s.open()
}

func (s *Seen) load(name string) (map[Key]bool, int64, error) {
	keys := map[Key]bool{}
	data, err := disk.ReadFile(disk.OS, filepath.Join(s.dir, name), 4*generation*int64(len(Key{})))
	if errors.Is(err, os.ErrNotExist) {
		return keys, 0, nil
	}
	if err != nil {
		return nil, 0, fmt.Errorf("read seen items: %w", err)
	}
	whole := len(data) / len(Key{}) * len(Key{})
	for at := 0; at < whole; at += len(Key{}) {
		keys[Key(data[at:at+len(Key{})])] = true
	}
	return keys, int64(whole), nil
}

func (s *Seen) open() error {
	f, err := disk.OS.OpenFile(filepath.Join(s.dir, "new"), os.O_RDWR|os.O_CREATE, 0o600)
	if err == nil {
		err = f.Truncate(s.size)
	}
	if err == nil {
		err = disk.OS.SyncDir(s.dir)
	}
	if err != nil {
		return fmt.Errorf("open seen items: %w", err)
	}
	s.file = f
	return nil
}

// Known reports whether the item was taken before: it is in the spool, or was correlated.
func (s *Seen) Known(k Key) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.spooled[k] || s.new[k] || s.old[k]
}

// Spooled says that the item is in the spool.
func (s *Seen) Spooled(k Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spooled[k] = true
}

// Correlated reports whether the item has been committed.
func (s *Seen) Correlated(k Key) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.new[k] || s.old[k]
}

// Commit writes down that the items were correlated. Call it before they leave the spool: in between a crash repeats
// nothing, and after it the spool has them no more.
func (s *Seen) Commit(keys []Key) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []byte
	for _, k := range keys {
		if !s.new[k] {
			out = append(out, k[:]...)
		}
		s.new[k] = true
		delete(s.spooled, k)
	}
	if len(out) == 0 {
		return nil
	}
	if _, err := s.file.WriteAt(out, s.size); err != nil {
		return fmt.Errorf("write seen items: %w", err)
	}
	if err := s.file.Sync(); err != nil {
		return fmt.Errorf("write seen items: sync: %w", err)
	}
	s.size += int64(len(out))
	if len(s.new) < generation {
		return nil
	}
	return s.turn()
}

// turn begins a new generation and forgets the one before the last.
func (s *Seen) turn() error {
	if err := s.file.Close(); err != nil {
		return fmt.Errorf("turn seen items: %w", err)
	}
	if err := disk.OS.Rename(filepath.Join(s.dir, "new"), filepath.Join(s.dir, "old")); err != nil {
		return fmt.Errorf("turn seen items: %w", err)
	}
	s.old, s.new, s.size = s.new, map[Key]bool{}, 0
	return s.open()
}

// Close closes the file.
func (s *Seen) Close() error { return s.file.Close() }
