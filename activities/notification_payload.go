package activities

import "time"

// CardDetection is one line of what was detected. Everything in it may be an attacker's text: the card shows it as text.
type CardDetection struct {
	Rule    string    `json:"rule"`
	Title   string    `json:"title"`
	Attacks []string  `json:"attacks,omitempty"` // technique ids
	Time    time.Time `json:"time"`
}

// CardTier says who is being asked and until when.
type CardTier struct {
	Ask      string    `json:"ask"`
	Quorum   int       `json:"quorum,omitempty"`
	Deadline time.Time `json:"deadline"`
}

// CardOption is one plan that people may decide on now.
type CardOption struct {
	Option      string  `json:"option"`
	Plan        string  `json:"plan"` // digest
	Recommended bool    `json:"recommended,omitempty"`
	Residual    float64 `json:"residual"`
	P50         int64   `json:"p50,omitempty"`
	P90         int64   `json:"p90,omitempty"`
}

// CardStep is one step of a plan that runs, is on, or was on.
type CardStep struct {
	Purpose   string    `json:"purpose"` // stop, full, fallback
	Action    string    `json:"action"`
	Target    string    `json:"target"`
	State     string    `json:"state"` // as StepView.State of the workflows
	Ends      time.Time `json:"ends,omitzero"`
	Expiry    string    `json:"expiry"`
	Note      string    `json:"note,omitempty"`
	Witnesses []string  `json:"witnesses,omitempty"`
}

// CardHeld is a plan that is on: people may release, retire or extend it.
type CardHeld struct {
	Plan    string `json:"plan"` // digest
	Purpose string `json:"purpose"`
}

// CardDecision is one decision that was made.
type CardDecision struct {
	Kind   string    `json:"kind"` // approve, deny, release, retire, extend; lapsed where nobody answered
	Person string    `json:"person,omitempty"`
	At     time.Time `json:"at"`
	Plan   string    `json:"plan,omitempty"` // digest
	Reason string    `json:"reason,omitempty"`
}

// CardInput is the state that an incident's card shows: short summaries and digests, never a plan. Options are shown
// with buttons, so it holds only plans that may be decided on now: leave it empty after a decision. Without TS the card
// is posted, with TS it is kept current.
type CardInput struct {
	IncidentID string          `json:"incident_id"`
	Key        string          `json:"key"`
	State      string          `json:"state"`
	Severity   string          `json:"severity"`
	Playbook   string          `json:"playbook"`
	Subject    string          `json:"subject,omitempty"`
	Identities []string        `json:"identities,omitempty"`
	Detections []CardDetection `json:"detections,omitempty"`
	Tier       *CardTier       `json:"tier,omitempty"` // nil: nobody is being asked
	// Assessment is the digest of the stored assessment; empty before there is one.
	Assessment string         `json:"assessment,omitempty"`
	Options    []CardOption   `json:"options,omitempty"`
	Steps      []CardStep     `json:"steps,omitempty"`
	Held       []CardHeld     `json:"held,omitempty"`
	Gaps       []string       `json:"gaps,omitempty"`
	Decisions  []CardDecision `json:"decisions,omitempty"`
	// Channel and TS are where the card stands, from CardOutput. An empty channel is the configured one.
	Channel string `json:"channel,omitempty"`
	TS      string `json:"ts,omitempty"`
}

// CardOutput is where the card stands.
type CardOutput struct {
	Channel string `json:"channel"`
	TS      string `json:"ts"`
}

// PageReason says why people are called.
type PageReason string

// The reasons of a page.
const (
	PageAsked     PageReason = "asked"       // a tier is asked for a decision
	PageReminder  PageReason = "reminder"    // the tier's time is running out
	PageEscalated PageReason = "escalated"   // the next tier is asked
	PageLapsed    PageReason = "lapsed"      // no tier answered: the fallback goes on
	PageFailed    PageReason = "step-failed" // a step could not be applied, verified or undone
	PageBroken    PageReason = "hold-broken" // somebody undid a hold
	PageReview    PageReason = "review-due"  // a step's duration is over: people are asked again
)

// PageInput calls people, in the card's thread where there is a card.
type PageInput struct {
	IncidentID string     `json:"incident_id"`
	Channel    string     `json:"channel,omitempty"`
	TS         string     `json:"ts,omitempty"`
	Reason     PageReason `json:"reason"`
	// Ask is the group to be called; empty calls nobody by name.
	Ask      string    `json:"ask,omitempty"`
	Text     string    `json:"text,omitempty"`
	Deadline time.Time `json:"deadline,omitzero"`
	// Once names this page among those of the incident: the same one is posted once.
	Once string `json:"once"`
}

// PageOutput is where the page stands.
type PageOutput struct {
	Channel string `json:"channel"`
	TS      string `json:"ts"`
}
