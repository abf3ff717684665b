package hold

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"tourniquet.dev/tourniquet/internal/sys/disk"
	"tourniquet.dev/tourniquet/internal/sys/fault"
)

// Freezer stops all processes of a cgroup and lets them go on. The kernel keeps no end for a freeze, so its end is written to
// disk before it begins: Tick thaws by our clock, and the next start thaws what a dead process left behind. While nobody is
// there a frozen cgroup stays frozen. Safe for concurrent use, by one process at a time.
type Freezer struct {
	root, path string

	mu     sync.Mutex
	frozen map[uint64]Frozen
}

// Frozen is one cgroup that stands still.
type Frozen struct {
	Cgroup uint64        `json:"cgroup,string"`
	Path   string        `json:"path"`  // below the root of the hierarchy
	Until  time.Duration `json:"until"` // since boot
	Boot   string        `json:"boot"`
}

const (
	maxFrozen     = 1024
	maxFreezeFile = 1 << 20
)

// OpenFreezer thaws everything that an earlier process of this boot froze, and returns it: whose freeze is still wanted freezes
// again. A book that cannot be read is an error: what is frozen would stay so unnoticed.
func OpenFreezer(cgroupRoot, dir, boot string) (*Freezer, []Frozen, error) {
	f := &Freezer{root: cgroupRoot, path: filepath.Join(dir, "frozen.json"), frozen: map[uint64]Frozen{}}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("make folder of freezes: %w", err)
	}
	data, err := disk.ReadFile(disk.OS, f.path, maxFreezeFile)
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil, nil
	}
	var left []Frozen
	if err == nil {
		err = json.Unmarshal(data, &left)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read freezes: %w", err)
	}
	var errs []error
	for _, z := range left {
		if z.Boot == boot {
			errs = append(errs, f.write(z.Cgroup, z.Path, "cgroup.freeze", "0"))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, nil, fmt.Errorf("thaw what was left frozen: %w", err)
	}
	return f, left, f.save()
}

// Freeze stops a cgroup until a moment of the kernel's clock, or moves the end of its freeze to a later one. The end is on
// disk before the first process stops.
func (f *Freezer) Freeze(z Frozen) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.check(z); err != nil {
		return err
	}
	old, stood := f.frozen[z.Cgroup]
	if stood {
		z.Until = max(z.Until, old.Until)
	}
	f.frozen[z.Cgroup] = z
	err := f.save()
	if err == nil {
		fault.Point("freeze.save/after")
		err = f.write(z.Cgroup, z.Path, "cgroup.freeze", "1")
	}
	if err != nil && !stood {
		delete(f.frozen, z.Cgroup)
		err = errors.Join(err, f.save())
	}
	return err
}

func (f *Freezer) check(z Frozen) error {
	switch {
	case z.Until <= Now():
		return fmt.Errorf("freeze %s: %w: it ended already", z.Path, ErrInvalid)
	case len(f.frozen) >= maxFrozen:
		return fmt.Errorf("freeze %s: %w: %d cgroups are frozen", z.Path, ErrInvalid, len(f.frozen))
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return fmt.Errorf("freeze %s: whose cgroup is not known: %w", z.Path, err)
	}
	for line := range strings.Lines(string(own)) {
		if _, ours, ok := strings.Cut(strings.TrimSpace(line), "::"); ok && within(ours, z.Path) {
			return fmt.Errorf("freeze %s: %w: it holds this very process", z.Path, ErrInvalid)
		}
	}
	return nil
}

// within reports whether the cgroup is the other one or lies below it.
func within(cgroup, above string) bool {
	above = strings.TrimSuffix(above, "/")
	return cgroup == above || strings.HasPrefix(cgroup, above+"/")
}

// Until is when the cgroup's freeze ends; false when we have not frozen it.
func (f *Freezer) Until(cgroup uint64) (time.Duration, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	z, ok := f.frozen[cgroup]
	return z.Until, ok
}

// Thaw lets a cgroup go on. ErrNotHeld when we have not frozen it. One that is gone is thawed.
func (f *Freezer) Thaw(cgroup uint64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	z, ok := f.frozen[cgroup]
	if !ok {
		return fmt.Errorf("thaw cgroup %d: %w", cgroup, ErrNotHeld)
	}
	return f.thaw(z)
}

func (f *Freezer) thaw(z Frozen) error {
	if err := f.write(z.Cgroup, z.Path, "cgroup.freeze", "0"); err != nil {
		return err
	}
	delete(f.frozen, z.Cgroup)
	return f.save() // after: a crash in between thaws it again
}

// Tick thaws what is over and returns it.
func (f *Freezer) Tick() ([]Frozen, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var over []Frozen
	var errs []error
	for _, z := range f.frozen {
		if z.Until > Now() {
			continue
		}
		if err := f.thaw(z); err != nil {
			errs = append(errs, err)
			continue
		}
		over = append(over, z)
	}
	return over, errors.Join(errs...)
}

// KillAll ends every process of a cgroup and of all below it.
func (f *Freezer) KillAll(cgroup uint64, path string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.check(Frozen{Cgroup: cgroup, Path: path, Until: Now() + time.Second}); err != nil {
		return err
	}
	return f.write(cgroup, path, "cgroup.kill", "1")
}

func (f *Freezer) save() error {
	all := make([]Frozen, 0, len(f.frozen))
	for _, z := range f.frozen {
		all = append(all, z)
	}
	data, err := json.Marshal(all)
	if err != nil {
		return fmt.Errorf("encode freezes: %w", err)
	}
	return disk.WriteFile(disk.OS, f.path, data, 0o600)
}

// write sets a control of the very cgroup with this id: another one may have taken its path. One that is gone needs nothing.
func (f *Freezer) write(id uint64, path, control, value string) error {
	dir := filepath.Join(f.root, path)
	if dir == filepath.Clean(f.root) || !within(dir, filepath.Clean(f.root)) {
		return fmt.Errorf("%s of cgroup %q: %w: the whole machine", control, path, ErrInvalid)
	}
	folder, err := os.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open cgroup %s: %w", path, err)
	}
	defer folder.Close() //nolint:errcheck // nothing is written through it
	info, err := folder.Stat(".")
	if err != nil {
		return fmt.Errorf("look at cgroup %s: %w", path, err)
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); !ok || stat.Ino != id {
		return nil
	}
	file, err := folder.OpenFile(control, os.O_WRONLY, 0)
	if err == nil {
		_, err = file.WriteString(value)
		err = errors.Join(err, file.Close())
	}
	if err != nil && !errors.Is(err, syscall.ENODEV) {
		return fmt.Errorf("%s of cgroup %s: %w", control, path, err)
	}
	return nil
}
