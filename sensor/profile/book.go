package profile

import (
	"cmp"
	"container/list"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Store keeps profiles; Folder does. Load returns nil without an error for a profile that it does not have.
type Store interface {
	Load(Key) (*Profile, error)
	Save(*Profile) error
}

// Options are what a Book goes by.
type Options struct {
	Mode       Mode
	Namespaces map[string]Mode // instead of Mode
	Window     Window
	// Ranges are addresses that are one destination each: the cluster's pods and services, a provider's published ones.
	Ranges []netip.Prefix
	Max    int // profiles in memory; 0: 512
	Store  Store
}

const defaultMax = 512

// Stats are a Book's counters.
type Stats struct {
	Profiles int    // in memory
	Alerting int    // of them
	Drifts   uint64 // told
	Failed   uint64 // profiles that could not be read or written
	Refused  uint64 // events of workloads for whose profile the store has no room
}

// Book keeps the profiles of a node's workloads. The one that was used longest ago is brought to disk when there are too
// many, and found again there: a workload cannot make another's profile be learned anew. Safe for concurrent use.
type Book struct {
	o Options

	mu    sync.Mutex
	byKey map[Key]*list.Element
	order *list.List // of *Profile, the one used longest ago in front
	stats Stats
}

// NewBook makes a Book.
func NewBook(o Options) *Book {
	if o.Max == 0 {
		o.Max = defaultMax
	}
	o.Ranges = slices.Clone(o.Ranges)
	slices.SortStableFunc(o.Ranges, func(a, b netip.Prefix) int { return cmp.Compare(b.Bits(), a.Bits()) })
	return &Book{o: o, byKey: map[Key]*list.Element{}, order: list.New()}
}

func (b *Book) mode(namespace string) Mode {
	if m, ok := b.o.Namespaces[namespace]; ok {
		return m
	}
	return b.o.Mode
}

// Observe learns from an event of a workload, or tells how it drifts from its profile. now is when it happened, by the
// wall clock. An error tells of a profile that could not be read, once: the event is learned into a new one all the same.
func (b *Book) Observe(key Key, labels map[string]string, e Event, now time.Time) (Drift, bool, error) {
	r := rules{mode: b.mode(key.Namespace), window: b.o.Window, ranges: b.o.Ranges}
	if r.mode == Off {
		return Drift{}, false, nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	p, err := b.get(key, labels)
	if p == nil {
		return Drift{}, false, err
	}
	d, drifts := p.observe(e, r, now)
	if drifts {
		b.stats.Drifts++
	}
	return d, drifts, err
}

func (b *Book) get(key Key, labels map[string]string) (*Profile, error) {
	if el, ok := b.byKey[key]; ok {
		b.order.MoveToBack(el)
		return el.Value.(*Profile), nil
	}
	var p *Profile
	var err error
	if b.o.Store != nil {
		p, err = b.o.Store.Load(key)
	}
	if errors.Is(err, ErrNoRoom) {
		b.stats.Refused++
		return nil, err
	}
	if err != nil {
		b.stats.Failed++
	}
	if p == nil {
		p = New(key, labels)
	}
	b.byKey[key] = b.order.PushBack(p)
	for b.order.Len() > b.o.Max {
		oldest := b.order.Front()
		if saved := b.save(oldest.Value.(*Profile)); saved != nil {
			err = errors.Join(err, saved)
		}
		delete(b.byKey, b.order.Remove(oldest).(*Profile).Key)
	}
	return p, err
}

func (b *Book) save(p *Profile) error {
	if !p.dirty || b.o.Store == nil {
		return nil
	}
	if err := b.o.Store.Save(p); err != nil {
		b.stats.Failed++
		return fmt.Errorf("save profile %s: %w", p.Key.ID(), err)
	}
	p.dirty = false
	return nil
}

// Save brings what changed to disk.
func (b *Book) Save() error {
	b.mu.Lock()
	var changed []Key
	for el := b.order.Front(); el != nil; el = el.Next() {
		if p := el.Value.(*Profile); p.dirty {
			changed = append(changed, p.Key)
		}
	}
	b.mu.Unlock()
	var errs []error
	for _, key := range changed { // one at a time, so that who observes waits for one write at most
		b.mu.Lock()
		if el, ok := b.byKey[key]; ok {
			errs = append(errs, b.save(el.Value.(*Profile)))
		}
		b.mu.Unlock()
	}
	return errors.Join(errs...)
}

// Stats reads the counters.
func (b *Book) Stats() Stats {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.stats
	s.Profiles = b.order.Len()
	for el := b.order.Front(); el != nil; el = el.Next() {
		if !el.Value.(*Profile).Alerting.IsZero() {
			s.Alerting++
		}
	}
	return s
}
