// Package disktest is a disk in memory that fails on demand and forgets, on a power cut, what was not made durable.
//
// Only tests import it. It keeps the promises of a journalling file system and no more: data is durable after Sync of its
// file, names after SyncDir of their directory, and of what came later any part may be there or not.
package disktest

import (
	"errors"
	"io"
	"io/fs"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"tourniquet.dev/tourniquet/internal/sys/disk"
)

// A Disk implements disk.FS. Its zero value is empty and healthy. It is safe for concurrent use.
type Disk struct {
	mu      sync.Mutex
	now     map[string]*inode
	durable map[string]*inode
	epoch   int // files opened before the last power cut are dead

	// Fail is asked before each operation ("open", "read", "write", "sync", "truncate", "rename", "remove", "syncdir");
	// what it returns is the operation's error. A failed write leaves half of its data. It is set before use.
	Fail func(op, path string) error
}

type inode struct{ now, durable []byte }

var errPowerCut = errors.New("power was cut")

func (d *Disk) fail(op, path string) error {
	if d.now == nil {
		d.now, d.durable = map[string]*inode{}, map[string]*inode{}
	}
	if d.Fail == nil {
		return nil
	}
	return d.Fail(op, path)
}

// PowerCut forgets what was not durable. Of each file's later writes a random part survives; names that were not synced
// survive or not, each by a throw of the dice.
func (d *Disk) PowerCut(dice *rand.Rand) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.epoch++
	kept := map[string]*inode{}
	for _, name := range slices.Compact(slices.Sorted(mapKeys(d.durable, d.now))) {
		n := d.durable[name] // a rename is atomic: the name means the old file or the new one
		if d.now[name] != n && dice.IntN(2) == 0 {
			n = d.now[name]
		}
		if n != nil {
			kept[name] = n
		}
	}
	for _, name := range slices.Sorted(mapKeys(kept)) {
		n := kept[name]
		survivor := slices.Clone(n.durable)
		if len(n.now) > len(n.durable) && dice.IntN(3) > 0 {
			survivor = append(survivor, n.now[len(n.durable):len(n.durable)+dice.IntN(len(n.now)-len(n.durable)+1)]...)
		}
		n.now, n.durable = survivor, slices.Clone(survivor)
	}
	d.now = kept
	d.durable = map[string]*inode{}
	for name, n := range kept {
		d.durable[name] = n
	}
}

func mapKeys(maps ...map[string]*inode) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, m := range maps {
			for k := range m {
				if !yield(k) {
					return
				}
			}
		}
	}
}

// Bytes returns a file's content, which the caller may change in place to damage it.
func (d *Disk) Bytes(path string) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	if n := d.now[path]; n != nil {
		return n.now
	}
	return nil
}

// SetBytes replaces a file's content, durably.
func (d *Disk) SetBytes(path string, data []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := &inode{slices.Clone(data), slices.Clone(data)}
	if d.now == nil {
		d.now, d.durable = map[string]*inode{}, map[string]*inode{}
	}
	d.now[path], d.durable[path] = n, n
}

// OpenFile opens or creates a file; of the flags it knows O_CREATE, O_EXCL and O_TRUNC.
func (d *Disk) OpenFile(path string, flag int, _ fs.FileMode) (disk.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.fail("open", path); err != nil {
		return nil, err
	}
	n := d.now[path]
	switch {
	case n == nil && flag&os.O_CREATE == 0:
		return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	case n != nil && flag&os.O_EXCL != 0:
		return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrExist}
	case n == nil:
		n = &inode{}
		d.now[path] = n
	case flag&os.O_TRUNC != 0:
		n.now = nil
	}
	return &file{d, n, path, d.epoch}, nil
}

// Rename gives a file another name.
func (d *Disk) Rename(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.fail("rename", to); err != nil {
		return err
	}
	n := d.now[from]
	if n == nil {
		return &fs.PathError{Op: "rename", Path: from, Err: fs.ErrNotExist}
	}
	delete(d.now, from)
	d.now[to] = n
	return nil
}

// Remove takes a name away.
func (d *Disk) Remove(path string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.fail("remove", path); err != nil {
		return err
	}
	if d.now[path] == nil {
		return &fs.PathError{Op: "remove", Path: path, Err: fs.ErrNotExist}
	}
	delete(d.now, path)
	return nil
}

// List returns the base names of the files in dir, sorted.
func (d *Disk) List(dir string) ([]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var names []string
	for path := range d.now {
		if filepath.Dir(path) == dir {
			names = append(names, filepath.Base(path))
		}
	}
	slices.Sort(names)
	return names, nil
}

// SyncDir makes the names in dir durable.
func (d *Disk) SyncDir(dir string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.fail("syncdir", dir); err != nil {
		return err
	}
	for path := range d.durable {
		if filepath.Dir(path) == dir && d.now[path] == nil {
			delete(d.durable, path)
		}
	}
	for path, n := range d.now {
		if filepath.Dir(path) == dir {
			d.durable[path] = n
		}
	}
	return nil
}

type file struct {
	d     *Disk
	n     *inode
	path  string
	epoch int
}

// begin locks the disk and says whether op may go on. The caller unlocks.
func (f *file) begin(op string) error {
	f.d.mu.Lock()
	if f.epoch != f.d.epoch {
		return errPowerCut
	}
	return f.d.fail(op, f.path)
}

func (f *file) ReadAt(p []byte, off int64) (int, error) {
	err := f.begin("read")
	defer f.d.mu.Unlock()
	if err != nil {
		return 0, err
	}
	if off >= int64(len(f.n.now)) {
		return 0, io.EOF
	}
	n := copy(p, f.n.now[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *file) WriteAt(p []byte, off int64) (int, error) {
	err := f.begin("write")
	defer f.d.mu.Unlock()
	if errors.Is(err, errPowerCut) {
		return 0, err
	}
	if err != nil {
		p = p[:len(p)/2]
	}
	if grow := int(off) + len(p) - len(f.n.now); grow > 0 {
		f.n.now = append(f.n.now, make([]byte, grow)...)
	}
	return copy(f.n.now[off:], p), err
}

func (f *file) Sync() error {
	err := f.begin("sync")
	defer f.d.mu.Unlock()
	if err == nil {
		f.n.durable = slices.Clone(f.n.now)
	}
	return err
}

func (f *file) Truncate(size int64) error {
	err := f.begin("truncate")
	defer f.d.mu.Unlock()
	if err != nil {
		return err
	}
	if size <= int64(len(f.n.now)) {
		f.n.now = f.n.now[:size:size]
		return nil
	}
	f.n.now = append(f.n.now, make([]byte, int(size)-len(f.n.now))...)
	return nil
}

func (f *file) Size() (int64, error) {
	err := f.begin("size")
	defer f.d.mu.Unlock()
	return int64(len(f.n.now)), err
}

func (f *file) Close() error { return nil }
