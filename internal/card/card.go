// Package card says what an incident's Slack card and the decision modal show, and packs the token behind the buttons.
// It is pure: a view goes in, blocks come out. Whatever text it is given, the blocks have the same structure (I34):
// every text is a leaf of rich_text or plain_text, never markup. It sends nothing and decides nothing. activities/slack
// posts what Render made; starter/decide opens what Seal sealed and shows what Modal made.
package card

import "time"

// The bounds of what a card shows. Slack takes 50 blocks and about 11,000 characters of text in one message.
const (
	MaxOptions    = 8
	maxDetections = 5
	maxIdentities = 6
	maxSteps      = 14
	maxGaps       = 5
	maxDecisions  = 5
	maxHolds      = 4
	maxText       = 10_000
)

// View is the state that a card shows. Its strings may be an attacker's.
type View struct {
	IncidentID string
	State      string
	Severity   string
	Playbook   string
	Subject    string
	Identities []string
	Detections []Detection
	Before     *Reach    // what the identity can reach now; nil: not assessed
	Waiting    *Exposure // what doing nothing costs; nil: not assessed
	Options    []Option
	Steps      []Step
	Gaps       []string
	Decisions  []Decision
	Tier       *Tier
	// DecideToken is the sealed token of the decision buttons; empty: no such buttons.
	DecideToken string
	Holds       []Hold
}

// Detection is one finding.
type Detection struct {
	Rule, Title string
	Attacks     []string
	Time        time.Time
}

// Reach is a blast radius: 0 to 100, between the bounds that undecidable conditions leave, with the witness of the
// most valuable asset.
type Reach struct {
	Score, Lower, Upper float64
	Admin               bool
	Witness             []string
}

// Exposure is money in minor units of a currency.
type Exposure struct {
	Currency         string
	Mean, P50, P90   int64
	WaitingPerMinute int64
	Defaults         bool // nobody but us gave the values
}

// Option is one plan that people can decide on.
type Option struct {
	Name        string
	Plan        string // digest
	Recommended bool
	After       Reach
	Exposure    Exposure
}

// Step is one step and where it stands.
type Step struct {
	Purpose   string
	Action    string
	Target    string
	State     string
	Ends      time.Time
	Expiry    string
	Note      string
	Witnesses []string
}

// Decision is one decision that was made.
type Decision struct {
	Kind, Person string
	At           time.Time
	Plan         string
	Reason       string
}

// Tier is who is asked, and until when.
type Tier struct {
	Ask      string
	Quorum   int
	Deadline time.Time
}

// Hold is a plan that is on, with the sealed token of its buttons.
type Hold struct {
	Purpose string
	Plan    string
	Token   string
}

// The action ids of buttons and inputs, and the block ids of a modal's inputs.
const (
	ActionApprove = "approve"
	ActionOther   = "other"
	ActionDeny    = "deny"
	ActionRelease = "release"
	ActionRetire  = "retire"
	ActionExtend  = "extend"

	InputOption = "option"
	InputReason = "reason"
	InputExtend = "extend-by"
)

// Callback is the callback id of the decision modal.
const Callback = "tourniquet-decide"
