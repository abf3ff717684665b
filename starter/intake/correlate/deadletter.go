package correlate

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"tourniquet.dev/tourniquet/internal/canonical"
	"tourniquet.dev/tourniquet/internal/sys/disk"
)

// ErrDeadLettersFull says that the folder of dead letters is at its bound: what comes now is refused, and counted.
var ErrDeadLettersFull = errors.New("dead letters are full")

// Letter is what is kept of an item that no incident can take: the item itself, where it came from, and why.
type Letter struct {
	At     time.Time `json:"at"`
	From   string    `json:"from"` // "sensor", or the name of the source
	Kind   string    `json:"kind"`
	Code   string    `json:"code"`
	Field  string    `json:"field,omitempty"`
	Reason string    `json:"reason"`
	Body   []byte    `json:"body"`
}

// DeadLetters is a folder with one file for each item, named by the digest of its bytes: the same poison twice is one
// letter. It is safe for concurrent use; one process owns the folder.
type DeadLetters struct {
	dir      string
	maxBytes int64

	mu    sync.Mutex
	known map[string]bool
	bytes int64
}

// OpenDeadLetters opens the folder, made if missing, that may grow to maxBytes.
func OpenDeadLetters(dir string, maxBytes int64) (*DeadLetters, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make folder of dead letters: %w", err)
	}
	d := &DeadLetters{dir: dir, maxBytes: maxBytes, known: map[string]bool{}}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		if strings.HasPrefix(e.Name(), disk.TempPrefix) {
			return os.Remove(path)
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		d.known[e.Name()] = true
		d.bytes += info.Size()
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read dead letters: %w", err)
	}
	return d, nil
}

// Put keeps a letter; it is on disk when Put returns. known says that the same bytes were kept before.
func (d *DeadLetters) Put(l Letter) (known bool, err error) {
	name := strings.TrimPrefix(canonical.DigestOf(l.Body), canonical.DigestPrefix) + ".json"
	data, err := json.MarshalIndent(l, "", "  ")
	if err != nil {
		return false, fmt.Errorf("encode dead letter: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.known[name]:
		return true, nil
	case d.bytes+int64(len(data)) > d.maxBytes:
		return false, fmt.Errorf("%w: %d bytes", ErrDeadLettersFull, d.bytes)
	}
	if err := disk.WriteFile(disk.OS, filepath.Join(d.dir, name), data, 0o600); err != nil {
		return false, fmt.Errorf("keep dead letter: %w", err)
	}
	d.known[name] = true
	d.bytes += int64(len(data))
	return false, nil
}

// Len returns how many letters there are.
func (d *DeadLetters) Len() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.known)
}
