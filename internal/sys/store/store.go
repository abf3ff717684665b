// Package store keeps bytes under their own digest: envelopes, plans, evidence, exports.
//
// What was put never changes and is never deleted here, and Get hands out nothing that does not hash to the name it was
// asked for, so that a reader needs to trust neither the disk nor the writers. intake, investigate and orchestrate write;
// decide, notify and the enforcers read. Several processes may share one directory.
package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"tourniquet.dev/tourniquet/internal/sys/disk"
	"tourniquet.dev/tourniquet/internal/sys/fault"
)

// DefaultMaxBytes is the largest thing that a store takes unless its options say otherwise.
const DefaultMaxBytes = 16 << 20

const prefix = "sha256:"

var (
	// ErrNotFound says that nothing was put under a digest.
	ErrNotFound = errors.New("not in the store")
	// ErrDamaged says that what lies under a digest does not hash to it. Put of the same bytes repairs it.
	ErrDamaged = errors.New("damaged in the store")
	// ErrDigest says that a string is no digest.
	ErrDigest = errors.New("not a digest")
	// ErrTooLarge says that something is larger than the store takes.
	ErrTooLarge = errors.New("too large for the store")
)

// A Reader is the half of a store that processes with fewer rights have. It is safe for concurrent use.
type Reader interface {
	Get(ctx context.Context, digest string) ([]byte, error)
}

// Options say where a store is.
type Options struct {
	Dir      string  // made if it is missing
	MaxBytes int64   // DefaultMaxBytes if 0
	FS       disk.FS // disk.OS if nil
}

// A Store is a directory of files named by digest. It is safe for concurrent use and holds nothing open.
type Store struct{ opts Options }

// Open returns the store in a directory that it may write to.
func Open(opts Options) (*Store, error) {
	if err := os.MkdirAll(opts.Dir, 0o750); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	return newStore(opts), nil
}

// OpenReader returns the read side of the store in a directory, which has to exist.
func OpenReader(opts Options) (Reader, error) {
	info, err := os.Stat(opts.Dir)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("open store: %s is no directory", opts.Dir)
	}
	return reader{newStore(opts)}, nil
}

// reader hides Put, so that no type assertion brings it back.
type reader struct{ s *Store }

func (r reader) Get(ctx context.Context, digest string) ([]byte, error) { return r.s.Get(ctx, digest) }

func newStore(opts Options) *Store {
	if opts.MaxBytes == 0 {
		opts.MaxBytes = DefaultMaxBytes
	}
	if opts.FS == nil {
		opts.FS = disk.OS
	}
	return &Store{opts}
}

// Put keeps data and returns its digest when it is durable. The same data twice is one file.
func (s *Store) Put(ctx context.Context, data []byte) (digest string, err error) {
	if err := ctx.Err(); err != nil {
		return "", fmt.Errorf("put: %w", err)
	}
	if int64(len(data)) > s.opts.MaxBytes {
		return "", fmt.Errorf("put: %w: %d bytes, at most %d", ErrTooLarge, len(data), s.opts.MaxBytes)
	}
	digest = digestOf(data)
	path, err := s.path(digest)
	if err != nil {
		return "", err
	}
	if _, err := s.Get(ctx, digest); err == nil {
		// It may be there by another process whose fsync of the directory is still to come.
		if err := s.opts.FS.SyncDir(s.opts.Dir); err != nil {
			return "", fmt.Errorf("put %s: %w", digest, err)
		}
		return digest, nil
	} else if !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrDamaged) {
		return "", fmt.Errorf("put: %w", err)
	}
	fault.Point("store.put/before")
	if err := disk.WriteFile(s.opts.FS, path, data, 0o440); err != nil {
		return "", fmt.Errorf("put %s: %w", digest, err)
	}
	fault.Point("store.put/after")
	return digest, nil
}

// Get returns what was put under digest. It fails with ErrDigest, ErrNotFound or ErrDamaged, or with the disk's own error.
func (s *Store) Get(ctx context.Context, digest string) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("get: %w", err)
	}
	path, err := s.path(digest)
	if err != nil {
		return nil, err
	}
	data, err := disk.ReadFile(s.opts.FS, path, s.opts.MaxBytes)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("get %s: %w", digest, ErrNotFound)
	case errors.Is(err, disk.ErrTooLarge):
		return nil, fmt.Errorf("get %s: %w: %w", digest, ErrDamaged, err)
	case err != nil:
		return nil, fmt.Errorf("get %s: %w", digest, err)
	case digestOf(data) != digest:
		return nil, fmt.Errorf("get %s: %w", digest, ErrDamaged)
	}
	return data, nil
}

// path turns a digest, and nothing else, into the name of a file.
func (s *Store) path(digest string) (string, error) {
	digits, ok := strings.CutPrefix(digest, prefix)
	if !ok || len(digits) != 2*sha256.Size || strings.Trim(digits, "0123456789abcdef") != "" {
		return "", fmt.Errorf("%w: %.80q", ErrDigest, digest)
	}
	return filepath.Join(s.opts.Dir, digits), nil
}

func digestOf(data []byte) string {
	sum := sha256.Sum256(data)
	return prefix + hex.EncodeToString(sum[:])
}
