package correlate

import (
	"context"
	"fmt"
	"time"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/canonical"
	"tourniquet.dev/tourniquet/internal/detection"
	"tourniquet.dev/tourniquet/internal/incident"
	"tourniquet.dev/tourniquet/internal/plan"
	"tourniquet.dev/tourniquet/internal/sys/fault"
	"tourniquet.dev/tourniquet/internal/sys/spool"
	"tourniquet.dev/tourniquet/workflows"
)

// reuse: a detection that comes after its incident has closed opens a new one.
const reuse = enums.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE

// Codes of dead letters that are written here; the others are adapter's.
const (
	// CodeUnreadable is of an entry that came back from the spool and is no envelope of ours.
	CodeUnreadable = "unreadable"
	// CodeNoContainment is of a receipt whose containment does not run, or no longer.
	CodeNoContainment = "no-containment"
	// CodeRejected is of what Temporal will never take.
	CodeRejected = "rejected-by-temporal"
)

// group is the detections of one key that share a Signal.
type group struct {
	key        string
	detections []workflows.Observed
	items      []spool.Record
	worst      detection.Severity
	rule, what string
}

func (g group) attributes() temporal.SearchAttributes {
	return temporal.NewSearchAttributes(
		temporal.NewSearchAttributeKeyKeyword(workflows.AttrSeverity).ValueSet(string(g.worst)),
		temporal.NewSearchAttributeKeyKeyword(workflows.AttrState).ValueSet(string(incident.Triaged)),
		temporal.NewSearchAttributeKeyKeyword(workflows.AttrWorkload).ValueSet(g.key),
	)
}

// options are how the incident is started if it does not run yet.
func (g group) options() client.StartWorkflowOptions {
	return client.StartWorkflowOptions{
		ID: workflows.IncidentWorkflowID(g.key), TaskQueue: workflows.QueueOrchestrate,
		WorkflowIDReusePolicy: reuse, TypedSearchAttributes: g.attributes(), StaticSummary: g.summary(),
		StaticDetails: workflows.IncidentDetails,
	}
}

// summary is one line for the Web UI. It is made of names whose form is checked, never of free text.
func (g group) summary() string { return fmt.Sprintf("%s: %s on %s", g.worst, g.rule, g.what) }

// entry is an item of the spool, read.
type entry struct {
	item      spool.Record
	kind      Kind
	key       Key
	detection *detection.Detection
	receipt   plan.Receipt
	envelope  authz.Envelope
}

func read(item spool.Record) (entry, error) {
	e := entry{item: item}
	var err error
	if e.envelope, err = authz.DecodeEnvelope(item.Payload); err != nil {
		return e, err
	}
	raw, err := e.envelope.Raw()
	if err != nil {
		return e, err
	}
	switch e.envelope.PayloadType {
	case authz.TypeDetection:
		e.detection = &detection.Detection{}
		if err := canonical.Unmarshal(raw, e.detection, detection.MaxBytes); err != nil {
			return e, err
		}
		e.key = DetectionKey(e.detection.Source.Name, e.detection.Source.UID)
	case authz.TypeReceipt:
		e.kind = Receipts
		if err := canonical.Unmarshal(raw, &e.receipt, authz.MaxEnvelope); err != nil {
			return e, err
		}
		e.key = ReceiptKey(canonical.DigestOf(item.Payload))
	default:
		return e, fmt.Errorf("%w: %.80q", authz.ErrPayloadType, e.envelope.PayloadType)
	}
	return e, nil
}

// sort puts the batch's detections into the store and groups them, and returns what is to be done, with the keys that are
// done when all of it is. What was correlated before a crash, or stands twice, is done already.
func (c *Correlator) sort(ctx context.Context, batch []spool.Record) (work []func(context.Context) error, keys []Key, err error) {
	var entries []entry
	inBatch := map[Key]bool{}
	for _, item := range batch {
		e, err := read(item)
		account := &c.o.Count.of[e.kind]
		if item.Time.Before(c.o.Started) {
			account.recovered.Add(1)
		}
		if err != nil {
			if err := c.aside(e.kind, item, CodeUnreadable, err); err != nil {
				return nil, nil, err
			}
			continue
		}
		if inBatch[e.key] || c.o.Seen.Correlated(e.key) {
			account.duplicates.Add(1)
			continue
		}
		inBatch[e.key] = true
		keys, entries = append(keys, e.key), append(entries, e)
	}
	if err := c.store(ctx, entries); err != nil {
		return nil, nil, err
	}
	for _, e := range entries {
		if e.kind == Receipts {
			work = append(work, func(ctx context.Context) error { return c.signalReceipt(ctx, e) })
		}
	}
	for _, g := range c.groups(entries) {
		work = append(work, func(ctx context.Context) error { return c.signalDetections(ctx, g) })
	}
	return work, keys, nil
}

// store puts the envelopes where workflows and enforcers look them up by digest.
func (c *Correlator) store(ctx context.Context, entries []entry) error {
	var work []func(context.Context) error
	for _, e := range entries {
		work = append(work, func(ctx context.Context) error {
			return c.until(ctx, "store", func(ctx context.Context) error {
				_, err := c.o.Store.Put(ctx, e.item.Payload)
				return err
			})
		})
	}
	return c.parallel(ctx, work)
}

// groups gathers the detections by key, in the order in which the keys came, at most PerSignal in each.
func (c *Correlator) groups(entries []entry) []group {
	var out []group
	open := map[string]int{}
	for _, e := range entries {
		d := e.detection
		if d == nil {
			continue
		}
		key := d.Key()
		i, ok := open[key]
		if !ok || len(out[i].detections) == c.o.PerSignal {
			i = len(out)
			out, open[key] = append(out, group{key: key, rule: d.Rule, what: about(d)}), i
		}
		g := &out[i]
		g.detections, g.items = append(g.detections, observed(e)), append(g.items, e.item)
		if d.Severity.Rank() > g.worst.Rank() {
			g.worst, g.rule = d.Severity, d.Rule
		}
	}
	return out
}

func about(d *detection.Detection) string {
	w := d.Workload
	switch {
	case w != nil && w.OwnerName != "":
		return w.Namespace + "/" + w.OwnerName
	case w != nil:
		return w.Namespace + "/" + w.Pod
	case len(d.Identities) > 0:
		return string(d.Identities[0].Kind) // the id itself is opaque in Temporal: summaries may be read without the codec
	}
	return "unknown"
}

func observed(e entry) workflows.Observed {
	d := e.detection
	o := workflows.Observed{Digest: canonical.DigestOf(e.item.Payload), UID: d.UID, Rule: d.Rule, Title: d.Title,
		Severity: d.Severity, Time: d.Time, SpoolAt: e.item.Time.UTC().Truncate(time.Millisecond)}
	for _, a := range d.Attacks {
		o.Attacks = append(o.Attacks, a.TechniqueID)
	}
	return o
}

func (c *Correlator) signalDetections(ctx context.Context, g group) error {
	options := g.options()
	send := func(ctx context.Context) error {
		fault.Point("temporal.signal-with-start/before")
		_, err := c.o.Temporal.SignalWithStartWorkflow(ctx, options.ID, workflows.SignalDetectionObserved,
			workflows.DetectionObserved{Detections: g.detections}, options, workflows.TypeIncident, workflows.IncidentInput{Key: g.key})
		fault.Point("temporal.signal-with-start/after")
		return err
	}
	err := c.until(ctx, "signal incident", send)
	if permanent(err) { // a namespace that lacks our search attributes looks like this: an incident is worth more than they
		c.o.Log.Error("refused by Temporal, tried without search attributes", "err", err)
		options.TypedSearchAttributes = temporal.SearchAttributes{}
		err = c.until(ctx, "signal incident", send)
	}
	switch {
	case err == nil:
		c.o.Count.of[Detections].correlated.Add(int64(len(g.items)))
		return nil
	case !permanent(err):
		return err
	}
	for _, item := range g.items {
		if err := c.aside(Detections, item, CodeRejected, err); err != nil {
			return err
		}
	}
	return nil
}

func (c *Correlator) signalReceipt(ctx context.Context, e entry) error {
	id := workflows.ContainmentWorkflowID(e.receipt.IncidentID, e.receipt.PlanDigest)
	err := c.until(ctx, "signal containment", func(ctx context.Context) error {
		return c.o.Temporal.SignalWorkflow(ctx, id, "", workflows.SignalReceiptObserved, workflows.ReceiptObserved{Receipt: e.envelope})
	})
	switch {
	case err == nil:
		c.o.Count.of[Receipts].correlated.Add(1)
		return nil
	case !permanent(err):
		return err
	}
	return c.aside(Receipts, e.item, CodeNoContainment, err)
}

// aside keeps an item of the spool as a dead letter. Where that cannot be, the item stays in the spool: the error ends Run.
func (c *Correlator) aside(kind Kind, item spool.Record, code string, reason error) error {
	if _, err := c.o.Dead.Put(Letter{At: time.Now().UTC(), From: "spool", Kind: kind.String(), Code: code, Reason: reason.Error(), Body: item.Payload}); err != nil {
		return err
	}
	c.o.Count.of[kind].deadLettered.Add(1)
	c.o.Log.Error("kept as a dead letter", "kind", kind.String(), "code", code, "err", reason)
	return nil
}
