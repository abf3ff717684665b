package workflows

import (
	"fmt"
	"strings"
	"time"

	"go.temporal.io/sdk/workflow"

	"tourniquet.dev/tourniquet/activities"
)

// How long a page that reached nobody waits to be tried again, at first and at most, and for how long in all.
const (
	pageAgain, pageAgainMost = time.Minute, 15 * time.Minute
	pageWithin               = 7 * 24 * time.Hour
	mostPages                = 64
)

// pages calls people, and keeps what reached nobody until it does: a channel that is down for hours loses no page.
type pages struct {
	open  []activities.PageInput
	first time.Time // when the oldest of them was to be sent
	next  time.Time // when they are tried again
	wait  time.Duration
}

// send calls people. The same words are posted once. An error says that nobody was reached: it is tried again.
func (p *pages) send(ctx workflow.Context, in activities.PageInput) error {
	in.Once = strings.ToLower(fmt.Sprintf("%s:%.60s:%d", in.Reason, in.Text, in.Deadline.Unix()))
	err := callPeople(ctx, in)
	if err != nil {
		p.keep(ctx, in)
	}
	return err
}

func callPeople(ctx workflow.Context, in activities.PageInput) error {
	actx := workflow.WithActivityOptions(ctx, notifyOptions("page: "+string(in.Reason)))
	return workflow.ExecuteActivity(actx, notification.Page, in).Get(ctx, nil)
}

func (p *pages) keep(ctx workflow.Context, in activities.PageInput) {
	if len(p.open) == 0 {
		p.first, p.wait = workflow.Now(ctx), pageAgain
		p.next = p.first.Add(p.wait)
	}
	if len(p.open) >= mostPages {
		p.open = append(p.open[:1:1], p.open[2:]...) // the oldest of all stays: it says when it began
	}
	p.open = append(p.open, in)
}

// again tries what reached nobody, when its time has come, and returns what was delivered.
func (p *pages) again(ctx workflow.Context) (delivered []activities.PageInput) {
	if len(p.open) == 0 || workflow.Now(ctx).Before(p.next) {
		return nil
	}
	for len(p.open) > 0 {
		if err := callPeople(ctx, p.open[0]); err != nil {
			p.wait = min(2*p.wait, pageAgainMost)
			p.next = workflow.Now(ctx).Add(p.wait)
			return delivered
		}
		delivered, p.open = append(delivered, p.open[0]), p.open[1:]
	}
	return delivered
}

// before is the earlier of a time and the next try.
func (p *pages) before(t time.Time) time.Time {
	if len(p.open) > 0 && p.next.Before(t) {
		return p.next
	}
	return t
}

// sleep waits for the next try; false when every page has reached someone, or none has for a week.
func (p *pages) sleep(ctx workflow.Context) bool {
	if len(p.open) == 0 || workflow.Now(ctx).Sub(p.first) >= pageWithin {
		return false
	}
	_ = workflow.NewTimerWithOptions(ctx, max(p.next.Sub(workflow.Now(ctx)), time.Second), workflow.TimerOptions{Summary: "page again"}).Get(ctx, nil)
	return true
}

// page asks for a person, in the incident's thread, until one was reached. The story says which of the two it is.
func (r *incidentRun) page(ctx workflow.Context, why activities.PageReason, text string) {
	in := activities.PageInput{IncidentID: r.triage.IncidentID, Channel: r.card.channel, TS: r.card.ts, Reason: why, Ask: r.view.Tier, Text: text, Deadline: r.card.Deadline}
	if err := r.pages.send(ctx, in); err != nil {
		r.say(ctx, "NOT paged, tried again until somebody is reached: "+text+" ("+reason(err)+")")
	} else {
		r.say(ctx, "paged: "+text)
	}
	r.view.Unpaged = len(r.pages.open)
}

func (r *incidentRun) pageAgain(ctx workflow.Context) {
	for _, in := range r.pages.again(ctx) {
		r.say(ctx, "paged at last: "+in.Text)
	}
	r.view.Unpaged = len(r.pages.open)
}
