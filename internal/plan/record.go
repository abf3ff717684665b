package plan

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// PreImage is the state of one object before a change, as canonical JSON, with its digest.
type PreImage struct {
	Target Target          `json:"target"`
	Digest string          `json:"digest"`
	State  json.RawMessage `json:"state"`
}

// Intent is what an enforcer has fixed before it acts: which step of which plan, the targets found, their pre-images
// and the absolute times. It is in the journal before the first effect, and never changes.
type Intent struct {
	// Key is H(incident, plan digest, step, generation): at most one net effect bears it.
	Key        string `json:"key"`
	IncidentID string `json:"incident_id"`
	PlanDigest string `json:"plan_digest"`
	Step       Step   `json:"step"`
	Generation int    `json:"generation"`
	// Targets are what Expand found, PreImages their state, in the same order.
	Targets   []Target   `json:"targets"`
	PreImages []PreImage `json:"pre_images"`
	At        time.Time  `json:"at"`
	Ends      time.Time  `json:"ends"`
	// Authority says in the judge's words on whose authority.
	Authority string `json:"authority"`
	// Authorities are the digests of the envelopes (decisions, detections) that the judge accepted.
	Authorities []string `json:"authorities"`
}

// ObjectName is the name of an object of ours for this intent: tourniquet-<incident>-<digest4>-<step>.
func (in Intent) ObjectName() string {
	return fmt.Sprintf("tourniquet-%s-%s-%d", in.IncidentID, strings.TrimPrefix(in.PlanDigest, "sha256:")[:4], in.Step.Index)
}

// Short is a label-safe short form of the key.
func (in Intent) Short() string { return in.Key[:16] }

// Key is the idempotency key of one step's effect.
func Key(incidentID, planDigest string, step, generation int) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "tourniquet intent v1\x00%s\x00%s\x00%d\x00%d", incidentID, planDigest, step, generation))
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:20]))
}

// Phase is what a receipt says happened.
type Phase string

// The phases of a step in receipts.
const (
	Begun   Phase = "begun"
	Applied Phase = "applied"
	Broken  Phase = "broken"
	Failed  Phase = "failed"
	Undone  Phase = "undone"
	Retired Phase = "retired"
)

// Effect is what was done to one target.
type Effect struct {
	Target Target `json:"target"`
	Did    string `json:"did"`
	// Object is the name of what was made, if anything.
	Object string `json:"object,omitempty"`
	// Post is the digest of the object's state right after the change: release compares with it and never clobbers.
	Post string `json:"post,omitempty"`
}

// Receipt is an enforcer's word on one step; a node's for an order. It is signed as an envelope.
type Receipt struct {
	V          int       `json:"v"`
	By         string    `json:"by"` // the role, or node/<name>
	Key        string    `json:"key"`
	IncidentID string    `json:"incident_id"`
	PlanDigest string    `json:"plan_digest"`
	Step       int       `json:"step"`
	Action     Action    `json:"action"`
	Phase      Phase     `json:"phase"`
	Effects    []Effect  `json:"effects,omitempty"`
	Authority  string    `json:"authority,omitempty"`
	At         time.Time `json:"at"`
	Ends       time.Time `json:"ends"`
	// Detail holds short facts: counters of dropped packets, the AWS request id.
	Detail map[string]string `json:"detail,omitempty"`
	// Witnesses are digests of other signed receipts this one rests on, such as the node's.
	Witnesses []string `json:"witnesses,omitempty"`
}

// Finding is what the read-only role saw of an effect.
type Finding string

// The findings of an observation.
const (
	// Asserted: the state reads back as wanted, but nothing here can observe that it acts.
	Asserted Finding = "asserted"
	// Verified: the effect itself was observed.
	Verified Finding = "verified"
	// NotHolding: the effect is not there, or no longer.
	NotHolding Finding = "broken"
)

// Observation is the read-only role's word on an effect. It is signed as an envelope.
type Observation struct {
	V          int       `json:"v"`
	Key        string    `json:"key"`
	IncidentID string    `json:"incident_id"`
	PlanDigest string    `json:"plan_digest"`
	Step       int       `json:"step"`
	Action     Action    `json:"action"`
	Finding    Finding   `json:"finding"`
	At         time.Time `json:"at"`
	// Witnesses say in plain words what was seen and how.
	Witnesses []string `json:"witnesses"`
}

// DigestOf is the digest of raw bytes in our form.
func DigestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}
