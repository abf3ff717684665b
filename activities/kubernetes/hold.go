package kubernetes

import (
	"encoding/json"
	"fmt"
	"time"

	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/canonical"
	"tourniquet.dev/tourniquet/internal/plan"
	"tourniquet.dev/tourniquet/internal/trust"
)

// Hold is what stands signed on an object that we changed, so that it can be ended when all else is gone. Whoever reads
// it believes the signature, not the annotation.
type Hold struct {
	V          int         `json:"v"`
	Key        string      `json:"key"` // the intent's
	IncidentID string      `json:"incident_id"`
	PlanDigest string      `json:"plan_digest"`
	Step       int         `json:"step"`
	Action     plan.Action `json:"action"`
	Target     plan.Target `json:"target"`
	PreImage   string      `json:"pre_image"` // digest
	Since      time.Time   `json:"since"`
	Ends       time.Time   `json:"ends"`
	Expiry     plan.Expiry `json:"expiry"`
	Authority  string      `json:"authority"`
}

// signHold returns the annotation's value. The same intent gives the same bytes.
func (s *System) signHold(in plan.Intent, image plan.PreImage) (string, error) {
	return s.sign(authz.TypeHold, Hold{V: 1, Key: in.Key, IncidentID: in.IncidentID, PlanDigest: in.PlanDigest, Step: in.Step.Index,
		Action: in.Step.Action, Target: image.Target, PreImage: image.Digest, Since: in.At, Ends: in.Ends, Expiry: in.Step.Expiry,
		Authority: in.Authority})
}

func (s *System) sign(payloadType string, body any) (string, error) {
	if s.options.Signer == nil {
		return "", fmt.Errorf("sign %s: this process has no key for it", payloadType)
	}
	e, err := s.options.Signer.Sign(payloadType, body)
	if err != nil {
		return "", err
	}
	raw, err := e.Encode()
	if err != nil {
		return "", fmt.Errorf("encode %s: %w", payloadType, err)
	}
	return string(raw), nil
}

// OpenHold verifies a hold by the keys of contain-kubernetes.
func OpenHold(t *trust.File, annotation string) (Hold, error) {
	var h Hold
	e, err := authz.DecodeEnvelope([]byte(annotation))
	if err != nil {
		return h, fmt.Errorf("hold: %w", err)
	}
	raw, _, err := authz.Verify(e, authz.TypeHold, t.KeysOf(trust.RoleContainKubernetes))
	if err != nil {
		return h, fmt.Errorf("hold: %w", err)
	}
	if err := canonical.Unmarshal(raw, &h, authz.MaxEnvelope); err != nil || h.V != 1 {
		return h, fmt.Errorf("hold: version %d: %w", h.V, err)
	}
	return h, nil
}

// holdOf reads whose hold an annotation is, without believing it: only to know which of ours to take off.
func holdOf(annotation string) (Hold, bool) {
	var h Hold
	e, err := authz.DecodeEnvelope([]byte(annotation))
	if err != nil || e.PayloadType != authz.TypeHold {
		return h, false
	}
	raw, err := e.Raw()
	return h, err == nil && json.Unmarshal(raw, &h) == nil
}

// witnessHold says in an observation's words what hold stands on an object.
func (s *System) witnessHold(t plan.Target, annotation string) string {
	switch {
	case annotation == "":
		return fmt.Sprintf("%s bears no hold", t)
	case s.options.Trust == nil:
		return fmt.Sprintf("%s bears a hold (signature not checked here)", t)
	}
	h, err := OpenHold(s.options.Trust(), annotation)
	if err != nil {
		return fmt.Sprintf("%s bears a hold that is not validly signed", t)
	}
	return fmt.Sprintf("%s bears the signed hold of incident %s until %s", t, h.IncidentID, h.Ends.Format(time.RFC3339))
}
