package adapter

import (
	"bytes"
	"fmt"
	"time"

	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/detection"
	"tourniquet.dev/tourniquet/internal/incident"
	"tourniquet.dev/tourniquet/internal/plan"
	"tourniquet.dev/tourniquet/internal/trust"
)

// Limits of what a sensor sends.
const (
	// MaxItem bounds one item: an encoded envelope, or one event.
	MaxItem = detection.MaxBytes
	// MaxItems bounds the items of one request.
	MaxItems = 256
)

// Lines splits a sensor's request, which has one envelope a line. Empty lines do not count. A line is judged on its own,
// so that a bad one does not spoil the others.
func Lines(body []byte) ([][]byte, error) {
	var out [][]byte
	for line := range bytes.Lines(body) {
		if line = bytes.TrimSpace(line); len(line) > 0 {
			out = append(out, line)
		}
	}
	switch {
	case len(out) == 0:
		return nil, refuse(Malformed, "", "no envelope in the request")
	case len(out) > MaxItems:
		return nil, refuse(TooLarge, "", fmt.Sprintf("%d envelopes in one request, at most %d", len(out), MaxItems))
	}
	return out, nil
}

// Window is the time in which a detection must lie, by intake's own clock.
type Window struct {
	Now    time.Time
	MaxAge time.Duration
}

func (w Window) check(field string, at time.Time) error {
	switch {
	case at.After(w.Now.Add(authz.Skew)):
		return refuse(InFuture, field, fmt.Sprintf("%s is in the future", at.Format(time.RFC3339)))
	case at.Before(w.Now.Add(-w.MaxAge)):
		return refuse(TooOld, field, fmt.Sprintf("%s is more than %s ago", at.Format(time.RFC3339), w.MaxAge))
	}
	return nil
}

// SensorDetection opens one signed detection of a sensor. The error is a *Refusal.
func SensorDetection(t *trust.File, line []byte, w Window) (authz.Envelope, *detection.Detection, error) {
	e, err := decodeEnvelope(line)
	if err != nil {
		return e, nil, err
	}
	if e.PayloadType == authz.TypeDetection && e.Certificate == nil {
		return e, nil, refuse(BadSignature, "certificate", "a sensor's envelope carries its node's certificate")
	}
	d, err := authz.OpenDetection(t, e)
	if err != nil {
		if d != nil && d.Validate() != nil { // opened, but what it says is not valid
			return e, nil, invalid(d.Validate())
		}
		return e, nil, asRefusal(err)
	}
	if err := w.check("time", d.Time); err != nil {
		return e, nil, err
	}
	return e, d, nil
}

// NodeReceipt opens one signed receipt of a node. The error is a *Refusal.
func NodeReceipt(t *trust.File, line []byte, w Window) (authz.Envelope, plan.Receipt, error) {
	e, err := decodeEnvelope(line)
	if err != nil {
		return e, plan.Receipt{}, err
	}
	if e.PayloadType == authz.TypeReceipt && e.Certificate == nil {
		return e, plan.Receipt{}, refuse(BadSignature, "certificate", "a node's envelope carries its certificate")
	}
	r, err := authz.OpenReceipt(t, e)
	if err != nil {
		return e, r, asRefusal(err)
	}
	switch {
	case r.V != 1:
		return e, r, refuse(Invalid, "v", fmt.Sprintf("is %d, want 1", r.V))
	case !incident.ValidID(r.IncidentID):
		return e, r, refuse(Invalid, "incident_id", "is not an incident id")
	case !plan.ValidDigest(r.PlanDigest):
		return e, r, refuse(Invalid, "plan_digest", "is not a digest")
	case r.Key == "" || len(r.Key) > 128:
		return e, r, refuse(Invalid, "key", "is not an intent's key")
	}
	if err := w.check("at", r.At); err != nil {
		return e, r, err
	}
	return e, r, nil
}

func decodeEnvelope(line []byte) (authz.Envelope, error) {
	if len(line) > MaxItem {
		return authz.Envelope{}, refuse(TooLarge, "", fmt.Sprintf("%d bytes, at most %d", len(line), MaxItem))
	}
	e, err := authz.DecodeEnvelope(line)
	if err != nil {
		return e, asRefusal(err)
	}
	return e, nil
}
