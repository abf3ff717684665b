package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
)

// Bits of HoldValue.Bits.
const (
	HoldEgress  uint32 = 1
	HoldIngress uint32 = 2
	HoldConnect uint32 = 4
)

// HoldValue is what the kernel obeys for one cgroup and all below it, until UntilNS of CLOCK_BOOTTIME.
type HoldValue struct {
	UntilNS uint64
	Bits    uint32
	_       uint32
}

// HoldDrops counts what a hold has stopped since it was put.
type HoldDrops struct {
	EgressPackets  uint64
	EgressBytes    uint64
	IngressPackets uint64
	IngressBytes   uint64
	Connects       uint64
	LastNS         uint64
}

// HoldOptions says where holds take effect and where they outlive the process.
type HoldOptions struct {
	CgroupRoot string // where cgroup v2 is mounted
	PinDir     string // a folder on a bpffs, made if missing; "": holds end with the process
}

// HoldMaps are the loaded and attached programs of the holds, and their maps. Safe for concurrent use.
type HoldMaps struct {
	pinDir string
	loaded *ebpf.Collection
	links  []link.Link // kept: a collected link detaches its program without a word
}

const bpffsMagic = 0xcafe4a11

// LoadHold loads and attaches the programs of the holds. Pinned maps and links of an earlier process are adopted, so
// that at no moment a hold is open: the programs are replaced in the standing links.
func LoadHold(o HoldOptions) (*HoldMaps, error) {
	if err := preparePins(o.PinDir); err != nil {
		return nil, err
	}
	spec, err := loadHold()
	if err != nil {
		return nil, fmt.Errorf("read hold object: %w", err)
	}
	var options ebpf.CollectionOptions
	if o.PinDir != "" {
		options.Maps.PinPath = o.PinDir
		for _, m := range spec.Maps {
			m.Pinning = ebpf.PinByName
		}
	}
	limit := rlimit.RemoveMemlock() // needed before 5.11 only; if it is, the load below fails too
	h := &HoldMaps{pinDir: o.PinDir}
	if h.loaded, err = ebpf.NewCollectionWithOptions(spec, options); err != nil {
		return nil, errors.Join(fmt.Errorf("load holds: %w", err), limit)
	}
	for name, program := range spec.Programs {
		l, err := h.attach(name, program, o.CgroupRoot)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("attach %s: %w", name, err), h.Close())
		}
		h.links = append(h.links, l)
	}
	return h, nil
}

func preparePins(dir string) error {
	if dir == "" {
		return nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make pin folder: %w", err)
	}
	var stat syscall.Statfs_t
	if err := syscall.Statfs(dir, &stat); err != nil {
		return fmt.Errorf("look at pin folder: %w", err)
	}
	if uint32(stat.Type) != bpffsMagic {
		return fmt.Errorf("pin folder %s is not on a bpffs", dir)
	}
	return nil
}

func (h *HoldMaps) attach(name string, spec *ebpf.ProgramSpec, root string) (link.Link, error) {
	program := h.loaded.Programs[name]
	if h.pinDir == "" {
		return attach(program, spec, root)
	}
	pin := filepath.Join(h.pinDir, name)
	old, err := adopt(pin, program, root)
	if old != nil || err != nil {
		return old, err
	}
	l, err := attach(program, spec, root)
	if err != nil {
		return nil, err
	}
	if err := l.Pin(pin); err != nil {
		return nil, errors.Join(fmt.Errorf("pin: %w", err), l.Close())
	}
	return l, nil
}

// adopt takes over a pinned link by putting the program into it, or removes it when it hangs on another cgroup tree.
func adopt(pin string, program *ebpf.Program, root string) (link.Link, error) {
	l, err := link.LoadPinnedLink(pin, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("load pin: %w", err)
	}
	if same, err := hangsOn(l, root); err != nil || !same {
		return nil, errors.Join(err, l.Unpin(), l.Close())
	}
	if err := l.Update(program); err != nil {
		return nil, errors.Join(fmt.Errorf("replace program: %w", err), l.Close())
	}
	return l, nil
}

func hangsOn(l link.Link, root string) (bool, error) {
	info, err := l.Info()
	if err != nil {
		return false, fmt.Errorf("look at pinned link: %w", err)
	}
	var stat syscall.Stat_t
	if err := syscall.Stat(root, &stat); err != nil {
		return false, fmt.Errorf("look at %s: %w", root, err)
	}
	cgroup := info.Cgroup()
	return cgroup != nil && cgroup.CgroupId == stat.Ino, nil // the id of a cgroup is the inode of its folder
}

// Put sets or replaces a hold. Its count of drops is kept if there was one, else it begins at zero.
func (h *HoldMaps) Put(cgroupID uint64, v HoldValue) error {
	err := h.loaded.Maps[holdMapHoldDrops].Update(cgroupID, HoldDrops{}, ebpf.UpdateNoExist)
	if err != nil && !errors.Is(err, ebpf.ErrKeyExist) {
		return fmt.Errorf("make count of drops: %w", err)
	}
	if err := h.loaded.Maps[holdMapHolds].Put(cgroupID, v); err != nil {
		return fmt.Errorf("put hold: %w", err)
	}
	return nil
}

// Get returns a hold and its drops; ebpf.ErrKeyNotExist without one.
func (h *HoldMaps) Get(cgroupID uint64) (HoldValue, HoldDrops, error) {
	var v HoldValue
	var d HoldDrops
	if err := h.loaded.Maps[holdMapHolds].Lookup(cgroupID, &v); err != nil {
		return v, d, fmt.Errorf("read hold: %w", err)
	}
	if err := h.loaded.Maps[holdMapHoldDrops].Lookup(cgroupID, &d); err != nil {
		return v, d, fmt.Errorf("read count of drops: %w", err)
	}
	return v, d, nil
}

// Delete removes a hold and its count. One that is not there is no error.
func (h *HoldMaps) Delete(cgroupID uint64) error {
	for _, name := range []string{holdMapHolds, holdMapHoldDrops} {
		if err := h.loaded.Maps[name].Delete(cgroupID); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("delete from %s: %w", name, err)
		}
	}
	return nil
}

// Cgroups returns the ids of all cgroups that have a hold, expired or not.
func (h *HoldMaps) Cgroups() ([]uint64, error) {
	var ids []uint64
	var id uint64
	var v HoldValue
	each := h.loaded.Maps[holdMapHolds].Iterate()
	for each.Next(&id, &v) {
		ids = append(ids, id)
	}
	if err := each.Err(); err != nil {
		return nil, fmt.Errorf("read holds: %w", err)
	}
	return ids, nil
}

// SetLatest says that no hold ends later than this moment of CLOCK_BOOTTIME; from then on packets are not looked at.
func (h *HoldMaps) SetLatest(ns uint64) error {
	if err := h.loaded.Maps[holdMapHoldLatest].Put(uint32(0), ns); err != nil {
		return fmt.Errorf("set latest end of holds: %w", err)
	}
	return nil
}

// Close lets go of programs and maps. What is pinned stays in force.
func (h *HoldMaps) Close() error {
	var errs []error
	for _, l := range h.links {
		errs = append(errs, l.Close())
	}
	h.links = nil
	h.loaded.Close()
	return errors.Join(errs...)
}

// Unpin removes the pins, so that Close ends all holds.
func (h *HoldMaps) Unpin() error {
	if h.pinDir == "" {
		return nil
	}
	var errs []error
	for _, l := range h.links {
		errs = append(errs, l.Unpin())
	}
	for _, m := range h.loaded.Maps {
		errs = append(errs, m.Unpin())
	}
	return errors.Join(errs...)
}
