package correlate

import "sync/atomic"

// A Kind is a sort of item that intake takes.
type Kind int

// The kinds.
const (
	Detections Kind = iota
	Receipts
	kinds
)

// String returns the name that metrics use.
func (k Kind) String() string { return [kinds]string{"detection", "receipt"}[k] }

// Kinds returns all kinds.
func Kinds() []Kind { return []Kind{Detections, Receipts} }

// Counters are the account of every item since the process began: at any quiescent instant
// Accepted + Recovered = Correlated + Duplicates + DeadLettered, and before that the difference is in the spool.
type Counters struct{ of [kinds]account }

type account struct{ accepted, recovered, correlated, duplicates, deadLettered atomic.Int64 }

// Account is a reading of the counters of one kind.
type Account struct {
	Accepted     int64 // answered for: on disk in the spool, known already, or in the dead letters
	Recovered    int64 // found in the spool at start: accepted by an earlier process
	Correlated   int64 // taken by Temporal
	Duplicates   int64 // known already
	DeadLettered int64 // kept aside, with a reason
}

// Pending is what is on its way.
func (a Account) Pending() int64 {
	return a.Accepted + a.Recovered - a.Correlated - a.Duplicates - a.DeadLettered
}

// Of reads the account of one kind. The reading may catch an item between two steps, but never one that was lost.
func (c *Counters) Of(k Kind) Account {
	a := &c.of[k]
	// What an item ends as is read before what it began as, so that Pending is never negative.
	out := Account{Correlated: a.correlated.Load(), Duplicates: a.duplicates.Load(), DeadLettered: a.deadLettered.Load()}
	out.Accepted, out.Recovered = a.accepted.Load(), a.recovered.Load()
	return out
}

// Spooled counts an item that is on disk in the spool.
func (c *Counters) Spooled(k Kind) { c.of[k].accepted.Add(1) }

// Known counts an item that was taken before.
func (c *Counters) Known(k Kind) {
	c.of[k].accepted.Add(1)
	c.of[k].duplicates.Add(1)
}

// Aside counts an item that went to the dead letters at the door.
func (c *Counters) Aside(k Kind) {
	c.of[k].accepted.Add(1)
	c.of[k].deadLettered.Add(1)
}
