package card

import (
	"encoding/json"
	"fmt"
	"strings"

	"tourniquet.dev/tourniquet/internal/plan"
)

// Render makes the card of an incident. The same number of things makes the same structure, whatever they say.
func Render(v View) (Message, error) {
	for shrink := 1; ; shrink *= 2 {
		blocks := renderer{v, shrink}.blocks()
		if n := textLength(blocks); n > maxText && shrink < 16 {
			continue // texts are cut shorter; the structure stays
		} else if n > maxText {
			return Message{}, fmt.Errorf("render card of %s: %d characters of text", clean(v.IncidentID, 20), n)
		}
		raw, err := json.Marshal(blocks)
		if err != nil {
			return Message{}, fmt.Errorf("render card: %w", err)
		}
		return Message{Text: fallback(v), Blocks: raw}, nil
	}
}

func fallback(v View) string {
	return escape(fmt.Sprintf("%s incident %s (%s): %s", upperFirst(clean(v.Severity, 20)), clean(v.IncidentID, 20), clean(v.State, 20), clean(v.Subject, 200)))
}

type renderer struct {
	v      View
	shrink int
}

// show cleans untrusted text to limit bytes, fewer when the card would get too long.
func (r renderer) show(s string, limit int) string { return clean(s, max(limit/r.shrink, 12)) }

func (r renderer) blocks() []any {
	v := r.v
	out := []any{header(fmt.Sprintf("%s incident %s", upperFirst(clean(v.Severity, 20)), clean(v.IncidentID, 20)))}
	out = append(out, richText("subject", section(line{}.bold("Workload ").code(r.show(v.Subject, 160)).
		bold("   State ").say("%s", clean(v.State, 20)).bold("   Playbook ").code(r.show(v.Playbook, 64)))))
	add := func(id, title string, lines []line) {
		if len(lines) > 0 {
			out = append(out, paragraph(id, title, lines))
		}
	}
	add("detections", "Detected", r.detections())
	add("identities", "Identities", r.identities())
	add("reach", "What it can reach", r.reach())
	add("exposure", "What waiting costs", r.exposure())
	add("options", "Ways to contain", r.options())
	add("steps", "Steps", r.steps())
	add("gaps", "Not known", bounded(v.Gaps, maxGaps, func(s string) line { return line{}.code(r.show(s, 120)) }))
	add("decisions", "Decided", bounded(last(v.Decisions, maxDecisions), maxDecisions, r.decision))
	if t := v.Tier; t != nil {
		out = append(out, footnote("tier", fmt.Sprintf("Asked: %s%s, until %s.", clean(t.Ask, 64), quorum(t.Quorum), clock(t.Deadline))))
	}
	return append(out, r.buttons()...)
}

// bounded makes lines of at most most things and says how many more there are.
func bounded[T any](all []T, most int, show func(T) line) []line {
	var out []line
	for _, x := range all[:min(len(all), most)] {
		out = append(out, show(x))
	}
	if more := len(all) - most; more > 0 {
		out = append(out, say("and %d more", more))
	}
	return out
}

func last[T any](all []T, n int) []T { return all[max(0, len(all)-n):] }

func quorum(n int) string {
	if n < 2 {
		return ""
	}
	return fmt.Sprintf(" (%d people)", n)
}

func (r renderer) detections() []line {
	return bounded(r.v.Detections, maxDetections, func(d Detection) line {
		return line{}.code(r.show(d.Title, 160)).say("  rule %s, %s, %s", r.show(d.Rule, 60), r.show(strings.Join(d.Attacks, " "), 60), clock(d.Time))
	})
}

func (r renderer) identities() []line {
	return bounded(r.v.Identities, maxIdentities, func(s string) line { return line{}.code(r.show(s, 160)) })
}

func (r renderer) reach() []line {
	b := r.v.Before
	if b == nil {
		return nil
	}
	first := say("Now: ").bold(fmt.Sprintf("%.0f of 100", b.Score)).say(" (%.0f to %.0f, where conditions could not be decided)", b.Lower, b.Upper)
	if b.Admin {
		first = first.bold(", up to administrator")
	}
	return append([]line{first}, r.witness(*b)...)
}

// witness is the path to the most valuable asset in reach, at most five edges.
func (r renderer) witness(a Reach) []line {
	if len(a.Witness) == 0 {
		return nil
	}
	l := say("Path: ")
	for i, edge := range a.Witness[:min(len(a.Witness), 5)] {
		if i > 0 {
			l = l.say(" → ")
		}
		l = l.code(r.show(edge, 110))
	}
	return []line{l}
}

func (r renderer) exposure() []line {
	e := r.v.Waiting
	if e == nil {
		return nil
	}
	out := []line{say("Expected loss if nothing is done: ").bold(money(e.Currency, e.Mean)).say(" (half of all cases up to %s, nine of ten up to %s). Each minute of waiting: ",
		money(e.Currency, e.P50), money(e.Currency, e.P90)).bold(money(e.Currency, e.WaitingPerMinute)).say(".")}
	if e.Defaults {
		out = append(out, say("These values are Tourniquet's defaults: nobody has entered yours."))
	}
	return out
}

func (r renderer) options() []line {
	return bounded(r.v.Options, MaxOptions, func(o Option) line {
		l := line{}.bold(r.show(o.Name, 40))
		if o.Recommended {
			l = l.bold(" (recommended)")
		}
		l = l.say(" plan ").code(short(o.Plan))
		if b := r.v.Before; b != nil {
			l = l.say(": reach %.0f → ", b.Score).bold(fmt.Sprintf("%.0f", o.After.Score))
		}
		if o.Exposure.Currency != "" {
			l = l.say(", expected loss %s (P90 %s)", money(o.Exposure.Currency, o.Exposure.Mean), money(o.Exposure.Currency, o.Exposure.P90))
		}
		if len(o.After.Witness) > 0 {
			l = l.say(". Still open: ").code(r.show(strings.Join(o.After.Witness, " → "), 200))
		}
		return l
	})
}

// stateWords say honestly how sure a state is.
var stateWords = map[string]string{
	"intended": "begun",
	"applied":  "applied, not checked yet",
	"asserted": "asserted: reads back as wanted, nothing here can observe its effect",
	"verified": "verified: its effect was observed",
	"held":     "held",
	"broken":   "BROKEN: somebody undid it",
	"released": "released",
	"retired":  "retired",
	"failed":   "FAILED",
	"refused":  "refused by the enforcer",
	"unknown":  "UNKNOWN: sent, no answer; being read back",
}

func stateOf(s Step) string {
	e, known := plan.Lookup(plan.Action(s.Action))
	words, ok := stateWords[s.State]
	switch {
	case !ok:
		return clean(s.State, 20)
	case s.State == "held" && (!known || !e.Observable):
		return "held, asserted only: nothing here can observe its effect"
	}
	return words
}

func (r renderer) steps() []line {
	return bounded(r.v.Steps, maxSteps, func(s Step) line {
		title := r.show(s.Action, 40)
		if e, ok := plan.Lookup(plan.Action(s.Action)); ok {
			title = e.Title
		}
		l := line{}.bold(title).say(" on ").code(r.show(s.Target, 90)).say(" (%s): ", clean(s.Purpose, 10)).bold(stateOf(s))
		if !s.Ends.IsZero() {
			l = l.say("; %s at %s", ending(s.Expiry), day(s.Ends))
		}
		if s.Note != "" {
			l = l.say("; ").code(r.show(s.Note, 100))
		}
		if len(s.Witnesses) > 0 {
			l = l.say("; seen: ").code(r.show(s.Witnesses[0], 110))
		}
		return l
	})
}

func ending(expiry string) string {
	if expiry == string(plan.Review) {
		return "people are asked again"
	}
	return "comes off by itself"
}

var decisionWords = map[string]string{
	"approve": "Approved", "deny": "Denied", "release": "Released", "retire": "Retired", "extend": "Extended",
	"lapsed": "Nobody answered",
}

func (r renderer) decision(d Decision) line {
	words, ok := decisionWords[d.Kind]
	if !ok {
		words = clean(d.Kind, 20)
	}
	l := line{}.bold(words)
	if d.Person != "" {
		l = l.say(" by ").bold(r.show(d.Person, 64))
	}
	l = l.say(" at %s", clock(d.At))
	if d.Plan != "" {
		l = l.say(", plan ").code(short(d.Plan))
	}
	if d.Reason != "" {
		l = l.say(": ").code(r.show(d.Reason, 160))
	}
	return l
}

func (r renderer) buttons() []any {
	var out []any
	if r.v.DecideToken != "" && len(r.v.Options) > 0 {
		row := []any{button(ActionApprove, "Approve recommended…", "primary", r.v.DecideToken)}
		if len(r.v.Options) > 1 {
			row = append(row, button(ActionOther, "Other options…", "", r.v.DecideToken))
		}
		out = append(out, actions("decide", append(row, button(ActionDeny, "Deny…", "danger", r.v.DecideToken))...))
	}
	for i, h := range r.v.Holds[:min(len(r.v.Holds), maxHolds)] {
		out = append(out,
			footnote(fmt.Sprintf("on-%d", i), fmt.Sprintf("On now: %s plan %s", clean(h.Purpose, 10), short(h.Plan))),
			actions(fmt.Sprintf("hold-%d", i), button(ActionRelease, "Release…", "", h.Token),
				button(ActionExtend, "Extend…", "", h.Token), button(ActionRetire, "Retire…", "", h.Token)))
	}
	return out
}
