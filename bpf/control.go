package bpf

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
)

// Config is what the programs obey at once, attached or not.
type Config struct {
	WatchAll    bool          // every cgroup, not only those given to Watch
	SelfTGID    uint32        // whose doings are not told: the sensor's own process; 0: nobody's
	MaxArgs     uint32        // bytes of arguments to take at an exec, at most 4096; 0: none
	FailedOpens bool          // tell also of watched names that could not be opened
	Datagrams   bool          // tell also of datagrams sent without a connect
	Quiet       time.Duration // datagrams of one process to one address, and calls alike, are told once in this time
	Rate        uint32        // telemetry of connects and of queries, each, that a cgroup may cause in a second; 0: no limit
	Burst       uint32        // how many of them may come at once; 0: as many as in a second
}

const (
	flagWatchAll uint32 = 1 << iota
	flagFailedOpens
	flagInodes
	flagDatagrams
	flagDevices
)

type configValue struct {
	Flags    uint32
	SelfTGID uint32
	ArgsMax  uint32
	_        uint32
	QuietNS  uint64
	// A kind's telemetry of one cgroup comes IntervalNS apart on average, and may be ahead of that by BurstNS.
	IntervalNS uint64
	BurstNS    uint64
}

// NameKind says what a name is the name of.
type NameKind uint32

// The kinds of names that are matched in the kernel.
const (
	NameFile   NameKind = 0 // a file that is opened
	NameDir    NameKind = 1 // the directory of a file that is opened
	NameExec   NameKind = 2 // a file that is executed
	NameSocket NameKind = 3 // a unix socket that is connected to: of its file, or its abstract name
)

const nameLen = 28

type nameKey struct {
	What NameKind
	Name [nameLen]byte
}

type inodeKey struct {
	Ino uint64
	Dev uint32
	_   uint32
}

// Counter is one kind's account: Seen = Filtered + Limited + Submitted + Dropped, exactly, whenever no program is at work. Missed
// counts runs that the kernel skipped because the same program was already running on that CPU; they are in no other field.
type Counter struct {
	Kind      Kind
	Seen      uint64
	Filtered  uint64
	Submitted [2]uint64 // by Class
	Dropped   [2]uint64 // by Class
	Limited   uint64    // telemetry beyond its cgroup's rate
	Missed    uint64
}

type counterValue struct {
	Seen      uint64
	Filtered  uint64
	Submitted [2]uint64
	Dropped   [2]uint64
	Limited   uint64
}

// Configure replaces the configuration.
func (p *Programs) Configure(c Config) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	flags := p.config.Flags & (flagInodes | flagDevices)
	for flag, on := range map[uint32]bool{flagWatchAll: c.WatchAll, flagFailedOpens: c.FailedOpens, flagDatagrams: c.Datagrams} {
		if on {
			flags |= flag
		}
	}
	v := configValue{Flags: flags, SelfTGID: c.SelfTGID, ArgsMax: c.MaxArgs, QuietNS: uint64(c.Quiet)}
	if c.Rate > 0 {
		v.IntervalNS = uint64(time.Second) / uint64(c.Rate)
		if c.Burst == 0 {
			c.Burst = c.Rate
		}
		v.BurstNS = v.IntervalNS * uint64(c.Burst-1)
	}
	return p.configure(v)
}

func (p *Programs) configure(v configValue) error {
	if err := p.shared[execMapConfig].Put(uint32(0), v); err != nil {
		return fmt.Errorf("configure probes: %w", err)
	}
	p.config = v
	return nil
}

// Watch gives a cgroup (not those below it) a policy, whose number its events then carry.
func (p *Programs) Watch(cgroupID uint64, policy uint32) error {
	if err := p.shared[execMapWatched].Put(cgroupID, policy); err != nil {
		return fmt.Errorf("watch cgroup %d: %w", cgroupID, err)
	}
	return nil
}

// Unwatch forgets a cgroup. One that is not known is no error.
func (p *Programs) Unwatch(cgroupID uint64) error {
	if err := p.shared[execMapWatched].Delete(cgroupID); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("unwatch cgroup %d: %w", cgroupID, err)
	}
	return nil
}

// MatchName has a name give the bits to the events' Match; bits 0 forgets the name. Names are compared by their first
// 27 bytes.
func (p *Programs) MatchName(what NameKind, name string, bits uint32) error {
	key := nameKey{What: what}
	copy(key.Name[:nameLen-1], name)
	if err := putOrDelete(p.shared[execMapNames], key, bits); err != nil {
		return fmt.Errorf("match name %q: %w", name, err)
	}
	return nil
}

// MatchInode has a file, or with ino 0 every file of a device, give the bits to the Match of opens; bits 0 forgets it.
// Dev is in the kernel's form, see KernelDev. Needs HookOpen.
func (p *Programs) MatchInode(dev uint32, ino uint64, bits uint32) error {
	m := p.mapOf(HookOpen, openMapInodes)
	if m == nil {
		return fmt.Errorf("match inode %d: hook %s is not loaded", ino, HookOpen)
	}
	if err := putOrDelete(m, inodeKey{Ino: ino, Dev: dev}, bits); err != nil {
		return fmt.Errorf("match inode %d of device %d: %w", ino, dev, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	v := p.config
	if ino == 0 {
		v.Flags |= flagDevices
	} else {
		v.Flags |= flagInodes
	}
	return p.configure(v)
}

// MatchAddress has an address give the bits to the Match of connects and make them critical; bits 0 forgets it. Needs
// HookConnect.
func (p *Programs) MatchAddress(addr netip.Addr, bits uint32) error {
	m := p.mapOf(HookConnect, connectMapAddresses)
	if m == nil {
		return fmt.Errorf("match address %s: hook %s is not loaded", addr, HookConnect)
	}
	if err := putOrDelete(m, addr.As16(), bits); err != nil {
		return fmt.Errorf("match address %s: %w", addr, err)
	}
	return nil
}

// MatchCalls has these calls give the bits to the Match of their events, and no others be told. A unix socket is told of where
// MatchName asks for its name and CallConnect is among the calls. Those that neither HookCall nor HookCred loaded are ignored.
func (p *Programs) MatchCalls(bits map[Call]uint32) error {
	var rare, creds []Call
	for call, b := range bits {
		switch {
		case !call.Valid() || b == 0:
		case call == CallSetID || call == CallCapset:
			creds = append(creds, call)
		default:
			rare = append(rare, call)
		}
	}
	if m := p.mapOf(HookCall, callMapCallBits); m != nil {
		for _, call := range rare {
			if err := m.Put(uint32(call), bits[call]); err != nil {
				return fmt.Errorf("match call %s: %w", call, err)
			}
		}
	}
	for hook, calls := range map[Hook][]Call{HookCall: rare, HookCred: creds} {
		m := p.mapOf(hook, callMapCallTable)
		if m == nil {
			continue
		}
		if err := m.Put(uint32(0), callTableOf(calls)); err != nil {
			return fmt.Errorf("match calls of hook %s: %w", hook, err)
		}
	}
	return nil
}

func putOrDelete(m *ebpf.Map, key any, bits uint32) error {
	if bits != 0 {
		return m.Put(key, bits)
	}
	if err := m.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return err
	}
	return nil
}

func (p *Programs) mapOf(hook Hook, name string) *ebpf.Map {
	p.hooksMu.RLock()
	defer p.hooksMu.RUnlock()
	for _, h := range p.hooks {
		if h.hook == hook && h.loaded != nil {
			return h.loaded.Maps[name]
		}
	}
	return nil
}

// Counters reads every kind's account.
func (p *Programs) Counters() ([]Counter, error) {
	var all []Counter
	for _, kind := range Kinds() {
		var cpus []counterValue
		if err := p.shared[execMapCounters].Lookup(uint32(kind), &cpus); err != nil {
			return nil, fmt.Errorf("read counters of %s: %w", kind, err)
		}
		c := Counter{Kind: kind, Missed: p.missed(kind)}
		for _, v := range cpus {
			c.Seen += v.Seen
			c.Filtered += v.Filtered
			c.Limited += v.Limited
			for class := range v.Submitted {
				c.Submitted[class] += v.Submitted[class]
				c.Dropped[class] += v.Dropped[class]
			}
		}
		all = append(all, c)
	}
	return all, nil
}

// missed sums the skipped runs of the hook that tells this kind.
func (p *Programs) missed(kind Kind) uint64 {
	p.hooksMu.RLock()
	defer p.hooksMu.RUnlock()
	sum := p.missedBefore[kind.hook()]
	for _, h := range p.hooks {
		if h.hook == kind.hook() {
			sum += h.missed()
		}
	}
	return sum
}

const clockBoottime = 7

// Now reads CLOCK_BOOTTIME, the clock of all records and holds: time since boot, suspended time included.
func Now() time.Duration {
	var ts syscall.Timespec
	_, _, errno := syscall.Syscall(syscall.SYS_CLOCK_GETTIME, clockBoottime, uintptr(unsafe.Pointer(&ts)), 0)
	if errno != 0 {
		panic("bpf: this kernel has no CLOCK_BOOTTIME: " + errno.Error()) // every kernel since 2.6.39 has it
	}
	return time.Duration(ts.Nano())
}
