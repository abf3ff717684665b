package click

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/card"
	"tourniquet.dev/tourniquet/internal/ledger"
	"tourniquet.dev/tourniquet/starter/decide/relay"
)

// The kinds of entries in decide's ledger.
const (
	entrySeen     = "request-seen"
	entryDecision = "decision"
	entryRefused  = "decision-refused"
	entrySettled  = "decision-settled"
)

// A Journal is decide's ledger on disk: what Append returned without error survives a crash.
type Journal interface {
	Append(kind string, body any) (int64, error)
	Range(from int64, f func(index int64, e ledger.Entry) error) error
}

// seen says that a signed request was taken in. The signature's hash is kept, never the body.
type seen struct {
	Signature string    `json:"signature"`
	Until     time.Time `json:"until"`
}

// Recorded is a decision in the ledger, before anything was told of it.
type Recorded struct {
	Decision  authz.Envelope     `json:"decision"`
	Digest    string             `json:"digest"`
	Kind      authz.DecisionKind `json:"kind"`
	Plan      string             `json:"plan"`
	Spent     string             `json:"spent"` // token nonce, person and kind: counted once
	Workflows []string           `json:"workflows"`
	Expires   time.Time          `json:"expires"`
}

// refused is a click that had no effect.
type refused struct {
	Code     Code   `json:"code"`
	User     string `json:"user"`
	Incident string `json:"incident,omitempty"`
	Plan     string `json:"plan,omitempty"`
	Body     string `json:"raw_body_digest"`
}

// settled says what became of a decision.
type settled struct {
	Digest  string        `json:"digest"`
	Outcome relay.Outcome `json:"outcome"`
}

// memory is what decide knows of the past: all of it comes from the ledger, so a restart changes nothing.
type memory struct {
	journal Journal
	now     func() time.Time

	mu        sync.Mutex
	seen      map[string]time.Time
	spent     map[string]bool
	decisions map[string][]Recorded // by plan
}

// remember reads the ledger back and returns the decisions that no workflow was told of for sure.
func remember(j Journal, now func() time.Time) (*memory, []relay.Item, error) {
	m := &memory{journal: j, now: now, seen: map[string]time.Time{}, spent: map[string]bool{}, decisions: map[string][]Recorded{}}
	var order []Recorded
	done := map[string]bool{}
	err := j.Range(0, func(i int64, e ledger.Entry) error {
		var err error
		switch e.Kind {
		case entrySeen:
			err = decode(e.Body, func(s seen) { m.seen[s.Signature] = s.Until })
		case entryDecision:
			err = decode(e.Body, func(r Recorded) { order = append(order, r); m.keep(r) })
		case entrySettled:
			err = decode(e.Body, func(s settled) { done[s.Digest] = true })
		case entryRefused:
		default:
			err = fmt.Errorf("unknown kind %q: a newer decide wrote it", e.Kind)
		}
		if err != nil {
			return fmt.Errorf("ledger entry %d: %w", i, err)
		}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	m.forget()
	var unsettled []relay.Item
	for _, r := range order {
		if !done[r.Digest] {
			unsettled = append(unsettled, relay.Item{Digest: r.Digest, Decision: r.Decision, Workflows: r.Workflows})
		}
	}
	return m, unsettled, nil
}

func decode[T any](body json.RawMessage, use func(T)) error {
	var v T
	if err := json.Unmarshal(body, &v); err != nil {
		return err
	}
	use(v)
	return nil
}

// first records a request's signature and reports whether it came for the first time.
func (m *memory) first(signature string) (bool, error) {
	sum := sha256.Sum256([]byte(signature))
	s := seen{Signature: hex.EncodeToString(sum[:]), Until: m.now().Add(remembered).UTC().Truncate(time.Millisecond)}
	m.mu.Lock()
	m.forget()
	_, known := m.seen[s.Signature]
	m.seen[s.Signature] = s.Until // before it is on disk: of two at once only one goes on
	m.mu.Unlock()
	if known {
		return false, nil
	}
	_, err := m.journal.Append(entrySeen, s)
	return err == nil, err
}

// forget drops signatures that can no longer be valid.
func (m *memory) forget() {
	now := m.now()
	for sig, until := range m.seen {
		if now.After(until) {
			delete(m.seen, sig)
		}
	}
}

// record writes a decision into the ledger, once for each token, person and kind.
func (m *memory) record(r Recorded) error {
	m.mu.Lock()
	known := m.spent[r.Spent]
	m.spent[r.Spent] = true // before it is on disk: of two clicks at once only one goes on
	m.mu.Unlock()
	if known {
		return refuse(CodeAlready)
	}
	if _, err := m.journal.Append(entryDecision, r); err != nil {
		m.mu.Lock()
		delete(m.spent, r.Spent)
		m.mu.Unlock()
		return because(CodeLedger, err)
	}
	m.mu.Lock()
	m.keep(r)
	m.mu.Unlock()
	return nil
}

func (m *memory) keep(r Recorded) {
	m.spent[r.Spent] = true
	m.decisions[r.Plan] = append(m.decisions[r.Plan], r)
}

// made returns the decisions on a plan that have not expired, for the judge.
func (m *memory) made(plan string) []authz.Envelope {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []authz.Envelope
	for _, r := range m.decisions[plan] {
		if m.now().Before(r.Expires) {
			out = append(out, r.Decision)
		}
	}
	return out
}

// denied reports whether somebody denied one of the plans on offer.
func (m *memory) denied(offers []card.Offer) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, o := range offers {
		if slices.ContainsFunc(m.decisions[o.Plan], func(r Recorded) bool { return r.Kind == authz.Deny }) {
			return true
		}
	}
	return false
}

func (m *memory) settle(item relay.Item, o relay.Outcome) error {
	_, err := m.journal.Append(entrySettled, settled{Digest: item.Digest, Outcome: o})
	return err
}

func (m *memory) refuse(r refused) error {
	_, err := m.journal.Append(entryRefused, r)
	return err
}
