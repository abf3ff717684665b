// Package workflows holds order, waiting and state of an incident, and nothing else: scores, plans and verdicts come
// back from activities, so that history keeps the answers. names.go has every name and payload that others need to
// start, signal or query a workflow.
package workflows

import (
	"fmt"
	"strings"
	"time"

	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/detection"
)

// IncidentDetails is what the Web UI says beside every incident, in markdown.
const IncidentDetails = "**Where it stands** is under current details; the timeline names each step.\n\n" +
	"**Decide** on the card in Slack, or with `tourniquet incidents show`, `approve`, `deny`, `release`, `extend` and `retire`.\n\n" +
	"Cancel, reset, terminate or a signal from here put no cut on and take none off: the enforcers act on signed statements " +
	"and on their own clocks only."

// Task queues, one for each role.
const (
	QueueOrchestrate       = "orchestrate"
	QueueInvestigate       = "investigate"
	QueueNotify            = "notify"
	QueueContainAWS        = "contain-aws"
	QueueContainKubernetes = "contain-kubernetes"
)

// Workflow types.
const (
	TypeIncident    = "Incident"
	TypeContainment = "Containment"
	TypeArchive     = "Archive"
)

// Signals: facts, in the past tense.
const (
	// SignalDetectionObserved carries DetectionObserved to an incident.
	SignalDetectionObserved = "detection-observed"
	// SignalDecisionMade carries DecisionMade to an incident or a containment.
	SignalDecisionMade = "decision-made"
	// SignalReceiptObserved carries ReceiptObserved (a node's) to a containment.
	SignalReceiptObserved = "receipt-observed"
	// SignalHoldBroken carries HoldBroken from an enforcer to a containment.
	SignalHoldBroken = "hold-broken"
	// SignalContainmentChanged carries ContainmentChanged from a containment to its incident.
	SignalContainmentChanged = "containment-changed"
)

// QueryState asks an incident or a containment for its StateView.
const QueryState = "state"

// Search attributes. Values are opaque: they are not encrypted.
const (
	AttrSeverity = "TourniquetSeverity" // Keyword
	AttrState    = "TourniquetState"    // Keyword
	AttrPlaybook = "TourniquetPlaybook" // Keyword
	AttrTier     = "TourniquetTier"     // Keyword
	AttrIncident = "TourniquetIncident" // Keyword
	AttrWorkload = "TourniquetWorkload" // Keyword: the correlation key
	AttrExposure = "TourniquetExposure" // Int: P50 in minor units
)

// IncidentWorkflowID is the id of the incident workflow of a correlation key.
func IncidentWorkflowID(key string) string { return "incident/" + key }

// ContainmentWorkflowID is the id of the containment of one plan.
func ContainmentWorkflowID(incidentID, planDigest string) string {
	return fmt.Sprintf("containment/%s/%s", incidentID, strings.TrimPrefix(planDigest, "sha256:")[:12])
}

// ArchiveWorkflowID is the id of the workflow that exports an incident's histories after close.
func ArchiveWorkflowID(incidentID string) string { return "archive/" + incidentID }

// Observed is one detection that intake accepted: where its signed envelope is, and what a workflow needs to route it.
type Observed struct {
	Digest   string             `json:"digest"` // of the envelope, in the store
	UID      string             `json:"uid"`
	Rule     string             `json:"rule"`
	Title    string             `json:"title"`
	Severity detection.Severity `json:"severity"`
	Attacks  []string           `json:"attacks"` // technique ids
	Time     time.Time          `json:"time"`
	SpoolAt  time.Time          `json:"spool_at"` // when intake had it on disk
}

// IncidentInput starts an incident. It holds nothing but the key: the first detection comes as a Signal.
type IncidentInput struct {
	Key string `json:"key"`
}

// DetectionObserved is the payload of SignalDetectionObserved: one or more, coalesced.
type DetectionObserved struct {
	Detections []Observed `json:"detections"`
}

// DecisionMade is the payload of SignalDecisionMade: the signed decision itself. Who sent it does not matter.
type DecisionMade struct {
	Decision authz.Envelope `json:"decision"`
}

// ReceiptObserved is the payload of SignalReceiptObserved.
type ReceiptObserved struct {
	Receipt authz.Envelope `json:"receipt"`
}

// HoldBroken is the payload of SignalHoldBroken.
type HoldBroken struct {
	Step int    `json:"step"`
	By   string `json:"by"` // who undid it, as far as the system tells
	// Reasserted says whether the enforcer put it back.
	Reasserted bool `json:"reasserted"`
}

// StepView is what people see of one step.
type StepView struct {
	Plan      string    `json:"plan"`
	Index     int       `json:"index"`
	Action    string    `json:"action"`
	Target    string    `json:"target"`
	State     string    `json:"state"` // intended, applied, asserted, verified, broken, released, retired, failed, refused, unknown
	Ends      time.Time `json:"ends"`
	Expiry    string    `json:"expiry"`
	Note      string    `json:"note,omitempty"`
	Witnesses []string  `json:"witnesses,omitempty"`
	AppliedAt time.Time `json:"applied_at"`
}

// ContainmentChanged is the payload of SignalContainmentChanged.
type ContainmentChanged struct {
	Plan    string     `json:"plan"`
	Purpose string     `json:"purpose"`
	Steps   []StepView `json:"steps"`
	// Done is set when no step of the plan is on any more.
	Done bool   `json:"done"`
	Note string `json:"note,omitempty"`
}

// TimelineEntry is one line of an incident's story.
type TimelineEntry struct {
	At   time.Time `json:"at"`
	Text string    `json:"text"`
}

// OptionView is one plan that people can decide on.
type OptionView struct {
	Option      string   `json:"option"`
	Plan        string   `json:"plan"` // digest
	Recommended bool     `json:"recommended"`
	Residual    float64  `json:"residual"` // blast radius that stays
	Actions     []string `json:"actions"`
}

// StateView answers QueryState.
type StateView struct {
	IncidentID   string               `json:"incident_id"`
	Key          string               `json:"key"`
	State        string               `json:"state"`
	Severity     string               `json:"severity"`
	Playbook     string               `json:"playbook"`
	Tier         string               `json:"tier,omitempty"`
	Detections   []Observed           `json:"detections"`
	Options      []OptionView         `json:"options,omitempty"`
	Containments []ContainmentChanged `json:"containments,omitempty"`
	Gaps         []string             `json:"gaps,omitempty"`
	Timeline     []TimelineEntry      `json:"timeline"`
	// Assessment is the digest of the stored assessment; Report of the stored report and Evidence of the sealed manifest of
	// what it rests on, once closed.
	Assessment string `json:"assessment,omitempty"`
	Report     string `json:"report,omitempty"`
	Evidence   string `json:"evidence,omitempty"`
	// Card is where the current card stands: channel and ts.
	Card string `json:"card,omitempty"`
	// Refused are decisions that had no effect, with the reason.
	Refused []string `json:"refused,omitempty"`
	// Unpaged counts pages that have reached nobody yet; Dropped detections beyond what an incident keeps by name.
	Unpaged int `json:"unpaged,omitempty"`
	Dropped int `json:"dropped,omitempty"`
}
