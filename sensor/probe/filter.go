package probe

import (
	"errors"
	"net/netip"

	"tourniquet.dev/tourniquet/bpf"
)

// Name is something to match by name in the kernel.
type Name struct {
	What bpf.NameKind
	Name string // compared by its first 27 bytes
}

// File is something to match by inode in the kernel; Inode 0 stands for every file of the device.
type File struct {
	Device uint32 // in the kernel's form, see bpf.KernelDev
	Inode  uint64
}

// Filter says what the kernel tells of opens, execs and connects at once, each with the bits that its events then carry
// in Meta.Match. Without an entry that matches, an open, a call or a unix socket is not told at all; an exec and a connect are told with delay.
type Filter struct {
	Names     map[Name]uint32
	Files     map[File]uint32
	Addresses map[netip.Addr]uint32
	Calls     map[bpf.Call]uint32 // bpf.CallConnect stands for unix sockets that Names has
}

// SetFilter changes the filter in the kernel from the last one to f, so that what is in both never stops matching. What hooks
// would match that are not loaded waits for SetHooks.
func (r *Reader) SetFilter(f Filter) error {
	r.filterMu.Lock()
	defer r.filterMu.Unlock()
	r.asked = f
	return r.applyFilter(r.supported(f))
}

// SetHooks attaches and detaches hooks so that these are attached, each with its filter from its first event on. The others
// lose no event. Hooks that the kernel refuses are left out; see Status.
func (r *Reader) SetHooks(hooks []bpf.Hook) error {
	r.filterMu.Lock()
	defer r.filterMu.Unlock()
	err := r.programs.SetHooks(hooks, func() error {
		r.filter = Filter{Names: r.filter.Names} // the other maps may be new ones
		return r.applyFilter(r.supported(r.asked))
	})
	if err != nil {
		return err
	}
	_, err = r.Prove() // a new hook's tier is chosen by what it sees
	return err
}

func (r *Reader) applyFilter(f Filter) error {
	err := errors.Join(
		change(r.filter.Names, f.Names, func(n Name, bits uint32) error { return r.programs.MatchName(n.What, n.Name, bits) }),
		change(r.filter.Files, f.Files, func(n File, bits uint32) error { return r.programs.MatchInode(n.Device, n.Inode, bits) }),
		change(r.filter.Addresses, f.Addresses, r.programs.MatchAddress),
		r.programs.MatchCalls(f.Calls),
	)
	if err == nil {
		r.filter = f
	}
	return err
}

func change[K comparable](from, to map[K]uint32, set func(K, uint32) error) error {
	var errs []error
	for key, bits := range to {
		if from[key] != bits {
			errs = append(errs, set(key, bits))
		}
	}
	for key := range from {
		if to[key] == 0 {
			errs = append(errs, set(key, 0))
		}
	}
	return errors.Join(errs...)
}
