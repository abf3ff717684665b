package profile

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"tourniquet.dev/tourniquet/internal/canonical"
	"tourniquet.dev/tourniquet/internal/sys/disk"
)

const (
	// MaxFile bounds a profile's file.
	MaxFile  = 1 << 20
	maxFiles = 4096
	suffix   = ".json"
	aside    = ".damaged"
)

var (
	// ErrDamaged says that a profile's file is not as it was written.
	ErrDamaged = errors.New("profile damaged")
	// ErrNoRoom says that there are as many profiles on disk as there may be.
	ErrNoRoom = errors.New("no room for another profile")
)

// file is a profile as it stands on disk: the digest is of the profile's canonical JSON.
type file struct {
	Digest  string          `json:"digest"`
	Profile json.RawMessage `json:"profile"`
}

// Encode returns a profile as its file has it.
func Encode(p *Profile) ([]byte, error) {
	body, err := canonical.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("encode profile: %w", err)
	}
	return canonical.Marshal(file{canonical.DigestOf(body), body})
}

// Decode reads a profile's file. ErrDamaged: it is not one, or was changed.
func Decode(data []byte) (*Profile, error) {
	var f file
	if err := canonical.Unmarshal(data, &f, MaxFile); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if canonical.DigestOf(f.Profile) != f.Digest {
		return nil, fmt.Errorf("%w: its digest is another", ErrDamaged)
	}
	p := &Profile{}
	if err := canonical.Unmarshal(f.Profile, p, MaxFile); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if err := p.validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return p, nil
}

// Folder keeps one file for each profile. A damaged one is put aside under another name, and is told of.
type Folder struct {
	dir  string
	fsys disk.FS

	mu    sync.Mutex
	files map[string]bool // names of profiles on disk
}

// OpenFolder makes the folder if it is missing, and removes what an interrupted write left.
func OpenFolder(dir string) (*Folder, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make folder of profiles: %w", err)
	}
	f := &Folder{dir: dir, fsys: disk.OS, files: map[string]bool{}}
	names, err := f.fsys.List(dir)
	if err != nil {
		return nil, fmt.Errorf("list profiles: %w", err)
	}
	for _, name := range names {
		switch {
		case strings.HasPrefix(name, disk.TempPrefix):
			_ = f.fsys.Remove(filepath.Join(dir, name)) // rubbish: tried again at the next start
		case strings.HasSuffix(name, suffix):
			f.files[name] = true
		}
	}
	return f, nil
}

// Load implements Store.
func (f *Folder) Load(key Key) (*Profile, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	name := key.ID() + suffix
	path := filepath.Join(f.dir, name)
	data, err := disk.ReadFile(f.fsys, path, MaxFile)
	if errors.Is(err, fs.ErrNotExist) {
		if len(f.files) >= maxFiles && !f.files[name] {
			return nil, ErrNoRoom
		}
		f.files[name] = true // its place is taken from now on
		return nil, nil      //nolint:nilnil // there is none, which is no error
	}
	var p *Profile
	if err == nil {
		if p, err = Decode(data); err == nil && p.Key != key {
			err = fmt.Errorf("%w: it is of another workload", ErrDamaged)
		}
	}
	if err == nil {
		return p, nil
	}
	if aside := f.fsys.Rename(path, path+aside); aside != nil {
		err = errors.Join(err, aside)
	}
	return nil, fmt.Errorf("read profile %s, learned anew: %w", name, err)
}

// Save implements Store.
func (f *Folder) Save(p *Profile) error {
	data, err := Encode(p)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return disk.WriteFile(f.fsys, filepath.Join(f.dir, p.Key.ID()+suffix), data, 0o600)
}
