package adapter

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"mime"
	"net/http"
	"strings"
	"time"

	"tourniquet.dev/tourniquet/internal/detection"
)

// ThirdParty is what the operator says of a source, beyond what the source says of itself.
type ThirdParty struct {
	Name string
	// Cluster and Account stand in where an event names none.
	Cluster, Account string
	// Technique and AttackVersion stand in where an event names no technique; without them such an event is refused.
	Technique, AttackVersion string
	// Techniques maps a rule, policy or alert of the source's own; it goes before the source's table.
	Techniques map[string]string
	Kind       Kind
	// Attests says that the events come a way that AWS authenticates: an SQS queue that only EventBridge may fill.
	Attests bool
	// Learn is for how long a new account, key and principal is learned in silence.
	Learn time.Duration
}

// An Event is a CloudEvent (1.0) whose data is still foreign.
type Event struct {
	ID, Source, Type string
	Time             time.Time
	data             document
	rest             document
}

// Key is the same for two deliveries of one event: CloudEvents makes (source, id) unique.
func (e Event) Key() string {
	sum := sha256.Sum256([]byte(e.Source + "\x00" + e.ID))
	return hex.EncodeToString(sum[:16])
}

// CloudEvent reads one event: structured (application/cloudevents+json) or binary (ce-* headers, JSON data). The error is
// a *Refusal.
func CloudEvent(header http.Header, body []byte) (Event, error) {
	if len(body) > MaxItem {
		return Event{}, refuse(TooLarge, "", fmt.Sprintf("%d bytes, at most %d", len(body), MaxItem))
	}
	media, _, err := mime.ParseMediaType(header.Get("Content-Type"))
	if err != nil {
		return Event{}, refuse(Unsupported, "Content-Type", "is not a media type")
	}
	doc, err := parse(body)
	if err != nil {
		return Event{}, err
	}
	switch {
	case media == "application/cloudevents+json":
		if doc, err = structured(doc); err != nil {
			return Event{}, err
		}
	case header.Get("Ce-Specversion") != "" && (media == "application/json" || strings.HasSuffix(media, "+json")):
		doc = binary(header, doc)
	default:
		return Event{}, refuse(Unsupported, "Content-Type", "want application/cloudevents+json, or ce- headers with JSON")
	}
	return event(doc)
}

// structured gives data_base64 the place of data.
func structured(doc document) (document, error) {
	encoded, ok := doc.take("data_base64").(string)
	if !ok {
		return doc, nil
	}
	data, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return nil, refuse(Malformed, "data_base64", "is not base64")
	}
	inner, err := parse(data)
	if err != nil {
		return nil, err
	}
	doc["data"] = map[string]any(inner)
	return doc, nil
}

func binary(header http.Header, data document) document {
	doc := document{"data": map[string]any(data)}
	for name := range header {
		if attribute, ok := strings.CutPrefix(strings.ToLower(name), "ce-"); ok {
			doc[attribute] = strings.ToValidUTF8(header.Get(name), "\uFFFD")
		}
	}
	return doc
}

func event(doc document) (Event, error) {
	if v := doc.text("specversion"); v != "1.0" {
		return Event{}, refuse(Unsupported, "specversion", fmt.Sprintf("is %.20q, want 1.0", v))
	}
	e := Event{ID: doc.text("id"), Source: doc.text("source"), Type: doc.text("type")}
	for field, v := range map[string]string{"id": e.ID, "source": e.Source, "type": e.Type} {
		if v == "" || len(v) > 1024 {
			return Event{}, refuse(Invalid, field, "must be 1 to 1024 bytes")
		}
	}
	if at := doc.text("time"); at != "" {
		var err error
		if e.Time, err = time.Parse(time.RFC3339Nano, at); err != nil {
			return Event{}, refuse(Invalid, "time", "is not a time of RFC 3339")
		}
	}
	data, ok := doc.take("data").(map[string]any)
	if !ok {
		return Event{}, refuse(Invalid, "data", "must be a JSON object")
	}
	e.data, e.rest = data, doc
	return e, nil
}

// Detection makes the detection of an event whose data is an OCSF Detection Finding (class 2004). Whatever else the data
// holds is kept in Unmapped. The result is validated and redacted; signing it is the caller's. The error is a *Refusal.
func (e Event) Detection(from ThirdParty, w Window) (*detection.Detection, error) {
	if class, ok := e.data.whole("class_uid"); !ok || class != findingClass {
		return nil, refuse(Unsupported, "data.class_uid", fmt.Sprintf("want an OCSF Detection Finding, %d", findingClass))
	}
	d := &detection.Detection{
		V: detection.Version, UID: from.Name + ":" + e.Key(),
		Source: detection.Source{Kind: detection.ThirdParty, Name: from.Name, UID: e.Key()},
	}
	e.finding(d, from, w)
	e.resources(d, from)
	rest := map[string]any{"id": e.ID, "source": e.Source, "type": e.Type, "event": e.rest, "data": e.data}
	d.Unmapped = unmapped(rest)
	d.Redact()
	if err := d.Validate(); err != nil {
		return nil, invalid(err)
	}
	if err := w.check("time", d.Time); err != nil {
		return nil, err
	}
	return d, nil
}
