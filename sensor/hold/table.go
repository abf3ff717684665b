// Package hold cuts cgroups from the network, in the kernel and for a time. A hold ends by itself at the moment it was
// put with, even if this process is dead; only a new Put moves that moment. The package judges nothing: whether a
// cgroup may be held is settled by its caller, sensor/node, before it calls Put.
package hold

import (
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"github.com/cilium/ebpf"

	"tourniquet.dev/tourniquet/bpf"
)

// ErrInvalid marks a hold that is refused as it stands: of the whole machine, without an end, already over, too long.
var ErrInvalid = errors.New("invalid hold")

// ErrNotHeld marks a cgroup without a hold.
var ErrNotHeld = errors.New("cgroup has no hold")

// Bits say what a hold stops.
type Bits uint32

// What a hold can stop. Packets belong to the cgroup in which their socket was made, connects to that of the caller:
// Egress and Ingress cut what is established, of IPv4 and IPv6; Connect makes what is new fail at once with EPERM.
const (
	Egress  = Bits(bpf.HoldEgress)
	Ingress = Bits(bpf.HoldIngress)
	Connect = Bits(bpf.HoldConnect)
	All     = Egress | Ingress | Connect
)

// Hold is the cut of one cgroup and all below it.
type Hold struct {
	Cgroup uint64        // id in the v2 hierarchy
	Until  time.Duration // since boot, suspended time included: see Until
	Bits   Bits
}

// Drops counts what a hold has stopped since it was first put: the witness that it acts.
type Drops struct {
	EgressPackets  uint64
	EgressBytes    uint64
	IngressPackets uint64
	IngressBytes   uint64
	Connects       uint64
	Last           time.Duration // since boot; 0: nothing yet
}

// Held is a hold as it stands in the kernel.
type Held struct {
	Hold
	Drops   Drops
	Expired bool // its time is over: the kernel lets everything pass
}

// Options says where holds take effect.
type Options struct {
	CgroupRoot string        // where cgroup v2 is mounted
	PinDir     string        // a folder on a bpffs, in which holds outlive this process; "": they end with it
	Longest    time.Duration // no hold is put for longer; 0: no bound of our own
}

// Table is the kernel's table of holds. Safe for concurrent use, by one process at a time.
type Table struct {
	options Options
	root    uint64
	maps    *bpf.HoldMaps

	mu     sync.Mutex
	latest time.Duration
}

// Open attaches the programs, or adopts those that an earlier process has pinned, with the holds that stand.
func Open(o Options) (*Table, error) {
	var stat syscall.Stat_t
	if err := syscall.Stat(o.CgroupRoot, &stat); err != nil {
		return nil, fmt.Errorf("look at cgroup root %s: %w", o.CgroupRoot, err)
	}
	maps, err := bpf.LoadHold(bpf.HoldOptions{CgroupRoot: o.CgroupRoot, PinDir: o.PinDir})
	if err != nil {
		return nil, fmt.Errorf("open hold table: %w", err)
	}
	t := &Table{options: o, root: stat.Ino, maps: maps}
	held, err := t.List()
	if err != nil {
		return nil, errors.Join(err, maps.Close())
	}
	for _, h := range held {
		t.latest = max(t.latest, h.Until)
	}
	if err := maps.SetLatest(uint64(t.latest)); err != nil {
		return nil, errors.Join(err, maps.Close())
	}
	return t, nil
}

// Now reads the clock of the holds.
func Now() time.Duration { return bpf.Now() }

// Until returns the moment of the holds' clock that the wall clock, as it is set now, calls end.
func Until(end time.Time) time.Duration { return Now() + time.Until(end) }

func (t *Table) check(h Hold, now time.Duration) error {
	switch {
	case h.Cgroup == 0 || h.Cgroup == t.root:
		return fmt.Errorf("%w: cgroup %d is the whole machine", ErrInvalid, h.Cgroup)
	case h.Bits == 0 || h.Bits&^All != 0:
		return fmt.Errorf("%w: bits %#x", ErrInvalid, uint32(h.Bits))
	case h.Until <= now:
		return fmt.Errorf("%w: it ended %v ago", ErrInvalid, now-h.Until)
	case t.options.Longest > 0 && h.Until-now > t.options.Longest:
		return fmt.Errorf("%w: %v is longer than %v", ErrInvalid, h.Until-now, t.options.Longest)
	}
	return nil
}

// Put begins a hold, or replaces the one that the cgroup has: also its end, be it earlier. The count of drops goes on.
// When Put returns without an error, no packet passes any more.
func (t *Table) Put(h Hold) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.put(h)
}

// Raise is Put that takes nothing away from the hold that the cgroup has: neither of its time nor of what it stops. It
// reports whether anything was added. A reflex uses it, which must not shorten what an order has put.
func (t *Table) Raise(h Hold) (added bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	stands, err := t.get(h.Cgroup)
	if err == nil && !stands.Expired {
		if stands.Until >= h.Until && stands.Bits|h.Bits == stands.Bits {
			return false, nil
		}
		h.Until, h.Bits = max(h.Until, stands.Until), h.Bits|stands.Bits
	}
	if err != nil && !errors.Is(err, ErrNotHeld) {
		return false, err
	}
	return true, t.put(h)
}

func (t *Table) put(h Hold) error {
	if err := t.check(h, Now()); err != nil {
		return err
	}
	latest := max(t.latest, h.Until)
	if err := t.maps.SetLatest(uint64(latest)); err != nil {
		return fmt.Errorf("hold cgroup %d: %w", h.Cgroup, err)
	}
	t.latest = latest
	value := bpf.HoldValue{UntilNS: uint64(h.Until), Bits: uint32(h.Bits)}
	err := t.maps.Put(h.Cgroup, value)
	if errors.Is(err, syscall.E2BIG) { // full, perhaps of holds that are over
		if _, err := t.expire(); err != nil {
			return fmt.Errorf("hold cgroup %d: make room: %w", h.Cgroup, err)
		}
		err = t.maps.Put(h.Cgroup, value)
	}
	if err != nil {
		return fmt.Errorf("hold cgroup %d: %w", h.Cgroup, err)
	}
	return nil
}

// Lift ends a hold at once and returns it with what it has stopped. ErrNotHeld when there is none.
func (t *Table) Lift(cgroup uint64) (Held, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	held, err := t.get(cgroup)
	if err != nil {
		return held, err
	}
	if err := t.maps.Delete(cgroup); err != nil {
		return held, fmt.Errorf("lift hold of cgroup %d: %w", cgroup, err)
	}
	return held, nil
}

// Get returns the hold of a cgroup. ErrNotHeld when there is none.
func (t *Table) Get(cgroup uint64) (Held, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.get(cgroup)
}

func (t *Table) get(cgroup uint64) (Held, error) {
	value, drops, err := t.maps.Get(cgroup)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return Held{}, fmt.Errorf("cgroup %d: %w", cgroup, ErrNotHeld)
	}
	if err != nil {
		return Held{}, fmt.Errorf("cgroup %d: %w", cgroup, err)
	}
	until := time.Duration(value.UntilNS)
	return Held{
		Hold: Hold{Cgroup: cgroup, Until: until, Bits: Bits(value.Bits)},
		Drops: Drops{
			EgressPackets: drops.EgressPackets, EgressBytes: drops.EgressBytes,
			IngressPackets: drops.IngressPackets, IngressBytes: drops.IngressBytes,
			Connects: drops.Connects, Last: time.Duration(drops.LastNS),
		},
		Expired: until <= Now(),
	}, nil
}

// List returns all holds, also those that are over and that Expire has not removed yet.
func (t *Table) List() ([]Held, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.list()
}

func (t *Table) list() ([]Held, error) {
	ids, err := t.maps.Cgroups()
	if err != nil {
		return nil, fmt.Errorf("list holds: %w", err)
	}
	var all []Held
	for _, id := range ids {
		held, err := t.get(id)
		if err != nil {
			return nil, fmt.Errorf("list holds: %w", err)
		}
		all = append(all, held)
	}
	return all, nil
}

// Expire removes the holds that are over and returns them with what they have stopped. The kernel does not wait for it.
func (t *Table) Expire() ([]Held, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.expire()
}

func (t *Table) expire() ([]Held, error) {
	all, err := t.list()
	if err != nil {
		return nil, err
	}
	var over []Held
	for _, held := range all {
		if !held.Expired {
			continue
		}
		if err := t.maps.Delete(held.Cgroup); err != nil {
			return over, fmt.Errorf("remove hold of cgroup %d: %w", held.Cgroup, err)
		}
		over = append(over, held)
	}
	return over, nil
}

// Close lets go of the table. With a PinDir all holds stand on until their end; without one they end now.
func (t *Table) Close() error { return t.maps.Close() }

// Unpin removes the pins, so that Close ends all holds. For an uninstall; a restart must not call it.
func (t *Table) Unpin() error { return t.maps.Unpin() }
