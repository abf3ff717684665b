package adapter

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"tourniquet.dev/tourniquet/internal/detection"
	"tourniquet.dev/tourniquet/internal/identity"
)

// Kind is the format that a third party speaks.
type Kind string

// The kinds. The empty one is CloudEvents.
const (
	CloudEvents     Kind = "cloudevents"      // CloudEvents 1.0 with an OCSF Detection Finding as data
	OCSF            Kind = "ocsf"             // Detection Findings themselves: one, an array, or one a line
	Falco           Kind = "falco"            // Falco's JSON output, and falcosidekick's webhook
	Tetragon        Kind = "tetragon"         // Tetragon's JSON export
	Alertmanager    Kind = "alertmanager"     // Alertmanager's webhook, version 4
	KubernetesAudit Kind = "kubernetes-audit" // the API server's audit webhook: an EventList
	AWS             Kind = "aws"              // CloudTrail and GuardDuty, as EventBridge sends them or bare
)

// reader makes a finding of one item.
type reader func(*reading) (Finding, error)

// readers are the kinds that Split and Read know. CloudEvents needs the request's header: CloudEvent reads it.
var readers = map[Kind]reader{OCSF: readOCSF, Falco: readFalco, Tetragon: readTetragon, Alertmanager: readAlert, KubernetesAudit: readAudit, AWS: readAWS}

// lists names the member in which a kind's batch carries its items.
var lists = map[Kind]string{Alertmanager: "alerts", KubernetesAudit: "items", AWS: "Records"}

// Valid reports whether k is one of the known kinds.
func (k Kind) Valid() bool { return k == "" || k == CloudEvents || readers[k] != nil }

// Batched reports whether a request of this kind may hold several items, so that Split and Read take it.
func (k Kind) Batched() bool { return readers[k] != nil }

// InCluster reports whether what this kind tells of is in a cluster that its events do not name.
func (k Kind) InCluster() bool {
	return slices.Contains([]Kind{Falco, Tetragon, Alertmanager, KubernetesAudit}, k)
}

// Memory is when something was seen first, over restarts; recall.Store has it.
type Memory interface {
	First(name string) (at time.Time, ok bool)
}

// Finding is what an item says: a detection that still lacks its place and is not yet checked, or, where PassedOver is
// set, nothing that is a finding.
type Finding struct {
	Detection  *detection.Detection
	PassedOver string // a few fixed words
	// Learn is what to remember once the item is safe: before, a crash in between would make the repeated item look familiar,
	// and it would be lost.
	Learn []string
}

// reading is one item with all that its reader needs.
type reading struct {
	doc    document
	from   ThirdParty
	window Window
	memory Memory
}

// Item is one event of a request, as it came.
type Item struct{ Body []byte }

// MaxEvents bounds the items of one request of a third party.
const MaxEvents = 1024

// Split takes a request apart: the batch that the kind knows, an array, one object a line, or one object. An item is
// judged on its own, so that a bad one does not spoil the others. The error is a *Refusal of the whole request.
func Split(kind Kind, body []byte) ([]Item, error) {
	parts, err := split(kind, bytes.TrimSpace(body))
	switch {
	case err != nil:
		return nil, asRefusal(err)
	case len(parts) > MaxEvents:
		return nil, refuse(TooLarge, "", fmt.Sprintf("%d items in one request, at most %d", len(parts), MaxEvents))
	}
	items := make([]Item, len(parts))
	for i, p := range parts {
		items[i] = Item{p}
	}
	return items, nil
}

func split(kind Kind, body []byte) ([]json.RawMessage, error) {
	switch {
	case len(body) == 0:
		return nil, refuse(Malformed, "", "the request is empty")
	case body[0] == '[':
		return array(body)
	case !json.Valid(body):
		return lines(body), nil
	}
	name, ok := lists[kind]
	if !ok {
		return []json.RawMessage{body}, nil
	}
	list, found, err := member(body, name)
	switch {
	case err != nil:
		return nil, err
	case !found && kind == AWS: // one event
		return []json.RawMessage{body}, nil
	case !found:
		return nil, refuse(Invalid, name, "is missing")
	}
	return array(list)
}

// lines is for what is not one document: each line is an item, a torn one too.
func lines(body []byte) []json.RawMessage {
	var out []json.RawMessage
	for line := range bytes.Lines(body) {
		if line = bytes.TrimSpace(line); len(line) > 0 {
			out = append(out, json.RawMessage(line))
		}
	}
	return out
}

func array(body []byte) ([]json.RawMessage, error) {
	var out []json.RawMessage
	if err := json.Unmarshal(body, &out); err != nil {
		return nil, refuse(Malformed, "", "not a JSON array")
	}
	return out, nil
}

// member finds a member of the outermost object, whose other members stay unread. One that stands twice is refused.
func member(body []byte, name string) (out json.RawMessage, found bool, err error) {
	dec := json.NewDecoder(bytes.NewReader(body))
	if open, err := dec.Token(); err != nil || open != json.Delim('{') {
		return nil, false, refuse(Malformed, "", "not an object")
	}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return nil, false, fmt.Errorf("read json: %w", err)
		}
		var v json.RawMessage
		if err := dec.Decode(&v); err != nil {
			return nil, false, fmt.Errorf("read json: %w", err)
		}
		if key != name {
			continue
		}
		if found {
			return nil, false, refuse(Malformed, name, "stands twice")
		}
		out, found = v, true
	}
	return out, found, nil
}

// Read makes a finding of the item. What the item says beyond what is understood is kept in Unmapped. The error is a
// *Refusal.
func (i Item) Read(from ThirdParty, w Window, memory Memory) (Finding, error) {
	if len(i.Body) > MaxItem {
		return Finding{}, refuse(TooLarge, "", fmt.Sprintf("%d bytes, at most %d", len(i.Body), MaxItem))
	}
	read, ok := readers[from.Kind]
	if !ok {
		return Finding{}, refuse(Unsupported, "", "this kind of source takes single events only")
	}
	doc, err := parse(i.Body)
	if err != nil {
		return Finding{}, err
	}
	f, err := read(&reading{doc: doc, from: from, window: w, memory: memory})
	if err != nil {
		return Finding{}, asRefusal(err)
	}
	return f, nil
}

// ReadEvent is Read of a CloudEvent, whose media type and attributes stand in the request's header.
func ReadEvent(header http.Header, body []byte, from ThirdParty, w Window) (Finding, error) {
	e, err := CloudEvent(header, body)
	if err != nil {
		return Finding{}, err
	}
	d, err := e.Detection(from, w)
	return Finding{Detection: d}, err
}

// Seal completes a detection whose place is known as well as it ever will be: what was not understood goes to Unmapped,
// all is redacted, validated, and checked against the window. The error is a *Refusal.
func (f Finding) Seal(w Window) (*detection.Detection, error) {
	d := f.Detection
	d.Redact()
	if err := d.Validate(); err != nil {
		return nil, invalid(err)
	}
	return d, w.check("time", d.Time)
}

// begin starts a detection whose id is the same for two deliveries of one event: parts are what makes the event unique.
func (r *reading) begin(rule, title string, severity detection.Severity, at time.Time, parts ...string) *detection.Detection {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	uid := hex.EncodeToString(sum[:16])
	if at.IsZero() {
		at = r.window.Now
	}
	return &detection.Detection{
		V: detection.Version, UID: r.from.Name + ":" + uid, Time: at.UTC().Truncate(time.Millisecond),
		Source: detection.Source{Kind: detection.ThirdParty, Name: r.from.Name, UID: uid},
		Rule:   plain(rule), Title: first(detection.Clean(title, 200), plain(rule)), Severity: severity, Confidence: 50,
		Evidence: map[string]string{},
	}
}

// finish keeps what was not understood.
func (r *reading) finish(d *detection.Detection, learn ...string) (Finding, error) {
	d.Unmapped = unmapped(map[string]any(r.doc))
	for key, value := range d.Evidence {
		if value == "" {
			delete(d.Evidence, key)
		}
	}
	return Finding{Detection: d, Learn: learn}, nil
}

func passedOver(why string, learn ...string) (Finding, error) {
	return Finding{PassedOver: why, Learn: learn}, nil
}

// attackVersion is the ATT&CK matrix of every table in this package.
const attackVersion = "19"

// attacks maps a rule: the operator's own line for it, then the source's table, then the operator's default. A rule that
// none of them knows is refused, so that it lies in the dead letters instead of under a guess.
func (t ThirdParty) attacks(rule string, table map[string]string, names ...string) ([]detection.Attack, error) {
	version := first(t.AttackVersion, attackVersion)
	if id := t.Techniques[rule]; id != "" {
		return []detection.Attack{{TechniqueID: id, Version: version}}, nil
	}
	for _, name := range append([]string{rule}, names...) {
		if id := table[name]; id != "" {
			return []detection.Attack{{TechniqueID: id, Version: attackVersion}}, nil
		}
	}
	if t.Technique != "" {
		return []detection.Attack{{TechniqueID: t.Technique, Version: version}}, nil
	}
	return nil, refuse(UnknownRule, "rule", fmt.Sprintf("no technique is known for %.80q, and the source's configuration names none", rule))
}

// when reads a time of RFC 3339.
func (r *reading) when(path ...string) (time.Time, error) {
	text := r.doc.text(path...)
	if text == "" {
		return time.Time{}, nil
	}
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return at, refuse(Invalid, strings.Join(path, "."), "is not a time of RFC 3339")
	}
	return at, nil
}

// identityOf adds an identity if it has the form of one.
func identityOf(d *detection.Detection, id identity.Identity) {
	if id.Validate() == nil && len(d.Identities) < 16 {
		d.Identities = append(d.Identities, id)
	}
}
