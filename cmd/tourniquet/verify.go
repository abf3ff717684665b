package main

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"go.temporal.io/sdk/converter"

	"tourniquet.dev/tourniquet/activities"
	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/canonical"
	"tourniquet.dev/tourniquet/internal/ledger"
	"tourniquet.dev/tourniquet/internal/sys/bundle"
	"tourniquet.dev/tourniquet/internal/sys/keys"
	"tourniquet.dev/tourniquet/internal/sys/store"
	"tourniquet.dev/tourniquet/internal/sys/temporalclient"
	"tourniquet.dev/tourniquet/internal/trust"
)

// result is the outcome of one check.
type result struct {
	Check  string `json:"check"`
	Is     string `json:"is"` // ok, failed, or note
	Detail string `json:"detail"`
}

// verifier checks one bundle. It reads nothing but its fields and asks no clock, so its lines are always the same.
type verifier struct {
	root    ed25519.PublicKey
	ring    *temporalclient.KeyRing
	dc      converter.DataConverter
	bundle  *bundle.Bundle
	id      string // of the incident
	policy  activities.Policy
	ledgers []provenLedger
	results []result
}

// provenLedger is what of one ledger the bundle holds and proves.
type provenLedger struct {
	origin  string
	role    trust.Role
	entries []ledger.Entry
}

func (a *app) verify(ctx context.Context, file string) error {
	c, err := a.load()
	if err != nil {
		return err
	}
	if err := errors.Join(need("root", c.Root), need("key-ring", c.Temporal.KeyRing)); err != nil {
		return err
	}
	root, err := keys.LoadPublic(c.Root)
	if err != nil {
		return err
	}
	ring, err := loadRing(c.Temporal.KeyRing)
	if err != nil {
		return err
	}
	data, err := readFile(file, bundle.MaxBytes)
	if err != nil {
		return err
	}
	results := verifyBundle(ctx, data, root, ring)
	bad := 0
	for _, r := range results {
		if r.Is == "failed" {
			bad++
		}
	}
	err = a.show(results, func() {
		for _, r := range results {
			a.printf("%-7s %-11s %s\n", r.Is, r.Check, printable(strings.ReplaceAll(r.Detail, "\n", "; "), 1000))
		}
		if bad == 0 {
			a.printf("verified: everything that is claimed holds\n")
		}
	})
	if err == nil && bad > 0 {
		err = refused(fmt.Errorf("%s does not hold: %d checks failed", file, bad), "the lines above that begin with failed say what")
	}
	return err
}

// verifyBundle makes every check that can still mean something after those before it.
func verifyBundle(ctx context.Context, data []byte, root ed25519.PublicKey, ring *temporalclient.KeyRing) []result {
	v := &verifier{root: root, ring: ring, dc: temporalclient.DataConverter(ring)}
	if v.container(data) {
		v.playbooks()
		v.objects()
		v.ledger()
		v.judged(ctx)
		v.histories(ctx)
	}
	return v.results
}

func (v *verifier) ok(check, format string, args ...any) { v.add(check, "ok", format, args) }

func (v *verifier) fail(check, format string, args ...any) { v.add(check, "failed", format, args) }

func (v *verifier) note(format string, args ...any) { v.add("", "note", format, args) }

func (v *verifier) add(check, is, format string, args []any) {
	v.results = append(v.results, result{check, is, fmt.Sprintf(format, args...)})
}

// container checks form, trust file and manifest. Without them nothing else can be believed.
func (v *verifier) container(data []byte) bool {
	b, err := bundle.Open(data)
	if err != nil {
		v.fail("form", "%v", err)
		return false
	}
	v.bundle = b
	v.ok("form", "%s, %d files, %s", bundle.Format, len(b.Files), canonical.DigestOf(data))
	e, err := authz.DecodeEnvelope(b.Files[fileTrust])
	if err == nil {
		v.policy.Trust, err = authz.OpenTrust(e, v.root)
	}
	if err != nil {
		v.fail("trust", "%v", err)
		return false
	}
	t := v.policy.Trust
	v.ok("trust", "%s version %d, signed by root key %s", t.Trust, t.Version, trust.KeyID(v.root))
	m, keyID, err := b.Verify(peopleKeys(t))
	if err != nil {
		v.fail("manifest", "%v", err)
		return false
	}
	if p, ok := t.PersonByID(m.Person); !ok || !slices.ContainsFunc(p.Keys, func(k trust.Key) bool { return k.ID == keyID }) {
		v.fail("manifest", "key %s is not one of %s", keyID, m.Person)
		return false
	}
	v.id = m.IncidentID
	v.ok("manifest", "incident %s, exported by %s with key %s at %s", m.IncidentID, m.Person, keyID, stamp(m.ExportedAt))
	for name := range b.Files {
		folder, _, _ := strings.Cut(name, "/")
		if name != fileTrust && !slices.Contains([]string{folderPlaybooks, folderStore, folderLedgers, folderHistories}, folder) {
			v.fail("form", "no export writes a file %s", name)
		}
	}
	return true
}

func (v *verifier) playbooks() {
	var names []string
	for _, name := range v.bundle.Under(folderPlaybooks) {
		e, err := authz.DecodeEnvelope(v.bundle.Files[name])
		var b authz.Book
		if err == nil {
			b, err = authz.OpenPlaybook(v.policy.Trust, e)
		}
		if err == nil && playbookFile(b) != name {
			err = fmt.Errorf("it is playbook %s v%d", b.Playbook.Playbook, b.Playbook.Version)
		}
		if err != nil {
			v.fail("playbooks", "%s: %v", name, err)
			continue
		}
		v.policy.Books = append(v.policy.Books, b)
		names = append(names, fmt.Sprintf("%s v%d", b.Playbook.Playbook, b.Playbook.Version))
	}
	if len(names) > 0 {
		v.ok("playbooks", "%s", strings.Join(names, ", "))
	}
}

// objects checks that each object of the store is what its name says.
func (v *verifier) objects() {
	good := 0
	for _, name := range v.bundle.Under(folderStore) {
		if "sha256:"+path.Base(name) != canonical.DigestOf(v.bundle.Files[name]) || path.Dir(name) != folderStore {
			v.fail("store", "%s does not hash to its name", name)
			continue
		}
		good++
	}
	v.ok("store", "%d objects hash to their names", good)
}

// Get makes the bundle's objects a store for the judge.
func (v *verifier) Get(_ context.Context, digest string) ([]byte, error) {
	data, ok := v.bundle.Files[path.Join(folderStore, strings.TrimPrefix(digest, "sha256:"))]
	if !ok || canonical.DigestOf(data) != digest {
		return nil, fmt.Errorf("get %s: %w", digest, store.ErrNotFound)
	}
	return data, nil
}

// ledger checks inclusion and consistency of the entries of each ledger, by a key of its role.
func (v *verifier) ledger() {
	for _, name := range v.bundle.Under(folderLedgers) {
		role := trust.Role(path.Base(path.Dir(name)))
		b, err := ledger.ParseBundle(v.bundle.Files[name])
		if err != nil {
			v.fail("ledger", "%s: %v", name, err)
			continue
		}
		var proven ledger.Verified
		err = fmt.Errorf("no %s key in the trust file", role)
		for _, keyID := range sortedKeys(v.policy.Trust.KeysOf(role)) {
			if proven, err = ledger.Verify(b, v.policy.Trust.KeysOf(role)[keyID]); err == nil {
				break
			}
		}
		if err == nil && !slices.Contains(journalRoles, role) {
			err = fmt.Errorf("%s keeps no ledger", role)
		}
		if err != nil {
			v.fail("ledger", "%s: %v", name, err)
			continue
		}
		v.ledgers = append(v.ledgers, provenLedger{b.Origin, role, proven.Entries})
		v.ok("ledger", "%s: %d of its %d entries are here and stand in it", b.Origin, len(proven.Entries), proven.Checkpoint.Size)
	}
	if len(v.ledgers) == 0 {
		v.note("no ledger is in the bundle: no effect can be judged again")
	}
}

// judged has every effect and every decision of the ledgers judged again, by the judge that judged them first.
func (v *verifier) judged(ctx context.Context) {
	for _, l := range v.ledgers {
		v.belong(l)
		if l.role == trust.RoleDecide {
			v.decisions(ctx, l)
			continue
		}
		out := activities.Audit(ctx, v.policy, l.entries, v)
		for _, p := range out.Problems {
			v.fail("judged", "%s: %s", l.origin, p)
		}
		if len(out.Problems) == 0 {
			v.ok("judged", "%s: %d effects and endings by the same judge, %d receipts by their signatures", l.origin, out.Judged, out.Receipts)
		}
	}
}

// belong checks that every entry is about the incident, and that what an entry goes on from is here too.
func (v *verifier) belong(l provenLedger) {
	begun := map[string]bool{}
	for _, e := range l.entries {
		if !about(e, v.id, begun) {
			v.fail("judged", "%s: an entry of kind %s is not about incident %s", l.origin, e.Kind, v.id)
		}
		var w struct {
			Key     string `json:"key"`
			Receipt struct {
				Key string `json:"key"`
			} `json:"receipt"`
		}
		if err := json.Unmarshal(e.Body, &w); err != nil {
			v.fail("judged", "%s: an entry of kind %s: %v", l.origin, e.Kind, err)
		}
		if key := cmp.Or(w.Key, w.Receipt.Key); key != "" && !begun[key] {
			v.fail("judged", "%s: an entry of kind %s goes on from an intent that was left out", l.origin, e.Kind)
		}
	}
}

// recorded is a decision in decide's ledger.
type recorded struct {
	Decision authz.Envelope `json:"decision"`
	Digest   string         `json:"digest"`
}

// decisions judges what decide signed, each at its time and with the decisions that were made before it.
func (v *verifier) decisions(ctx context.Context, l provenLedger) {
	var before []authz.Envelope
	n, bad := 0, 0
	for _, e := range l.entries {
		if e.Kind != "decision" {
			continue
		}
		n++
		var w recorded
		err := json.Unmarshal(e.Body, &w)
		if err == nil {
			var digest string
			if digest, err = w.Decision.Digest(); err == nil && digest != w.Digest {
				err = errors.New("the entry's digest is not its decision's")
			}
		}
		if err == nil {
			err = v.judge(ctx, w.Decision, before)
		}
		if err != nil {
			bad++
			v.fail("judged", "%s: decision %s: %v", l.origin, short(w.Digest), err)
		}
		before = append(before, w.Decision)
	}
	if bad == 0 {
		v.ok("judged", "%s: %d decisions by the same judge", l.origin, n)
	}
}

// judge opens a decision and has it judged at the time it was made.
func (v *verifier) judge(ctx context.Context, e authz.Envelope, before []authz.Envelope) error {
	d, err := authz.OpenDecision(v.policy.Trust, e)
	if err != nil {
		return err
	}
	p, err := activities.LoadPlan(ctx, v, d.PlanDigest)
	if err != nil {
		return err
	}
	if p.IncidentID != d.IncidentID {
		return fmt.Errorf("it is for incident %s, its plan for %s", d.IncidentID, p.IncidentID)
	}
	envelopes, err := activities.LoadEnvelopes(ctx, v, p.Detections)
	if err != nil {
		return err
	}
	return judge(v.policy, d.Kind, p, append(append(envelopes, before...), e), d.IssuedAt)
}
