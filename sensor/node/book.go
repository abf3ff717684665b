package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/sys/disk"
	"tourniquet.dev/tourniquet/sensor/hold"
)

const (
	maxBook = 16 << 20
	// keepFor is how long an order is remembered after its end. It cannot be obeyed then anyway; this is for clocks that
	// are set back.
	keepFor = 24 * time.Hour
)

// book remembers the orders that were obeyed, so that a restart neither repeats nor forgets one.
type book struct {
	// Floor: an unknown order that was issued before it is refused. It is set when the book of before was damaged.
	Floor time.Time `json:"floor"`
	// Boot is the boot whose cgroups the records name: after another one the ids are others'.
	Boot    string             `json:"boot"`
	Records map[string]*record `json:"records"` // by the order's key

	path    string
	damaged error
}

// record is what was done for one key.
type record struct {
	Order    authz.Order `json:"order"`   // the last one that put it on; of a key that was only lifted, the lift
	Digests  []string    `json:"digests"` // of all that were heard
	Heard    time.Time   `json:"heard"`   // when the last one was, by our clock
	LiftedAt time.Time   `json:"lifted_at"`
	Lifted   bool        `json:"lifted"`
	Cgroups  []uint64    `json:"cgroups,omitempty"`
	Told     bool        `json:"told"`    // that it is on
	Dropped  bool        `json:"dropped"` // that it has stopped something
	Failed   string      `json:"failed,omitempty"`
	Done     bool        `json:"done"` // it is off again
	Closed   bool        `json:"closed"`
	Outcome  string      `json:"outcome,omitempty"` // of a deed of one moment, once it is known
	Drops    hold.Drops  `json:"drops"`
}

func openBook(dir, boot string, now time.Time) (*book, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make folder of orders: %w", err)
	}
	b := &book{Records: map[string]*record{}, Boot: boot, path: filepath.Join(dir, "orders.json")}
	data, err := disk.ReadFile(disk.OS, b.path, maxBook)
	if errors.Is(err, os.ErrNotExist) {
		return b, nil
	}
	if err == nil {
		err = json.Unmarshal(data, b)
	}
	for key, rec := range b.Records {
		if rec == nil && err == nil {
			err = fmt.Errorf("order %.40q has no record", key)
		}
	}
	if err == nil {
		return b, b.rebase(boot)
	}
	// Which orders were lifted is not known any more: none of before is obeyed again.
	b.damaged, b.Floor, b.Boot, b.Records = err, now, boot, map[string]*record{}
	if err := os.Rename(b.path, b.path+".damaged"); err != nil {
		return nil, fmt.Errorf("put damaged orders aside: %w", err)
	}
	return b, b.save()
}

// rebase forgets the cgroups of another boot. Its holds ended with it.
func (b *book) rebase(boot string) error {
	if b.Boot == boot {
		return nil
	}
	b.Boot = boot
	for _, rec := range b.Records {
		rec.Cgroups, rec.Drops = nil, hold.Drops{}
	}
	return b.save()
}

func (b *book) save() error {
	data, err := json.Marshal(b)
	if err != nil {
		return fmt.Errorf("encode orders: %w", err)
	}
	return disk.WriteFile(disk.OS, b.path, data, 0o600)
}

func (b *book) of(key string) *record { return b.Records[key] }

// begin remembers the first order of a key.
func (b *book) begin(o signedOrder) *record {
	rec := &record{}
	rec.renew(o)
	b.Records[o.Key] = rec
	return rec
}

// prune forgets what ended long ago.
func (b *book) prune(now time.Time) bool {
	pruned := false
	for key, rec := range b.Records {
		if rec.Closed && now.After(rec.Order.Until.Add(keepFor)) {
			delete(b.Records, key)
			pruned = true
		}
	}
	return pruned
}

// obeyed reports whether the order of this digest was heard: then there is nothing to tell when it has ended.
func (b *book) obeyed(digest string) bool {
	for _, rec := range b.Records {
		for _, d := range rec.Digests {
			if d == digest {
				return true
			}
		}
	}
	return false
}

func (r *record) heard(o signedOrder) bool {
	for _, d := range r.Digests {
		if d == o.digest {
			return true
		}
	}
	return false
}

// last is when the newest order of the key was issued.
func (r *record) last() time.Time {
	if r.Lifted && r.LiftedAt.After(r.Order.IssuedAt) {
		return r.LiftedAt
	}
	return r.Order.IssuedAt
}

// renew takes a newer order of the key.
func (r *record) renew(o signedOrder) {
	r.Digests = append(r.Digests, o.digest)
	if o.Lift {
		r.Lifted, r.LiftedAt = true, o.IssuedAt
		if r.Order.Key == "" {
			r.Order = o.Order
		}
		return
	}
	r.Order, r.Lifted, r.Done, r.Closed, r.Told, r.Failed = o.Order, false, false, false, false, ""
}

// active reports whether the order is in force as far as the book knows: neither lifted nor over.
func (r *record) active() bool { return !r.Lifted && !r.Done }

// count takes a newer reading of what was stopped.
func (r *record) count(d hold.Drops) {
	r.Drops.EgressPackets = max(r.Drops.EgressPackets, d.EgressPackets)
	r.Drops.EgressBytes = max(r.Drops.EgressBytes, d.EgressBytes)
	r.Drops.IngressPackets = max(r.Drops.IngressPackets, d.IngressPackets)
	r.Drops.IngressBytes = max(r.Drops.IngressBytes, d.IngressBytes)
	r.Drops.Connects = max(r.Drops.Connects, d.Connects)
	r.Drops.Last = max(r.Drops.Last, d.Last)
}

func stopped(d hold.Drops) uint64 { return d.EgressPackets + d.IngressPackets + d.Connects }
