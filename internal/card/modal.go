package card

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/canonical"
	"tourniquet.dev/tourniquet/internal/plan"
)

// MaxReason bounds the reason that a person gives, in characters.
const MaxReason = 500

// Extensions are the durations by which an extend may move the end.
var Extensions = []time.Duration{time.Hour, 4 * time.Hour, 24 * time.Hour, 7 * 24 * time.Hour}

// Ask is what a modal asks: a decision of this kind on exactly this plan.
type Ask struct {
	Decision authz.DecisionKind
	Plan     *plan.Plan
	// Others are the plans that the person may pick instead, this one among them; fewer than two: no choice is shown.
	Others []Offer
	// Seal packs the modal's own token; it is given the digest of what is shown.
	Seal func(shown string) (string, error)
}

var modalWords = map[authz.DecisionKind]struct{ title, submit, says string }{
	authz.Approve: {"Approve containment", "Approve", "You approve exactly the steps below, of the plan with this digest, and nothing else."},
	authz.Deny:    {"Deny containment", "Deny", "You deny containment: none of the plans on offer will be carried out. What stopped the bleeding stays until it ends by itself."},
	authz.Release: {"Release", "Release", "You take these steps off: each object gets back exactly the state it had before."},
	authz.Retire:  {"Retire", "Retire", "You end these steps without restoring anything: the identity was rotated or is gone."},
	authz.Extend:  {"Extend", "Extend", "You keep these steps on for longer."},
}

// Modal renders the modal of a decision, as the view that views.open takes, and the digest of what it shows of the plan.
func Modal(a Ask) (view json.RawMessage, shown string, err error) {
	words, ok := modalWords[a.Decision]
	if !ok {
		return nil, "", fmt.Errorf("render modal: decision %.20q", a.Decision)
	}
	blocks, shown, err := Shown(a.Decision, a.Plan)
	if err != nil {
		return nil, "", err
	}
	token, err := a.Seal(shown)
	if err != nil {
		return nil, "", fmt.Errorf("render modal: %w", err)
	}
	if len(a.Others) > 1 {
		choice, err := options(a)
		if err != nil {
			return nil, "", err
		}
		blocks = append([]any{choice}, blocks...)
	}
	digest, err := a.Plan.Digest()
	if err != nil {
		return nil, "", fmt.Errorf("render modal: %w", err)
	}
	blocks = append(blocks, richText("files", section(say("As native files: ").code("tourniquet plan show "+digest))))
	if a.Decision == authz.Extend {
		blocks = append(blocks, extension())
	}
	blocks = append(blocks, obj{"type": "input", "block_id": InputReason, "label": plainText("Reason (recorded and signed)"),
		"element": obj{"type": "plain_text_input", "action_id": InputReason, "multiline": true, "min_length": 3, "max_length": MaxReason}})
	view, err = json.Marshal(obj{"type": "modal", "callback_id": Callback, "private_metadata": token, "blocks": blocks,
		"title": plainText(words.title), "submit": plainText(words.submit), "close": plainText("Cancel")})
	if err != nil {
		return nil, "", fmt.Errorf("render modal: %w", err)
	}
	return view, shown, nil
}

// Shown renders what a modal shows of the plan, and the digest of that. It depends on nothing but its arguments, so an
// auditor gets the same digest from the stored plan.
func Shown(d authz.DecisionKind, p *plan.Plan) (blocks []any, digest string, err error) {
	words, ok := modalWords[d]
	if !ok {
		return nil, "", fmt.Errorf("show plan: decision %.20q", d)
	}
	planDigest, err := p.Digest()
	if err != nil {
		return nil, "", fmt.Errorf("show plan: %w", err)
	}
	blocks = []any{
		richText("says", section(say("%s", words.says))),
		paragraph("plan", "Plan", []line{
			say("Digest ").code(planDigest),
			say("Incident ").code(p.IncidentID).say(", option ").code(exact(p.Option)).say(" (%s)", clean(string(p.Purpose), 10)),
			say("Playbook ").code(exact(p.Playbook.Name)).say(" version %d", p.Playbook.Version),
			say("Steps: %d. Signed detections it rests on: %d", len(p.Steps), len(p.Detections)),
		}),
	}
	for _, s := range p.Steps {
		blocks = append(blocks, showStep(s))
	}
	digest, err = canonical.Digest(blocks)
	if err != nil {
		return nil, "", fmt.Errorf("show plan: %w", err)
	}
	return blocks, digest, nil
}

func showStep(s plan.Step) obj {
	e, _ := plan.Lookup(s.Action)
	lines := []line{
		line{}.code(string(s.Action)).say("  %s", e.Does),
		say("Target: %s ", s.Target.Kind).code(exact(qualified(s.Target))).say(" in ").code(exact(s.Target.Scope)).say(", UID ").code(exact(s.Target.UID)),
		say("For %s, then %s", duration(s.Duration()), ending(string(s.Expiry))),
		say("Also hit: %s", e.Collateral),
	}
	if s.Closure != nil {
		lines = append(lines, say("May also touch up to %d: ", s.Closure.Max).code(exact(s.Closure.Of)))
	}
	if s.Group != 0 {
		lines = append(lines, say("Together with the other steps of group %d, or not at all", s.Group))
	}
	if !e.Observable {
		lines = append(lines, say("Nothing here can observe its effect: it will stay asserted"))
	}
	lines = append(lines, bounded(s.Collateral, 5, func(c string) line { return say("Also hit: ").code(clean(c, 200)) })...)
	return paragraph("step-"+strconv.Itoa(s.Index), fmt.Sprintf("%d. %s", s.Index+1, e.Title), lines)
}

func qualified(t plan.Target) string {
	if t.Namespace == "" {
		return t.Name
	}
	return t.Namespace + "/" + t.Name
}

// options is the choice among the plans on offer. Picking another one sends a block action, and the modal is replaced.
func options(a Ask) (obj, error) {
	mine, err := a.Plan.Digest()
	if err != nil {
		return nil, fmt.Errorf("render modal: %w", err)
	}
	var all []any
	var chosen any
	for _, o := range a.Others {
		choice := obj{"text": plainText(clean(o.Option, 40) + " · " + short(o.Plan)), "value": o.Plan}
		all = append(all, choice)
		if o.Plan == mine {
			chosen = choice
		}
	}
	if chosen == nil {
		return nil, errors.New("render modal: the plan is not among those on offer")
	}
	return obj{"type": "input", "block_id": InputOption, "dispatch_action": true, "label": plainText("Option"),
		"element": obj{"type": "radio_buttons", "action_id": InputOption, "options": all, "initial_option": chosen}}, nil
}

func extension() obj {
	var all []any
	for _, d := range Extensions {
		all = append(all, obj{"text": plainText("by " + duration(d)), "value": strconv.FormatInt(int64(d.Seconds()), 10)})
	}
	return obj{"type": "input", "block_id": InputExtend, "label": plainText("Move the end"),
		"element": obj{"type": "static_select", "action_id": InputExtend, "options": all, "initial_option": all[0]}}
}

// Page renders a message that calls people: reason and text, with a mention where the group has one.
func Page(reason, text, ask, mention string, deadline time.Time) (Message, error) {
	l := line{}.bold(upperFirst(clean(reason, 100)))
	if mention != "" {
		kind, field := "user", "user_id"
		if mention[0] == 'S' {
			kind, field = "usergroup", "usergroup_id"
		}
		l = append(l.say(" "), obj{"type": kind, field: mention})
	} else if ask != "" {
		l = l.say(" — %s", clean(ask, 64))
	}
	if text != "" {
		l = l.say(": ").code(clean(text, 600))
	}
	if !deadline.IsZero() {
		l = l.say(" (until %s)", clock(deadline))
	}
	raw, err := json.Marshal([]any{richText("page", section(l))})
	if err != nil {
		return Message{}, fmt.Errorf("render page: %w", err)
	}
	return Message{Text: escape(clean(reason, 100) + ": " + clean(text, 300)), Blocks: raw}, nil
}
