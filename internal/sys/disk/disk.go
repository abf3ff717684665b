// Package disk writes files so that they are there after a crash, and gives tests one seam at which a disk can fail.
//
// It knows nothing of what the bytes mean and never retries a failed fsync: after one, the kernel may have dropped the pages
// and call the next fsync a success. spool, store and journal write through it.
package disk

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// A File is the part of an open file that the durable packages use.
type File interface {
	io.ReaderAt
	io.WriterAt
	Size() (int64, error)
	Sync() error // data and size; an error is final for the file
	Truncate(size int64) error
	Close() error
}

// An FS opens and names files. OS is the real one; tests bring one that fails.
type FS interface {
	OpenFile(path string, flag int, perm fs.FileMode) (File, error)
	Rename(from, to string) error
	Remove(path string) error
	List(dir string) ([]string, error) // base names, sorted
	SyncDir(dir string) error          // makes creations, renames and removals in dir durable
}

// OS is the file system of the machine.
var OS FS = osFS{}

type osFS struct{}

func (osFS) OpenFile(path string, flag int, perm fs.FileMode) (File, error) {
	f, err := os.OpenFile(path, flag, perm) // #nosec G304 -- the path is the caller's own configuration
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (osFS) Rename(from, to string) error { return os.Rename(from, to) }
func (osFS) Remove(path string) error     { return os.Remove(path) }

func (osFS) List(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, nil
}

func (osFS) SyncDir(dir string) error {
	d, err := os.Open(dir) // #nosec G304 -- the path is the caller's own configuration
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

type osFile struct{ *os.File }

// Sync leaves out what a reader of the data does not need, such as the time of the last change.
func (f osFile) Sync() error { return unix.Fdatasync(int(f.Fd())) }

func (f osFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// ErrTooLarge says that a file is larger than its reader allows.
var ErrTooLarge = errors.New("file too large")

// ReadFile reads a file of at most limit bytes.
func ReadFile(fsys FS, path string, limit int64) (data []byte, err error) {
	f, err := fsys.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	if size > limit {
		return nil, fmt.Errorf("read %s: %w: %d bytes, at most %d", path, ErrTooLarge, size, limit)
	}
	data = make([]byte, size)
	if n, err := f.ReadAt(data, 0); err != nil && (!errors.Is(err, io.EOF) || int64(n) != size) {
		return nil, err
	}
	return data, nil
}

// TempPrefix begins the name of every file that Stage writes: one that is found after a crash is rubbish.
const TempPrefix = ".tmp-"

// A Staged file has its content but not yet its name.
type Staged struct {
	fsys       FS
	file       File
	temp, path string
}

// Stage writes data beside path, under a name that no other process takes, without making it durable. Commit or Discard must follow.
func Stage(fsys FS, path string, data []byte, perm fs.FileMode) (*Staged, error) {
	temp := filepath.Join(filepath.Dir(path), TempPrefix+rand.Text())
	f, err := fsys.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", path, err)
	}
	s := &Staged{fsys, f, temp, path}
	if _, err := f.WriteAt(data, 0); err != nil {
		s.Discard()
		return nil, fmt.Errorf("write %s: %w", path, err)
	}
	return s, nil
}

// Sync makes the content durable, still without its name.
func (s *Staged) Sync() error {
	if err := s.file.Sync(); err != nil {
		return fmt.Errorf("write %s: sync: %w", s.path, err)
	}
	return nil
}

// Rename gives the file its name, in place of what had it, and makes that durable. Sync comes before it.
func (s *Staged) Rename() error {
	err := s.file.Close()
	s.file = nil
	if err == nil {
		err = s.fsys.Rename(s.temp, s.path)
	}
	if err == nil {
		err = s.fsys.SyncDir(filepath.Dir(s.path))
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", s.path, err)
	}
	return nil
}

// Discard removes what Stage wrote. It is a clean-up: what stays behind is known by TempPrefix.
func (s *Staged) Discard() {
	if s.file != nil {
		_ = s.file.Close()
		s.file = nil
	}
	_ = s.fsys.Remove(s.temp)
}

// WriteFile replaces path by data: after it returns the new content is there, and after a crash either the old or the new.
func WriteFile(fsys FS, path string, data []byte, perm fs.FileMode) error {
	s, err := Stage(fsys, path, data, perm)
	if err != nil {
		return err
	}
	if err := s.Sync(); err != nil {
		s.Discard()
		return err
	}
	return s.Rename()
}

// ErrLocked says that another process, or another part of this one, holds a lock.
var ErrLocked = errors.New("locked by another process")

// A Lock is an advisory lock on a file. The kernel takes it off when its holder dies, however it dies.
type Lock struct{ file *os.File }

// TakeLock takes the lock of path, or returns ErrLocked at once.
func TakeLock(path string) (*Lock, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600) // #nosec G304 -- the path is the caller's own configuration
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = ErrLocked
		}
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
	}
	return &Lock{f}, nil
}

// Release gives the lock back.
func (l *Lock) Release() error {
	if err := l.file.Close(); err != nil {
		return fmt.Errorf("unlock: %w", err)
	}
	return nil
}
