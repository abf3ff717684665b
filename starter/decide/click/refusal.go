package click

import (
	"errors"
	"fmt"

	"tourniquet.dev/tourniquet/internal/authz"
)

// Code is a stable reason why a request or a click had no effect. A judge's codes stand beside these.
type Code string

// The codes of requests: whoever sent them gets a status and no explanation.
const (
	CodeBody        Code = "body-too-large"
	CodeForm        Code = "bad-form"
	CodeSignature   Code = "bad-signature"
	CodeTime        Code = "bad-timestamp"
	CodeReplayed    Code = "replayed"
	CodePayload     Code = "bad-payload"
	CodeApp         Code = "wrong-app"
	CodeTeam        Code = "wrong-team"
	CodeInteraction Code = "unknown-interaction"
)

// The codes of clicks: the person who clicked is told.
const (
	CodeButton      Code = "unknown-button"
	CodeToken       Code = "bad-token"
	CodeExpired     Code = "card-expired"
	CodeStale       Code = "card-stale"
	CodePerson      Code = "unknown-person"
	CodeUser        Code = "user-not-allowed"
	CodeUserUnknown Code = "user-not-checked"
	CodeNotAsked    Code = "not-an-approver"
	CodeOthers      Code = "not-your-modal"
	CodePlan        Code = "plan-not-readable"
	CodeShown       Code = "shown-plan-changed"
	CodeReason      Code = "reason-missing"
	CodeExtension   Code = "bad-extension"
	CodeClosed      Code = "incident-closed"
	CodeNotOffered  Code = "plan-not-offered"
	CodeNotHeld     Code = "plan-not-held"
	CodeAlready     Code = "already-decided"
	CodeLedger      Code = "ledger-unavailable"
	CodeSlack       Code = "slack-unavailable"
)

// words are what a person is told. They help nobody to forge.
var words = map[Code]string{
	CodeButton:      "This button is not one of Tourniquet's.",
	CodeToken:       "This button does not belong to this installation of Tourniquet.",
	CodeExpired:     "This card is too old to decide on. Use the incident's current card, or the command line.",
	CodeStale:       "This is not the incident's current card. Use the newest one in this channel.",
	CodePerson:      "Your Slack account is not in the trust file.",
	CodeUser:        "Your Slack account may not decide: guests, bots and members of other workspaces may not.",
	CodeUserUnknown: "Slack did not confirm your account just now. Try again, or use the command line.",
	CodeNotAsked:    "The playbook does not ask you.",
	CodeOthers:      "Somebody else opened this dialog. Open your own from the card.",
	CodePlan:        "The plan could not be read from the store. Nothing was decided.",
	CodeShown:       "The plan that was shown is not the one chosen. Close this dialog and open it again from the card.",
	CodeReason:      "Give a reason of at least 3 characters.",
	CodeExtension:   "Choose by how much to extend.",
	CodeClosed:      "This incident is closed. Nothing was done.",
	CodeNotOffered:  "This plan is not on offer any more. See the card for what was decided.",
	CodeNotHeld:     "This plan is not on any more.",
	CodeAlready:     "You have decided this already. It counts once.",
	CodeLedger:      "Your decision could not be recorded, so it does not count. Try again, or use the command line.",
	CodeSlack:       "Slack did not open the dialog. Try again.",

	Code(authz.CodeDenied):    "Somebody denied this: a deny wins.",
	Code(authz.CodeAssurance): "A click is not enough for this plan. Decide with your own key: tourniquet approve.",
	Code(authz.CodeProtected): "The plan touches something protected.",
	Code(authz.CodeScope):     "The plan touches something out of scope.",
}

// Refusal is a click that has no effect. It is an error.
type Refusal struct {
	Code Code
	// Block is the modal's input that the refusal belongs to, if any.
	Block string
	err   error
}

func (r *Refusal) Error() string {
	if r.err != nil {
		return fmt.Sprintf("%s: %v", r.Code, r.err)
	}
	return string(r.Code)
}

func (r *Refusal) Unwrap() error { return r.err }

// Text is what the person is told.
func (r *Refusal) Text() string {
	if w, ok := words[r.Code]; ok {
		return fmt.Sprintf("%s (%s)", w, r.Code)
	}
	return fmt.Sprintf("Tourniquet refused: %s. Nothing was done.", r.Code)
}

func refuse(c Code) *Refusal { return &Refusal{Code: c} }

func because(c Code, err error) *Refusal { return &Refusal{Code: c, err: err} }

// judged turns a judge's no into ours; anything else is a plan that cannot be judged.
func judged(err error) *Refusal {
	var r *authz.Refusal
	if errors.As(err, &r) {
		return because(Code(r.Code), err)
	}
	return because(CodePlan, err)
}
