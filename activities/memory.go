package activities

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/ledger"
	"tourniquet.dev/tourniquet/internal/plan"
)

// Journal is the enforcer's durable memory. Append returns after the entry is on disk; an error means that nothing may
// be done. Range reads every entry back, oldest first.
type Journal interface {
	Append(kind string, body any) (index int64, err error)
	Range(from int64, f func(index int64, e ledger.Entry) error) error
}

// The kinds of journal entries of an enforcer.
const (
	entryIntent      = "intent"
	entryReceipt     = "receipt"
	entryEnding      = "ending"
	entryGroupFailed = "group-failed"
	entryRefusal     = "refusal"
	entryPlaybook    = "playbook-seen"
	entryExtension   = "extension"
	entryReassert    = "reassert"
)

type (
	intentWritten struct {
		Intent     plan.Intent `json:"intent"`
		Playbook   string      `json:"playbook"`
		Unattended bool        `json:"unattended"`
		Nonces     []string    `json:"nonces,omitempty"`
		// Decisions are the signed decisions at hand, so that whoever audits can judge again.
		Decisions []authz.Envelope `json:"decisions,omitempty"`
	}
	receiptWritten struct {
		Receipt  plan.Receipt   `json:"receipt"`
		Envelope authz.Envelope `json:"envelope"`
	}
	ending struct {
		Key       string           `json:"key"`
		Verb      authz.Verb       `json:"verb"`
		Authority string           `json:"authority"`
		Envelopes []string         `json:"envelopes,omitempty"`
		Decisions []authz.Envelope `json:"decisions,omitempty"`
	}
	groupFailed struct {
		IncidentID string `json:"incident_id"`
		Plan       string `json:"plan"`
		Group      int    `json:"group"`
	}
	refusalWritten struct {
		IncidentID string     `json:"incident_id"`
		Plan       string     `json:"plan"`
		Step       int        `json:"step"`
		Verb       authz.Verb `json:"verb"`
		Code       authz.Code `json:"code"`
	}
	playbookSeen struct {
		Name    string `json:"name"`
		Version int    `json:"version"`
	}
	extension struct {
		Key       string    `json:"key"`
		Ends      time.Time `json:"ends"`
		Nonces    []string  `json:"nonces"`
		Authority string    `json:"authority"`
		// By is the digest of the decision, so that it counts once.
		By        []string         `json:"by"`
		Decisions []authz.Envelope `json:"decisions,omitempty"`
	}
	reassert struct {
		Key string `json:"key"`
		By  string `json:"by"`
	}
)

// record is what the gate remembers of one step.
type record struct {
	intent     plan.Intent
	playbook   string
	receipt    *plan.Receipt // applied or failed
	envelope   authz.Envelope
	ending     *ending // begun to end
	final      *plan.Receipt
	finalEnv   authz.Envelope
	extended   time.Time
	extensions []string
	reasserted int
	groupDown  bool
	told       bool      // a person was told that the hold stays broken
	tried      time.Time // when an open intent was last carried out by this process
}

func (r *record) ended() bool  { return r.ending != nil || r.final != nil || r.failed() }
func (r *record) failed() bool { return r.receipt != nil && r.receipt.Phase == plan.Failed }

// nothing reports whether the step failed and left nothing behind.
func (r *record) nothing() bool { return r.failed() && len(r.receipt.Effects) == 0 && !r.groupDown }

// on reports whether the step's effect stands or may stand.
func (r *record) on() bool { return r.final == nil && !r.nothing() }

func (r *record) ends() time.Time {
	if !r.extended.IsZero() {
		return r.extended
	}
	return r.intent.Ends
}

func (r *record) output(summary string) StepOutput {
	out := StepOutput{Receipt: r.envelope, Intent: r.intent, Summary: summary}
	if r.receipt != nil {
		out.Phase = r.receipt.Phase
	}
	if r.final != nil {
		out.Receipt, out.Phase = r.finalEnv, r.final.Phase
	}
	out.Intent.Ends = r.ends()
	out.Intent.PreImages = slices.Clone(r.intent.PreImages)
	for i := range out.Intent.PreImages {
		out.Intent.PreImages[i].State = nil
	}
	return out
}

// memory is the journal as a map, built only by replaying entries: what is in memory is on disk.
type memory struct {
	steps      map[string]*record
	order      []string // keys in the order of their intents
	highest    map[string]int
	nonces     map[string]string
	unattended map[string][]time.Time
	groups     map[groupFailed]bool
}

func newMemory() *memory {
	return &memory{steps: map[string]*record{}, highest: map[string]int{}, nonces: map[string]string{},
		unattended: map[string][]time.Time{}, groups: map[groupFailed]bool{}}
}

// replay takes one journal entry in. Unknown kinds are an error: a newer program wrote them.
func (m *memory) replay(kind string, body json.RawMessage) error {
	switch kind {
	case entryIntent:
		return decode(body, func(w intentWritten) { m.intent(w) })
	case entryReceipt:
		return decode(body, func(w receiptWritten) { m.receipt(w) })
	case entryEnding:
		return decode(body, func(w ending) {
			if r := m.steps[w.Key]; r != nil {
				r.ending = &w
			}
		})
	case entryGroupFailed:
		return decode(body, func(w groupFailed) {
			m.groups[w] = true
			for _, r := range m.steps {
				if (groupFailed{r.intent.IncidentID, r.intent.PlanDigest, r.intent.Step.Group}) == w {
					r.groupDown = true
				}
			}
		})
	case entryExtension:
		return decode(body, func(w extension) {
			if r := m.steps[w.Key]; r != nil {
				r.extended, r.extensions = w.Ends, append(r.extensions, w.By...)
			}
		})
	case entryReassert:
		return decode(body, func(w reassert) {
			if r := m.steps[w.Key]; r != nil {
				r.reasserted++
			}
		})
	case entryPlaybook:
		return decode(body, func(w playbookSeen) { m.highest[w.Name] = max(m.highest[w.Name], w.Version) })
	case entryRefusal:
		return nil
	}
	return fmt.Errorf("journal entry of unknown kind %q", kind)
}

func decode[T any](body json.RawMessage, use func(T)) error {
	var v T
	if err := json.Unmarshal(body, &v); err != nil {
		return fmt.Errorf("journal entry: %w", err)
	}
	use(v)
	return nil
}

func (m *memory) intent(w intentWritten) {
	in := w.Intent
	r := &record{intent: in, playbook: w.Playbook}
	r.groupDown = in.Step.Group != 0 && m.groups[groupFailed{in.IncidentID, in.PlanDigest, in.Step.Group}]
	m.steps[in.Key], m.order = r, append(m.order, in.Key)
	for _, n := range w.Nonces {
		m.nonces[n] = in.PlanDigest
	}
	if w.Unattended {
		for _, name := range []string{"", w.Playbook} {
			m.unattended[name] = append(m.unattended[name], in.At)
		}
	}
}

func (m *memory) receipt(w receiptWritten) {
	r := m.steps[w.Receipt.Key]
	if r == nil {
		return
	}
	switch w.Receipt.Phase {
	case plan.Undone, plan.Retired:
		r.final, r.finalEnv = &w.Receipt, w.Envelope
	default:
		r.receipt, r.envelope = &w.Receipt, w.Envelope
	}
}

// spent is what the judge may know of the past, with the step's own hold where there is one.
func (m *memory) spent(r *record) authz.Spent {
	s := authz.Spent{HighestPlaybook: m.highest, Unattended: m.unattended, Nonces: m.nonces}
	if r != nil {
		s.Ended = r.final != nil
		s.Held = &authz.Held{Since: r.intent.At, Ends: r.ends(), Expiry: r.intent.Step.Expiry, GroupFailed: r.groupDown, Reasserted: r.reasserted}
	}
	return s
}

// firstImage returns the pre-image of the first hold of this action on this target that is or may be on.
func (m *memory) firstImage(a plan.Action, t plan.Target) (plan.PreImage, bool) {
	for _, key := range m.order {
		r := m.steps[key]
		if !r.on() || r.intent.Step.Action != a {
			continue
		}
		for _, img := range r.intent.PreImages {
			if img.Target.UID == t.UID && img.Target.Kind == t.Kind {
				return img, true
			}
		}
	}
	return plan.PreImage{}, false
}

// heldElsewhere reports whether another open hold of the same action covers the target.
func (m *memory) heldElsewhere(mine *record, t plan.Target) bool {
	for _, r := range m.steps {
		if r == mine || !r.on() || r.ending != nil || r.intent.Step.Action != mine.intent.Step.Action {
			continue
		}
		if slices.ContainsFunc(r.intent.Targets, func(o plan.Target) bool { return o.UID == t.UID && o.Kind == t.Kind }) {
			return true
		}
	}
	return false
}
