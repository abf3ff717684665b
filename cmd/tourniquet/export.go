package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"

	"tourniquet.dev/tourniquet/activities"
	"tourniquet.dev/tourniquet/activities/archive"
	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/canonical"
	"tourniquet.dev/tourniquet/internal/incident"
	"tourniquet.dev/tourniquet/internal/ledger"
	"tourniquet.dev/tourniquet/internal/plan"
	"tourniquet.dev/tourniquet/internal/sys/bundle"
	"tourniquet.dev/tourniquet/internal/sys/journal"
	"tourniquet.dev/tourniquet/internal/sys/store"
	"tourniquet.dev/tourniquet/internal/sys/temporalclient"
	"tourniquet.dev/tourniquet/internal/trust"
	"tourniquet.dev/tourniquet/workflows"
)

type exportRequest struct {
	incident, out    string
	withoutHistories bool
	passphraseFile   string
}

// exporter collects the files of one bundle.
type exporter struct {
	c     config
	trust *trust.File
	store store.Reader
	id    string // of the incident
	files map[string][]byte
	// named are strings in the form of a digest that were found and not looked up yet.
	named []string
	asked map[string]bool
	notes []string
}

func (a *app) export(ctx context.Context, x exportRequest) error {
	if err := need("output", x.out); err != nil {
		return err
	}
	c, err := a.load()
	if err != nil {
		return err
	}
	e := &exporter{c: c, files: map[string][]byte{}, asked: map[string]bool{}}
	if e.trust, err = c.loadTrust(); err != nil {
		return err
	}
	if e.store, err = c.openStore(); err != nil {
		return err
	}
	signer, err := loadKey(c.Key, x.passphraseFile)
	if err != nil {
		return err
	}
	person, err := personOf(e.trust, signer)
	if err != nil {
		return err
	}
	if err := e.configuration(); err != nil {
		return err
	}
	if x.withoutHistories {
		if !incident.ValidID(x.incident) {
			return usage(fmt.Errorf("%.80q is no incident's id", x.incident), "without histories only the id itself tells which incident is meant")
		}
		e.id = x.incident
	} else if err := e.histories(ctx, x.incident); err != nil {
		return err
	}
	if err := e.ledgers(); err != nil { // after the histories: what they tell of stands in the ledgers by now
		return err
	}
	if err := e.objects(ctx); err != nil {
		return err
	}
	data, err := bundle.Seal(signer, bundle.Manifest{IncidentID: e.id, ExportedAt: a.now(), Person: person.ID}, e.files)
	if err != nil {
		return err
	}
	if err := writeFile(x.out, data, 0o600, false); err != nil {
		return err
	}
	sum := map[string]any{"incident": e.id, "output": x.out, "bytes": len(data), "files": len(e.files), "digest": canonical.DigestOf(data), "person": person.ID, "notes": e.notes}
	return a.show(sum, func() {
		for _, n := range e.notes {
			a.printf("note: %s\n", plain(n))
		}
		a.printf("incident %s: %d files, %d bytes, signed by %s: %s\n%s\n", e.id, len(e.files), len(data), person.ID, x.out, canonical.DigestOf(data))
	})
}

// configuration adds the trust file and the playbooks, as they are signed.
func (e *exporter) configuration() error {
	if _, err := e.c.loadBooks(e.trust); err != nil { // every one of them verifies
		return err
	}
	env, err := readEnvelope(e.c.Trust)
	if err != nil {
		return err
	}
	if e.files[fileTrust], err = env.Encode(); err != nil {
		return err
	}
	paths, err := filepath.Glob(filepath.Join(e.c.Playbooks, "*.json"))
	if err != nil {
		return fmt.Errorf("list playbooks: %w", err)
	}
	for _, p := range paths {
		env, err := readEnvelope(p)
		if err != nil {
			return err
		}
		book, err := authz.OpenPlaybook(e.trust, env)
		if err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
		if e.files[playbookFile(book)], err = env.Encode(); err != nil {
			return err
		}
	}
	return nil
}

func playbookFile(b authz.Book) string {
	return fmt.Sprintf("%s/%s.v%d.json", folderPlaybooks, b.Playbook.Playbook, b.Playbook.Version)
}

func historyFile(at execution) string {
	return path.Join(folderHistories, at.id, at.run+".json")
}

// histories adds the incident's run and every run that it started, and the later ones of those that were reset.
func (e *exporter) histories(ctx context.Context, name string) error {
	ring, err := loadRing(e.c.Temporal.KeyRing)
	if err != nil {
		return err
	}
	temporal, err := e.c.dial(ctx)
	if err != nil {
		return err
	}
	defer temporal.Close()
	at, err := find(ctx, temporal, name)
	if err != nil {
		return err
	}
	d, err := temporal.DescribeWorkflowExecution(ctx, at.id, at.run)
	if err != nil {
		return fmt.Errorf("describe %s: %w", at.id, err)
	}
	at.run = d.GetWorkflowExecutionInfo().GetExecution().GetRunId()
	e.id = word(d.GetWorkflowExecutionInfo().GetSearchAttributes().GetIndexedFields()[workflows.AttrIncident])
	if !incident.ValidID(e.id) {
		return notFound(fmt.Errorf("%s has no incident id yet", at.id), "no detection of it was triaged: there is nothing to account for")
	}
	dc := temporalclient.DataConverter(ring)
	data, err := e.history(ctx, temporal, at, dc, true)
	if err != nil {
		return err
	}
	h, err := parseHistory(data)
	if err != nil {
		return err
	}
	for _, child := range children(h) {
		runs := []execution{child}
		if d, err := temporal.DescribeWorkflowExecution(ctx, child.id, ""); err == nil && d.GetWorkflowExecutionInfo().GetExecution().GetRunId() != child.run {
			runs = append(runs, execution{child.id, d.GetWorkflowExecutionInfo().GetExecution().GetRunId()})
		}
		for _, run := range runs {
			_, err := e.history(ctx, temporal, run, dc, child.id != workflows.ArchiveWorkflowID(e.id))
			var gone *serviceerror.NotFound
			if errors.As(err, &gone) {
				e.notes = append(e.notes, "Temporal no longer holds "+run.id)
			} else if err != nil {
				return err
			}
		}
	}
	return nil
}

// history adds one run, and remembers the digests that its payloads name. The archive's name histories, which are here
// already.
func (e *exporter) history(ctx context.Context, temporal client.Client, at execution, dc converter.DataConverter, names bool) ([]byte, error) {
	data, _, err := archive.New(temporal).History(ctx, at.id, at.run)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", at.id, err)
	}
	e.files[historyFile(at)] = data
	if !names {
		return data, nil
	}
	h, err := parseHistory(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", at.id, err)
	}
	all, err := decodeHistory(h, dc)
	if err != nil {
		return nil, hinted(fmt.Errorf("%s: %w", at.id, err), "is --key-ring the one that the workers have?")
	}
	for _, s := range all {
		e.name(s.data)
	}
	return data, nil
}

// name remembers what in a document has the form of a digest, inside signed envelopes too.
func (e *exporter) name(data json.RawMessage) {
	collect(data, func(s string) {
		if plan.ValidDigest(s) && !e.asked[s] {
			e.asked[s] = true
			e.named = append(e.named, s)
		}
	}, func(m map[string]json.RawMessage, _ json.RawMessage) {
		var payload string
		if m["payloadType"] == nil || json.Unmarshal(m["payload"], &payload) != nil {
			return
		}
		if raw, err := base64.StdEncoding.DecodeString(payload); err == nil && json.Valid(raw) {
			e.name(raw)
		}
	})
}

// objects adds every object of the store that is named, and what those name in turn. What the store does not have was no
// object of the store: pre-images and results have digests too.
func (e *exporter) objects(ctx context.Context) error {
	for len(e.named) > 0 {
		digest := e.named[0]
		e.named = e.named[1:]
		data, err := e.store.Get(ctx, digest)
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		e.files[path.Join(folderStore, strings.TrimPrefix(digest, "sha256:"))] = data
		if json.Valid(data) {
			e.name(data)
		}
	}
	return nil
}

// ledgers adds from each ledger the entries about the incident.
func (e *exporter) ledgers() error {
	if len(e.c.Journals) == 0 {
		e.notes = append(e.notes, "no ledger is configured (journals): effects cannot be judged again from this bundle")
	}
	count := map[trust.Role]int{}
	for _, j := range e.c.Journals {
		count[j.Role]++
		data, err := e.ledger(j)
		if err != nil {
			return err
		}
		e.files[fmt.Sprintf("%s/%s/%d.json", folderLedgers, j.Role, count[j.Role])] = data
	}
	return nil
}

func (e *exporter) ledger(j journalConfig) ([]byte, error) {
	v, err := openLedger(e.trust, j)
	if err != nil {
		return nil, err
	}
	data, err := e.entries(j.Name, v)
	return data, errors.Join(err, v.Close())
}

// entries proves the entries about the incident against the newest checkpoint.
func (e *exporter) entries(name string, v *journal.View) ([]byte, error) {
	indexes, keys := []int64{}, map[string]bool{}
	err := v.Range(0, func(i int64, entry ledger.Entry) error {
		if about(entry, e.id, keys) {
			indexes = append(indexes, i)
			e.name(entry.Body)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("ledger %s: %w", name, err)
	}
	b, err := v.Bundle(name, indexes)
	if err != nil {
		return nil, err
	}
	return b.Encode()
}

// about says whether a ledger's entry speaks of an incident. What decide writes names it inside the signed decision.
func about(entry ledger.Entry, id string, keys map[string]bool) bool {
	if activities.AboutIncident(entry, id, keys) {
		return true
	}
	var w struct {
		Incident string         `json:"incident"`
		Digest   string         `json:"digest"`
		Decision authz.Envelope `json:"decision"`
	}
	if json.Unmarshal(entry.Body, &w) != nil {
		return false
	}
	var d authz.Decision
	if raw, err := w.Decision.Raw(); err == nil && json.Unmarshal(raw, &d) == nil && d.IncidentID == id {
		keys[w.Digest] = true
		return true
	}
	return w.Incident == id || (w.Digest != "" && keys[w.Digest])
}

func sortedValues(m map[string]json.RawMessage) []json.RawMessage {
	var out []json.RawMessage
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, m[k])
	}
	return out
}
